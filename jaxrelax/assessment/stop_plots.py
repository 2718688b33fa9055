"""Where criteria would have stopped finished runs, against what they had reached."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrelax.assessment.figures import (
    FAINT,
    INK,
    MUTED,
    PANEL_WIDTH,
    SERIES,
    new_figure,
    style,
)
from jaxrelax.refinement import Stop, read_history

TRUE = ("true_state_accuracy", "true_register_accuracy")
MARKERS = "osD^v<>ph*"
IN_A_ROW = 3


class Reached(NamedTuple):
    """What a run had reached in every iteration.

    Attributes:
        name: of the run.
        values: the accuracy where the truth was given to it (``--truth``), else the mean largest
            posterior; NaN where there are neither.
        known: whether it is the accuracy.
    """

    name: str
    values: Float[np.ndarray, " iterations"]
    known: bool


def reached(folder: str | os.PathLike) -> Reached:
    """Of an output folder, from its ``history.csv``.

    Raises:
        InputError: there is none.
    """
    name, history = str(folder), read_history(folder)
    with (Path(folder) / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column in TRUE:
        if any(row.get(column) for row in rows):
            values = np.array([float(row.get(column) or "nan") for row in rows])
            return Reached(name, values, True)
    return Reached(name, np.array([info.mean_max_posterior for info in history]), False)


def stops_figure(
    runs: Sequence[Reached], names: Sequence[str], stops: Sequence[Sequence[Stop | None]]
) -> Figure:
    """A panel for every run: what it had reached, and where every criterion stops it.

    Args:
        runs: the runs.
        names: of the criteria.
        stops: of every run those of all criteria; None where it does not stop.
    """
    columns = min(IN_A_ROW, len(runs))
    rows = -(-len(runs) // columns)
    figure = new_figure(PANEL_WIDTH * max(columns, 2), 2.3 * rows + 0.3 + 0.2 * len(names))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, run, found in zip(grid, runs, stops, strict=False):
        label = "share that is right" if run.known else "mean largest posterior"
        style(axes, "iteration", label, Path(run.name).name)
        iterations = np.arange(1, len(run.values) + 1)
        axes.plot(iterations, run.values, color=MUTED, lw=1.4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for number, stop in enumerate(found):
            if stop is None:
                continue
            colour = SERIES[number % len(SERIES)]
            axes.axvline(stop.iteration, color=FAINT, lw=0.8, zorder=0)
            axes.plot(
                stop.iteration, run.values[stop.iteration - 1], MARKERS[number % len(MARKERS)],
                color=colour, ms=6, mec="white",
            )  # fmt: skip
    for axes in grid[len(runs) :]:
        axes.set_visible(False)
    handles = [
        grid[0].plot([], [], MARKERS[k % len(MARKERS)], color=SERIES[k % len(SERIES)])[0]
        for k in range(len(names))
    ]
    figure.legend(
        handles, names, loc="outside lower left", fontsize=8, frameon=False, labelcolor=INK
    )
    return figure
