"""``jaxrelax replay``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.options import Switch
from jaxrelax.io import InputError
from jaxrelax.refinement.replay import criterion_from_text, read_history, replay


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

    def run(self) -> None:
        """Print a line for every run and criterion.

        Raises:
            InputError: no run, or what is no criterion.
        """
        if not self.folders:
            raise InputError("name the output folders of finished runs.")
        wanted = [(text, criterion_from_text(text)) for text in self.until]
        histories = [(folder, read_history(folder)) for folder in self.folders]
        with RunConsole() as console:
            for folder, history in histories:
                last = history[-1]
                console.say(
                    f"{folder}: {len(history)} iterations, mean posterior "
                    f"{last.mean_max_posterior:.3f}, {last.resolution_angstrom:.2f} Å"
                )
                for text, until in wanted:
                    stop = replay(history, until, everywhere=self.everywhere)
                    if stop is None:
                        console.say(f"  does not stop              {text}")
                        continue
                    info = stop.info
                    console.say(
                        f"  {stop.iteration:4d}  {info.mean_max_posterior:.3f}  "
                        f"{info.resolution_angstrom:6.2f} Å  {text}: {stop.reason}"
                    )
