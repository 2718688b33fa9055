"""Where the maps of several states come from before the first iteration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Float32, Int

from jaxrelax.geometry import PointGroup
from jaxrelax.reconstruction import (
    IsotypicParts,
    Particle,
    PatternParticle,
    pattern_parts,
    rotate_map,
    symmetrise,
)
from jaxrelax.refinement.maximisation import portions, total
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import Beliefs, MapState, State, Strength, frozen, replaced
from jaxrelax.refinement.state_directions import clusters, directions

# Share of an image's weight that goes to a random state in the first pass of a random start.
SYMMETRY_BREAKING = 0.5
# Of the largest density of all partners: where it is judged how many sites are occupied.
WITHIN_PARTNER = 0.3
# Width over which density is taken together to find the place of a partner.
PARTNER_PX = 2.0


def maps_without_folds(problem: Problem, state: State) -> list[IsotypicParts]:
    """All maps without each fold of each half-set, with the strength that they score with."""
    sums, data = state.maps.sums, problem.data
    if sums is None:
        return state.maps.parts()
    strength, made = np.float32(state.maps.strength.factor), []
    for half, folds in enumerate(sums.by_half()):
        for fold in range(len(folds)):
            kept = folds[:fold] + folds[fold + 1 :] if data.cross_fitted else folds
            parts = problem.plan.prior.solve(
                sums.prior,
                portions(total(kept), sums.weight[half], data.kept_share),
                problem.of_maps,
            )
            made += [IsotypicParts(p.symmetric, p.asymmetric * strength) for p in parts]
    return made


def by_occupancy(
    parts: IsotypicParts, particle: Particle, of_maps: Sequence[Particle]
) -> list[IsotypicParts]:
    """States with one, all and no partners, from a relaxed map of their mixture.

    With P the partner at one site of n, D = P − Σ_g g P / n and S = body + q Σ_g g P: where D is
    positive it is (n − 1)/n of the partner, and q, the mean occupancy, is what S has of Σ_g g P
    where that is dense. States that are relaxed have one partner; of those that are not, the first
    has all, the last of several none, and others as many in between.

    Args:
        parts: of the consensus, relaxed.
        particle: what it is of.
        of_maps: what every state is of.
    """
    n = particle.group.order // particle.subgroup.order
    partner = n / (n - 1) * np.maximum(parts.asymmetric, 0.0)
    everywhere = np.float32(n) * symmetrise(partner, particle.group)
    dense = everywhere > WITHIN_PARTNER * everywhere.max()
    occupancy = 0.0
    if dense.any():
        squared = float(np.sum(everywhere[dense] ** 2))
        occupancy = float(np.sum(parts.symmetric[dense] * everywhere[dense])) / squared
    occupancy = min(max(occupancy, 0.0), 1.0)
    alike = sum(not one.relaxed for one in of_maps)
    levels = iter(np.linspace(1.0, 0.0, alike))
    states = []
    for one in of_maps:
        level = 1.0 / n if one.relaxed else next(levels)
        symmetric = parts.symmetric + np.float32(level - occupancy) * everywhere
        asymmetric = parts.asymmetric if one.relaxed else 0.0 * parts.asymmetric
        states.append(IsotypicParts(symmetric, asymmetric))
    return states


def by_patterns(
    parts: IsotypicParts,
    particle: Particle,
    of_maps: Sequence[PatternParticle],
    site: Bool[np.ndarray, "b b b"],
) -> list[IsotypicParts]:
    """States with a partner on the sites of each pattern, from a relaxed map of their mixture.

    As :func:`by_occupancy`, but the partner is D at one site alone: in a mixture a relaxed map has
    some partner everywhere. The site where it has most is taken to be occupied in all images; then
    of a partner D there is not (n − 1)/n, but 1 − q. (With one partner in all of them that is the
    same.)

    Args:
        parts: of the consensus, relaxed.
        particle: what it is of.
        of_maps: what every state is of.
        site: where the partner is; see :func:`fullest_site`.
    """
    n = particle.group.order
    partner = n / (n - 1) * np.where(site, np.maximum(parts.asymmetric, 0.0), 0.0)
    partner = partner.astype(np.float32)
    everywhere = np.float32(n) * symmetrise(partner, particle.group)
    dense = everywhere > WITHIN_PARTNER * everywhere.max()
    filled = 0.0
    if dense.any():
        squared = float(np.sum(everywhere[dense] ** 2))
        filled = max(float(np.sum(parts.symmetric[dense] * everywhere[dense])) / squared, 0.0)
    # With a times this partner: a q = filled and a (1 − q) = (n − 1)/n.
    larger = filled + (n - 1) / n
    return pattern_parts(
        parts.symmetric, np.float32(larger) * partner, filled / larger,
        [one.pattern for one in of_maps], particle.group,
    )  # fmt: skip


def fullest_site(maps: Sequence[IsotypicParts], group: PointGroup) -> Bool[np.ndarray, "b b b"]:
    """Voxels nearer to where relaxed maps have most partner than to its copies.

    It is the same for both half-sets, so that their partners are in one frame even where several
    sites of the consensus are about as full, and which of them is the fullest is left to noise.

    Args:
        maps: relaxed, in one frame.
        group: that was relaxed.
    """
    mean = np.mean([one.asymmetric for one in maps], axis=0)
    n = len(mean)
    smooth = scipy.ndimage.gaussian_filter(np.maximum(mean, 0.0), PARTNER_PX)
    # An operator acts on (x, y, z); maps are [z, y, x].
    peak = np.array(np.unravel_index(np.argmax(smooth), smooth.shape))[::-1] - n // 2
    copies = group.operators @ peak
    axis = np.arange(n) - n // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    # All copies are as far from the centre, so the nearest has the largest inner product.
    along = np.einsum("gi,izyx->gzyx", copies, np.stack([x, y, z]))
    return along[0] >= along.max(axis=0) - 1e-6


def in_first_frame(
    maps: list[IsotypicParts], particle: Particle, alignment: int
) -> list[IsotypicParts]:
    """Maps of both half-sets, those of the second turned into the frame of the first.

    Args:
        maps: of half-set 1, then as many of half-set 2.
        particle: what they are of.
        alignment: index in G: g × (half-map 2) is in the frame of half-map 1.
    """
    half = len(maps) // 2
    turn = particle.group.operators[alignment]
    second = [IsotypicParts(m.symmetric, rotate_map(m.asymmetric, turn)) for m in maps[half:]]
    return maps[:half] + second


def init_states(
    problem: Problem, earlier: Problem, before: State, *, start: str, seed: int
) -> State:
    """State before the first iteration of a classification, from where a consensus ended.

    Args:
        problem: of the classification.
        earlier, before: the stage before, and its last state: poses and their prior, noise, band
            and fraction of junk are taken from it.
        start: see :class:`jaxrelax.refinement.Classification`.
        seed: of random states, of directions and of clusters.
    """
    n, table = len(problem.data), problem.plan.table
    consensus = maps_without_folds(earlier, before)
    of_patterns = [one for one in problem.of_maps if isinstance(one, PatternParticle)]
    if of_patterns:
        particle, alignment = earlier.particle, int(before.maps.alignment)
        consensus = in_first_frame(consensus, particle, alignment)
        site = fullest_site(consensus, particle.group)
        parts = [
            state for one in consensus for state in by_patterns(one, particle, of_patterns, site)
        ]
    elif start == "occupancy":
        parts = [
            state
            for one in consensus
            for state in by_occupancy(one, earlier.particle, problem.of_maps)
        ]
    else:
        parts = [
            IsotypicParts(one.symmetric, one.asymmetric if particle.relaxed else 0 * one.asymmetric)
            for one in consensus
            for particle in problem.of_maps
        ]
    weights = np.broadcast_to(np.float32(1.0 / table.n_places), (n, table.n_places))
    if start == "random":
        share = random_states(n, len(problem.of_maps), seed)
        weights = placed(problem, before.beliefs.registers, share)
    latents = jax.tree.map(np.asarray, problem.plan.model.init())
    for name, params in before.latents.items():
        if name in latents:
            latents[name] = params
    history = before.history_before
    for info in before.history:
        history = history.appended(info)
    symmetric, asymmetric = MapState.stacked(parts)
    nothing = np.zeros(n, np.float32)
    maps = replaced(
        before.maps, symmetric=symmetric, asymmetric=asymmetric, sums=None,
        strength=Strength.untouched(), alignment=np.asarray(0),
    )  # fmt: skip
    state = before.replace(
        iteration=np.asarray(0),
        stage=before.stage + 1,
        beliefs=Beliefs(weights, nothing, before.beliefs.junk, nothing, weights),
        latents=latents,
        maps=maps,
        course=problem.plan.course.init(min(before.score_shell, problem.shells.last_scored)),
        history=type(history).empty(),
        history_before=history,
    )
    state = frozen(jax.tree.map(np.array, state))
    if start != "directions":
        return state
    registers = before.beliefs.registers
    coordinates = directions(problem, state, partial(placed, problem, registers), seed)
    labels = clusters(problem, coordinates, seed)
    weights = placed(problem, registers, mostly(labels, len(problem.of_maps)))
    beliefs = replaced(state.beliefs, registers=weights, sought=weights)
    return frozen(state.replace(beliefs=beliefs))


def random_states(n: int, count: int, seed: int) -> Float[np.ndarray, "n states"]:
    """Weights of states: half of each image in one at random."""
    rng = np.random.default_rng((seed, 9))
    return mostly(rng.integers(count, size=n), count)


def mostly(labels: Int[np.ndarray, " n"], count: int) -> Float[np.ndarray, "n states"]:
    """Weights of states: half of each image in its own, half in all alike."""
    return (1.0 - SYMMETRY_BREAKING) / count + SYMMETRY_BREAKING * np.eye(count)[labels]


def placed(
    problem: Problem,
    registers: Float32[np.ndarray, "n registers"],
    share: Float[np.ndarray, "n states"],
) -> Float32[np.ndarray, "n places"]:
    """Weights of places from those of states, in the registers that are known.

    Args:
        problem: of the classification.
        registers: posterior of a stage before; where a state has as many, they are its own.
        share: of every state.
    """
    n, weights = len(registers), []
    for number, one in enumerate(problem.of_maps):
        known = registers if registers.shape[1] == one.n_registers else None
        if known is None:
            known = np.full((n, one.n_registers), 1.0 / one.n_registers)
        weights.append(share[:, number : number + 1] * known)
    return np.concatenate(weights, axis=1).astype(np.float32)
