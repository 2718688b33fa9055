"""A difference map in σ of its half-maps, and where in it a difference is real.

What two half-maps do not agree on is noise, and the noise of their average has the same power: so
half the difference of the half-maps, sent through the same subtraction and the same filter, shows
the error of every voxel. Its power in a window is the variance there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.stats
from jaxtyping import Bool, Float, Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup
from jaxrelax.imaging import rebox_map
from jaxrelax.reconstruction.difference_regions import Region, labelled, regions_of
from jaxrelax.reconstruction.fsc import (
    cross_power,
    first_below,
    pooled,
    resolution_shell,
    shell_counts,
    spectrum,
)
from jaxrelax.reconstruction.isotypic import apply_gain

FALSE_DISCOVERIES = 0.01
# Standard deviation of the window in which noise is averaged, over the resolution: some six
# hundred independent values in the inside of a particle.
WINDOW = 1.5
# Standard errors of the half-maps' agreement, from which on it chooses the band: a band chosen
# because noise agrees in it would make that noise significant.
AGREEMENT = 4.0
# Of the rms density: below it a difference is rounding, not the particle's.
ROUNDING = 2e-3
# Of the noise of a voxel away from all axes. On an axis nothing is left of it, but errors of the
# symmetrisation are.
LEAST_NOISE = 0.05
SMALLEST_P = 1e-300


class Band(NamedTuple):
    """A filter for a difference.

    Attributes:
        gain: per shell, zero beyond the band.
        shell: the last one of the band.
        agrees: whether it is the band in which half-maps agree on the difference.
    """

    gain: Float64[np.ndarray, " shells"]
    shell: int
    agrees: bool


@dataclass(frozen=True)
class DifferenceInSigma:
    """A difference map over its local standard error.

    Attributes:
        sigma: the difference in σ, with the tails of a Gaussian; 0 where it was not looked for.
        significant: where it is: with ``rate`` the false share of such voxels, and of regions.
        searched: where it was looked for.
        threshold: |σ| of the voxels that are significant; infinite where none are.
        resolution_angstrom: end of the band to which the difference was filtered.
        agrees: whether the half-maps agree on any difference; otherwise the band is that of the
            whole map.
        rate: false-discovery rate.
        regions: connected regions of ``significant``, the highest peak first.
    """

    sigma: Float32[np.ndarray, "n n n"]
    significant: Bool[np.ndarray, "n n n"]
    searched: Bool[np.ndarray, "n n n"]
    threshold: float
    resolution_angstrom: float
    agrees: bool
    rate: float
    regions: tuple[Region, ...]

    def on_box(self, box: int) -> DifferenceInSigma:
        """The same on another box about the centre; pixels stay."""
        return replace(
            self,
            sigma=rebox_map(self.sigma, box),
            significant=rebox_map(self.significant.astype(np.float32), box) > 0.5,
            searched=rebox_map(self.searched.astype(np.float32), box) > 0.5,
        )


def band_of_difference(
    curve: Float[AnyArray, " shells"],
    counts: Float[AnyArray, " shells"],
    whole: Float[AnyArray, " shells"],
    whole_counts: Float[AnyArray, " shells"],
) -> Band:
    """Where the half-maps agree on a difference, as a filter.

    The Wiener gain of the average, 2F/(1+F), of an FSC that is averaged over enough coefficients
    and never rises: with so few degrees of freedom it cannot follow the noise. It ends where that
    FSC falls below 0.143, beyond the shell up to which half-maps agree most clearly. Where they
    agree on nothing the filter is made of what they agree on as a whole, which knows nothing of the
    difference.

    Args:
        curve: FSC of the half-maps' differences, in one frame.
        counts: independent coefficients of a difference, per shell.
        whole: FSC of what the difference is taken from.
        whole_counts: likewise of it.
    """
    curve, counts = np.asarray(curve, np.float64), np.asarray(counts, np.float64)[: len(curve)]
    together, held = np.cumsum((counts * curve)[1:]), np.cumsum(counts[1:])
    # Of all shells up to each one: single shells of few coefficients may agree by chance, or not.
    signal = together / np.sqrt(held)
    agrees = bool(signal.max() >= AGREEMENT)
    if agrees:
        last = int(np.argmax(signal)) + 1
        last += first_below(pooled(curve, counts)[last:], 0.143) - 1
    else:
        curve, counts = np.asarray(whole, np.float64), np.asarray(whole_counts, np.float64)
        last = resolution_shell(curve, 0.143, counts)
    upto = pooled(curve[: last + 1], counts[: last + 1])
    falling = np.clip(np.maximum.accumulate(upto[::-1])[::-1], 0.143, 1.0)
    gain = np.zeros(len(curve))
    gain[: last + 1] = 2.0 * falling / (1.0 + falling)
    return Band(gain, last, agrees)


def difference_in_sigma(
    pair: tuple[Float32[AnyArray, "n n n"], Float32[AnyArray, "n n n"]],
    density: Float32[AnyArray, "n n n"],
    searched: Bool[np.ndarray, "n n n"],
    band: Band,
    pixel_size_angstrom: float,
    *,
    group: PointGroup,
    kept: PointGroup,
    removed: PointGroup | None = None,
    frames: float = 1.0,
    coefficients: Float[AnyArray, " shells"],
    rate: float = FALSE_DISCOVERIES,
) -> DifferenceInSigma:
    """The average of two half-maps' differences over its local standard error.

    The variance of a voxel is that of half the difference of the pair, averaged in a Gaussian
    window. Averaging over a group makes the noise of a voxel depend on how far it is from its own
    mates, (1/|H|) Σ_h ρ(|x − hx|) − (1/|G|) Σ_g ρ(|x − gx|) with the noise's correlation ρ: all of
    H is one voxel on its axis and all of G is nothing there. The window knows this, and from how
    many independent values it is made; what is over its estimate follows Student's t, and is
    written as the σ of a Gaussian with the same tail.

    A voxel is significant by Benjamini & Yekutieli, Ann. Stat. 29 (2001) 1165, which holds whatever
    the correlations: those of neighbours are positive, but the values of mates sum to zero, so
    theirs are negative, for which Benjamini & Hochberg's procedure promises nothing. (Of density
    maps: Beckers, Jakobi & Sachse, IUCrJ 6 (2019) 18.) That bounds the false share of *voxels*, of
    which one large region has thousands; what should be bounded is the false share of the *regions*
    that are listed. So the peak of each is tested again, by the probability that a peak of noise
    above the threshold is as high, after Worsley et al., Hum. Brain Mapp. 4 (1996) 58, and regions
    are kept by Benjamini & Hochberg among them (Chumbley & Friston, NeuroImage 44 (2009) 62).

    Args:
        pair: of each half-map what it has beside what it is compared with, in one frame.
        density: the whole map, to know what rounding is.
        searched: where a difference is looked for.
        band: see :func:`band_of_difference`.
        pixel_size_angstrom: of all maps.
        group: by whose operators regions are mates.
        kept: H, over which half-maps are averaged.
        removed: G, whose average is taken away from them; None if none is.
        frames: among how many possible ones that of the second half-map was chosen, by agreement.
            The best of so many agrees by √(2 ln frames) standard errors even if all is noise, which
            is allowed for.
        coefficients: independent ones of a difference, per shell.
        rate: false-discovery rate.

    Raises:
        ValueError: the rate is not between 0 and 1.
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"a false-discovery rate is between 0 and 1, not {rate:g}")
    n = len(searched)
    first, second = (apply_gain(np.asarray(each), band.gain) for each in pair)
    edge, sigma = n * pixel_size_angstrom, np.zeros((n, n, n), np.float32)
    nothing = DifferenceInSigma(
        sigma, np.zeros_like(searched), searched, np.inf, edge / band.shell, band.agrees, rate, ()
    )
    if not searched.any():
        return nothing
    signal, noise = 0.5 * (first + second), 0.5 * (first - second)
    power = cross_power(spectrum(noise), spectrum(noise), n)
    variance, freedom = _local_variance(
        noise, power, searched, WINDOW * n / band.shell, kept=kept, removed=removed
    )
    variance = variance * _choice(frames, power, coefficients, n)
    body = apply_gain(np.asarray(density), band.gain)[searched].astype(np.float64)
    variance = variance + ROUNDING**2 * np.mean(body**2)
    if not variance.all():  # of an empty map
        return nothing
    ratio = signal[searched] / np.sqrt(variance)
    p = np.maximum(2.0 * scipy.stats.t.sf(np.abs(ratio), freedom), SMALLEST_P)
    sigma[searched] = np.sign(ratio) * scipy.stats.norm.isf(0.5 * p)
    chosen = np.zeros_like(searched)
    chosen[searched] = benjamini_yekutieli(p, rate)
    if not chosen.any():
        return replace(nothing, sigma=sigma)
    threshold = float(np.abs(sigma[chosen]).min())
    labels, peaks = labelled(sigma, chosen)
    # In order of their peaks, so those that stand are the first.
    stand = int(np.sum(benjamini_hochberg(_peak_p(peaks, threshold), rate)))
    labels[labels > stand] = 0
    return replace(
        nothing,
        sigma=sigma,
        significant=labels > 0,
        threshold=threshold if stand else np.inf,
        regions=regions_of(sigma, labels, group, pixel_size_angstrom),
    )


