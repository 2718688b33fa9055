"""What surrounds a part, learned from the images at the poses of the whole particle."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from jaxrelax.engine.rest import Rest
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction import Belief, Portion
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.maximisation import maximisation, total
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State


def learned_rest(problem: Problem, state: State, outside: Float32[np.ndarray, "b b b"]) -> Rest:
    """The rest as the images themselves show it, on their own scale.

    One pass at the poses of the input, without any search. Every half-set's map without a fold is
    regularised as maps that score images are, so that what is taken from an image has none of its
    own noise, nor any of the other half-set's.

    Args:
        problem: of the whole particle, its poses held and nothing relaxed.
        state: its first one.
        outside: 1 where the rest is, on the problem's box.
    """
    data, plan, last = problem.data, problem.plan, problem.shells.last
    found = expectation(problem, state, last)
    solved = maximisation(problem, found.sums, Belief(), score_shell=state.score_shell)
    box, folds = problem.shells.box, data.n_folds
    maps = np.empty((2, folds, box, box, box), np.float32)
    for half in (0, 1):
        for fold in range(folds):
            kept = [s for k, s in enumerate(found.sums[half]) if k != fold]
            portion = Portion(total(kept).maps[0], solved.weight[half][0], data.kept_share)
            (parts,) = plan.prior.solve(solved.learned.state, [portion], problem.of_maps)
            whole = np.asarray(parts.symmetric + parts.asymmetric)
            maps[half, fold] = outside * np.asarray(resample_map(whole, box))
    particles = data.particles
    return Rest(
        maps, problem.shells.pixel_size_angstrom, particles.rotations, particles.origins_angstrom
    )
