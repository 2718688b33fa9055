"""When poses are searched, and how far."""

from __future__ import annotations

from collections.abc import Sequence

from jaxrelax.inference import FixedPoses, PoseSearch
from jaxrelax.refinement.history import StepInfo
from jaxrelax.refinement.modes import Searched
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State

FEWEST_GLOBAL = 3  # global searches before they can have come to an end
FEW_JUMPS = 0.005  # of the images
FALLING = 0.9  # what the share of jumping images falls by, at least, while it falls
BETTER = 1.01  # what the mean FSC of the half-maps rises by, while they come to agree further
SOME_JUMPS = 0.1  # of the images; fewer are known well enough to be followed
FOLLOWED = 2  # iterations between two global searches then
MOVING_REGISTERS = 0.01  # of the images, while it is worth while to go on at the same poses


def pose_search(problem: Problem, state: State) -> PoseSearch:
    """How the next pass over the images searches poses."""
    plan = problem.plan
    history = tuple(state.history)
    if plan.relax is not None and inner_due(history, plan.relax.inner_iterations):
        return FixedPoses()
    everywhere = not have_settled(problem, state) and global_due(history)
    searched = Searched(
        problem.particle.diameter_angstrom,
        problem.common_group,
        float(state.poses.sigma_offset_angstrom),
        plan.table.guides,
    )
    resolution = problem.shells.resolution(state.score_shell)
    return plan.mode.search(searched, resolution, everywhere)


def have_settled(problem: Problem, state: State) -> bool:
    """Whether there is nothing more to look for, or poses were known from the beginning."""
    if problem.plan.mode.needs_poses:
        return True
    # While asymmetry is sought the map still changes, and with it what images show best.
    stands = problem.plan.course.orders(state.course).stands
    return stands and poses_settled(tuple(state.history))


def poses_settled(history: Sequence[StepInfo]) -> bool:
    """Whether searching all orientations again and again has come to an end.

    It has when hardly any image still finds another pose, or no more of them than when the poses
    found were followed: images that show little find another one for ever. Where too many do for
    that, it has when neither their number nor the agreement of the half-maps has improved in the
    last two searches. Once it has, it has.
    """
    moving = [info for info in history if not info.held_poses]
    searched = [i for i, info in enumerate(moving) if info.searched_globally]
    if len(searched) < FEWEST_GLOBAL:
        return False
    if moving[-1].poses_settled:
        return True
    jumps = [moving[i].pose_jumps for i in searched[1:]]  # the first finds all
    between = [info.pose_jumps for info in moving[searched[-2] + 1 : searched[-1]]]
    if jumps[-1] < FEW_JUMPS or (between and jumps[-1] <= sum(between) / len(between)):
        return True
    if len(jumps) <= 2:
        return False
    agreement = [info.mean_fsc for info in moving]
    falling = min(jumps[-2:]) < FALLING * min(jumps[:-2])
    sharpening = max(agreement[searched[-2] :]) > BETTER * max(agreement[: searched[-2]])
    return not (falling or sharpening)


def global_due(history: Sequence[StepInfo]) -> bool:
    """Whether all orientations are searched next, as long as poses have not settled.

    In every iteration while many images find another pose. When most find the same ones again
    these are followed, which costs far less, and others looked for once in a while.
    """
    moving = [info for info in history if not info.held_poses]
    last = [info for info in moving if info.searched_globally][-1:]
    if not last or last[0].pose_jumps > SOME_JUMPS:
        return True
    return not any(info.searched_globally for info in moving[-FOLLOWED:])


def inner_due(history: Sequence[StepInfo], at_most: int) -> bool:
    """Whether registers are inferred once more at held poses before these are searched again.

    Args:
        history: iterations so far.
        at_most: iterations between two searches of poses.
    """
    held = 0
    for info in reversed(history):
        if not info.held_poses:
            break
        held += 1
    return len(history) > 0 and held < at_most and history[-1].register_change > MOVING_REGISTERS
