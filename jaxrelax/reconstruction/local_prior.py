"""A map prior that varies in space: gains per band and place, and a focus that nobody draws.

A structure is seldom known equally well everywhere: what moves is blurred, and what breaks a
symmetry is in a few places. One gain for a shell takes the mean of both, so that noise is kept
where there is nothing else, and signal lost where there is much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Float64

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.imaging import MARGIN, resample_map, working_box
from jaxrelax.reconstruction.band_gains import (
    Bands,
    bands_of,
    filtered_in_bands,
    local_ratio,
    more_gain,
)
from jaxrelax.reconstruction.components import apply_component_gains, component_gained_maps
from jaxrelax.reconstruction.fsc import cross_power, first_below, shell_counts, spectrum
from jaxrelax.reconstruction.isotypic import IsotypicParts, apply_gain
from jaxrelax.reconstruction.local_gains import concentration, stronger
from jaxrelax.reconstruction.map_priors import (
    LARGEST_GAIN,
    Belief,
    Gains,
    HalfMaps,
    Isotypic,
    Learned,
    Portion,
    agreeing,
    unregularised_map,
)
from jaxrelax.reconstruction.matching import onto_first, voting_shells
from jaxrelax.reconstruction.particle import Particle
from jaxrelax.reconstruction.scoring_maps import wiener_parts
from jaxrelax.reconstruction.wiener import inverse_tau2

# Power that is taken for noise, over its mean inside the mask, and how many times the ratio of
# signal to noise is as high where it stands out: cross-validation chooses.
FLOORS, RATIOS = (0.4, 0.8, 1.6), (1.0, 2.0, 4.0)
# Standard deviation of the window in which power is averaged, over the wavelength to which the
# asymmetric part is known (FSC 0.5).
FOCUS_WINDOW = 0.4


class LocalGains(Gains):
    """What :class:`LocalPrior` learns.

    Attributes:
        ratio: of signal to noise of the symmetric part at every place over that of the mean
            (:func:`local_ratio`).
        floor: power of the asymmetric part that is noise, over its mean inside the mask.
        focused: gains of the asymmetric part where it stands out from that.
        window: standard deviation, in voxels, in which power is averaged.
        scale: of the focused part.
    """

    ratio: Float32[AnyArray, "bands h h h"]
    floor: Float[AnyArray, ""]
    focused: Float[AnyArray, "components shells"]
    window: Float[AnyArray, ""]
    scale: Float[AnyArray, ""]


class LocalPrior(Isotypic):
    """As :class:`Isotypic`, with gains that vary in space.

    The symmetric part has the gain of its FSC where signal and noise are the mean, and elsewhere
    that of their local ratio in every band. The asymmetric part is multiplied by the share of its
    local power that stands out, before its components have gains (docs/theory.md, "Gains that vary
    in space").
    """

    def learn(
        self, halves: HalfMaps, belief: Belief, particle: Particle, rng: np.random.Generator
    ) -> Learned:
        """Gains of the shells, and where there is more signal or noise than the mean."""
        learned = super().learn(halves, belief, particle, rng)
        known, bands = learned.state, _bands(particle, halves.max_shell)
        one, other = halves.parts
        ratio = local_ratio(
            (one.symmetric, other.symmetric), known.fsc_symmetric, known.density, bands
        )
        focus = Focus(0.0, 1.0, 1.0)
        last = first_below(learned.fsc_asymmetric, 0.5, particle.coefficients(known.density))
        window = FOCUS_WINDOW * len(known.density) / max(last - 1, 1)
        focused = known.gain
        # While asymmetry is sought it may be anywhere.
        if particle.relaxed and belief.by_component and not belief.full:
            focus = _validated_focus(halves, known, window, particle)
            focused = stronger(np.clip(known.gain, 0.0, LARGEST_GAIN), focus.ratio)
        state = LocalGains(
            known.fsc_symmetric, known.gain, known.density, ratio,
            np.asarray(focus.floor, np.float32), np.asarray(focused),
            np.asarray(window, np.float32), np.asarray(focus.scale, np.float32),
        )  # fmt: skip
        return learned._replace(state=state)

    def solve(self, state: LocalGains, portion: Portion, particle: Particle) -> IsotypicParts:
        """Wiener filter, isotypic parts, gains, masks."""
        tau = inverse_tau2(portion.weight, state.fsc_symmetric) * portion.share
        split = wiener_parts(
            portion.sums, tau.astype(np.float32), particle.group, particle.subgroup,
            sphere=particle.sphere(working_box(portion.sums.max_shell)), image_box=particle.box,
            margin=MARGIN,
        )  # fmt: skip
        bands = _bands(particle, portion.sums.max_shell)
        # The mean gain is in the Wiener filter.
        factors = more_gain(state.fsc_symmetric, state.ratio, bands)
        whole = np.ones(portion.sums.max_shell + 1)
        symmetric = filtered_in_bands(split.symmetric, whole, factors, bands) * state.density
        if not particle.relaxed:
            return IsotypicParts(symmetric, 0.0 * symmetric)
        asymmetric = split.asymmetric * _focus(split.asymmetric, state, particle)
        asymmetric = apply_component_gains(asymmetric, state.focused, particle.group)
        asymmetric = asymmetric * state.density * state.scale
        return IsotypicParts(symmetric, particle.region(asymmetric))

    def join(
        self,
        state: LocalGains,
        portion: Portion,
        other: IsotypicParts,
        strength: float,
        particle: Particle,
    ) -> IsotypicParts:
        """Averaged as far as half-sets agree where the signal is; see :meth:`Isotypic.join`."""
        density, share = state.density, portion.share
        bands = _bands(particle, portion.sums.max_shell)
        raw = unregularised_map(portion.sums, particle)
        own = particle.split(raw * particle.sphere(len(density)))
        alone = self.solve(state, portion, particle)
        mean = IsotypicParts(
            *((share * a + b) / (share + 1.0) for a, b in zip(own, other, strict=True))
        )
        inside = resample_map(density, len(state.ratio[0]))
        times = bands.shares.T @ np.array([concentration(one, inside) for one in state.ratio])
        counts = particle.symmetric_coefficients(density)
        gain, low = _joined(state.fsc_symmetric[None], counts, times)
        factors = more_gain(gain[0], state.ratio, bands)
        symmetric = filtered_in_bands(mean.symmetric, gain[0], factors, bands) * density
        symmetric = symmetric + apply_gain(alone.symmetric, 1.0 - low[0])
        if not particle.relaxed:
            return IsotypicParts(symmetric, 0.0 * symmetric)
        counts, one = particle.coefficients(density), np.ones(state.gain.shape[1])
        gain, low = _joined(state.focused * strength, counts, one)
        focused = mean.asymmetric * _focus(mean.asymmetric, state, particle)
        kept = np.float32(strength) * alone.asymmetric
        asymmetric = apply_component_gains(focused, gain, particle.group) * density * state.scale
        asymmetric = asymmetric + apply_component_gains(kept, 1.0 - low, particle.group)
        return IsotypicParts(symmetric, particle.region(asymmetric))


def _bands(particle: Particle, max_shell: int) -> Bands:
    return bands_of(max_shell, particle.edge_angstrom / particle.diameter_angstrom)


class Focus(NamedTuple):
    """What is chosen by cross-validation.

    Attributes:
        floor: power that is taken for noise, over its mean.
        ratio: how many times the ratio of signal to noise is as high where more than that is.
        scale: of what is left.
    """

    floor: float
    ratio: float
    scale: float


def _focus(
    asymmetric: Float32[AnyArray, "b b b"], state: LocalGains, particle: Particle
) -> Float32[AnyArray, "b b b"]:
    """Where an asymmetric part, with the gains of its components, stands out."""
    filtered = apply_component_gains(asymmetric, state.gain, particle.group)
    filtered = particle.region(filtered * state.density)
    power = local_power(filtered, state.window)
    return standing_out(power, state.floor * _mean_inside(filtered**2, state.density))


def local_power(
    map_: Float32[AnyArray, "b b b"], window: Float[AnyArray, ""] | float
) -> Float32[AnyArray, "b b b"]:
    """Power of a map in a Gaussian window around every place.

    Args:
        map_: a map.
        window: standard deviation in voxels.
    """
    n = map_.shape[0]
    xp, fft = (np, scipy.fft) if on_host(map_, window) else (jnp, jnp.fft)
    z, y, x = (
        xp.exp(-2.0 * (np.pi * window * f.astype(np.float32)) ** 2)
        for f in (np.fft.fftfreq(n), np.fft.fftfreq(n), np.fft.rfftfreq(n))
    )
    transform = fft.rfftn(map_**2) * (z[:, None, None] * y[None, :, None] * x[None, None, :])
    return xp.maximum(fft.irfftn(transform, s=map_.shape), 0.0).astype(np.float32)


def standing_out(
    power: Float32[AnyArray, "b b b"], floor: Float[AnyArray, ""] | float
) -> Float32[AnyArray, "b b b"]:
    """Share of the power above a floor: a Wiener gain, if the floor is that of the noise."""
    xp = np if on_host(power, floor) else jnp
    return 1.0 - xp.minimum(floor / xp.maximum(power, 1e-30), 1.0)


def _mean_inside(values, mask):
    return (values * mask).sum() / mask.sum()


def _validated_focus(halves: HalfMaps, known: Gains, window: float, particle: Particle) -> Focus:
    """That with which each half-map predicts the other one best.

    Their noise is independent, so what correlates best with the other, unfiltered half-map does so
    with what both are of. Coefficients count by their noise, as in scores.
    """
    second = onto_first(particle, halves.matched.index, halves.parts[1].asymmetric)
    pair = [np.asarray(one) for one in (halves.parts[0].asymmetric, second)]
    pair = [particle.region(one * known.density) for one in pair]
    n, spectra = len(pair[0]), [spectrum(one) for one in pair]
    rest = spectra[0] - spectra[1]
    weight = shell_counts(n) / np.maximum(cross_power(rest, rest, n), 1e-30)
    voting = voting_shells(particle, halves.max_shell + 1, halves.score_shell)
    weight[: len(voting)] *= voting
    weight[len(voting) :] = 0.0
    gain = np.clip(known.gain, 0.0, LARGEST_GAIN)

    def predict(
        focused: Sequence[AnyArray], ratios: Sequence[float]
    ) -> Iterator[tuple[float, float]]:
        """Correlation with the other half-map, and the factor by which it is nearest to it."""
        gains = np.stack([stronger(gain, ratio) for ratio in ratios])
        every = (component_gained_maps(one, gains, particle.group) for one in focused)
        for filtered in zip(*every, strict=True):
            together, scales = [], []
            for one, other in zip(filtered, spectra[::-1], strict=True):
                made = spectrum(particle.region(one * known.density))
                power = max(float(np.sum(weight * cross_power(made, made, n))), 1e-30)
                cross = float(np.sum(weight * cross_power(made, other, n)))
                together.append(cross / np.sqrt(power))
                scales.append(cross / power)
            yield float(np.mean(together)), max(float(np.mean(scales)), 0.0)

    filtered = [apply_component_gains(one, gain, particle.group) * known.density for one in pair]
    powers = [local_power(one, window) for one in filtered]
    means = [_mean_inside(one**2, known.density) for one in filtered]
    best, chosen = next(predict(pair, (1.0,)))[0], Focus(0.0, 1.0, 1.0)
    for floor in FLOORS:
        focused = [
            one * standing_out(power, floor * mean)
            for one, power, mean in zip(pair, powers, means, strict=True)
        ]
        for ratio, (found, scale) in zip(RATIOS, predict(focused, RATIOS), strict=True):
            if found > best:
                best, chosen = found, Focus(floor, ratio, scale)
    return chosen


def _joined(
    curves: Float[AnyArray, "rows shells"],
    counts: Float[np.ndarray, " shells"],
    times: Float64[np.ndarray, " shells"],
) -> tuple[np.ndarray, np.ndarray]:
    """Gains of the mean of both half-sets as far as they agree, 0 beyond; and 1 up to there.

    Args:
        curves: gains of a half-set.
        counts: independent coefficients of every shell.
        times: ratio of signal to noise where the signal is over that of the mean.
    """
    curves = np.clip(np.asarray(curves), 0.0, LARGEST_GAIN)
    agreed = stronger(curves, times)
    low = np.stack([agreeing(row, counts[: len(row)] / times) for row in agreed])
    return np.asarray(stronger(curves, 2.0)) * low, low
