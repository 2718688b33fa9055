"""The report: one HTML file with everything inside, that needs no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from matplotlib.figure import Figure

from jaxrelax.assessment.answers import answers
from jaxrelax.assessment.difference_section import compared
from jaxrelax.assessment.figures import as_data_uri
from jaxrelax.assessment.findings import (
    duration,
    headline,
    key_figures,
    relaxation_name,
    warnings,
)
from jaxrelax.assessment.local_resolution import local_section
from jaxrelax.assessment.next_steps import next_steps
from jaxrelax.assessment.plots import (
    convergence_figures,
    fsc_figure,
    noise_figure,
    register_figures,
)
from jaxrelax.assessment.pose_plots import pose_figures, register_view_figures
from jaxrelax.assessment.repeats import repeats_sentence
from jaxrelax.assessment.slices import slices_of_map, slices_of_states
from jaxrelax.assessment.state_plots import (
    certainty_figures,
    occupancy_figures,
    population_figure,
    state_colour,
    state_fsc_figure,
    views_figures,
)
from jaxrelax.assessment.state_shares import state_shares
from jaxrelax.assessment.strip_plots import strip_of_tiles
from jaxrelax.assessment.versions import versions
from jaxrelax.assessment.words import percent
from jaxrelax.io.atomic import atomic_write_text
from jaxrelax.refinement.result import Result


class Column(NamedTuple):
    """A column of the table of iterations.

    Attributes:
        heading, unit: above it.
        format: of its numbers; "%" for a fraction in per cent.
        relaxed: whether it is about registers.
        zero: whether it is shown where all of it is zero.
    """

    heading: str
    unit: str
    format: str
    relaxed: bool = False
    zero: bool = True


COLUMNS = {
    "iteration": Column("Iteration", "", "d"),
    "resolution_angstrom": Column("Whole map", "Å", ".2f"),
    "asymmetric_resolution_angstrom": Column("Asymmetric part", "Å", ".1f", True),
    "true_register_accuracy": Column("Registers right", "%", "%", True),
    "true_state_accuracy": Column("States right", "%", "%"),
    "mean_fsc": Column("Mean FSC", "", ".3f"),
    "score_resolution_angstrom": Column("Scored to", "Å", ".2f"),
    "mean_max_posterior": Column("Mean max posterior", "", ".3f", True),
    "register_change": Column("Register changed", "%", "%", True),
    "asymmetric_fsc": Column("Asymmetric FSC", "", ".3f", True),
    "asymmetric_signal": Column("Asymmetric signal", "std. errors", ".1f", True),
    "held_out_gain": Column("Held-out gain", "nats", ".3f", True),
    "optimism": Column("Optimism", "std. errors", ".2g", True),
    "amplitude": Column("Strength", "", ".2f", True),
    "state_change": Column("State changed", "%", "%", True),
    "symmetric_fraction": Column("Symmetric", "%", "%", True),
    "junk_fraction": Column("Junk", "%", "%", True),
    # Zero throughout where poses are searched around the consensus alone.
    "pose_jumps": Column("Other pose found", "%", "%", zero=False),
    "rotation_change_deg": Column("Rotation change", "°", ".2f"),
    "shift_change_angstrom": Column("Shift change", "Å", ".2f"),
    "sigma_rotation_deg": Column("Prior rotation", "°", ".2f"),
    "sigma_shift_angstrom": Column("Prior shift", "Å", ".2f"),
    "seconds": Column("Time", "s", ".1f"),
}
# Of a classification: they belong to the test of a symmetry, which is not made.
UNUSED = ("held_out_gain", "optimism", "amplitude", "symmetric_fraction")


def write_report(result: Result, path: str | os.PathLike) -> None:
    """Write the report of a result, whose files are in the same folder.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
    """
    atomic_write_text(path, report_html(result, Path(path).parent))


def report_html(result: Result, folder: str | os.PathLike = "out") -> str:
    """The report as one HTML page; figures are inline, nothing is fetched.

    Args:
        result: of a refinement.
        folder: where its files are, as commands are to name it.
    """
    relaxed = len(result.operators) > 1 and not result.states
    predicted = result.discriminability
    of_fsc = partial(state_fsc_figure if result.states else fsc_figure, result)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxrelax.assessment", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        relaxed=relaxed,
        found=bool(result.asymmetry_found),
        relaxation=relaxation_name(result),
        source=result.particles.source.name,
        headline=headline(result),
        reason=result.reason,
        answers=answers(result),
        steps=next_steps(result, folder),
        figures=key_figures(result),
        warnings=[*result.notes, *warnings(result)],
        slices=[
            (
                one.title,
                _panels(one.panels, "png"),
                None if one.scale is None else as_data_uri(one.scale, "png"),
            )
            for one in (slices_of_states if result.states else slices_of_map)(result)
        ],
        fsc=_picture(of_fsc),
        local=_local(result),
        differences=compared(result),
        states=_states(result),
        registers=_panels(register_figures(result)) if relaxed else [],
        views=_panels(register_view_figures(result), "png") if relaxed else [],
        poses=_panels(pose_figures(result.history, relaxed or bool(result.states))),
        subgroups=_subgroups(result),
        discriminability=predicted.sentence() if predicted is not None else None,
        occupancy=result.registers.mean(axis=0),
        convergence=_panels(convergence_figures(result.history, relaxed, bool(result.states))),
        strip=strip_of_tiles(result),
        headings=[column for _, column in _columns(result, relaxed)],
        rows=_rows(result, relaxed),
        noise=_picture(partial(noise_figure, result)),
        command=result.settings.get("command"),
        settings=flattened({k: v for k, v in result.settings.items() if k != "command"}),
        duration=duration(result.seconds),
        memory=f"{result.peak_memory_gib:.2f} GiB",
        compiled=f"{result.compiled_programs} programs in {duration(result.compile_seconds)}",
        versions=versions(),
    )


class Picture(NamedTuple):
    """A figure as a page holds it.

    Attributes:
        wide: source of the image.
        narrow: the same drawn for a narrow screen.
        about: what it shows.
    """

    wide: str
    narrow: str = ""
    about: str = ""


def _picture(draw: Callable[..., Any]) -> Picture:
    """Of a figure that has a narrow form."""
    return Picture(as_data_uri(draw()), as_data_uri(draw(narrow=True)))


def _panels(figures: list[Figure], kind: str = "svg") -> list[Picture]:
    """Figures that are stacked as the page is wide."""
    return [Picture(as_data_uri(one, kind), about=str(one.get_label())) for one in figures]


def _local(result: Result) -> dict[str, Any] | None:
    """What the section on local resolution shows; None where it was not computed."""
    shown = local_section(result)
    if shown is None:
        return None
    return {
        "sentences": shown.sentences,
        "slices": _panels(shown.slices, "png"),
        "scale": as_data_uri(shown.scale, "png"),
        "histogram": _panels(shown.histogram),
        "partner": shown.partner,
    }


def flattened(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, in order."""
    pairs: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            pairs += flattened(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + str(name), "—" if value is None else str(value)))
    return pairs


