"""Cosets, mates, and the comparison of registers, by simulation of poses and of a volume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import (
    best_global_operator,
    point_group,
    pose_error_mod_group,
    random_rotations,
    register_agreement,
    register_mates,
    right_cosets,
    rotation_angle,
    rotvec_to_matrix,
    subgroup,
    subgroups,
)

PAIRS = [
    (g, h)
    for g in ("C1", "C4", "C6", "C12", "D3", "D4", "D7", "T", "O", "I1", "I3")
    for h in dict.fromkeys(name for name, _ in subgroups(point_group(g)))
]
SOME_PAIRS = [
    *[("C4", "C1"), ("C6", "C3"), ("D3", "C1"), ("D3", "C2"), ("D4", "C2"), ("D7", "C7")],
    *[("T", "C3"), ("T", "C1"), ("O", "D2"), ("O", "C4"), ("I1", "C5"), ("I1", "T")],
]


def group_pair(name, to):
    group = point_group(name)
    return group, subgroup(group, to)


@pytest.mark.parametrize(("name", "to"), PAIRS)
def test_right_cosets_partition_the_group(name, to):
    group, h = group_pair(name, to)
    representatives, table = right_cosets(group, h)
    n_registers = group.order // h.order
    assert representatives.shape == (n_registers, 3, 3)
    np.testing.assert_array_equal(representatives[0], np.eye(3))
    np.testing.assert_array_equal(np.bincount(table), np.full(n_registers, h.order))
    for j, r in enumerate(representatives):
        members = {group.index_of(g @ r) for g in h.operators}
        assert members == set(np.flatnonzero(table == j).tolist())


def test_cosets_of_something_else_are_refused():
    with pytest.raises(ValueError, match="not a subgroup"):
        right_cosets(point_group("C4"), point_group("C3"))


@pytest.mark.parametrize(("name", "to"), SOME_PAIRS)
def test_mates_are_exact(name, to, rng):
    group, h = group_pair(name, to)
    representatives, _ = right_cosets(group, h)
    poses = random_rotations(6, rng).reshape(2, 3, 3, 3)
    mates = register_mates(poses, representatives)
    assert mates.shape == (2, 3, len(representatives), 3, 3)
    for j, r in enumerate(representatives):
        np.testing.assert_array_equal(mates[:, :, j], poses @ r.T)
    np.testing.assert_array_equal(mates[:, :, 0], poses)


def atoms(group, rng):
    """An H-symmetric volume as points: the H-orbits of random points."""
    return (group.operators @ rng.normal(size=(5, 3)).T).transpose(0, 2, 1).reshape(-1, 3)


def view(pose, points):
    """The projection of points, as a set: sorted image coordinates."""
    xy = np.round((points @ pose.T)[:, :2], 6) + 0.0
    return xy[np.lexsort(xy.T)]


@pytest.mark.parametrize(("name", "to"), SOME_PAIRS)
def test_registers_are_the_different_views(name, to, rng):
    group, h = group_pair(name, to)
    points = atoms(h, rng)
    pose = random_rotations(1, rng)[0]
    representatives, table = right_cosets(group, h)
    mates = register_mates(pose, representatives)
    views = [view(mate, points) for mate in mates]
    for i, g in enumerate(group.operators):
        seen = view(pose @ g.T, points)
        for j, expected in enumerate(views):
            same = np.allclose(seen, expected, atol=1e-5)
            assert same == (table[i] == j)


def test_the_turned_volume_is_seen_at_the_mate(rng):
    group = point_group("T")
    points = rng.normal(size=(5, 3))
    pose = random_rotations(1, rng)[0]
    for g in group.operators:
        # (g V)(r) = V(g⁻¹ r) moves the atoms to g p; its view at A gᵀ is that of V at A.
        np.testing.assert_allclose(view(pose @ g.T, points @ g.T), view(pose, points), atol=1e-5)


@given(st.sampled_from(SOME_PAIRS), st.integers(0, 2**32 - 1))
def test_poses_of_a_turned_volume_agree_after_the_operator(pair, seed):
    rng = np.random.default_rng(seed)
    group, h = group_pair(*pair)
    n = 200
    true = random_rotations(n, rng)
    q = int(rng.integers(group.order))
    # The estimate is of q⁻¹ V: right poses are A q up to the symmetry of V, here with errors.
    symmetry = h.operators[rng.integers(h.order, size=n)]
    errors = rotvec_to_matrix(0.03 * rng.normal(size=(n, 3)))
    estimated = errors @ true @ symmetry @ group.operators[q]
    found = register_agreement(estimated, true, group, h)
    assert found.fraction == 1.0
    assert found.correct.all()
    table = right_cosets(group, h).coset_table
    assert table[found.index] == table[q]
    corrected = estimated @ group.operators[found.index].T
    # In the frame of the truth the estimate is the true pose up to H.
    np.testing.assert_allclose(
        pose_error_mod_group(corrected, true, h), rotation_angle(errors), atol=1e-10
    )


def test_wrong_registers_are_counted_one_by_one(rng):
    group, h = group_pair("O", "C4")
    representatives, _ = right_cosets(group, h)
    n = 300
    true = random_rotations(n, rng)
    register = np.where(np.arange(n) < 60, 1 + np.arange(n) % 5, 0)
    estimated = true @ representatives[register]
    found = register_agreement(estimated, true, group, h)
    assert found.index == 0
    assert found.fraction == pytest.approx(0.8)
    np.testing.assert_array_equal(found.correct, register == 0)
    # The poses themselves have no error but for the register.
    np.testing.assert_allclose(pose_error_mod_group(estimated, true, group), 0.0, atol=1e-10)
    assert np.all(pose_error_mod_group(estimated, true, h)[:60] > 0.1)


@pytest.mark.parametrize("name", ["C5", "D3", "D4", "T", "O", "I2"])
def test_global_operator_from_poses_of_a_turned_volume(name, rng):
    """The side on which the operator multiplies, found from poses and not from the formula."""
    group = point_group(name)
    n = 400
    consensus = random_rotations(n, rng)
    a = rng.integers(group.order, size=n)
    q = int(rng.integers(1, group.order))
    poses_a = consensus @ group.operators[a].mT
    poses_b = poses_a @ group.operators[q].T  # V_b = q V_a
    b = np.array([
        group.index_of(relative) for relative in np.swapaxes(consensus.mT @ poses_b, -1, -2)
    ])  # fmt: skip
    assert best_global_operator(a, b, group) == (q, 1.0)
    # The other direction is the inverse.
    assert best_global_operator(b, a, group) == (int(group.inverse[q]), 1.0)
    # Both comparisons agree: q is the operator that takes the estimate (a) to the truth (b).
    c1 = subgroup(group, "C1")
    assert register_agreement(poses_a, poses_b, group, c1).index == q
    b[:100] = group.multiplication_table[b[:100], 1]
    assert best_global_operator(a, b, group) == (q, 0.75)


@pytest.mark.parametrize(("name", "to"), SOME_PAIRS)
def test_global_operator_of_cosets(name, to, rng):
    group, h = group_pair(name, to)
    representatives, table = right_cosets(group, h)
    members = {group.index_of(x) for x in h.operators}
    normaliser = [
        q for q in range(group.order)
        if {group.index_of(group.operators[q] @ x @ group.operators[q].T) for x in h.operators}
        == members
    ]  # fmt: skip
    n = 300
    a = rng.integers(len(representatives), size=n)
    elements = np.array([group.index_of(r) for r in representatives])
    for q in normaliser[:: max(1, len(normaliser) // 4)]:
        b = table[group.multiplication_table[q, elements[a]]]
        found = best_global_operator(a, b, group, h)
        assert found.agreement == 1.0
        np.testing.assert_array_equal(
            table[group.multiplication_table[found.index, elements[a]]], b
        )


def test_random_registers_agree_at_about_chance(rng):
    group = point_group("D4")
    a, b = rng.integers(8, size=(2, 4000))
    assert 0.125 < best_global_operator(a, b, group).agreement < 0.15


def test_register_arguments_are_checked(rng):
    group = point_group("C4")
    one = random_rotations(1, rng)
    none = np.zeros((0, 3, 3))
    with pytest.raises(ValueError, match=r"registers_b\[1\] is 4; there are 4 registers"):
        best_global_operator(np.array([0, 1]), np.array([0, 4]), group)
    with pytest.raises(ValueError, match="at least one"):
        best_global_operator(np.zeros(0, dtype=int), np.zeros(0, dtype=int), group)
    with pytest.raises(ValueError, match="0 estimated"):
        register_agreement(none, none, group, point_group("C1"))
    assert pose_error_mod_group(one, one, group).shape == (1,)
