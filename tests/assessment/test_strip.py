"""Maps of iterations: what is kept of a run, and what the page shows of it."""

import base64
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from jaxrelax.assessment import Strip, report_html
from jaxrelax.assessment.strip import BOX, MOST_KEPT, MOST_SHOWN
from jaxrelax.assessment.strip_plots import planes_of, strip_of_tiles
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction import IsotypicParts, soft_sphere
from tests.assessment.conftest import PIXEL, N
from tests.assessment.test_report import Page

EDGE = N * PIXEL


def problem(maps=1, relaxed=True):
    """As much of a problem as is looked at."""
    return SimpleNamespace(
        of_maps=[None] * maps,
        shells=SimpleNamespace(edge_angstrom=EDGE),
        particle=SimpleNamespace(relaxed=relaxed),
    )


def after(result, asymmetry):
    """A state whose half-map 1 has so much of the result's asymmetry, and half-map 2 none."""
    first = IsotypicParts(result.map_symmetrised, asymmetry * result.difference)
    second = IsotypicParts(result.map_symmetrised, 0.0 * result.difference)
    maps = SimpleNamespace(parts=lambda: [first, second])
    return SimpleNamespace(maps=maps)


def watched(result, iterations, start=0):
    strip = Strip()
    strip.on_start(problem(), SimpleNamespace(iterations_done=start))
    for k in range(start + 1, start + iterations + 1):
        strip.on_step(problem(), after(result, k / 10), SimpleNamespace(iteration=k))
    return strip


def html_of(result):
    """Without what takes long and is not looked at here."""
    return report_html(replace(result, in_sigma=None, local_resolution=None))


def pixels(tile):
    data = base64.b64decode(tile.image.split(",")[1])
    return imread(io.BytesIO(data), format="jpeg").astype(float)


@pytest.fixture(scope="module")
def seen(result):
    return watched(result, 5).added_to(result)


def test_half_map_1_is_kept_in_one_unit(result, seen):
    maps = seen.maps_of_iterations
    assert maps.iterations == (1, 2, 3, 4, 5)
    assert maps.symmetric.dtype == np.float16
    assert maps.symmetric.shape == (5, BOX, BOX, BOX)
    unit = np.sqrt(np.mean(result.map_symmetrised.astype(np.float64) ** 2))
    for k in range(5):
        expected = (k + 1) / 10 * resample_map(result.difference, BOX) / unit
        np.testing.assert_allclose(maps.asymmetric[k], expected, rtol=2e-3, atol=1e-4)
    assert maps.edge_angstrom == EDGE
    assert maps.resumed_after == 0


def test_a_long_run_keeps_and_shows_a_bounded_number(result):
    strip = Strip()
    for k in range(1, 131):
        strip.on_step(problem(), after(result, 0.1), SimpleNamespace(iteration=k))
        assert len(strip._kept) <= MOST_KEPT + 1
    shown = strip.added_to(result).maps_of_iterations.iterations
    assert len(shown) == MOST_SHOWN
    assert (shown[0], shown[-1]) == (1, 130)
    # Rounding moves a tile by one step of what was kept.
    assert np.ptp(np.diff(shown)) <= 8
    text = Page(html_of(strip.added_to(result))).text
    assert "12 of 130 iterations." in text


def test_tiles_show_the_asymmetry_appear(seen):
    strip = strip_of_tiles(seen)
    assert strip is not None
    assert [tile.caption for tile in strip.tiles] == [f"iteration {k}" for k in range(1, 6)]
    assert "largest difference" in strip.plane
    colour = []
    for tile in strip.tiles:
        picture = pixels(tile)
        upper, lower = np.split(picture[: len(picture) // 2 * 2], 2)
        # Above grey, below colour: red less blue.
        assert np.abs(np.diff(upper[20:-20], axis=2)).mean() < 3
        colour.append(np.abs(lower[..., 0] - lower[..., 2]).mean())
    assert np.all(np.diff(colour) >= 0)
    assert colour[-1] > 2 * colour[0]


def test_the_plane_is_where_the_partner_is(result, seen):
    strip = strip_of_tiles(seen)
    assert strip is not None
    picture = pixels(strip.tiles[-1])
    lower = picture[len(picture) // 2 :]
    red = lower[..., 0] - lower[..., 2]
    # It is at x = z = +5, y = 0, so to the right in planes of constant y or z.
    assert strip.plane.split(": ")[1][0] in "yz"
    assert np.unravel_index(red.argmax(), red.shape)[1] > 0.6 * red.shape[1]


def test_the_page_has_them_under_convergence(seen):
    html = html_of(seen)
    page = Page(html)
    assert page.open == []
    assert "The map after every iteration" in page.text
    assert "iteration 5" in page.text
    assert "resumed" not in page.text
    assert html.count('<div class="strip">') == 1


def test_after_a_resume_it_says_what_is_missing(result):
    resumed = watched(result, 3, start=4).added_to(result)
    assert resumed.maps_of_iterations.iterations == (5, 6, 7)
    text = Page(html_of(resumed)).text
    assert "nothing was kept of the 4 iterations before" in text
    assert "of 3 iterations" not in text


def test_without_relaxation_there_is_the_map_alone(result, plain_result):
    strip = Strip()
    parts = after(result, 1.0)
    strip.on_step(problem(relaxed=False), parts, SimpleNamespace(iteration=1))
    found = strip.added_to(plain_result)
    assert found.maps_of_iterations.asymmetric is None
    tiles = strip_of_tiles(found)
    assert tiles is not None
    assert tiles.plane == "centre, xz"
    assert not tiles.relaxed
    rows, columns, _ = pixels(tiles.tiles[0]).shape
    assert rows == columns
    assert "breaks the symmetry: red" not in Page(html_of(found)).text


def test_iterations_with_states_are_not_kept(result, states_result):
    strip = watched(result, 2)
    strip.on_step(problem(maps=3), after(result, 1.0), SimpleNamespace(iteration=3))
    assert strip.added_to(states_result) is states_result
    assert strip.added_to(result).maps_of_iterations.iterations == (1, 2)


def test_nothing_kept_is_nothing_shown(result):
    assert Strip().added_to(result) is result
    assert strip_of_tiles(result) is None
    assert "The map after every iteration" not in Page(html_of(result)).text


def test_planes_are_in_angstrom_whatever_the_box(result, seen):
    """The particle's box may be smaller than that of the images."""
    maps = seen.maps_of_iterations
    inner = slice(BOX // 2 - BOX // 4, BOX // 2 + BOX // 4)
    cubes = maps.symmetric[:, inner, inner, inner]
    smaller = replace(maps, symmetric=cubes, edge_angstrom=EDGE / 2)
    small_mask = replace(result, mask=soft_sphere(N, 0.5, 0.5))
    offset = 2.4 * EDGE / BOX
    for axis in range(3):
        whole = planes_of(small_mask, maps, maps.symmetric, axis, offset)
        part = planes_of(small_mask, smaller, cubes, axis, offset)
        np.testing.assert_allclose(whole, part, rtol=1e-6)
        assert whole.shape[1] < BOX // 2
        # Between the second and the third plane from the centre.
        second, third = (np.take(maps.symmetric, BOX // 2 + k, axis + 1) for k in (2, 3))
        between = 0.6 * second.astype(np.float32) + 0.4 * third.astype(np.float32)
        reach = BOX // 2 - whole.shape[1] // 2
        window = slice(reach, reach + whole.shape[1])
        np.testing.assert_allclose(whole, between[:, window, window], atol=1e-5)
