"""What a pose search returns, the prior it works under, and the search that does nothing.

A search looks at the neighbourhood of each image's consensus pose and returns, for every register,
the evidence with the pose integrated out (or held), the posterior pose, and the expected residual
power. Registers share the pose: register j of an image with pose A is the view A r_jᵀ, which is
channel j of the volume at A.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry
from jaxrelax.inference.likelihood import log_likelihood, residual_power

N_OFFSETS = 5  # three rotations, two shifts


class Poses(eqx.Module):
    """Poses of a batch: current, and the consensus around which the prior sits."""

    rotations: Float[Array, "batch 3 3"]
    origins_px: Float[Array, "batch 2"]
    prior_rotations: Float[Array, "batch 3 3"]
    prior_origins_px: Float[Array, "batch 2"]


class PosePrior(eqx.Module):
    """Gaussian prior of the pose around the consensus; per axis, in radians and image pixels."""

    sigma_rotation_rad: Float[Array, ""]
    sigma_shift_px: Float[Array, ""]

    def scales(self) -> Float[Array, "5"]:
        """Standard deviations of (δx, δy, δz, origin x, origin y)."""
        rotation, shift = self.sigma_rotation_rad, self.sigma_shift_px
        return jnp.stack([rotation, rotation, rotation, shift, shift])


class PosePosterior(eqx.Module):
    """Result of a pose search for every image and hypothesis: channel (register), at one pose.

    Where a search returns several modes, the channels of the first come first.

    ``offset`` and ``covariance`` are relative to the prior, in units of its standard deviations.
    """

    log_evidence: Float[Array, "batch hypotheses"]
    rotations: Float[Array, "batch hypotheses 3 3"]
    origins_px: Float[Array, "batch hypotheses 2"]
    offset: Float[Array, "batch hypotheses 5"]
    covariance: Float[Array, "batch hypotheses 5 5"]
    residual_power: Float[Array, "batch hypotheses shells"]


class PoseSearch(eqx.Module):
    """Interface of searches around a consensus pose, or over all of them.

    What a search needs of a map beyond its volume it makes once, in ``prepare``, and is then called
    with the result in place of the volume.
    """

    @property
    def is_global(self) -> bool:
        """Whether it finds poses without one to start from."""
        return False

    @property
    def modes(self) -> int:
        """Poses per image and channel that it returns; as likely as each other beforehand."""
        return 1

    def prepare(self, volume: FourierVolume, geometry: ImageGeometry) -> Any:
        """What is searched, from the volume of the map: the volume itself by default."""
        return volume

    @abc.abstractmethod
    def __call__(
        self,
        target: Any,
        batch: ImageBatch,
        geometry: ImageGeometry,
        poses: Poses,
        prior: PosePrior,
        n_shells: int,
    ) -> PosePosterior:
        """Evidence and posterior pose of every register; pure and jit-able.

        Args:
            target: from :meth:`prepare`.
            batch: packed images in the scored band.
            geometry: of that band.
            poses: current ones and the consensus.
            prior: around the consensus.
            n_shells: of the residual power.
        """


class FixedPoses(PoseSearch):
    """Registers only: the pose stays exactly where it is."""

    def __call__(
        self,
        target: FourierVolume,
        batch: ImageBatch,
        geometry: ImageGeometry,
        poses: Poses,
        prior: PosePrior,
        n_shells: int,
    ) -> PosePosterior:
        """Log-likelihood of each register at the given pose."""
        scores, power = log_likelihood(target, batch, geometry, poses.rotations, poses.origins_px)
        n, registers = scores.shape
        return PosePosterior(
            log_evidence=scores,
            rotations=jnp.broadcast_to(poses.rotations[:, None], (n, registers, 3, 3)),
            origins_px=jnp.broadcast_to(poses.origins_px[:, None], (n, registers, 2)),
            offset=jnp.zeros((n, registers, N_OFFSETS), scores.dtype),
            covariance=jnp.zeros((n, registers, N_OFFSETS, N_OFFSETS), scores.dtype),
            residual_power=residual_power(power, geometry, n_shells),
        )
