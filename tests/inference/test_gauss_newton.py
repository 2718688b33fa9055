"""The Gauss–Newton search: its derivatives, its guard, and the exhaustive grid as reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import exp_so3
from jaxrelax.inference import GaussNewton, PoseGrid
from jaxrelax.inference.gauss_newton import laplace, normal_equations, small_rotation_vector

from .conftest import N_SHELLS, make_problem

component = st.floats(-0.85, 0.85)


def run(search, problem):
    """A search on a problem, compiled."""
    program = jax.jit(
        lambda volume, batch, poses, prior: search(
            volume, batch, problem.geometry, poses, prior, N_SHELLS
        )
    )
    return program(problem.volume, problem.batch, problem.poses, problem.prior)


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


def expansion(problem):
    """Normal equations as a function of a pose offset in prior standard deviations."""

    def at(offset):
        scaled = offset * problem.prior.scales()[None]
        return normal_equations(
            problem.volume, problem.batch, problem.geometry,
            exp_so3(scaled[:, :3]) @ problem.poses.rotations,
            problem.poses.origins_px + scaled[:, 3:], problem.prior, N_SHELLS,
        )  # fmt: skip

    return jax.jit(at)


@given(st.tuples(component, component, component))
def test_small_rotation_vector_undoes_the_exponential(vector):
    found = small_rotation_vector(exp_so3(jnp.asarray(vector, jnp.float32)))
    np.testing.assert_allclose(found, vector, atol=2e-5)


def test_small_rotation_vector_is_differentiable_at_the_identity():
    jacobian = jax.jacobian(lambda v: small_rotation_vector(exp_so3(v)))(jnp.zeros(3))
    np.testing.assert_allclose(jacobian, np.eye(3), atol=1e-6)


def test_gradient_is_that_of_the_misfit(problem):
    with jax.enable_x64(True):
        at = expansion(double(problem))
        start = jnp.asarray(np.random.default_rng(4).uniform(-0.5, 0.5, (6, 5)))
        gradient = np.asarray(at(start).gradient)
        step = 1e-5
        for axis in range(5):
            move = step * jnp.eye(5)[axis][None]
            numeric = (at(start + move).misfit - at(start - move).misfit) / (2 * step)
            # |r − T v|² falls by 2 Tᵀ r per unit of v.
            np.testing.assert_allclose(
                -2.0 * gradient[..., axis], numeric, atol=2e-3 * np.abs(gradient).max()
            )


def test_curvature_is_that_of_the_misfit_where_the_model_is_exact():
    problem = make_problem(6, noise_power=0.25, spread=0.0)
    with jax.enable_x64(True):
        problem = double(problem)
        # Without noise, at the true pose of register 0, the residual vanishes.
        model = expansion(problem)
        batch = problem.batch
        from jaxrelax.imaging import ImageBatch, extract_slices, shift_phases

        slices = extract_slices(
            problem.volume, problem.poses.rotations, problem.geometry.slice_wavevectors
        )
        moved = shift_phases(-problem.poses.origins_px, problem.geometry.packing)
        exact = ImageBatch(batch.ctf * slices[:, 0] * moved, batch.ctf, batch.weights, batch.valid)
        at = expansion(problem._replace(batch=exact))
        here = at(jnp.zeros((6, 5)))
        np.testing.assert_allclose(here.misfit[:, 0], 0.0, atol=1e-9)
        curvature = np.asarray(here.curvature[:, 0])
        step = 1e-3
        rng = np.random.default_rng(0)
        for _ in range(5):
            direction = rng.standard_normal((6, 5))
            move = jnp.asarray(step * direction)
            # Half the second difference; the misfit itself is zero at the centre.
            numeric = 0.5 * (at(move).misfit[:, 0] + at(-move).misfit[:, 0]) / step**2
            expected = np.einsum("ba,bac,bc->b", direction, curvature, direction)
            np.testing.assert_allclose(numeric, expected, rtol=0.02)
        assert model is not at


@pytest.fixture(scope="module")
def both(problem):
    """Gauss–Newton and the grid on the same images."""
    return (
        run(GaussNewton(n_steps=4), problem),
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
    problem = make_problem(400, noise_power=0.25, seed=3)
    found = run(GaussNewton(n_steps=3), problem)
    right = np.arange(400), problem.true_register
    error = np.asarray(found.offset)[right] - problem.true_offset
    precision = np.linalg.inv(np.asarray(found.covariance, np.float64)[right])
    distance = np.einsum("ba,bac,bc->b", error, precision, error)
    # χ² with five degrees of freedom: mean 5, standard error √(10/400) = 0.16.
    assert distance.mean() == pytest.approx(5.0, abs=0.6)


def misfit(found, noise_power):
    """|r|² at the expansion point, for every register."""
    return np.asarray(found.residual_power, np.float64).sum(axis=-1) / noise_power


def test_a_step_never_lowers_the_density():
    # Far from the truth and with hardly any noise most full steps overshoot.
    problem = make_problem(32, noise_power=0.01, sigma_rotation_deg=60.0, sigma_shift_px=4.0, seed=5,
                           spread=0.5)  # fmt: skip
    results = [run(GaussNewton(n_steps=n, max_step=100.0), problem) for n in (0, 1, 2, 4)]
    densities = []
    for found in results:
        # The prior is worth a few nats of thousands.
        half = -0.5 * misfit(found, problem.noise_power)
        densities.append(np.logaddexp(half[:, 0], half[:, 1]))
    prior_nats = 20.0
    for before, after in zip(densities[:-1], densities[1:], strict=True):
        assert np.all(after >= before - prior_nats)
    assert np.mean(densities[-1] > densities[0] + 100.0) > 0.5

    # The same step without the guard would have lowered it for many.
    at = expansion(problem)
    start = at(jnp.zeros((32, 5)))
    evidence, step, _ = laplace(start, jnp.zeros((32, 5)))
    shared = jnp.einsum("bj,bja->ba", jax.nn.softmax(evidence), step)
    raw = -0.5 * np.asarray(at(shared).misfit, np.float64)
    assert np.mean(np.logaddexp(raw[:, 0], raw[:, 1]) < densities[0] - prior_nats) > 0.2
