"""A map prior whose gains vary in space: per band and place, from what the half-maps say there.

A structure is seldom known equally well everywhere: what moves is blurred, and what breaks a
symmetry is in a few places. One gain for a shell takes the mean of both, so that noise is kept
where there is nothing else, and signal lost where there is much.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray
from jaxrelax.imaging import MARGIN, resample_map, working_box
from jaxrelax.reconstruction.band_gains import (
    Bands,
    bands_of,
    filtered_in_bands,
    local_ratio,
    more_gain,
)
from jaxrelax.reconstruction.components import apply_component_gains, component_maps
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
from jaxrelax.reconstruction.matching import onto_first
from jaxrelax.reconstruction.particle import Particle
from jaxrelax.reconstruction.rotate import symmetrise
from jaxrelax.reconstruction.scoring_maps import wiener_parts
from jaxrelax.reconstruction.wiener import inverse_tau2


class LocalGains(Gains):
    """What :class:`LocalPrior` learns.

    Attributes:
        symmetric_ratio, asymmetric_ratio: of signal to noise at every place over that of the mean,
            of the symmetric part and of all asymmetric components (:func:`local_ratio`).
    """

    symmetric_ratio: Float32[AnyArray, "bands h h h"]
    asymmetric_ratio: Float32[AnyArray, "bands h h h"]


class LocalPrior(Isotypic):
    """As :class:`Isotypic`, with gains that vary in space.

    The symmetric part and every isotypic component of the rest have the gains of their FSCs where
    signal and noise are the mean; elsewhere they follow the local ratio of the two. That of the
    asymmetric part is averaged over the group, so that it prefers no register
    (docs/theory.md, "Gains per band and place").
    """

    def learn(
        self, halves: HalfMaps, belief: Belief, particle: Particle, rng: np.random.Generator
    ) -> Learned:
        """Gains of the shells, and where there is more signal or noise than the mean."""
        learned = super().learn(halves, belief, particle, rng)
        known, bands = learned.state, _bands(particle, halves.max_shell)
        one, other = halves.parts
        symmetric = local_ratio(
            (one.symmetric, other.symmetric), known.fsc_symmetric, known.density, bands
        )
        asymmetric = np.ones_like(symmetric)
        # In full, it is wherever it may be.
        if particle.relaxed and not belief.full:
            asymmetric = _of_all_registers(particle, halves, known, bands)
        state = LocalGains(known.fsc_symmetric, known.gain, known.density, symmetric, asymmetric)
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
        factors = more_gain(state.fsc_symmetric, state.symmetric_ratio, bands)
        whole = np.ones(portion.sums.max_shell + 1)
        symmetric = filtered_in_bands(split.symmetric, whole, factors, bands) * state.density
        if not particle.relaxed:
            return IsotypicParts(symmetric, 0.0 * symmetric)
        asymmetric = _components_filtered(
            split.asymmetric, state.gain, state.asymmetric_ratio, bands, particle
        )
        return IsotypicParts(symmetric, particle.region(asymmetric * state.density))

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
        own = particle.split(
            unregularised_map(portion.sums, particle) * particle.sphere(len(density))
        )
        alone = self.solve(state, portion, particle)
        mean = IsotypicParts(
            *((share * a + b) / (share + 1.0) for a, b in zip(own, other, strict=True))
        )
        gain, low = _joined(
            state.fsc_symmetric[None], state.symmetric_ratio, bands, density,
            particle.symmetric_coefficients(density),
        )  # fmt: skip
        factors = more_gain(gain[0], state.symmetric_ratio, bands)
        symmetric = filtered_in_bands(mean.symmetric, gain[0], factors, bands) * density
        symmetric = symmetric + apply_gain(alone.symmetric, 1.0 - low[0])
        if not particle.relaxed:
            return IsotypicParts(symmetric, 0.0 * symmetric)
        gain, low = _joined(
            state.gain * strength, state.asymmetric_ratio, bands, density,
            particle.coefficients(density),
        )  # fmt: skip
        asymmetric = _components_filtered(
            mean.asymmetric, gain, state.asymmetric_ratio, bands, particle
        )
        kept = np.float32(strength) * alone.asymmetric
        asymmetric = asymmetric * density + apply_component_gains(kept, 1.0 - low, particle.group)
        return IsotypicParts(symmetric, particle.region(asymmetric))


def _bands(particle: Particle, max_shell: int) -> Bands:
    return bands_of(max_shell, particle.edge_angstrom / particle.diameter_angstrom)


def _of_all_registers(particle: Particle, halves: HalfMaps, known: Gains, bands: Bands):
    """Where asymmetric parts have signal; half-sets need not be in the same register.

    Every component and shell counts by what it knows. Averaged over the group the power of a
    component is that of the others but for a factor, where copies of a site do not overlap.
    """
    gains = np.sqrt(np.clip(known.gain, 0.0, 1.0))
    first, second = (
        apply_component_gains(particle.region(one.asymmetric), gains, particle.group)
        for one in halves.parts
    )
    mask = particle.region(known.density)
    return local_ratio(
        (first, onto_first(particle, halves.matched.index, second)),
        np.clip(known.gain, 0.0, LARGEST_GAIN).mean(axis=0), mask, bands,
        average=lambda windowed: symmetrise(windowed, particle.group),
        # They add up to nothing, so that one of them is known from the others.
        averaged=float(particle.n_registers - 1),
    )  # fmt: skip


def _components_filtered(
    asymmetric: Float32[AnyArray, "b b b"],
    gains: Float[AnyArray, "components shells"],
    ratio: Float32[AnyArray, "bands h h h"],
    bands: Bands,
    particle: Particle,
) -> Float32[AnyArray, "b b b"]:
    """An asymmetric part with gains per component, band and place."""
    components = component_maps(asymmetric, particle.group)
    filtered = [
        filtered_in_bands(one, gain, more_gain(gain, ratio, bands), bands)
        for one, gain in zip(components, gains, strict=True)
    ]
    return sum(filtered[1:], start=filtered[0])


def _joined(
    curves: Float[AnyArray, "rows shells"],
    ratio: Float32[AnyArray, "bands h h h"],
    bands: Bands,
    density: Float32[AnyArray, "b b b"],
    counts: Float[np.ndarray, " shells"],
) -> tuple[np.ndarray, np.ndarray]:
    """Gains of the mean of both half-sets as far as they agree, 0 beyond; and 1 up to there."""
    curves = np.clip(np.asarray(curves), 0.0, LARGEST_GAIN)
    inside = resample_map(density, len(ratio[0]))
    focused = bands.shares.T @ np.array([concentration(each, inside) for each in ratio])
    agreed = stronger(curves, focused)
    low = np.stack([agreeing(row, counts[: len(row)] / focused) for row in agreed])
    return np.asarray(stronger(curves, 2.0)) * low, low
