"""Populations from soft posteriors: errors against their scatter, size and power of the tests."""

import numpy as np
import pytest
import scipy.stats

from jaxrelax.assessment import likelihood_ratio_test, populations, wald_test
from jaxrelax.geometry import occupancy_patterns, point_group

PATTERNS = occupancy_patterns(point_group("C4"))
COOPERATIVE = np.array([0.20, 0.10, 0.10, 0.30, 0.10, 0.20])  # mean occupancy one half
N, REPEATS = 1200, 500


def simulated(true, rng, n=N, separation=2.0, junk=0.0):
    """Posteriors of scores that are 1 apart in units of 1/separation, under the fractions known."""
    fractions = np.append((1.0 - junk) * np.asarray(true), junk)
    state = rng.choice(len(fractions), n, p=fractions)
    scores = separation * np.eye(len(fractions))[state] + rng.standard_normal((n, len(fractions)))
    joint = np.exp(separation * scores) * fractions
    joint /= joint.sum(axis=1, keepdims=True)
    particle = 1.0 - joint[:, -1]
    return joint[:, :-1] / particle[:, None], particle, state


def repeated(true, seed, **options):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(REPEATS):
        rows, particle, _ = simulated(true, rng, **options)
        found.append(populations(PATTERNS, rows, particle, prior=np.asarray(true)))
    return found


@pytest.fixture(scope="module")
def independent():
    return repeated(PATTERNS.binomial(0.5), 0)


@pytest.mark.parametrize("junk", [0.0, 0.2])
def test_standard_errors_are_the_scatter(independent, junk):
    true = PATTERNS.binomial(0.5) if junk == 0 else COOPERATIVE
    found = independent if junk == 0 else repeated(true, 1, junk=junk)
    estimates = np.array([each.populations for each in found])
    told = np.sqrt(np.mean([each.standard_errors**2 for each in found], axis=0))
    scatter = estimates.std(axis=0)
    np.testing.assert_allclose(told, scatter, rtol=0.1)
    # Those of counts would be too small.
    counted = np.sqrt(true * (1 - true) / ((1 - junk) * N))
    assert np.all(counted < 0.9 * told)
    np.testing.assert_allclose(estimates.mean(axis=0), true, atol=5 * scatter.max() / REPEATS**0.5)
    occupancy = np.array([each.occupancy for each in found])
    error = np.sqrt(np.mean([each.occupancy_error**2 for each in found]))
    assert error == pytest.approx(occupancy.std(), rel=0.1)


def rejections(p_values):
    return np.sum(np.array(p_values) < 0.05)


def test_size_under_independence(independent):
    low, high = scipy.stats.binom.ppf([0.001, 0.999], REPEATS, 0.05)
    assert low <= rejections([each.test.p_value for each in independent]) <= high
    assert {each.test.degrees for each in independent} == {4}
    assert scipy.stats.kstest([each.test.p_value for each in independent], "uniform").pvalue > 0.001
    # G² of expected numbers rejects too often as it stands, and rightly with its design effect.
    plain, corrected = [], []
    for each in independent:
        counts = each.n_particles * each.populations
        plain.append(likelihood_ratio_test(PATTERNS, counts).p_value)
        corrected.append(likelihood_ratio_test(PATTERNS, counts, each.covariance).p_value)
    assert rejections(plain) > 1.5 * high
    assert low <= rejections(corrected) <= 1.3 * high


def test_size_of_counts():
    """G² of particles whose patterns are known, at a small occupancy with rare patterns pooled."""
    rng = np.random.default_rng(2)
    p_values, degrees = [], set()
    for _ in range(REPEATS):
        counts = rng.multinomial(800, PATTERNS.binomial(0.1)).astype(float)
        found = likelihood_ratio_test(PATTERNS, counts)
        p_values.append(found.p_value)
        degrees.add(found.degrees)
    low, high = scipy.stats.binom.ppf([0.001, 0.999], REPEATS, 0.05)
    assert low <= rejections(p_values) <= high
    assert max(degrees) < 4


