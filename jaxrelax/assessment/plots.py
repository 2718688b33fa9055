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
    SERIES,
    SKY,
    legend,
    new_figure,
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
# column → (title, unit, whether the axis starts at zero)
CONVERGENCE = {
    "asymmetric_fsc": ("FSC of the asymmetric part", "", True),
    "mean_max_posterior": ("Mean largest register probability", "", False),
    "held_out_gain": ("Held-out gain", "nats per particle", False),
    "register_change": ("Particles that changed register", "fraction", True),
    "optimism": ("Optimism about the asymmetric part", "standard errors", True),
    "amplitude": ("Strength of the asymmetric part", "", True),
    "symmetric_fraction": ("Symmetric particles", "fraction", True),
    "junk_fraction": ("Junk", "fraction of the images", True),
    "resolution_angstrom": ("Resolution of the iteration", "Å", False),
}
# Of a classification: the test of the symmetry and what it needs are not there.
CLASSIFICATION = {
    "state_change": ("Images that changed state, where sure", "fraction", True),
    "register_change": ("Images that changed register", "fraction", True),
    "junk_fraction": CONVERGENCE["junk_fraction"],
    "rotation_change_deg": ("Rotation change", "°", True),
    "shift_change_angstrom": ("Shift change", "Å", True),
    "resolution_angstrom": CONVERGENCE["resolution_angstrom"],
}


def fsc_figure(result: Result) -> Figure:
    """All Fourier shell correlations with the 0.143 line and the resolution."""
    figure = new_figure(10.3, 3.8)
    axes = style(figure.add_subplot(), "resolution (Å)", "Fourier shell correlation")
    known = [name for name in FSC_CURVES if name in result.fsc]
    others = [name for name in result.fsc if name not in FSC_CURVES]
    for name in known + others:
        curve = np.asarray(result.fsc[name])
        label, colour, width, line = FSC_CURVES.get(name, (name, SERIES[3], 1.2, "-."))
        frequency = np.arange(1, len(curve)) / result.shell_edge_angstrom
        axes.plot(frequency, curve[1:], line, color=colour, lw=width, label=label)
    threshold_line(axes)
    axes.axvline(1.0 / result.resolution_angstrom, color=INK, lw=0.8, ls=(0, (1, 2)))
    axes.annotate(
        f"{result.resolution_angstrom:.2f} Å", (1.0 / result.resolution_angstrom, 1.0),
        xytext=(4, 0), textcoords="offset points", fontsize=8.5, color=INK, va="center",
    )  # fmt: skip
    axes.set_xlim(0.0, 0.5 / result.pixel_size_angstrom)
    lowest = min((float(np.min(c[1:])) for c in result.fsc.values()), default=0.0)
    axes.set_ylim(max(min(-0.08, 1.1 * lowest), -0.5), 1.05)
    resolution_ticks(axes)
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.3)
    return figure


def threshold_line(axes: Axes) -> None:
    """0.143, and zero, in a plot of Fourier shell correlations."""
    axes.axhline(0.0, color=MUTED, lw=0.8)
    axes.axhline(THRESHOLD, color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.annotate(
        "0.143", (0.0, THRESHOLD), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", fontsize=8, color=MUTED,
    )  # fmt: skip


def register_figure(result: Result) -> Figure:
    """Largest register probability, occupancy, and held-out gain per particle."""
    figure = new_figure(10.3, 2.9)
    axes = figure.subplots(1, 3, width_ratios=(1.25, 1.0, 1.0))
    registers = result.registers.shape[1]
    uniform, largest = 1.0 / registers, result.registers.max(axis=1)

    first = style(axes[0], "largest register probability", "particles", "How sure each particle is")
    first.hist(np.clip(largest, uniform, 1.0), bins=np.linspace(uniform, 1.0, 41), color=BLUE)
    marked(first, uniform, f"uniform 1/{registers}", MUTED, 0.93)
    marked(first, float(largest.mean()), f"mean {largest.mean():.2f}", ORANGE, 0.78)
    first.set_xlim(uniform - 0.03 * (1 - uniform), 1.0)

    second = style(axes[1], "register", "fraction of particles", "Occupancy")
    second.bar(np.arange(1, registers + 1), result.registers.mean(axis=0), color=BLUE, width=0.72)
    second.axhline(uniform, color=MUTED, lw=1.0, ls=(0, (4, 3)))
    second.xaxis.set_major_locator(MaxNLocator(integer=True))
    second.grid(False, axis="x")

    third = style(axes[2], "nats", "particles", "Held-out gain per particle")
    if result.evidence is not None:
        gain = np.asarray(result.evidence.log_gain)
        low, high = np.percentile(gain, [0.5, 99.5])
        low, high = min(low, -1e-3), max(high, 1e-3)
        third.hist(np.clip(gain, low, high), bins=41, range=(low, high), color=BLUE)
        marked(third, 0.0, "", MUTED, 0.93)
        marked(third, float(gain.mean()), f"mean {gain.mean():.2g}", ORANGE, 0.93)
    return figure


def convergence_figure(
    history: Sequence[dict[str, float]], relaxed: bool, states: bool = False
) -> Figure | None:
    """Small multiples over iterations; None where there is nothing to draw."""
    drawn = CLASSIFICATION if states else CONVERGENCE
    relaxed = relaxed or states
    names = [
        name
        for name in drawn
        if any(name in row for row in history) and (relaxed or name == "resolution_angstrom")
    ]
    if not history or not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(3.43 * columns, 2.15 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        title, unit, from_zero = drawn[name]
        iteration = [row.get("iteration", i + 1) for i, row in enumerate(history)]
        values = [row.get(name, np.nan) for row in history]
        style(axes, "iteration", unit, title)
        axes.plot(iteration, values, "-o", color=BLUE, ms=2.8, lw=1.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if from_zero:
            low, high = axes.get_ylim()
            axes.set_ylim(min(0.0, low), max(high, 1e-3))
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    return figure


def noise_figure(result: Result) -> Figure:
    """Noise power of every optics group against resolution."""
    figure = new_figure(10.3, 2.7)
    axes = style(figure.add_subplot(), "resolution (Å)", "noise power E|X|²")
    for number, (group, power) in enumerate(
        zip(result.particles.optics, result.noise_power, strict=True)
    ):
        shells = np.arange(1, len(power))
        colour = SERIES[number % len(SERIES)]
        frequency = shells / result.shell_edge_angstrom
        axes.semilogy(frequency, _positive(power[1:]), color=colour, label=group.name)
    axes.set_xlim(0.0, 0.5 / result.pixel_size_angstrom)
    resolution_ticks(axes)
    if len(result.particles.optics) <= 12:
        legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.3)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted(FuncFormatter(lambda power, _: f"{power:g}"))
    axes.tick_params(which="both", colors=MUTED, labelsize=8)
    axes.grid(True, which="minor", color=FAINT, linewidth=0.4)
    return figure


def _positive(values: Float64[np.ndarray, " shells"]) -> Float64[np.ndarray, " shells"]:
    return np.where(values > 0, values, np.nan)


def resolution_ticks(axes: Axes) -> None:
    """A frequency axis labelled by resolution, which is what people read."""
    axes.xaxis.set_major_locator(MaxNLocator(8))
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
