"""Predicted register accuracy: Gram matrices against NumPy, accuracies against simulation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from jaxrelax.geometry import exp_so3
from jaxrelax.imaging import FourierVolume
from jaxrelax.inference import (
    accuracy_points,
    accuracy_with_estimate,
    expected_accuracy,
    register_gram,
    squared_distance,
    whitened_tangents,
    whitened_views,
)

from .conftest import geometry_of_images, projections

accuracy_of = jax.jit(expected_accuracy)
gram_of = jax.jit(register_gram)


def vectors(registers=4, numbers=30, scale=0.5, batch=1, seed=0):
    """Views as vectors of unit noise; the numbers matter unequally."""
    rng = np.random.default_rng(seed)
    weight = scale * rng.uniform(0.1, 1.0, numbers)
    return (rng.standard_normal((batch, registers, numbers)) * weight).astype(np.float32)


def gram(views):
    return gram_of(jnp.asarray(views), jnp.asarray(views))


def simulated_accuracy(views, scoring=None, precision=None, covariance=None, draws=4000, seed=1):
    """Fraction of simulated images whose best register is right, in float64.

    Images are a register's view and noise of this covariance; they are scored against ``scoring``
    by the Mahalanobis distance with this precision.
    """
    rng = np.random.default_rng(seed)
    views = np.asarray(views, np.float64)
    scoring = views if scoring is None else np.asarray(scoring, np.float64)
    registers, numbers = views.shape
    identity = np.eye(numbers)
    precision = identity if precision is None else precision
    root = np.linalg.cholesky(identity if covariance is None else covariance)
    right = 0
    for truth in range(registers):
        image = views[truth] + rng.standard_normal((draws, numbers)) @ root.T
        residual = image[:, None] - scoring[None]
        cost = np.einsum("nja,ab,njb->nj", residual, precision, residual)
        right += np.sum(cost.argmin(axis=1) == truth)
    return right / (registers * draws)


@pytest.fixture(scope="module")
def seen(problem):
    """Whitened views of the two registers, and tangents of the first."""
    arguments = problem.batch.ctf, problem.batch.weights
    rotations = problem.poses.rotations
    half = problem.volume.values.shape[1] // 2
    one = FourierVolume(problem.volume.values[:, [0, half]], problem.volume.radius)

    @jax.jit
    def both(volume, one, ctf, weights, rotations, prior):
        common = ctf, weights, geometry_of_images(), rotations
        return whitened_views(volume, *common), whitened_tangents(one, *common, prior)

    return both(problem.volume, one, *arguments, rotations, problem.prior)


def numpy_views(problem, offset=None):
    """Whitened slices in float64, at poses moved by ``offset`` prior standard deviations."""
    rotations, shift = np.asarray(problem.poses.rotations), np.zeros(2)
    if offset is not None:
        scaled = offset * np.asarray(problem.prior.scales(), np.float64)
        rotations = np.asarray(exp_so3(jnp.asarray(scaled[:3], jnp.float32))) @ rotations
        shift = scaled[3:]
    slices = np.asarray(projections(problem.volume, jnp.asarray(rotations)), np.complex128)
    k = problem.geometry.packing.wavevectors_px
    # Adding to the origin is as moving the model the other way.
    slices = slices * np.exp(2j * np.pi / problem.geometry.packing.box * (k @ shift))
    contrast = np.asarray(problem.batch.ctf)[:, None] * np.sqrt(np.asarray(problem.batch.weights))
    return np.concatenate([(slices * contrast).real, (slices * contrast).imag], axis=-1)


def test_views_are_slices_in_units_of_the_noise(seen, problem):
    np.testing.assert_allclose(seen[0], numpy_views(problem), atol=2e-4)


def test_tangents_are_derivatives_of_the_views(seen, problem):
    step = 0.03
    for axis in range(5):
        move = step * np.eye(5)[axis]
        numeric = (numpy_views(problem, move) - numpy_views(problem, -move))[:, 0] / (2 * step)
        error = np.linalg.norm(np.asarray(seen[1])[:, axis] - numeric, axis=-1)
        # Trilinear slices have kinks, so differences are not quite derivatives.
        assert (error / np.linalg.norm(numeric, axis=-1)).max() < 0.06


def test_gram_matrix_against_numpy(seen):
    views, tangents = (np.asarray(x, np.float64) for x in seen)
    other = views + np.random.default_rng(0).standard_normal(views.shape)
    for second in (views, other):
        found = register_gram(seen[0], jnp.asarray(second, jnp.float32), seen[1])
        for i in range(len(views)):
            # Woodbury the long way: noise and unknown pose as one dense covariance.
            precision = np.linalg.inv(np.eye(views.shape[2]) + tangents[i].T @ tangents[i])
            dense = views[i] @ precision @ second[i].T
            centre = np.eye(2) - 0.5
            expected = centre @ (0.5 * (dense + dense.T)) @ centre
            np.testing.assert_allclose(found[i], expected, atol=2e-4 * np.abs(dense).max())


def test_squared_distance_is_the_mean_over_pairs():
    views = vectors(5, batch=3)
    differences = np.asarray(views)[:, :, None] - views[:, None]
    pairs = np.sum(differences**2, axis=-1).sum(axis=(1, 2)) / (5 * 4)
    np.testing.assert_allclose(squared_distance(gram(views)), pairs, rtol=1e-4)


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_two_registers_have_a_closed_form(distance):
    quarter = 0.25 * distance**2
    matrix = jnp.asarray([[[quarter, -quarter], [-quarter, quarter]]], jnp.float32)
    found = float(accuracy_of(matrix, accuracy_points(2))[0])
    assert found == pytest.approx(ndtr(0.5 * distance), abs=0.004)


@pytest.mark.parametrize(("registers", "scale"), [(3, 0.4), (4, 0.7), (7, 0.5), (12, 0.9)])
def test_accuracy_is_that_of_simulated_images(registers, scale):
    views = vectors(registers, scale=scale)
    found = float(accuracy_of(gram(views), accuracy_points(registers))[0])
    assert 1.3 / registers < found < 0.95
    assert found == pytest.approx(simulated_accuracy(views[0]), abs=0.015)


def test_accuracy_where_the_pose_is_uncertain():
    views = vectors(4, scale=0.8)
    rng = np.random.default_rng(3)
    # Two of the five directions are differences between registers: they cannot be seen.
    tangents = 3.0 * rng.standard_normal((5, 30))
    tangents[0] = 20.0 * (views[0, 0] - views[0, 1])
    tangents[1] = 20.0 * (views[0, 0] - views[0, 2])
    tangents = tangents.astype(np.float32)
    held = float(accuracy_of(gram(views), accuracy_points(4))[0])
    matrix = gram_of(jnp.asarray(views), jnp.asarray(views), jnp.asarray(tangents[None]))
    found = float(accuracy_of(matrix, accuracy_points(4))[0])
    covariance = np.eye(30) + tangents.astype(np.float64).T @ tangents
    simulated = simulated_accuracy(
        views[0], precision=np.linalg.inv(covariance), covariance=covariance
    )
    assert found == pytest.approx(simulated, abs=0.015)
    assert found < held - 0.1


def test_registers_that_do_not_differ():
    views = np.repeat(vectors(1), 4, axis=1)
    found = float(accuracy_of(gram(views), accuracy_points(4))[0])
    assert found == pytest.approx(0.25, abs=1e-3)


@given(
    registers=st.sampled_from([2, 3, 6]),
    numbers=st.integers(1, 8),
    scale=st.floats(0.0, 3.0),
    growth=st.floats(1.1, 3.0),
    seed=st.integers(0, 1000),
)
def test_accuracy_is_bounded_and_grows_with_the_asymmetry(registers, numbers, scale, growth, seed):
    views = np.zeros((1, registers, 8), np.float32)
    views[..., :numbers] = vectors(registers, numbers, scale, seed=seed)
    points = accuracy_points(registers)
    less, more = (float(accuracy_of(gram(f * views), points)[0]) for f in (1.0, growth))
    assert 1.0 / registers - 1e-5 <= less <= 1.0 + 1e-5
    # The points are finite, and of one register in turn: hence the little that is allowed.
    assert more >= less - 0.003


def test_noise_of_two_maps_does_not_count_as_distance():
    rng = np.random.default_rng(5)
    n = 400
    truth = np.broadcast_to(vectors(4, scale=0.4), (n, 4, 30))
    first, second = (
        jnp.asarray(truth + 0.3 * rng.standard_normal(truth.shape), jnp.float32) for _ in range(2)
    )
    exact = float(squared_distance(gram(truth[:1]))[0])
    cross, own = gram_of(first, second), gram_of(first, first)
    scatter = float(jnp.std(squared_distance(cross))) / np.sqrt(n)
    assert abs(float(jnp.mean(squared_distance(cross))) - exact) < 4 * scatter
    # 2 × 30 numbers × 0.3² is what the noise of one map adds.
    assert float(jnp.mean(squared_distance(own))) == pytest.approx(exact + 5.4, abs=0.4)


def test_scoring_with_a_noisy_map():
    points = accuracy_points(4, 4096)
    found_with = jax.jit(partial(accuracy_with_estimate, points=points))
    views = vectors(4, 200, scale=0.35)
    exact = gram(views)
    best = float(accuracy_of(exact, points)[0])
    # Nothing is lost with the true map …
    assert float(found_with(exact, exact)[0]) == pytest.approx(best, abs=0.015)
    # … and with a noisy one what is lost in simulated images.
    rng = np.random.default_rng(2)
    estimate, other = (
        (views + 0.15 * rng.standard_normal(views.shape)).astype(np.float32) for _ in range(2)
    )
    cross = gram_of(jnp.asarray(estimate), jnp.asarray(other))
    found = float(found_with(cross, gram(estimate))[0])
    simulated = simulated_accuracy(views[0], scoring=estimate[0])
    assert simulated < best - 0.03
    assert found == pytest.approx(simulated, abs=0.05)


@pytest.mark.parametrize("registers", [2, 5, 60])
def test_points_are_standard_normal_and_the_same_each_time(registers):
    points = accuracy_points(registers)
    np.testing.assert_array_equal(points, accuracy_points(registers))
    assert points.shape[0] == points.shape[2] == registers
    np.testing.assert_allclose(points.mean(axis=1), 0.0, atol=1e-6)
    assert np.mean(points**2) == pytest.approx(1.0, abs=0.05)
