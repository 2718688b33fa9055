"""Slices of maps in grey, with what breaks the symmetry, or is a state's own, in colour."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.ndimage import center_of_mass

from jaxrelax.assessment.figures import INK, MUTED, PANEL_WIDTH, new_figure
from jaxrelax.refinement.result import Result

DIVERGING = "RdBu_r"
# Of the map's own range: a difference below this share stays pale, so that noise looks like noise.
FAINTEST_FULL_COLOUR = 0.15
HIGHEST_OPACITY = 0.85
MARGIN_PX = 3
SIDE = 2.42  # of a panel, in inches


class Plane(NamedTuple):
    """A plane of the map: perpendicular to an array axis (0 = z, 1 = y, 2 = x) at an index."""

    axis: int
    index: int

    def of(self, array: Float[np.ndarray, "n n n"]) -> Float[np.ndarray, "rows columns"]:
        """The slice; rows and columns run along the two other axes, in array order."""
        return np.take(array, self.index, axis=self.axis)


AXIS_NAMES = "zyx"


def plane_of_largest_difference(
    difference: Float32[np.ndarray, "n n n"], mask: Float32[np.ndarray, "n n n"]
) -> Plane:
    """The plane with the largest power of the difference inside the mask."""
    power = (difference * mask).astype(np.float64) ** 2
    sums = [power.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    axis = int(np.argmax([s.max() for s in sums]))
    return Plane(axis, int(np.argmax(sums[axis])))


class Slices(NamedTuple):
    """Panels of one map, and what their colours mean.

    Attributes:
        title: of the map; empty where there is one alone.
        panels: a figure for every plane.
        scale: of the colours; None where nothing is coloured.
    """

    title: str
    panels: list[Figure]
    scale: Figure | None


def slices_of_map(result: Result) -> list[Slices]:
    """The three central planes (of a part its own) and the plane of largest difference."""
    n, pixel = result.map.shape[0], result.pixel_size_angstrom
    middle = middle_of_part(result)
    planes = [(f"centre, {name}", plane) for name, plane in central_planes(n, middle)]
    inside = result.mask > 0.5
    density = result.map[inside] if inside.any() else result.map.ravel()
    grey = Normalize(*np.percentile(density, [0.5, 99.8]))
    colour, scale = None, None
    if len(result.operators) > 1:
        planes.append(largest_plane(result.difference, result.mask, pixel))
        limit = _colour_limit(result, inside)
        colour = Normalize(-limit, limit)
        scale = colour_scale(colour, "map − symmetrised map")
    window = window_of(result.mask)
    panels = [
        _panel(title, plane, result.map, grey, result.difference, colour, window, pixel)
        for title, plane in planes
    ]
    return [Slices("", panels, scale)]


def overlay(
    picture: Float[np.ndarray, "rows columns 3"],
    difference: Float[np.ndarray, "rows columns"],
    norm: Normalize,
) -> Float[np.ndarray, "rows columns 3"]:
    """A grey picture with the difference on top, the more opaque the larger it is."""
    scaled = np.asarray(norm(difference))
    opacity = HIGHEST_OPACITY * np.clip(np.abs(2.0 * scaled - 1.0), 0.0, 1.0)[..., None] ** 0.8
    return (1.0 - opacity) * picture + opacity * colormaps[DIVERGING](scaled)[..., :3]


def slices_of_states(result: Result) -> list[Slices]:
    """Of every state central planes and the plane in which the states differ most.

    All on one grey scale, and coloured by the difference to the mean map of all states.
    """
    n, pixel = result.map.shape[0], result.pixel_size_angstrom
    mask = np.max([one.mask for one in result.states], axis=0)
    differences = [one.map - result.map for one in result.states]
    power = np.sqrt(np.sum([d.astype(np.float64) ** 2 for d in differences], axis=0))
    planes = [(f"centre, {name}", plane) for name, plane in central_planes(n)]
    planes.append(largest_plane(power.astype(np.float32), mask, pixel))
    window, inside = window_of(mask), mask > 0.5
    inside = inside if inside.any() else np.ones_like(inside)
    densities = np.concatenate([one.map[inside] for one in result.states])
    grey = Normalize(*np.percentile(densities, [0.5, 99.8]))
    limit = max(
        float(np.percentile(np.abs(np.concatenate([d[inside] for d in differences])), 99.5)),
        FAINTEST_FULL_COLOUR * float(np.percentile(np.abs(densities), 99.5)),
        1e-12,
    )
    colour = Normalize(-limit, limit)
    last = len(result.states) - 1
    return [
        Slices(
            f"Class {number + 1}, {one.name}",
            [
                _panel(title, plane, one.map, grey, difference, colour, window, pixel)
                for title, plane in planes
            ],
            colour_scale(colour, "map − mean of all states") if number == last else None,
        )
        for number, (one, difference) in enumerate(zip(result.states, differences, strict=True))
    ]


def largest_plane(difference, mask, pixel: float) -> tuple[str, Plane]:
    """Name and plane of the largest difference inside the mask."""
    worst = plane_of_largest_difference(difference, mask)
    offset = (worst.index - difference.shape[0] // 2) * pixel
    return f"largest difference: {AXIS_NAMES[worst.axis]} = {offset:+.0f} Å", worst


def _panel(
    title: str, plane: Plane, map_, grey: Normalize, difference, colour: Normalize | None,
    window: slice, pixel: float,
) -> Figure:  # fmt: skip
    """A plane of a map in grey, with the difference on top."""
    picture = colormaps["gray"](grey(plane.of(map_)))[..., :3] * 0.92 + 0.04
    if colour is not None:
        picture = overlay(picture, plane.of(difference), colour)
    return framed(title, plane, picture, window, pixel)


def framed(
    title: str,
    plane: Plane,
    picture: Float[np.ndarray, "rows columns 3"],
    window: slice,
    pixel_size_angstrom: float,
) -> Figure:
    """A picture of a plane as a panel: its title, its axes and a bar of length."""
    figure = new_figure(SIDE, SIDE + 0.45, by_hand=True)
    figure.set_label(title)
    height = SIDE + 0.45
    axes = figure.add_axes((0.0, 0.23 / height, 1.0, SIDE / height))
    axes.imshow(picture[window, window], origin="lower", interpolation="bicubic")
    _plain(axes, title, plane, pixel_size_angstrom, window)
    return figure


def colour_scale(colour: Normalize, label: str, colours: str = DIVERGING) -> Figure:
    """What the colours mean, as a bar to lie below the panels."""
    figure = new_figure(PANEL_WIDTH, 0.55, by_hand=True)
    figure.set_label(f"colours: {label}")
    place = figure.add_axes((0.06, 0.72, 0.88, 0.2))
    bar = figure.colorbar(ScalarMappable(colour, colours), cax=place, orientation="horizontal")
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7.5, colors=MUTED)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _colour_limit(result: Result, inside) -> float:
    chosen = inside if inside.any() else np.ones_like(inside)
    difference = float(np.percentile(np.abs(result.difference[chosen]), 99.5))
    density = float(np.percentile(np.abs(result.map[chosen]), 99.5))
    return max(difference, FAINTEST_FULL_COLOUR * density, 1e-12)


def central_planes(n: int, middle: tuple[int, int, int] | None = None) -> list[tuple[str, Plane]]:
    """The central planes by name: "xy", "xz", "yz".

    Args:
        n: box of the map.
        middle: voxel (z, y, x) that they go through; by default the centre of the box.
    """
    z, y, x = (n // 2,) * 3 if middle is None else middle
    return [("xy", Plane(0, z)), ("xz", Plane(1, y)), ("yz", Plane(2, x))]


def middle_of_part(result: Result) -> tuple[int, int, int] | None:
    """The voxel (z, y, x) in the middle of the part that was refined; None where all was."""
    if result.part is None:
        return None
    z, y, x = np.rint(np.asarray(center_of_mass(result.mask))).astype(int).tolist()
    return z, y, x


def window_of(mask: Float32[np.ndarray, "n n n"]) -> slice:
    """The cube around the centre that holds the mask, with a margin."""
    n = mask.shape[0]
    occupied = np.flatnonzero(
        (mask > 0.05).any(axis=(1, 2)) | (mask > 0.05).any(axis=(0, 2)) | (mask > 0.05).any((0, 1))
    )
    if not len(occupied):
        return slice(0, n)
    reach = int(max(n // 2 - occupied[0], occupied[-1] - n // 2)) + MARGIN_PX
    return slice(max(n // 2 - reach, 0), min(n // 2 + reach + 1, n))


def _plain(axes, title: str, plane: Plane, pixel: float, window: slice) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    horizontal, vertical = [name for a, name in enumerate(AXIS_NAMES) if a != plane.axis][::-1]
    axes.set_xlabel(f"{horizontal} →, {vertical} ↑", fontsize=8, color=MUTED, labelpad=2)
    shown = window.stop - window.start
    length = _round_length(0.25 * shown * pixel)
    end = 0.95 * shown
    axes.plot([end - length / pixel, end], [0.05 * shown] * 2, color="white", lw=2.2)
    axes.text(
        end - 0.5 * length / pixel, 0.07 * shown, f"{length:g} Å", color="white", fontsize=7.5,
        ha="center", va="bottom",
    )  # fmt: skip


def _round_length(angstrom: float) -> float:
    """1, 2 or 5 times a power of ten, at most the length given."""
    power = 10.0 ** np.floor(np.log10(angstrom))
    return float(max(m for m in (1, 2, 5) if m * power <= angstrom * (1 + 1e-9)) * power)
