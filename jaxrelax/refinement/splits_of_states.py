"""How many states there are: one more as long as held-out images tell all of them apart."""

from __future__ import annotations

import logging
from collections.abc import Callable

from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.held_out_states import StateSupport, state_support
from jaxrelax.refinement.loop import exchange_states
from jaxrelax.refinement.maximisation import maximisation
from jaxrelax.refinement.preparation import Setup, Splits
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State

LOG = logging.getLogger("jaxrelax")


def with_states(setup: Setup, count: int, state: State, *, held: bool) -> Setup:
    """The classification into so many states.

    Args:
        setup: of the consensus, followed by `Splits`.
        count: of states.
        state: where the consensus ended, or one of the classification, to go on from there.
        held: poses are, whatever was asked.
    """
    splits = setup.following[0]
    assert isinstance(splits, Splits)
    stage = splits.with_count(count, held=held)
    problem = stage.problem(setup.problem, state, setup.problem.data.particles)
    if state.stage == setup.state.stage:
        state = stage.begin(problem, setup.problem, state)
    return Setup(problem, state, setup.until, setup.identity)


def split_states(
    setup: Setup,
    state: State,
    *,
    iterate: Callable[[Setup], State],
    on_batch: Callable[[int], None] | None = None,
) -> Setup | None:
    """The classification into as many states as held-out images tell apart, ready to go on.

    The number is found at the poses of the consensus.

    Args:
        setup: of the consensus, followed by `Splits`.
        state: where it ended.
        iterate: from a classification to the state where it ends.
        on_batch: called with the number of images done.

    Returns:
        None if two states are not told apart.
    """
    splits, found = setup.following[0], None
    assert isinstance(splits, Splits)
    for count in range(2, splits.most + 1):
        trial = with_states(setup, count, state, held=True)
        LOG.info("%d states: asking whether held-out images tell them apart", count)
        ended = iterate(trial)
        answer = supported(trial.problem, ended, on_batch)
        LOG.info("%s", answer.sentence())
        if not answer.supported:
            break
        history = ended.history_before
        for info in ended.history:
            history = history.appended(info)
        ended = ended.replace(history=type(history).empty(), history_before=history)
        found = with_states(setup, count, ended, held=False)
    return found


def supported(problem: Problem, state: State, on_batch=None) -> StateSupport:
    """Whether all states of a classification, which have one symmetry, are told apart."""
    shell = problem.shells.accumulated(state.score_shell, grow=False)
    banded = expectation(problem, state, shell, on_batch=on_batch)
    belief = problem.plan.course.orders(state.course).belief
    solved = maximisation(problem, banded.sums, belief, score_shell=state.score_shell)
    exchange_states(problem, banded, solved.order)
    found = state_support(problem, state, solved, banded.junk, shell, on_batch)[1]
    assert found is not None
    return problem.execution.workers.agreed(found)
