"""Runs the tutorial, and puts what is printed and seen into its page.

    python experiments/tutorial.py OUT [--model 6q20.cif.gz] [--docs docs]

The commands are those on the page: every ``bash`` block of docs/tutorial.md that is followed by a
place for its output (``<!-- tutorial-… -->``) is run in OUT, in the order of the page. OUT must
have PDB entry 6Q20 as 6q20.cif.gz; ``--model`` copies it there. With ``--docs`` the outputs are
quoted in tutorial.md of that folder, and pictures of the reports are written to its
figures/tutorial. What ran already in OUT is not run again; a changed command needs a new folder.
About ten minutes on two cores; needs Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from pages import quote
from screenshots import Mark, Picture, Place, take

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
MODEL = "6q20.cif.gz"
COLUMNS = 76  # of a block on the page
PLACE = re.compile(r"^```bash\n([^`]*)^```\n+<!-- (tutorial-[\w-]+) -->$", re.MULTILINE)

TITLE = Place("", "header")
HEADLINE = Place("", ".headline")
ANSWERS = tuple(Place("", ".answers > div", which) for which in range(4))
STEPS = Place("", "ol.steps")
IN_CORNER = dict(right=0.95, down=0.18)

FAB = {
    "first_screen.png": Picture(
        TITLE,
        Place("", ".answers"),
        (Mark(HEADLINE, 0.98, 0.2), *(Mark(one, **IN_CORNER) for one in ANSWERS)),
    ),
    "next_steps.png": Picture(Place("", "h2.next"), STEPS),
    "difference.png": Picture(
        Place("Density", "h3"),
        Place("Density", ".sections"),
        (
            Mark(Place("Density", "h3 + p"), 1.02, 0.3),
            Mark(Place("Density", ".bar"), 1.06, 0.3),
            Mark(Place("Density", ".sections figure", 2), 0.9, 0.1),
        ),
    ),
    "surfaces.png": Picture(
        Place("Density", ".views"),
        Place("Density", "table.positions"),
        (
            Mark(Place("Density", ".views figure", 0), 0.95, 0.08),
            Mark(Place("Density", ".views figure", 1), 0.95, 0.08),
            Mark(Place("Density", ".views figure", 2), 0.95, 0.08),
            Mark(Place("Density", "table.positions tbody tr"), 1.03, 0.5),
        ),
    ),
    "registers.png": Picture(
        Place("Registers", "h2"),
        Place("Registers", ".panels"),
        tuple(Mark(Place("Registers", ".panels img", n), 0.93, 0.04) for n in range(3)),
    ),
    "views.png": Picture(
        Place("Viewing directions", "h2"),
        Place("Viewing directions", ".panels"),
        tuple(Mark(Place("Viewing directions", ".panels img", n), 0.93, 0.05) for n in range(2)),
    ),
    "convergence.png": Picture(
        Place("Convergence", "h2"),
        Place("Convergence", ".panels img", 5),
        tuple(Mark(Place("Convergence", ".panels img", n), 0.95, 0.04) for n in range(5)),
    ),
}
CONTROL = {
    "control_first_screen.png": Picture(
        TITLE,
        Place("", ".answers"),
        (Mark(HEADLINE, 0.98, 0.2), *(Mark(ANSWERS[n], **IN_CORNER) for n in (1, 3))),
    ),
}


@dataclass(frozen=True)
class Shown:
    """A command of the page, and the name of the place of its output."""

    name: str
    command: str


def shown(page: Path) -> list[Shown]:
    """Commands of the page whose output it quotes, continued lines joined."""
    return [
        Shown(name, " ".join(block.replace("\\\n", " ").split()))
        for block, name in PLACE.findall(page.read_text(encoding="utf-8"))
    ]


def printed(one: Shown, folder: Path) -> str:
    """What a command prints, from an earlier time if it ran already."""
    kept = folder / f"{one.name}.txt"
    if kept.exists():
        command, text = kept.read_text(encoding="utf-8").split("\n", 1)
        if command == one.command:
            return text
        raise SystemExit(
            f"{kept}: made by another command; remove it and what its command wrote, or start in "
            f"a new folder"
        )
    words = shlex.split(one.command)
    if words[0] != "jaxrelax":
        raise SystemExit(f"{one.name}: {one.command}: not a command of jaxrelax")
    print(f"$ {one.command}", flush=True)
    ran = subprocess.run(
        [sys.executable, "-m", "jaxrelax.cli", *words[1:]],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    print(ran.stdout, flush=True)
    if ran.returncode:
        raise SystemExit(f"{one.name}: exit status {ran.returncode}")
    kept.write_text(f"{one.command}\n{ran.stdout}", encoding="utf-8")
    return ran.stdout


def to_fit(line: str) -> list[str]:
    """A sentence broken at words; a line of a table, which has columns, as it is."""
    if "  " in line.strip() or len(line) <= COLUMNS:
        return [line]
    return textwrap.wrap(line, COLUMNS, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Run, quote, take pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, help="6q20.cif.gz, from the PDB")
    parser.add_argument("--docs", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.model is not None:
        shutil.copyfile(asked.model, asked.out / MODEL)
    if not (asked.out / MODEL).is_file():
        raise SystemExit(f"{asked.out / MODEL}: not there; download PDB entry 6Q20, or --model")
    for one in shown(PAGE):
        text = printed(one, asked.out)
        if asked.docs:
            fitting = [part for line in text.rstrip().splitlines() for part in to_fit(line)]
            quote(asked.docs / "tutorial.md", one.name, ["```text", *fitting, "```"])
    if asked.docs:
        figures = asked.docs / "figures" / "tutorial"
        for run, pictures in (("fab", FAB), ("control", CONTROL)):
            report = asked.out / run / "report.html"
            take(report, {figures / name: picture for name, picture in pictures.items()})


if __name__ == "__main__":
    main()
