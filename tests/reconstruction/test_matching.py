"""Half-maps in one frame, and registers with them, against rotations of maps and poses."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxrelax.geometry import point_group, subgroup
from jaxrelax.imaging import MARGIN
from jaxrelax.reconstruction import (
    IsotypicParts,
    Particle,
    each_seen_by_the_other,
    match_halves,
    mean_agreement,
    onto_first,
    registers_onto_first,
    rotate_map,
    soft_sphere,
    symmetrise,
    voting_shells,
)

BOX, PIXEL = 24, 3.0
PAIRS = [("C4", "C1"), ("C6", "C2"), ("D2", "C1"), ("D3", "C3"), ("D4", "C2"), ("T", "C2")]


def particle(group, kept, **changes) -> Particle:
    whole = point_group(group)
    return Particle(whole, subgroup(whole, kept), BOX, PIXEL, 50.0, **changes)


def smooth(seed, kept):
    """A smooth map inside the sphere, with the symmetry that is kept."""
    noise = np.random.default_rng(seed).standard_normal((BOX, BOX, BOX))
    map_ = gaussian_filter(noise, 1.5) * soft_sphere(BOX, 5.0, 4.0)
    return symmetrise(map_.astype(np.float32), kept)


@pytest.mark.parametrize(("group", "kept"), PAIRS)
def test_registers_turn_with_the_map(group, kept):
    """Register j of V₂ at pose A is A r_jᵀ; that of g V₂ which shows the same view, A (g r_j)ᵀ."""
    one = particle(group, kept)
    operators, representatives = one.group.operators, one.registers.representatives
    h = one.subgroup.operators
    rng = np.random.default_rng(0)
    given = rng.random((5, one.n_registers)).astype(np.float32)
    for alignment in range(one.group.order):
        found = registers_onto_first(one, alignment, given)
        wanted = np.full_like(given, np.nan)
        for j, r in enumerate(representatives):
            # The coset H r_k that holds g r_j: (g r_j) r_kᵀ is in H.
            product = operators[alignment] @ r
            inside = [
                k for k, other in enumerate(representatives)
                if np.abs(product @ other.T - h).max(axis=(1, 2)).min() < 1e-6
            ]  # fmt: skip
            assert len(inside) == 1
            wanted[:, inside[0]] = given[:, j]
        if alignment in one.normaliser:
            np.testing.assert_array_equal(found, wanted)
            np.testing.assert_allclose(found.sum(axis=1), given.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize(("group", "kept"), PAIRS)
def test_a_turned_half_map_is_turned_back(group, kept):
    one = particle(group, kept)
    first, mask = smooth(1, one.subgroup), one.sphere(BOX)
    for index in one.normaliser:
        second = rotate_map(first, one.group.operators[index].T)
        parts = [one.split(map_) for map_ in (first, second)]
        matched = match_halves(one, parts, mask, max_shell=9, score_shell=7)
        # Up to operators that are kept.
        product = one.group.operators[matched.index] @ one.group.operators[index].T
        away = np.abs(one.subgroup.operators - product).max(axis=(1, 2)).min()
        assert away < 1e-6
        back = onto_first(one, matched.index, second)
        assert np.corrcoef(back.ravel(), first.ravel())[0, 1] > 0.99


def test_each_is_seen_by_the_other_in_its_own_frame():
    one = particle("C4", "C1")
    first = smooth(2, one.subgroup)
    turn = one.group.operators[1]
    second = rotate_map(first, turn.T)
    parts = [one.split(map_) for map_ in (first, second)]
    seen = each_seen_by_the_other(one, 1, parts)
    for own, other in zip(parts, seen, strict=True):
        for a, b in zip(own, other, strict=True):
            np.testing.assert_allclose(a, b, atol=0.02 * np.abs(first).max())


def test_without_relaxation_there_is_nothing_to_match():
    one = particle("C4", "C4")
    parts = [one.split(smooth(seed, one.group)) for seed in range(2)]
    matched = match_halves(one, parts, one.sphere(BOX), max_shell=9, score_shell=7)
    assert matched.index == 0
    assert not matched.fsc.any()


@pytest.mark.parametrize(("finest", "last"), [(None, 6), (18.0, 4)])
def test_which_shells_vote(finest, last):
    one = particle("C4", "C1", finest_register_angstrom=finest)
    votes = voting_shells(one, 10, 6)
    np.testing.assert_array_equal(np.flatnonzero(votes), np.arange(1, last + 1))
    # Never those of the margin.
    assert np.flatnonzero(voting_shells(one, 6, 20)).max() == min(last, 5 - MARGIN)


def test_the_mean_agreement_is_a_weighted_mean_with_its_error():
    one = particle("C4", "C1")
    mask, n_shells, score = one.sphere(BOX), 10, 6
    counts = one.coefficients(mask)[1 : score + 1]
    curve = np.zeros(BOX // 2 + 1)
    curve[1 : score + 1] = np.linspace(0.9, 0.4, score)
    curve[score + 1 :] = 5.0  # of no account
    found = mean_agreement(one, curve, mask, n_shells=n_shells, score_shell=score)
    weight = np.sqrt(counts) / np.sqrt(counts).sum()
    assert found.fsc == pytest.approx(np.sum(weight * curve[1 : score + 1]))
    # Under noise the FSC of a shell has variance 1/n.
    error = np.sqrt(np.sum(weight**2 / counts))
    assert found.signal == pytest.approx(found.fsc / error)


def test_maps_of_noise_agree_by_no_more_than_their_error():
    one = particle("C2", "C1")
    mask = one.sphere(BOX)
    signals = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        parts = [
            IsotypicParts(s, a * mask)
            for s, a in (
                one.split(rng.standard_normal((BOX,) * 3).astype(np.float32)) for _ in range(2)
            )
        ]
        matched = match_halves(one, parts, mask, max_shell=9, score_shell=7)
        found = mean_agreement(one, matched.fsc, mask, n_shells=10, score_shell=7)
        signals.append(found.signal)
    # The turn of a shell is chosen by others, so that the choice favours nothing.
    assert abs(np.mean(signals)) < 0.6
    assert 0.4 < np.std(signals) < 1.5
