"""Whether held-out images are better explained by several states than by fewer.

Images of each half-set are scored by the maps of the other one, which never saw them. A state that
follows noise predicts nothing of images that it was not made of: under the model with fewer states
the expected log-ratio of the likelihoods is not above zero, whatever the further states are. So
its mean over independent images, in standard errors, is a one-sided test (Vuong, Econometrica 57,
1989, 307, for models that are not nested in what they were fitted to).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxrelax.reconstruction import IsotypicParts, Particle, match_halves, rotate_map
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import MapState, State, Strength, replaced

# Standard errors from which on states are supported; chance exceeds it in one of 740 cases.
SUPPORTED_Z = 3.0


class StateSupport(NamedTuple):
    """What held-out images say of further states.

    Attributes:
        nats: mean log-likelihood ratio per image that shows the particle.
        z_score: the same in standard errors.
    """

    nats: float
    z_score: float

    @property
    def supported(self) -> bool:
        """Whether they are better explained beyond chance."""
        return self.z_score > SUPPORTED_Z

    def sentence(self) -> str:
        """In words."""
        found = "support" if self.supported else "do not support"
        return (
            f"Held-out images {found} the difference between the states "
            f"({self.nats:+.3g} nats per image, {self.z_score:+.1f} standard errors)."
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
    *,
    max_shell: int,
    score_shell: int,
) -> list[IsotypicParts]:
    """Maps of states of one symmetry replaced by their mean: as if they were one state.

    Args:
        problem: what every map is of.
        maps: of half-set 1, then of half-set 2, on a working box.
        shares: of every state.
        max_shell, score_shell: of the maps, and of what scores.
    """
    particles, n = problem.of_maps, len(problem.of_maps)
    made = list(maps)
    for half in (0, 1):
        for members in of_one_symmetry(particles):
            own = [maps[half * n + k] for k in members]
            weight = np.asarray(shares, np.float64)[members]
            weight = (weight / weight.sum()).astype(np.float32)
            particle = particles[members[0]]
            asymmetric = []
            for one in own:
                turn = particle.group.operators[0]
                if particle.relaxed and one is not own[0]:
                    mask = particle.sphere(len(one.symmetric))
                    index = match_halves(
                        particle, (own[0], one), mask, max_shell=max_shell, score_shell=score_shell
                    ).index
                    turn = particle.group.operators[index]
                asymmetric.append(rotate_map(one.asymmetric, turn))
            mean = IsotypicParts(
                np.einsum("k,kzyx->zyx", weight, np.stack([one.symmetric for one in own])),
                np.einsum("k,kzyx->zyx", weight, np.stack(asymmetric)),
            )
            for k in members:
                made[half * n + k] = mean
    return made


def of_one_symmetry(particles: tuple[Particle, ...]) -> list[list[int]]:
    """Numbers of states that have the same symmetry and keep the same of it, kind by kind."""
    kinds: dict[tuple, list[int]] = {}
    for number, one in enumerate(particles):
        kinds.setdefault((one.group, one.subgroup), []).append(number)
    return list(kinds.values())


def support(
    problem: Problem,
    several: Float[np.ndarray, " n"],
    fewer: Float[np.ndarray, " n"],
    junk: Float[np.ndarray, " n"],
) -> StateSupport:
    """Compare held-out log-likelihoods of two models, image by image.

    Args:
        problem: which images share noise.
        several, fewer: of the model with more states, and of that with fewer.
        junk: probability that an image shows no particle.
    """
    unit = problem.data.units.unit
    shown = (1.0 - np.asarray(junk, np.float64)) * problem.data.units.weight
    ratio = shown * (np.asarray(several, np.float64) - np.asarray(fewer, np.float64))
    by_unit = np.bincount(unit, ratio)
    mean = ratio.sum() / max(float(shown.sum()), 1e-30)
    error = float(np.sqrt(np.sum((by_unit - by_unit.mean()) ** 2)))
    return StateSupport(float(mean), float(by_unit.sum()) / max(error, 1e-30))