def _states(result: Result) -> dict[str, Any] | None:
    """What the sections on states show; None without states."""
    if not result.states:
        return None
    population = population_figure(result)
    return {
        "rows": [
            (
                state_colour(share.number - 1),
                share,
                [
                    percent(share.fraction),
                    f"{share.particles:,}",
                    percent(share.sure) if share.particles else "–",
                    f"{share.mean_probability:.2f}" if share.particles else "–",
                    f"{share.resolution_angstrom:.2f}",
                    _resolved(one.own_resolution_angstrom),
                    _resolved(one.asymmetric_resolution_angstrom),
                ],
            )
            for share, one in zip(state_shares(result), result.states, strict=True)
        ],
        "support": None if result.states_apart is None else result.states_apart.sentence(),
        "either_half": None if result.either_half is None else result.either_half.tolist(),
        "repeats": repeats_sentence(result),
        "certainty": _panels(certainty_figures(result)),
        "population": None if population is None else _picture(partial(population_figure, result)),
        "occupancy": _panels(occupancy_figures(result)),
        "views": _panels(views_figures(result), "png"),
    }


def _resolved(resolution_angstrom: float) -> str:
    return f"{resolution_angstrom:.1f}" if resolution_angstrom > 0 else "–"


def _subgroups(result: Result) -> list[tuple[str, list[str]]]:
    """Tested symmetries: name, and the cells of its row."""
    rows = () if result.evidence is None else result.evidence.subgroups
    return [
        (
            row.name,
            [
                str(row.order),
                row.p_text(),
                f"{row.z_score:.1f}",
                f"{row.nats:.3g}",
                row.verdict(),
            ],
        )
        for row in rows
    ]


def _columns(result: Result, relaxed: bool) -> list[tuple[str, Column]]:
    present = {name for row in result.history for name in row}
    nonzero = {name for row in result.history for name, value in row.items() if value}
    columns = [
        (name, column)
        for name, column in COLUMNS.items()
        if name in (present if column.zero else nonzero) and (relaxed or not column.relaxed)
    ]
    if not result.states:
        return columns
    first = (
        *("iteration", "resolution_angstrom", "asymmetric_resolution_angstrom"),
        *("score_resolution_angstrom", "state_change", "true_state_accuracy"),
    )
    known = {name: COLUMNS[name] for name in first}
    for number in range(1, len(result.states) + 1):
        known[f"fraction_class{number:02d}"] = Column(f"Class {number}", "%", "%")
    # Names that are there keep their place: the others come after what is about states.
    known |= {name: column for name, column in COLUMNS.items() if name not in UNUSED}
    return [(name, column) for name, column in known.items() if name in nonzero]


def _rows(result: Result, relaxed: bool) -> list[list[str]]:
    columns = _columns(result, relaxed)
    return [
        [_cell(row.get(name, np.nan), column.format) for name, column in columns]
        for row in result.history
    ]


def _cell(value: float, format_: str) -> str:
    if not np.isfinite(value):
        return "–"
    if format_ == "d":
        return str(round(value))
    return f"{100 * value:.1f}" if format_ == "%" else f"{value:{format_}}"
