"""Whether held-out images are better explained by several states than by fewer.

Images of each half-set are scored by the maps of the other one, which never saw them. A state that
follows noise predicts nothing of images that it was not made of: under the model with fewer states
the expected log-ratio of the likelihoods is not above zero, whatever the further states are. So
its mean over independent images, in standard errors, is a one-sided test (Vuong, Econometrica 57,
1989, 307, for models that are not nested in what they were fitted to).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from jaxrelax.reconstruction import IsotypicParts, Particle, match_halves, rotate_map
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.maximisation import Maximisation, half_maps
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import MapState, State, Strength, replaced
from jaxrelax.refinement.strength import OCCAM_NATS

# Standard errors from which on states are supported; chance exceeds it in one of 740 cases.
SUPPORTED_Z = 3.0
# Of all images together: below it maps differ by rounding alone.
LEAST_NATS = 3.0


class StateSupport(NamedTuple):
    """What held-out images say of further states.

    Attributes:
        classes: the two that are most alike, from 1: it is asked whether they differ.
        nats: mean log-likelihood ratio per image that shows the particle.
        z_score: the same in standard errors.
        total: the ratio of all images together, in nats.
    """

    classes: tuple[int, int]
    nats: float
    z_score: float
    total: float

    @property
    def supported(self) -> bool:
        """Whether they are better explained beyond chance."""
        return self.z_score > SUPPORTED_Z and self.total > LEAST_NATS

    def sentence(self) -> str:
        """In words."""
        found = "support" if self.supported else "do not support"
        return (
            f"Held-out images {found} the difference between classes {self.classes[0]} and "
            f"{self.classes[1]}, the most alike ({self.nats:+.3g} nats per image, "
            f"{self.z_score:+.1f} standard errors)."
        )


class StatesApart(NamedTuple):
    """Which states held-out images tell apart.

    Attributes:
        tests: of the two most alike, taken for one; and as long as they were not told apart, of the
            next two of those that were left.
        partitions: of the states, from 0, after each test, as if its two were one.
    """

    tests: tuple[StateSupport, ...]
    partitions: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Classes, from 1; those in one group are not told apart."""
        failed = [p for p, t in zip(self.partitions, self.tests, strict=True) if not t.supported]
        every = sorted(itertools.chain(*self.partitions[0]))
        return tuple(
            tuple(k + 1 for k in one) for one in (failed[-1] if failed else [(k,) for k in every])
        )

    def averaged(
        self,
        places: Float[np.ndarray, "n places"],
        place_maps: Int[np.ndarray, " places"],
        shares: Float[np.ndarray, " states"],
    ) -> Float32[np.ndarray, "n places"]:
        """Posteriors averaged over which states are the same, by the odds of held-out images.

        Two states that are one say nothing of an image: there each has its share of what both have.
        As for one map's registers (:func:`jaxrelax.refinement.strength.averaged`) half of the
        log-likelihood ratio counts, which is its mean over half-sets whose images share maps.

        Args:
            places: posterior of every place.
            place_maps: its state.
            shares: how frequent states are.
        """
        log_odds = np.array([0.5 * test.total - OCCAM_NATS for test in self.tests])
        log = np.concatenate([[0.0], -np.cumsum(log_odds)])
        weights = np.exp(log - log.max())
        weights /= weights.sum()
        count, places = len(shares), np.asarray(places, np.float64)
        of_states = np.stack([places[:, place_maps == k].sum(axis=1) for k in range(count)], axis=1)
        averaged = weights[0] * of_states
        for weight, partition in zip(weights[1:], self.partitions, strict=True):
            for group in map(list, partition):
                share = np.maximum(shares[group], 1e-12)
                together = of_states[:, group].sum(axis=1, keepdims=True)
                averaged[:, group] += weight * together * share / share.sum()
        size = np.bincount(place_maps, minlength=count)
        before = of_states[:, place_maps]
        within = np.divide(
            places, before, out=np.tile(1.0 / size[place_maps], (len(places), 1)), where=before > 0
        )
        return (averaged[:, place_maps] * within).astype(np.float32)

    @property
    def supported(self) -> bool:
        """Whether the two most alike are told apart, and so all."""
        return self.tests[0].supported

    def how_many(self) -> str | None:
        """How many states are told apart, in words; None where the first test says it."""
        groups = self.groups
        count = sum(map(len, groups))
        if len(groups) == count or count == 2:
            return None
        if len(groups) == 1:
            return f"none of the {count} classes is told apart from the others"
        said = "; ".join(" = ".join(map(str, one)) for one in groups)
        return f"of {count} classes {len(groups)} are told apart: {said}"

    def sentence(self) -> str:
        """In words."""
        further = self.how_many()
        first = self.tests[0].sentence()
        return first if further is None else f"{first} {further[0].upper()}{further[1:]}."


