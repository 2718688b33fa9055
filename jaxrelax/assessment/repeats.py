"""Runs of one classification with other seeds: do they find the same states?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxrelax.assessment.states import adjusted_rand
from jaxrelax.refinement.result import Result

LIKELY_JUNK = 0.5
# Less than this, and what is found depends on the seed.
SAME = 0.9


def agreement_of_repeats(results: Sequence[Result]) -> Float[np.ndarray, "runs runs"]:
    """Adjusted Rand index between the states of runs on the same particles.

    Over the images that both runs find more probably a particle than junk.

    Args:
        results: of classifications.

    Raises:
        ValueError: a run has other particles, or no states.
    """
    labels, shown = [], []
    for one in results:
        if not one.states:
            raise ValueError("a run without states cannot be compared by states")
        if len(one.particles) != len(results[0].particles):
            raise ValueError("runs of other particles cannot be compared image by image")
        columns = one.particles.extra_columns
        labels.append(np.asarray(columns["rlnClassNumber"]).astype(int))
        shown.append(np.asarray(columns["jrxJunkProbability"], np.float64) < LIKELY_JUNK)
    found = np.ones((len(results), len(results)))
    for i in range(len(results)):
        for j in range(i):
            both = shown[i] & shown[j]
            found[i, j] = found[j, i] = adjusted_rand(labels[i][both], labels[j][both])
    return found


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
