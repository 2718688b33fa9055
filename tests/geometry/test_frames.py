"""Frames of a part: what is seen where, and that the way back undoes the way in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import Frame, frame_along, point_group, random_rotations

coordinate = st.floats(-80.0, 80.0)
point = st.tuples(coordinate, coordinate, coordinate)
seed = st.integers(0, 2**16)


def drawn(number, n=5):
    rng = np.random.default_rng(number)
    stretch = np.eye(2) + 0.05 * rng.standard_normal((n, 2, 2))
    return random_rotations(n, rng), rng.uniform(-9, 9, (n, 2)), stretch


def any_frame(centre, number):
    return Frame(random_rotations(1, np.random.default_rng(number + 1))[0], np.array(centre))


def seen(rotations, origins, stretch, where):
    """Where images show a point: −o + Mᵀ (A r)."""
    flat = (rotations @ np.asarray(where))[:, :2]
    return -origins + np.einsum("nij,ni->nj", stretch, flat)


@given(point, point, seed)
def test_a_point_is_seen_where_its_place_in_the_frame_is(centre, where, number):
    rotations, origins, stretch = drawn(number)
    frame = any_frame(centre, number)
    turned, moved = frame.poses(rotations, origins, stretch)
    there = frame.axes @ (np.array(where) - frame.centre_angstrom)
    np.testing.assert_allclose(frame.point(np.array(where)), there)
    np.testing.assert_allclose(
        seen(turned, moved, stretch, there), seen(rotations, origins, stretch, where), atol=1e-9
    )


@given(point, seed)
def test_the_way_back(centre, number):
    rotations, origins, stretch = drawn(number)
    frame = any_frame(centre, number)
    for given_ in (stretch, None):
        back = frame.poses_of_map(*frame.poses(rotations, origins, given_), given_)
        np.testing.assert_allclose(back[0], rotations, atol=1e-12)
        np.testing.assert_allclose(back[1], origins, atol=1e-9)
    np.testing.assert_allclose(frame.point_of_map(frame.point(np.array(centre))), centre, atol=1e-9)


@given(point, point, seed)
def test_mates_move_with_their_images(centre, where, number):
    """The map turned about the frame's axis, seen at the mate's pose, is the map as it was."""
    rotations, origins, stretch = drawn(number)
    frame, group = any_frame(centre, number), point_group("C5")
    turned, shifts = frame.operators_of_map(group.operators)
    inside = frame.poses(rotations, origins, stretch)
    for g, r, t in zip(group.operators, turned, shifts, strict=True):
        mates = frame.poses_of_map(inside[0] @ g.T, inside[1], stretch)
        np.testing.assert_allclose(
            seen(*mates, stretch, r @ np.array(where) + t),
            seen(rotations, origins, stretch, where),
            atol=1e-8,
        )
        # The axis stays where it is.
        on_axis = frame.centre_angstrom + 7.0 * frame.axes[2]
        np.testing.assert_allclose(r @ on_axis + t, on_axis, atol=1e-9)


@given(point, point)
def test_z_of_the_frame_is_the_direction_by_the_smallest_turn(centre, direction):
    length = np.linalg.norm(direction)
    if length < 1e-3:
        return
    frame = frame_along(np.array(centre), np.array(direction))
    unit = np.array(direction) / length
    np.testing.assert_allclose(frame.axes @ unit, [0, 0, 1], atol=1e-7)
    angle = np.arccos(np.clip(0.5 * (np.trace(frame.axes) - 1), -1, 1))
    assert angle == pytest.approx(np.arccos(np.clip(unit[2], -1, 1)), abs=1e-5)


def test_along_z_nothing_is_turned():
    assert not frame_along(np.array([3.0, 4.0, 5.0])).is_turned
    assert frame_along(np.zeros(3), np.array([0.0, 0.0, -2.0])).is_turned


@pytest.mark.parametrize(
    ("centre", "direction"), [((0, 0, np.nan), (0, 0, 1)), ((0, 0, 0), (0, 0, 0))]
)
def test_no_centre_or_direction(centre, direction):
    with pytest.raises(ValueError, match="a frame has a centre"):
        frame_along(np.array(centre, float), np.array(direction, float))
