"""Maps from accumulators: the voxel-wise Wiener filter with a prior variance per shell."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelax.imaging import (
    half_grid_frequencies,
    half_grid_shells,
    half_shape,
    map_from_half_transform,
)
from jaxrelax.reconstruction.accumulators import Accumulator

# Of the shell's mean weight: keeps voxels that no image reached from dividing zero by zero.
RIDGE = 1e-3


@partial(jax.jit, static_argnames=("radius", "n_shells"))
def _shell_means(weight, radius: int, n_shells: int):
    shells = np.minimum(half_grid_shells(radius), n_shells).reshape(-1)
    count = np.bincount(shells, minlength=n_shells + 1)
    sums = jax.ops.segment_sum(weight, jnp.asarray(shells), num_segments=n_shells + 1)
    return sums[:n_shells] / np.maximum(count, 1)[:n_shells].astype(np.float32)


def mean_weight(accumulator: Accumulator, n_shells: int) -> Float[Array, " shells"]:
    """Mean denominator of each shell: the inverse noise variance of the map's coefficients."""
    return _shell_means(accumulator.values[:, 2], accumulator.radius, n_shells)


@partial(jax.jit, static_argnames=("box", "image_box", "margin"))
def wiener_map(
    accumulator: Accumulator,
    inverse_tau2: Float[Array, " shells"],
    *,
    box: int,
    image_box: int,
    margin: int = 0,
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
    """
    radius = accumulator.radius
    n_shells = inverse_tau2.shape[0]
    shells = half_grid_shells(radius).reshape(-1)
    inside = jnp.asarray(shells < n_shells)
    lookup = np.minimum(shells, n_shells - 1)
    prior = jnp.maximum(inverse_tau2, RIDGE * mean_weight(accumulator, n_shells) + 1e-30)[lookup]
    numerator = jax.lax.complex(accumulator.values[:, 0], accumulator.values[:, 1])
    transform = jnp.where(inside, numerator / (accumulator.values[:, 2] + prior), 0.0)
    if margin:
        # 1 up to the end of the last shell before the margin.
        beyond = half_grid_frequencies(radius).reshape(-1) - (n_shells - 0.5 - margin)
        fall = 0.5 + 0.5 * np.cos(np.pi * np.clip(beyond / margin, 0.0, 1.0))
        transform = transform * fall.astype(np.float32)
    return map_from_half_transform(
        transform.reshape(half_shape(radius)), box=box, image_box=image_box
    )


def inverse_tau2(
    weight: Float[np.ndarray, " shells"], fsc: Float[np.ndarray, " shells"]
) -> Float[np.ndarray, " shells"]:
    """1/τ² of a half-map from its mean weight and the FSC between half-maps.

    SSNR = F/(1−F) = τ² · weight (Scheres 2012, eq. 9, without the factor 2 of the joined map).
    """
    f = np.clip(fsc, 1e-3, 0.999)
    return weight * (1.0 - f) / f
