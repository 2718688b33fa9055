"""The M-step: from sums to half-maps, their agreement, and the prior that makes maps of sums.

Each half-set is regularised on its own, with what both have told the prior.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    Belief,
    HalfMaps,
    IsotypicParts,
    Learned,
    Portion,
    ShellSums,
    each_seen_by_the_other,
    fsc,
    match_halves,
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
        weight: mean weight per voxel and shell of each.
        maps: what the prior was learned from.
        fsc: of the half-maps inside the sphere.
        asymmetric_fsc: weighted mean over the scored band.
        asymmetric_signal: the same in standard errors.
    """

    learned: Learned
    halves: list[ShellSums]
    weight: Float64[np.ndarray, "2 shells"]
    maps: HalfMaps
    fsc: Float64[np.ndarray, " shells"]
    asymmetric_fsc: float
    asymmetric_signal: float

    @property
    def alignment(self) -> int:
        """Index in G: g × (half-map 2) is in the frame of half-map 1."""
        return self.maps.matched.index

    def portion(self, half: int) -> Portion:
        """A whole half-set."""
        return Portion(self.halves[half], self.weight[half])


def maximisation(
    problem: Problem, sums: list[list[ShellSums]], belief: Belief, *, score_shell: int
) -> Maximisation:
    """What follows from the sums of a pass. Needs the particle, and prior and seed of the plan.

    Args:
        problem: particle, prior, seed.
        sums: [half][fold].
        belief: how much of the asymmetric part is believed.
        score_shell: band over which the mean asymmetric FSC is taken.
    """
    particle = problem.particle
    max_shell = sums[0][0].max_shell
    sphere = particle.sphere(working_box(max_shell))
    halves = [total(folds) for folds in sums]
    raw: list[Float32[np.ndarray, "b b b"]] = [unregularised_map(h, particle) for h in halves]
    parts = [particle.split(m * sphere) for m in raw]
    n_shells = max_shell + 1
    matched = match_halves(particle, parts, sphere, max_shell=max_shell, score_shell=score_shell)
    mean, signal = 0.0, 0.0
    if particle.relaxed:
        mean, signal = mean_agreement(
            particle, matched.fsc, sphere, n_shells=n_shells, score_shell=score_shell
        )
    turned = onto_first(particle, matched.index, raw[1])
    curve = fsc(raw[0] * sphere, turned * sphere)[:n_shells]
    maps = HalfMaps(raw, parts, matched, max_shell, score_shell)
    rng = np.random.default_rng((problem.plan.seed, 6))
    return Maximisation(
        learned=problem.plan.prior.learn(maps, belief, particle, rng),
        halves=halves,
        weight=np.stack([mean_weight(h.accumulator(), n_shells) for h in halves]),
        maps=maps,
        fsc=curve,
        asymmetric_fsc=mean,
        asymmetric_signal=signal,
    )


def half_maps(problem: Problem, solved: Maximisation) -> list[IsotypicParts]:
    """The regularised map of each whole half-set, in its own frame."""
    solve, state = problem.plan.prior.solve, solved.learned.state
    return [solve(state, solved.portion(half), problem.particle) for half in (0, 1)]


def joined_maps(
    problem: Problem, sums: list[list[ShellSums]], solved: Maximisation, strength: float
) -> list[IsotypicParts]:
    """Maps to score with once more, averaged with the other half-set's where the two agree.

    Args:
        problem: particle, prior, and how folds are left out.
        sums: [half][fold].
        solved: their M-step.
        strength: calibrated factor of the asymmetric gain.

    Returns:
        One map per half-set and fold left out.
    """
    data, particle = problem.data, problem.particle
    others = each_seen_by_the_other(particle, solved.alignment, solved.maps.parts)
    return [
        problem.plan.prior.join(
            solved.learned.state,
            Portion(
                solved.halves[half] - fold if data.cross_fitted else solved.halves[half],
                solved.weight[half],
                data.kept_share,
            ),
            others[half],
            strength,
            particle,
        )
        for half, folds in enumerate(sums)
        for fold in folds
    ]


def total(folds: list[ShellSums]) -> ShellSums:
    """Sum over folds."""
    return reduce(add, folds)
