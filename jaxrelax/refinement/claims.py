"""A pass over copies that exclude each other: what goes into it, and what becomes of it.

Copies of one parent may lie in different batches, on different devices and in different processes.
So an image is given as its prior what its siblings said in the pass before; where maps no longer
change that is the joint posterior. When a pass is done the posterior is made the exact one, from
what all siblings said in it. Siblings are in one half-set and fold: no map in this contains any.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.engine.programs import PerImage
from jaxrelax.inference.exclusion import (
    Claims,
    joint_posterior,
    log_prior_of_copies,
    log_ratios,
    log_weight_of_none,
)
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import Claimed, State, replaced

if TYPE_CHECKING:
    from jaxrelax.refinement.expectation import Expectation

LOG = logging.getLogger("jaxrelax")

LEAST_FRACTION = 1e-30


class Scores(NamedTuple):
    """What images of a batch say of every state.

    Attributes:
        of_states: log-likelihood of every state, times the probability to show the particle.
        outside: log of prior times evidence that the image shows none.
        within: posterior of places, of each state by itself.
    """

    of_states: Float64[np.ndarray, "batch states"]
    outside: Float64[np.ndarray, " batch"]
    within: Float32[np.ndarray, "batch places"]


def exclude_now(problem: Problem, state: State) -> bool:
    """Whether copies exclude each other in the next pass: when states have grown.

    Before that their numbers mean nothing, and which of them is the one of which there is one is
    not known.
    """
    if problem.exclusive is None:
        return False
    return state.beliefs.claimed is not None or problem.plan.course.may_stop(state.course)


def excluding(problem: Problem, state: State) -> State:
    """The state from which final passes go out, in which copies exclude each other in any case."""
    if problem.exclusive is None or state.beliefs.claimed is not None:
        return state
    nothing = np.zeros(len(problem.data), np.float32)
    return state.replace(beliefs=replaced(state.beliefs, claimed=Claimed(None, nothing)))


def prior_of_images(problem: Problem, state: State) -> Float32[np.ndarray, "n rows"] | None:
    """What is added to the log-prior of every image and row; None where nothing is exclusive."""
    exclusive, claimed = problem.exclusive, state.beliefs.claimed
    if exclusive is None:
        return None
    table, n = problem.plan.table, len(problem.data)
    if claimed is None or claimed.state is None:
        return np.zeros((n, len(table)), np.float32)
    chosen, fractions = int(claimed.state), fractions_of_states(problem, state.latents)
    own = float(np.clip(fractions[chosen], LEAST_FRACTION, 1.0 - 1e-12))
    none = log_weight_of_none(exclusive.parent, own if exclusive.or_none else None)
    has, has_not = log_prior_of_copies(claimed.log_ratio, exclusive.parent, none)
    with_it = np.stack([has - np.log(own), has_not - np.log1p(-own)], axis=1)
    return with_it[:, np.where(table.map_index == chosen, 0, 1)].astype(np.float32)


def fractions_of_states(
    problem: Problem, params: Mapping[str, Any]
) -> Float64[np.ndarray, " states"]:
    """Of all states, from the parameters of their latent."""
    logits = np.asarray(params[problem.plan.model.latents[0].name][0], np.float64)
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


class StateScores:
    """Reads off the E-step's results what images say of every state.

    Args:
        problem: the table.
        params: of the latents, in view of the maps that score.
    """

    def __init__(self, problem: Problem, params: Mapping[str, Any]):
        self.table, model = problem.plan.table, problem.plan.model
        name = model.latents[0].name
        logits, nested = params[name]
        alike = {**params, name: (np.zeros_like(logits), nested)}
        # As if all states were equally frequent, so that no share of nothing is divided by.
        prior = np.asarray(model.log_prior(alike), np.float64)
        self.log_prior = prior + np.log(len(problem.of_maps))
        self.spread = self.table.deposited / self.table.deposited.sum(axis=1, keepdims=True)

    def __call__(self, found: PerImage) -> Scores:
        """Scores of a batch."""
        table = self.table
        rows = np.asarray(found.log_evidence, np.float64) + self.log_prior
        of_states = np.empty((len(rows), table.n_maps))
        for number in range(table.n_maps):
            mine = table.map_index == number
            of_states[:, number] = np.logaddexp.reduce(rows[:, mine], axis=1)
        within = np.exp(rows - of_states[:, table.map_index]) @ self.spread
        outside = np.full(len(rows), -np.inf)
        with np.errstate(divide="ignore"):
            for one in found.outside.values():
                share = np.log(np.asarray(one, np.float64))
                outside = np.logaddexp(outside, share + np.asarray(found.log_marginal, np.float64))
        return Scores(of_states, outside, within.astype(np.float32))


def make_joint(
    problem: Problem, state: State, found: Expectation, exponent: float = 1.0
) -> Claims | None:
    """Make the posteriors of a pass those of parents as a whole, in place.

    Which state is the exclusive one is asked of the images once, unless it was named: that under
    which all of them together are most probable.

    Args:
        problem: parents.
        state: from which the pass went out: how frequent states are, and which is exclusive.
        found: of the pass, with scores; nothing is done where copies do not exclude each other.
        exponent: what is said of images counts so much, see
            :func:`jaxrelax.refinement.strength.honest_exponent`.
    """
    exclusive, scores = problem.exclusive, found.scores
    if exclusive is None or scores is None:
        return None
    maps = problem.plan.table.place_maps
    within, of_states = scores.within, scores.of_states
    if exponent != 1.0:
        raised = np.maximum(within, 1e-30) ** np.float32(exponent)
        sums = np.stack(
            [raised[:, maps == k].sum(axis=1) for k in range(of_states.shape[1])], axis=1
        )
        within = raised / sums[:, maps]
        of_states = exponent * of_states + np.log(sums)
    outside = exponent * scores.outside
    fractions = fractions_of_states(problem, state.latents)

    def under(number: int) -> Claims:
        none = log_weight_of_none(
            exclusive.parent, float(fractions[number]) if exclusive.or_none else None
        )
        return joint_posterior(of_states, outside, fractions, number, exclusive.parent, none)

    chosen, before = exclusive.state, found.claimed or state.beliefs.claimed
    if chosen is None and before is not None and before.state is not None:
        chosen = int(before.state)
    if chosen is None:
        totals = [under(k).log_marginal.sum() for k in range(of_states.shape[1])]
        chosen = problem.execution.workers.agreed(int(np.argmax(totals)))
        LOG.info("class %d is the one that excludes itself", chosen + 1)
    claims = under(chosen)
    ratio = log_ratios(of_states, outside, fractions, chosen)
    found.claimed = Claimed(np.asarray(chosen), ratio.astype(np.float32))
    found.registers = (within * claims.states[:, maps]).astype(np.float32)
    if exponent == 1.0:
        found.junk = claims.junk.astype(np.float32)
        found.log_marginal = claims.log_marginal
    return claims
