"""The joint posterior of copies against enumeration of everything that a parent can be."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrelax.inference.exclusion import (
    assigned,
    joint_posterior,
    log_prior_of_copies,
    log_ratios,
    log_weight_of_none,
)

NATS = st.floats(-30.0, 30.0)


@st.composite
def parents(draw):
    """A table of copies in any order: evidence of states and of no particle, shares, parents."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    n, states = sum(sizes), draw(st.integers(2, 3))
    evidence = draw(st.lists(NATS, min_size=n * states, max_size=n * states))
    junk = draw(st.booleans())
    outside = draw(st.lists(NATS, min_size=n, max_size=n)) if junk else [-np.inf] * n
    shares = np.array(draw(st.lists(st.floats(0.05, 1.0), min_size=states, max_size=states)))
    parent = np.array(draw(st.permutations(np.repeat(np.arange(len(sizes)), sizes).tolist())))
    fraction = draw(st.one_of(st.none(), st.floats(0.02, 0.24)))
    table = np.array(evidence).reshape(n, states)
    return (
        table,
        np.array(outside),
        shares / shares.sum(),
        draw(st.integers(0, states - 1)),
        (
            parent,
            fraction,
        ),
    )


def enumerated(evidence, outside, fractions, exclusive, parent, fraction):
    """Everything one parent after the other: who has it × what every image shows."""
    n, states = evidence.shape
    most = np.bincount(parent).max()
    has, shown, junk = np.zeros(n), np.zeros((n, states)), np.zeros(n)
    likelihood = np.zeros(parent.max() + 1)
    left = np.where(np.arange(states) == exclusive, 0.0, fractions)
    left = left / left.sum()
    for one in np.unique(parent):
        rows = np.flatnonzero(parent == one)
        m = len(rows)
        if fraction is None:
            prior = {z: 1.0 / most for z in range(m)} | {None: (most - m) / most}
        else:
            prior = {z: fraction for z in range(m)} | {None: 1.0 - m * fraction}
        total, terms = 0.0, []
        for z, weight in prior.items():
            options = []
            for i, row in enumerate(rows):
                share = np.eye(states)[exclusive] if z == i else left
                each = [(k, share[k] * np.exp(evidence[row, k])) for k in range(states)]
                options.append([*each, (None, np.exp(outside[row]))])
            for choice in itertools.product(*options):
                value = weight * np.prod([p for _, p in choice])
                total += value
                terms.append((z, [k for k, _ in choice], value))
        likelihood[one] = total
        for z, choice, value in terms:
            if z is not None:
                has[rows[z]] += value / total
            for row, k in zip(rows, choice, strict=True):
                if k is None:
                    junk[row] += value / total
                else:
                    shown[row, k] += value / total
    return has, shown / shown.sum(axis=1, keepdims=True), junk, likelihood


@settings(max_examples=60, deadline=None)
@given(parents())
def test_joint_posterior_is_that_of_enumeration(drawn):
    evidence, outside, fractions, exclusive, (parent, fraction) = drawn
    log_none = log_weight_of_none(parent, fraction)
    found = joint_posterior(evidence, outside, fractions, exclusive, parent, log_none)
    has, shown, junk, likelihood = enumerated(
        evidence, outside, fractions, exclusive, parent, fraction
    )
    np.testing.assert_allclose(found.has, has, atol=1e-9)
    np.testing.assert_allclose(found.states, shown, atol=1e-9)
    np.testing.assert_allclose(found.junk, junk, atol=1e-9)
    total = np.bincount(parent, found.log_marginal)
    np.testing.assert_allclose(total, np.log(likelihood), atol=1e-8)
    assert np.bincount(parent, found.has).max() <= 1.0 + 1e-12


@settings(max_examples=60, deadline=None)
@given(parents())
def test_what_siblings_say_times_the_own_image_is_the_joint_posterior(drawn):
    """So an E-step with this prior in place of the fraction finds it image by image."""
    evidence, outside, fractions, exclusive, (parent, fraction) = drawn
    log_none = log_weight_of_none(parent, fraction)
    joint = joint_posterior(evidence, outside, fractions, exclusive, parent, log_none)
    ratio = log_ratios(evidence, outside, fractions, exclusive)
    has, not_ = log_prior_of_copies(ratio, parent, log_none)
    np.testing.assert_allclose(np.exp(has) + np.exp(not_), 1.0, atol=1e-12)
    with np.errstate(divide="ignore"):
        prior = np.where(
            np.arange(len(fractions)) == exclusive,
            has[:, None],
            not_[:, None] + np.log(fractions / (1.0 - fractions[exclusive])),
        )
    terms = np.concatenate([evidence + prior, outside[:, None]], axis=1)
    alone = np.exp(terms - np.logaddexp.reduce(terms, axis=1, keepdims=True))
    np.testing.assert_allclose(alone[:, -1], joint.junk, atol=1e-9)
    shown = alone[:, :-1] / np.maximum(1.0 - alone[:, -1:], 1e-300)
    sure = joint.junk < 1.0 - 1e-6
    np.testing.assert_allclose(shown[sure], joint.states[sure], atol=1e-8)


def test_sure_copies_neither_overflow_nor_cancel():
    evidence = np.array([[4000.0, 0.0], [3990.0, 0.0], [-5000.0, 0.0], [0.0, 9000.0]])
    parent = np.zeros(4, int)
    found = joint_posterior(
        evidence, np.full(4, -np.inf), np.array([0.5, 0.5]), 0, parent, np.full(4, -np.inf)
    )
    expected = np.exp([0.0, -10.0]) / (1.0 + np.exp(-10.0))
    np.testing.assert_allclose(found.has, [*expected, 0.0, 0.0], atol=1e-12)


def test_copies_that_are_missing_may_have_it():
    parent = np.array([0, 0, 0, 0, 1, 1])
    evidence, nothing = np.zeros((6, 2)), np.full(6, -np.inf)
    found = joint_posterior(
        evidence, nothing, np.array([0.5, 0.5]), 1, parent, log_weight_of_none(parent, None)
    )
    np.testing.assert_allclose(found.has, 0.25)
    some = joint_posterior(
        evidence, nothing, np.array([0.5, 0.5]), 1, parent, log_weight_of_none(parent, 0.1)
    )
    np.testing.assert_allclose(some.has, 0.1)


@settings(max_examples=60, deadline=None)
@given(parents())
def test_no_parent_has_two(drawn):
    evidence, outside, fractions, exclusive, (parent, fraction) = drawn
    log_none = log_weight_of_none(parent, fraction)
    found = joint_posterior(evidence, outside, fractions, exclusive, parent, log_none)
    state = assigned(found, exclusive, parent)
    several = np.bincount(parent, state == exclusive)
    assert several.max() <= 1
    complete = np.bincount(parent) == np.bincount(parent).max()
    if fraction is None:
        assert np.all(several[complete] == 1)
    for row in np.flatnonzero(state == exclusive):
        mine = parent == parent[row]
        assert found.has[row] == pytest.approx(found.has[mine].max())
