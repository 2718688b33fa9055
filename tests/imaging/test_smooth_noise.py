"""Smooth noise: nearer to the truth where images are few, the same where they are many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.imaging import RadialNoise, SmoothNoise
from jaxrelax.imaging.smooth_noise import (
    deviation_modes,
    fit_smooth,
    penalised_deviance,
    spline_basis,
)

BOX, PIXEL_ANGSTROM, CORNER_ANGSTROM = 64, 4.0, 30.0
N_SHELLS = BOX // 2 + 1
PIXELS = np.maximum(2.0 * np.pi * np.arange(N_SHELLS), 1.0)


def coloured(colours):
    """Power of the simulator's noise, with the fall of a detector towards Nyquist."""
    k = np.arange(N_SHELLS) / (BOX * PIXEL_ANGSTROM)
    amplitude = 1.0 + np.asarray(colours)[:, None] / (1.0 + (CORNER_ANGSTROM * k) ** 2)
    return (amplitude * (0.4 + 0.6 * np.sinc(k * PIXEL_ANGSTROM))) ** 2


def observed(truth, images, seed=0):
    """Residuals of so many images of pure noise, and pixels: two of them are one number."""
    count = np.tile(images * PIXELS, (len(truth), 1))
    gamma = np.random.default_rng(seed).gamma(0.5 * count)
    return 2.0 * truth * gamma, count


def error(power, truth):
    """Mean squared error of log power; the origin, which is not smoothed, is left out."""
    return np.mean(np.log(power / truth)[:, 1:] ** 2)


@pytest.mark.parametrize("colours", [np.linspace(0.5, 2.0, 12), np.full(12, 3.0)])
def test_few_images_per_group_borrow_from_neighbouring_shells_and_groups(colours):
    scale = np.exp(0.2 * np.random.default_rng(1).standard_normal((12, 1)))
    truth, white = scale * coloured(colours), np.ones((12, N_SHELLS))
    seen = [observed(truth, 10, seed) for seed in range(5)]
    smooth = np.mean([error(SmoothNoise().update(white, *s), truth) for s in seen])
    radial = np.mean([error(RadialNoise().update(white, *s), truth) for s in seen])
    assert smooth < 0.35 * radial
    # The scale and the slow course of every group are its own.
    pooled = np.tile(sum(s[0].sum(0) for s in seen) / sum(s[1].sum(0) for s in seen), (12, 1))
    assert smooth < 0.1 * error(pooled, truth)


@pytest.mark.parametrize("colours", [[1.0], [3.0], [1.0, 1.5, 2.0], [3.0, 4.5, 6.0]])
def test_with_many_images_agrees_with_the_mean_of_every_shell(colours):
    truth, white = coloured(colours), np.ones((len(colours), N_SHELLS))
    residual, count = observed(truth, 100_000)
    smooth = SmoothNoise().update(white, residual, count)
    np.testing.assert_allclose(smooth, RadialNoise().update(white, residual, count), rtol=0.01)


def test_a_group_of_ten_images_keeps_its_own_scale():
    truth = coloured([1.0, 1.0, 1.0]) * np.array([[1.0], [1.0], [3.0]])
    count = np.array([1000.0, 1000.0, 10.0])[:, None] * PIXELS[None]
    smooth = SmoothNoise().update(np.ones_like(truth), truth * count, count)
    np.testing.assert_allclose(smooth, truth, rtol=0.01)


def test_the_gradient_at_the_fit_is_zero():
    residual, count = observed(coloured([1.0, 2.0, 0.2]), 30)
    basis = spline_basis(N_SHELLS, 8)
    mean, weight = (residual / count)[:, 1:], 0.5 * count[:, 1:]
    found = fit_smooth(basis, mean, count[:, 1:])
    assert found.gradient < 1e-5
    to_modes = np.linalg.inv(deviation_modes(8)).T
    at = np.concatenate([found.shared @ to_modes, (found.deviation @ to_modes).ravel()])
    h = 1e-4

    with jax.enable_x64(True):

        @jax.jit
        def loss(values):
            data = (jnp.asarray(x) for x in (found.widths, basis, mean, weight))
            return penalised_deviance(values[:8], values[8:].reshape(3, 8), *data)

        lowest = float(loss(at))
        up, down = (np.array([loss(at + sign * h * e) for e in np.eye(32)]) for sign in (1, -1))
    curvature = (up + down - 2 * lowest) / h**2
    assert (curvature > 0).all()
    # In standard errors of the parameter.
    assert np.max(np.abs(up - down) / (2 * h) / np.sqrt(curvature)) < 1e-3


