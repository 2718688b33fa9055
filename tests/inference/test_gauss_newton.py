"""The Gauss–Newton search: its derivatives, its guard, and the exhaustive grid as reference."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import exp_so3, rotvec_to_matrix
from jaxrelax.imaging import extract_slices
from jaxrelax.inference import GaussNewton, PoseGrid, Poses, whitened_tangents
from jaxrelax.inference.gauss_newton import laplace, normal_equations, small_rotation_vector
from jaxrelax.inference.likelihood import centred_data

from .conftest import N_SHELLS, SEARCH, geometry_of_images, make_problem, run

component = st.floats(-0.85, 0.85)


def double(problem):
    """The same problem in float64; to be used inside ``jax.enable_x64``."""
    volume, batch, poses, prior = (
        jax.tree.map(
            lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float64)) if x.dtype != bool else x,
            tree,
        )
        for tree in (problem.volume, problem.batch, problem.poses, problem.prior)
    )
    return problem._replace(volume=volume, batch=batch, poses=poses, prior=prior)


@jax.jit
def _expansion(volume, batch, poses, prior, offset):
    scaled = offset * prior.scales()[None]
    rotations = exp_so3(scaled[:, :3]) @ poses.rotations
    origins = poses.origins_px + scaled[:, 3:]
    return normal_equations(
        volume, batch, geometry_of_images(), rotations, origins, prior, N_SHELLS
    )


def expansion(problem):
    """Normal equations as a function of a pose offset in prior standard deviations."""
    return partial(_expansion, problem.volume, problem.batch, problem.poses, problem.prior)


@jax.jit
def there_and_back(vector):
    return small_rotation_vector(exp_so3(vector))


@given(st.tuples(component, component, component))
def test_small_rotation_vector_undoes_the_exponential(vector):
    found = there_and_back(jnp.asarray(vector, jnp.float32))
    np.testing.assert_allclose(found, vector, atol=2e-5)


def test_small_rotation_vector_is_differentiable_at_the_identity():
    jacobian = jax.jit(jax.jacobian(there_and_back))(jnp.zeros(3))
    np.testing.assert_allclose(jacobian, np.eye(3), atol=1e-6)


def test_gradient_is_that_of_the_misfit(problem):
    with jax.enable_x64(True):
        at = expansion(double(problem))
        zero = jnp.zeros((6, 5))
        gradient = np.asarray(at(zero).gradient)
        step = 1e-5
        for axis in range(5):
            move = step * jnp.eye(5)[axis][None]
            numeric = (at(zero + move).misfit - at(zero - move).misfit) / (2 * step)
            # |r − T v|² falls by 2 Tᵀ r per unit of v.
            np.testing.assert_allclose(
                -2.0 * gradient[..., axis], numeric, atol=1e-4 * np.abs(gradient).max()
            )


def test_curvature_is_that_of_the_misfit_where_the_model_is_exact():
    # Without noise, at the true pose and register, the residual vanishes.
    problem = make_problem(6, noise_power=1e-12, spread=0.0)
    weights = problem.batch.weights * np.float32(4e-12)
    problem = problem._replace(batch=dataclasses.replace(problem.batch, weights=weights))
    with jax.enable_x64(True):
        at = expansion(double(problem))
        images = np.arange(6), problem.true_register
        here = at(jnp.zeros((6, 5)))
        np.testing.assert_allclose(here.misfit[images], 0.0, atol=1e-8)
        curvature = np.asarray(here.curvature[images])
        step = 1e-3
        rng = np.random.default_rng(0)
        for _ in range(5):
            direction = rng.standard_normal((6, 5))
            move = jnp.asarray(step * direction)
            # Half the second difference; the misfit itself is zero at the centre.
            numeric = 0.5 * (at(move).misfit + at(-move).misfit)[images] / step**2
            expected = np.einsum("ba,bac,bc->b", direction, curvature, direction)
            np.testing.assert_allclose(numeric, expected, rtol=0.02)


@pytest.mark.parametrize("channel", [0, 1])
def test_products_and_monomials_are_the_tangents_multiplied(problem, channel):
    # The columns, one by one, as another module writes them down.
    with jax.enable_x64(True):
        exact = double(problem)
        volume, batch = exact.volume, exact.batch
        one = type(volume)(volume.values[:, [channel, channel + 2]], volume.radius)
        places = (exact.poses.rotations, exact.poses.origins_px)
        tangents = whitened_tangents(
            one, batch.ctf, batch.weights, problem.geometry, places[0], exact.prior
        )
        slices = extract_slices(one, places[0], problem.geometry.slice_wavevectors)[:, 0]
        residual = centred_data(batch, places[1], problem.geometry) - batch.ctf * slices
        residual = residual * jnp.sqrt(batch.weights)[None]
        residual = jnp.concatenate([residual.real, residual.imag], axis=-1)
        found = expansion(exact)(jnp.zeros((6, 5)))
        for ours, plain in (
            (found.curvature, jnp.einsum("baf,bcf->bac", tangents, tangents)),
            (found.gradient, jnp.einsum("baf,bf->ba", tangents, residual)),
            (found.misfit, jnp.sum(residual**2, axis=-1)),
        ):
            close = 1e-5 * float(jnp.abs(plain).max())
            np.testing.assert_allclose(ours[:, channel], plain, atol=close)


@pytest.fixture(scope="module")
def both(problem):
    """Gauss–Newton and the grid on the same images."""
    return (
        run(SEARCH, problem),
        run(PoseGrid(extent=3.5, n_rotation=9, n_shift=7), problem),
    )


def test_posterior_mean_agrees_with_the_grid(both):
    newton, grid = both
    deviation = np.sqrt(np.diagonal(grid.covariance, axis1=-2, axis2=-1))
    assert deviation.max() < 0.85  # the images say something about every one of the five
    error = np.abs(np.asarray(newton.offset - grid.offset)) / deviation
    assert error.max() < 0.35
    assert np.sqrt(np.mean(error**2)) < 0.1


def test_posterior_width_agrees_with_the_grid(both):
    widths = [np.sqrt(np.diagonal(f.covariance, axis1=-2, axis2=-1)) for f in both]
    np.testing.assert_allclose(widths[0] / widths[1], 1.0, atol=0.12)


def test_evidence_agrees_with_the_grid(both):
    newton, grid = (np.asarray(found.log_evidence) for found in both)
    # The whole evidence, prior volume and all, and its difference between registers.
    np.testing.assert_allclose(newton, grid, atol=0.5)
    difference = (newton[:, 0] - newton[:, 1]) - (grid[:, 0] - grid[:, 1])
    assert np.abs(difference).max() < 0.25
    assert np.abs(difference).mean() < 0.12


def test_register_evidence_points_at_the_truth(both, problem):
    for found in both:
        np.testing.assert_array_equal(np.argmax(found.log_evidence, axis=1), problem.true_register)


def test_posterior_covers_the_true_pose_as_often_as_it_says():
    distances = []
    for seed in range(6):
        problem = make_problem(64, noise_power=0.25, seed=seed)
        found = run(SEARCH, problem)
        right = np.arange(64), problem.true_register
        error = np.asarray(found.offset)[right] - problem.true_offset
        precision = np.linalg.inv(np.asarray(found.covariance, np.float64)[right])
        distances.append(np.einsum("ba,bac,bc->b", error, precision, error))
    # χ² with five degrees of freedom: mean 5, standard error √(10/384) = 0.16.
    assert np.mean(distances) == pytest.approx(5.0, abs=0.6)


def joint_density(misfits):
    """log Σ_j p(y | pose, j) up to its constant; the test's wide prior adds next to nothing."""
    half = -0.5 * np.asarray(misfits, np.float64)
    return np.logaddexp(half[:, 0], half[:, 1])