def benjamini_yekutieli(p: Float[np.ndarray, " tests"], rate: float) -> Bool[np.ndarray, " tests"]:
    """Which p-values are significant at a false-discovery rate, under any dependence.

    Benjamini & Hochberg's procedure at rate / Σ 1/i (Benjamini & Yekutieli, Ann. Stat. 29 (2001)
    1165, theorem 1.3).
    """
    return benjamini_hochberg(p, rate / float(np.sum(1.0 / np.arange(1, len(p) + 1))))


def benjamini_hochberg(p: Float[np.ndarray, " tests"], rate: float) -> Bool[np.ndarray, " tests"]:
    """Which p-values are significant at a false-discovery rate, if they are independent.

    All up to the largest with p_(i) ≤ i rate / m. J. R. Stat. Soc. B 57 (1995) 289.
    """
    p = np.asarray(p, np.float64)
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= rate * np.arange(1, len(p) + 1) / max(len(p), 1))
    return p <= ordered[below[-1]] if len(below) else np.zeros(len(p), bool)


def _local_variance(
    noise, power, searched, width: float, *, kept: PointGroup, removed: PointGroup | None
) -> tuple[Float64[np.ndarray, " voxels"], Float64[np.ndarray, " voxels"]]:
    """Variance of every searched voxel, and from how many independent values it is known."""
    n = len(searched)
    share = np.zeros((n, n, n), np.float32)
    share[searched] = _share_of_noise(power, searched, kept, removed)

    def around(values, width: float) -> Float64[np.ndarray, " voxels"]:
        filtered = scipy.ndimage.gaussian_filter(values, width, mode="constant")
        return filtered[searched].astype(np.float64)

    held = np.maximum(around(share, width), 1e-12)
    local = around(np.where(searched, noise**2, 0.0), width) / held
    # Its square is a Gaussian, too. Independent values are as many as the sum of their squared
    # correlations goes into the window; of mates under H only one counts.
    square = around(share**2, width / np.sqrt(2.0)) / (4.0 * np.pi * width**2) ** 1.5
    total = np.sum(power)
    volume = n**3 * np.sum(power**2 / shell_counts(n)) / total**2 if total > 0 else 1.0
    freedom = held**2 / np.maximum(square * volume * kept.order, 1e-30)
    return share[searched] * local, np.maximum(freedom, 1.0)


