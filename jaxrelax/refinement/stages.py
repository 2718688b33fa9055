"""One stage after another: when a stage may end, and what follows it."""

from __future__ import annotations

import dataclasses

from jaxrelax.refinement.criteria import reason_of
from jaxrelax.refinement.pose_schedule import have_settled
from jaxrelax.refinement.setup import Setup, Splits
from jaxrelax.refinement.splits_of_states import found_before
from jaxrelax.refinement.state import State


def done(setup: Setup, state: State) -> str | None:
    """Why the refinement may stop at this state, or None.

    While the course does not let it stop, only a fixed number of iterations does: at the symmetric
    saddle every other criterion is satisfied. So it is until poses have settled.
    """
    return setup.problem.execution.workers.agreed(_reason(setup, state))


def _reason(setup: Setup, state: State) -> str | None:
    problem = setup.problem
    if problem.plan.course.may_stop(state.course) and have_settled(problem, state):
        if setup.following and problem.plan.relax is not None:
            return "asymmetry is no longer sought"  # states go on from there
        mode = problem.plan.mode
        if setup.following and not (mode.needs_poses or mode.settles_before_relaxing):
            return "poses have settled"
        return reason_of(setup.until, state)
    return reason_of(setup.until, state, limit=True)


def following(setup: Setup, state: State) -> Setup:
    """The stage that follows.

    Args:
        setup: of a stage.
        state: where it ended, or one of a later stage, to go on from there.

    Raises:
        ValueError: nothing follows.
    """
    if not setup.following:
        raise ValueError("no stage follows this refinement")
    stage, *rest = setup.following
    if isinstance(stage, Splits) and state.stage > setup.state.stage:
        if "state" not in state.latents:  # one state it is
            return dataclasses.replace(setup, state=state, following=())
        return found_before(setup, state)
    poses, ended = state.poses, state.stage == setup.state.stage
    # What a search of all orientations finds is the input of the next stage; else it was known.
    found = ended and not setup.problem.plan.mode.needs_poses
    particles = setup.problem.data.particles.with_updates(
        rotations=poses.rotations if found else poses.centre_rotations,
        origins_angstrom=poses.origins_angstrom if found else poses.centre_origins_angstrom,
    )
    problem = stage.problem(setup.problem, state, particles)
    start = stage.begin(problem, setup.problem, state) if ended else state
    return dataclasses.replace(setup, problem=problem, state=start, following=tuple(rest))
