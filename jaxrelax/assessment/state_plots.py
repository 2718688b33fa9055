"""Figures of the states of a classification; a state has one colour in all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxrelax.assessment.discs import PALE_TO_BLUE, binned, cells_for, colour_bar, new_disc, on_disc
from jaxrelax.assessment.figures import INK, MUTED, SERIES, new_figure, new_panel, style
from jaxrelax.assessment.plots import (
    NARROW,
    marked,
    outside_legend,
    resolution_ticks,
    threshold_line,
)
from jaxrelax.assessment.state_shares import (
    in_state,
    register_occupancy,
    state_shares,
)
from jaxrelax.assessment.views import directions, group_operators, mates, view_contrast
from jaxrelax.refinement.result import Result

WIDTH = 10.3
SHARE_COLUMN = "fraction_class"
# Of a state: name → (line style, line width).
STATE_CURVES = {"corrected": ("-", 2.0), "own": ("--", 1.3), "asymmetric": (":", 1.6)}


def state_colour(number: int) -> str:
    """Of a state counted from 0."""
    return SERIES[number % len(SERIES)]


def state_fsc_figure(result: Result, narrow: bool = False) -> Figure:
    """Of every state the corrected FSC, and that of what it has of its own."""
    figure = new_figure(*(NARROW if narrow else (WIDTH, 3.8)))
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
    resolution_ticks(axes, narrow)
    outside_legend(axes, narrow)
    return figure


def certainty_figures(result: Result) -> list[Figure]:
    """Of every state, how sure the images are that show it most probably."""
    chance, figures = 1.0 / len(result.states), []
    edges = np.linspace(chance, 1.0, 31).tolist()
    for number, share in enumerate(state_shares(result)):
        figure, axes = new_panel(
            _capital(share.title), "probability of the state", "particles", height=2.1
        )
        figures.append(figure)
        of_mine = result.state_posterior[in_state(result, number), number]
        axes.hist(np.clip(of_mine, chance, 1.0), bins=edges, color=state_colour(number))
        axes.set_xlim(chance, 1.0)
        if len(of_mine):
            marked(axes, share.mean_probability, f"mean {share.mean_probability:.2f}", INK, 0.9)
        else:
            axes.set_ylim(0.0, 1.0)
            _nothing(axes)
    return figures


def population_figure(result: Result, narrow: bool = False) -> Figure | None:
    """Share of every state over the iterations; None where the history has none."""
    rows = [
        (row.get("iteration", i + 1), row)
        for i, row in enumerate(result.history)
        if f"{SHARE_COLUMN}01" in row
    ]
    if not rows:
        return None
    figure = new_figure(*(NARROW if narrow else (WIDTH, 2.7)))
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
    outside_legend(axes, narrow)
    return figure


def occupancy_figures(result: Result) -> list[Figure]:
    """Occupancy of the registers of every relaxed state."""
    shares, columns, figures = state_shares(result), result.particles.extra_columns, []
    for number, one in enumerate(result.states):
        if one.registers == 1:
            continue
        occupancy = register_occupancy(result, number)
        figure, axes = new_panel(
            _capital(shares[number].title), "register", "share of its particles", height=2.1
        )
        figures.append(figure)
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
    return figures


def views_figures(result: Result) -> list[Figure]:
    """Viewing directions of every state: density on the sphere, that of even views being 1.

    Equal-area discs: the north pole (+z) is the centre, the south pole the rim. Directions are
    turned by all operators of the largest group, so that registers do not matter.
    """
    operators, contrasts = group_operators(result), view_contrast(result)
    seen = [directions(result, in_state(result, k)) for k in range(len(result.states))]
    fewest = min((len(d) for d in seen if len(d)), default=0) * len(operators)
    densities = []
    for each in seen:
        counts = binned(mates(each, operators), cells_for(fewest))
        densities.append(counts / max(counts.mean(), 1e-30))
    colour = Normalize(0.0, max(3.0, float(np.percentile(np.stack(densities), 99))))
    figures = []
    for share, density, contrast in zip(state_shares(result), densities, contrasts, strict=True):
        differs = f"\ndifference to the others {contrast:.2f}" if np.isfinite(contrast) else "\n"
        figure, axes = new_disc(_capital(share.title) + differs)
        on_disc(axes, density, PALE_TO_BLUE, colour)
        if not share.particles:
            _nothing(axes)
        colour_bar(figure, axes, PALE_TO_BLUE, colour, "density of views (even: 1)")
        figures.append(figure)
    return figures


def _nothing(axes: Any) -> None:
    axes.annotate(
        "no images", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=9,
        color=MUTED,
    )  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