def given(state: State, maps: list[IsotypicParts]) -> State:
    """The state with maps that score as they are; see ``MapState.symmetric``."""
    symmetric, asymmetric = MapState.stacked(maps)
    after = replaced(
        state.maps, symmetric=symmetric, asymmetric=asymmetric, sums=None,
        strength=Strength.untouched(),
    )  # fmt: skip
    return state.replace(maps=after)


def under_the_other_half(
    problem: Problem, state: State, maps: list[IsotypicParts], max_shell: int, on_batch=None
) -> Expectation:
    """Images of each half-set scored by the maps of the other.

    Args:
        problem, state: inputs, poses, noise, band.
        maps: of half-set 1, then of half-set 2.
        max_shell: last shell to which images are prepared; that of a pass before.
        on_batch: called with the number of images done.
    """
    n = len(problem.of_maps)
    swapped = given(state, maps[n:] + maps[:n])
    return expectation(problem, swapped, max_shell, n_folds=1, on_batch=on_batch)


def alike(
    problem: Problem,
    maps: list[IsotypicParts],
    shares: Float[np.ndarray, " maps"],
    states: Sequence[int],
    *,
    max_shell: int,
    score_shell: int,
) -> list[IsotypicParts]:
    """Maps with those of some states replaced by their mean, as if they were one state.

    Of states of different symmetry that is the mean of their symmetric parts; what breaks the
    symmetry stays as it is, or is the mean of that of those of one symmetry.

    Args:
        problem: what every map is of.
        maps: of half-set 1, then of half-set 2, on a working box.
        shares: of every state.
        states: which of them are one.
        max_shell, score_shell: of the maps, and of what scores.
    """
    n, particles = len(problem.of_maps), problem.of_maps
    weight = np.maximum(np.asarray(shares, np.float64), 1e-12)  # all may be empty
    made = list(maps)

    def mean(parts, numbers):
        share = (weight[numbers] / weight[numbers].sum()).astype(np.float32)
        return np.einsum("k,kzyx->zyx", share, np.stack(parts))

    for half in (0, 1):
        of_half = maps[half * n : half * n + n]
        symmetric = mean([of_half[k].symmetric for k in states], list(states))
        for number in states:
            kind = [k for k in states if _same(particles[number], particles[k])]
            first = of_half[kind[0]]
            turned = [first.asymmetric] + [
                _onto(
                    particles[number], first, of_half[k],
                    max_shell=max_shell, score_shell=score_shell,
                )
                for k in kind[1:]
            ]  # fmt: skip
            made[half * n + number] = IsotypicParts(symmetric, mean(turned, kind))
    return made


