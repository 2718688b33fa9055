"""What poses differ by, and from what: three questions that are often asked with one word.

*The pose that was searched against the pose in its best register*, in one iteration: what
relaxation changes. *This iteration against the last*: whether it has converged. *This iteration
against the start*: what the refinement did to the poses of the input. The last two with their
registers, and without.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxrelax.geometry import pose_error_mod_group, rotation_angle
from jaxrelax.refinement.expectation import Expectation
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State

TRIMMED = 0.95  # of the images: what is above are those that keep jumping


def pose_changes(problem: Problem, state: State, found: Expectation) -> dict[str, float]:
    """The fields of :class:`StepInfo` that are about poses, by their names.

    Args:
        problem: groups, and the operators of registers.
        state: before the pass.
        found: of the pass.
    """
    before, after = state.poses.rotations, found.rotations
    start = state.poses.centre_rotations
    operators = problem.plan.table.place_operators
    best = operators[found.registers.argmax(axis=1)]
    full = after @ best.mT
    full_before = before @ operators[state.beliefs.registers.argmax(axis=1)].mT
    turned = np.rad2deg(rotation_angle(after @ before.mT))
    moved = np.linalg.norm(found.origins_angstrom - state.poses.origins_angstrom, axis=1)
    from_start = found.origins_angstrom - state.poses.centre_origins_angstrom
    shown = 1.0 - found.junk
    return {
        "rotation_change_deg": float(np.median(turned)),
        "shift_change_angstrom": float(np.median(moved)),
        "rotation_change_95_deg": weighted_quantile(turned, shown, TRIMMED),
        "shift_change_95_angstrom": weighted_quantile(moved, shown, TRIMMED),
        "full_rotation_change_deg": _mean_deg(rotation_angle(full @ full_before.mT)),
        "relaxed_rotation_deg": _mean_deg(rotation_angle(best)),
        "start_rotation_deg": float(
            np.rad2deg(np.median(pose_error_mod_group(after, start, problem.common_group)))
        ),
        "start_shift_angstrom": float(np.median(np.linalg.norm(from_start, axis=1))),
        "start_full_rotation_deg": _mean_deg(rotation_angle(full @ start.mT)),
    }


def weighted_quantile(
    values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"], share: float
) -> float:
    """The smallest of the values that this share of the weight does not exceed; 0 of no weight."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order], dtype=np.float64)
    if reached[-1] <= 0:
        return 0.0
    place = np.searchsorted(reached, share * reached[-1])
    return float(values[order[min(place, len(values) - 1)]])


def _mean_deg(angles: Float[np.ndarray, " n"]) -> float:
    return float(np.rad2deg(np.mean(angles)))
