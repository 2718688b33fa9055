"""What rotations of a map keep of its transform, and those rotations that are exact on the grid."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int, Int32

from jaxrelax.geometry import PointGroup, is_axis_aligned_permutation
from jaxrelax.reconstruction.fsc import rfft_shells, squared_frequency


class HalfBall(NamedTuple):
    """The Fourier coefficients that rotations keep, as voxels of an rfftn array."""

    index: Int[np.ndarray, " ball"]  # into the flattened array
    frequencies: Float64[np.ndarray, "ball 3"]  # x, y, z in cycles per box
    shell: Int[np.ndarray, " ball"]
    multiplicity: Float64[np.ndarray, " ball"]  # 2 where the conjugate is not in the array


@lru_cache(maxsize=4)
def half_ball(n: int) -> HalfBall:
    """The coefficients of an n-box in whole shells: those that round to 0 … n/2 − 1."""
    f = np.fft.fftfreq(n, 1 / n)
    kz, ky, kx = np.meshgrid(f, f, np.arange(n // 2 + 1), indexing="ij")
    inside = np.flatnonzero(kx**2 + ky**2 + kz**2 < (n // 2 - 0.5) ** 2)
    frequencies = np.stack([k.reshape(-1)[inside] for k in (kx, ky, kz)], axis=1)
    shells, multiplicity = rfft_shells(n)
    return HalfBall(inside, frequencies, shells[inside], multiplicity[inside])


def permuted(map_, rotation: Float[np.ndarray, "3 3"]):
    """Exact rotation by a signed permutation: axes reordered and flipped about ``n // 2``.

    Of a NumPy or a JAX array, which the result is then, too.
    """
    xp = np if isinstance(map_, np.ndarray) else jnp
    # (gV)(r) = V(g⁻¹ r): output axis i (x, y, z) reads input axis j where g[i, j] = ±1.
    source = [int(np.argmax(np.abs(rotation[i]))) for i in range(3)]
    sign = [float(rotation[i, source[i]]) for i in range(3)]
    # Array axes are (z, y, x).
    result = map_.transpose([2 - source[2 - axis] for axis in range(3)])
    for axis in range(3):
        if sign[2 - axis] < 0:
            result = xp.roll(xp.flip(result, axis), 1, axis)
    return np.ascontiguousarray(result) if xp is np else result


def permuting_cosets(
    group: PointGroup,
) -> tuple[Bool[np.ndarray, " order"], list[int] | None]:
    """Which operators permute the axes, and one index of each left coset of their subgroup.

    The cosets are None if all operators do.
    """
    exact = np.array([is_axis_aligned_permutation(g) for g in group.operators])
    return exact, None if exact.all() else left_coset_representatives(group, exact)


def left_coset_representatives(group: PointGroup, members) -> list[int]:
    """One index r of each coset r P, for the subgroup P whose elements are marked."""
    remaining = set(range(group.order))
    representatives = []
    while remaining:
        g = min(remaining)
        representatives.append(g)
        remaining -= set(group.multiplication_table[g][members].tolist())
    return representatives


def traced_ball(n: int) -> tuple[Int32[Array, " ball"], Int32[Array, "ball 3"]]:
    """Index and frequencies (x, y, z) of :func:`half_ball`, made inside of a program.

    As constants of a program they would be copied many times while it is compiled.
    """
    inside = 4 * squared_frequency(n).reshape(-1) < (n - 1) ** 2
    index = jnp.flatnonzero(inside, size=len(half_ball(n).index))
    row = n // 2 + 1
    x, y, z = index % row, index // row % n, index // (row * n)
    y, z = (jnp.where(k < n - n // 2, k, k - n) for k in (y, z))
    return index.astype(jnp.int32), jnp.stack([x, y, z], axis=1).astype(jnp.int32)
