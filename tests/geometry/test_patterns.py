"""Occupancy patterns: orbits of subsets of sites."""

from itertools import product
from math import gcd

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import (
    group_from_operators,
    occupancy_patterns,
    point_group,
    random_rotations,
    right_cosets,
)
from jaxrelax.reconstruction import rotate_map

GROUPS = st.one_of(
    st.integers(1, 12).map(lambda n: f"C{n}"), st.integers(1, 6).map(lambda n: f"D{n}")
)


def cycles(permutation):
    seen, count = set(), 0
    for start in range(len(permutation)):
        if start not in seen:
            count += 1
            while start not in seen:
                seen.add(start)
                start = int(permutation[start])
    return count


@given(GROUPS)
def test_burnside(name):
    group = point_group(name)
    patterns = occupancy_patterns(group)
    fixed = [2 ** cycles(group.multiplication_table[h]) for h in range(group.order)]
    assert len(patterns) * group.order == sum(fixed)
    assert patterns.multiplicity.sum() == 2**group.order
    assert np.all(np.bincount(patterns.pattern_of) == patterns.multiplicity)
    assert len(set(patterns.names)) == len(patterns)


def test_cyclic_groups_have_as_many_as_there_are_necklaces():
    for n in range(1, 13):
        necklaces = sum(2 ** gcd(n, k) for k in range(n)) // n
        assert len(occupancy_patterns(point_group(f"C{n}"))) == necklaces


@given(GROUPS, st.integers(0, 2**32 - 1))
def test_operators_move_sites(name, seed):
    """On sets of pairs, with matrices instead of the multiplication table."""
    group = point_group(name)
    patterns = occupancy_patterns(group)
    rng = np.random.default_rng(seed)
    sites = rng.random(group.order) < 0.5
    number, t = (int(each) for each in patterns.find(sites))
    pattern = patterns.patterns[number]
    points = group.operators @ np.array([0.3, 1.1, 0.7])  # one on every site

    def same(a, b):
        return len(a) == len(b) and all(np.abs(b - x).sum(axis=1).min() < 1e-9 for x in a)

    placed = points[pattern.sites] @ group.operators[t].T
    assert same(placed, points[sites])
    stabilises = [same(points[sites] @ g.T, points[sites]) for g in group.operators]
    assert sum(stabilises) == pattern.stabiliser.order == group.order // pattern.multiplicity
    own = [
        same(points[pattern.sites] @ g.T, points[pattern.sites])
        for g in pattern.stabiliser.operators
    ]
    assert all(own)
    # As many registers as subsets, and register r shows r⁻¹ S.
    registers = right_cosets(group, pattern.stabiliser).representatives
    assert len(registers) == pattern.multiplicity
    shown = {
        tuple(np.round(np.sort(points[pattern.sites] @ r, axis=0).ravel(), 6)) for r in registers
    }
    assert len(shown) == pattern.multiplicity


def test_c4():
    patterns = occupancy_patterns(point_group("C4"))
    told = [(p.name, p.digits, p.stabiliser.name, p.multiplicity) for p in patterns.patterns]
    assert told == [
        ("none", "0000", "C4", 1),
        ("one", "1000", "C1", 4),
        ("two adjacent", "1100", "C1", 4),
        ("two opposite", "1010", "C2", 2),
        ("three", "1110", "C1", 4),
        ("four", "1111", "C4", 1),
    ]
    assert patterns.n_partners.tolist() == [0, 1, 2, 2, 3, 4]


def test_names():
    six = occupancy_patterns(point_group("C6")).names
    assert six[:5] == ["none", "one", "two adjacent", "two 101000", "two opposite"]
    assert six[5:9] == ["three adjacent", "three 110100", "three 110010", "three 101010"]
    assert six[-2:] == ["five", "six"]
    assert occupancy_patterns(point_group("D2")).names[:3] == ["0000", "1000", "1100"]


def test_patterns_of_an_operator_list_in_any_order():
    operators = point_group("C4").operators[[0, 2, 1, 3]]
    patterns = occupancy_patterns(group_from_operators(operators, "custom"))
    told = {p.name: (p.digits, p.stabiliser.name) for p in patterns.patterns}
    assert told["two adjacent"] == ("1010", "C1")
    assert told["two opposite"] == ("1100", "C2")


@pytest.mark.parametrize("name", ["C4", "D2"])
def test_maps_are_sums_of_turned_partners(name, rng):
    """V_{tS} = t V_S, and the stabiliser leaves V_S as it is, on maps."""
    group = point_group(name)
    partner = np.zeros((12, 12, 12), np.float32)
    partner[3:9, 3:9, 3:9] = rng.standard_normal((6, 6, 6))
    copies = [rotate_map(partner, g) for g in group.operators]

    def map_of(sites):
        return np.sum([copies[g] for g in np.flatnonzero(sites)], axis=0, dtype=np.float32)

    patterns = occupancy_patterns(group)
    for digits in product([False, True], repeat=4):
        sites = np.array(digits)
        if not sites.any():
            continue
        number, t = patterns.find(sites)
        pattern = patterns.patterns[number]
        moved = rotate_map(map_of(pattern.sites), group.operators[t])
        np.testing.assert_allclose(moved, map_of(sites), atol=1e-5)
        for h in pattern.stabiliser.operators:
            np.testing.assert_allclose(
                rotate_map(map_of(pattern.sites), h), map_of(pattern.sites), atol=1e-5
            )


def test_binomial_law(rng):
    patterns = occupancy_patterns(point_group("D3"))
    for p in (0.0, 0.3, 1.0):
        assert patterns.binomial(p).sum() == pytest.approx(1.0)
    number, _ = patterns.find(rng.random((200_000, 6)) < 0.3)
    counts = np.bincount(number, minlength=len(patterns)).astype(float)
    expected = 200_000 * patterns.binomial(0.3)
    assert np.sum((counts - expected) ** 2 / expected) < len(patterns) + 30
    found = patterns.mean_occupancy(counts)
    assert found == pytest.approx(0.3, abs=0.002)
    # It is the most likely one.
    likelihood = [
        counts @ np.log(patterns.binomial(q)) for q in (found - 0.01, found, found + 0.01)
    ]
    assert np.argmax(likelihood) == 1


def test_refusals():
    with pytest.raises(ValueError, match=r"D7 has 14 operators.*at most 12"):
        occupancy_patterns(point_group("D7"))
    patterns = occupancy_patterns(point_group("C2"))
    with pytest.raises(ValueError, match="between 0 and 1"):
        patterns.binomial(1.5)
    with pytest.raises(ValueError, match="3 numbers"):
        patterns.mean_occupancy(np.zeros(3))


def test_any_orientation():
    turn = random_rotations(1, np.random.default_rng(3))[0]
    group = group_from_operators(turn @ point_group("D3").operators @ turn.T, "turned")
    assert len(occupancy_patterns(group)) == len(occupancy_patterns(point_group("D3")))
