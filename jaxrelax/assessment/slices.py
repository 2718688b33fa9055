"""Slices of maps in grey, with what breaks the symmetry, or is a state's own, in colour."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxrelax.assessment.figures import INK, MUTED, new_figure
from jaxrelax.refinement.result import Result

DIVERGING = "RdBu_r"
# Of the map's own range: a difference below this share stays pale, so that noise looks like noise.
FAINTEST_FULL_COLOUR = 0.15
HIGHEST_OPACITY = 0.85
MARGIN_PX = 3


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


def slices_figure(result: Result) -> Figure:
    """The three central planes and the plane of largest difference, side by side."""
    n = result.map.shape[0]
    planes = [(f"centre, {name}", plane) for name, plane in _central(n)]
    relaxed = len(result.operators) > 1
    if relaxed:
        worst = plane_of_largest_difference(result.difference, result.mask)
        offset = (worst.index - n // 2) * result.pixel_size_angstrom
        planes.append((f"largest difference: {AXIS_NAMES[worst.axis]} = {offset:+.0f} Å", worst))
    window = window_of(result.mask)
    # Laid out by hand: panels and colour bar of one height.
    side, gap, left = 2.42, 0.1, 0.0
    width, height = len(planes) * (side + gap) + 0.75, side + 0.5
    figure = new_figure(width, height, by_hand=True)
    grid = [
        figure.add_axes(
            (left + i * (side + gap) / width, 0.27 / height, side / width, side / height)
        )
        for i in range(len(planes))
    ]
    inside = result.mask > 0.5
    density = result.map[inside] if inside.any() else result.map.ravel()
    grey = Normalize(*np.percentile(density, [0.5, 99.8]))
    colour = Normalize(-1.0, 1.0)
    if relaxed:
        limit = _colour_limit(result, inside)
        colour = Normalize(-limit, limit)
    for axes, (title, plane) in zip(grid, planes, strict=True):
        picture = colormaps["gray"](grey(plane.of(result.map)))[..., :3] * 0.92 + 0.04
        if relaxed:
            picture = overlay(picture, plane.of(result.difference), colour)
        axes.imshow(picture[window, window], origin="lower", interpolation="bicubic")
        _plain(axes, title, plane, n, result.pixel_size_angstrom, window)
    if relaxed:
        beside = len(planes) * (side + gap) / width
        place = figure.add_axes((beside, 0.27 / height, 0.11 / width, side / height))
        _colour_bar(figure, place, colour, "map − symmetrised map")
    return figure


def overlay(
    picture: Float[np.ndarray, "rows columns 3"],
    difference: Float[np.ndarray, "rows columns"],
    norm: Normalize,
) -> Float[np.ndarray, "rows columns 3"]:
    """A grey picture with the difference on top, the more opaque the larger it is."""
    scaled = np.asarray(norm(difference))
    opacity = HIGHEST_OPACITY * np.clip(np.abs(2.0 * scaled - 1.0), 0.0, 1.0)[..., None] ** 0.8
    return (1.0 - opacity) * picture + opacity * colormaps[DIVERGING](scaled)[..., :3]


def state_slices_figure(result: Result) -> Figure:
    """A row per state: central planes and the plane in which the states differ most.

    All on one grey scale, and coloured by the difference to the mean map of all states.
    """
    n, pixel = result.map.shape[0], result.pixel_size_angstrom
    mask = np.max([one.mask for one in result.states], axis=0)
    differences = [one.map - result.map for one in result.states]
    planes = [(f"centre, {name}", plane) for name, plane in _central(n)]
    power = np.sqrt(np.sum([d.astype(np.float64) ** 2 for d in differences], axis=0))
    worst = plane_of_largest_difference(power.astype(np.float32), mask)
    offset = (worst.index - n // 2) * pixel
    planes.append((f"largest difference: {AXIS_NAMES[worst.axis]} = {offset:+.0f} Å", worst))
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
    side, gap, left, below = 2.42, 0.1, 0.42, 0.27
    rows = len(result.states)
    width = left + len(planes) * (side + gap) + 0.75
    height = rows * (side + gap) + below + 0.23
    figure = new_figure(width, height, by_hand=True)
    for row, (one, difference) in enumerate(zip(result.states, differences, strict=True)):
        bottom = (below + (rows - 1 - row) * (side + gap)) / height
        figure.text(
            0.4 * left / width, bottom + 0.5 * side / height, f"class {row + 1}\n{one.name}",
            rotation=90, fontsize=9, color=INK, ha="center", va="center", linespacing=1.3,
        )  # fmt: skip
        for column, (title, plane) in enumerate(planes):
            place = (left + column * (side + gap)) / width
            axes = figure.add_axes((place, bottom, side / width, side / height))
            picture = colormaps["gray"](grey(plane.of(one.map)))[..., :3] * 0.92 + 0.04
            picture = overlay(picture, plane.of(difference), colour)
            axes.imshow(picture[window, window], origin="lower", interpolation="bicubic")
            _plain(axes, title if row == 0 else "", plane, n, pixel, window)
            if row < rows - 1:
                axes.set_xlabel("")
    beside = (left + len(planes) * (side + gap)) / width
    place = figure.add_axes((beside, below / height, 0.11 / width, side / height))
    _colour_bar(figure, place, colour, "map − mean of all states")
    return figure


def _colour_bar(figure: Figure, place: Axes, colour: Normalize, label: str) -> None:
    bar = figure.colorbar(ScalarMappable(colour, DIVERGING), cax=place)
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7.5, colors=MUTED)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _colour_limit(result: Result, inside) -> float:
    chosen = inside if inside.any() else np.ones_like(inside)
    difference = float(np.percentile(np.abs(result.difference[chosen]), 99.5))
    density = float(np.percentile(np.abs(result.map[chosen]), 99.5))
    return max(difference, FAINTEST_FULL_COLOUR * density, 1e-12)


def _central(n: int) -> list[tuple[str, Plane]]:
    middle = n // 2
    return [("xy", Plane(0, middle)), ("xz", Plane(1, middle)), ("yz", Plane(2, middle))]


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


def _plain(axes, title: str, plane: Plane, n: int, pixel: float, window: slice) -> None:
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
