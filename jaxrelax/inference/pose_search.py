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
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.geometry import exp_so3
from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry
from jaxrelax.inference.likelihood import log_likelihood, residual_power
from jaxrelax.inference.small_systems import cholesky

N_OFFSETS = 5  # three rotations, two shifts


class Poses(eqx.Module):
    """Poses of a batch: current, and the consensus around which the prior sits.

    For searches that follow them also the modes that every image had last.
    """

    rotations: Float[AnyArray, "batch 3 3"]
    origins_px: Float[AnyArray, "batch 2"]
    prior_rotations: Float[AnyArray, "batch 3 3"]
    prior_origins_px: Float[AnyArray, "batch 2"]
    mode_rotations: Float[AnyArray, "batch modes 3 3"] | None = None
    mode_origins_px: Float[AnyArray, "batch modes 2"] | None = None


class PosePrior(eqx.Module):
    """Gaussian prior of the pose around the consensus; per axis, in radians and image pixels."""

    sigma_rotation_rad: Float[AnyArray, ""]
    sigma_shift_px: Float[AnyArray, ""]

    def scales(self) -> Float[Array, "5"]:
        """Standard deviations of (δx, δy, δz, origin x, origin y)."""
        rotation, shift = self.sigma_rotation_rad, self.sigma_shift_px
        return jnp.stack([rotation, rotation, rotation, shift, shift])


class PosePosterior(eqx.Module):
    """Result of a pose search for every image and hypothesis: channel (register), at one pose.

    Where a search returns several modes, the channels of the first come first; the loop splits
    this axis into modes and registers.

    ``offset`` and ``covariance`` are relative to the prior, in units of its standard deviations.
    ``spread`` is a root of the covariance in radians and image pixels.
    """

    log_evidence: Float[AnyArray, "batch *hypotheses"]
    rotations: Float[AnyArray, "batch *hypotheses 3 3"]
    origins_px: Float[AnyArray, "batch *hypotheses 2"]
    offset: Float[AnyArray, "batch *hypotheses 5"]
    covariance: Float[AnyArray, "batch *hypotheses 5 5"]
    spread: Float[AnyArray, "batch *hypotheses 5 5"]
    residual_power: Float[AnyArray, "batch *hypotheses shells"]


# Of every field of a posterior, what follows the axes of images and hypotheses.
TAILS = {
    "log_evidence": (),
    "rotations": (3, 3),
    "origins_px": (2,),
    "offset": (N_OFFSETS,),
    "covariance": (N_OFFSETS, N_OFFSETS),
    "spread": (N_OFFSETS, N_OFFSETS),
}


def require_posterior(search: PoseSearch, found: Any, images: int, rows: int, shells: int) -> None:
    """Refuse what is no posterior of every image and hypothesis, in words.

    Taken as it is, it would fail far away in a compiled program, or be spread over axes that it
    does not have.

    Args:
        search: that returned it.
        found: what it returned; may be traced.
        images: of the batch.
        rows: of the table: channels of the volume.
        shells: of the residual power.

    Raises:
        TypeError: it is no `PosePosterior`, or a field of it no array.
        ValueError: a field has another shape.
    """
    name = f"pose search {type(search).__name__}"
    if not isinstance(found, PosePosterior):
        raise TypeError(
            f"{name} returned {type(found).__name__}; a search returns a "
            "jaxrelax.inference.PosePosterior"
        )
    for field, tail in (TAILS | {"residual_power": (shells,)}).items():
        value = getattr(found, field)
        if not hasattr(value, "shape"):
            raise TypeError(f"{name}: {field} is {type(value).__name__}, not an array")
        expected = (images, search.modes * rows, *tail)
        if value.shape != expected:
            raise ValueError(
                f"{name}: {field} has shape {value.shape}, and {expected} is needed: {images} "
                f"images and {search.modes * rows} hypotheses ({search.modes} "
                f"mode{'s' if search.modes > 1 else ''} of {rows} channels of the volume)"
            )


