"""Maps of all occupancy patterns from two: the body, and the partner at one site.

    V_S = B + Σ_{g in S} g P

has for n sites 2^n maps, but only two unknown ones. They are the least-squares fit to the maps of
all subsets, each with its share of the images: what EM's M-step is for maps tied in this way, where
views are spread alike. Regressed on which sites are occupied, less the mean occupancy q, the fit of
P takes no inverse of a map's size, but one number for each pattern and operator; and the mean map
C = B + q Σ_g g P is what it was. So rare patterns cost no noise, and need no images of their own.

Half-sets are brought into one frame where the patterns start, and P keeps them there.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.geometry import OccupancyPatterns, Pattern, PointGroup
from jaxrelax.imaging import MARGIN, resample_map, working_box
from jaxrelax.reconstruction.fsc import corrected_fsc, shell_counts
from jaxrelax.reconstruction.isotypic import IsotypicParts, align_half_maps, apply_gain
from jaxrelax.reconstruction.local_gains import filtered_locally, signal_profile
from jaxrelax.reconstruction.map_priors import (
    LARGEST_GAIN,
    Learned,
    agreeing,
    unregularised_map,
)
from jaxrelax.reconstruction.masks import independent_fraction
from jaxrelax.reconstruction.matching import voting_shells
from jaxrelax.reconstruction.particle import Particle
from jaxrelax.reconstruction.rotate import inside_sphere, rotate_map, rotated_maps, symmetrise
from jaxrelax.reconstruction.state_priors import StatesPrior, joined_locally, unfaded_gain
from jaxrelax.reconstruction.wiener import inverse_tau2, wiener_map

# Added to the (co)variances of the occupancies of sites, of which p = 1/2 has 1/4: a combination of
# sites that hardly varies among the images says nothing of the partner, only noise.
RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class PatternParticle(Particle):
    """A particle with partners on some of its sites.

    Attributes:
        pattern: which sites; its stabiliser is what is kept.
    """

    pattern: Pattern = field(kw_only=True)

    @property
    def name(self) -> str:
        """Of the pattern, for people."""
        return self.pattern.name

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """Patterns are known by their sites, whatever their symmetry."""
        return self.group, self.pattern.digits

    @cached_property
    def normaliser(self) -> list[int]:
        """The identity: all patterns share the frame of the partner, and half-sets begin in it.

        Turned by itself a pattern would no longer fit the others.
        """
        return [0]


def of_patterns(particle: Particle, patterns: OccupancyPatterns) -> tuple[PatternParticle, ...]:
    """What the map of every pattern is of.

    Args:
        particle: its sphere, box and masks.
        patterns: of its group.
    """
    given: dict[str, Any] = {one.name: getattr(particle, one.name) for one in fields(Particle)}
    given["group"], made = patterns.group, []
    for pattern in patterns.patterns:
        given["subgroup"] = pattern.stabiliser
        made.append(PatternParticle(**given, pattern=pattern))
    return tuple(made)


def mean_occupancy(patterns: Sequence[Pattern], shares: Float[AnyArray, " maps"]) -> float:
    """Occupied sites over all sites.

    Args:
        patterns: some or all.
        shares: of the images, of every pattern; they add up to 1.
    """
    levels = [pattern.n_partners / len(pattern.sites) for pattern in patterns]
    return float(np.asarray(shares, np.float64) @ levels)


def partner_coefficients(
    patterns: Sequence[Pattern], group: PointGroup, shares: Float[AnyArray, " maps"]
) -> Float64[np.ndarray, "order maps"]:
    """C with P = Σ_h h Σ_k c_hk V_k, the least-squares fit to the maps of all subsets of sites.

    Subset T = h S_k has the map h V_k and the weight π_k over its multiplicity. Written as a sum
    over all operators h, every subset occurs once for each operator of its stabiliser.

    Args:
        patterns: of the maps.
        group: that moves the sites.
        shares: π, which add up to 1.
    """
    n = group.order
    sites = np.stack([pattern.sites for pattern in patterns])
    # Site g is in h S where h⁻¹ g is in S.
    occupied = sites[:, group.multiplication_table[group.inverse]]
    weight = np.asarray(shares, np.float64) / n
    centred = occupied - mean_occupancy(patterns, shares)
    normal = np.einsum("k,khf,khg->fg", weight, centred, centred) + RIDGE * np.eye(n)
    of_identity = np.linalg.solve(normal, np.eye(n)[0])
    return np.einsum("k,khg,g->hk", weight, centred, of_identity)


def partner_map(
    maps: Sequence[Float32[AnyArray, "b b b"]],
    coefficients: Float[AnyArray, "order maps"],
    group: PointGroup,
) -> Float32[AnyArray, "b b b"]:
    """The partner at the site of the identity, from the maps of patterns.

    Args:
        maps: of the patterns.
        coefficients: see :func:`partner_coefficients`.
        group: that moves the sites.
    """
    xp = np if on_host(list(maps), coefficients) else jnp
    of_operators = xp.asarray(coefficients, dtype=xp.float32)
    together = xp.stack([inside_sphere(one) for one in maps])
    total = xp.zeros_like(together[0])
    for row, operator in zip(of_operators, group.operators, strict=True):
        total = total + rotate_map(xp.einsum("k,kzyx->zyx", row, together), operator)
    return total


def pattern_parts(
    shared: Float32[AnyArray, "b b b"],
    partner: Float32[AnyArray, "b b b"],
    occupancy: float | Float[AnyArray, ""],
    patterns: Sequence[Pattern],
    group: PointGroup,
) -> list[IsotypicParts]:
    """Parts of the map of every pattern.

    Args:
        shared: the mean map C = B + q Σ_g g P, symmetric.
        partner: P.
        occupancy: q.
        patterns: whose maps are made.
        group: that moves the sites.
    """
    xp = np if on_host(shared, partner, occupancy) else jnp
    mean = xp.asarray(occupancy, dtype=xp.float32)
    turned = list(rotated_maps(inside_sphere(partner), group.operators))
    everywhere = sum(turned[1:], start=turned[0])
    made = []
    for pattern in patterns:
        level = np.float32(pattern.n_partners / group.order)
        symmetric = shared + (level - mean) * everywhere
        there = [turned[g] for g in np.flatnonzero(pattern.sites)]
        # Of none and all the rest is nothing but rounding.
        asymmetric = xp.zeros_like(everywhere)
        if 0 < len(there) < group.order:
            asymmetric = sum(there[1:], start=there[0]) - level * everywhere
        made.append(IsotypicParts(symmetric, asymmetric))
    return made


class PartnerGains(eqx.Module):
    """What :class:`TiedPatterns` learns.

    Attributes:
        fsc_shared: FSC of the mean map C.
        gain: of the partner.
        fsc_partner: its FSC inside the mask.
        coefficients: see :func:`partner_coefficients`.
        shares: π.
        occupancy: q.
        density: mask of the particle with all partners on the working box.
        differing: mask of what may belong to a partner.
        profile: power of the partner's signal at every place, over its mean.
    """

    fsc_shared: Float[AnyArray, " shells"]
    gain: Float[AnyArray, " shells"]
    fsc_partner: Float[AnyArray, " shells"]
    coefficients: Float[AnyArray, "order maps"]
    shares: Float[AnyArray, " maps"]
    occupancy: Float[AnyArray, ""]
    density: Float32[AnyArray, "b b b"]
    differing: Float32[AnyArray, "b b b"]
    profile: Float32[AnyArray, "b b b"]


class TiedPatterns(StatesPrior):
    """Maps of all patterns are made of one body and one partner, which have gains of their own.

    Its particles are those of :func:`of_patterns`.

    Attributes:
        finest_difference_angstrom: only frequencies up to this tell patterns apart; None: all.
        focus_mask: the partner is inside of it, on the particle's box; None: anywhere.
    """

    finest_difference_angstrom: float | None = None
    focus_mask: Float32[np.ndarray, "b b b"] | None = None

    def learn(self, halves, shares, belief, particles, rng) -> Learned:
        """Masks, FSCs and gains of the mean map and the partner."""
        max_shell, score_shell = halves[0].max_shell, halves[0].score_shell
        n_shells, box = max_shell + 1, working_box(max_shell)
        first, group, patterns = particles[0], particles[0].group, _patterns(particles)
        shares = np.asarray(shares, np.float64)
        coefficients = partner_coefficients(patterns, group, shares)
        occupancy = mean_occupancy(patterns, shares)
        raw = [[np.asarray(one.raw[half]) for one in halves] for half in (0, 1)]
        shared = [symmetrise(inside_sphere(_mean(shares, maps)), group) for maps in raw]
        partner = [partner_map(maps, coefficients, group) for maps in raw]
        # With all partners on it the particle is nowhere fainter than any pattern.
        missing = np.float32((1.0 - occupancy) * group.order)
        full = [c + missing * symmetrise(p, group) for c, p in zip(shared, partner, strict=True)]
        seen = [first.density_mask(a, b, faint=belief.faint) for a, b in (shared, full)]
        density = np.maximum(seen[0], seen[1])
        differing = density
        if self.focus_mask is not None:
            differing = density * np.clip(resample_map(self.focus_mask, box), 0.0, 1.0)
        differing = np.asarray(first.region(differing))
        sphere = first.sphere(box)
        curves = corrected_fsc(shared[0] * sphere, shared[1] * sphere, density, rng)
        fsc_shared = curves["corrected"][:n_shells]
        fraction = independent_fraction(differing)
        counts = np.maximum(shell_counts(box) * fraction, 1.0)
        weight = np.sqrt(counts)
        weight[:n_shells] *= voting_shells(first, n_shells, score_shell)
        weight[n_shells:] = 0.0
        matched = align_half_maps(
            partner[0] * differing, partner[1] * differing, group, list(range(group.order)),
            weight, fraction,
        )  # fmt: skip
        fsc_partner = matched.fsc[:n_shells]
        gain = fsc_partner + belief.optimism / np.sqrt(counts[:n_shells])
        gain = np.ones(n_shells) if belief.full else np.clip(gain, 0.0, LARGEST_GAIN)
        last = max_shell - MARGIN
        if self.finest_difference_angstrom is not None:
            last = min(last, max(int(first.edge_angstrom / self.finest_difference_angstrom), 1))
        unseen = np.arange(n_shells) > first.register_limit(last)
        gain[unseen] = 0.0
        profile = np.ones_like(differing)
        # P is at one site and has noise at all. In another frame half-sets would not say where.
        if matched.index == 0 and not belief.full:
            inside = (partner[0] * differing, partner[1] * differing)
            profile = signal_profile(inside, np.where(unseen, 0.0, fsc_partner), differing, counts)
        state = PartnerGains(
            fsc_shared, gain, fsc_partner, coefficients, shares, np.asarray(occupancy),
            density, differing, profile,
        )  # fmt: skip
        return Learned(state, fsc_shared, fsc_partner)

    def solve(self, state: PartnerGains, portions, particles) -> list[IsotypicParts]:
        """Mean map and partner, their gains and masks, and from them the map of every pattern."""
        shared, partner = self._regularised(state, portions, particles)
        return _made(shared, partner, state, particles)

    def join(self, state: PartnerGains, portions, others, strength, particles):
        """Mean map and partner of both half-sets, where these agree on them."""
        group, share = particles[0].group, portions[0].share
        alone_shared, alone_partner = self._regularised(state, portions, particles)
        mean = []
        for portion, other, particle in zip(portions, others, particles, strict=True):
            own = unregularised_map(portion.sums, particle) * particle.sphere(len(state.density))
            mean.append((share * own + other.symmetric + other.asymmetric) / (share + 1.0))
        mean = [np.asarray(one, np.float32) for one in mean]
        counts = particles[0].symmetric_coefficients(state.density)
        gain, low = _joined(state.fsc_shared, counts)
        shared = symmetrise(inside_sphere(_mean(state.shares, mean)), group)
        shared = apply_gain(shared, unfaded_gain(gain)) * state.density + apply_gain(
            alone_shared, 1.0 - low
        )
        counts = shell_counts(len(state.differing)) * independent_fraction(state.differing)
        gain, low = joined_locally(state.gain[None], counts, state.profile, state.differing)
        partner = partner_map(mean, state.coefficients, group)
        partner = filtered_locally(partner, gain[0], state.profile) * state.differing
        partner = partner + apply_gain(alone_partner, 1.0 - low[0])
        made = _made(shared, partner, state, particles)
        return [IsotypicParts(p.symmetric, p.asymmetric * np.float32(strength)) for p in made]

    def _regularised(self, state: PartnerGains, portions, particles):
        """Mean map and partner of some images.

        All maps are regularised alike, relative to what went into each.
        """
        box, group = working_box(portions[0].sums.max_shell), particles[0].group
        sphere, maps = particles[0].sphere(box), []
        for portion, particle in zip(portions, particles, strict=True):
            tau = inverse_tau2(portion.weight, state.fsc_shared) * portion.share
            map_ = wiener_map(
                portion.sums.accumulator(), tau.astype(np.float32), box=box,
                image_box=particle.box, margin=MARGIN, unfaded=True,
            )  # fmt: skip
            maps.append((np.asarray(map_) if on_host(map_) else map_) * sphere)
        shared = symmetrise(inside_sphere(_mean(state.shares, maps)), group)
        partner = partner_map(maps, state.coefficients, group)
        partner = filtered_locally(partner, state.gain, state.profile)
        return shared * state.density, partner * state.differing


def _made(shared, partner, state: PartnerGains, particles) -> list[IsotypicParts]:
    return pattern_parts(shared, partner, state.occupancy, _patterns(particles), particles[0].group)


def _patterns(particles: Sequence[Particle]) -> list[Pattern]:
    """Those that the maps are of.

    Raises:
        ValueError: particles without patterns.
    """
    patterns = [one.pattern for one in particles if isinstance(one, PatternParticle)]
    if len(patterns) < len(particles):
        raise ValueError("TiedPatterns is a prior of occupancy patterns; see of_patterns")
    return patterns


def _mean(shares, maps: Sequence[Float32[AnyArray, "b b b"]]) -> Float32[AnyArray, "b b b"]:
    """Σ_k π_k V_k."""
    xp = np if on_host(shares, list(maps)) else jnp
    weights = xp.asarray(shares, dtype=xp.float32)
    return xp.einsum("k,kzyx->zyx", weights, xp.stack(list(maps)))


def _joined(curve, counts) -> tuple[np.ndarray, np.ndarray]:
    """Gain of the mean of both half-sets up to where they agree, 0 beyond; and 1 up to there."""
    curve = np.clip(curve, 0.0, LARGEST_GAIN)
    low = agreeing(curve, counts)
    return 2.0 * curve / (1.0 + curve) * low, low
