"""Rotating and symmetrising maps without interpolation error that could pass for asymmetry.

Interpolating a map to symmetrise it leaves a residue which is the same in both half-maps, so their
asymmetric FSC would see it as signal. Signed permutations of the axes are exact on the grid; every
other rotation goes through a non-uniform FFT (FINUFFT; Barnett, Magland & af Klinteberg, SIAM J.
Sci. Comput. 41 (2019) C479), which evaluates the map's own transform at the rotated frequencies.
"""

from __future__ import annotations

from functools import lru_cache

import finufft
import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

from jaxrelax.geometry import PointGroup, is_axis_aligned_permutation

ACCURACY = 1e-5
# Small transforms lose more by waking threads than they gain.
SINGLE_THREADED_BOX = 48


def rotate_map(
    map_: Float32[np.ndarray, "n n n"], rotation: Float[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "n n n"]:
    """The rotated map (gV)(r) = V(g⁻¹ r) about the centre ``n // 2``; r is (x, y, z).

    Frequencies beyond the inscribed sphere are dropped unless the rotation permutes the axes.
    """
    if is_axis_aligned_permutation(rotation):
        return _permute(map_, rotation)
    n = map_.shape[0]
    index, k = _half_ball(n)
    # Row vectors times g: coordinates of g⁻¹ k.
    points = (k @ np.asarray(rotation, np.float64)).astype(np.float32) * np.float32(2 * np.pi / n)
    x, y, z = (np.ascontiguousarray(points[:, axis]) for axis in range(3))
    values = finufft.nufft3d2(
        z, y, x, map_.astype(np.complex64), isign=-1, eps=ACCURACY,
        nthreads=1 if n <= SINGLE_THREADED_BOX else 0,
    )  # fmt: skip
    spectrum = np.zeros((n, n, n // 2 + 1), np.complex64)
    spectrum.reshape(-1)[index] = values
    turned = np.asarray(scipy.fft.irfftn(spectrum, s=(n, n, n), workers=-1))
    return np.fft.fftshift(turned).astype(np.float32)


def inside_sphere(map_: Float32[np.ndarray, "n n n"]) -> Float32[np.ndarray, "n n n"]:
    """The map without the frequencies that :func:`rotate_map` drops."""
    index, _ = _half_ball(map_.shape[0])
    spectrum = np.asarray(scipy.fft.rfftn(map_, workers=-1))
    kept = np.zeros_like(spectrum)
    kept.reshape(-1)[index] = spectrum.reshape(-1)[index]
    return np.asarray(scipy.fft.irfftn(kept, s=map_.shape, workers=-1)).astype(np.float32)


@lru_cache(maxsize=4)
def _half_ball(n: int):
    """Flat indices into the rfftn array and (x, y, z) frequencies inside the sphere."""
    f = np.fft.fftfreq(n, 1 / n)
    kz, ky, kx = np.meshgrid(f, f, np.arange(n // 2 + 1), indexing="ij")
    # What shells 0 … n/2 − 1 round to, so that no shell is kept in part.
    inside = kx**2 + ky**2 + kz**2 < (n // 2 - 0.5) ** 2
    return np.flatnonzero(inside), np.stack([kx[inside], ky[inside], kz[inside]], axis=1)


def _permute(map_, rotation):
    """Exact rotation by a signed permutation: axes reordered and flipped about ``n // 2``."""
    # (gV)(r) = V(g⁻¹ r): output axis i (x, y, z) reads input axis j where g[i, j] = ±1.
    source = [int(np.argmax(np.abs(rotation[i]))) for i in range(3)]
    sign = [float(rotation[i, source[i]]) for i in range(3)]
    # Array axes are (z, y, x).
    result = map_.transpose([2 - source[2 - axis] for axis in range(3)])
    for axis in range(3):
        if sign[2 - axis] < 0:
            result = np.roll(np.flip(result, axis), 1, axis)
    return np.ascontiguousarray(result)


def symmetrise(
    map_: Float32[np.ndarray, "n n n"], group: PointGroup
) -> Float32[np.ndarray, "n n n"]:
    """Average of a map over a group.

    The operators that permute the axes form a subgroup P and cost nothing; the average over G is
    the average of r_j (Sym_P V) over left coset representatives r_j of P in G.
    """
    exact = np.array([is_axis_aligned_permutation(g) for g in group.operators])
    average = np.mean([_permute(map_, g) for g in group.operators[exact]], axis=0)
    if exact.all():
        return average.astype(np.float32)
    cosets = left_coset_representatives(group, exact)
    # The identity among them is not a rotation, but must lose the same corners of Fourier space.
    average = inside_sphere(average.astype(np.float32))
    turned = [rotate_map(average, group.operators[g]) for g in cosets]
    return np.mean(turned, axis=0).astype(np.float32)


def left_coset_representatives(group: PointGroup, members) -> list[int]:
    """One index r of each coset r P, for the subgroup P whose elements are marked."""
    remaining = set(range(group.order))
    representatives = []
    while remaining:
        g = min(remaining)
        representatives.append(g)
        remaining -= set(group.multiplication_table[g][members].tolist())
    return representatives
