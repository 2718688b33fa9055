"""Gains per band and place: a Wiener filter for signal and noise that vary in space.

A shell's gain F is that of the mean of signal and noise inside the mask. In a band around it the
ratio of signal to noise at a place is r(x) times that of the mean, and the gain there is

    r F / (1 − F + r F) = f F,    f = r / (1 − F + r F),

so that f is 1 where a place is like the mean. r is seen in windows of a few wavelengths of the
band: the signal by the covariance of the half-maps, the noise by their difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Float64

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction.fsc import cross_power, shell_counts, spectrum
from jaxrelax.reconstruction.isotypic import apply_gain
from jaxrelax.reconstruction.local_gains import product_scatter

# Standard deviation of a window, in wavelengths of its band: as much as a ball 2.2 wide.
WINDOW = 0.5
# In voxels: on every second one nothing narrower is held.
NARROWEST = 2.0
# From one band to the next; less than that a window of few wavelengths cannot tell apart.
BAND_STEP = 2.0**0.5
# Wavelengths of the first band across the particle.
WAVES_ACROSS = 2.0
# Share of a window inside the mask: with less, power is not extrapolated.
LEAST_HELD = 0.05
LARGEST_RATIO = 32.0
# Of the bands in which maps are filtered.
FINE_STEP = 1.15
# Factors that differ by less.
ALIKE = 0.01


class Bands(NamedTuple):
    """Bands of a map, evenly in the logarithm of the frequency.

    Shares of a shell fall linearly in that and add up to 1. Within a band in which the ratio of
    signal to noise is estimated the gain of the shells may go from one to nothing; so there are
    finer ones in which maps are filtered.

    Attributes:
        centres: of the bands, in cycles per box.
        shares: of every shell in every band.
        fine: of every shell in every finer band.
        between: how the ratio of a finer band follows from those of the bands.
    """

    centres: Float64[np.ndarray, " bands"]
    shares: Float64[np.ndarray, "bands shells"]
    fine: Float64[np.ndarray, "fine shells"]
    between: Float64[np.ndarray, "fine bands"]


def bands_of(max_shell: int, edge_over_diameter: float) -> Bands:
    """Bands from two wavelengths across a particle to the last shell.

    They depend on nothing that is learned, so that programs do not, either.

    Args:
        max_shell: last shell of the maps.
        edge_over_diameter: of the particle in its box.
    """
    first = min(WAVES_ACROSS * edge_over_diameter, 0.5 * max_shell)
    count = 1 + max(round(np.log(max_shell / first) / np.log(BAND_STEP)), 1)
    centres = np.geomspace(first, max_shell, count)
    steps = 1 + max(round(np.log(max_shell) / np.log(FINE_STEP)), 1)
    finer = np.unique(np.rint(np.geomspace(1.0, max_shell, steps)))
    shells = np.maximum(np.arange(max_shell + 1), 0.5)
    return Bands(
        centres, _shares(shells, centres), _shares(shells, finer), _shares(finer, centres).T
    )


def _shares(frequency, centres):
    place, at = np.log(frequency), np.log(centres)
    return np.stack([np.interp(place, at, row) for row in np.eye(len(centres))])


def local_ratio(
    pair: tuple[Float32[AnyArray, "n n n"], Float32[AnyArray, "n n n"]],
    curve: Float[AnyArray, " shells"],
    mask: Float32[AnyArray, "n n n"],
    bands: Bands,
    *,
    average: Callable[[AnyArray], AnyArray] | None = None,
    averaged: float = 1.0,
) -> Float32[np.ndarray, "bands h h h"]:
    """Ratio of signal to noise at every place over that of the mean inside the mask.

    Half-maps are filtered to a band, every shell by one over its amplitude. The windowed mean of
    their product is the local signal, that of half the square of their difference the local noise.
    Both scatter where signal and noise are everywhere alike, too: the share of their variance which
    that explains is taken from it, by which they move towards their means (James & Stein, Proc.
    4th Berkeley Symp. 1 (1961) 361). Where nothing is known there is one gain for all places.

    Args:
        pair: half-maps in one frame, not masked.
        curve: their FSC inside the mask; in places chosen because they agree it would be too high.
        mask: 0 to 1; what lies outside counts for nothing.
        bands: of the maps.
        average: of a windowed map over its copies, as those in other registers.
        averaged: how many independent ones these are.

    Returns:
        r on every second voxel of the box. Between them :func:`filtered_in_bands` interpolates.
    """
    first, second, mask = (np.asarray(each, np.float32) for each in (*pair, mask))
    n, box = len(mask), coarse_box(len(mask))
    n_shells = bands.shares.shape[1]
    power = np.zeros(n // 2 + 1)
    for transform in map(spectrum, (first, second)):
        power += cross_power(transform, transform, n)
    known = power > 1e-12 * power.max()
    white = np.sqrt(np.divide(shell_counts(n), power, where=known, out=0.0 * power))[:n_shells]
    curve = np.clip(np.asarray(curve, np.float64)[:n_shells], 0.0, 1.0)
    average = average or (lambda windowed: windowed)
    ratio = np.ones((len(bands.centres), box, box, box), np.float32)
    total = np.sum(mask, dtype=np.float64)
    if total == 0.0 or not known.any():
        return ratio
    for row, (centre, weight) in enumerate(zip(bands.centres, bands.shares, strict=True)):
        sigma = max(WINDOW * n / centre, NARROWEST)
        one, other = (apply_gain(each, weight * white) for each in (first, second))
        held = np.maximum(np.asarray(average(windowed(mask, sigma, box))), 0.0)
        # Of the stationary maps that the scatter is of; what counts is the power inside the mask.
        variance = _variance(weight**2, n)
        scale = 0.5 * np.sum(mask * (one**2 + other**2), dtype=np.float64) / total / variance
        shared, rest = scale * weight**2 * curve, scale * weight**2 * (1.0 - curve)
        # A window that is half outside the mask scatters twice as much.
        beyond = np.sum(held > LEAST_HELD) / max(np.sum(held[held > LEAST_HELD]), 1e-9)
        parts = []
        for product, own, common in (
            (one * other, shared + rest, shared),
            (0.5 * (one - other) ** 2, rest, rest),
        ):
            local = np.asarray(average(windowed(product * mask, sigma, box)))
            scatter = product_scatter(own, common, n, sigma) * beyond / averaged
            parts.append(shrunk(local / np.maximum(held, LEAST_HELD), held, scatter))
        signal, noise = parts
        if signal is not None and noise is not None:
            noise = np.maximum(noise, 1.0 / LARGEST_RATIO)
            ratio[row] = np.minimum(signal / noise, LARGEST_RATIO)
    return ratio


def shrunk(
    local: Float32[np.ndarray, "h h h"], held: Float32[np.ndarray, "h h h"], scatter: float
) -> Float32[np.ndarray, "h h h"] | None:
    """Local power over its mean, as far as it varies by more than it scatters.

    Args:
        local: power in every window.
        held: share of every window that is inside the mask; as which it counts.
        scatter: variance of the power of a window where all are alike.

    Returns:
        1 everywhere if there is no more variance than that; None without a mean power.
    """
    mean = float(np.average(local, weights=held)) if held.any() else 0.0
    if mean <= 0.0:
        return None
    variance = float(np.average((local - mean) ** 2, weights=held))
    if variance <= scatter:
        return np.ones_like(local)
    certain = 1.0 - scatter / variance
    found = (1.0 - certain) * mean + certain * np.maximum(local, 0.0)
    return np.asarray(found / np.average(found, weights=held), np.float32)


def more_gain(
    gain: Float[AnyArray, " shells"], ratio: Float[AnyArray, "bands h h h"], bands: Bands
) -> Float32[AnyArray, "fine h h h"]:
    """Factors f on the gain of every finer band.

    Args:
        gain: of the shells, where signal and noise are the mean.
        ratio: of :func:`local_ratio`.
        bands: of the maps.
    """
    counts = bands.fine * shell_numbers(bands.fine.shape[1])[None]
    mean = (counts / counts.sum(axis=1, keepdims=True)) @ gain
    xp = np if on_host(gain, ratio) else jnp
    place = xp.tensordot(xp.asarray(bands.between, xp.float32), ratio, axes=(1, 0))
    mean = mean.astype(place.dtype)[:, None, None, None]
    return place / (1.0 - mean + place * mean)


def shell_numbers(n_shells: int) -> Float64[np.ndarray, " shells"]:
    """Coefficients of every shell, up to a factor."""
    return np.maximum(np.arange(n_shells), 0.5) ** 2


def filtered_in_bands(
    map_: Float32[AnyArray, "n n n"],
    gain: Float[AnyArray, " shells"],
    factors: Float32[AnyArray, "fine h h h"],
    bands: Bands,
) -> Float32[AnyArray, "n n n"]:
    """A map multiplied by gains of its shells, and in every band by factors that vary in space.

    Args:
        map_: a map.
        gain: of the shells.
        factors: of every finer band on a coarser grid; linear between its voxels.
        bands: of the map.
    """
    if not on_host(map_, gain, factors):
        total = jnp.zeros_like(map_)
        for share, factor in zip(bands.fine, factors, strict=True):
            total = total + apply_gain(map_, share * gain) * on_fine_grid(factor, map_.shape[0])
        return total
    # What is alike everywhere is filtered together.
    varies = np.ptp(factors, axis=(1, 2, 3)) > ALIKE
    same = factors[:, 0, 0, 0] * ~varies
    total = apply_gain(map_, (same @ bands.fine) * gain)
    for number in np.flatnonzero(varies):
        total += apply_gain(map_, bands.fine[number] * gain) * on_fine_grid(
            factors[number], len(map_)
        )
    return total


def coarse_box(n: int) -> int:
    """Even box of local ratios for maps of box n: about every second voxel."""
    return 2 * ((n + 3) // 4)


def on_fine_grid(coarse: Float32[AnyArray, "h h h"], n: int) -> Float32[AnyArray, "n n n"]:
    """Linear interpolation of a map to a box over the same extent; centres coincide."""
    h = len(coarse)
    place = np.clip((np.arange(n) - n // 2) * (h / n) + h // 2, 0.0, h - 1.0)
    low = np.minimum(place.astype(int), h - 2)
    matrix = np.zeros((n, h), np.float32)
    matrix[np.arange(n), low] = 1.0 - (place - low)
    matrix[np.arange(n), low + 1] = place - low
    if on_host(coarse):
        fine = np.asarray(coarse)
        for _ in range(3):
            fine = np.tensordot(fine, matrix, axes=(0, 1))
        return fine
    for _ in range(3):
        coarse = jnp.tensordot(coarse, matrix, axes=(0, 1), precision=jax.lax.Precision.HIGHEST)
    return coarse


def windowed(map_, sigma: float, box: int) -> Float32[np.ndarray, "h h h"]:
    """Mean in a Gaussian window around every voxel of a coarser box."""
    small, scaled = resample_map(map_, box), sigma * box / len(map_)
    transform = np.asarray(scipy.fft.rfftn(small, workers=-1))
    z, y, x = (
        np.exp(-2.0 * (np.pi * scaled * f) ** 2).astype(np.float32)
        for f in (np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box))
    )
    transform *= z[:, None, None] * y[None, :, None] * x[None, None, :]
    return np.asarray(scipy.fft.irfftn(transform, s=(box,) * 3, workers=-1))


def _variance(power: Float[np.ndarray, " shells"], n: int) -> float:
    """Of a stationary map whose coefficients have this mean power."""
    return float(np.sum(shell_counts(n)[: len(power)] * power)) / n**6
