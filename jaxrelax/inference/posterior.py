"""From log-evidences to posteriors, and what is kept of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrelax.arrays import AnyArray


def posterior(
    log_evidence: Float[AnyArray, "batch hypotheses"],
    log_prior: Float[AnyArray, " hypotheses"] | None = None,
) -> Float[Array, "batch hypotheses"]:
    """Posterior over hypotheses: softmax of log-evidence plus log-prior (uniform by default)."""
    if log_prior is not None:
        log_evidence = jnp.asarray(log_evidence) + jnp.asarray(log_prior)[None, :]
    return jax.nn.softmax(log_evidence, axis=-1)


def harden(weights: Float[AnyArray, "batch hypotheses"]) -> Float[Array, "batch hypotheses"]:
    """All weight on the most probable hypothesis (``register="hard"``)."""
    return jax.nn.one_hot(jnp.argmax(weights, axis=-1), weights.shape[-1], dtype=weights.dtype)


def entropy(weights: Float[AnyArray, "n hypotheses"]) -> Float[np.ndarray, " n"]:
    """Entropy of each posterior in nats: 0 when certain, log(hypotheses) when uniform."""
    weights = np.asarray(weights)
    safe = np.where(weights > 0, weights, 1.0)
    return -(weights * np.log(safe)).sum(axis=-1)


def gain_over_mixture(log_evidence: Float[AnyArray, "batch registers"]) -> Float[Array, " batch"]:
    """Log of the mean evidence over registers: the marginal likelihood of an image."""
    return jax.nn.logsumexp(log_evidence, axis=-1) - jnp.log(log_evidence.shape[-1])


def significant(
    weights: Float[AnyArray, "batch hypotheses"], mass: float = 0.999
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """The smallest set of hypotheses of each image that holds ``mass`` of its posterior.

    Returns:
        image rows, hypothesis columns and weights, renormalised to the image's total. Rows with
        zero total weight (padding, rejected images) contribute nothing.
    """
    weights = np.asarray(weights)
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    total = ranked.sum(axis=1, keepdims=True)
    before = np.cumsum(ranked, axis=1) - ranked
    keep = (before < mass * total) & (ranked > 0)
    kept = ranked * keep
    kept *= total / np.maximum(kept.sum(axis=1, keepdims=True), 1e-30)
    rows, ranks = np.nonzero(keep)
    return rows, order[rows, ranks], kept[rows, ranks]
