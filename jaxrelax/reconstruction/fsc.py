"""Fourier shell correlation, its masked and phase-randomised forms, and resolution."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float, Float32, Float64, Int, Int32

from jaxrelax.arrays import AnyArray, traced

# Noise correlates by 1/√n of them: at this many 0.143 is two standard errors.
ENOUGH_COEFFICIENTS = (2.0 / 0.143) ** 2


@lru_cache(maxsize=4)
def rfft_shells(n: int) -> tuple[Int[np.ndarray, " voxels"], Float64[np.ndarray, " voxels"]]:
    """Shell and Hermitian multiplicity of every voxel of an rfftn array, flattened."""
    f = np.fft.fftfreq(n, 1 / n)
    x = np.arange(n // 2 + 1)
    r = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + x[None, None, :] ** 2)
    multiplicity = np.where((x == 0) | (x == n // 2), 1.0, 2.0)
    multiplicity = np.broadcast_to(multiplicity, r.shape)
    return np.rint(r).astype(np.int32).ravel(), multiplicity.ravel().astype(np.float64)


def squared_frequency(n: int) -> Int32[Array, "z y x"]:
    """|k|² in cycles per box of every coefficient of an rfftn array, made inside of a program."""
    f = (jnp.arange(n, dtype=jnp.int32) + n // 2) % n - n // 2
    x = jnp.arange(n // 2 + 1, dtype=jnp.int32)
    return (f**2)[:, None, None] + (f**2)[None, :, None] + (x**2)[None, None, :]


def traced_shells(n: int) -> Int32[Array, "z y x"]:
    """Shell of every coefficient of an rfftn array, made inside of a program."""
    # No square root of an integer lies halfway between two integers.
    return jnp.rint(jnp.sqrt(squared_frequency(n).astype(jnp.float32))).astype(jnp.int32)


def shell_counts(n: int) -> Float64[np.ndarray, " shells"]:
    """Number of Fourier coefficients (full sphere) in each shell 0 … n/2 of an n-box."""
    shells, multiplicity = rfft_shells(n)
    return np.bincount(shells, multiplicity)[: n // 2 + 1]


def spectrum(map_: Float[AnyArray, "n n n"]):
    """Rfftn of a map, flattened; what the shell sums below take."""
    if traced(map_):
        return jnp.fft.rfftn(map_).ravel()
    return np.asarray(scipy.fft.rfftn(np.asarray(map_, np.float32), workers=-1)).ravel()


def cross_power(a, b, n: int) -> Float[AnyArray, " shells"]:
    """Re Σ a* b over each shell 0 … n/2, for spectra of :func:`spectrum`.

    In double precision outside of programs.
    """
    if traced(a, b):
        x = jnp.arange(n // 2 + 1)
        twice = jnp.where((x == 0) | (2 * x == n), 1.0, 2.0).astype(a.real.dtype)
        power = (a.real * b.real + a.imag * b.imag).reshape(n, n, -1) * twice[None, None, :]
        sums = jax.ops.segment_sum(power.ravel(), traced_shells(n).ravel(), num_segments=n)
        return sums[: n // 2 + 1]
    shells, multiplicity = rfft_shells(n)
    return np.bincount(shells, multiplicity * (a.real * b.real + a.imag * b.imag))[: n // 2 + 1]


def fsc(
    map1: Float[AnyArray, "n n n"],
    map2: Float[AnyArray, "n n n"],
    mask: Float[AnyArray, "n n n"] | None = None,
) -> Float64[np.ndarray, " shells"]:
    """Fourier shell correlation in shells 0 … n/2 (Harauz & van Heel, Optik 73 (1986) 146)."""
    map1, map2 = np.asarray(map1), np.asarray(map2)
    n = map1.shape[0]
    if mask is not None:
        map1, map2 = map1 * np.asarray(mask), map2 * np.asarray(mask)
    a, b = spectrum(map1), spectrum(map2)
    power = np.sqrt(cross_power(a, a, n) * cross_power(b, b, n))
    return np.divide(cross_power(a, b, n), power, out=np.zeros_like(power), where=power > 0)


def randomise_phases(
    map_: Float[np.ndarray, "n n n"], from_shell: int, rng: np.random.Generator
) -> Float32[np.ndarray, "n n n"]:
    """The map with random phases (of a real map) from ``from_shell`` on."""
    n = map_.shape[0]
    transform = np.asarray(scipy.fft.rfftn(np.asarray(map_, np.float32), workers=-1))
    noise = rng.standard_normal(map_.shape).astype(np.float32)
    phases = np.asarray(scipy.fft.rfftn(noise, workers=-1))
    phases /= np.maximum(np.abs(phases), 1e-20)
    shells = rfft_shells(n)[0].reshape(transform.shape)
    mixed = np.where(shells >= from_shell, np.abs(transform) * phases, transform)
    return np.asarray(scipy.fft.irfftn(mixed, s=map_.shape, workers=-1)).astype(np.float32)


def corrected_fsc(
    map1: Float[AnyArray, "n n n"],
    map2: Float[AnyArray, "n n n"],
    mask: Float[AnyArray, "n n n"],
    rng: np.random.Generator,
) -> dict[str, Float64[np.ndarray, " shells"]]:
    """FSC unmasked, masked, with randomised phases, and corrected for the mask's own correlation.

    Chen et al., Ultramicroscopy 135 (2013) 24: phases are randomised where the unmasked FSC first
    falls below 0.8, and two shells later the corrected curve is (F − R)/(1 − R).
    """
    map1, map2 = np.asarray(map1), np.asarray(map2)
    unmasked = fsc(map1, map2)
    masked = fsc(map1, map2, mask)
    start = max(first_below(unmasked, 0.8), 2)
    random = fsc(randomise_phases(map1, start, rng), randomise_phases(map2, start, rng), mask)
    corrected = masked.copy()
    beyond = np.arange(len(masked)) >= start + 2
    safe = np.minimum(random, 0.999)
    corrected[beyond] = ((masked - safe) / (1.0 - safe))[beyond]
    return {"unmasked": unmasked, "masked": masked, "random": random, "corrected": corrected}


def first_below(
    curve: Float[AnyArray, " shells"],
    threshold: float,
    counts: Float[AnyArray, " counted"] | None = None,
) -> int:
    """First shell (from 1) whose value falls below the threshold; the length if none does.

    Args:
        curve: FSC per shell.
        threshold: of the FSC.
        counts: independent coefficients behind every shell, of these at least. One of few, as the
            lowest, falls below only if it does so together with the next ones (:func:`pooled`).
            None: every shell by itself.
    """
    if counts is not None:
        curve = np.maximum(curve, pooled(curve, counts))
    below = np.flatnonzero(np.asarray(curve)[1:] < threshold)
    return int(below[0]) + 1 if len(below) else len(curve)


def resolved_shell(
    curve: Float[AnyArray, " shells"], counts: Float[AnyArray, " counted"], threshold: float = 0.143
) -> int:
    """Last shell before the FSC of a part of the map falls below the threshold; 0: none is.

    Args:
        curve: FSC per shell.
        counts: independent coefficients behind every shell, of these at least; shells of few are
            judged together with the next ones, see :func:`first_below`.
        threshold: of the FSC.
    """
    return first_below(curve, threshold, counts) - 1


def pooled(
    curve: Float[AnyArray, " shells"],
    counts: Float[AnyArray, " counted"],
    enough: float = ENOUGH_COEFFICIENTS,
) -> Float64[np.ndarray, " shells"]:
    """Every shell's FSC averaged with those of the next shells, as few as have enough coefficients.

    The FSC of n coefficients scatters by 1/√n: one shell of ten can be negative where those around
    it agree at 0.9. Weighted by their numbers; where fewer are left, all that are.

    Args:
        curve: FSC per shell.
        counts: independent coefficients per shell, of which the curve's length is used.
        enough: how many coefficients stand by themselves.
    """
    weight = np.asarray(counts, np.float64)[: len(curve)]
    sums = np.concatenate([[0.0], np.cumsum(weight * np.asarray(curve, np.float64))])
    total = np.concatenate([[0.0], np.cumsum(weight)])
    start = np.arange(len(curve))
    # The first end at which enough lie between.
    end = np.searchsorted(total, total[start] + enough * (1.0 - 1e-9))
    end = np.clip(end, start + 1, len(curve))
    held = total[end] - total[start]
    return np.divide(sums[end] - sums[start], held, out=np.zeros(len(curve)), where=held > 0)


def resolution_shell(
    curve: Float[AnyArray, " shells"],
    threshold: float = 0.143,
    counts: Float[AnyArray, " counted"] | None = None,
) -> int:
    """Last shell before the FSC first falls below the threshold (at least 1).

    Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721, for the threshold.

    Args:
        curve, threshold, counts: as for :func:`first_below`.
    """
    return max(first_below(curve, threshold, counts) - 1, 1)
