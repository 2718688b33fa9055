"""Stages of a refinement, and one that is ready to iterate."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxrelax.io import Particles
from jaxrelax.refinement.classification import Classification, finest_at_held_poses
from jaxrelax.refinement.criteria import (
    AsymmetryStalled,
    Criterion,
    MaxIterations,
    RegistersSettled,
    ResolutionStalled,
    StatesSettled,
)
from jaxrelax.refinement.pose_prior import left_of_pose_errors
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State

LOG = logging.getLogger("jaxrelax")

DEFAULT_UNTIL: Criterion = (
    ResolutionStalled() & AsymmetryStalled() & RegistersSettled(iterations=1)
) | MaxIterations(50)
UNTIL_STATES_SETTLED: Criterion = (
    ResolutionStalled() & RegistersSettled() & StatesSettled()
) | MaxIterations(50)


@dataclass(frozen=True)
class Stage:
    """A stage that follows another one.

    Attributes:
        make: its problem, for particles with the poses that were found before.
        begin: its first state, from its problem, the one before, and the state where that ended.
    """

    make: Callable[[Particles], Problem]
    begin: Callable[[Problem, Problem, State], State]

    def problem(self, earlier: Problem, state: State, particles: Particles) -> Problem:
        """The problem of the stage.

        Poses that it holds are not exact: the width of their prior, learned before, limits the
        frequencies that may score.

        Args:
            earlier: of the stage before.
            state: its last one, or a later one.
            particles: with the poses that were found before.
        """
        return within_pose_error(self.make, earlier, state)(particles)


def within_pose_error(
    make: Callable[[Particles], Problem], earlier: Problem, state: State
) -> Callable[[Particles], Problem]:
    """A problem's maker with its band limited where the poses that it holds are not exact enough.

    Args:
        make: of the problem, ``make_problem`` with its arguments.
        earlier, state: as of :meth:`Stage.problem`.
    """
    asked = make.keywords if isinstance(make, partial) else {}
    mode = asked.get("mode")
    # Without having been refined, nothing is known of their errors.
    if mode is None or not mode.holds_poses or earlier.plan.mode.holds_poses:
        return make
    limit = finest_at_held_poses(earlier.particle.diameter_angstrom, *left_of_pose_errors(state))
    LOG.info("poses are held, with errors that let frequencies up to %.1f Å score", limit)
    finest = asked.get("max_alignment_resolution_angstrom")
    limit = limit if finest is None else max(limit, finest)
    return partial(make, max_alignment_resolution_angstrom=limit)


@dataclass(frozen=True)
class Splits(Stage):
    """A classification into as many states as held-out images tell apart.

    Attributes:
        most: states at the most.
    """

    most: int = 2

    def kinds(self) -> list[str]:
        """Symmetries that a state may have: with its group imposed, or relaxed as asked."""
        assert isinstance(self.make, partial)
        (asked,) = self.make.keywords["mode"].states
        imposed = asked.partition(":")[0]
        return [imposed] if imposed == asked else [imposed, asked]

    def with_kinds(self, states: Sequence[str], *, held: bool) -> Stage:
        """The classification into states of these symmetries.

        Args:
            states: of every state, as of :class:`Classification`.
            held: poses are, whatever was asked: what is found of states at refined poses does not
                depend on refining them further, but costs a third.
        """
        assert isinstance(self.make, partial)
        mode: Classification = self.make.keywords["mode"]
        poses = "held" if held else mode.poses
        mode = dataclasses.replace(mode, states=tuple(states), start="auto", poses=poses)
        make = partial(self.make, states=mode.groups(), mode=mode)
        assert isinstance(self.begin, partial)
        return Stage(make, partial(self.begin, start=mode.starts_from()))


@dataclass(frozen=True)
class Setup:
    """A refinement ready to iterate.

    Attributes:
        problem: what stays fixed.
        state: before the first iteration.
        until: when to stop.
        identity: settings and hashes of the inputs, see :func:`save_checkpoint`.
        following: stages that follow this one, in their order.
    """

    problem: Problem
    state: State
    until: Criterion
    identity: dict[str, Any]
    following: tuple[Stage, ...] = ()