def most_alike(
    problem: Problem,
    maps: list[IsotypicParts],
    apart: Sequence[Sequence[int]],
    *,
    max_shell: int,
    score_shell: int,
) -> tuple[int, int]:
    """The two states that differ least: of one symmetry, or in their symmetric parts.

    Args:
        problem: what every map is of.
        maps: of half-set 1, then of half-set 2.
        apart: states in groups; two of one group are not asked about.
        max_shell, score_shell: of the maps, and of what scores.
    """
    distances = {}
    for groups in itertools.combinations(apart, 2):
        for pair in map(sorted, itertools.product(*groups)):
            (one, other), particles = (maps[k] for k in pair), [problem.of_maps[k] for k in pair]
            distance = float(np.sum((one.symmetric - other.symmetric) ** 2))
            if _same(*particles):
                turned = _onto(
                    particles[0], one, other, max_shell=max_shell, score_shell=score_shell
                )
                distance += float(np.sum((one.asymmetric - turned) ** 2))
            distances[pair[0], pair[1]] = distance
    return min(distances, key=lambda pair: distances[pair])


def _same(one: Particle, other: Particle) -> bool:
    return one.group == other.group and one.subgroup == other.subgroup


def _onto(
    particle: Particle, first: IsotypicParts, other: IsotypicParts, **shells: int
) -> Float32[np.ndarray, "b b b"]:
    """The asymmetric part of another map in the register of the first."""
    if not particle.relaxed:
        return np.asarray(other.asymmetric)
    mask = particle.sphere(len(first.symmetric))
    index = match_halves(particle, (first, other), mask, **shells).index
    return np.asarray(rotate_map(other.asymmetric, particle.group.operators[index]))


def states_apart(
    problem: Problem,
    state: State,
    solved: Maximisation,
    junk: Float[np.ndarray, " n"],
    max_shell: int,
    on_batch=None,
    *,
    once: bool = False,
) -> tuple[Expectation, StatesApart]:
    """Which states are told apart by held-out images.

    The two that are most alike are taken for one, and the next two, as long as images that were not
    used for the maps are not explained worse. Where all states are real that is one test.

    Args:
        problem, state: inputs, poses, noise, band.
        solved: the M-step of a pass.
        junk: probability that an image shows no particle.
        max_shell: last shell of that pass.
        on_batch: called with the number of images done.
        once: only the two that are most alike are asked about.

    Returns:
        what the other half-set's maps say of every image, and the answer.
    """
    shells = {"max_shell": solved.halves[0].max_shell, "score_shell": state.score_shell}
    maps = half_maps(problem, solved)
    several = under_the_other_half(problem, state, maps, max_shell, on_batch)
    before, tests, partitions = several.log_marginal, [], []
    apart: tuple[tuple[int, ...], ...] = tuple((k,) for k in range(len(problem.of_maps)))
    while len(apart) > 1:
        pair = most_alike(problem, maps, apart, **shells)
        joined = tuple(sorted(k for group in apart if {*pair} & {*group} for k in group))
        maps = alike(problem, maps, solved.shares, joined, **shells)
        fewer = under_the_other_half(problem, state, maps, max_shell, on_batch).log_marginal
        test = _in_standard_errors(problem, before - fewer, junk, pair)
        apart = tuple(sorted([*(one for one in apart if not {*one} <= {*joined}), joined]))
        # Of the first process, for what follows is the same in all.
        test, apart = problem.execution.workers.agreed((test, apart))
        tests.append(test)
        partitions.append(apart)
        if once or test.supported:
            break
        before = fewer
    return several, StatesApart(tuple(tests), tuple(partitions))


def _in_standard_errors(problem: Problem, ratio, junk, pair: tuple[int, int]) -> StateSupport:
    """Of log-likelihood ratios of images, their mean over units of what shares noise."""
    shown = (1.0 - np.asarray(junk, np.float64)) * problem.data.units.weight
    by_unit = np.bincount(problem.data.units.unit, shown * ratio)
    error = float(np.sqrt(np.sum((by_unit - by_unit.mean()) ** 2)))
    total = float(by_unit.sum())
    mean = total / max(float(shown.sum()), 1e-30)
    return StateSupport((pair[0] + 1, pair[1] + 1), mean, total / max(error, 1e-30), total)
