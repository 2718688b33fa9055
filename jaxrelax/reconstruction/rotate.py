"""Rotating and symmetrising maps without interpolation error that could pass for asymmetry.

Interpolating a map to symmetrise it leaves a residue which is the same in both half-maps, so their
asymmetric FSC would see it as signal. Signed permutations of the axes are exact on the grid; every
other rotation goes through a non-uniform FFT (FINUFFT; Barnett, Magland & af Klinteberg, SIAM J.
Sci. Comput. 41 (2019) C479), which evaluates the map's own transform at the rotated frequencies.
In a program or on an accelerator :mod:`jaxrelax.reconstruction.turning` does that.
"""

from __future__ import annotations

from collections.abc import Iterator

import finufft
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Complex64, Float, Float32

from jaxrelax.arrays import AnyArray, on_host, traced
from jaxrelax.geometry import PointGroup, is_axis_aligned_permutation
from jaxrelax.reconstruction.ball import half_ball, permuted, permuting_cosets
from jaxrelax.reconstruction.fsc import squared_frequency
from jaxrelax.reconstruction.turning import average_over, turned_maps

ACCURACY = 1e-5
# Rotations are evaluated together, for what they cost is mostly the transform of the map that they
# share; up to so many points, which bounds the memory (28 bytes each).
MOST_POINTS = 4_000_000
# Small transforms lose more by waking threads than they gain.
SINGLE_THREADED_POINTS = 100_000


def rotate_map(
    map_: Float32[AnyArray, "n n n"], rotation: Float[AnyArray, "3 3"]
) -> Float32[AnyArray, "n n n"]:
    """The rotated map (gV)(r) = V(g⁻¹ r) about the centre ``n // 2``; r is (x, y, z).

    Frequencies beyond the inscribed sphere are dropped unless the rotation permutes the axes; a
    traced rotation cannot be asked whether it does.
    """
    return next(rotated_maps(map_, rotation[None]))


def rotated_maps(
    map_: Float32[AnyArray, "n n n"], rotations: Float[AnyArray, "m 3 3"]
) -> Iterator[Float32[AnyArray, "n n n"]]:
    """The map turned by each of several rotations, as by :func:`rotate_map`, but faster."""
    if not on_host(map_, rotations):
        yield from _rotated_on_device(jnp.asarray(map_, jnp.float32), rotations)
        return
    map_, rotations = np.asarray(map_), np.asarray(rotations)
    exact = [is_axis_aligned_permutation(rotation) for rotation in rotations]
    others = _turned(map_, rotations[~np.array(exact, bool)])
    for rotation, by_axes in zip(rotations, exact, strict=True):
        yield permuted(map_, rotation) if by_axes else map_in_ball(next(others), len(map_))


def _rotated_on_device(map_, rotations) -> Iterator[AnyArray]:
    if traced(rotations):
        yield from turned_maps(map_, rotations)
        return
    rotations = np.asarray(rotations)
    exact = np.array([is_axis_aligned_permutation(rotation) for rotation in rotations], bool)
    others = iter(())
    if not exact.all():
        others = iter(turned_maps(map_, rotations[~exact].astype(np.float32)))
    for rotation, by_axes in zip(rotations, exact, strict=True):
        yield permuted(map_, rotation) if by_axes else next(others)


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


def inside_sphere(map_: Float32[AnyArray, "n n n"]) -> Float32[AnyArray, "n n n"]:
    """The map without the frequencies that :func:`rotate_map` drops."""
    if not on_host(map_):
        return _inside_on_device(map_)
    map_ = np.asarray(map_)
    index = half_ball(map_.shape[0]).index
    spectrum = np.asarray(scipy.fft.rfftn(map_, workers=-1))
    kept = np.zeros_like(spectrum)
    kept.reshape(-1)[index] = spectrum.reshape(-1)[index]
    return np.asarray(scipy.fft.irfftn(kept, s=map_.shape, workers=-1)).astype(np.float32)


@jax.jit
def _inside_on_device(map_):
    n = map_.shape[0]
    inside = 4 * squared_frequency(n) < (n - 1) ** 2
    return jnp.fft.irfftn(jnp.where(inside, jnp.fft.rfftn(map_), 0.0), s=map_.shape)


def symmetrise(map_: Float32[AnyArray, "n n n"], group: PointGroup) -> Float32[AnyArray, "n n n"]:
    """Average of a map over a group.

    The operators that permute the axes form a subgroup P and cost nothing; the average over G is
    the average of r_j (Sym_P V) over left coset representatives r_j of P in G.
    """
    if not on_host(map_):
        return average_over(map_, group)
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