def test_power_under_cooperation():
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows, _, _ = simulated(COOPERATIVE, rng)
        found = populations(PATTERNS, rows, prior=COOPERATIVE)
        assert found.test.p_value < 1e-6
        assert found.occupancy == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(found.independent, PATTERNS.binomial(found.occupancy))


def test_certain_posteriors_have_errors_of_counts():
    rng = np.random.default_rng(4)
    state = rng.choice(6, 3000, p=COOPERATIVE)
    found = populations(PATTERNS, np.eye(6)[state])
    share = np.bincount(state, minlength=6) / 3000
    np.testing.assert_allclose(found.populations, share, atol=1e-12)
    expected = (np.diag(share) - np.outer(share, share)) / 3000
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-6, atol=1e-12)
    assert found.test.design_effect == pytest.approx(1.0, abs=0.6)


def test_refitted_from_any_prior():
    """Posteriors made under another prior lead to the same populations."""
    rng = np.random.default_rng(5)
    rows, particle, _ = simulated(COOPERATIVE, rng, junk=0.1)
    one = populations(PATTERNS, rows, particle, prior=COOPERATIVE)
    other_prior = np.array([0.1, 0.3, 0.1, 0.1, 0.1, 0.3])
    rows = rows / COOPERATIVE * other_prior
    # With the prior of the patterns, how likely junk is changes too.
    odds = particle / (1 - particle) * rows.sum(axis=1)
    rows /= rows.sum(axis=1, keepdims=True)
    other = populations(PATTERNS, rows, odds / (1 + odds), prior=other_prior)
    np.testing.assert_allclose(other.populations, one.populations, atol=0.004)


def test_converged_posteriors_are_left_alone():
    rng = np.random.default_rng(6)
    rows, _, _ = simulated(COOPERATIVE, rng)
    one = populations(PATTERNS, rows, prior=COOPERATIVE)
    again = rows / COOPERATIVE * one.populations
    again /= again.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(again.mean(axis=0), one.populations, atol=1e-6)
    two = populations(PATTERNS, again)
    np.testing.assert_allclose(two.populations, one.populations, atol=1e-5)
    np.testing.assert_allclose(two.standard_errors, one.standard_errors, rtol=1e-3)


def test_what_is_not_there():
    """All or nothing: patterns without particles have no error, and the test still tells."""
    rows = np.eye(6)[np.repeat([0, 5], 500)]
    found = populations(PATTERNS, rows)
    assert np.isnan(found.standard_errors[1:5]).all()
    assert found.standard_errors[0] == pytest.approx(0.5 / 1000**0.5, rel=1e-6)
    assert found.test.p_value < 1e-50
    told = found.to_dict()
    assert told["patterns"][1]["standard_error"] is None
    assert told["patterns"][3]["sites"] == "1010"
    assert told["independence"]["degrees_of_freedom"] == 4
    assert "two opposite" in found.summary()
    assert "p < 1e-100" in found.summary()


def test_nothing_to_test():
    """C1 has a site of its own; with few particles all patterns are one pool."""
    one = occupancy_patterns(point_group("C1"))
    found = populations(one, np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert found.test.degrees == 0
    assert np.isnan(found.test.p_value)
    assert "nothing to test" in found.summary()
    few = wald_test(PATTERNS, COOPERATIVE, np.eye(6), 8.0)
    assert few.degrees == 0


def test_refusals():
    rows = np.full((3, 6), 1 / 6)
    with pytest.raises(ValueError, match="6 patterns"):
        populations(PATTERNS, rows[:, :5])
    with pytest.raises(ValueError, match="add up to 1"):
        populations(PATTERNS, 2 * rows)
    with pytest.raises(ValueError, match="one probability"):
        populations(PATTERNS, rows, np.array([0.5, 2.0, 0.5]))
    with pytest.raises(ValueError, match="no image"):
        populations(PATTERNS, rows, np.zeros(3))
    with pytest.raises(ValueError, match="above 0"):
        populations(PATTERNS, rows, prior=np.zeros(6))
