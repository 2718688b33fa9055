"""HEALPix grids, neighbours and asymmetric units."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from jaxrelax.geometry import (
    asymmetric_unit,
    direction_neighbours,
    directions_in_tilt_range,
    healpix_directions,
    healpix_spacing_deg,
    point_group,
    poses_of_directions,
)


@pytest.mark.parametrize("group", ["C1", "C4", "D2"])
def test_directions_in_a_tilt_range_are_mates_of_all_that_have_one(group):
    group = point_group(group)
    everywhere = healpix_directions(2)
    unit = everywhere[asymmetric_unit(everywhere, group)]
    found = directions_in_tilt_range(unit, group, (70.0, 100.0))
    tilt = np.rad2deg(np.arccos(found[:, 2]))
    assert tilt.min() >= 70.0
    assert tilt.max() <= 100.0
    mates = np.einsum("gij,dj->dgi", group.operators, unit)
    tilts = np.rad2deg(np.arccos(np.clip(mates[..., 2], -1.0, 1.0)))
    having = ((tilts >= 70.0) & (tilts <= 100.0)).any(axis=1)
    assert len(found) == having.sum() > 0
    # Each is a mate of its own direction.
    cosines = np.einsum("dgi,di->dg", mates[having], found)
    assert np.allclose(cosines.max(axis=1), 1.0)
    assert np.array_equal(directions_in_tilt_range(unit, group, (0.0, 180.0)), unit)


@pytest.mark.parametrize("order", range(5))
def test_healpix_has_equal_areas_and_integrates_harmonics(order):
    directions = healpix_directions(order)
    assert len(directions) == 12 * 4**order
    assert np.allclose(np.linalg.norm(directions, axis=1), 1.0)
    assert np.allclose(directions.mean(axis=0), 0.0, atol=1e-12)
    # Second moments of the sphere are a third, to the rule's accuracy.
    assert np.allclose(directions.T @ directions / len(directions), np.eye(3) / 3, atol=0.04)
    nearest = KDTree(directions).query(directions, k=2)[0][:, 1]
    assert np.rad2deg(nearest.min()) > 0.6 * healpix_spacing_deg(order)


def test_healpix_order_1_has_the_published_latitudes_and_longitudes():
    directions = healpix_directions(1)
    z, counts = np.unique(np.round(directions[:, 2], 12), return_counts=True)
    expected = [-11 / 12, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 11 / 12]
    assert np.allclose(z, expected)
    assert counts.tolist() == [4, 8, 8, 8, 8, 8, 4]
    phi = np.rad2deg(np.arctan2(directions[:, 1], directions[:, 0])) % 360
    assert np.allclose(phi[:4], [45, 135, 225, 315])
    assert np.allclose(phi[4:12], 22.5 + 45 * np.arange(8))  # ring i = nside
    assert np.allclose(phi[12:20], 45 * np.arange(8))


def test_negative_orders_are_refused():
    with pytest.raises(ValueError, match="starts at 0"):
        healpix_directions(-1)


def test_neighbours_are_mutual_nearly_everywhere_and_near():
    directions = healpix_directions(3)
    neighbours = direction_neighbours(directions, healpix_spacing_deg(3))
    cosines = np.einsum("dnx,dx->dn", directions[neighbours], directions)
    assert np.rad2deg(np.arccos(cosines)).max() < 2.0 * healpix_spacing_deg(3)
    mutual = (neighbours[neighbours] == np.arange(len(directions))[:, None, None]).any(axis=2)
    assert mutual.mean() > 0.95


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "D7", "T", "O", "I"])
def test_the_asymmetric_unit_holds_one_of_every_orbit(name):
    group = point_group(name)
    directions = healpix_directions(4)
    unit = asymmetric_unit(directions, group)
    # Mates of the unit's directions cover the sphere to the spacing, and the unit is not larger
    # than its share and a border.
    covered = np.concatenate([directions[unit] @ g.T for g in group.operators])
    distance = KDTree(covered).query(directions)[0]
    assert np.rad2deg(distance.max()) < 1.01 * healpix_spacing_deg(4)
    assert unit.mean() <= 1.0 / group.order * (1 + 0.15 * np.sqrt(group.order))


def test_poses_look_along_their_directions():
    directions = healpix_directions(2)
    poses = poses_of_directions(directions)
    assert np.allclose(poses[:, 2], directions)
    assert np.allclose(poses @ poses.mT, np.eye(3))


def test_a_small_part_of_a_grid_has_no_far_neighbours():
    directions = healpix_directions(2)
    unit = directions[asymmetric_unit(directions, point_group("O"))]
    neighbours = direction_neighbours(unit, healpix_spacing_deg(2))
    cosines = np.einsum("dnx,dx->dn", unit[neighbours], unit)
    assert np.rad2deg(np.arccos(np.clip(cosines, -1, 1))).max() < 2.1 * healpix_spacing_deg(2)
    assert (neighbours == np.arange(len(unit))[:, None]).any()