def _share_of_noise(
    power, searched, kept: PointGroup, removed: PointGroup | None
) -> Float32[np.ndarray, " voxels"]:
    """Variance of searched voxels over that of a map that is averaged over no group."""
    n = len(searched)
    shells, total = np.arange(len(power)), max(float(np.sum(power)), 1e-300)
    distance = np.linspace(0.0, n, 8 * n)
    correlation = np.sinc(2.0 * np.outer(distance, shells) / n) @ power / total
    place = (np.argwhere(searched)[:, ::-1] - n // 2).astype(np.float32)

    def mean_correlation(group: PointGroup) -> Float64[np.ndarray, " voxels"]:
        sums = np.zeros(len(place))
        for operator in group.operators:
            moved = np.linalg.norm(place @ (np.eye(3) - operator).T.astype(np.float32), axis=1)
            sums += np.interp(moved, distance, correlation)
        return sums / group.order

    share, elsewhere = mean_correlation(kept), 1.0 / kept.order
    if removed is not None:
        share, elsewhere = share - mean_correlation(removed), elsewhere - 1.0 / removed.order
    return np.maximum(share, LEAST_NOISE * elsewhere).astype(np.float32)


def _choice(frames: float, power, coefficients, n: int) -> float:
    """Factor of the variance for a frame that was chosen because half-maps agree in it.

    With a correlation F the average of noise has (1 + F)/(1 − F) times the power of half the
    difference.
    """
    counts = np.asarray(coefficients, np.float64)
    weight = power[: len(counts)] * counts[: len(power)] / shell_counts(n)[: len(counts)]
    squares = np.sum(weight**2 / np.maximum(counts[: len(power)], 1e-12))
    if frames <= 1.0 or squares <= 0.0:
        return 1.0
    effective = np.sum(weight) ** 2 / squares
    agreement = min(np.sqrt(2.0 * np.log(frames) / effective), 0.9)
    return (1.0 + agreement) / (1.0 - agreement)


def _peak_p(peaks: Float64[np.ndarray, " regions"], threshold: float):
    """Probability that a peak of Gaussian noise above the threshold is as high.

    The ratio of expected Euler characteristics, (z² − 1) exp(−z²/2) in three dimensions.
    """
    peaks = np.asarray(peaks, np.float64)
    height = np.log(np.maximum(peaks**2 - 1.0, 1e-12)) - 0.5 * peaks**2
    floor = np.log(max(threshold**2 - 1.0, 1e-12)) - 0.5 * threshold**2
    return np.minimum(np.exp(height - floor), 1.0)
