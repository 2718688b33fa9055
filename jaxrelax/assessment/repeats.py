"""Runs of one classification with other seeds: do they find the same states?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxrelax.assessment.state_shares import shown
from jaxrelax.assessment.states import adjusted_rand
from jaxrelax.refinement.result import Result

# Less than this, and what is found depends on the seed.
SAME = 0.9


def agreement_of_repeats(results: Sequence[Result]) -> Float[np.ndarray, "runs runs"]:
    """Adjusted Rand index between the states of runs on the same particles.

    Over the images that both runs find more probably a particle than junk. A run that found one
    state has all images in it.

    Args:
        results: of classifications.

    Raises:
        ValueError: a run has other particles.
    """
    if any(len(one.particles) != len(results[0].particles) for one in results):
        raise ValueError("runs of other particles cannot be compared image by image")
    labels, particle = [_states_of(one) for one in results], [shown(one) for one in results]
    found = np.ones((len(results), len(results)))
    for i in range(len(results)):
        for j in range(i):
            both = particle[i] & particle[j]
            found[i, j] = found[j, i] = adjusted_rand(labels[i][both], labels[j][both])
    return found


def _states_of(result: Result) -> Int[np.ndarray, " particles"]:
    if not result.states:
        return np.ones(len(result.particles), int)
    return np.asarray(result.particles.extra_columns["rlnClassNumber"]).astype(int)


def repeats_sentence(result: Result) -> str | None:
    """What repeats say of the states, in words; None where there are none."""
    if result.repeats is None:
        return None
    runs = len(result.repeats)
    worst = float(result.repeats[np.triu_indices(runs, 1)].min())
    says = "the states do not depend on the seed"
    if worst < SAME:
        says = "what is found depends on the seed; trust only what the runs share"
    return (
        f"{runs} runs with different seeds agree by an adjusted Rand index of {worst:.2f} at the "
        f"least (1: the same states, 0: no more than chance): {says}."
    )
