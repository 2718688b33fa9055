"""Sites and their views against plain sums in float64."""

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from jaxrelax.geometry import (
    Aberrations,
    equivalent_sites,
    euler_to_matrix,
    point_group,
    view_sites,
)

GROUPS = ("C4", "D3", "T", "O", "I")
coordinate = st.floats(-80.0, 80.0)
angle = st.floats(-180.0, 180.0)


@given(
    name=st.sampled_from(GROUPS),
    position=st.tuples(coordinate, coordinate, coordinate),
    angles=st.tuples(angle, angle, angle),
    origin=st.tuples(coordinate, coordinate),
)
def test_every_site_is_seen_where_its_mate_is(name, position, angles, origin):
    group = point_group(name)
    try:
        sites = equivalent_sites(group, position)
    except ValueError:  # too near to an axis
        reject()
    assert np.linalg.norm(sites.position - position) <= 0.5
    assert len(sites.operators) * len(sites.stabiliser) == group.order
    pose = np.asarray(euler_to_matrix(*angles))
    views = view_sites(pose[None], np.array([origin]), group, sites)
    places = np.array([g.T @ sites.position for g in group.operators[sites.operators]])
    for i, g in enumerate(group.operators[sites.operators]):
        # In the frame of the map, the point p of the turned body; in that of the particle, gᵀ p.
        seen = pose @ places[i]
        np.testing.assert_allclose(views.rotations[0, i], pose @ g.T, atol=1e-12)
        np.testing.assert_allclose(views.places_angstrom[0, i], seen[:2] - origin, atol=1e-9)
        np.testing.assert_allclose(views.heights_angstrom[0, i], seen[2], atol=1e-9)
    # They are all of the mates, each once.
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + 1e3 * np.eye(len(places))
    assert apart.min() > 0.5
    for g in group.operators:
        assert np.linalg.norm(places - g.T @ sites.position, axis=1).min() < 1e-9


AXES = [
    ("C1", (1.0, 2.0, 3.0), 1),
    ("C4", (30.0, 0.0, 5.0), 4),
    ("C4", (0.0, 0.2, 5.0), 1),
    ("D3", (30.0, 20.0, 5.0), 6),
    ("D3", (30.0, 0.0, 0.0), 3),
    ("D3", (0.0, 0.0, 30.0), 2),
    ("D3", (0.0, 0.0, 0.0), 1),
    ("T", (0.0, 0.0, 30.0), 4),
    ("O", (0.0, 0.0, 40.0), 6),
    ("O", (40.0, 40.0, 0.0), 12),
    ("O", (23.1, 23.0, 23.0), 8),
    ("I1", (0.0, 0.0, 100.0), 30),
    ("I1", (60.0, 31.0, 87.0), 60),
]


@pytest.mark.parametrize(("name", "position", "count"), AXES)
def test_on_axes_there_are_fewer(name, position, count):
    group = point_group(name)
    sites = equivalent_sites(group, position)
    assert len(sites.operators) == count
    assert len(sites.stabiliser) == group.order // count
    assert sites.operators[0] == 0
    for kept in group.operators[sites.stabiliser]:
        np.testing.assert_allclose(kept @ sites.position, sites.position, atol=1e-9)


def test_icosahedral_vertices_are_twelve():
    golden = (1 + np.sqrt(5)) / 2
    vertex = 100.0 * np.array([[0, 1, golden], [1, golden, 0], [1, 0, golden], [golden, 1, 0]])
    counts = [len(equivalent_sites(point_group("I1"), one.round(1)).operators) for one in vertex]
    assert sorted(set(counts)) == [12, 60]


def test_what_is_neither_one_site_nor_several():
    with pytest.raises(ValueError, match=r"only 0\.\d+ Å apart.*on the axis \(0\.00 0\.00 9\.00\)"):
        equivalent_sites(point_group("C60"), (4.0, 0.0, 9.0))
    with pytest.raises(ValueError, match="finite"):
        equivalent_sites(point_group("C4"), (np.nan, 0.0, 0.0))


def test_magnification_stretches_places():
    """The image shows at k what the specimen has at M k: a point is one wave."""
    matrix = np.array([[1.03, 0.01], [0.02, 0.97]])
    group = point_group("C4")
    sites = equivalent_sites(group, (40.0, 10.0, 20.0))
    pose, origin = np.asarray(euler_to_matrix(10.0, 50.0, 70.0)), np.array([3.0, -2.0])
    stretched = Aberrations(magnification=tuple(matrix.ravel()))
    views = view_sites(pose[None], origin[None], group, sites, stretched)
    k = np.random.default_rng(0).uniform(-0.1, 0.1, (50, 2))
    for i, g in enumerate(group.operators):
        point = (pose @ g.T @ sites.position)[:2]
        wave = np.exp(-2j * np.pi * ((k @ matrix.T) @ point - k @ origin))
        found = np.exp(-2j * np.pi * k @ views.places_angstrom[0, i])
        np.testing.assert_allclose(found, wave, atol=1e-9)
