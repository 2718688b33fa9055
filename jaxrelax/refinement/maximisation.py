"""The M-step: from sums to half-maps, their agreement, and the prior that makes maps of sums.

Each half-set is regularised on its own, with what both have told the prior.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    Belief,
    HalfMaps,
    IsotypicParts,
    Learned,
    MapSums,
    Portion,
    ShellSums,
    each_seen_by_the_other,
    fsc,
    match_halves,
    match_states,
    mean_agreement,
    mean_weight,
    onto_first,
    unregularised_map,
)
from jaxrelax.refinement.problem import Problem


class Maximisation(NamedTuple):
    """Prior, half-maps and curves of one M-step.

    Attributes:
        learned: what the prior knows, and its curves.
        halves: sums of each half-set.
        weight: mean weight per voxel and shell of each, and of every map.
        maps: what the prior was learned from, of every map.
        shares: of all images, what went into every map.
        order: for every map of half-set 1, which of half-set 2 was found to be the same; sums and
            maps here are in the order of half-set 1.
        fsc: of the half-maps inside the sphere; of their mean over states.
        asymmetric_fsc: weighted mean over the scored band; of the first map that has registers.
        asymmetric_signal: the same in standard errors.
    """

    learned: Learned
    halves: list[MapSums]
    weight: Float[np.ndarray, "2 maps shells"]
    maps: list[HalfMaps]
    shares: Float[np.ndarray, " maps"]
    order: list[int]
    fsc: Float64[np.ndarray, " shells"]
    asymmetric_fsc: float
    asymmetric_signal: float

    @property
    def alignment(self) -> int:
        """Index in G: g × (half-map 2) is in the frame of half-map 1; of the first map."""
        return self.maps[0].matched.index

    def portions(self, half: int) -> list[Portion]:
        """A whole half-set, map by map."""
        return portions(self.halves[half], self.weight[half])


def portions(sums: MapSums, weight: Float[AnyArray, "maps shells"], share=1.0) -> list[Portion]:
    """Some images of a half-set, map by map."""
    return [Portion(one, own, share) for one, own in zip(sums.maps, weight, strict=True)]


def maximisation(
    problem: Problem,
    sums: list[list[MapSums]],
    belief: Belief,
    *,
    score_shell: int,
    apart: int | None = None,
) -> Maximisation:
    """What follows from the sums of a pass. Needs the particles, and prior and seed of the plan.

    Args:
        problem: particles, prior, seed.
        sums: [half][fold].
        belief: how much of the asymmetric part is believed.
        score_shell: band over which the mean asymmetric FSC is taken.
        apart: see :func:`jaxrelax.reconstruction.match_states`.
    """
    max_shell = sums[0][0].max_shell
    n_shells = max_shell + 1
    sphere = problem.particle.sphere(working_box(max_shell))
    halves = [total(folds) for folds in sums]
    weight = np.stack(
        [[mean_weight(one.accumulator(), n_shells) for one in half.maps] for half in halves]
    )
    every: list[list[Float32[np.ndarray, "b b b"]]] = [
        [unregularised_map(o, p) for o, p in zip(half.maps, problem.of_maps, strict=True)]
        for half in halves
    ]
    split = [
        [p.split(m * sphere) for m, p in zip(each, problem.of_maps, strict=True)] for each in every
    ]
    order = match_states(
        problem.of_maps, split, _shares(weight), sphere,
        max_shell=max_shell, score_shell=score_shell, apart=apart,
    )  # fmt: skip
    halves[1], weight[1] = in_order(halves[1], order), weight[1][order]
    every[1], split[1] = [every[1][k] for k in order], [split[1][k] for k in order]
    shares = _shares(weight)
    maps, turned = [], []
    mean, signal = 0.0, 0.0
    for number, particle in enumerate(problem.of_maps):
        raw, parts = [each[number] for each in every], [each[number] for each in split]
        matched = match_halves(
            particle, parts, sphere, max_shell=max_shell, score_shell=score_shell
        )
        if particle.relaxed and signal == 0.0:
            mean, signal = mean_agreement(
                particle, matched.fsc, sphere, n_shells=n_shells, score_shell=score_shell
            )
        maps.append(HalfMaps(raw, parts, matched, max_shell, score_shell))
        turned.append((raw[0] * sphere, onto_first(particle, matched.index, raw[1]) * sphere))
    together = turned[0]
    if len(maps) > 1:
        pairs = zip(*turned, strict=True)
        together = [np.einsum("k,kzyx->zyx", shares, np.stack(each)) for each in pairs]
    curve = fsc(*together)[:n_shells]
    rng = np.random.default_rng((problem.plan.seed, 6))
    return Maximisation(
        learned=problem.plan.prior.learn(maps, shares, belief, problem.of_maps, rng),
        halves=halves,
        weight=weight,
        maps=maps,
        shares=shares,
        order=order,
        fsc=curve,
        asymmetric_fsc=mean,
        asymmetric_signal=signal,
    )


def in_order(sums: MapSums, order: list[int]) -> MapSums:
    """Sums of all maps, these in another order."""
    return MapSums(tuple(sums.maps[k] for k in order))


def _shares(weight: Float[np.ndarray, "2 maps shells"]) -> Float[np.ndarray, " maps"]:
    """What went into every map, by the weight of its voxels."""
    of_map = weight.sum(axis=(0, 2))
    return of_map / of_map.sum()


def half_maps(problem: Problem, solved: Maximisation) -> list[IsotypicParts]:
    """The regularised maps of each whole half-set in its own frame, those of the first first."""
    solve, particles = problem.plan.prior.solve, problem.of_maps
    halves = [solve(solved.learned.state, solved.portions(half), particles) for half in (0, 1)]
    return halves[0] + halves[1]


def joined_maps(
    problem: Problem, sums: list[list[MapSums]], solved: Maximisation, strength: float
) -> list[IsotypicParts]:
    """Maps to score with once more, averaged with the other half-set's where the two agree.

    Args:
        problem: particles, prior, and how folds are left out.
        sums: [half][fold].
        solved: their M-step.
        strength: calibrated factor of the asymmetric gain.

    Returns:
        All maps per half-set and fold left out.
    """
    data = problem.data
    others = [
        each_seen_by_the_other(particle, one.matched.index, one.parts)
        for particle, one in zip(problem.of_maps, solved.maps, strict=True)
    ]
    return [
        one
        for half, folds in enumerate(sums)
        for fold in folds
        for one in problem.plan.prior.join(
            solved.learned.state,
            portions(
                solved.halves[half] - fold if data.cross_fitted else solved.halves[half],
                solved.weight[half],
                data.kept_share,
            ),
            [each[half] for each in others],
            strength,
            problem.of_maps,
        )
    ]


def total(folds: list[MapSums]) -> MapSums:
    """Sum over folds."""
    return reduce(add, folds)


def of_map(sums: list[list[MapSums]], number: int) -> list[list[ShellSums]]:
    """Sums by half-set and fold of one map alone."""
    return [[fold.maps[number] for fold in folds] for folds in sums]
