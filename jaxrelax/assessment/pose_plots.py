"""Figures about poses: what they differ by and from what, and from where registers are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrelax.assessment.discs import (
    PALE_TO_BLUE,
    binned,
    cells_for,
    colour_bar,
    new_disc,
    on_disc,
)
from jaxrelax.assessment.figures import BLUE, GREEN, MUTED, ORANGE, legend, new_panel
from jaxrelax.assessment.state_shares import shown
from jaxrelax.refinement.result import Result

UNSURE_TO_SURE = LinearSegmentedColormap.from_list("sure", ["#d55e00", "#f3e3c3", "#0072b2"])
# Of every comparison: title, and (column, label, colour, line).
COMPARED = {
    "This iteration against the last": (
        ("rotation_change_deg", "median, without registers", BLUE, "-"),
        ("rotation_change_95_deg", "95 % of the particles", BLUE, ":"),
        ("full_rotation_change_deg", "mean, with registers", ORANGE, "-"),
    ),
    "Searched against relaxed pose": (
        ("relaxed_rotation_deg", "mean", ORANGE, "-"),
    ),
    "Start against this iteration": (
        ("start_rotation_deg", "median, modulo the group", BLUE, "-"),
        ("start_full_rotation_deg", "mean, with registers", ORANGE, "-"),
        ("true_pose_error_deg", "against the truth, modulo the group", GREEN, "-"),
    ),
}  # fmt: skip
WITH_REGISTERS = ("full_rotation_change_deg", "relaxed_rotation_deg", "start_full_rotation_deg")


def pose_figures(history: Sequence[dict[str, float]], relaxed: bool) -> list[Figure]:
    """A panel for every pair of poses that are compared; none where no pose ever moved.

    Args:
        history: rows of scalars per iteration.
        relaxed: whether there are registers.
    """
    figures = []
    for title, lines in COMPARED.items():
        drawn = [
            line
            for line in lines
            if (relaxed or line[0] not in WITH_REGISTERS)
            and any(row.get(line[0]) for row in history)
        ]
        if not drawn:
            continue
        figure, axes = new_panel(title, "iteration", "°", height=2.6)
        for name, label, colour, line in drawn:
            axes.plot(
                [row["iteration"] for row in history], [row.get(name, np.nan) for row in history],
                line, color=colour, lw=1.4, label=label,
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_ylim()[1] / max(axes.get_ylim()[0], 1e-3) > 30:
            axes.set_yscale("symlog", linthresh=1.0)
        axes.set_ylim(0.0, None)
        legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.22))
        figures.append(figure)
    return figures


def register_view_figures(result: Result) -> list[Figure]:
    """Viewing directions in the frame of the asymmetric map, and how sure registers are there."""
    some = shown(result)
    if not some.any():
        return []
    seen = np.asarray(result.poses[some, 2], np.float64)
    sure = np.asarray(result.registers[some].max(axis=1), np.float64)
    cells = cells_for(len(seen))
    counts, sums = binned(seen, cells), binned(seen, cells, sure)
    density = counts / counts.mean()
    chance = 1.0 / result.registers.shape[1]
    certainty = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    norm = Normalize(0.0, max(3.0, float(np.percentile(density, 99))))
    views, axes = new_disc("Views")
    on_disc(axes, density, PALE_TO_BLUE, norm)
    colour_bar(views, axes, PALE_TO_BLUE, norm, "density of views (even: 1)")
    colours = UNSURE_TO_SURE.with_extremes(bad=MUTED)
    surely, axes = new_disc("How sure registers are")
    on_disc(axes, certainty, colours, Normalize(chance, 1.0))
    colour_bar(surely, axes, colours, Normalize(chance, 1.0), "mean largest register probability")
    return [views, surely]
