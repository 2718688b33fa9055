"""Figures of the states of a classification; a state has one colour in all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxrelax.assessment.figures import BLUE, FAINT, INK, MUTED, SERIES, legend, new_figure, style
from jaxrelax.assessment.plots import marked, resolution_ticks, threshold_line
from jaxrelax.assessment.state_shares import (
    in_state,
    register_occupancy,
    state_shares,
)
from jaxrelax.assessment.views import directions, group_operators, mates, view_contrast
from jaxrelax.refinement.result import Result

WIDTH = 10.3
IN_A_ROW = 4
SHARE_COLUMN = "fraction_class"
# Of a state: name → (line style, line width).
STATE_CURVES = {"corrected": ("-", 2.0), "own": ("--", 1.3), "asymmetric": (":", 1.6)}
# Directions in a cell of the histogram, on average, and cells at most.
PER_CELL, FEWEST_CELLS, MOST_CELLS = 25, 27, 432
ROUNDNESS = 12  # parts in which a sector is drawn
FROSTED = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.8}
PALE_TO_BLUE = LinearSegmentedColormap.from_list("views", ["#f7f9fb", "#9ecae1", BLUE, "#08244a"])


def state_colour(number: int) -> str:
    """Of a state counted from 0."""
    return SERIES[number % len(SERIES)]


def state_fsc_figure(result: Result) -> Figure:
    """Of every state the corrected FSC, and that of what it has of its own."""
    figure = new_figure(WIDTH, 3.8)
    axes = style(figure.add_subplot(), "resolution (Å)", "Fourier shell correlation")
    lowest, said = 0.0, set()
    for number, (share, one) in enumerate(zip(state_shares(result), result.states, strict=True)):
        for name, (line, width) in STATE_CURVES.items():
            if (curve := one.fsc.get(name)) is None:
                continue
            frequency = np.arange(1, len(curve)) / result.shell_edge_angstrom
            axes.plot(
                frequency, curve[1:], line, color=state_colour(number), lw=width,
                label=share.title if name == "corrected" else None,
            )  # fmt: skip
            lowest = min(lowest, float(np.min(curve[1:])))
            said.add(name)
    for name in STATE_CURVES:
        if name in said and name != "corrected":
            line, width = STATE_CURVES[name]
            axes.plot([], [], line, color=MUTED, lw=width, label=f"{name} part")
    threshold_line(axes)
    axes.set_xlim(0.0, 0.5 / result.pixel_size_angstrom)
    axes.set_ylim(max(min(-0.08, 1.1 * lowest), -0.5), 1.05)
    resolution_ticks(axes)
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.3)
    return figure


def certainty_figure(result: Result) -> Figure:
    """Of every state, how sure the images are that show it most probably."""
    chance = 1.0 / len(result.states)
    figure, grid = _panels(result, 2.1)
    edges = np.linspace(chance, 1.0, 31)
    for number, (axes, share) in enumerate(zip(grid, state_shares(result), strict=True)):
        style(axes, "probability of the state", "particles", _capital(share.title))
        of_mine = result.state_posterior[in_state(result, number), number]
        axes.hist(np.clip(of_mine, chance, 1.0), bins=edges, color=state_colour(number))
        axes.set_xlim(chance, 1.0)
        if len(of_mine):
            marked(axes, share.mean_probability, f"mean {share.mean_probability:.2f}", INK, 0.9)
        else:
            axes.set_ylim(0.0, 1.0)
            _nothing(axes)
    return figure


def population_figure(result: Result) -> Figure | None:
    """Share of every state over the iterations; None where the history has none."""
    rows = [
        (row.get("iteration", i + 1), row)
        for i, row in enumerate(result.history)
        if f"{SHARE_COLUMN}01" in row
    ]
    if not rows:
        return None
    figure = new_figure(WIDTH, 2.7)
    axes = style(figure.add_subplot(), "iteration", "share of the particles")
    for number, share in enumerate(state_shares(result)):
        values = [row.get(f"{SHARE_COLUMN}{share.number:02d}", np.nan) for _, row in rows]
        axes.plot(
            [iteration for iteration, _ in rows], values, "-o", ms=3.0, lw=1.5,
            color=state_colour(number), label=share.title,
        )  # fmt: skip
    axes.set_ylim(0.0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.3)
    return figure


def occupancy_figure(result: Result) -> Figure | None:
    """Occupancy of the registers of every relaxed state; None without any."""
    relaxed = [k for k, one in enumerate(result.states) if one.registers > 1]
    if not relaxed:
        return None
    figure, grid = _panels(result, 2.1, len(relaxed))
    shares, columns = state_shares(result), result.particles.extra_columns
    for axes, number in zip(grid, relaxed, strict=True):
        occupancy = register_occupancy(result, number)
        style(axes, "register", "share of its particles", _capital(shares[number].title))
        numbers = np.arange(1, len(occupancy) + 1)
        axes.bar(numbers, occupancy, color=state_colour(number), width=0.72)
        axes.axhline(1.0 / len(occupancy), color=MUTED, lw=1.0, ls=(0, (4, 3)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(False, axis="x")
        mine = in_state(result, number)
        if "jrxRegisterProbability" in columns and mine.any():
            mean = float(np.mean(np.asarray(columns["jrxRegisterProbability"])[mine]))
            axes.set_ylim(0.0, 1.25 * max(occupancy.max(), 1.0 / len(occupancy)))
            axes.annotate(
                f"mean largest probability {mean:.2f}", (0.02, 0.96), xycoords="axes fraction",
                fontsize=8, color=INK, va="top",
            )  # fmt: skip
    return figure


def views_figure(result: Result) -> Figure:
    """Viewing directions of every state: density on the sphere, that of even views being 1.

    Equal-area discs: the north pole (+z) is the centre, the south pole the rim. Directions are
    turned by all operators of the largest group, so that registers do not matter.
    """
    operators, contrasts = group_operators(result), view_contrast(result)
    seen = [directions(result, in_state(result, k)) for k in range(len(result.states))]
    fewest = min((len(d) for d in seen if len(d)), default=0) * len(operators)
    cells = int(np.clip(fewest / PER_CELL, FEWEST_CELLS, MOST_CELLS))
    rings = round(np.sqrt(cells / 3.0))
    azimuths = np.linspace(-np.pi, np.pi, 3 * rings + 1)
    # Equal areas of the sphere, and of the disc.
    cosines = np.linspace(1.0, -1.0, rings + 1)
    densities = []
    for each in seen:
        x, y, z = mates(each, operators).T
        counts, _, _ = np.histogram2d(
            np.arctan2(y, x), -np.clip(z, -1.0, 1.0), bins=(azimuths, -cosines)
        )
        densities.append(counts / max(counts.mean(), 1e-30))
    colour = Normalize(0.0, max(3.0, float(np.percentile(np.stack(densities), 99))))
    figure, grid = _panels(result, 2.75, projection="polar")
    for axes, share, density, contrast in zip(
        grid, state_shares(result), densities, contrasts, strict=True
    ):
        axes.grid(False)
        radii = np.sqrt(0.5 * (1.0 - cosines))
        # Chords of the sectors: short ones look round.
        edges = np.linspace(-np.pi, np.pi, 3 * rings * ROUNDNESS + 1)
        fine = np.repeat(density, ROUNDNESS, axis=0).T
        axes.pcolormesh(edges, radii, fine, cmap=PALE_TO_BLUE, norm=colour)
        axes.set_yticks(np.sin(np.deg2rad([45.0, 67.5])), ["tilt 90°", "135°"])
        axes.set_rlabel_position(-90)
        axes.set_xticks(np.deg2rad([0, 90, 180, 270]), ["x", "y", "", ""])
        axes.tick_params(colors=MUTED, labelsize=7.5, pad=-1)
        for label in axes.get_yticklabels():
            label.set(color=INK, ha="center", bbox=FROSTED)
        axes.grid(True, color="#cbd2d9", linewidth=0.5)
        axes.spines["polar"].set_color(FAINT)
        differs = f"\ndifference to the others {contrast:.2f}" if np.isfinite(contrast) else "\n"
        axes.set_title(_capital(share.title) + differs, fontsize=9, color=INK)
        if not share.particles:
            _nothing(axes)
    bar = figure.colorbar(
        ScalarMappable(colour, PALE_TO_BLUE), ax=grid, shrink=0.75, aspect=14, pad=0.02
    )
    bar.set_label("density of views (even: 1)", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7.5, colors=MUTED)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _panels(
    result: Result, height: float, number: int | None = None, **subplot: Any
) -> tuple[Figure, list[Any]]:
    """A figure with one panel per state (or so many), a few in a row; all others are blank."""
    number = len(result.states) if number is None else number
    columns = min(IN_A_ROW, number)
    rows = -(-number // columns)
    # Few panels are as wide as many, not as wide as the page.
    width = WIDTH * max(columns, 3) / max(IN_A_ROW, columns) if columns < 3 else WIDTH
    figure = new_figure(width, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, subplot_kw=subplot).ravel().tolist()
    for axes in grid[number:]:
        axes.set_visible(False)
    return figure, grid[:number]


def _nothing(axes: Any) -> None:
    axes.annotate(
        "no images", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=9,
        color=MUTED,
    )  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
