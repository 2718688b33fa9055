"""``jaxrelax replay``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrelax.assessment.stop_plots import reached, stops_figure
from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.options import Switch
from jaxrelax.io import InputError
from jaxrelax.io.atomic import atomic_open
from jaxrelax.refinement.replay import criterion_from_text, read_history, replay

KINDS = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Command:
    """Say where criteria would have stopped runs that are over."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Output folders of refinements."""
    until: tuple[str, ...]
    """Criteria, each in quotes: "RegistersSettled(iterations=3) & AsymmetryStalled"
    "PosesSettled | MaxIterations(20)" "my_module:MyCriterion()"."""
    everywhere: Switch = False
    """Ask in every iteration, also while asymmetry was sought."""
    figure: Path | None = None
    """Draw where each criterion stops every run (.svg, .png or .pdf): against the share of
    registers or states that are right, if the run was given --truth, else the mean posterior."""

    def run(self) -> None:
        """Print a line for every run and criterion.

        Raises:
            InputError: no run, or what is no criterion.
        """
        if not self.folders:
            raise InputError("name the output folders of finished runs.")
        if self.figure is not None and self.figure.suffix not in KINDS:
            kinds = ", ".join(KINDS)
            raise InputError(f"--figure {self.figure}: give it one of the endings {kinds}.")
        wanted = [(text, criterion_from_text(text)) for text in self.until]
        histories = [(folder, read_history(folder)) for folder in self.folders]
        runs = [reached(folder) for folder in self.folders]
        found = [
            [replay(history, until, everywhere=self.everywhere) for _, until in wanted]
            for _, history in histories
        ]
        with RunConsole() as console:
            for (folder, history), run, stops in zip(histories, runs, found, strict=True):
                last = history[-1]
                what = "right" if run.known else "mean posterior"
                console.say(
                    f"{folder}: {len(history)} iterations, {what} {run.values[-1]:.3f}, "
                    f"{last.resolution_angstrom:.2f} Å"
                )
                for (text, _), stop in zip(wanted, stops, strict=True):
                    if stop is None:
                        console.say(f"  does not stop              {text}")
                        continue
                    console.say(
                        f"  {stop.iteration:4d}  {run.values[stop.iteration - 1]:.3f}  "
                        f"{stop.info.resolution_angstrom:6.2f} Å  {text}: {stop.reason}"
                    )
        if self.figure is not None:
            drawn = stops_figure(runs, [text for text, _ in wanted], found)
            with atomic_open(self.figure) as file:
                drawn.savefig(file, format=self.figure.suffix[1:])
