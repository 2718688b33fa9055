"""States against a truth: matched labels, populations, calibration, junk; adjusted Rand index."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxrelax.assessment import (
    adjusted_rand,
    area_under_roc,
    confusion_matrix,
    match_states,
    registers_within,
    state_accuracy,
)
from jaxrelax.assessment.states import JUNK, UNMATCHED
from jaxrelax.geometry import point_group, random_rotations

LABELS = hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(0, 4))


def pair_of_labels(draw):
    first = draw(LABELS)
    second = draw(hnp.arrays(np.int64, len(first), elements=st.integers(0, 4)))
    return first, second


PAIRS = st.composite(pair_of_labels)()


def rand_over_pairs(first, second):
    """Adjusted Rand index by looking at every pair of images."""
    both = in_first = in_second = n = 0
    for i, j in itertools.combinations(range(len(first)), 2):
        a, b = first[i] == first[j], second[i] == second[j]
        both, in_first, in_second, n = both + (a and b), in_first + a, in_second + b, n + 1
    chance = in_first * in_second / n
    return both, chance, (in_first + in_second) / 2


@given(PAIRS)
def test_adjusted_rand_is_what_a_count_over_pairs_gives(pair):
    both, chance, most = rand_over_pairs(*pair)
    expected = 1.0 if np.isclose(most, chance) else (both - chance) / (most - chance)
    assert adjusted_rand(*pair) == pytest.approx(expected, abs=1e-12)


@given(PAIRS, st.permutations(range(5)))
def test_names_of_labels_and_their_order_mean_nothing_to_adjusted_rand(pair, names):
    first, second = pair
    expected = adjusted_rand(first, second)
    assert adjusted_rand(np.array(names)[first], second) == pytest.approx(expected, abs=1e-12)
    assert adjusted_rand(second, first) == pytest.approx(expected, abs=1e-12)
    assert adjusted_rand(first, np.array(names)[first]) == 1.0


def test_adjusted_rand_of_independent_partitions_is_about_zero():
    rng = np.random.default_rng(0)
    values = [adjusted_rand(*rng.integers(4, size=(2, 300))) for _ in range(200)]
    assert abs(np.mean(values)) < 0.002  # the mean of 200 with a standard deviation of 0.006
    assert np.std(values) < 0.01


def test_adjusted_rand_of_a_table_by_hand():
    # n_ij = [[2, 1], [0, 3]]: 4 pairs together in both, 6 and 7 within one, 15 in all.
    first, second = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])
    assert adjusted_rand(first, second) == pytest.approx((4 - 42 / 15) / (6.5 - 42 / 15))


def test_adjusted_rand_where_there_is_nothing_to_adjust():
    assert adjusted_rand(np.zeros(5, int), np.full(5, 7)) == 1.0
    assert adjusted_rand(np.arange(5), np.arange(5)[::-1].copy()) == 1.0
    assert adjusted_rand(np.arange(5), np.zeros(5, int)) == 0.0
    with pytest.raises(ValueError, match="no pairs"):
        adjusted_rand(np.array([0]), np.array([0]))
    with pytest.raises(ValueError, match="same images"):
        adjusted_rand(np.zeros(3, int), np.zeros(4, int))


@given(PAIRS)
def test_no_matching_makes_more_images_agree(pair):
    states, true = pair
    confusion = confusion_matrix(states, true, 5, 5)
    for i, j in itertools.product(range(5), repeat=2):
        assert confusion[i, j] == np.sum((true == i) & (states == j))
    matching = match_states(confusion)
    most = max(
        sum(confusion[order[j], j] for j in range(5)) for order in itertools.permutations(range(5))
    )
    assert sorted(matching) == list(range(5))
    assert np.sum(matching[states] == true) == most


@given(PAIRS, st.permutations(range(5)))
def test_accuracy_does_not_depend_on_what_found_states_are_called(pair, names):
    states, true = pair
    rng = np.random.default_rng(len(states))
    posterior = rng.dirichlet(np.ones(5), len(states))
    posterior[np.arange(len(states)), states] += 1.0
    posterior /= 2.0
    junk = rng.random(len(states))
    called = np.array(names)
    first = state_accuracy(states, true, posterior=posterior, junk_probability=junk)
    again = state_accuracy(
        called[states], true, posterior=posterior[:, np.argsort(called)], junk_probability=junk
    )
    assert again.accuracy == first.accuracy
    assert again.mean_posterior == pytest.approx(first.mean_posterior)
    # Several matchings may be equally good; what they leave alone agrees.
    assert np.sum(again.confusion) == np.sum(first.confusion) == len(states)
    np.testing.assert_array_equal(again.confusion[:, called], first.confusion)
    np.testing.assert_allclose(again.true_populations, first.true_populations)


def drawn(n=20_000, seed=0):
    """Three states and junk, with an honest posterior; the run calls them 2, 0 and 1."""
    rng = np.random.default_rng(seed)
    posterior = rng.dirichlet([0.5, 0.25, 0.25], n)
    true = (rng.random((n, 1)) > np.cumsum(posterior, axis=1)).sum(axis=1)
    is_junk = rng.random(n) < 0.1
    junk = np.where(is_junk, rng.beta(8, 1, n), rng.beta(1, 8, n))
    true = np.where(is_junk, JUNK, true)
    return posterior[:, [1, 2, 0]], true, junk


def test_a_classification_judged():
    posterior, true, junk = drawn()
    shown = true != JUNK
    judged = state_accuracy(
        posterior.argmax(axis=1), true, posterior=posterior, junk_probability=junk
    )
    assert judged.matching.tolist() == [1, 2, 0]
    right = np.array([1, 2, 0])[posterior.argmax(axis=1)] == true
    assert judged.accuracy == np.mean(right[shown])
    assert judged.overconfidence == pytest.approx(0.0, abs=0.01)
    assert judged.calibration is not None
    assert judged.calibration.expected_error < 0.02
    assert (judged.n_judged, judged.n_junk) == (shown.sum(), (~shown).sum())
    np.testing.assert_allclose(
        judged.true_populations, np.bincount(true[shown]) / shown.sum(), rtol=1e-12
    )
    np.testing.assert_allclose(judged.posterior_populations, [0.5, 0.25, 0.25], atol=0.01)
    assert judged.population_error < 0.01
    # Best states exaggerate the larger population; the posterior does not.
    assert judged.label_populations[0] > 0.515
    assert 0.99 < judged.junk_auc < 1.0
    assert f"{judged.accuracy:.3f}" in judged.summary()
    assert f"{judged.junk_auc:.4f}" in judged.summary()


def test_a_boastful_posterior_is_seen():
    posterior, true, _ = drawn()
    states = posterior.argmax(axis=1)
    judged = state_accuracy(states, true, probability=np.full(len(true), 0.999))
    assert judged.overconfidence == pytest.approx(0.999 - judged.accuracy)
    assert judged.posterior_populations is None
    assert judged.junk_auc is None
    plain = state_accuracy(states, true)
    assert plain.mean_posterior is None
    assert plain.overconfidence is None
    assert "posterior" not in plain.summary()


def test_more_states_than_there_are_in_truth():
    true = np.array([0, 0, 0, 0, 1, 1, 1, JUNK])
    states = np.array([2, 2, 2, 0, 1, 1, 1, 0])
    judged = state_accuracy(states, true, n_states=4)
    assert judged.matching[[1, 2]].tolist() == [1, 0]
    assert sorted(judged.matching[[0, 3]]) == [UNMATCHED, UNMATCHED]
    assert judged.accuracy == pytest.approx(6 / 7)
    np.testing.assert_allclose(judged.label_populations, [3 / 8, 3 / 8])
    known_junk = np.eye(8)[7]
    judged = state_accuracy(states, true, n_states=4, junk_probability=known_junk)
    np.testing.assert_allclose(judged.label_populations, [3 / 7, 3 / 7])
    assert judged.junk_auc == 1.0


def test_states_named_by_the_user_are_not_matched():
    true, states = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 2])
    assert state_accuracy(states, true).accuracy == 0.75
    judged = state_accuracy(states, true, matched=False)
    assert judged.accuracy == 0.0
    assert judged.matching.tolist() == [0, 1, UNMATCHED]


def test_refuses_labels_that_cannot_be():
    with pytest.raises(ValueError, match="found state of image 1 is 3"):
        state_accuracy(np.array([0, 3]), np.array([0, 0]), n_states=2)
    with pytest.raises(ValueError, match="same images"):
        state_accuracy(np.array([0, 3]), np.array([0]))
    with pytest.raises(ValueError, match="junk"):
        state_accuracy(np.array([0]), np.array([JUNK]))


@given(
    hnp.arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.1, 0.5, 0.9])),
    hnp.arrays(np.bool_, 12),
)
def test_area_under_roc_is_the_fraction_of_pairs_in_order(score, positive):
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="at least one of each"):
            area_under_roc(score, positive)
        return
    above = score[positive][:, None] - score[~positive][None, :]
    expected = np.mean((above > 0) + 0.5 * (above == 0))
    assert area_under_roc(score, positive) == pytest.approx(expected)


def test_registers_of_one_state_up_to_one_operator():
    group, none = point_group("C4"), point_group("C1")
    rng = np.random.default_rng(1)
    true = random_rotations(60, rng)
    chosen = np.arange(60) < 20
    # In the state all are turned by one operator but three; elsewhere registers are drawn.
    operators = np.where(chosen, 1, rng.integers(4, size=60))
    operators[:3] = 2
    poses = true @ group.operators[operators].mT
    found = registers_within(chosen, poses, true, group, none)
    assert found.fraction == pytest.approx(17 / 20)
    np.testing.assert_array_equal(found.correct, np.arange(20) >= 3)
    with pytest.raises(ValueError, match="at least one"):
        registers_within(np.zeros(60, bool), poses, true, group, none)
