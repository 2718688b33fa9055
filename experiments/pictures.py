"""Shaded surfaces of maps, with what is marked on them, as pictures of pages.

Pictures are drawn as wide as a telephone shows them, so that their words can be read there, at
twice the pixels; and written with few colours, which keeps pages small.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from jaxrelax.assessment.figures import new_figure
from jaxrelax.assessment.surfaces import (
    on_picture_grid,
    painted,
    seen_along,
    surface,
    without_dust,
)

# Inches, and pixels per inch: 390 CSS pixels are wide as a telephone.
WIDTH, DPI = 3.9, 200
# Of screens, and of surfaces, whose shades are many.
COLOURS, SHADES = 128, 256
LARGEST_BYTES = 120_000
WORDS = 8.5
# Pieces smaller than this part of the largest one are noise.
DUST = 0.05


class Painted(NamedTuple):
    """A map as one surface.

    Attributes:
        map: in real space.
        level: of the contour.
        colour: of the surface.
    """

    map: Float32[np.ndarray, "n n n"]
    level: float
    colour: str


def picture(height: float, layout: list[list[str]]) -> tuple[Figure, dict[str, Axes]]:
    """A figure of named panels without axes, row by row; its height is in parts of its width."""
    figure = new_figure(WIDTH, height * WIDTH)
    panels = figure.subplot_mosaic(layout)
    for axes in panels.values():
        axes.set_axis_off()
    return figure, panels


def draw(axes: Axes, maps: Sequence[Painted], pixel: float, axis: str, edge: float) -> None:
    """Surfaces of maps of one box, the nearest in front, seen from the positive end of an axis.

    Coordinates of the panel are those of the maps, in Å from the centre of the box: x or y to the
    right (seen along y, x to the left), z or y up; ±``edge`` is shown.
    """
    nearest = colours = None
    for one in maps:
        field = on_picture_grid(one.map)
        size = len(field.map)
        solid = field.map >= one.level
        field = field._replace(map=without_dust(field.map, one.level, DUST * solid.sum()))
        seen = surface(field, one.level, axis)
        paint = painted(seen, one.colour, size)
        if nearest is None or colours is None:
            nearest, colours = seen.depth, paint
        else:
            closer = seen.depth < nearest
            colours = np.where(closer[..., None], paint, colours)
            nearest = np.minimum(nearest, seen.depth)
        finer = pixel * len(one.map) / size
    assert colours is not None
    show(axes, colours, finer, axis, edge)


def show(axes: Axes, colours: np.ndarray, finer: float, axis: str, edge: float) -> None:
    """A square picture, where the panel's coordinates are Å from the centre of the box."""
    size = len(colours)
    low, high = (-(size // 2) - 0.5) * finer, (size - size // 2 - 0.5) * finer
    # The first column is that of the lowest coordinate; along y, of the highest x.
    sides = (high, low) if axis == "y" else (low, high)
    axes.imshow(colours, extent=(*sides, low, high), interpolation="bilinear")
    axes.set_xlim(edge if axis == "y" else -edge, -edge if axis == "y" else edge)
    axes.set_ylim(-edge, edge)


def outline(axes: Axes, mask: np.ndarray, pixel: float, axis: str, colour: str) -> None:
    """A dashed line around the shadow of a mask."""
    shadow = seen_along(mask, axis).max(axis=2)
    n = len(shadow)
    place = (np.arange(n) - n // 2) * pixel
    across = place[::-1] if axis == "y" else place
    axes.contour(
        across, place[::-1], shadow, [0.5], colors=colour, linewidths=1.2, linestyles="dashed"
    )


def label(axes: Axes, x: float, y: float, text: str, colour: str, **more) -> None:
    """Words on a picture, with a white edge that keeps them readable on a surface."""
    edge = [withStroke(linewidth=2.5, foreground="white")]
    more = {"ha": "center", "va": "center", "fontsize": WORDS, **more}
    axes.text(x, y, text, color=colour, path_effects=edge, **more)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a picture of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_few_colours(Image.open(buffer).convert("RGB"), path, SHADES)


def write_few_colours(image: Image.Image, path: Path, colours: int = COLOURS) -> None:
    """Write a PNG of few colours.

    Raises:
        SystemExit: it is too large for a page.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the most frequent colours, which would be greys alone.
    few = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {image.width} x {image.height}, {path.stat().st_size / 1000:.0f} kB")
    if path.stat().st_size > LARGEST_BYTES:
        raise SystemExit(f"{path}: larger than {LARGEST_BYTES / 1000:.0f} kB")
