"""How far views are spread around their axis."""

import numpy as np
import pytest

from jaxrelax.geometry import euler_to_matrix
from jaxrelax.refinement.poses import view_spread_deg


@pytest.mark.parametrize("spread_deg", [0.5, 2.0, 6.0])
def test_spread_around_any_axis_counts_opposite_views_as_one(spread_deg):
    rng = np.random.default_rng(0)
    n = 4000
    tilt = np.hypot(*rng.normal(scale=spread_deg / np.sqrt(2), size=(2, n)))
    tilt = np.where(rng.random(n) < 0.5, tilt, 180.0 - tilt)
    rot, psi = rng.uniform(-180, 180, (2, n))
    poses = np.asarray(euler_to_matrix(rot, tilt, psi), np.float64)
    anyhow = np.asarray(euler_to_matrix(17.0, 71.0, -40.0), np.float64)
    for turned in (poses, poses @ anyhow):
        assert view_spread_deg(turned) == pytest.approx(spread_deg, rel=0.05)


def test_in_plane_turns_are_no_views():
    poses = euler_to_matrix(np.full(50, 20.0), np.full(50, 64.0), np.linspace(0, 350, 50))
    assert view_spread_deg(np.asarray(poses, np.float64)) < 1e-3


def test_all_directions_alike():
    rng = np.random.default_rng(1)
    rot, psi = rng.uniform(-180, 180, (2, 5000))
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, 5000)))
    poses = np.asarray(euler_to_matrix(rot, tilt, psi), np.float64)
    assert view_spread_deg(poses) == pytest.approx(54.7, abs=1.0)
