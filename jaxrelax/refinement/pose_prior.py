"""Poses after a pass, and the prior under which the next one searches them."""

from __future__ import annotations

import numpy as np

from jaxrelax.geometry import rotation_angle
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


def left_of_pose_errors(state: State) -> tuple[float, float]:
    """How far poses that a local search found are still off: degrees and Å, per axis.

    The learned width of the prior is how far the poses of the input are off, and the square of that
    is what the search has moved them by, squared, plus the variance that it left.

    Args:
        state: after a local refinement that learned the width.
    """
    poses, shown = state.poses, 1.0 - state.beliefs.junk.astype(np.float64)
    total = max(float(shown.sum()), 1e-30)
    turned = rotation_angle(poses.rotations @ poses.centre_rotations.mT)
    moved = poses.origins_angstrom - poses.centre_origins_angstrom
    rotation = np.deg2rad(float(poses.sigma_rotation_deg)) ** 2 - shown @ turned**2 / (3 * total)
    shift = float(poses.sigma_shift_angstrom) ** 2 - shown @ np.sum(moved**2, axis=1) / (2 * total)
    return float(np.rad2deg(np.sqrt(max(rotation, 0.0)))), float(np.sqrt(max(shift, 0.0)))
