"""Pictures of differences show the right side, and tables the right place."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment import report_html
from jaxrelax.assessment.difference_plots import TILE_DPI, TILE_INCHES, sections
from jaxrelax.assessment.difference_section import MOST_ROWS, compared
from jaxrelax.assessment.positions import difference_sentence, positions, positions_csv
from jaxrelax.assessment.saving import summary
from jaxrelax.assessment.surfaces import (
    AMBIENT,
    LIGHT,
    Field,
    overlaid,
    painted,
    seen_along,
    surface,
    without_dust,
)
from jaxrelax.reconstruction import Region
from tests.assessment.conftest import PIXEL, N
from tests.assessment.test_report import Page

RADIUS = 13.3


def ball(n=41, centre=(0.0, 0.0, 0.0)):
    """A smooth function whose level 0 is a sphere, as it is on the grid of a picture."""
    axis = np.arange(n) - n // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    r = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    map_ = (RADIUS - r).astype(np.float32)
    return Field(map_, map_)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_rays_meet_a_sphere_where_it_is(axis):
    one = surface(ball(), 0.0, axis)
    offset = np.arange(41) - 20
    row, column = np.meshgrid(offset, offset, indexing="ij")
    inside = row**2 + column**2 < (RADIUS - 1.5) ** 2
    expected = np.sqrt(RADIUS**2 - row[inside] ** 2 - column[inside] ** 2)
    # The box has an odd edge: its centre is the centre also where an axis runs the other way.
    np.testing.assert_allclose(one.depth[inside], 20 - expected, atol=0.06)
    assert np.array_equal(one.hit, row**2 + column**2 < RADIUS**2) or (
        np.mean(one.hit == (row**2 + column**2 < RADIUS**2)) > 0.99
    )
    normal = np.stack([column[inside], -row[inside], expected]) / RADIUS
    light = LIGHT / np.linalg.norm(LIGHT)
    lit = AMBIENT + (1 - AMBIENT) * np.clip(light @ normal, 0, 1)
    np.testing.assert_allclose(one.shade[inside], lit, atol=0.02)


@pytest.mark.parametrize(
    ("axis", "right", "up"), [("x", "y", "z"), ("y", "x", "z"), ("z", "x", "y")]
)
def test_views_are_not_mirrored(axis, right, up):
    """The eye is at the positive end: right × up is towards it."""
    names, n = "xyz", 9
    map_ = np.zeros((n, n, n), np.float32)
    sign = {axis: 1, right: -1 if axis == "y" else 1, up: 1}
    place = {name: n // 2 + 3 * sign[name] for name in names}
    map_[place["z"], place["y"], place["x"]] = 1.0
    row, column, depth = np.argwhere(seen_along(map_, axis) == 1.0)[0]
    assert (row, column, depth) == (n // 2 - 3, n // 2 + 3, n // 2 - 3)
    vector = {name: np.eye(3)[i] for i, name in enumerate(names)}
    towards = np.cross(sign[right] * vector[right], vector[up])
    assert np.array_equal(towards, vector[axis])


def test_what_is_in_front_hides_what_is_behind():
    body, near, far = (surface(ball(centre=(0, 0, z)), 0.0, "z") for z in (0, 4, -4))
    grey, red = painted(body, "#808080", 41), painted(near, "#ff0000", 41)
    middle = (20, 20)
    before = overlaid((body, grey), [(near, red)], 0.4)
    assert np.array_equal(before[middle], red[middle])
    behind = overlaid((body, grey), [(far, painted(far, "#ff0000", 41))], 0.4)
    expected = 0.4 * grey[middle] + 0.6 * painted(far, "#ff0000", 41)[middle]
    np.testing.assert_allclose(behind[middle], expected)
    assert np.all(before[0, 0] == 1.0)


def test_specks_are_not_drawn():
    map_ = np.zeros((12, 12, 12), np.float32)
    map_[1, 1, 1], map_[5:9, 5:9, 5:9] = 2.0, 2.0
    clean = without_dust(map_, 1.0, 8)
    assert clean[1, 1, 1] < 1.0
    assert np.array_equal(clean >= 1.0, map_ * (np.indices(map_.shape)[0] > 2) >= 1.0)


def test_positions_are_where_chimerax_shows_them(result):
    rows = positions(result.in_sigma, PIXEL)
    assert len(rows) == len(result.in_sigma.regions)
    first = rows[0]
    # The partner of the made-up map: 5 voxels along x and z from the centre of the box.
    assert first["sign"] == 1
    assert abs(first["x_from_centre_angstrom"] - 5 * PIXEL) < PIXEL
    assert abs(first["y_from_centre_angstrom"]) < PIXEL
    assert abs(first["z_angstrom"] - (N // 2 + 5) * PIXEL) < PIXEL
    for row in rows:
        for mate in row["mates"]:
            assert row["number"] in rows[mate - 1]["mates"]
            assert rows[mate - 1]["site"] == row["site"]
    table = list(csv.DictReader(io.StringIO(positions_csv(result))))
    assert [int(row["number"]) for row in table] == [row["number"] for row in rows]
    assert float(table[0]["peak_sigma"]) == pytest.approx(first["peak_sigma"], abs=0.01)
    content = json.loads(json.dumps(summary(result)["difference"]))
    assert content["positions"] == rows
    assert content["threshold_sigma"] == result.in_sigma.threshold
    assert f"{len(rows)} region" in difference_sentence(result.in_sigma)


def test_states_have_their_own(states_result):
    table = list(csv.DictReader(io.StringIO(positions_csv(states_result))))
    assert {row["class"] for row in table} == {"1", "2", "3"}
    for number, state in enumerate(summary(states_result)["states"], start=1):
        mine = [row for row in table if row["class"] == str(number)]
        assert len(mine) == len(state["difference"]["positions"]) > 0
    # All four partners, beside the mean of all states; and none.
    signs = [one.in_sigma.regions[0].sign for one in states_result.states]
    assert signs[1:] == [1, -1]
    assert [one.title[:7] for one in compared(states_result)] == ["Class 1", "Class 2", "Class 3"]


def test_nothing_significant_is_said_so(result):
    nothing = replace(
        result.in_sigma,
        significant=np.zeros_like(result.in_sigma.significant),
        regions=(),
        threshold=np.inf,
        agrees=False,
    )
    quiet = replace(result, in_sigma=nothing)
    page = Page(report_html(quiet))
    assert "No part of the difference" in page.text
    assert "half-maps agree on none" in page.text
    assert "nm³" not in page.text
    content = json.loads(json.dumps(summary(quiet)["difference"]))
    assert (content["threshold_sigma"], content["positions"]) == (None, [])
    assert positions_csv(quiet).count("\n") == 1


def test_a_long_table_is_in_the_file(result):
    one = Region(1, 5.0, (0.0, 0.0, 0.0), (1.0, -2.0, 0.0), 64.0)
    many = replace(result.in_sigma, regions=(one,) * (MOST_ROWS + 3))
    page = Page(report_html(replace(result, in_sigma=many)))
    assert "3 more in difference_positions.csv" in page.text
    assert "1.0, −2.0, 0.0" in page.text


def test_sections_are_small_and_in_order(result):
    tiles = sections(result.map, result.in_sigma, PIXEL)
    heights = [float(tile.caption.split()[2].replace("−", "-")) for tile in tiles]
    assert heights == sorted(heights)
    assert len(tiles) == 12
    # Every pixel of them may take some bits.
    pixels = (TILE_INCHES * TILE_DPI) ** 2
    assert all(len(tile.image) < pixels for tile in tiles)
    assert len(report_html(result)) < 3e6
