"""Subgroups: existence, orientation, determinism, and the list up to conjugacy."""

import numpy as np
import pytest

from jaxrelax.geometry import (
    UnknownGroupError,
    common_subgroup,
    conjugate_subgroups,
    group_from_operators,
    is_axis_aligned_permutation,
    point_group,
    random_rotations,
    subgroup,
    subgroup_indices,
    subgroups,
)

NAMES = [f"{kind}{n}" for kind in "CD" for n in range(1, 13)] + ["T", "O", "I1", "I2", "I3", "I4"]


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_subgroup_is_one(name):
    group = point_group(name)
    for sub_name, h in subgroups(group):
        assert h.name == sub_name
        assert group.order % h.order == 0  # Lagrange
        assert h.order == point_group(sub_name).order
        np.testing.assert_array_equal(h.operators, group.operators[subgroup_indices(group, h)])
        # The name asked for gives a subgroup of the same type.
        np.testing.assert_array_equal(
            np.sort(subgroup(group, sub_name).element_orders), np.sort(h.element_orders)
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("C1", "C1"),
        ("C12", "C1 C2 C3 C4 C6 C12"),
        ("D1", "C1 C2"),
        ("D2", "C1 C2 C2 C2 D2"),
        ("D3", "C1 C2 C3 D3"),
        ("D4", "C1 C2 C2 C2 C4 D2 D2 D4"),
        ("D6", "C1 C2 C2 C2 C3 D2 C6 D3 D3 D6"),
        ("D7", "C1 C2 C7 D7"),
        ("T", "C1 C2 C3 D2 T"),
        ("O", "C1 C2 C2 C3 C4 D2 D2 D3 D4 T O"),
        ("I2", "C1 C2 C3 D2 C5 D3 D5 T I"),
    ],
)
def test_classes_of_subgroups(name, expected):
    # Counts known from the theory, e.g. the 9 classes of A5 and 11 of S4.
    assert sorted(n for n, _ in subgroups(point_group(name))) == sorted(expected.split())


def axis_of(group, index=1):
    r = group.operators[index]
    values, vectors = np.linalg.eigh(0.5 * (r + r.T))
    return vectors[:, np.argmax(values)]


@pytest.mark.parametrize(
    ("name", "to", "axis"),
    [
        ("D4", "C2", (0, 0, 1)),  # standard
        ("D7", "C2", (1, 0, 0)),  # no 2-fold on z: the one nearest x
        ("D3", "c2", (1, 0, 0)),
        ("O", "C4", (0, 0, 1)),
        ("O", "C3", (1, 1, 1)),  # four 3-folds equally near z: nearest +x, then +y
        ("T", "C3", (0, 0, 1)),
        ("I2", "C5", (1, 0, (1 + 5**0.5) / 2)),
        ("I3", "C5", (0, 0, 1)),
    ],
)
def test_the_preferred_axis(name, to, axis):
    found = axis_of(subgroup(point_group(name), to))
    assert abs(found @ axis) / np.linalg.norm(axis) == pytest.approx(1.0)


def test_dihedral_orientation():
    d2 = subgroup(point_group("O"), "D2")
    assert all(np.array_equal(g, np.diag(np.diag(g))) for g in d2.operators)
    d3 = subgroup(point_group("D6"), "D3")
    for g in point_group("D3").operators:
        d3.index_of(g, tolerance=1e-12)


@pytest.mark.parametrize("name", ["O", "I", "I1", "I2"])
def test_t_is_found_where_relions_orientation_is_not_contained(name):
    t = subgroup(point_group(name), "T")
    assert t.order == 12
    # 2-folds on x, y and z.
    assert all(is_axis_aligned_permutation(g) for g in t.operators)