def test_draws_come_in_pairs():
    assert SEARCH.draws == 2
    assert GaussNewton(n_draws=0).draws == 0
    for odd in (1, -2):
        with pytest.raises(ValueError, match="draws come in pairs"):
            GaussNewton(n_draws=odd)


def test_a_step_never_lowers_the_density():
    # Hardly any noise, and 20° and 3 px from the truth: some full steps overshoot.
    problem = make_problem(
        64, noise_power=0.01, sigma_rotation_deg=200.0, sigma_shift_px=30.0, spread=0.1, seed=5
    )

    def full_step(rotations, origins):
        here = Poses(rotations, origins, rotations, origins)
        equations = expansion(problem._replace(poses=here))(jnp.zeros((64, 5)))
        evidence, step, _ = jax.jit(laplace)(equations, jnp.zeros((64, 5)))
        shared = np.einsum("bj,bja->ba", jax.nn.softmax(evidence), step)
        shared = shared * np.asarray(problem.prior.scales())
        turned = rotvec_to_matrix(shared[:, :3]) @ np.asarray(rotations)
        return equations.misfit, jnp.asarray(turned, jnp.float32), origins + shared[:, 3:]

    # Follow unguarded steps, and take every image back to where its first overshoot began.
    path = [(problem.poses.rotations, problem.poses.origins_px)]
    densities = []
    for _ in range(8):
        misfits, *following = full_step(*path[-1])
        densities.append(joint_density(misfits))
        path.append(tuple(following))
    lowered = np.diff(densities, axis=0) < -10.0
    overshoots = lowered.any(axis=0)
    assert overshoots.sum() >= 3
    first = lowered.argmax(axis=0)  # 0 where there is none
    images = np.arange(64)
    poses = Poses(
        *(jnp.stack([state[part] for state in path])[first, images] for part in (0, 1)),
        problem.poses.prior_rotations, problem.poses.prior_origins_px,
    )  # fmt: skip

    found = run(SEARCH, problem._replace(poses=poses))
    misfits = np.asarray(found.residual_power).sum(axis=-1) / problem.noise_power
    gain = joint_density(misfits) - np.array(densities)[first, images]
    assert gain.min() > -2.0
    assert np.median(gain[~overshoots]) > 100.0
