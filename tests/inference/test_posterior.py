"""Posteriors over hypotheses: normalised, blind to names, and pruned by mass."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from jaxrelax.inference import entropy, gain_over_mixture, harden, posterior, significant

shapes = st.sampled_from([(1, 1), (3, 2), (2, 7)])  # each is compiled once
evidences = arrays(np.float32, shapes, elements=st.floats(-1e4, 1e4, width=32))
weightings = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.one_of(st.just(0.0), st.floats(2.0**-20, 1.0, width=32)),
)


@given(evidences)
def test_posterior_sums_to_one(log_evidence):
    weights = np.asarray(posterior(jnp.asarray(log_evidence)))
    assert np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)


@given(evidences, st.randoms(use_true_random=False))
def test_relabelling_the_hypotheses_relabels_the_posterior(log_evidence, random):
    order = list(range(log_evidence.shape[1]))
    random.shuffle(order)
    prior = jnp.linspace(-1.0, 1.0, len(order))
    before = posterior(jnp.asarray(log_evidence), prior)
    after = posterior(jnp.asarray(log_evidence[:, order]), prior[np.array(order)])
    np.testing.assert_allclose(after, before[:, np.array(order)], atol=1e-6)


@given(evidences, st.integers(-1000, 1000))
def test_a_constant_of_the_image_does_not_matter(log_evidence, constant):
    rounded = np.rint(log_evidence)  # so that float32 adds the constant exactly
    np.testing.assert_array_equal(
        posterior(jnp.asarray(rounded)), posterior(jnp.asarray(rounded + np.float32(constant)))
    )


def test_posterior_is_bayes_rule():
    evidence, prior = np.array([[2.0, 6.0, 1.0]]), np.array([0.5, 0.25, 0.25])
    expected = evidence * prior / np.sum(evidence * prior)
    found = posterior(jnp.log(jnp.asarray(evidence)), jnp.log(jnp.asarray(prior)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(evidences)
def test_hard_weights_are_one_at_the_most_probable(log_evidence):
    weights = np.asarray(posterior(jnp.asarray(log_evidence)))
    hard = np.asarray(harden(jnp.asarray(weights)))
    np.testing.assert_array_equal(hard.sum(axis=1), 1.0)
    rows = np.arange(len(hard))
    np.testing.assert_array_equal(weights[rows, hard.argmax(axis=1)], weights.max(axis=1))


@given(evidences)
def test_entropy_lies_between_none_and_all(log_evidence):
    weights = np.asarray(posterior(jnp.asarray(log_evidence)))
    assert np.all(entropy(weights) >= -1e-5)
    assert np.all(entropy(weights) <= np.log(weights.shape[1]) + 1e-5)
    uniform = np.full((1, 4), 0.25, np.float32)
    assert entropy(uniform)[0] == pytest.approx(np.log(4))
    assert entropy(np.eye(4, dtype=np.float32)).max() == 0.0


def test_marginal_likelihood_is_the_mean_over_registers():
    log_evidence = np.log(np.array([[1.0, 3.0], [2.0, 2.0]], np.float32))
    found = gain_over_mixture(jnp.asarray(log_evidence))
    np.testing.assert_allclose(found, np.log([2.0, 2.0]), rtol=1e-6)


@given(weightings, st.floats(0.01, 0.9999))
def test_what_is_kept_is_the_smallest_set_with_the_mass(weights, mass):
    rows, columns, kept = significant(weights, mass)
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == len(rows)
    exact = weights.astype(np.float64)
    totals = exact.sum(axis=1)
    for row, total in enumerate(totals):
        chosen = columns[rows == row]
        if total == 0:
            assert len(chosen) == 0
            continue
        held = exact[row, chosen]
        assert held.sum() >= mass * total * (1 - 1e-9)
        # Without its least member the set would hold too little; nothing outside is larger.
        assert held.sum() - held.min() < mass * total * (1 + 1e-9)
        assert held.min() >= np.delete(exact[row], chosen).max(initial=0.0)
        assert kept[rows == row].sum() == pytest.approx(total)
        np.testing.assert_allclose(kept[rows == row] / total, held / held.sum(), rtol=1e-9)
