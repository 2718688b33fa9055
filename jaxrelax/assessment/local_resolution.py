"""Local resolution of a map or of every state in numbers, words and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxrelax.assessment.chimerax import local_resolution_of_density
from jaxrelax.assessment.figures import BLUE, INK, MUTED, ORANGE, legend, new_panel
from jaxrelax.assessment.slices import (
    central_planes,
    colour_scale,
    framed,
    largest_plane,
    middle_of_part,
    window_of,
)
from jaxrelax.assessment.state_plots import state_colour
from jaxrelax.reconstruction import DifferenceInSigma, first_below
from jaxrelax.reconstruction.local_resolution import THRESHOLD
from jaxrelax.refinement.result import Result, StateMap

COLOURS = "viridis"
# Of the median, on both sides: an even map is to look even.
LEAST_RANGE = 0.15
# Of a colour where there is no density: solvent in the mask is not to outshine the map.
DARKEST = 0.3


class LocalResolution(NamedTuple):
    """Quantiles over the density above the contour level of ``view.cxc``, in Å.

    The mask is generous: most of its volume is solvent, in which nothing is resolved well.

    Attributes:
        median, quartiles, nine_tenths: of all of it.
        whole_map: where the masked FSC of the whole map falls below the same threshold.
        partner: median where there is significantly more density than in what the map is compared
            with: its symmetrised self, or the mean of all states; None where there is nothing.
    """

    median: float
    quartiles: tuple[float, float]
    nine_tenths: tuple[float, float]
    whole_map: float
    partner: float | None


def local_numbers(result: Result, of: Result | StateMap) -> LocalResolution | None:
    """Local resolution in numbers, of a result or one of its states; None where there is none."""
    inside = local_resolution_of_density(result, of)
    if not len(inside):
        return None
    q = [float(one) for one in np.percentile(inside, [5, 25, 50, 75, 95])]
    shell = _falls(of.fsc["masked"]) if "masked" in of.fsc else np.nan
    partner = _partner(of.in_sigma, of.local_resolution)
    return LocalResolution(
        q[2], (q[1], q[3]), (q[0], q[4]), result.shell_edge_angstrom / shell,
        None if partner is None else float(np.median(partner)),
    )  # fmt: skip


def local_summary(result: Result, of: Result | StateMap) -> dict[str, Any] | None:
    """What ``result.json`` says of it."""
    found = local_numbers(result, of)
    if found is None:
        return None
    return {
        "threshold": THRESHOLD,
        "median_angstrom": found.median,
        "quartiles_angstrom": list(found.quartiles),
        "5_and_95_percent_angstrom": list(found.nine_tenths),
        "whole_map_angstrom": found.whole_map,
        "additional_density_angstrom": found.partner,
    }


def local_sentence(result: Result, of: Result | StateMap) -> str | None:
    """The same in words."""
    found = local_numbers(result, of)
    if found is None:
        return None
    words = (
        f"Median {found.median:.1f} Å; half of the density is between {_range(found.quartiles)}, "
        f"nine tenths between {_range(found.nine_tenths)}."
    )
    if np.isfinite(found.whole_map):
        words += (
            f" As a whole the half-maps correlate by {THRESHOLD:g} inside the mask up to "
            f"{found.whole_map:.1f} Å."
        )
    if found.partner is not None:
        against = "the mean of all states" if isinstance(of, StateMap) else "its symmetrised self"
        words += (
            f" Where the map has significantly more density than {against}, the median is "
            f"{found.partner:.1f} Å."
        )
    return words


class LocalSection(NamedTuple):
    """What the page shows.

    Attributes:
        sentences: title (empty where there is one map) and words.
        histogram: of the density.
        slices: coloured planes.
        scale: of the colours.
        partner: whether the histogram shows additional density.
    """

    sentences: list[tuple[str, str]]
    histogram: list[Figure]
    slices: list[Figure]
    scale: Figure
    partner: bool


def local_section(result: Result) -> LocalSection | None:
    """Planes as of :func:`slices_of_map`, one of every state; None where nothing was computed."""
    maps = [("", result)] if not result.states else []
    maps += [(f"Class {i}, {one.name}", one) for i, one in enumerate(result.states, start=1)]
    shown = [(title, one) for title, one in maps if len(local_resolution_of_density(result, one))]
    if not shown:
        return None
    pixel = result.pixel_size_angstrom
    colour = local_colours(result, [one for _, one in shown])
    window = window_of(np.max([one.mask for _, one in shown], axis=0))
    planes = central_planes(len(result.map), middle_of_part(result))
    if result.in_sigma is not None and result.in_sigma.regions:
        planes.append(largest_plane(result.difference, result.mask, pixel))
    slices = [
        framed(title or name, plane, _tinted(plane, one, colour), window, pixel)
        for title, one in shown
        for name, plane in (planes[1:2] if title else planes)
    ]
    return LocalSection(
        [(title, str(local_sentence(result, one))) for title, one in shown],
        [_of_states(result, shown) if result.states else _of_map(result)],
        slices,
        colour_scale(colour, "local resolution (Å)", COLOURS),
        _partner(result.in_sigma, result.local_resolution) is not None,
    )


def local_colours(result: Result, maps: Sequence[Result | StateMap]) -> Normalize:
    """One scale for the local resolution of several maps."""
    values = np.concatenate([local_resolution_of_density(result, one) for one in maps])
    low, median, high = np.percentile(values, [2, 50, 98])
    least = LEAST_RANGE * median
    return Normalize(min(low, median - least), max(high, median + least))


def _tinted(plane, one: Result | StateMap, colour: Normalize) -> Float[np.ndarray, "y x 3"]:
    """A plane of the map in grey, coloured inside the mask."""
    assert one.local_resolution is not None
    density = one.map[one.mask > 0.5]
    grey = Normalize(*np.percentile(density, [0.5, 99.8]), clip=True)
    picture = np.asarray(colormaps["gray"](grey(plane.of(one.map))))[..., :3] * 0.92 + 0.04
    local = plane.of(one.local_resolution)
    coloured = np.asarray(colormaps[COLOURS](colour(local)))[..., :3]
    coloured = coloured * (DARKEST + (1.0 - DARKEST) * picture)
    return np.where((local > 0.0)[..., None], coloured, picture)


def _of_map(result: Result) -> Figure:
    """Histogram of one map, with what is odd in it by itself."""
    figure, axes = new_panel(
        "Local resolution of the density", "local resolution (Å)", "share of the density (%)"
    )
    inside = local_resolution_of_density(result, result)
    partner = _partner(result.in_sigma, result.local_resolution)
    everything = inside if partner is None else np.concatenate([inside, partner])
    edges = _edges(everything)
    _step(axes, inside, edges, BLUE, "all density", filled=True)
    if partner is not None:
        _step(axes, partner, edges, ORANGE, "additional density")
        axes.axvline(float(np.median(partner)), color=ORANGE, lw=1.1, ls=(0, (4, 3)))
    for value, width in zip(np.percentile(inside, [25, 50, 75]), (0.8, 1.3, 0.8), strict=True):
        axes.axvline(value, color=INK if width > 1 else MUTED, lw=width, ls=(0, (4, 3)))
    if partner is not None:
        legend(axes)
    return figure


def _of_states(result: Result, shown: Sequence[tuple[str, Any]]) -> Figure:
    """Histograms of all states in their colours."""
    figure, axes = new_panel(
        "Local resolution of the density", "local resolution (Å)", "share of the density (%)"
    )
    edges = _edges(np.concatenate([local_resolution_of_density(result, one) for _, one in shown]))
    for title, one in shown:
        number = int(title.split(",")[0].split()[1])
        values = local_resolution_of_density(result, one)
        _step(axes, values, edges, state_colour(number - 1), f"class {number}")
        axes.axvline(
            float(np.median(values)), color=state_colour(number - 1), lw=1.0, ls=(0, (4, 3))
        )
    legend(axes)
    return figure


def _step(axes, values, edges, colour: str, label: str, filled: bool = False) -> None:
    weights = np.full(len(values), 100.0 / len(values))
    axes.hist(
        np.clip(values, edges[0], edges[-1]), bins=edges.tolist(), weights=weights, color=colour,
        histtype="stepfilled" if filled else "step", alpha=0.75 if filled else 1.0, lw=1.6,
        label=label,
    )  # fmt: skip


def _edges(values: Float[np.ndarray, " voxels"]) -> Float[np.ndarray, " edges"]:
    """Bins of almost all values; the others are counted in the outermost ones."""
    low, high = np.percentile(values, [0.5, 99.5])
    return np.linspace(0.97 * low, max(1.03 * high, 1.2 * low), 37)


def _partner(
    difference: DifferenceInSigma | None, local: Float32[np.ndarray, "n n n"] | None
) -> Float32[np.ndarray, " voxels"] | None:
    """Local resolution where there is significantly more density."""
    if difference is None or local is None or not difference.regions:
        return None
    values = local[difference.significant & (difference.sigma > 0.0) & (local > 0.0)]
    return values if len(values) else None


def _falls(curve: Float[np.ndarray, " shells"]) -> float:
    """Shell, as a fraction, at which a curve first falls below the threshold."""
    shell = first_below(curve, THRESHOLD)
    if shell >= len(curve):
        return float(len(curve) - 1)
    before, now = float(curve[shell - 1]) if shell > 1 else 1.0, float(curve[shell])
    return shell - 1 + (before - THRESHOLD) / max(before - now, 1e-9)


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.1f} and {pair[1]:.1f} Å"
