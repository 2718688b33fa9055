"""The sweep's CSV as a page of the documentation: one table and four figures."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sweeps import BODY_KDA, BOX, COLOURS, LABELS, METHODS, PIXEL_ANGSTROM

from jaxrelax.assessment.figures import FAINT, INK, MUTED, SERIES, legend, new_figure, style
from jaxrelax.judgement.verdict import p_text

MARKERS = "os^Dv<>phX"
SMALLEST_BIN = 20  # particles; smaller ones say nothing
matplotlib.rcParams["svg.hashsalt"] = "jaxrelax"  # the same numbers give the same file


def write_report(rows: pd.DataFrame, keys: list[str], docs: Path) -> None:
    """Write ``sweep.md`` and its figures into the folder of the documentation.

    Args:
        rows: the CSV of ``register_accuracy.py``.
        keys: columns that make a configuration; the seed is not one of them.
        docs: the folder.
    """
    figures = docs / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    numbers = rows.select_dtypes("number").columns.difference([*keys, "seed"])
    means = rows.groupby([*keys, "method"], sort=False)[list(numbers)].mean()
    # Whatever a sweep that was stopped has not reached is NaN, and left blank.
    every = pd.MultiIndex.from_product([numbers, list(LABELS)])
    wide = means.unstack("method").reindex(columns=every)
    drawn = {
        "sweep_accuracy": _accuracy_figure(wide),
        "sweep_field": _field_figure(wide),
        "sweep_calibration": _calibration_figure(rows),
        "sweep_ece": _ece_figure(wide, keys),
    }
    for name, figure in drawn.items():
        figure.savefig(figures / f"{name}.svg", format="svg", metadata={"Date": None})
    (docs / "sweep.md").write_text(_page(wide, keys, rows), encoding="utf-8")


def describe(row: pd.Series) -> str:
    """A configuration in a few words."""
    text = f"{row['group']}, {row['mass_percent']:g} %, SNR {row['snr']:g}, {row['images']:,}"
    if row["junk_percent"]:
        text += f", {row['junk_percent']:g} % junk ({row['junk_kind']})"
    if row["pose_error_deg"]:
        text += f", {row['pose_error_deg']:g}°"
    return text


def _scatter(wide: pd.DataFrame, across: str, title: str) -> Figure:
    figure = new_figure(5.2, 4.4)
    axes = style(figure.add_subplot(), f"accuracy {LABELS[across]}", "accuracy, ours", title)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8)
    groups = wide.index.get_level_values("group")
    for number, group in enumerate(dict.fromkeys(groups)):
        some = wide[groups == group]["accuracy"]
        axes.plot(
            some[across], some["ours"], MARKERS[number % len(MARKERS)], ms=5, mec="white",
            mew=0.5, color=SERIES[number % len(SERIES)], label=group,
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _accuracy_figure(wide: pd.DataFrame) -> Figure:
    return _scatter(wide, "truth_start", "From the symmetric map, from the true registers")


def _field_figure(wide: pd.DataFrame) -> Figure:
    return _scatter(wide, "field", "Ours against the field's way, same start")


def reliability(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins pooled over data sets: particles, mean posterior, accuracy."""
    count, confidence, accuracy = (
        np.array([[float(x) for x in text.split()] for text in rows[name]])
        for name in ("bin_count", "bin_confidence", "bin_accuracy")
    )
    total = count.sum(axis=0)
    kept = total >= SMALLEST_BIN
    sums = [np.nansum(count * x, axis=0)[kept] / total[kept] for x in (confidence, accuracy)]
    return total[kept], sums[0], sums[1]


def _calibration_figure(rows: pd.DataFrame) -> Figure:
    figure = new_figure(9.0, 4.2)
    left = style(
        figure.add_subplot(1, 2, 1), "mean largest posterior", "register accuracy", "Data sets"
    )
    right = style(
        figure.add_subplot(1, 2, 2), "largest posterior", "fraction in the right register",
        "Particles of all data sets",
    )  # fmt: skip
    for method in ("oracle", *METHODS):
        some = rows[rows["method"] == method]
        if some.empty:
            continue
        look = {"color": COLOURS[method], "label": LABELS[method]}
        left.plot(some["mean_max_posterior"], some["accuracy"], "o", ms=4, alpha=0.8, **look)
        _, confidence, accuracy = reliability(some)
        right.plot(confidence, accuracy, "o-", ms=4, lw=1.4, **look)
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    legend(left, loc="upper left")
    return figure


