"""Priors of several maps together: what states share, and what each has of its own.

One Wiener filter per state would leave each state's own noise in the body that all share, where it
is read as a difference between states: posteriors are then too sure, and states small or alike
never come apart. So every map is split into parts that have gains of their own, each from the FSC
of that part between the half-sets:

    V_k = C + E_k + D_k,    C = Σ_k π_k Sym_k V_k,    E_k = Sym_k V_k − C,    D_k = V_k − Sym_k V_k

with π_k the populations and Sym_k the average over the group of the state. It is the isotypic prior
once more, with the permutations of states among its symmetries. States may differ in fewer ways
than there are states, so gains are those of contrasts between the E_k
(:mod:`jaxrelax.reconstruction.contrasts`); and they may differ in a few places, so gains of these
and of D_k vary in space as well (:mod:`jaxrelax.reconstruction.local_gains`).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.geometry import isotypic_weights
from jaxrelax.imaging import MARGIN, resample_map, working_box
from jaxrelax.reconstruction.components import apply_component_gains, component_gained_maps
from jaxrelax.reconstruction.contrasts import Contrasts, combined, contrasts
from jaxrelax.reconstruction.fsc import corrected_fsc, fsc
from jaxrelax.reconstruction.isotypic import IsotypicParts, apply_gain, isotypic_parts
from jaxrelax.reconstruction.local_gains import (
    concentration,
    filtered_locally,
    signal_profile,
    stronger,
)
from jaxrelax.reconstruction.map_priors import (
    LARGEST_GAIN,
    Belief,
    HalfMaps,
    Learned,
    MapPrior,
    Portion,
    agreeing,
    isotypic_gains,
    unregularised_map,
)
from jaxrelax.reconstruction.matching import match_halves, onto_first
from jaxrelax.reconstruction.particle import Particle
from jaxrelax.reconstruction.rotate import symmetrise
from jaxrelax.reconstruction.wiener import MOST_FADED, inverse_tau2, wiener_map


class StatesPrior(eqx.Module):
    """Interface of priors of all maps that images may show; hyper-parameters are fields.

    As :class:`MapPrior`, with a sequence over maps in place of one.
    """

    @property
    def calibrated(self) -> bool:
        """Whether the strength of the asymmetric part is found by images it was not made of."""
        return False

    @abc.abstractmethod
    def learn(
        self,
        halves: Sequence[HalfMaps],
        shares: Float[AnyArray, " maps"],
        belief: Belief,
        particles: Sequence[Particle],
        rng: np.random.Generator,
    ) -> Learned:
        """What the half-maps say of how far maps can be believed.

        Args:
            halves: of every map.
            shares: of all that was accumulated, what went into every map; they add up to 1.
            belief: how much of what may be noise is kept.
            particles: what every map is of.
            rng: for random phases.
        """

    @abc.abstractmethod
    def solve(
        self, state: Any, portions: Sequence[Portion], particles: Sequence[Particle]
    ) -> list[IsotypicParts]:
        """The regularised maps of some images on the working box of their sums; traceable."""

    def join(
        self,
        state: Any,
        portions: Sequence[Portion],
        others: Sequence[IsotypicParts],
        strength: float,
        particles: Sequence[Particle],
    ) -> list[IsotypicParts]:
        """Maps for a last scoring; see :meth:`MapPrior.join`."""
        made = self.solve(state, portions, particles)
        return [IsotypicParts(p.symmetric, p.asymmetric * np.float32(strength)) for p in made]


class EachAlone(StatesPrior):
    """Every map has a prior of its own, and nothing is shared.

    Attributes:
        prior: of each.
    """

    prior: MapPrior

    @property
    def calibrated(self) -> bool:
        """As the prior of one."""
        return self.prior.calibrated

    def learn(self, halves, shares, belief, particles, rng) -> Learned:
        """Map by map; the curves are those of the first."""
        found = [
            self.prior.learn(one, belief, particle, rng)
            for one, particle in zip(halves, particles, strict=True)
        ]
        states = tuple(one.state for one in found)
        return Learned(states, found[0].fsc_symmetric, found[0].fsc_asymmetric)

    def solve(self, state, portions, particles) -> list[IsotypicParts]:
        """Map by map."""
        every = zip(state, portions, particles, strict=True)
        return [self.prior.solve(*one) for one in every]

    def join(self, state, portions, others, strength, particles) -> list[IsotypicParts]:
        """Map by map."""
        every = zip(state, portions, others, particles, strict=True)
        return [
            self.prior.join(own, portion, other, strength, particle)
            for own, portion, other, particle in every
        ]


class OwnGains(eqx.Module):
    """What :class:`SharedAndOwn` learns.

    Attributes:
        fsc_shared: FSC of C.
        contrasts: of all E_k.
        own: gains of every contrast, where its power is the mean inside the mask.
        fsc_own: FSC of every E_k inside the mask.
        asymmetric: the same of every D_k, per isotypic component; None where a state has none.
        fsc_asymmetric: FSC of every D_k; zeros where there is none.
        shares: π.
        density: mask of the particle on the working box.
        differing: mask of what may differ between states and registers.
        own_profile: power of the signal of every contrast at every place, over its mean.
        asymmetric_profile: the same of every D_k, the mean over all registers.
    """

    fsc_shared: Float[AnyArray, " shells"]
    contrasts: Contrasts
    own: Float[AnyArray, "contrasts shells"]
    fsc_own: Float[AnyArray, "maps shells"]
    asymmetric: tuple[Float[AnyArray, "components shells"] | None, ...]
    fsc_asymmetric: Float[AnyArray, "maps shells"]
    shares: Float[AnyArray, " maps"]
    density: Float32[AnyArray, "b b b"]
    differing: Float32[AnyArray, "b b b"]
    own_profile: tuple[Float32[AnyArray, "b b b"], ...]
    asymmetric_profile: tuple[Float32[AnyArray, "b b b"] | None, ...]

    def on_box(self, box: int) -> OwnGains:
        """The same for maps on a wider box of the same edge."""

        def place(map_):
            return None if map_ is None else np.maximum(resample_map(map_, box), 0.0)

        return dataclasses.replace(
            self, density=place(self.density), differing=place(self.differing),
            own_profile=tuple(map(place, self.own_profile)),
            asymmetric_profile=tuple(map(place, self.asymmetric_profile)),
        )  # fmt: skip


class SharedAndOwn(StatesPrior):
    """What states share, and what each has of its own, have gains of their own.

    Attributes:
        finest_difference_angstrom: only frequencies up to this tell states apart; None: all.
        focus_mask: states differ only inside of it, on the particle's box; None: everywhere.
        unfaded: the mean of all states keeps its amplitude. Images are told apart without bias
            then; but noise keeps its amplitude, too, and misleads a search of all orientations.
            Maps that are joined for a last scoring are unfaded in any case.
    """

    finest_difference_angstrom: float | None = None
    focus_mask: Float32[np.ndarray, "b b b"] | None = None
    unfaded: bool = True

    def learn(self, halves, shares, belief, particles, rng) -> Learned:
        """Masks, FSCs and gains of all parts."""
        max_shell, score_shell = halves[0].max_shell, halves[0].score_shell
        n_shells, box = max_shell + 1, working_box(max_shell)
        shares = np.asarray(shares, np.float32)
        turned = [
            (one.raw[0], onto_first(particle, one.matched.index, one.raw[1]))
            for one, particle in zip(halves, particles, strict=True)
        ]
        # Where any state has density there may be a difference.
        density = np.max(
            [
                particle.density_mask(*pair, faint=belief.faint)
                for pair, particle in zip(turned, particles, strict=True)
            ],
            axis=0,
        )
        differing = density
        if self.focus_mask is not None:
            differing = density * np.clip(resample_map(self.focus_mask, box), 0.0, 1.0)
        symmetric = [[one.parts[half].symmetric for one in halves] for half in (0, 1)]
        shared = [_weighted(shares, maps) for maps in symmetric]
        fsc_shared = corrected_fsc(shared[0], shared[1], density, rng)["corrected"][:n_shells]
        asymmetric, fsc_asymmetric = [], np.zeros((len(halves), n_shells))
        asymmetric_profile = []
        last = max_shell - MARGIN
        if self.finest_difference_angstrom is not None:
            edge = particles[0].edge_angstrom
            last = min(last, max(int(edge / self.finest_difference_angstrom), 1))
        beyond = np.arange(n_shells) > last
        of_states = [
            [(map_ - shared[half]) * differing for map_ in symmetric[half]] for half in (0, 1)
        ]
        first, second = of_states
        fsc_own = np.array([fsc(*pair)[:n_shells] for pair in zip(first, second, strict=True)])
        found = contrasts(first, second, last + 1)
        own, own_profile = np.zeros((len(found.of_maps), n_shells)), []
        counts = particles[0].symmetric_coefficients(differing)[:n_shells]
        pairs = zip(*(combined(found.of_maps, maps) for maps in of_states), strict=True)
        for number, pair in enumerate(pairs):
            curve = np.where(beyond, 0.0, fsc(*pair)[:n_shells])
            own_profile.append(signal_profile(pair, curve, differing, counts))
            curve = curve + belief.optimism / np.sqrt(np.maximum(counts, 1.0))
            own[number] = np.clip(np.where(beyond, 0.0, curve), 0.0, LARGEST_GAIN)
        own *= 1.0 - belief.similarity
        for number, (one, particle) in enumerate(zip(halves, particles, strict=True)):
            if not particle.relaxed:
                asymmetric.append(None)
                asymmetric_profile.append(None)
                continue
            inside = [IsotypicParts(p.symmetric, p.asymmetric * differing) for p in one.parts]
            inner = match_halves(
                particle, inside, differing, max_shell=max_shell, score_shell=score_shell
            )
            components = max(len(isotypic_weights(particle.group)) - 1, 1)
            shape = (components, n_shells)
            gain = isotypic_gains(particle, inside, inner, belief, differing, shape)
            unseen = np.arange(n_shells) > particle.register_limit(last)
            gain[:, unseen] = 0.0
            fsc_asymmetric[number] = inner.fsc[:n_shells]
            asymmetric.append(gain)
            seen = np.where(unseen, 0.0, fsc_asymmetric[number])
            profile = _of_all_registers(particle, inside, inner.index, seen, differing)
            # In full, it is wherever it may be.
            asymmetric_profile.append(np.ones_like(profile) if belief.full else profile)
        state = OwnGains(
            fsc_shared, found, own, fsc_own, tuple(asymmetric), fsc_asymmetric, shares, density,
            differing, tuple(own_profile), tuple(asymmetric_profile),
        )  # fmt: skip
        relaxed = [number for number, gain in enumerate(asymmetric) if gain is not None]
        seen = fsc_asymmetric[relaxed[0]] if relaxed else np.zeros(n_shells)
        return Learned(state, fsc_shared, seen)

    def solve(self, state: OwnGains, portions, particles) -> list[IsotypicParts]:
        """Maps, their parts, gains, masks.

        All maps are regularised alike, relative to what went into each, so that what is taken from
        one shows in no difference.
        """
        box = working_box(portions[0].sums.max_shell)
        sphere = particles[0].sphere(box)
        split = []
        for portion, particle in zip(portions, particles, strict=True):
            tau = inverse_tau2(portion.weight, state.fsc_shared) * portion.share
            map_ = wiener_map(
                portion.sums.accumulator(), tau.astype(np.float32), box=box,
                image_box=particle.box, margin=MARGIN, unfaded=self.unfaded,
            )  # fmt: skip
            map_ = np.asarray(map_) if on_host(map_) else map_
            split.append(isotypic_parts(map_ * sphere, particle.group, particle.subgroup))
        shared = _weighted(state.shares, [one.symmetric for one in split])
        own = own_filtered(split, shared, state, state.own)
        made = []
        for number, (one, particle) in enumerate(zip(split, particles, strict=True)):
            gain, profile = state.asymmetric[number], state.asymmetric_profile[number]
            asymmetric = 0.0 * one.asymmetric
            if gain is not None and profile is not None:
                asymmetric = registers_filtered(one.asymmetric, gain, profile, particle)
                asymmetric = particle.region(asymmetric * state.differing)
            made.append(IsotypicParts(shared * state.density + own[number], asymmetric))
        return made

    def join(self, state: OwnGains, portions, others, strength, particles) -> list[IsotypicParts]:
        """Part by part, where the half-sets agree on it; see :meth:`Isotypic.join`."""
        alone = self.solve(state, portions, particles)
        unregularised = [
            particle.split(unregularised_map(portion.sums, particle) * particle.sphere(len(own)))
            for portion, particle, (own, _) in zip(portions, particles, alone, strict=True)
        ]
        share = portions[0].share
        mean = [
            IsotypicParts(*((share * a + b) / (share + 1.0) for a, b in zip(*pair, strict=True)))
            for pair in zip(unregularised, others, strict=True)
        ]
        shared = _weighted(state.shares, [one.symmetric for one in mean])
        alone_shared = _weighted(state.shares, [one.symmetric for one in alone])
        counts = particles[0].symmetric_coefficients(state.density)
        gain, low = _joined(state.fsc_shared[None], counts)
        body = apply_gain(shared, unfaded_gain(gain[0])) * state.density
        body += apply_gain(alone_shared, 1.0 - low[0])
        counts = particles[0].symmetric_coefficients(state.differing)
        rows = [
            joined_locally(gain[None], counts, profile, state.differing)
            for gain, profile in zip(state.own, state.own_profile, strict=True)
        ]
        gains, lows = ([row[i][0] for row in rows] for i in (0, 1))
        symmetric = own_filtered(mean, shared, state, gains)
        kept = combined(state.contrasts.of_maps, [one.symmetric - alone_shared for one in alone])
        kept = [apply_gain(map_, 1.0 - low) for map_, low in zip(kept, lows, strict=True)]
        kept = combined(state.contrasts.to_maps, kept, like=shared)
        symmetric = [a + b for a, b in zip(symmetric, kept, strict=True)]
        made = []
        for number, (one, own, particle) in enumerate(zip(mean, alone, particles, strict=True)):
            asymmetric = own.asymmetric
            gains_own, profile = state.asymmetric[number], state.asymmetric_profile[number]
            if gains_own is not None and profile is not None:
                counts = particle.coefficients(state.differing)
                gain, low = joined_locally(gains_own, counts, profile, state.differing)
                joined = registers_filtered(one.asymmetric, gain, profile, particle)
                asymmetric = particle.region(
                    joined * state.differing
                    + apply_component_gains(own.asymmetric, 1.0 - low, particle.group)
                )
            made.append(IsotypicParts(body + symmetric[number], asymmetric * np.float32(strength)))
        return made


def _joined(curves, counts) -> tuple[np.ndarray, np.ndarray]:
    """Gains of the mean of both half-sets up to where they agree, 0 beyond; and 1 up to there."""
    curves = np.clip(curves, 0.0, LARGEST_GAIN)
    low = np.stack([agreeing(row, counts) for row in curves])
    return 2.0 * curves / (1.0 + curves) * low, low


def unfaded_gain(gain: Float[AnyArray, " shells"]) -> Float[np.ndarray, " shells"]:
    """The gain of a mean that states are compared by: its amplitude is kept (`MOST_FADED`)."""
    return np.minimum(MOST_FADED * np.asarray(gain), 1.0)


def joined_locally(
    curves: Float[AnyArray, "rows shells"],
    counts: Float[np.ndarray, " counted"],
    profile: Float32[AnyArray, "b b b"],
    mask: Float32[AnyArray, "b b b"],
) -> tuple[np.ndarray, np.ndarray]:
    """Gains of the mean of both half-sets, as far as they agree where the signal is.

    Args:
        curves: gains of a half-set.
        counts: independent coefficients of every shell.
        profile: power of the signal at every place, over its mean.
        mask: of what may differ.

    Returns:
        gains, rows × shells, 0 beyond; and 1 up to there.
    """
    curves = np.clip(curves, 0.0, LARGEST_GAIN)
    ratio = concentration(profile, mask)
    _, low = _joined(stronger(curves, ratio), counts / ratio)
    return np.asarray(stronger(curves, 2.0)) * low, low


def own_filtered(
    parts: Sequence[IsotypicParts],
    shared: Float32[AnyArray, "b b b"],
    state: OwnGains,
    gains: Sequence[Float[AnyArray, " shells"]] | Float[AnyArray, "contrasts shells"],
) -> list[Float32[AnyArray, "b b b"]]:
    """Every E_k, filtered contrast by contrast, where it has signal, and masked.

    Args:
        parts: of every map.
        shared: C.
        state: what was learned.
        gains: of every contrast, where its power is the mean.

    Returns:
        for every map, in the units of the parts.
    """
    found = combined(state.contrasts.of_maps, [one.symmetric - shared for one in parts])
    every = zip(found, gains, state.own_profile, strict=True)
    return combined(
        state.contrasts.to_maps, [filtered_locally(*each) * state.differing for each in every],
        like=shared,
    )  # fmt: skip


def _of_all_registers(particle: Particle, inside, index: int, curve, mask):
    """Where asymmetric parts have signal; half-sets need not be in the same register."""
    first, second = (particle.region(one.asymmetric) for one in inside)
    pair = (first, onto_first(particle, index, second))
    # They add up to nothing, so that one of them is known from the others.
    others = float(particle.n_registers - 1)
    return signal_profile(
        pair, curve, mask, particle.coefficients(mask),
        average=lambda m: symmetrise(m, particle.group), averaged=others,
    )  # fmt: skip


def registers_filtered(
    asymmetric: Float32[AnyArray, "b b b"],
    gain: Float[AnyArray, "components shells"],
    profile: Float32[AnyArray, "b b b"],
    particle: Particle,
) -> Float32[AnyArray, "b b b"]:
    """A D_k with gains per component that vary in space; as :func:`own_filtered`."""
    return filtered_locally(
        asymmetric, gain, profile,
        apply=lambda map_, rows: component_gained_maps(map_, rows, particle.group),
    )  # fmt: skip


def _weighted(shares, maps: Sequence[Float32[AnyArray, "b b b"]]) -> Float32[AnyArray, "b b b"]:
    """Σ_k π_k V_k."""
    if on_host(*maps):
        return np.einsum("k,kzyx->zyx", np.asarray(shares, np.float32), np.stack(maps))
    return jnp.einsum("k,kzyx->zyx", jnp.asarray(shares, jnp.float32), jnp.stack(maps))
