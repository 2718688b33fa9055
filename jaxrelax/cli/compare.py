"""``jaxrelax compare``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from jaxrelax.assessment.run_comparison import (
    FinishedRun,
    RunAgreement,
    compare_runs,
    read_finished_run,
)
from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.options import Switch, refuse_idle
from jaxrelax.cli.status import duration
from jaxrelax.io import InputError, atomic_write_text, require_writable

ABSENT = "–"
WIDTH, SHORTEST_NAME = 99, 8  # columns of the table, and of a folder's name at least
NUMBERED = "{:>2}  "


@dataclass(frozen=True)
class Command:
    """Put finished runs side by side, and compare those after the first with it image by image."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Output folders of finished refinements; the first is what the others are compared with."""
    csv: Path | None = None
    """Write all numbers to this file as well, a line for every run."""
    overwrite: Switch = False
    """With --csv: replace the file if it is there."""

    def run(self) -> list[RunAgreement | None]:
        """Print the tables, and write the numbers if asked to.

        Raises:
            InputError: no folder is named, one holds no finished run, or the file cannot be
                written; nothing is written then.
        """
        if not self.folders:
            raise InputError("name the output folders of finished runs.")
        self._check_csv()
        runs = [read_finished_run(folder) for folder in self.folders]
        with RunConsole() as console:
            found = [compare_runs(runs[0], one) for one in runs[1:]]
            console.say(table_of_runs(runs))
            if found:
                console.say(f"\nThe same images, against run 1:\n{table_of_agreement(found)}")
            if self.csv is not None:
                atomic_write_text(self.csv, csv_of_runs(runs, found))
                console.say(f"\n{self.csv}: {len(runs)} runs")
        return found

    def _check_csv(self) -> None:
        if self.csv is None:
            refuse_idle(self, ["overwrite"], "can act only with --csv")
            return
        if self.csv.exists() and not self.overwrite:
            raise InputError(f"{self.csv}: is there already. Name another file, or --overwrite it.")
        if not self.csv.parent.is_dir():
            raise InputError(f"{self.csv.parent}: no such folder. Make it, or name another.")
        require_writable(self.csv.parent)


def table_of_runs(runs: Sequence[FinishedRun]) -> str:
    """A line for every run, in less than 100 columns."""
    header = (
        "run", "group", "images", "whole", "part", "asymmetry", "right", "halves", "support",
        "it", "time", "GiB",
    )  # fmt: skip
    rows = [_row(run) for run in runs]
    # What the other columns leave.
    others = _aligned([header[1:], *rows]).splitlines()
    room = WIDTH - max(map(len, others)) - len(NUMBERED.format(1)) - 2
    names = [_short(str(run.path), max(room, SHORTEST_NAME)) for run in runs]
    rows = [
        (NUMBERED.format(number) + name, *row)
        for number, (name, row) in enumerate(zip(names, rows, strict=True), start=1)
    ]
    notes = (
        "whole, part: resolution (Å) of the map and of its asymmetric part; asymmetry: whether\n"
        "held-out images show it, and by how many σ; right: expected accuracy of registers, or of\n"
        "states; halves: same register under either half-map; support: symmetry that images allow"
    )
    return f"{_aligned([header, *rows])}\n\n{notes}"


def _row(run: FinishedRun) -> tuple[str, ...]:
    """What stands behind the name of a run."""
    of = run.figures()
    group = of["group"] if of["kept"] == of["group"] else f"{of['group']}→{of['kept']}"
    accuracy = of["expected_register_accuracy"]
    if of["states"]:
        asymmetry = f"{of['states']} states"
        accuracy = of["expected_state_accuracy"]
    elif of["asymmetry_found"] is None:
        asymmetry = ABSENT
    else:
        asymmetry = "found" if of["asymmetry_found"] else "no"
        z = of["z_score"]
        asymmetry += "" if z is None else f" {z:.1f}" if abs(z) < 100 else f" {z:.0f}"
    seconds = of["seconds"]
    return (
        _short(group, 9),
        _number(of["particles"], "d"),
        _number(of["resolution_angstrom"], ".2f"),
        _number(of["asymmetric_resolution_angstrom"], ".1f"),
        asymmetry,
        _number(accuracy, ".3f"),
        _number(of["half_set_agreement"], ".3f"),
        _short(of["supported_symmetry"] or ABSENT, 7),
        _number(of["iterations"], "d"),
        ABSENT if seconds is None else duration(seconds),
        _number(of["peak_memory_gib"], ".1f"),
    )


def table_of_agreement(found: Sequence[RunAgreement | None]) -> str:
    """A line for every run but the first."""
    header = ("run", "images", "same register", "pose difference", "adjusted Rand index")
    rows = [
        (NUMBERED.format(number), "none in common", *[ABSENT] * 3)
        if one is None
        else (
            NUMBERED.format(number),
            str(one.images),
            _number(one.same_register, ".1%"),
            f"{one.pose_difference_deg:.2f}°",
            _number(one.adjusted_rand, ".3f"),
        )
        for number, one in enumerate(found, start=2)
    ]
    return _aligned([header, *rows])


def csv_of_runs(runs: Sequence[FinishedRun], found: Sequence[RunAgreement | None]) -> str:
    """All numbers, a line for every run; what agrees with the first run in the last columns."""
    rows: list[dict[str, Any]] = [run.figures() for run in runs]
    for row, one in zip(rows[1:], found, strict=True):
        row |= {"shared_images": 0} if one is None else one.figures()
    columns = list(dict.fromkeys([*rows[0], *RunAgreement(0, None, 0.0, None).figures()]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    return text.getvalue()


def _number(value: Any, how: str) -> str:
    return ABSENT if value is None else format(value, how)


def _short(text: str, width: int) -> str:
    """The end of a name, which tells folders apart."""
    return text if len(text) <= width else "…" + text[1 - width :]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(w.rjust(n) for w, n in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
