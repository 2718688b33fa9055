"""Gains that vary in space: where a part of a map has signal, and a Wiener filter that knows it.

What tells two states or registers apart is often one domain, and the rest of the particle is noise
to it: an FSC over the whole particle then says that there is little signal, where there is much in
a few places and none elsewhere. With the signal's power at a place t(x) times its mean, and noise
that is alike everywhere, the gain of a shell with ratio of signal to noise s is

    t(x) s / (1 + t(x) s).

t is seen by the two half-maps' covariance in a window around x: a focus mask that nobody draws.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.ndimage
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.reconstruction.fsc import (
    cross_power,
    first_below,
    rfft_shells,
    shell_counts,
    spectrum,
)
from jaxrelax.reconstruction.isotypic import apply_gain, gained_maps

# Of the window over the resolution at which half of the power is signal; its width at half height
# is 2.4 times as much.
WINDOW = 0.45
# Share of a window inside the mask: with less, power is not extrapolated.
LEAST_HELD = 0.05
# Relative powers at which a map is filtered; between them it is interpolated.
LEVELS = (0.0625, 0.25, 1.0, 4.0, 16.0, 64.0)


def signal_profile(
    pair: tuple[Float32[AnyArray, "n n n"], Float32[AnyArray, "n n n"]],
    curve: Float[AnyArray, " shells"],
    mask: Float32[AnyArray, "n n n"],
    counts: Float[AnyArray, " counted"],
    *,
    average: Callable[[AnyArray], AnyArray] | None = None,
    averaged: float = 1.0,
) -> Float32[np.ndarray, "n n n"]:
    """Power of the signal at every place over its mean inside the mask.

    Both half-maps are whitened and weighted by √FSC, so that every shell counts by what it knows
    of the signal's power; their product is averaged in a Gaussian window. It scatters even where
    the signal is everywhere alike. The share of its variance which that explains is taken from it,
    by which it moves towards its mean (James & Stein, Proc. 4th Berkeley Symp. 1 (1961) 361): where
    nothing is known there is one gain for all.

    Args:
        pair: half-maps in one frame, multiplied by the mask.
        curve: their FSC. It is one of the whole mask: in places chosen because half-maps agree
            there it would be too high.
        mask: 0 to 1.
        counts: independent coefficients behind every shell, of the curve's shells at least.
        average: over copies of the product, as those in other registers.
        averaged: how many independent ones these are.

    Returns:
        t, with mean 1 under the square of the mask.
    """
    first, second, mask = (np.asarray(each) for each in (*pair, mask))
    n = len(mask)
    curve = np.clip(np.asarray(curve, np.float64)[: n // 2 + 1], 0.0, None)
    curve[0] = 0.0
    inside = mask.astype(np.float32) ** 2
    if not curve.any() or not inside.any():
        return np.ones_like(inside)
    sigma = WINDOW * n / max(first_below(curve, 0.5, counts) - 1, 2)
    power = [cross_power(one, one, n)[: len(curve)] for one in map(spectrum, (first, second))]
    wanted = curve * shell_counts(n)[: len(curve)]
    whitened = [
        apply_gain(each, np.sqrt(np.divide(wanted, p, out=np.zeros_like(p), where=p > 0)))
        for each, p in zip((first, second), power, strict=True)
    ]
    product = whitened[0] * whitened[1]
    if average is not None:
        product = np.asarray(average(product))
    held = scipy.ndimage.gaussian_filter(inside, sigma)
    local = scipy.ndimage.gaussian_filter(product, sigma) / np.maximum(held, LEAST_HELD)
    mean = np.average(local, weights=inside)
    variance = np.average((local - mean) ** 2, weights=inside)
    if mean <= 0.0 or variance <= 0.0:
        return np.ones_like(inside)
    scatter = product_scatter(curve, curve**2, n, sigma)
    noise = scatter / np.mean(inside, dtype=np.float64) ** 2 / averaged
    certain = max(1.0 - noise / variance, 0.0)
    found = (1.0 - certain) * mean + certain * np.maximum(local, 0.0)
    found = np.minimum(found / np.average(found, weights=inside), LEVELS[-1])
    return found.astype(np.float32)


def product_scatter(
    own: Float[np.ndarray, " shells"], common: Float[np.ndarray, " shells"], n: int, sigma: float
) -> float:
    """Variance of the product of two stationary maps in a Gaussian window.

    By Wick's theorem products covary as R₁₁R₂₂ + R₁₂².

    Args:
        own: mean power of a coefficient of either map.
        common: of their covariance.
        n: box.
        sigma: standard deviation of the window in voxels.
    """
    shape = (n, n, n // 2 + 1)
    shells = rfft_shells(n)[0].reshape(shape)
    rest = np.zeros(max(int(shells.max()) + 1 - len(own), 0))
    own, common = (
        np.asarray(scipy.fft.irfftn(np.append(each, rest)[shells], s=(n, n, n), workers=-1)) / n**3
        for each in (own, common)
    )
    spread = np.real(np.asarray(scipy.fft.rfftn(own**2 + common**2, workers=-1)))
    # The square of the window's transform, along each axis.
    z, y, x = (
        np.exp(-((2.0 * np.pi * sigma * f) ** 2))
        for f in (np.fft.fftfreq(n), np.fft.fftfreq(n), np.fft.rfftfreq(n))
    )
    weight = rfft_shells(n)[1].reshape(shape)
    return float(np.einsum("zyx,z,y,x->", weight * spread, z, y, x)) / n**3


def concentration(profile: Float32[AnyArray, "n n n"], mask: Float32[AnyArray, "n n n"]) -> float:
    """Relative power at places where the signal is: Σt²/Σt, 1 where it is everywhere alike."""
    profile, inside = np.asarray(profile, np.float64), np.asarray(mask, np.float64) ** 2
    total = np.sum(profile * inside)
    return float(np.sum(profile**2 * inside) / total) if total > 0 else 1.0


def stronger(gain: Float[AnyArray, "..."], ratio) -> Float[AnyArray, "..."]:
    """A Wiener gain where the ratio of signal to noise is so many times as high."""
    return ratio * gain / (1.0 - gain + ratio * gain)


def filtered_locally(
    map_: Float32[AnyArray, "n n n"],
    gain: Float[AnyArray, "*rows shells"],
    profile: Float32[AnyArray, "n n n"],
    apply: Callable = gained_maps,
) -> Float32[AnyArray, "n n n"]:
    """A map multiplied by gains that vary in space.

    It is filtered as for a few relative powers, between which every voxel is interpolated by the
    logarithm of its own: within 0.03 of the gain itself. Below the lowest it is less than that.

    Args:
        map_: a map.
        gain: where the power of the signal is its mean.
        profile: of that power, relative to its mean.
        apply: the map multiplied by each of several gains.
    """
    host = on_host(map_, gain, profile)
    xp = np if host else jnp
    gain, total = xp.asarray(gain), xp.zeros_like(map_)
    levels = list(zip(LEVELS, _shares(xp, profile), strict=True))
    if host:  # in a program it is not known which are there
        levels = [(level, weight) for level, weight in levels if weight.any()]
    if not levels:
        return total
    gains = xp.stack([stronger(gain, level) for level, _ in levels])
    for (_, weight), made in zip(levels, apply(map_, gains), strict=True):
        total = total + weight * made
    return total


def _shares(xp, profile):
    """How far each of the levels counts at every voxel; together 1 or, below the lowest, less."""
    at = np.log(np.asarray(LEVELS, np.float32))
    profile = xp.asarray(profile, xp.float32)
    place = xp.log(xp.clip(profile, LEVELS[0], LEVELS[-1]))
    shares = []
    for number in range(len(at)):
        share = xp.ones_like(place)
        if number > 0:
            share = (place - at[number - 1]) / (at[number] - at[number - 1])
        if number < len(at) - 1:
            falling = (at[number + 1] - place) / (at[number + 1] - at[number])
            share = xp.minimum(share, falling)
        shares.append(xp.clip(share, 0.0, 1.0))
    # Gains that small are proportional to the power.
    shares[0] = shares[0] * xp.minimum(profile / LEVELS[0], 1.0)
    return shares
