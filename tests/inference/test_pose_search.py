"""Draws from a search's posterior."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from jaxrelax.inference import PosePosterior, draw_poses


def posterior_of(rotation, origin, spread, n):
    """Alike for all images, with axes (images, modes, registers)."""

    def all_images(values):
        values = jnp.asarray(values, jnp.float32)
        return jnp.broadcast_to(values, (n, *values.shape))

    shape = (n, *np.shape(origin)[:2])
    return PosePosterior(
        log_evidence=jnp.zeros(shape),
        rotations=all_images(rotation),
        origins_px=all_images(origin),
        offset=jnp.zeros((*shape, 5)),
        covariance=jnp.zeros((*shape, 5, 5)),
        spread=all_images(spread),
        residual_power=jnp.zeros((*shape, 4)),
    )


def test_draws_have_the_posterior_covariance():
    rng = np.random.default_rng(5)
    root = np.tril(rng.normal(size=(5, 5)))
    root = 1e-2 * (root * np.sign(np.diag(root))[None]) + 2e-2 * np.eye(5)
    n = 20000
    rotation = Rotation.random(random_state=1).as_matrix()
    found = posterior_of(rotation[None, None], np.full((1, 1, 2), 3.0), root[None, None], n)
    rotations, origins = draw_poses(
        found, jnp.ones((n, 1, 1)), jax.random.key(0), jnp.arange(n), draws=2
    )
    turns = Rotation.from_matrix(
        np.asarray(rotations, np.float64).reshape(-1, 3, 3) @ rotation.T
    ).as_rotvec()
    offsets = np.concatenate([turns, np.asarray(origins).reshape(-1, 2) - 3.0], axis=1)
    offsets = offsets.reshape(n, 2, 5)
    # A pair is a draw and its mirror image.
    np.testing.assert_allclose(offsets.sum(axis=1), 0.0, atol=1e-5)
    wanted = root @ root.T
    scale = np.sqrt(np.diag(wanted))
    correlation = np.cov(offsets[:, 0].T) / np.outer(scale, scale)
    np.testing.assert_allclose(correlation, wanted / np.outer(scale, scale), atol=0.04)
    assert np.all(np.abs(offsets[:, 0].mean(axis=0)) < 0.04 * scale)


def test_draws_are_spread_over_the_modes_as_they_are_likely():
    n, probability = 4000, np.array([[0.05, 0.3, 0.65], [0.5, 0.5, 0.0]]).T
    origin = np.arange(6.0).reshape(3, 2, 1) * np.ones(2)
    found = posterior_of(
        np.broadcast_to(np.eye(3), (3, 2, 3, 3)), origin, np.zeros((3, 2, 5, 5)), n
    )
    modes = jnp.broadcast_to(jnp.asarray(probability, jnp.float32), (n, 3, 2))
    _, origins = draw_poses(found, modes, jax.random.key(1), jnp.arange(n), draws=4)
    for register in range(2):
        drawn = np.asarray(origins)[:, :, register, 0]
        counts = np.stack([(drawn == origin[m, register, 0]).sum(axis=1) for m in range(3)], axis=1)
        assert np.all(counts.sum(axis=1) == 4)
        expected = 4 * probability[:, register]
        # Systematic: every image gets the whole part, and the rest by chance.
        assert np.all(np.abs(counts - expected) < 1.0 + 1e-6)
        np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.04)


def test_a_draw_depends_on_the_image_and_not_on_its_batch():
    n = 6
    found = posterior_of(
        np.broadcast_to(np.eye(3), (2, 1, 3, 3)), np.zeros((2, 1, 2)),
        np.broadcast_to(0.1 * np.eye(5), (2, 1, 5, 5)), n,
    )  # fmt: skip
    key, modes = jax.random.key(3), jnp.full((n, 2, 1), 0.5)
    one = draw_poses(found, modes, key, jnp.arange(n), draws=2)
    other = draw_poses(found, modes, key, jnp.arange(n)[::-1], draws=2)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b[::-1])
        assert len(np.unique(np.asarray(a).reshape(2 * n, -1), axis=0)) == 2 * n
