"""Priors of maps: how sums over images become the maps that score images.

A prior learns from both half-sets (their FSC, their mask), and is used for each on its own, and for
parts of it: the sums of all folds but one. One that is local, non-uniform or learned elsewhere is
a class with the same three methods.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import isotypic_weights
from jaxrelax.imaging import MARGIN, working_box
from jaxrelax.reconstruction.accumulators import ShellSums
from jaxrelax.reconstruction.components import (
    apply_component_gains,
    component_counts,
    component_fsc,
    share_of_components,
)
from jaxrelax.reconstruction.fsc import corrected_fsc, first_below
from jaxrelax.reconstruction.isotypic import HalfAlignment, IsotypicParts, apply_gain
from jaxrelax.reconstruction.masks import independent_fraction
from jaxrelax.reconstruction.matching import match_halves, onto_first
from jaxrelax.reconstruction.particle import Particle
from jaxrelax.reconstruction.scoring_maps import regularised_parts
from jaxrelax.reconstruction.wiener import inverse_tau2, wiener_map

LARGEST_GAIN = 0.999
# Beyond the first shell whose FSC is lower every half-set keeps to itself.
JOIN_ABOVE = 0.5


class Belief(NamedTuple):
    """How much of the asymmetric part is to be believed now; the course of a refinement says so.

    Attributes:
        optimism: standard errors that are added to the asymmetric FSC.
        faint: density may be that of a partner averaged over all registers.
        by_component: isotypic components are told apart by their FSCs; else all are alike.
        full: all of it counts, as far as maps reach.
        similarity: of what states have of their own, this share is withheld.
    """

    optimism: float = 0.0
    faint: bool = False
    by_component: bool = True
    full: bool = False
    similarity: float = 0.0


class HalfMaps(NamedTuple):
    """What a prior learns from.

    Attributes:
        raw: unregularised half-maps on a working box, not masked.
        parts: isotypic parts of these inside the particle's sphere, each in its own frame.
        matched: how the second is turned onto the first.
        max_shell: last shell of the maps.
        score_shell: last shell that scores.
    """

    raw: Sequence[Float32[AnyArray, "b b b"]]
    parts: Sequence[IsotypicParts]
    matched: HalfAlignment
    max_shell: int
    score_shell: int


class Portion(NamedTuple):
    """Some of a half-set's images.

    Attributes:
        sums: of these images.
        weight: mean weight per voxel and shell of the whole half-set.
        share: of the half-set that is in the sums; a smaller one is trusted less.
    """

    sums: ShellSums
    weight: Float[AnyArray, " shells"]
    share: float | Float[AnyArray, ""] = 1.0


class Learned(NamedTuple):
    """What a prior has learned, and the curves that it has seen.

    Attributes:
        state: whatever the prior needs to make maps; a pytree of arrays.
        fsc_symmetric, fsc_asymmetric: of the masked parts of the matched half-maps. The first
            decides how far images are scored.
    """

    state: Any
    fsc_symmetric: Float64[np.ndarray, " shells"]
    fsc_asymmetric: Float64[np.ndarray, " shells"]


class MapPrior(eqx.Module):
    """Interface of map priors; hyper-parameters are fields."""

    @property
    def calibrated(self) -> bool:
        """Whether the strength of the asymmetric part is found by images it was not made of."""
        return True

    @abc.abstractmethod
    def learn(
        self, halves: HalfMaps, belief: Belief, particle: Particle, rng: np.random.Generator
    ) -> Learned:
        """What the half-maps say of how far maps can be believed."""

    @abc.abstractmethod
    def solve(self, state: Any, portion: Portion, particle: Particle) -> IsotypicParts:
        """The regularised map of some images on the working box of their sums.

        On an accelerator it is part of a program, and its arrays are traced: what it is made of
        must then be JAX's, as the functions of :mod:`jaxrelax.reconstruction` are.
        """

    def join(
        self,
        state: Any,
        portion: Portion,
        other: IsotypicParts,
        strength: float,
        particle: Particle,
    ) -> IsotypicParts:
        """A map to score with once more, averaged with the other half-set's where the two agree.

        Only for a last scoring: fed back, the half-sets would come to agree on noise. By default
        half-sets keep to themselves.

        Args:
            state: what was learned.
            portion: images of the own half-set.
            other: unregularised parts of the other one inside the sphere, in the same frame.
            strength: calibrated factor of the asymmetric gain.
            particle: what is looked at.
        """
        parts = self.solve(state, portion, particle)
        return IsotypicParts(parts.symmetric, parts.asymmetric * np.float32(strength))


class Gains(eqx.Module):
    """What the Wiener priors of this module learn.

    Attributes:
        fsc_symmetric: FSC of the symmetric parts.
        gain: of the asymmetric part, per isotypic component.
        density: mask of the particle on the working box.
    """

    fsc_symmetric: Float[AnyArray, " shells"]
    gain: Float[AnyArray, "components shells"]
    density: Float32[AnyArray, "b b b"]


class _Wiener(MapPrior):
    """A Wiener filter for the symmetric part, and a gain for each component of the rest."""

    @abc.abstractmethod
    def _compared(
        self, halves: HalfMaps, sphere: Float32[AnyArray, "b b b"], turned: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        """The maps whose FSC regularises the symmetric part."""

    @abc.abstractmethod
    def _gain(
        self,
        inside: Sequence[IsotypicParts],
        inner: HalfAlignment,
        belief: Belief,
        particle: Particle,
        density: Float32[AnyArray, "b b b"],
        shape: tuple[int, int],
    ) -> Float64[np.ndarray, "components shells"]:
        """Gain of every component of the asymmetric part."""

    def learn(
        self, halves: HalfMaps, belief: Belief, particle: Particle, rng: np.random.Generator
    ) -> Learned:
        """Mask, FSC and gains, those of the maps as they will be masked.

        Inside the mask there is less noise per signal than in the sphere. What the mask itself
        correlates is measured with random phases and removed.
        """
        n_shells = halves.max_shell + 1
        sphere = particle.sphere(working_box(halves.max_shell))
        turned = onto_first(particle, halves.matched.index, halves.raw[1])
        density = particle.density_mask(halves.raw[0], turned, faint=belief.faint)
        compared = self._compared(halves, sphere, turned)
        fsc_symmetric = corrected_fsc(*compared, density, rng)["corrected"][:n_shells]
        fsc_asymmetric = np.zeros(n_shells)
        gain = np.zeros((max(len(isotypic_weights(particle.group)) - 1, 1), n_shells))
        if particle.relaxed:
            inside = [IsotypicParts(p.symmetric, p.asymmetric * density) for p in halves.parts]
            inner = match_halves(
                particle, inside, density, max_shell=halves.max_shell,
                score_shell=halves.score_shell,
            )  # fmt: skip
            fsc_asymmetric = inner.fsc[:n_shells]
            gain = self._gain(inside, inner, belief, particle, density, gain.shape)
            last = particle.register_limit(halves.max_shell - MARGIN)
            gain[:, np.arange(n_shells) > last] = 0.0
        return Learned(Gains(fsc_symmetric, gain, density), fsc_symmetric, fsc_asymmetric)

    def solve(self, state: Gains, portion: Portion, particle: Particle) -> IsotypicParts:
        """Wiener filter, isotypic parts, gains, masks."""
        tau = inverse_tau2(portion.weight, state.fsc_symmetric) * portion.share
        return regularised_parts(
            portion.sums,
            tau.astype(np.float32),
            # Without relaxation there is no asymmetric part, whose gains are zero.
            state.gain,
            particle.group,
            particle.subgroup,
            sphere=particle.sphere(working_box(portion.sums.max_shell)),
            symmetric_mask=state.density,
            asymmetric_mask=particle.region(state.density),
            image_box=particle.box,
            margin=MARGIN,
        )

    def join(
        self,
        state: Gains,
        portion: Portion,
        other: IsotypicParts,
        strength: float,
        particle: Particle,
    ) -> IsotypicParts:
        """Averaged up to the first shell whose FSC is below :data:`JOIN_ABOVE`.

        So the FSC at the resolution limit stays that of independent halves (RELION's
        ``low_resol_join_halves``, with the limit from the data).
        """
        density = state.density
        sphere = particle.sphere(len(density))
        gains = [
            np.clip(c, 0.0, LARGEST_GAIN)
            for c in (state.fsc_symmetric[None], state.gain * strength)
        ]
        counts = (particle.symmetric_coefficients(density), particle.coefficients(density))
        low = [
            np.stack([agreeing(row, count) for row in rows])
            for rows, count in zip(gains, counts, strict=True)
        ]
        joined_gain = [2.0 * c / (1.0 + c) * m for c, m in zip(gains, low, strict=True)]

        def apply(part: int, map_, rows):
            if part == 0:
                return apply_gain(map_, rows[0])
            return apply_component_gains(map_, rows, particle.group)

        share = portion.share
        own = particle.split(unregularised_map(portion.sums, particle) * sphere)
        alone = self.solve(state, portion, particle)
        factors = (1.0, np.float32(strength))
        symmetric, asymmetric = (
            apply(i, (share * own[i] + other[i]) / (share + 1.0), joined_gain[i]) * density
            + apply(i, factors[i] * alone[i], 1.0 - low[i])
            for i in range(2)
        )
        return IsotypicParts(symmetric, particle.region(asymmetric))


class Isotypic(_Wiener):
    """The symmetric part and every isotypic component of the rest have gains of their own.

    They come from the FSC of each between the matched half-maps (docs/theory.md, "Two gains and a
    strength").
    """

    def _compared(self, halves, sphere, turned):
        return halves.parts[0].symmetric, halves.parts[1].symmetric

    def _gain(self, inside, inner, belief, particle, density, shape):
        return isotypic_gains(particle, inside, inner, belief, density, shape)


class Plain(_Wiener):
    """One FSC for the whole map, as other programs do: the asymmetric part has no gain."""

    @property
    def calibrated(self) -> bool:
        """It takes the map as it is."""
        return False

    def _compared(self, halves, sphere, turned):
        return halves.raw[0] * sphere, turned * sphere

    def _gain(self, inside, inner, belief, particle, density, shape):
        return np.ones(shape)


def isotypic_gains(
    particle: Particle,
    inside: Sequence[IsotypicParts],
    inner: HalfAlignment,
    belief: Belief,
    density: Float32[AnyArray, "b b b"],
    shape: tuple[int, int],
) -> Float64[np.ndarray, "components shells"]:
    """Gain of every isotypic component of an asymmetric part, from its FSC between half-maps.

    Args:
        particle: groups and register mask.
        inside: parts of the half-maps, each in its own frame, multiplied by ``density``.
        inner: how these match.
        belief: how much of what may be noise is kept.
        density: mask on the same box.
        shape: components and shells of the result.
    """
    # Amplified, all components count in full: what they come to is not known before.
    if belief.full:
        return np.ones(shape)
    counts = particle.coefficients(density)[: shape[1]]
    # While seeking all components are alike: what is known of them is noise.
    curves = np.broadcast_to(inner.fsc[: shape[1]], shape)
    if belief.by_component:
        curves = component_curves(particle, inside, inner, density)[:, : shape[1]]
    return np.clip(curves + belief.optimism / np.sqrt(counts), 0.0, LARGEST_GAIN)


def component_curves(
    particle: Particle,
    parts: Sequence[IsotypicParts],
    aligned: HalfAlignment,
    mask: Float32[AnyArray, "b b b"],
) -> Float64[np.ndarray, "components shells"]:
    """FSC of every isotypic component of the asymmetric parts, as far as counts tell them apart.

    Args:
        particle: groups and register mask.
        parts: of the half-maps, each in its own frame, multiplied by ``mask``.
        aligned: of these.
        mask: on the same box.
    """
    fraction = independent_fraction(particle.region(mask))
    counts = component_counts(len(mask), fraction, particle.group, particle.subgroup)
    if np.count_nonzero(counts[:, -1]) < 2:
        return np.broadcast_to(aligned.fsc, counts.shape)
    found = component_fsc(
        particle.region(parts[0].asymmetric), particle.region(parts[1].asymmetric),
        particle.group, aligned.chosen,
    )  # fmt: skip
    return share_of_components(aligned.fsc, found, counts)


def unregularised_map(sums: ShellSums, particle: Particle) -> Float32[np.ndarray, "b b b"]:
    """Half-map without prior (a tiny ridge) on the working box of its sums; see ``MARGIN``."""
    return np.asarray(
        wiener_map(
            sums.accumulator(), np.zeros(sums.max_shell + 1, np.float32),
            box=working_box(sums.max_shell), image_box=particle.box, margin=MARGIN,
        )
    )  # fmt: skip


def agreeing(
    curve: Float[np.ndarray, " shells"], counts: Float[np.ndarray, " counted"]
) -> Float64[np.ndarray, " shells"]:
    """1 up to the first shell where the half-sets do not agree well enough to be joined."""
    return np.where(np.arange(len(curve)) < first_below(curve, JOIN_ABOVE, counts), 1.0, 0.0)
