"""Whether held-out images are better explained by several states than by fewer.

Images of each half-set are scored by the maps of the other one, which never saw them. A state that
follows noise predicts nothing of images that it was not made of: under the model with fewer states
the expected log-ratio of the likelihoods is not above zero, whatever the further states are. So
its mean over independent images, in standard errors, is a one-sided test (Vuong, Econometrica 57,
1989, 307, for models that are not nested in what they were fitted to).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.reconstruction import IsotypicParts, Particle, match_halves, rotate_map
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.maximisation import Maximisation, half_maps
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import MapState, State, Strength, replaced

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
    pair: tuple[int, int],
    *,
    max_shell: int,
    score_shell: int,
) -> list[IsotypicParts]:
    """Maps with those of two states replaced by their mean, as if they were one state.

    Of states of different symmetry that is the mean of their symmetric parts; what breaks the
    symmetry stays as it is.

    Args:
        problem: what every map is of.
        maps: of half-set 1, then of half-set 2, on a working box.
        shares: of every state.
        pair: the states.
        max_shell, score_shell: of the maps, and of what scores.
    """
    n, particles = len(problem.of_maps), problem.of_maps
    weight = np.maximum(np.asarray(shares, np.float64)[list(pair)], 1e-12)  # both may be empty
    first, second = (weight / weight.sum()).astype(np.float32)
    made = list(maps)
    for half in (0, 1):
        one, other = (maps[half * n + k] for k in pair)
        symmetric = first * one.symmetric + second * other.symmetric
        asymmetric = [one.asymmetric, other.asymmetric]
        if _same(*(particles[k] for k in pair)):
            turned = _onto(
                particles[pair[0]], one, other, max_shell=max_shell, score_shell=score_shell
            )
            asymmetric = 2 * [first * one.asymmetric + second * turned]
        for k, part in zip(pair, asymmetric, strict=True):
            made[half * n + k] = IsotypicParts(symmetric, part)
    return made


def most_alike(
    problem: Problem, maps: list[IsotypicParts], *, max_shell: int, score_shell: int
) -> tuple[int, int]:
    """The two states that differ least: of one symmetry, or in their symmetric parts.

    Args:
        problem: what every map is of.
        maps: of half-set 1, then of half-set 2.
        max_shell, score_shell: of the maps, and of what scores.
    """
    distances = {}
    for pair in itertools.combinations(range(len(problem.of_maps)), 2):
        (one, other), particles = (maps[k] for k in pair), [problem.of_maps[k] for k in pair]
        distances[pair] = float(np.sum((one.symmetric - other.symmetric) ** 2))
        if _same(*particles):
            turned = _onto(particles[0], one, other, max_shell=max_shell, score_shell=score_shell)
            distances[pair] += float(np.sum((one.asymmetric - turned) ** 2))
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


def state_support(
    problem: Problem,
    state: State,
    solved: Maximisation,
    junk: Float[np.ndarray, " n"],
    max_shell: int,
    on_batch=None,
) -> tuple[Expectation, StateSupport]:
    """Whether the two most similar states are told apart by held-out images.

    Args:
        problem, state: inputs, poses, noise, band.
        solved: the M-step of a pass.
        junk: probability that an image shows no particle.
        max_shell: last shell of that pass.
        on_batch: called with the number of images done.

    Returns:
        what the other half-set's maps say of every image, and the answer.
    """
    shells = {"max_shell": solved.halves[0].max_shell, "score_shell": state.score_shell}
    maps = half_maps(problem, solved)
    several = under_the_other_half(problem, state, maps, max_shell, on_batch)
    pair = most_alike(problem, maps, **shells)
    one = alike(problem, maps, solved.shares, pair, **shells)
    fewer = under_the_other_half(problem, state, one, max_shell, on_batch)
    ratio = several.log_marginal - fewer.log_marginal
    return several, _in_standard_errors(problem, ratio, junk, pair)


def _in_standard_errors(problem: Problem, ratio, junk, pair: tuple[int, int]) -> StateSupport:
    """Of log-likelihood ratios of images, their mean over units of what shares noise."""
    shown = (1.0 - np.asarray(junk, np.float64)) * problem.data.units.weight
    by_unit = np.bincount(problem.data.units.unit, shown * ratio)
    error = float(np.sqrt(np.sum((by_unit - by_unit.mean()) ** 2)))
    total = float(by_unit.sum())
    mean = total / max(float(shown.sum()), 1e-30)
    return StateSupport((pair[0] + 1, pair[1] + 1), mean, total / max(error, 1e-30), total)
