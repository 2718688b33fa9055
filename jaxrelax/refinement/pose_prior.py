"""Poses after a pass, and the prior under which the next one searches them."""

from __future__ import annotations

import numpy as np

from jaxrelax.refinement.expectation import Expectation
from jaxrelax.refinement.pose_schedule import pose_search
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import PoseState, State, replaced

SMALLEST_ROTATION_PRIOR_DEG = 0.05
SMALLEST_SHIFT_PRIOR_ANGSTROM = 0.05
# Of where particles were picked; the first search has to find what they need.
SMALLEST_OFFSET_ANGSTROM = 1.0


def next_poses(problem: Problem, state: State, found: Expectation) -> PoseState:
    """Poses that were found, and widths of the prior: the posterior's mean squared offset.

    Args:
        problem: how poses are searched.
        state: before the pass.
        found: of the pass.
    """
    search, mode = pose_search(problem, state), problem.plan.mode
    changes = {"rotations": found.rotations, "origins_angstrom": found.origins_angstrom}
    shift = float(np.sqrt(found.shift_moment_angstrom2))
    if search.from_picking:
        changes |= {
            "centre_rotations": found.rotations,
            "centre_origins_angstrom": found.origins_angstrom,
            "sigma_offset_angstrom": np.asarray(max(shift, SMALLEST_OFFSET_ANGSTROM)),
        }
    elif mode.learns_prior and not search.holds_poses:
        rotation = float(np.rad2deg(np.sqrt(found.rotation_moment_rad2)))
        changes |= {
            "sigma_rotation_deg": np.asarray(max(rotation, SMALLEST_ROTATION_PRIOR_DEG)),
            "sigma_shift_angstrom": np.asarray(max(shift, SMALLEST_SHIFT_PRIOR_ANGSTROM)),
        }
    if not search.holds_poses:
        changes |= {
            "mode_rotations": found.mode_rotations,
            "mode_origins_angstrom": found.mode_origins_angstrom,
        }
    return replaced(state.poses, **changes)
