"""Curves and histograms of a result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from jaxrelax.assessment.figures import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PANEL_WIDTH,
    SERIES,
    SKY,
    legend,
    new_figure,
    new_panel,
    style,
)
from jaxrelax.assessment.findings import THRESHOLD
from jaxrelax.refinement.result import Result

# name → (label, colour, line width, line style)
FSC_CURVES = {
    "unmasked": ("unmasked", SKY, 1.2, "-"),
    "masked": ("masked", MUTED, 1.2, "-"),
    "random": ("phase-randomised", MUTED, 1.0, ":"),
    "corrected": ("corrected", INK, 2.2, "-"),
    "symmetric": ("symmetric part", GREEN, 1.4, "--"),
    "asymmetric": ("asymmetric part", ORANGE, 2.0, "-"),
}
NARROW = (PANEL_WIDTH, 3.9)  # of a figure that is wide elsewhere, with its legend below it
# column → (title, unit, whether the axis starts at zero)
CONVERGENCE = {
    "true_register_accuracy": ("Registers that are right", "fraction", False),
    "asymmetric_fsc": ("FSC of the asymmetric part", "", True),
    "mean_max_posterior": ("Mean largest register probability", "", False),
    "held_out_gain": ("Held-out gain", "nats per particle", False),
    "register_change": ("Particles that changed register", "fraction", True),
    "optimism": ("Optimism about the asymmetric part", "standard errors", True),
    "amplitude": ("Strength of the asymmetric part", "", True),
    "symmetric_fraction": ("Symmetric particles", "fraction", True),
    "junk_fraction": ("Junk", "fraction of the images", True),
    "resolution_angstrom": ("Resolution of the whole map", "Å", False),
    "asymmetric_resolution_angstrom": ("Resolution of the asymmetric part", "Å", False),
}
OF_A_PART = ("asymmetric_resolution_angstrom",)  # zero where there is none
# Of a classification: the test of the symmetry and what it needs are not there.
CLASSIFICATION = {
    "true_state_accuracy": ("States that are right", "fraction", False),
    "state_change": ("Images that changed state, where sure", "fraction", True),
    "register_change": ("Images that changed register", "fraction", True),
    "junk_fraction": CONVERGENCE["junk_fraction"],
    "rotation_change_deg": ("Rotation change", "°", True),
    "shift_change_angstrom": ("Shift change", "Å", True),
    "resolution_angstrom": CONVERGENCE["resolution_angstrom"],
}


def fsc_figure(result: Result, narrow: bool = False) -> Figure:
    """All Fourier shell correlations with the 0.143 line and the two resolutions."""
    figure = new_figure(*(NARROW if narrow else (10.3, 3.8)))
    axes = style(figure.add_subplot(), "resolution (Å)", "Fourier shell correlation")
    known = [name for name in FSC_CURVES if name in result.fsc]
    others = [name for name in result.fsc if name not in FSC_CURVES]
    for name in known + others:
        curve = np.asarray(result.fsc[name])
        label, colour, width, line = FSC_CURVES.get(name, (name, SERIES[3], 1.2, "-."))
        frequency = np.arange(1, len(curve)) / result.shell_edge_angstrom
        axes.plot(frequency, curve[1:], line, color=colour, lw=width, label=label)
    threshold_line(axes)
    marks = [(result.resolution_angstrom, INK, 1.0)]
    if result.asymmetric_resolution_angstrom > 0:
        marks.append((result.asymmetric_resolution_angstrom, ORANGE, 0.92))
    for resolution, colour, height in marks:
        axes.axvline(1.0 / resolution, color=colour, lw=0.8, ls=(0, (1, 2)))
        axes.annotate(
            f"{resolution:.2f} Å", (1.0 / resolution, height), xytext=(4, 0),
            textcoords="offset points", fontsize=8.5, color=colour, va="center",
        )  # fmt: skip
    axes.set_xlim(0.0, 0.5 / result.pixel_size_angstrom)
    lowest = min((float(np.min(c[1:])) for c in result.fsc.values()), default=0.0)
    axes.set_ylim(max(min(-0.08, 1.1 * lowest), -0.5), 1.05)
    resolution_ticks(axes, narrow)
    outside_legend(axes, narrow)
    return figure


def outside_legend(axes: Axes, narrow: bool) -> None:
    """Beside the plot, or below it where there is no room beside it."""
    if narrow:
        legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    else:
        legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.3)


def threshold_line(axes: Axes) -> None:
    """0.143, and zero, in a plot of Fourier shell correlations."""
    axes.axhline(0.0, color=MUTED, lw=0.8)
    axes.axhline(THRESHOLD, color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.annotate(
        "0.143", (0.0, THRESHOLD), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", fontsize=8, color=MUTED,
    )  # fmt: skip


def register_figures(result: Result) -> list[Figure]:
    """Largest register probability, occupancy, and held-out gain per particle."""
    registers = result.registers.shape[1]
    uniform, largest = 1.0 / registers, result.registers.max(axis=1)

    sure, axes = new_panel("How sure each particle is", "largest register probability", "particles")
    axes.hist(
        np.clip(largest, uniform, 1.0), bins=np.linspace(uniform, 1.0, 41).tolist(), color=BLUE
    )
    marked(axes, uniform, f"uniform 1/{registers}", MUTED, 0.93)
    marked(axes, float(largest.mean()), f"mean {largest.mean():.2f}", ORANGE, 0.78)
    axes.set_xlim(uniform - 0.03 * (1 - uniform), 1.0)

    occupancy, axes = new_panel("Occupancy", "register", "fraction of particles")
    axes.bar(np.arange(1, registers + 1), result.registers.mean(axis=0), color=BLUE, width=0.72)
    axes.axhline(uniform, color=MUTED, lw=1.0, ls=(0, (4, 3)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False, axis="x")
    if result.evidence is None:
        return [sure, occupancy]

    held_out, axes = new_panel("Held-out gain per particle", "nats", "particles")
    gain = np.asarray(result.evidence.log_gain)
    low, high = np.percentile(gain, [0.5, 99.5])
    low, high = min(low, -1e-3), max(high, 1e-3)
    axes.hist(np.clip(gain, low, high), bins=41, range=(low, high), color=BLUE)
    marked(axes, 0.0, "", MUTED, 0.93)
    marked(axes, float(gain.mean()), f"mean {gain.mean():.2g}", ORANGE, 0.93)
    return [sure, occupancy, held_out]


def convergence_figures(
    history: Sequence[dict[str, float]], relaxed: bool, states: bool = False
) -> list[Figure]:
    """Small multiples over iterations; none where there is nothing to draw."""
    drawn = CLASSIFICATION if states else CONVERGENCE
    relaxed = relaxed or states
    figures = []
    for name, (title, unit, from_zero) in drawn.items():
        there = any(name in row for row in history)
        if not there or not (relaxed or name == "resolution_angstrom"):
            continue
        iteration = [row.get("iteration", i + 1) for i, row in enumerate(history)]
        values = [row.get(name, np.nan) for row in history]
        if name in OF_A_PART:
            values = [value if value > 0 else np.nan for value in values]
        figure, axes = new_panel(title, "iteration", unit)
        axes.plot(iteration, values, "-o", color=BLUE, ms=2.8, lw=1.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if from_zero:
            low, high = axes.get_ylim()
            axes.set_ylim(min(0.0, low), max(high, 1e-3))
        figures.append(figure)
    return figures


def noise_figure(result: Result, narrow: bool = False) -> Figure:
    """Noise power of every optics group against resolution."""
    figure = new_figure(*(NARROW if narrow else (10.3, 2.7)))
    axes = style(figure.add_subplot(), "resolution (Å)", "noise power E|X|²")
    for number, (group, power) in enumerate(
        zip(result.particles.optics, result.noise_power, strict=True)
    ):
        shells = np.arange(1, len(power))
        colour = SERIES[number % len(SERIES)]
        frequency = shells / result.shell_edge_angstrom
        axes.semilogy(frequency, _positive(power[1:]), color=colour, label=group.name)
    axes.set_xlim(0.0, 0.5 / result.pixel_size_angstrom)
    resolution_ticks(axes, narrow)
    if len(result.particles.optics) <= 12:
        outside_legend(axes, narrow)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted(FuncFormatter(lambda power, _: f"{power:g}"))
    axes.tick_params(which="both", colors=MUTED, labelsize=8)
    axes.grid(True, which="minor", color=FAINT, linewidth=0.4)
    return figure


def _positive(values: Float64[np.ndarray, " shells"]) -> Float64[np.ndarray, " shells"]:
    return np.where(values > 0, values, np.nan)


def resolution_ticks(axes: Axes, narrow: bool = False) -> None:
    """A frequency axis labelled by resolution, which is what people read."""
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda f, _: "∞" if f <= 0 else f"{1.0 / f:.3g}"))


def marked(axes: Axes, x: float, text: str, colour: str, height: float) -> None:
    """A vertical line with words, which are at a height from 0 to 1."""
    axes.axvline(x, color=colour, lw=1.2, ls=(0, (4, 3)))
    if text:
        right = x > np.mean(axes.get_xlim())
        axes.annotate(
            text, (x, height), xycoords=("data", "axes fraction"), xytext=(-4 if right else 4, 0),
            textcoords="offset points", fontsize=8, color=INK, ha="right" if right else "left",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )  # fmt: skip
