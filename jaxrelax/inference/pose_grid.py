"""Exhaustive local pose search on a grid of rotations and shifts: the reference.

It evaluates the same posterior as :class:`jaxrelax.inference.GaussNewton` without any expansion,
and is what that one is tested against.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from jaxrelax.arrays import on_device
from jaxrelax.geometry import exp_so3
from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry
from jaxrelax.inference.gauss_newton import small_rotation_vector
from jaxrelax.inference.likelihood import log_likelihood, residual_power
from jaxrelax.inference.pose_search import (
    PosePosterior,
    PosePrior,
    Poses,
    PoseSearch,
    posterior_spread,
)


class PoseGrid(PoseSearch):
    """Grid search over ±``extent`` prior standard deviations around the consensus pose.

    Attributes:
        extent: half width of the grid in prior standard deviations.
        n_rotation: points per rotation axis (odd).
        n_shift: points per shift axis (odd).
    """

    extent: float = 2.5
    n_rotation: int = 5
    n_shift: int = 5

    def __check_init__(self):
        if self.n_rotation % 2 == 0 or self.n_shift % 2 == 0:
            raise ValueError("PoseGrid needs odd numbers of points, so that the centre is one")

    def offsets(self) -> Float32[np.ndarray, "points 5"]:
        """Grid points in prior standard deviations (rotation x, y, z, origin x, y)."""
        rotation = self._axis(self.n_rotation)
        shift = self._axis(self.n_shift)
        return np.array(
            list(itertools.product(rotation, rotation, rotation, shift, shift)), np.float32
        )

    def _axis(self, n):
        return np.linspace(-self.extent, self.extent, n) if n > 1 else np.zeros(1)

    def __call__(
        self,
        target: FourierVolume,
        batch: ImageBatch,
        geometry: ImageGeometry,
        poses: Poses,
        prior: PosePrior,
        n_shells: int,
    ) -> PosePosterior:
        """Posterior sums over the grid; the prior is the normalised Gaussian on its points."""
        target, batch, poses, prior = on_device((target, batch, poses, prior))
        offsets = jnp.asarray(self.offsets())
        log_prior = jax.nn.log_softmax(-0.5 * jnp.sum(offsets**2, axis=-1))
        scales = prior.scales()

        def place(offset):
            scaled = offset * scales
            return (
                exp_so3(scaled[:3])[None] @ poses.prior_rotations,
                poses.prior_origins_px + scaled[None, 3:],
            )

        def score(point):
            offset, log_p = point
            return log_likelihood(target, batch, geometry, *place(offset))[0] + log_p

        scores = jax.lax.map(score, (offsets, log_prior))  # points, batch, registers
        evidence = jax.nn.logsumexp(scores, axis=0)
        weights = jnp.exp(scores - evidence[None])
        mean = jnp.einsum("pbj,pa->bja", weights, offsets)
        second = jnp.einsum("pbj,pa,pc->bjac", weights, offsets, offsets)
        scaled = mean * scales[None, None]
        rotations = exp_so3(scaled[..., :3]) @ poses.prior_rotations[:, None]
        origins = poses.prior_origins_px[:, None] + scaled[..., 3:]
        registers = target.channels
        power = [
            residual_power(
                log_likelihood(target, batch, geometry, rotations[:, j], origins[:, j])[1],
                geometry,
                n_shells,
            )[:, j]
            for j in range(registers)
        ]
        turn = small_rotation_vector(
            rotations @ jnp.swapaxes(poses.prior_rotations, -1, -2)[:, None]
        )
        offset = jnp.concatenate([turn / scales[None, None, :3], mean[..., 3:]], axis=-1)
        covariance = second - mean[..., :, None] * mean[..., None, :]
        return PosePosterior(
            log_evidence=evidence,
            rotations=rotations,
            origins_px=origins,
            offset=offset,
            covariance=covariance,
            spread=posterior_spread(covariance, prior),
            residual_power=jnp.stack(power, axis=1),
        )
