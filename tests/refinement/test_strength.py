"""How strongly the asymmetric part may speak: known strengths found again, and none in noise."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from jaxrelax.refinement.strength import averaged, calibrate, honest_exponent, tempered

N, REGISTERS = 3000, 4


def scores(strength, squared_distance, symmetric=0.0, seed=0, n=N):
    """Log-evidences of images of which the map predicts ``strength`` times what it shows.

    Views of the J registers add up to nothing and are equally long; the distance varies from image
    to image. Symmetric images are noise to the asymmetric part.
    """
    rng = np.random.default_rng(seed)
    d2 = squared_distance * rng.gamma(2.0, 0.5, (n, 1))
    true = rng.integers(REGISTERS, size=n)
    signal = np.where(rng.random((n, 1)) < symmetric, 0.0, strength)
    # Half the squared length of all views, from their mean.
    centre = np.eye(REGISTERS) - 1.0 / REGISTERS
    length2 = d2 * REGISTERS / (REGISTERS - 1)
    noise = rng.standard_normal((n, REGISTERS)) @ centre
    match = np.sqrt(length2) * noise + signal * length2 * centre[true]
    of_symmetric = rng.normal(-500.0, 20.0, n)
    return of_symmetric[:, None] + match - 0.5 * d2, of_symmetric


def calibrated(registers, symmetric, with_symmetric=True):
    return calibrate(registers, symmetric, np.ones(len(symmetric)), with_symmetric=with_symmetric)


# The errors are four times the scatter over eight data sets of this size.
@pytest.mark.parametrize(
    ("strength", "squared_distance", "error"),
    [(0.6, 1.0, 0.12), (1.0, 2.0, 0.05), (1.5, 0.5, 0.11)],
)
def test_a_known_strength_is_found(strength, squared_distance, error):
    found = calibrated(*scores(strength, squared_distance))
    assert found.factor == pytest.approx(strength, abs=error)
    assert found.symmetric_fraction < 0.05
    assert found.log_likelihood > 30.0


@pytest.mark.parametrize(
    ("strength", "squared_distance", "symmetric"), [(1.0, 6.0, 0.3), (0.5, 20.0, 0.2)]
)
def test_a_known_fraction_of_symmetric_particles_is_found(strength, squared_distance, symmetric):
    registers, of_symmetric = scores(strength, squared_distance, symmetric)
    found = calibrated(registers, of_symmetric)
    assert found.symmetric_fraction == pytest.approx(symmetric, abs=0.07)
    assert found.factor == pytest.approx(strength, rel=0.05)
    # Where they may not be told apart, they weaken the map instead.
    without = calibrated(registers, of_symmetric, with_symmetric=False)
    assert without.symmetric_fraction == 0.0
    assert without.factor < 0.9 * strength
    assert without.log_likelihood < found.log_likelihood - 20.0


def test_noise_gets_no_strength():
    """Maps of noise that say 5 nats per image: the strength is zero, or all but zero."""
    found = [calibrated(*scores(0.0, 10.0, seed=seed)) for seed in range(12)]
    factors = np.array([one.factor for one in found])
    assert 3 <= np.sum(factors == 0.0) <= 9
    assert np.max(factors) < 0.15
    # Half a χ² of one degree, where it is not zero.
    assert max(one.log_likelihood for one in found) < 5.0
    assert all(one.symmetric_fraction == 0.0 for one in found if one.factor == 0.0)


def test_a_map_that_is_symmetric_says_nothing():
    of_symmetric = np.random.default_rng(0).normal(-500.0, 20.0, 50)
    registers = np.repeat(of_symmetric[:, None], REGISTERS, axis=1)
    assert calibrated(registers, of_symmetric) == (0.0, 0.0, 0.0, 0.0)


def test_images_that_are_junk_do_not_count():
    registers, of_symmetric = scores(0.8, 3.0, n=500)
    other, of_other = scores(0.0, 3.0, seed=1, n=500)
    counted = np.repeat([1.0, 0.0], 500)
    mixed = calibrate(
        np.concatenate([registers, other]), np.concatenate([of_symmetric, of_other]), counted,
        with_symmetric=True,
    )  # fmt: skip
    np.testing.assert_allclose(mixed, calibrated(registers, of_symmetric), rtol=1e-6)


def test_the_strength_is_relative_to_the_map():
    """A map of twice the strength is given half the factor."""
    registers, of_symmetric = scores(0.8, 2.0)
    below = registers - of_symmetric[:, None]
    distance = -2.0 * below.mean(axis=1, keepdims=True)
    doubled = 2.0 * (below + 0.5 * distance) - 0.5 * 4.0 * distance + of_symmetric[:, None]
    one, two = calibrated(registers, of_symmetric), calibrated(doubled, of_symmetric)
    assert two.factor == pytest.approx(0.5 * one.factor, abs=2e-3)
    assert two.log_likelihood == pytest.approx(one.log_likelihood, abs=0.05)
    # What it comes to is the same.
    assert two.nats == pytest.approx(one.nats, rel=5e-3)


POSTERIORS = arrays(np.float64, (6, REGISTERS), elements=st.floats(-8.0, 8.0, width=32)).map(
    lambda logs: np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
)


@given(POSTERIORS, st.floats(0.0, 1.0))
def test_tempering_flattens_and_keeps_the_order(posteriors, exponent):
    found = tempered(posteriors, exponent)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    assert np.all(found.max(axis=1) <= posteriors.max(axis=1) + 1e-6)
    order = np.argsort(posteriors, axis=1)
    assert np.all(np.diff(np.take_along_axis(found, order, axis=1), axis=1) >= -1e-7)
    np.testing.assert_allclose(tempered(posteriors, 1.0), posteriors, atol=1e-6)
    np.testing.assert_allclose(tempered(posteriors, 0.0), 1.0 / REGISTERS, atol=1e-7)


@given(POSTERIORS, st.floats(0.1, 0.9))
def test_the_exponent_that_made_posteriors_too_sure_is_found(other, exponent):
    logs = np.log(other) / exponent
    own = np.exp(logs - logs.max(axis=1, keepdims=True))
    own /= own.sum(axis=1, keepdims=True)
    # So sure that it cannot be told how sure is no question to ask.
    assume(1.0 / REGISTERS + 0.02 < np.mean(other.max(axis=1)) < 0.98)
    found = honest_exponent(own, other)
    assert np.mean(tempered(own, found).max(axis=1)) == pytest.approx(
        np.mean(other.max(axis=1)), abs=2e-3
    )
    assert found == pytest.approx(exponent, abs=0.03)
    # Nobody is made surer, and where nothing is known nothing is left.
    assert honest_exponent(other, own) == 1.0
    assert honest_exponent(own, np.full_like(own, 1.0 / REGISTERS)) < 1e-3


@given(POSTERIORS, st.floats(-30.0, 30.0))
def test_posteriors_are_as_uniform_as_asymmetry_is_unlikely(posteriors, log_odds):
    found = averaged(posteriors, log_odds)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    # Every probability moves towards 1/J by the same share.
    away = 1.0 / REGISTERS
    np.testing.assert_allclose(found - away, expit(log_odds) * (posteriors - away), atol=1e-6)
    np.testing.assert_allclose(averaged(posteriors, 1e3), posteriors, atol=1e-6)
    np.testing.assert_allclose(averaged(posteriors, -1e3), away, atol=1e-6)
