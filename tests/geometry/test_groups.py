"""Point groups: axioms for every name, orientations, and groups from matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import (
    NotAGroupError,
    PointGroup,
    UnknownGroupError,
    group_from_operators,
    is_axis_aligned_permutation,
    nearest_operator,
    parse_group,
    point_group,
    random_rotations,
    rotation_angle,
    rotvec_to_matrix,
)

POLYHEDRAL_ORDERS = {"T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60}
ORDERS = (
    {f"C{n}": n for n in range(1, 13)} | {f"D{n}": 2 * n for n in range(1, 13)} | POLYHEDRAL_ORDERS
)
PHI = (1 + np.sqrt(5)) / 2


def turn(fold, axis):
    return rotvec_to_matrix(2 * np.pi / fold * np.asarray(axis) / np.linalg.norm(axis))


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_group_axioms(name, order):
    group = point_group(name)
    g = group.operators
    assert group.order == order == len(g)
    assert g.dtype == np.float64
    np.testing.assert_array_equal(g[0], np.eye(3))
    np.testing.assert_allclose(g @ g.mT, np.broadcast_to(np.eye(3), g.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(g), 1.0, atol=1e-12)
    # Closure, with the table; every row and column of a group's table is a permutation.
    np.testing.assert_allclose(g[:, None] @ g[None], g[group.multiplication_table], atol=1e-12)
    elements = np.arange(order)
    for axis in (0, 1):
        rows = np.sort(group.multiplication_table, axis=axis)
        np.testing.assert_array_equal(
            rows, np.broadcast_to(np.expand_dims(elements, 1 - axis), rows.shape)
        )
    np.testing.assert_allclose(g[group.inverse], g.mT, atol=1e-12)
    np.testing.assert_array_equal(group.multiplication_table[elements, group.inverse], 0)
    # Lagrange: the order of an element divides that of the group.
    assert np.all(order % group.element_orders == 0)


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("C7", [(7, (0, 0, 1))]),
        ("D1", [(2, (1, 0, 0))]),
        ("D5", [(5, (0, 0, 1)), (2, (1, 0, 0))]),
        # The axes by which RELION defines these groups, to the digits that it gives.
        ("T", [(3, (0, 0, 1)), (2, (0, 0.816496, 0.577350))]),
        ("O", [(3, (0.5773502, 0.5773502, 0.5773502)), (4, (0, 0, 1))]),
        ("I", [(2, (0, 0, 1)), (5, (0.525731114, 0, 0.850650807)),
               (3, (0, 0.356822076, 0.934172364))]),
        ("I2", [(2, (0, 0, 1)), (5, (0.525731114, 0, 0.850650807)),
                (3, (0, 0.356822076, 0.934172364))]),
        ("I1", [(2, (1, 0, 0)), (5, (0.8506508070, 0, -0.5257311142)),
                (3, (0.9341723640, 0.3568220765, 0))]),
        ("I3", [(2, (-0.5257311143, 0, 0.8506508070)), (5, (0, 0, 1)),
                (3, (-0.4911234778, 0.3568220764, 0.7946544753))]),
        ("I4", [(2, (0.5257311143, 0, 0.8506508070)), (5, (0.8944271932, 0, 0.4472135909)),
                (3, (0.4911234778, 0.3568220764, 0.7946544753))]),
    ],
)  # fmt: skip
def test_orientations_are_relions(name, axes):
    group = point_group(name)
    for fold, axis in axes:
        assert group.element_orders[group.index_of(turn(fold, axis), tolerance=2e-6)] == fold


def test_icosahedral_settings_are_turns_of_each_other():
    i1, i2, i3, i4 = (point_group(f"I{k}") for k in (1, 2, 3, 4))
    for a, b, q in (
        (i2, i1, turn(4, (0, 1, 0))),
        (i3, i4, turn(2, (0, 0, 1))),
        (i2, i3, rotvec_to_matrix(np.array([0.0, -np.arctan(1 / PHI), 0.0]))),
    ):
        index, angle = nearest_operator(q @ a.operators @ q.T, b.operators)
        assert len(set(index.tolist())) == 60
        np.testing.assert_allclose(angle, 0.0, atol=1e-12)


def test_cyclic_operators_are_in_order_of_angle():
    group = point_group("C5")
    for k in range(5):
        expected = rotvec_to_matrix(np.array([0.0, 0.0, 2 * np.pi * k / 5]))
        np.testing.assert_allclose(group.operators[k], expected, atol=1e-15)


@pytest.mark.parametrize("name", ["C4", "D4", "O", "D2"])
def test_grid_rotations_are_exact(name):
    for g in point_group(name).operators:
        assert is_axis_aligned_permutation(g, tolerance=0.0)


def test_names_in_any_case_and_equality():
    assert point_group("d7") is point_group(" D07 ")
    assert point_group("i") == point_group("I")
    assert point_group("C3") != point_group("C4")
    assert hash(point_group("C3")) == hash(PointGroup("C3", point_group("C3").operators))
    assert PointGroup("C3", point_group("C3").operators) == point_group("C3")
    assert parse_group("c3") is point_group("C3")


@pytest.mark.parametrize("name", ["", "C", "C0", "D0", "C361", "C" + "9" * 5000, "X3", "C-4", "4"])
def test_unknown_names_say_what_is_accepted(name):
    with pytest.raises(UnknownGroupError, match=r"I1, I2, I3, I4"):
        point_group(name)


def test_mirror_groups_are_explained():
    with pytest.raises(UnknownGroupError, match="mirrors"):
        point_group("C4v")


@given(st.integers(1, 40), st.sampled_from("CD"))
def test_any_fold(n, kind):
    group = point_group(f"{kind}{n}")
    assert group.order == (n if kind == "C" else 2 * n)


def test_operators_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        point_group("C3").operators[0, 0, 0] = 2.0


def test_index_of():
    group = point_group("O")
    for i, g in enumerate(group.operators):
        assert group.index_of(g) == i
    tilted = rotvec_to_matrix(np.array([0.01, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"nearest operator \(index 0\) is 0\.573°"):
        group.index_of(tilted)
    assert group.index_of(tilted, tolerance=0.02) == 0


def test_nearest_operator(rng):
    group = point_group("I1")
    index = rng.integers(60, size=(7, 5))
    errors = rotvec_to_matrix(0.02 * rng.normal(size=(7, 5, 3)))
    found, angle = nearest_operator(errors @ group.operators[index], group.operators)
    np.testing.assert_array_equal(found, index)
    np.testing.assert_allclose(angle, rotation_angle(errors), atol=1e-12)


@pytest.mark.parametrize("name", ["C1", "C7", "D3", "T", "I3"])
def test_group_from_rounded_shuffled_rotated_operators(name, rng):
    group = point_group(name)
    q = random_rotations(1, rng)[0]
    matrices = np.round(q @ group.operators @ q.T, 5)[rng.permutation(group.order)]
    found = group_from_operators(matrices, name="mine")
    assert (found.name, found.order) == ("mine", group.order)
    index, angle = nearest_operator(found.operators, q @ group.operators @ q.T)
    assert len(set(index.tolist())) == group.order
    assert np.max(angle) < 2e-5
    g = found.operators
    np.testing.assert_allclose(g[:, None] @ g[None], g[found.multiplication_table], atol=1e-13)


def test_missing_operator_is_named_and_the_generated_order_said():
    operators = point_group("D3").operators
    with pytest.raises(NotAGroupError, match=r"product of row 1 .* and row 1 .* order 6"):
        group_from_operators(operators[[0, 1, 3]])
    with pytest.raises(NotAGroupError, match="identity is missing"):
        group_from_operators(operators[1:])
    with pytest.raises(NotAGroupError, match=r"row 2 .* repeats row 1"):
        group_from_operators(operators[[0, 1, 1, 2]])


def test_matrices_that_are_no_finite_group():
    with pytest.raises(NotAGroupError, match="more than 720"):
        group_from_operators(rotvec_to_matrix(np.array([[0.0, 0, 0], [0, 0, 1], [1, 0, 0]])))


def test_matrices_that_are_no_rotations():
    eye = np.eye(3)
    with pytest.raises(NotAGroupError, match=r"row 1 .*mirror"):
        group_from_operators(np.stack([eye, np.diag([1.0, 1.0, -1.0])]))
    with pytest.raises(NotAGroupError, match=r"row 1 .*not a rotation"):
        group_from_operators(np.stack([eye, 1.01 * eye]))
    with pytest.raises(NotAGroupError, match=r"row 0 .*not finite"):
        group_from_operators(np.full((1, 3, 3), np.nan))
    with pytest.raises(NotAGroupError, match="shape"):
        group_from_operators(np.zeros((0, 3, 3)))


def test_the_constructor_checks():
    operators = point_group("C4").operators
    with pytest.raises(NotAGroupError, match="identity"):
        PointGroup("C4", operators[1:])
    with pytest.raises(NotAGroupError, match="identity"):
        PointGroup("none", np.zeros((0, 3, 3)))
    with pytest.raises(NotAGroupError, match="not a group"):
        PointGroup("C4", operators[:2])