def posterior_spread(
    covariance: Float[Array, "batch hypotheses 5 5"], prior: PosePrior
) -> Float[Array, "batch hypotheses 5 5"]:
    """Lower Cholesky root of a covariance in prior units, in radians and image pixels."""
    # A grid of one point along an axis has no variance there.
    floor = 1e-6 * jnp.eye(N_OFFSETS, dtype=covariance.dtype)
    return cholesky(covariance + floor[None, None]) * prior.scales()[None, None, :, None]


def require_pairs(n_draws: int) -> None:
    """Refuse a number of draws that :func:`draw_poses` cannot make.

    Raises:
        ValueError: it is odd or negative.
    """
    if n_draws < 0 or n_draws % 2:
        raise ValueError(f"draws come in pairs; got n_draws={n_draws}")


def draw_poses(
    found: PosePosterior,
    modes: Float[AnyArray, "batch modes registers"],
    key: Key[Array, ""],
    images: Int[AnyArray, " batch"],
    draws: int,
) -> tuple[Float[Array, "batch draws registers 3 3"], Float[Array, "batch draws registers 2"]]:
    """Poses of every register drawn from its posterior, a mixture of Gaussians: rotations, origins.

    Draws are spread over the modes as evenly as their probabilities allow (systematic resampling,
    Kitagawa, J. Comput. Graph. Stat. 5 (1996) 1), and every other one is the mirror of the one
    before if both are of one mode, so that their mean is its peak.

    Args:
        found: result of a search, its hypotheses split into modes and registers.
        modes: probability of each, given the register.
        key: of this pass over the images.
        images: numbers of the images, so that a draw does not depend on the batch that it is in.
        draws: how many; even.
    """
    found, modes, images = on_device((found, modes, images))
    registers = modes.shape[2]

    def random(image):
        one, other = jax.random.split(jax.random.fold_in(key, image))
        normal = jax.random.normal(other, (draws // 2, 1, registers, N_OFFSETS))
        mirrored = jnp.concatenate([normal, -normal], axis=1).reshape(draws, registers, N_OFFSETS)
        return jax.random.uniform(one, (1, registers)), mirrored

    begin, normal = jax.vmap(random)(images)
    places = (jnp.arange(draws)[None, :, None] + begin) / draws
    below = jnp.cumsum(modes, axis=1)[:, None] < places[:, :, None]
    # Rounding may leave the sum of the probabilities below the last place.
    mode = jnp.minimum(below.sum(axis=2), modes.shape[1] - 1)

    def chosen(values):
        index = mode.reshape(*mode.shape, *(1,) * (values.ndim - 3))
        return jnp.take_along_axis(values, index, axis=1)

    offset = jnp.einsum("bdrac,bdrc->bdra", chosen(found.spread), normal)
    return (
        exp_so3(offset[..., :3]) @ chosen(found.rotations),
        chosen(found.origins_px) + offset[..., 3:],
    )


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
    def from_picking(self) -> bool:
        """Whether its prior says how far a particle is from where it was picked, and no more.

        If not, the prior sits around a consensus pose.
        """
        return False

    @property
    def follows_modes(self) -> bool:
        """Whether it begins from the modes that every image had last (``Poses.mode_rotations``)."""
        return False

    @property
    def holds_poses(self) -> bool:
        """Whether poses stay where they are."""
        return False

    @property
    def draws(self) -> int:
        """At how many draws of its posterior an image goes into the map; 0: at its peaks."""
        return 0

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

    @property
    def holds_poses(self) -> bool:
        """They do."""
        return True

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
        poses = on_device(poses)
        scores, power = log_likelihood(target, batch, geometry, poses.rotations, poses.origins_px)
        n, registers = scores.shape
        return PosePosterior(
            log_evidence=scores,
            rotations=jnp.broadcast_to(poses.rotations[:, None], (n, registers, 3, 3)),
            origins_px=jnp.broadcast_to(poses.origins_px[:, None], (n, registers, 2)),
            offset=jnp.zeros((n, registers, N_OFFSETS), scores.dtype),
            covariance=jnp.zeros((n, registers, N_OFFSETS, N_OFFSETS), scores.dtype),
            spread=jnp.zeros((n, registers, N_OFFSETS, N_OFFSETS), scores.dtype),
            residual_power=residual_power(power, geometry, n_shells),
        )
