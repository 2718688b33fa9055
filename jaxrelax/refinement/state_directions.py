"""Clusters of images along the directions in which they differ most: where states may start.

At the poses and registers that are known, an image shows the mean map and what its particle has of
its own. The leading eigenvectors of the covariance of the latter over particles span the
differences between states (Penczek, Kimmel & Spahn, Structure 19 (2011) 1582). They are found by
subspace iteration (Golub & Van Loan, Matrix Computations, 2013, 8.2): maps are made of images with
weights, images are scored by the maps, and the scores, made orthonormal, are the next weights. No
image is scored by a map that was made of it, so that its coordinates do not hold its own noise.
Many images make a direction where a cluster has few, so that clusters along the directions are a
start from which states need not be found out of noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.cluster.vq
from jaxtyping import Float, Float32, Int

from jaxrelax.reconstruction import Belief
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.loop import exchange_states, of_states
from jaxrelax.refinement.maximisation import half_maps, maximisation
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import FoldSums, MapState, State, Strength, replaced

# Of subspace iteration: rounds from orthonormal weights, and passes of each that are scored. The
# weights of these are the posterior, which is linear in scores as long as states are held alike.
ROUNDS, SCORED = 3, 2
# Standard errors added to the FSC of what states have of their own, as while they grow.
OPTIMISM = 6.0
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
        there: along a direction of noise they are small.
    """
    rng = np.random.default_rng((seed, 10))
    unit = rng.standard_normal((len(problem.data), len(problem.of_maps) - 1))
    shell = problem.shells.accumulated(state.score_shell, grow=False)
    nats = np.ones_like(unit)
    for _ in range(ROUNDS):
        state, _ = _passed(problem, state, shell, placed(_weights(unit)))
        for _ in range(SCORED):
            state, found = _passed(problem, state, shell, None)
        unit, nats = _orthonormal(problem, found)
    return unit * nats


def clusters(
    problem: Problem, coordinates: Float[np.ndarray, "n directions"], seed: int
) -> Int[np.ndarray, " n"]:
    """The cluster of every image, in each half-set as many as states; by k-means."""
    labels = np.zeros(len(coordinates), int)
    for half in (1, 2):
        rows = problem.data.half_set == half
        found = [
            _k_means(coordinates[rows], len(problem.of_maps), (seed, half, attempt))
            for attempt in range(ATTEMPTS)
        ]
        labels[rows] = min(found, key=lambda one: one[0])[1]
    return labels


def _k_means(points: np.ndarray, count: int, seed: tuple[int, ...]) -> tuple[float, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres, labels = scipy.cluster.vq.kmeans2(points, count, minit="++", rng=rng)
    return float(np.sum((points - centres[labels]) ** 2)), labels


def _passed(
    problem: Problem, state: State, shell: int, weights: Float32[np.ndarray, "n places"] | None
) -> tuple[State, Expectation]:
    """The state with maps of these weights, or of the posterior."""
    found = expectation(problem, state, shell, weights_override=weights)
    belief = Belief(OPTIMISM, similarity=SIMILARITY)
    solved = maximisation(problem, found.sums, belief, score_shell=state.score_shell)
    exchange_states(problem, found, solved.order)
    symmetric, asymmetric = MapState.stacked(half_maps(problem, solved))
    maps = replaced(
        state.maps, symmetric=symmetric, asymmetric=asymmetric,
        sums=FoldSums.of(found.sums, solved.weight, solved.learned.state),
        strength=Strength.untouched(), alignment=np.asarray(solved.alignment),
    )  # fmt: skip
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
        width = np.sqrt(rows.sum())
        unit[rows], nats[rows] = width * left[:, :-1], values[:-1] / width
    return unit, nats


def _weights(coordinates: Float[np.ndarray, "n directions"]) -> Float[np.ndarray, "n states"]:
    """Weights of states that follow the coordinates; states are on the corners of a simplex."""
    count = coordinates.shape[1] + 1
    corners = np.linalg.svd(np.eye(count) - 1.0 / count)[0][:, : count - 1]
    weights = 1.0 + SPREAD * np.sqrt(count / (count - 1)) * coordinates @ corners.T
    weights = np.maximum(weights, 0.0) + 1e-3
    return weights / weights.sum(axis=1, keepdims=True)