def test_the_likelihood_is_that_of_the_noise():
    # What the fit subtracts is constant: differences are those of the Gaussian likelihood.
    residual, count = observed(coloured([1.0, 2.0]), 5)
    basis, mean, weight = spline_basis(N_SHELLS, 6), residual / count, 0.5 * count
    modes, nothing, wide = deviation_modes(6), np.zeros((2, 6)), np.full(6, 1e9)
    shared = 0.3 * np.random.default_rng(3).standard_normal((2, 6))

    def expected(amounts):
        power = np.exp(basis @ modes @ amounts)
        # A Gaussian of variance power/2 for either part of every second pixel.
        return np.sum(weight[:, 1:] * (np.log(power) + mean[:, 1:] / power)) + 0.5 * np.sum(
            np.diff(modes @ amounts, n=2) ** 2
        )

    with jax.enable_x64(True):
        first, second = (
            float(
                penalised_deviance(
                    *(jnp.asarray(x) for x in (s, nothing, wide, basis, mean[:, 1:], weight[:, 1:]))
                )
            )
            for s in shared
        )
    assert first - second == pytest.approx(expected(shared[0]) - expected(shared[1]))


def test_shells_that_were_not_seen_go_on_from_those_that_were():
    truth = coloured([1.0, 2.0])
    residual, count = observed(truth, 200)
    last = 20
    residual[:, last + 1 :] = count[:, last + 1 :] = 0.0
    # What was known before had the right shape, at twice the level.
    power = SmoothNoise().update(2.0 * truth, residual, count)
    np.testing.assert_allclose(power[:, 1:], truth[:, 1:], rtol=0.05)
    # Nothing was known before.
    power = SmoothNoise().update(np.ones_like(truth), residual, count)
    np.testing.assert_allclose(power[:, 1 : last + 1], truth[:, 1 : last + 1], rtol=0.05)
    assert np.abs(np.diff(np.log(power[:, last - 2 :]), axis=1)).max() < 0.1
    assert np.abs(np.log(power[:, last:] / power[:, last : last + 1])).max() < 0.4


def test_groups_and_iterations_without_images():
    truth = coloured([1.0, 1.0])
    residual, count = observed(truth, 50)
    nothing = np.zeros_like(count)
    before = SmoothNoise().update(truth, nothing, nothing)
    np.testing.assert_array_equal(before, truth)
    residual[1] = count[1] = 0.0
    after = SmoothNoise().update(truth, residual, count)
    np.testing.assert_allclose(after[:, 1:], truth[:, 1:], rtol=0.1)


def test_the_origin_is_kept_apart():
    truth = coloured([1.0])
    residual, count = observed(truth, 100)
    with_it = SmoothNoise().update(truth, residual, count)
    residual[:, 0] *= 1e-3
    without = SmoothNoise().update(truth, residual, count)
    np.testing.assert_array_equal(with_it[:, 1:], without[:, 1:])
    assert without[0, 0] == pytest.approx(residual[0, 0] / count[0, 0])


@given(
    st.lists(st.floats(0.0, 1e9), min_size=18, max_size=18),
    st.lists(st.sampled_from([0.0, 1.0, 50.0, 1e4, 1e8]), min_size=18, max_size=18),
    st.floats(1e-3, 1e3),
)
def test_the_spectrum_is_positive_whatever_is_seen(residual, count, before):
    count = np.reshape(count, (2, 9))
    residual = np.where(count > 0, np.reshape(residual, (2, 9)), 0.0)
    power = SmoothNoise().update(np.full((2, 9), before), residual, count)
    assert power.shape == (2, 9)
    assert np.isfinite(power).all()
    assert (power > 0).all()


def test_the_same_every_time_and_in_any_order_of_groups():
    residual, count = observed(coloured([1.0, 2.0, 3.0]), 10)
    white = np.ones_like(count)
    first = SmoothNoise().update(white, residual, count)
    np.testing.assert_array_equal(first, SmoothNoise().update(white, residual, count))
    turned = SmoothNoise().update(white, residual[::-1].copy(), count)
    np.testing.assert_allclose(first[::-1], turned, rtol=1e-4)


def test_units_do_not_matter():
    residual, count = observed(coloured([1.0, 2.0]), 10)
    white = np.ones_like(count)
    first = SmoothNoise().update(white, residual, count)
    scaled = SmoothNoise().update(1e4 * white, 1e4 * residual, count)
    np.testing.assert_allclose(scaled, 1e4 * first, rtol=1e-4)


@pytest.mark.parametrize("coefficients", [3, 0])
def test_too_few_coefficients_are_refused(coefficients):
    with pytest.raises(ValueError, match="4 coefficients or more"):
        SmoothNoise(coefficients=coefficients)


@pytest.mark.parametrize(("n_shells", "coefficients"), [(9, 8), (33, 4), (201, 12)])
def test_splines_add_up_to_one(n_shells, coefficients):
    basis = spline_basis(n_shells, coefficients)
    assert basis.shape == (n_shells - 1, coefficients)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0)
    modes = deviation_modes(coefficients)
    np.testing.assert_allclose(modes.T @ modes, coefficients * np.eye(coefficients), atol=1e-9)
    np.testing.assert_allclose(modes[:, 0], 1.0)
