"""Priors of several maps together: what states share, and what each has of its own.

One Wiener filter per state would leave each state's own noise in the body that all share, where it
is read as a difference between states: posteriors are then too sure, and states small or alike
never come apart. So every map is split into parts that have gains of their own, each from the FSC
of that part between the half-sets:

    V_k = C + E_k + D_k,    C = Σ_k π_k Sym_k V_k,    E_k = Sym_k V_k − C,    D_k = V_k − Sym_k V_k

with π_k the populations and Sym_k the average over the group of the state. It is the isotypic prior
once more, with the permutations of states among its symmetries.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.geometry import isotypic_weights
from jaxrelax.imaging import MARGIN, resample_map, working_box
from jaxrelax.reconstruction.components import apply_component_gains
from jaxrelax.reconstruction.fsc import corrected_fsc, fsc
from jaxrelax.reconstruction.isotypic import IsotypicParts, apply_gain, isotypic_parts
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
from jaxrelax.reconstruction.wiener import inverse_tau2, wiener_map


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
        own: gains of every E_k.
        fsc_own: FSC of every E_k inside the mask.
        asymmetric: gains of every D_k, per isotypic component; None where a state has none.
        fsc_asymmetric: FSC of every D_k; zeros where there is none.
        shares: π.
        density: mask of the particle on the working box.
        differing: mask of what may differ between states and registers.
    """

    fsc_shared: Float[AnyArray, " shells"]
    own: Float[AnyArray, "maps shells"]
    fsc_own: Float[AnyArray, "maps shells"]
    asymmetric: tuple[Float[AnyArray, "components shells"] | None, ...]
    fsc_asymmetric: Float[AnyArray, "maps shells"]
    shares: Float[AnyArray, " maps"]
    density: Float32[AnyArray, "b b b"]
    differing: Float32[AnyArray, "b b b"]


class SharedAndOwn(StatesPrior):
    """What states share, and what each has of its own, have gains of their own.

    Attributes:
        finest_difference_angstrom: only frequencies up to this tell states apart; None: all.
        focus_mask: states differ only inside of it, on the particle's box; None: everywhere.
    """

    finest_difference_angstrom: float | None = None
    focus_mask: Float32[np.ndarray, "b b b"] | None = None

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
        fsc_shared = corrected_fsc(*shared, density, rng)["corrected"][:n_shells]
        own, fsc_own = np.zeros((2, len(halves), n_shells))
        asymmetric, fsc_asymmetric = [], np.zeros((len(halves), n_shells))
        last = max_shell - MARGIN
        if self.finest_difference_angstrom is not None:
            edge = particles[0].edge_angstrom
            last = min(last, max(int(edge / self.finest_difference_angstrom), 1))
        beyond = np.arange(n_shells) > last
        for number, (one, particle) in enumerate(zip(halves, particles, strict=True)):
            pair = [(symmetric[half][number] - shared[half]) * differing for half in (0, 1)]
            counts = particle.symmetric_coefficients(differing)[:n_shells]
            if len(halves) > 1:
                fsc_own[number] = fsc(*pair)[:n_shells]
                curve = fsc_own[number] + belief.optimism / np.sqrt(np.maximum(counts, 1.0))
                own[number] = np.clip(curve, 0.0, LARGEST_GAIN)
            if not particle.relaxed:
                asymmetric.append(None)
                continue
            inside = [IsotypicParts(p.symmetric, p.asymmetric * differing) for p in one.parts]
            inner = match_halves(
                particle, inside, differing, max_shell=max_shell, score_shell=score_shell
            )
            components = max(len(isotypic_weights(particle.group)) - 1, 1)
            shape = (components, n_shells)
            gain = isotypic_gains(particle, inside, inner, belief, differing, shape)
            gain[:, np.arange(n_shells) > particle.register_limit(last)] = 0.0
            fsc_asymmetric[number] = inner.fsc[:n_shells]
            asymmetric.append(gain)
        own *= 1.0 - belief.similarity
        own[:, beyond] = 0.0
        state = OwnGains(
            fsc_shared, own, fsc_own, tuple(asymmetric), fsc_asymmetric, shares, density, differing
        )
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
                image_box=particle.box, margin=MARGIN,
            )  # fmt: skip
            map_ = np.asarray(map_) if on_host(map_) else map_
            split.append(isotypic_parts(map_ * sphere, particle.group, particle.subgroup))
        shared = _weighted(state.shares, [one.symmetric for one in split])
        made = []
        for number, (one, particle) in enumerate(zip(split, particles, strict=True)):
            own = apply_gain(one.symmetric - shared, state.own[number]) * state.differing
            gain, asymmetric = state.asymmetric[number], 0.0 * one.asymmetric
            if gain is not None:
                asymmetric = apply_component_gains(one.asymmetric, gain, particle.group)
                asymmetric = particle.region(asymmetric * state.differing)
            made.append(IsotypicParts(shared * state.density + own, asymmetric))
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
        body = apply_gain(shared, gain[0]) * state.density
        body += apply_gain(alone_shared, 1.0 - low[0])
        made = []
        for number, (one, own, particle) in enumerate(zip(mean, alone, particles, strict=True)):
            counts = particle.symmetric_coefficients(state.differing)
            gain, low = _joined(state.own[number][None], counts)
            symmetric = apply_gain(one.symmetric - shared, gain[0]) * state.differing
            symmetric += apply_gain(own.symmetric - alone_shared, 1.0 - low[0])
            asymmetric = own.asymmetric
            if state.asymmetric[number] is not None:
                counts = particle.coefficients(state.differing)
                gain, low = _joined(state.asymmetric[number], counts)
                asymmetric = particle.region(
                    apply_component_gains(one.asymmetric, gain, particle.group) * state.differing
                    + apply_component_gains(own.asymmetric, 1.0 - low, particle.group)
                )
            made.append(IsotypicParts(body + symmetric, asymmetric * np.float32(strength)))
        return made


def _joined(curves, counts) -> tuple[np.ndarray, np.ndarray]:
    """Gains of the mean of both half-sets up to where they agree, 0 beyond; and 1 up to there."""
    curves = np.clip(curves, 0.0, LARGEST_GAIN)
    low = np.stack([agreeing(row, counts) for row in curves])
    return 2.0 * curves / (1.0 + curves) * low, low


def _weighted(shares, maps: Sequence[Float32[AnyArray, "b b b"]]) -> Float32[AnyArray, "b b b"]:
    """Σ_k π_k V_k."""
    if on_host(*maps):
        return np.einsum("k,kzyx->zyx", np.asarray(shares, np.float32), np.stack(maps))
    return jnp.einsum("k,kzyx->zyx", jnp.asarray(shares, jnp.float32), jnp.stack(maps))
