"""Clusters of images along the directions in which they differ most: where states may start.

An image shows the mean map and what its particle has of its own. The leading eigenvectors of the
covariance of the latter over particles span the differences between states (Penczek, Kimmel &
Spahn, Structure 19 (2011) 1582). They are found by subspace iteration (Golub & Van Loan, Matrix
Computations, 2013, 8.2): maps are made of images with weights, images are scored by the maps, and
the scores, made orthonormal, are the next weights. No image is scored by a map that was made of it,
so that its coordinates do not hold its own noise. All images make a direction where few make a
cluster, so that states need not be found out of the noise of maps of few images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import scipy.cluster.vq
from jaxtyping import Float, Float32, Int

from jaxrelax.reconstruction import Belief
from jaxrelax.refinement.course import Seeded
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.loop import exchange_states, of_states, shared
from jaxrelax.refinement.maximisation import half_maps, maximisation
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import FoldSums, MapState, State, Strength, replaced

LOG = logging.getLogger("jaxrelax")

# Of subspace iteration: rounds from orthonormal weights, and passes of each that are scored. The
# weights of these are the posterior, which is linear in scores as long as states are held alike.
ROUNDS, SCORED = 3, 2
# Standard errors added to the FSC of what states have of their own, as while they grow.
OPTIMISM = Seeded().optimism
# Share of what states have of their own that is withheld, so that they are held alike.
SIMILARITY = 0.8
# Standard deviation of an image's weight in a state, relative to the mean.
SPREAD = 0.35
# Of the clustering, of which the best is taken.
ATTEMPTS = 20


def directions(
    problem: Problem,
    state: State,
    placed: Callable[[Float[np.ndarray, "n states"]], Float32[np.ndarray, "n places"]],
    seed: int,
) -> Float[np.ndarray, "n directions"]:
    """Coordinates of all images along the directions in which images of their half-set differ most.

    Args:
        problem: of the classification; K states span K − 1 directions.
        state: before its first iteration, with maps that are all alike.
        placed: weights of places from those of states.
        seed: of the first weights.

    Returns:
        uncorrelated, of mean 0 in each half-set, and in the nats by which log-likelihoods differ
        there: along a direction of noise they are small. NaN for images that show junk rather than
        the particle.
    """
    rng = np.random.default_rng((seed, 10))
    unit = rng.standard_normal((len(problem.data), len(problem.of_maps) - 1))
    shell = problem.shells.accumulated(state.score_shell, grow=False)
    nats, junk = np.ones_like(unit), np.zeros(len(unit))
    for number in range(ROUNDS):
        # A sign of life, too: nothing else is written meanwhile.
        LOG.info(
            "looking for the directions in which images differ most: passes %d to %d of %d",
            number * (1 + SCORED) + 1, (number + 1) * (1 + SCORED), ROUNDS * (1 + SCORED),
        )  # fmt: skip
        state, _ = _passed(problem, state, shell, placed(_weights(unit)))
        for _ in range(SCORED):
            state, found = _passed(problem, state, shell, None)
        unit, nats = problem.execution.workers.agreed(_orthonormal(problem, found))
        junk = found.junk
    return np.where(junk[:, None] > 0.5, np.nan, unit * nats)


def clusters(
    problem: Problem, coordinates: Float[np.ndarray, "n directions"], seed: int
) -> Int[np.ndarray, " n"]:
    """The cluster of every image, in each half-set as many as states; by k-means.

    Images without coordinates are in one at random, and so are those of a half-set in which there
    are not so many clusters.
    """
    count = len(problem.of_maps)
    labels = np.random.default_rng((seed, 11)).integers(count, size=len(coordinates))
    for half in (1, 2):
        rows = np.flatnonzero(
            (problem.data.half_set == half) & np.isfinite(coordinates).all(axis=1)
        )
        found = [
            one
            for attempt in range(ATTEMPTS)
            if (one := _k_means(coordinates[rows], count, (seed, half, attempt))) is not None
        ]
        if found:
            labels[rows] = min(found, key=lambda one: one[0])[1]
    return problem.execution.workers.agreed(labels)


def _k_means(
    points: Float[np.ndarray, "n directions"], count: int, seed: tuple[int, ...]
) -> tuple[float, Int[np.ndarray, " n"]] | None:
    """Sum of squares and clusters; None if some are empty."""
    if len(np.unique(points, axis=0)) < count:
        return None
    rng = np.random.default_rng(seed)
    try:
        centres, labels = scipy.cluster.vq.kmeans2(
            points, count, minit="++", missing="raise", rng=rng
        )
    except scipy.cluster.vq.ClusterError:
        return None
    return float(np.sum((points - centres[labels]) ** 2)), labels


def _passed(
    problem: Problem, state: State, shell: int, weights: Float32[np.ndarray, "n places"] | None
) -> tuple[State, Expectation]:
    """The state with maps of these weights, or (None) of the posterior; and what a pass found.

    Poses are searched as the classification does it: at held ones errors would pass for
    differences.
    """
    found = expectation(problem, state, shell, weights_override=weights)
    belief = Belief(OPTIMISM, similarity=SIMILARITY)
    solved = maximisation(problem, found.sums, belief, score_shell=state.score_shell)
    made = half_maps(problem, solved)
    # Sums are the same bits in all processes, what follows from them may be rounded differently.
    solved, made = problem.execution.workers.agreed((shared(solved), made))
    exchange_states(problem, found, solved.order)
    symmetric, asymmetric = MapState.stacked(made)
    maps = replaced(
        state.maps, symmetric=symmetric, asymmetric=asymmetric,
        sums=FoldSums.of(found.sums, solved.weight, solved.learned.state),
        strength=Strength.untouched(), alignment=np.asarray(solved.alignment),
    )  # fmt: skip
    found.sums = []  # the state has them; here they would outlive the next pass
    return state.replace(maps=maps), found


def _orthonormal(
    problem: Problem, found: Expectation
) -> tuple[Float[np.ndarray, "n directions"], Float[np.ndarray, "n directions"]]:
    """Log-likelihoods of states as coordinates of variance 1, and by how many nats they differ.

    The first is the one along which images of a half-set differ most; junk is in the middle.
    """
    scores = np.log(np.maximum(of_states(problem, found.registers).astype(np.float64), 1e-30))
    scores -= scores.mean(axis=1, keepdims=True)
    shown = (1.0 - found.junk.astype(np.float64))[:, None]
    unit = np.zeros((len(scores), scores.shape[1] - 1))
    nats = np.zeros_like(unit)
    for half in (1, 2):
        rows = problem.data.half_set == half
        mean = np.sum((shown * scores)[rows], axis=0) / max(float(shown[rows].sum()), 1e-30)
        left, values, _ = np.linalg.svd(shown[rows] * (scores[rows] - mean), full_matrices=False)
        width, some = np.sqrt(rows.sum()), min(len(values), unit.shape[1])
        unit[rows, :some], nats[rows, :some] = width * left[:, :some], values[:some] / width
    return unit, nats


def _weights(coordinates: Float[np.ndarray, "n directions"]) -> Float[np.ndarray, "n states"]:
    """Weights of states that follow the coordinates; states are on the corners of a simplex."""
    count = coordinates.shape[1] + 1
    corners = np.linalg.svd(np.eye(count) - 1.0 / count)[0][:, : count - 1]
    weights = 1.0 + SPREAD * np.sqrt(count / (count - 1)) * coordinates @ corners.T
    weights = np.maximum(weights, 0.0) + 1e-3
    return weights / weights.sum(axis=1, keepdims=True)