def test_an_axis_picks_among_conjugates():
    group = point_group("I2")
    axis = np.array([0.0, -0.85065, 0.52573])
    picked = subgroup(group, "C5", axis=-3.0 * axis)
    assert abs(axis_of(picked) @ axis) == pytest.approx(1.0, abs=1e-5)
    d5 = subgroup(point_group("I3"), "D5", axis=(0, 0, 1))
    assert d5.order == 10
    with pytest.raises(ValueError, match=r"no C5 on the axis .*nearest first: \(.*0\.8507\)"):
        subgroup(group, "C5", axis=(0, 0, 1))
    with pytest.raises(ValueError, match="no meaning for C1"):
        subgroup(group, "C1", axis=(0, 0, 1))
    with pytest.raises(ValueError, match="not zero"):
        subgroup(group, "C2", axis=(0, 0, 0))
    with pytest.raises(ValueError, match="leave it out"):
        subgroup(group, point_group("C2"), axis=(0, 0, 1))


def test_five_tetrahedra_are_told_apart_by_a_two_fold():
    group = point_group("I3")
    found = set()
    for g, order in zip(group.operators, group.element_orders, strict=True):
        if order == 2:
            values, vectors = np.linalg.eigh(0.5 * (g + g.T))
            found.add(subgroup(group, "T", axis=vectors[:, np.argmax(values)]))
    assert len(found) == 5


def test_a_missing_subgroup_lists_those_there_are():
    with pytest.raises(ValueError, match=r"'C4' .* no subgroup D2\. .*: C1, C2, C4\."):
        subgroup(point_group("C4"), "D2")
    with pytest.raises(ValueError, match="no subgroup I2"):  # a setting, not a type
        subgroup(point_group("I1"), "I2")
    assert subgroup(point_group("I1"), "I").order == 60
    with pytest.raises(UnknownGroupError):
        subgroup(point_group("C4"), "C0")


def test_a_group_as_subgroup():
    group = point_group("D4")
    for to in (group, point_group("C4"), point_group("C1")):
        h = subgroup(group, to)
        assert h.name == to.name
        assert h.order == to.order
    with pytest.raises(ValueError, match=r"'T' is not a subgroup of 'O': operator 1"):
        subgroup(point_group("O"), point_group("T"))


def test_groups_in_any_orientation(rng):
    q = random_rotations(1, rng)[0]
    group = group_from_operators(q @ point_group("O").operators @ q.T, name="turned")
    c4 = subgroup(group, "C4")
    assert c4.order == 4
    axis = q @ [0.0, 0.0, 1.0]
    assert abs(axis_of(subgroup(group, "C4", axis=axis)) @ axis) == pytest.approx(1.0)
    assert len(subgroups(group)) == 11


@pytest.mark.parametrize(
    ("name", "to", "number"),
    [
        *(("C4", "C2", 1), ("D4", "C4", 1), ("D7", "C2", 7), ("T", "C3", 4)),
        *(("O", "D4", 3), ("I", "T", 5), ("D3", "C1", 1)),
    ],
)
def test_conjugates(name, to, number):
    group = point_group(name)
    h = subgroup(group, to)
    found = conjugate_subgroups(group, h)
    members = {tuple(subgroup_indices(group, c)) for c in found}
    assert len(found) == len(members) == number
    assert tuple(np.sort(subgroup_indices(group, h))) in members
    for g in group.operators:
        turned = {group.index_of(g @ x @ g.T) for x in h.operators}
        assert tuple(sorted(turned)) in members


def test_conjugates_of_what_is_no_subgroup():
    with pytest.raises(ValueError, match="not a subgroup"):
        conjugate_subgroups(point_group("C4"), point_group("C3"))


def test_what_groups_have_in_common():
    c4, c2, d4, c3 = (point_group(name) for name in ("C4", "C2", "D4", "C3"))
    assert common_subgroup([c4, c4]).name == "C4"
    assert common_subgroup([d4, c2, c4]).name == "C2"
    assert common_subgroup([c4, c3]).order == 1
    tilted = subgroup(d4, "C2", axis=(1, 0, 0))
    assert common_subgroup([d4, tilted]).order == 2
    assert common_subgroup([c4, tilted]).order == 1
