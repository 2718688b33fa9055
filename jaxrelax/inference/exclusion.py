"""Copies of one parent of which one at most shows a state: their joint posterior.

A partner is at one site of a particle. A sub-particle of every site is an image of its own, but
which of them shows the partner is one variable of the particle, z: it takes the number of a copy,
or says that none of those in the table shows it. Given z the images are independent, so what copy i
has to say is one number, the ratio ρ_i of its likelihoods with z = i and with z ≠ i, and

    P(z = i) = ρ_i / (c + Σ_j ρ_j),

where c is the prior weight of none of them, that of a copy being 1. What the others say is the
prior of copy i: odds of 1 to R_i = c + Σ_{j≠i} ρ_j. With the evidence of its own these odds become
ρ_i / R_i, which are those of the joint posterior again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

# What is left of the weight of none where states are more frequent than copies allow.
LEAST_NONE = 1e-6


class Claims(NamedTuple):
    """What is known of the exclusive state of every copy.

    Attributes:
        has: probability that it is this copy of its parent that has it.
        states: of every state, given that the image shows the particle.
        junk: probability that the image shows none.
        log_marginal: of every copy its share of the logarithm of its parent's likelihood.
    """

    has: Float64[np.ndarray, " n"]
    states: Float64[np.ndarray, "n states"]
    junk: Float64[np.ndarray, " n"]
    log_marginal: Float64[np.ndarray, " n"]


def log_rivals(
    log_ratio: Float[np.ndarray, " n"],
    parent: Int[np.ndarray, " n"],
    log_none: Float[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """The logarithm of R_i, the weight of everything else than that copy i has the state.

    Nothing is subtracted, so that it is exact where one copy outweighs all others.

    Args:
        log_ratio: log ρ of every copy.
        parent: number of its parent, from 0.
        log_none: log c of its parent; −∞ where one of the copies has it for certain.
    """
    order = np.argsort(parent, kind="stable")
    count = np.bincount(parent)
    within = np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count)
    table = np.full((len(count), int(count.max(initial=0)) + 1), -np.inf)
    table[parent[order], within + 1] = np.asarray(log_ratio, np.float64)[order]
    table[parent, 0] = log_none
    edge = np.full((len(table), 1), -np.inf)
    before = np.logaddexp.accumulate(np.hstack([edge, table[:, :-1]]), axis=1)
    after = np.logaddexp.accumulate(np.hstack([edge, table[:, :0:-1]]), axis=1)[:, ::-1]
    others = np.logaddexp(before, after)
    rivals = np.empty(len(parent))
    rivals[order] = others[parent[order], within + 1]
    return rivals


def log_prior_of_copies(
    log_ratio: Float[np.ndarray, " n"],
    parent: Int[np.ndarray, " n"],
    log_none: Float[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """What the other copies say of each: log P(z = i) and log P(z ≠ i) without its own image.

    Arguments as for :func:`log_rivals`.
    """
    rivals = log_rivals(log_ratio, parent, log_none)
    everything = np.logaddexp(0.0, rivals)
    return -everything, rivals - everything


def log_weight_of_none(
    parent: Int[np.ndarray, " n"], fraction: float | None
) -> Float64[np.ndarray, " n"]:
    """The prior weight log c of none, of every copy's parent.

    Args:
        parent: number of every copy's parent.
        fraction: of copies that have the state, where particles may have none: of m copies none
            has it with probability 1 − m f. None: every particle has one, and where a parent has
            fewer copies in the table than others have, it may be one of those that are missing.
    """
    count = np.bincount(parent)[parent]
    if fraction is None:
        with np.errstate(divide="ignore"):
            return np.log((count.max(initial=1) - count).astype(np.float64))
    fraction = max(float(fraction), LEAST_NONE)
    return np.log(np.maximum(1.0 - count * fraction, LEAST_NONE) / fraction)


def log_ratios(
    evidence: Float[np.ndarray, "n states"],
    outside: Float[np.ndarray, " n"],
    fractions: Float[np.ndarray, " states"],
    exclusive: int,
) -> Float64[np.ndarray, " n"]:
    """The log-ratio log ρ of every copy: an image that shows no particle says nothing of it.

    Args:
        evidence: log-likelihood of every state, times the probability to show the particle.
        outside: log of prior times evidence that it shows none.
        fractions: of the states; only those of the others among each other count.
        exclusive: the state.
    """
    own, others = _alternatives(evidence, fractions, exclusive)
    return np.logaddexp(own, outside) - np.logaddexp(others, outside)


def joint_posterior(
    evidence: Float[np.ndarray, "n states"],
    outside: Float[np.ndarray, " n"],
    fractions: Float[np.ndarray, " states"],
    exclusive: int,
    parent: Int[np.ndarray, " n"],
    log_none: Float[np.ndarray, " n"],
) -> Claims:
    """The joint posterior of all copies of each parent, with its marginals copy by copy.

    Arguments as for :func:`log_ratios` and :func:`log_rivals`.
    """
    own, others = _alternatives(evidence, fractions, exclusive)
    ratio = log_ratios(evidence, outside, fractions, exclusive)
    rivals = log_rivals(ratio, parent, log_none)
    everything = np.logaddexp(ratio, rivals)
    log_has, log_not = ratio - everything, rivals - everything
    # Given z, an image shows what z says of it or no particle.
    with_it, without = np.logaddexp(own, outside), np.logaddexp(others, outside)
    shows = log_not[:, None] - without[:, None] + _weighted(evidence, fractions, exclusive)
    shows[:, exclusive] = log_has - with_it + own
    particle = np.logaddexp.reduce(shows, axis=1)
    junk = np.exp(np.logaddexp(log_has - with_it, log_not - without) + outside)
    # A parent's likelihood is Π_j L(z ≠ j) · (c + Σ_i ρ_i) / (c + m).
    count = np.bincount(parent)[parent]
    prior = np.logaddexp(log_none, np.log(count))
    return Claims(
        has=np.exp(log_has),
        states=np.exp(shows - particle[:, None]),
        junk=np.minimum(junk, 1.0),
        log_marginal=without + (everything - prior) / count,
    )


def assigned(
    claims: Claims, exclusive: int, parent: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """The state of every copy, such that no two of a parent have the exclusive one.

    The copy that has it most probably has it, if that is more probable than that none does; of the
    others each has its most probable one of the other states.
    """
    others = claims.states.copy()
    others[:, exclusive] = -1.0
    state = others.argmax(axis=1)
    order = np.lexsort((-claims.has, parent))
    first = order[np.unique(parent[order], return_index=True)[1]]
    none = 1.0 - np.bincount(parent, claims.has)[parent[first]]
    state[first[claims.has[first] > none]] = exclusive
    return state


def _weighted(evidence, fractions, exclusive: int) -> Float64[np.ndarray, "n states"]:
    """Evidence of the states that are left where the exclusive one is not, by their frequency."""
    left = np.asarray(fractions, np.float64).copy()
    left[exclusive] = 0.0
    total = left.sum()
    if total <= 0.0:  # all others are empty
        left = np.ones(len(left))
        left[exclusive] = 0.0
        total = left.sum()
    with np.errstate(divide="ignore"):
        return np.asarray(evidence, np.float64) + np.log(left / total)[None]


def _alternatives(evidence, fractions, exclusive: int):
    """Log-likelihood of every image if it has the state, and if it does not."""
    others = np.logaddexp.reduce(_weighted(evidence, fractions, exclusive), axis=1)
    return np.asarray(evidence[:, exclusive], np.float64), others
