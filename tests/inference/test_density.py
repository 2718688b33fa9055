"""Normalised densities against SciPy's multivariate normal of real images, and learning noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import multivariate_normal

from jaxrelax.geometry import random_rotations
from jaxrelax.imaging import (
    ImageBatch,
    extract_slices,
    fourier_volume,
    half_spectrum,
    image_geometry,
    pack,
    pixel_weights,
    unpack,
    volume_radius,
)
from jaxrelax.inference import (
    GaussNewton,
    gain_over_mixture,
    log_density,
    log_likelihood,
    log_normaliser,
)

BOX, SHELL, SCORED = 12, 5, 4
REGISTERS = 2
POWER = np.array([3.0, 0.5, 2.0, 1.5, 0.8, 1.1])  # per shell
PACKING = half_spectrum(BOX, SHELL)
GEOMETRY = image_geometry(PACKING, 2.0, BOX, 2.0)


def full_shells():
    """Shell of every pixel of the whole plane; those at Nyquist are beyond the last."""
    k = np.fft.fftfreq(BOX, 1 / BOX)
    shells = np.rint(np.hypot(k[:, None], k[None])).astype(int)
    nyquist = np.abs(k) == BOX // 2
    return np.where(nyquist[:, None] | nyquist[None], BOX, shells)


def covariance(power):
    """Of the pixels of a real image with this power in the scored shells and none elsewhere."""
    shells = full_shells()
    padded = np.concatenate([power[: SCORED + 1], np.zeros(BOX)])
    kernel = np.fft.ifft2(padded[shells]).real
    pixel = np.arange(BOX)
    away = (pixel[:, None] - pixel[None]) % BOX
    return kernel[away[:, None, :, None], away[None, :, None, :]].reshape(BOX**2, BOX**2)


def expected_densities(images, models, power):
    """Of every image (rows) given every model, of what they have in the scored shells."""
    spread = covariance(power)
    inside = covariance(np.ones(SHELL + 1))  # the projection on those shells
    difference = ((images[:, None] - models).reshape(-1, BOX**2) @ inside).reshape(
        len(images), -1, BOX**2
    )
    normal = multivariate_normal(np.zeros(BOX**2), spread, allow_singular=True)
    return np.atleast_2d(normal.logpdf(difference)).reshape(len(images), -1)


def problem(n_images, seed, noise=1.0):
    """Images of two registers of a map of white noise, each with its CTF, shifted by whole pixels.

    Returns:
        volume, pose arguments, CTFs, real images, and real models (images, registers, y, x).
    """
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((REGISTERS, BOX, BOX, BOX)).astype(np.float32)
    volume = fourier_volume(jnp.asarray(maps), radius=volume_radius(SHELL), image_box=BOX)
    rotations = jnp.asarray(random_rotations(n_images, rng), jnp.float32)
    origins = rng.integers(-3, 4, (n_images, 2))
    ctf = rng.uniform(-1.0, 1.0, (n_images, PACKING.n_pixels)).astype(np.float32)
    slices = jax.jit(lambda v, r: extract_slices(v, r, GEOMETRY.slice_wavevectors))
    views = np.asarray(slices(volume, rotations)) * ctf[:, None]
    views[..., PACKING.multiplicity == 1] = views[..., PACKING.multiplicity == 1].real
    models = np.asarray(unpack(jnp.asarray(views.reshape(-1, PACKING.n_pixels)), PACKING))
    models = models.reshape(n_images, REGISTERS, BOX, BOX)
    # Shifting an image by +origin centres its particle.
    moved = np.stack(
        [
            [np.roll(m, (-y, -x), (0, 1)) for m in each]
            for each, (x, y) in zip(models, origins, strict=True)
        ]
    )
    root = np.sqrt(np.concatenate([noise * POWER, np.ones(BOX)])[full_shells()])
    white = rng.standard_normal((n_images, BOX, BOX))
    images = np.fft.ifft2(root * np.fft.fft2(white)).real
    images += moved[np.arange(n_images), np.arange(n_images) % REGISTERS]
    return volume, (rotations, jnp.asarray(origins, jnp.float32)), ctf, images, moved


def batch_of(images, ctf, power):
    data = pack(jnp.asarray(images), PACKING)
    weights = pixel_weights(power, PACKING, GEOMETRY.slice_shell, SCORED)
    return ImageBatch(data, jnp.asarray(ctf), weights, jnp.ones(len(images), bool))


def test_the_density_is_that_of_the_real_image():
    with jax.enable_x64(True):
        volume, poses, ctf, images, models = problem(5, seed=0)
        volume, poses = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (volume, poses))
        batch = batch_of(images, ctf, jnp.asarray(POWER))
        found = log_density(volume, batch, GEOMETRY, *poses)
    expected = expected_densities(images, models, POWER)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Another spectrum of the same images: here the determinant is what differs.
    other = expected_densities(images, models, 1.7 * POWER)
    with jax.enable_x64(True):
        batch = batch_of(images, ctf, jnp.asarray(1.7 * POWER))
        again = log_density(volume, batch, GEOMETRY, *poses)
    np.testing.assert_allclose(again - found, other - expected, rtol=1e-5)


def test_the_normaliser_is_that_of_the_scored_pixels_alone():
    with jax.enable_x64(True):
        batch = batch_of(
            np.zeros((1, BOX, BOX)), np.zeros((1, PACKING.n_pixels)), jnp.asarray(POWER)
        )
        found = float(log_normaliser(batch, GEOMETRY))
    shells = full_shells()
    scored = shells[shells <= SCORED]
    assert found == pytest.approx(-0.5 * np.sum(np.log(2 * np.pi * POWER[scored])), rel=1e-9)


def test_the_gradient_by_the_noise_is_that_of_the_independent_density():
    with jax.enable_x64(True):
        volume, poses, ctf, images, models = problem(4, seed=1)
        volume, poses = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (volume, poses))

        def marginal(log_power):
            batch = batch_of(images, ctf, jnp.exp(log_power))
            return jnp.sum(gain_over_mixture(log_density(volume, batch, GEOMETRY, *poses)))

        gradient = np.asarray(jax.grad(marginal)(jnp.log(POWER)))

    def expected(log_power):
        found = expected_densities(images, models, np.exp(log_power))
        return np.sum(np.logaddexp.reduce(found, axis=1) - np.log(REGISTERS))

    step = 1e-4
    for shell in range(SHELL + 1):
        ahead, behind = (
            expected(np.log(POWER) + sign * step * np.eye(SHELL + 1)[shell]) for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        assert gradient[shell] == pytest.approx(slope, rel=1e-4, abs=1e-6)
    assert gradient[SCORED + 1] == 0.0


def test_ascent_finds_the_noise():
    """From a start three times off; the score alone would make the noise grow without end."""
    volume, poses, ctf, images, _ = problem(1500, seed=2)

    @jax.jit
    def loss(log_power):
        batch = batch_of(images.astype(np.float32), ctf, jnp.exp(log_power))
        return -jnp.mean(gain_over_mixture(log_density(volume, batch, GEOMETRY, *poses)))

    solver = optax.adam(0.1)

    @jax.jit
    def ascend(log_power, memory):
        change, memory = solver.update(jax.grad(loss)(log_power), memory)
        return optax.apply_updates(log_power, change), memory

    for factor in (3.0, 1.0 / 3.0):
        log_power = jnp.log(jnp.asarray(factor * POWER, jnp.float32))
        memory = solver.init(log_power)
        for _ in range(120):
            log_power, memory = ascend(log_power, memory)
        found = np.exp(np.asarray(log_power))[: SCORED + 1]
        # One real number per image at the origin: its own error is 4 %.
        np.testing.assert_allclose(found[1:], POWER[1 : SCORED + 1], rtol=0.05)
        np.testing.assert_allclose(found[0], POWER[0], rtol=0.12)

    def score(log_power):
        batch = batch_of(images.astype(np.float32), ctf, jnp.exp(log_power))
        return jnp.mean(log_likelihood(volume, batch, GEOMETRY, *poses)[0])

    slope = np.asarray(jax.jit(jax.grad(score))(log_power))
    assert (slope[: SCORED + 1] > 0).all()


def test_a_step_of_length_zero_has_a_derivative():
    """It is what images that say nothing take."""

    def limited(step):
        return jnp.sum(GaussNewton()._limited(step))

    np.testing.assert_array_equal(jax.grad(limited)(jnp.zeros((2, 5))), 1.0)
