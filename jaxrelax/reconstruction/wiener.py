"""Maps from accumulators: the voxel-wise Wiener filter with a prior variance per shell."""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int16

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.imaging import (
    half_grid_shells,
    half_shape,
    map_from_half_transform,
)
from jaxrelax.imaging.slices import OVERSAMPLING
from jaxrelax.reconstruction.accumulators import Accumulator, traced_grid_shells

# Of the shell's mean weight: keeps voxels that no image reached from dividing zero by zero.
RIDGE = 1e-3
# What is fainter after regularisation is mostly noise, and is not made so much stronger.
MOST_FADED = 2.0


# An argument of the programs below and not a constant in them: a constant of this size is copied
# many times while a program is compiled, which made that the peak of a run's memory.
@lru_cache(maxsize=2)
def _shells(radius: int) -> Int16[np.ndarray, " voxels"]:
    return half_grid_shells(radius).reshape(-1).astype(np.int16)


@lru_cache(maxsize=64)
def _counts(radius: int, n_shells: int) -> Float32[np.ndarray, " shells"]:
    count = np.zeros(2 * radius, np.int64)  # no voxel is beyond these shells
    for plane in _shells(radius).reshape(2 * radius + 1, -1):
        count += np.bincount(plane, minlength=len(count))
    return np.maximum(count[:n_shells], 1).astype(np.float32)


@jax.jit
def _shell_means(values, shells, counts):
    n = counts.shape[0]
    shells = jnp.minimum(shells, n).astype(jnp.int32)
    return jax.ops.segment_sum(values[:, 2], shells, num_segments=n + 1)[:n] / counts


def mean_weight(accumulator: Accumulator, n_shells: int) -> Float[AnyArray, " shells"]:
    """Mean denominator of each shell: the inverse noise variance of the map's coefficients."""
    radius = accumulator.radius
    if not on_host(accumulator):
        return _mean_weight(accumulator, _counts(radius, n_shells))
    weight = np.asarray(accumulator.values)[:, 2].reshape(2 * radius + 1, -1)
    total = np.zeros(2 * radius)
    for shells, plane in zip(_shells(radius).reshape(weight.shape), weight, strict=True):
        total += np.bincount(shells, plane, minlength=len(total))
    return total[:n_shells] / _counts(radius, n_shells)


def wiener_map(
    accumulator: Accumulator,
    inverse_tau2: Float[AnyArray, " shells"],
    *,
    box: int,
    image_box: int,
    margin: int = 0,
    unfaded: bool = False,
) -> Float[Array, "n n n"]:
    """``num / (den + 1/τ²)`` on the oversampled grid, as a real map on the working box.

    Args:
        accumulator: completed (Hermitian) statistics.
        inverse_tau2: 1/τ² per shell in units of the denominator; shells beyond its length are
            set to zero. Zero entries give the unregularised map (a tiny ridge remains).
        box: working box of the map, at least the accumulator's radius.
        image_box: box of the images.
        margin: number of last shells over which the map falls smoothly to nothing. A sharp end has
            the symmetry of the grid; turned maps of a symmetric particle then differ at it.
        unfaded: give every shell back what regularisation takes of it in the mean, up to a factor
            `MOST_FADED`. For maps that are compared with each other: where their mean is too faint,
            images look as if they had more of all that it contains.
    """
    radius = accumulator.radius
    axes = [
        (np.arange(size) - centre).astype(np.float32) / OVERSAMPLING
        for size, centre in zip(half_shape(radius), (radius, radius, 0), strict=True)
    ]
    counts = _counts(radius, inverse_tau2.shape[0])
    if not on_host(accumulator, inverse_tau2):
        return _wiener_on_device(
            accumulator, inverse_tau2, counts, axes, box, image_box, margin, unfaded
        )
    return _wiener_map(
        accumulator, inverse_tau2, _shells(radius), counts, axes, box, image_box, margin, unfaded
    )


@partial(jax.jit, static_argnames=("box", "image_box", "margin", "unfaded"))
def _wiener_map(accumulator, inverse_tau2, shells, counts, axes, box, image_box, margin, unfaded):
    shape = half_shape(accumulator.radius)
    n_shells = inverse_tau2.shape[0]
    means = _shell_means(accumulator.values, shells, counts)
    shells = shells.astype(jnp.int32)
    prior = jnp.maximum(inverse_tau2, RIDGE * means + 1e-30)[jnp.minimum(shells, n_shells - 1)]
    numerator = jax.lax.complex(accumulator.values[:, 0], accumulator.values[:, 1])
    transform = numerator / (accumulator.values[:, 2] + prior)
    if unfaded:
        # Of voxels that no image reached nothing is taken, and nothing seen.
        weight = accumulator.values[:, 2]
        reached = weight > (RIDGE * means)[jnp.minimum(shells, n_shells - 1)]
        kept, of = (
            jax.ops.segment_sum(
                jnp.where(reached, each, 0.0), jnp.minimum(shells, n_shells),
                num_segments=n_shells + 1,
            )[:n_shells]
            for each in (weight / (weight + prior), jnp.ones_like(weight))
        )  # fmt: skip
        share = jnp.clip(kept / jnp.maximum(of, 1.0), 1.0 / MOST_FADED, 1.0)
        transform /= share[jnp.minimum(shells, n_shells - 1)]
    transform = jnp.where(shells < n_shells, transform, 0.0).reshape(shape)
    if margin:
        z, y, x = (axis**2 for axis in axes)
        frequency = jnp.sqrt(z[:, None, None] + y[None, :, None] + x[None, None, :])
        # 1 up to the end of the last shell before the margin.
        beyond = frequency - (n_shells - 0.5 - margin)
        transform *= 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip(beyond / margin, 0.0, 1.0))
    return map_from_half_transform(transform, box=box, image_box=image_box)


@partial(jax.jit, static_argnames=("box", "image_box", "margin", "unfaded"))
def _wiener_on_device(accumulator, inverse_tau2, counts, axes, box, image_box, margin, unfaded):
    shells = traced_grid_shells(accumulator.radius).reshape(-1)
    inverse_tau2 = jnp.asarray(inverse_tau2, jnp.float32)
    return _wiener_map(
        accumulator, inverse_tau2, shells, counts, axes, box, image_box, margin, unfaded
    )


@jax.jit
def _mean_weight(accumulator, counts):
    shells = traced_grid_shells(accumulator.radius).reshape(-1)
    return _shell_means(accumulator.values, shells, counts)


def inverse_tau2(
    weight: Float[AnyArray, " shells"], fsc: Float[AnyArray, " shells"]
) -> Float[AnyArray, " shells"]:
    """1/τ² of a half-map from its mean weight and the FSC between half-maps.

    SSNR = F/(1−F) = τ² · weight (Scheres 2012, eq. 9, without the factor 2 of the joined map).
    """
    xp = np if on_host(weight, fsc) else jnp
    f = xp.clip(xp.asarray(fsc), 1e-3, 0.999)
    return xp.asarray(weight) * (1.0 - f) / f