def _ece_figure(wide: pd.DataFrame, keys: list[str]) -> Figure:
    names = [describe(pd.Series(dict(zip(keys, key, strict=True)))) for key in wide.index]
    figure = new_figure(7.5, 0.8 + 0.22 * len(names))
    axes = style(figure.add_subplot(), "expected calibration error")
    places = np.arange(len(names))[::-1]
    axes.hlines(places, 0, wide["ece"].max(axis=1), color=FAINT, lw=1)
    for method in METHODS:
        look = {"color": COLOURS[method], "label": LABELS[method]}
        axes.plot(wide["ece"][method], places, "o", ms=4.5, **look)
    axes.set_yticks(places, names, fontsize=7, color=INK)
    axes.set_xlim(left=0)
    legend(axes, loc="lower right")
    return figure


def _page(wide: pd.DataFrame, keys: list[str], rows: pd.DataFrame) -> str:
    seeds = rows.groupby(keys)["seed"].nunique()
    count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    head = [
        "group, partner / body, images", "ceiling", "true registers", "**ours**", "field",
        "posterior", "ECE", "Brier", "p", "iterations (to 95 %)", "s", "field: posterior", "ECE",
        "p", "s",
    ]  # fmt: skip
    lines = [
        "<!-- Generated by `make sweep` (experiments/register_accuracy.py); do not edit. -->",
        "# Sweep",
        "",
        f"Register accuracy on simulated phantoms: a body of {BODY_KDA:g} kDa of exact symmetry and"
        f" one partner, boxes of {BOX} pixels of {PIXEL_ANGSTROM:g} Å (as after binning), CTF and"
        " coloured noise. Every group at a base point, then one factor at a time.",
        f"Mean over seeds ({count} per row); another seed is also another object. This page is"
        " written by `experiments/register_accuracy.py`, from its CSV; `make sweep` runs it"
        " (small), `python experiments/register_accuracy.py --full` the whole design.",
        "",
        "- **ceiling**: posterior under the true map; with a pose error, at the consensus poses,"
        " integrated over the error (in brackets: at the true poses)",
        "- **true registers**: the refinement started from the true registers, the fixed point",
        "- **ours**: started from the symmetric map, as always",
        "- **field**: the same start and loop, with images scored by maps that hold them"
        " (`cross_fit=1`), one FSC for the whole map (`prior=\"plain\"`), no optimism"
        " and no model of junk",
        "- **posterior**: mean largest posterior probability, equal to the accuracy when honest;"
        " **p**: of the test for asymmetry",
        "",
        "Junk particles are not judged. Seconds are from shared CPU cores, compilation included.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]  # fmt: skip
    lines += [_table_row(dict(zip(keys, key, strict=True)), row) for key, row in wide.iterrows()]
    for name, caption in (
        ("sweep_accuracy", "Ours from the symmetric map against the run from the true registers."),
        ("sweep_field", "Ours against the field's way."),
        ("sweep_calibration", "Posterior against accuracy, by data set and by particle."),
        ("sweep_ece", "Expected calibration error by configuration."),
    ):
        lines += ["", f"![{caption}](figures/{name}.svg)", "", caption]
    return "\n".join(lines) + "\n"


def _table_row(key: dict, row: pd.Series) -> str:
    def number(column: str, method: str, form: str = ".3f") -> str:
        value = row.get((column, method), np.nan)
        return "" if pd.isna(value) else format(value, form)

    def p_value(method: str) -> str:
        value = row.get(("p_value", method), np.nan)
        return "" if pd.isna(value) else p_text(np.log10(max(value, 1e-300)))

    ceiling = number("accuracy", "oracle_consensus")
    exact = number("accuracy", "oracle")
    cells = [
        describe(pd.Series(key)),
        f"{ceiling} ({exact})" if ceiling else exact,
        number("accuracy", "truth_start"),
        f"**{number('accuracy', 'ours')}**",
        number("accuracy", "field"),
        *(number(name, "ours") for name in ("mean_max_posterior", "ece", "brier")),
        p_value("ours"),
        f"{number('iterations', 'ours', '.0f')} ({number('iterations_to_95', 'ours', '.0f')})",
        number("seconds", "ours", ".0f"),
        *(number(name, "field") for name in ("mean_max_posterior", "ece")),
        p_value("field"),
        number("seconds", "field", ".0f"),
    ]
    return "| " + " | ".join(cells) + " |"
