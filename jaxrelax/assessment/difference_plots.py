"""Pictures of a difference in σ: sections through it, and surfaces of what is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Float32
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxrelax.assessment.chimerax import LESS, MORE
from jaxrelax.assessment.figures import INK, MUTED, as_data_uri, new_figure, picture_uri
from jaxrelax.assessment.slices import DIVERGING, overlay, window_of
from jaxrelax.assessment.surfaces import (
    Field,
    on_picture_grid,
    overlaid,
    painted,
    surface,
    without_dust,
)
from jaxrelax.reconstruction import DifferenceInSigma

SECTIONS = 12
# Of a section that is shown, of the largest one: ends of the searched region hold nothing.
SMALLEST_AREA = 0.15
# Full colour, in σ: noise stays pale, and one strong partner does not fade all others.
FULL_COLOUR = (6.0, 12.0)
TILE_INCHES, TILE_DPI = 2.0, 150
BODY, PALE_BODY = "#b4bac3", "#d3d7dd"
# Of a colour that a body lies before.
VEIL = 0.4
MARGIN_PX = 6


class Tile(NamedTuple):
    """A picture of the page and what stands below it."""

    caption: str
    image: str


def full_colour(difference: DifferenceInSigma) -> float:
    """The difference, in σ, that has the strongest colour."""
    return float(np.clip(np.abs(difference.sigma).max(initial=0.0), *FULL_COLOUR))


def sections(
    map_: Float32[np.ndarray, "n n n"], difference: DifferenceInSigma, pixel_size_angstrom: float
) -> list[Tile]:
    """Sections across z, evenly spaced over where there is anything to see.

    The map in grey, the difference in colour; a line around what is significant, dotted around
    where was searched.
    """
    searched = difference.searched
    if not searched.any():
        return []
    areas = searched.sum(axis=(1, 2))
    found = difference.significant.any(axis=(1, 2))
    occupied = np.flatnonzero(found | (areas >= SMALLEST_AREA * areas.max()))
    n, count = len(map_), min(SECTIONS, len(occupied))
    edges = np.linspace(occupied[0], occupied[-1] + 1, count + 1)
    indices = (0.5 * (edges[1:] + edges[:-1])).astype(int)
    limit = full_colour(difference)
    window, colour = window_of(searched.astype(np.float32)), Normalize(-limit, limit)
    grey = Normalize(*np.percentile(map_[searched], [0.5, 99.8]))
    tiles = []
    for index in indices:
        plane = (int(index), window, window)
        picture = colormaps["gray"](grey(map_[plane]))[..., :3] * 0.92 + 0.04
        picture = overlay(picture, difference.sigma[plane], colour)
        figure = _section(picture, difference.significant[plane], searched[plane])
        offset = (index - n // 2) * pixel_size_angstrom
        place = f"{offset:+.0f}".replace("-", "−") if round(offset) else "0"
        tiles.append(Tile(f"z = {place} Å", as_data_uri(figure, "jpeg", TILE_DPI)))
    return tiles


def colour_bar(difference: DifferenceInSigma) -> str:
    """The scale of the colours, with the threshold on it."""
    figure, limit = new_figure(3.3, 0.52), full_colour(difference)
    colour = Normalize(-limit, limit)
    axes = figure.subplots()
    bar = figure.colorbar(ScalarMappable(colour, DIVERGING), cax=axes, orientation="horizontal")
    ticks = [-limit, 0.0, limit]
    if np.isfinite(difference.threshold) and difference.threshold < 0.9 * limit:
        ticks[1:1], ticks[-1:-1] = [-difference.threshold], [difference.threshold]
    labels = [f"{t:+.1f} σ".replace("-", "−") if t else "0" for t in ticks]
    bar.set_ticks(ticks, labels=labels)
    # Else half of them stands beyond the figure.
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.tick_params(labelsize=8, colors=MUTED)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return as_data_uri(figure, "png")


class Views:
    """Shaded views of maps that are compared, all cut, scaled and contoured alike.

    Args:
        difference: in σ; what is significant of it is red and blue.
        level: contour of all maps.
        pixel_size_angstrom: of all maps.
        maps: that are to be in the picture as a whole.
    """

    def __init__(
        self,
        difference: DifferenceInSigma,
        level: float,
        pixel_size_angstrom: float,
        maps: Sequence[Float32[np.ndarray, "n n n"]],
    ):
        self.difference, self.level = difference, level
        self.speck = (difference.resolution_angstrom / pixel_size_angstrom) ** 3
        solid = difference.significant.copy()
        for map_ in maps:
            solid |= without_dust(map_, level, self.speck) >= level
        self.window = window_of(solid.astype(np.float32))
        # Other voxels as strong as these are no part of it.
        near = scipy.ndimage.binary_dilation(difference.significant, iterations=2)
        self.sigma = on_picture_grid(self._cut(np.where(near, difference.sigma, np.float32(0.0))))

    def field(self, map_: Float32[np.ndarray, "n n n"]) -> Field:
        """A map to be drawn, without specks."""
        part = self._cut(map_)
        field = on_picture_grid(part)
        # Between voxels a peak may stand out that no voxel shows: so of the finer grid.
        finer = (len(field.map) / len(part)) ** 3
        return field._replace(map=without_dust(field.map, self.level, self.speck * finer))

    def plain(self, field: Field, axis: str) -> Float[np.ndarray, "rows columns 3"]:
        """A map in grey."""
        return painted(surface(field, self.level, axis), BODY, len(field.map))

    def coloured(self, field: Field, axis: str) -> Float[np.ndarray, "rows columns 3"]:
        """What is significant in red and blue, in and around a pale map."""
        body, depth = surface(field, self.level, axis), len(field.map)
        inner = []
        if self.difference.regions:
            for sign, colour in ((1, MORE), (-1, LESS)):
                signed = Field(*(sign * each for each in self.sigma))
                one = surface(signed, self.difference.threshold, axis)
                inner.append((one, painted(one, colour, depth)))
        return overlaid((body, painted(body, PALE_BODY, depth)), inner, VEIL)

    def _cut(self, map_: Float32[np.ndarray, "n n n"]) -> Float32[np.ndarray, "m m m"]:
        return map_[self.window, self.window, self.window]


def views_of_both(
    views: Views, symmetrised: Float32[np.ndarray, "n n n"], map_: Float32[np.ndarray, "n n n"]
) -> list[Tile]:
    """Along x, y and z: the symmetrised map, the relaxed one, and what differs."""
    before, after = views.field(symmetrised), views.field(map_)
    tiles = []
    for axis in "xyz":
        row = _trimmed(
            [views.plain(before, axis), views.plain(after, axis), views.coloured(before, axis)]
        )
        for name, picture in zip(("symmetrised", "relaxed", "difference"), row, strict=True):
            tiles.append(Tile(f"{name}, along {axis}", picture_uri(picture)))
    return tiles


def views_of_state(views: Views, map_: Float32[np.ndarray, "n n n"]) -> list[Tile]:
    """Along x, y and z: the map of a state, and what differs from the mean of all."""
    field = views.field(map_)
    return [
        Tile(f"along {axis}", picture_uri(_trimmed([views.coloured(field, axis)])[0]))
        for axis in "xyz"
    ]


def _trimmed(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Pictures without the white above and below all of them; all views stay at one scale."""
    drawn = np.any([np.any(picture < 1.0, axis=(1, 2)) for picture in pictures], axis=0)
    if not drawn.any():
        return pictures
    at = np.flatnonzero(drawn)
    rows = slice(max(at[0] - MARGIN_PX, 0), at[-1] + 1 + MARGIN_PX)
    return [picture[rows] for picture in pictures]


def _section(
    picture: Float[np.ndarray, "rows columns 3"],
    significant: Bool[np.ndarray, "rows columns"],
    searched: Bool[np.ndarray, "rows columns"],
) -> Figure:
    figure = new_figure(TILE_INCHES, TILE_INCHES, by_hand=True)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(picture, origin="lower", interpolation="bicubic")
    for where, colour, width, dashes in (
        (searched, "white", 0.7, "dotted"),
        (significant, INK, 1.1, "solid"),
    ):
        if where.any() and not where.all():
            axes.contour(where, [0.5], colors=colour, linewidths=width, linestyles=dashes)
    return figure
