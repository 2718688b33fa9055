"""How many states there are: one more as long as held-out images tell all of them apart."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.held_out_states import StateSupport, states_apart
from jaxrelax.refinement.loop import exchange_states
from jaxrelax.refinement.maximisation import maximisation
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.setup import Setup, Splits
from jaxrelax.refinement.state import State

LOG = logging.getLogger("jaxrelax")

# Of the images that show the particle; with fewer a state is none.
EMPTY = 0.01


def with_states(setup: Setup, states: Sequence[str], state: State, *, held: bool) -> Setup:
    """The classification into states of these symmetries.

    Args:
        setup: of the consensus, followed by `Splits`.
        states: symmetry of every state.
        state: where the consensus ended, or one of the classification, to go on from there.
        held: poses are, whatever was asked.
    """
    splits = setup.following[0]
    assert isinstance(splits, Splits)
    stage = splits.with_kinds(states, held=held)
    problem = stage.problem(setup.problem, state, setup.problem.data.particles)
    if state.stage == setup.state.stage:
        state = stage.begin(problem, setup.problem, state)
    return dataclasses.replace(setup, problem=problem, state=state, following=())


def found_before(setup: Setup, state: State) -> Setup:
    """The classification that a later state is of.

    Args:
        setup: of the consensus, followed by `Splits`.
        state: of the classification, from a checkpoint.
    """
    splits = setup.following[0]
    assert isinstance(splits, Splits)
    kinds = splits.kinds()
    # A state with registers has a latent for them.
    states = [kinds[-1] if latents else kinds[0] for latents in state.latents["state"][1]]
    return with_states(setup, states, state, held=False)


def split_states(
    setup: Setup,
    state: State,
    *,
    iterate: Callable[[Setup], State],
    on_batch: Callable[[int], None] | None = None,
) -> Setup | None:
    """The classification into as many states as held-out images tell apart, ready to go on.

    The first state is as the consensus. One more is added, with the group imposed if that is told
    apart from the others, else relaxed as the first; until neither is. The number is found at the
    poses of the consensus.

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
    kinds = splits.kinds()
    states, more = [kinds[-1]], True
    while more and len(states) < splits.most:
        more = False
        for kind in kinds:
            trial = with_states(setup, [*states, kind], state, held=True)
            names = ", ".join(one.name for one in trial.problem.of_maps)
            LOG.info("asking whether held-out images tell apart: %s", names)
            ended = iterate(trial)
            if min(ended.history[-1].fractions) < EMPTY:
                # Another one took its images: so many there are not.
                LOG.info("one of the states is empty")
                continue
            answer = supported(trial.problem, ended, on_batch)
            LOG.info("%s", answer.sentence())
            if answer.supported:
                states, more = [*states, kind], True
                history = ended.history_before
                for info in ended.history:
                    history = history.appended(info)
                ended = ended.replace(history=type(history).empty(), history_before=history)
                found = with_states(setup, states, ended, held=False)
                break
    return found


def supported(problem: Problem, state: State, on_batch=None) -> StateSupport:
    """Whether all states of a classification are told apart."""
    shell = problem.shells.accumulated(state.score_shell, grow=False)
    banded = expectation(problem, state, shell, on_batch=on_batch)
    belief = problem.plan.course.orders(state.course).belief
    solved = maximisation(problem, banded.sums, belief, score_shell=state.score_shell)
    exchange_states(problem, banded, solved.order)
    apart = states_apart(problem, state, solved, banded.junk, shell, on_batch, once=True)[1]
    return apart.tests[0]
