"""Climbing from many starts: only what falls behind is lost, and it costs nothing more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import exp_so3
from jaxrelax.inference import GaussNewton, Poses
from jaxrelax.inference.race import race

from .conftest import N_SHELLS, geometry_of_images

STARTS = 4
CLIMBER = GaussNewton(n_steps=2)


def starts_of(problem, spread=1.5):
    """Near the true poses and farther and farther from them, in standard deviations."""
    rng = np.random.default_rng(3)
    n = len(problem.poses.rotations)
    offset = rng.standard_normal((STARTS, n, 5)) * spread * np.arange(STARTS)[:, None, None]
    offset = jnp.asarray(offset, jnp.float32) * problem.prior.scales()[None, None]
    rotations = exp_so3(offset[..., :3]) @ problem.poses.rotations[None]
    return rotations, problem.poses.origins_px[None] + offset[..., 3:]


def raced(problem, starts, running, behind, log_prior=lambda origins: jnp.zeros(origins.shape[:2])):
    @jax.jit
    def run(volume, batch, starts, running, prior, behind):
        climbs, running = race(
            CLIMBER, volume, batch, geometry_of_images(), starts, running, prior, log_prior,
            behind, N_SHELLS,
        )  # fmt: skip
        return jax.vmap(lambda one: CLIMBER.posterior(one, prior))(climbs), running

    return run(problem.volume, problem.batch, starts, running, problem.prior, behind)


def climbed(problem, start, n_steps):
    search = GaussNewton(n_steps=n_steps)
    return jax.jit(
        lambda volume, batch, poses, prior: search(
            volume, batch, geometry_of_images(), poses, prior, N_SHELLS
        )
    )(problem.volume, problem.batch, Poses(*start, *start), problem.prior)


def everything(starts):
    return jnp.ones(starts[0].shape[:2], bool)


def evidence_of(found):
    return np.asarray(jax.nn.logsumexp(found.log_evidence, axis=-1))


def assert_same(one, other, chosen):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a)[chosen], np.asarray(b)[chosen]
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * max(np.abs(b).max(initial=0), 1))


@pytest.mark.slow
def test_where_nothing_falls_behind_each_start_is_climbed_as_if_alone(problem):
    starts = starts_of(problem)
    found, running = raced(problem, starts, everything(starts), jnp.inf)
    assert np.all(running)
    for i in range(STARTS):
        alone = climbed(problem, (starts[0][i], starts[1][i]), CLIMBER.n_steps)
        assert_same(jax.tree.map(lambda x, i=i: x[i], found), alone, slice(None))


def test_who_is_behind_is_left_and_the_best_goes_to_its_peak(problem):
    starts = starts_of(problem)
    behind = 4.0
    first = np.stack([
        evidence_of(climbed(problem, (starts[0][i], starts[1][i]), 0)) for i in range(STARTS)
    ])  # fmt: skip
    gap = first.max(axis=0) - first
    assert 0.2 < np.mean(gap > behind) < 0.8  # or there would be nothing to see
    found, running = raced(problem, starts, everything(starts), behind)
    running = np.asarray(running)
    assert not running[gap > 1.01 * behind].any()
    assert running.any(axis=0).all()
    for i in range(STARTS):
        here = jax.tree.map(lambda x, i=i: x[i], found)
        alone = climbed(problem, (starts[0][i], starts[1][i]), CLIMBER.n_steps)
        assert_same(here, alone, running[i])
        # Given up after the first look: not one step was taken.
        at_once = gap[i] > 1.01 * behind
        assert_same(here, climbed(problem, (starts[0][i], starts[1][i]), 0), at_once)


def test_what_does_not_run_is_never_looked_at(problem):
    starts = starts_of(problem)
    chosen = everything(starts).at[1].set(False).at[2, ::2].set(False)
    found, running = raced(problem, starts, chosen, jnp.inf)
    np.testing.assert_array_equal(running, chosen)
    assert np.all(evidence_of(found)[~np.asarray(chosen)] == evidence_of(found)[1, 0])
    assert np.all(np.asarray(found.residual_power)[~np.asarray(chosen)] == 0.0)


def test_the_prior_of_origins_counts(problem):
    starts = starts_of(problem)
    starts = (jnp.stack([starts[0][0]] * STARTS), jnp.stack([starts[1][0]] * STARTS))
    handicap = 10.0 * jnp.arange(STARTS, dtype=jnp.float32)[:, None]
    _, running = raced(
        problem, starts, everything(starts), 15.0,
        lambda origins: jnp.broadcast_to(-handicap, origins.shape[:2]),
    )  # fmt: skip
    assert np.all(running[:2])
    assert not np.any(running[2:])


def test_an_image_that_is_not_a_number_stays_one_and_spoils_no_other(problem):
    starts = starts_of(problem)
    broken = problem._replace(
        batch=type(problem.batch)(
            problem.batch.data.at[0].set(jnp.nan), problem.batch.ctf, problem.batch.weights,
            problem.batch.valid,
        )
    )  # fmt: skip
    found, running = raced(broken, starts, everything(starts), 4.0)
    whole, also = raced(problem, starts, everything(starts), 4.0)
    assert not np.any(running[:, 0])
    assert np.isnan(evidence_of(found)[:, 0]).all()
    np.testing.assert_array_equal(running[:, 1:], also[:, 1:])
    np.testing.assert_allclose(evidence_of(found)[:, 1:], evidence_of(whole)[:, 1:], rtol=1e-5)
