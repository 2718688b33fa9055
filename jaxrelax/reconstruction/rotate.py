"""Rotating and symmetrising maps without interpolation error that could pass for asymmetry.

Interpolating a map to symmetrise it leaves a residue which is the same in both half-maps, so their
asymmetric FSC would see it as signal. Signed permutations of the axes are exact on the grid; every
other rotation goes through a non-uniform FFT (FINUFFT; Barnett, Magland & af Klinteberg, SIAM J.
Sci. Comput. 41 (2019) C479), which evaluates the map's own transform at the rotated frequencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import finufft
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Bool, Complex64, Float, Float32, Float64, Int

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup, is_axis_aligned_permutation
from jaxrelax.reconstruction.fsc import rfft_shells

ACCURACY = 1e-5
# Rotations are evaluated together, for what they cost is mostly the transform of the map that they
# share; up to so many points, which bounds the memory (28 bytes each).
MOST_POINTS = 4_000_000
# Small transforms lose more by waking threads than they gain.
SINGLE_THREADED_POINTS = 100_000


def rotate_map(
    map_: Float32[AnyArray, "n n n"], rotation: Float[AnyArray, "3 3"]
) -> Float32[np.ndarray, "n n n"]:
    """The rotated map (gV)(r) = V(g⁻¹ r) about the centre ``n // 2``; r is (x, y, z).

    Frequencies beyond the inscribed sphere are dropped unless the rotation permutes the axes.
    """
    return next(rotated_maps(map_, np.asarray(rotation)[None]))


def rotated_maps(
    map_: Float32[AnyArray, "n n n"], rotations: Float[AnyArray, "m 3 3"]
) -> Iterator[Float32[np.ndarray, "n n n"]]:
    """The map turned by each of several rotations, as by :func:`rotate_map`, but faster."""
    map_, rotations = np.asarray(map_), np.asarray(rotations)
    exact = [is_axis_aligned_permutation(rotation) for rotation in rotations]
    others = _turned(map_, rotations[~np.array(exact, bool)])
    for rotation, by_axes in zip(rotations, exact, strict=True):
        yield permuted(map_, rotation) if by_axes else map_in_ball(next(others), len(map_))


def rotated_spectra(
    map_: Float32[np.ndarray, "n n n"], rotations: Float[np.ndarray, "m 3 3"]
) -> Iterator[Complex64[np.ndarray, " ball"]]:
    """Transforms, in the half ball, of the map turned by each of several rotations."""
    n = len(map_)
    exact = [is_axis_aligned_permutation(rotation) for rotation in rotations]
    others = _turned(map_, np.asarray(rotations)[~np.array(exact, bool)])
    for rotation, by_axes in zip(rotations, exact, strict=True):
        if by_axes:
            centred = np.fft.ifftshift(permuted(map_, rotation))
            transform = np.asarray(scipy.fft.rfftn(centred, workers=-1))
            yield transform.reshape(-1)[half_ball(n).index]
        else:
            yield next(others)


def _turned(map_, rotations) -> Iterator[np.ndarray]:
    """Transforms, in the half ball, for rotations that do not permute the axes."""
    n = len(map_)
    ball = half_ball(n)
    together = max(1, MOST_POINTS // len(ball.index))
    for start in range(0, len(rotations), together):
        some = np.asarray(rotations[start : start + together], np.float64)
        # Row vectors times g: coordinates of g⁻¹ k.
        points = (ball.frequencies[None] @ some).reshape(-1, 3)
        points = points.astype(np.float32) * np.float32(2 * np.pi / n)
        x, y, z = (np.ascontiguousarray(points[:, axis]) for axis in range(3))
        values = finufft.nufft3d2(
            z, y, x, map_.astype(np.complex64), isign=-1, eps=ACCURACY,
            nthreads=1 if len(x) <= SINGLE_THREADED_POINTS else 0,
        )  # fmt: skip
        yield from values.reshape(len(some), -1)


def map_in_ball(values: Complex64[np.ndarray, " ball"], n: int) -> Float32[np.ndarray, "n n n"]:
    """The map whose transform has these values in the half ball and nothing outside."""
    spectrum = np.zeros((n, n, n // 2 + 1), np.complex64)
    spectrum.reshape(-1)[half_ball(n).index] = values
    turned = np.asarray(scipy.fft.irfftn(spectrum, s=(n, n, n), workers=-1))
    return np.fft.fftshift(turned).astype(np.float32)


def inside_sphere(map_: Float32[np.ndarray, "n n n"]) -> Float32[np.ndarray, "n n n"]:
    """The map without the frequencies that :func:`rotate_map` drops."""
    index = half_ball(map_.shape[0]).index
    spectrum = np.asarray(scipy.fft.rfftn(map_, workers=-1))
    kept = np.zeros_like(spectrum)
    kept.reshape(-1)[index] = spectrum.reshape(-1)[index]
    return np.asarray(scipy.fft.irfftn(kept, s=map_.shape, workers=-1)).astype(np.float32)


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


def symmetrise(map_: Float32[AnyArray, "n n n"], group: PointGroup) -> Float32[np.ndarray, "n n n"]:
    """Average of a map over a group.

    The operators that permute the axes form a subgroup P and cost nothing; the average over G is
    the average of r_j (Sym_P V) over left coset representatives r_j of P in G.
    """
    map_ = np.asarray(map_)
    exact, cosets = permuting_cosets(group)
    average = np.mean([permuted(map_, g) for g in group.operators[exact]], axis=0)
    if cosets is None:
        return average.astype(np.float32)
    # The identity among them is not a rotation, but must lose the same corners of Fourier space.
    total = np.zeros(len(half_ball(len(map_)).index), np.complex64)
    for turned in rotated_spectra(average.astype(np.float32), group.operators[cosets]):
        total += turned
    return map_in_ball(total / np.float32(len(cosets)), len(map_))


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
