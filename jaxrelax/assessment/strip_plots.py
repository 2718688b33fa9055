"""A strip of pictures: one plane of the map after every iteration."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import Normalize

from jaxrelax.assessment.difference_plots import Tile
from jaxrelax.assessment.figures import as_data_uri, new_figure
from jaxrelax.assessment.slices import (
    DIVERGING,
    FAINTEST_FULL_COLOUR,
    Plane,
    central_planes,
    largest_plane,
    window_of,
)
from jaxrelax.refinement.result import MapsOfIterations, Result

TILE_INCHES, TILE_DPI, GAP = 1.7, 130, 0.04
# Solvent at a boundary of the map is not to be cut.
MARGIN = 1.15


class StripOfTiles(NamedTuple):
    """What the page shows.

    Attributes:
        plane: which plane it is, in words.
        tiles: one for each iteration that is shown.
        relaxed: whether what breaks the symmetry stands below the map.
        of: iterations done since the run was started or resumed.
        resumed_after: iterations done before that.
    """

    plane: str
    tiles: list[Tile]
    relaxed: bool
    of: int
    resumed_after: int


def strip_of_tiles(result: Result) -> StripOfTiles | None:
    """Half-map 1 in the plane of the largest difference, or a central one; None if not kept."""
    maps = result.maps_of_iterations
    if maps is None:
        return None
    title, plane = central_planes(len(result.map))[1]
    title = f"centre, {title}"
    if maps.asymmetric is not None:
        title, plane = largest_plane(result.difference, result.mask, result.pixel_size_angstrom)
    offset = (plane.index - len(result.map) // 2) * result.pixel_size_angstrom
    symmetric = planes_of(result, maps, maps.symmetric, plane.axis, offset)
    asymmetric, whole = None, symmetric
    if maps.asymmetric is not None:
        asymmetric = planes_of(result, maps, maps.asymmetric, plane.axis, offset)
        whole = symmetric + asymmetric
    grey = Normalize(*np.percentile(whole, [0.5, 99.8]), clip=True)
    rows = [np.asarray(colormaps["gray"](grey(whole)))[..., :3] * 0.92 + 0.04]
    if asymmetric is not None:
        limit = max(
            float(np.percentile(np.abs(asymmetric), 99.5)),
            FAINTEST_FULL_COLOUR * float(np.percentile(np.abs(whole), 99.5)),
            1e-12,
        )
        rows.append(np.asarray(colormaps[DIVERGING](Normalize(-limit, limit)(asymmetric)))[..., :3])
    tiles = [
        Tile(f"iteration {iteration}", _tile([row[k] for row in rows]))
        for k, iteration in enumerate(maps.iterations)
    ]
    done = maps.iterations[-1] - maps.resumed_after
    return StripOfTiles(title, tiles, asymmetric is not None, done, maps.resumed_after)


def planes_of(
    result: Result, maps: MapsOfIterations, cubes, axis: int, offset_angstrom: float
) -> Float[np.ndarray, "iterations rows columns"]:
    """A plane of all maps, so far from the centre, as wide as the mask."""
    n = cubes.shape[1]
    pixel = maps.edge_angstrom / n
    at = float(np.clip(n // 2 + offset_angstrom / pixel, 0, n - 1))
    low = min(int(at), n - 2)
    lower, upper = (
        np.stack([Plane(axis, k).of(cube) for cube in cubes]).astype(np.float32)
        for k in (low, low + 1)
    )
    planes = (low + 1 - at) * lower + (at - low) * upper
    shown = window_of(result.mask)
    reach = MARGIN * 0.5 * (shown.stop - shown.start) * result.pixel_size_angstrom / pixel
    window = slice(max(int(n // 2 - reach), 0), min(int(np.ceil(n // 2 + reach)) + 1, n))
    return planes[:, window, window]


def _tile(rows: list[Float[np.ndarray, "rows columns 3"]]) -> str:
    """Pictures one above the other."""
    height = len(rows) * TILE_INCHES + (len(rows) - 1) * GAP
    figure = new_figure(TILE_INCHES, height, by_hand=True)
    for k, picture in enumerate(rows):
        bottom = height - (k + 1) * TILE_INCHES - k * GAP
        axes = figure.add_axes((0.0, bottom / height, 1.0, TILE_INCHES / height))
        axes.set_axis_off()
        axes.imshow(picture, origin="lower", interpolation="bicubic")
    return as_data_uri(figure, "jpeg", TILE_DPI)
