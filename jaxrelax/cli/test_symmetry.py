"""``jaxrelax test-symmetry``."""
# ruff: noqa: RUF009  (groups of options are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrelax.assessment import save, symmetry_summary, warnings
from jaxrelax.assessment.contradictions import contradictions, doubt
from jaxrelax.cli.console import LOGGER, ProgressBars, RunConsole
from jaxrelax.cli.option_groups import (
    MapOptions,
    ParticleOptions,
    PosePriorOptions,
    RefinementOptions,
    RelaxationOptions,
    WorkerOptions,
)
from jaxrelax.cli.options import Switch, refuse_idle
from jaxrelax.io import InputError, OutputFolder, require_writable
from jaxrelax.refinement import refine
from jaxrelax.refinement.result import Result


@dataclass(frozen=True)
class Command:
    """Say which symmetry held-out images support: that of the consensus, or which subgroup."""

    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with poses and CTFs."""
    reference: Path
    """Map to start from (.mrc), in the frame of the poses."""
    symmetry: Annotated[str, tyro.conf.arg(aliases=["--group"])]
    """The symmetry of the consensus (C4, D7, T, O, I, or a text file of operators)."""
    out: Path | None = None
    """Folder for symmetry_test.json, the report and the maps; without it nothing is written."""

    poses: Literal["local", "fixed"] = "local"
    """Refine the poses locally, or hold them and take them for exact: errors of poses that are held
    look like asymmetry."""
    force_group: Switch = False
    """Go on, with a warning, where the reference does not have the symmetry that is said."""
    overwrite: Switch = False
    """With --out: replace the results of an earlier run in the folder."""
    quiet: Annotated[Switch, tyro.conf.arg(aliases=["-q"])] = False
    """Show only the table, warnings and errors."""

    relaxation: tyro.conf.OmitArgPrefixes[RelaxationOptions] = RelaxationOptions()
    pose_prior: tyro.conf.OmitArgPrefixes[PosePriorOptions] = PosePriorOptions()
    """With --poses local: how well the poses are known, at first."""
    refinement: tyro.conf.OmitArgPrefixes[RefinementOptions] = RefinementOptions()
    workers: tyro.conf.OmitArgPrefixes[WorkerOptions] = WorkerOptions()
    maps: tyro.conf.OmitArgPrefixes[MapOptions] = MapOptions()
    table: tyro.conf.OmitArgPrefixes[ParticleOptions] = ParticleOptions()

    def run(self) -> Result:
        """Relax, test, and print the table of symmetries.

        Raises:
            InputError: as `jaxrelax.refine`; the folder is not made then.
        """
        arguments = self.refinement.arguments()
        self.workers.check()
        self._check_out()
        relax = self.relaxation.component(self.symmetry)
        mode = self.pose_prior.mode("--poses", self.poses)
        writes = self.workers.join()
        with RunConsole(self.quiet, silent=not writes) as console:
            particles = self.table.read(self.particles)
            bars = ProgressBars(console)
            try:
                result = refine(
                    particles,
                    self.maps.later(self.reference),
                    mode=mode,
                    relax=relax,
                    callbacks=(bars,),
                    subgroups="all",
                    devices=self.workers.devices,
                    skip_bad_images=self.table.skip_bad_images,
                    force_group=self.force_group,
                    **arguments,
                )
            finally:
                bars.stop()
            if self.out is not None and writes:
                folder = OutputFolder.create(self.out, overwrite=self.overwrite)
                save(result, folder)
                folder.write_json("symmetry_test.json", symmetry_summary(result))
                LOGGER.info("Results are in %s.", folder.path)
            for note in warnings(result):
                LOGGER.warning("%s", note)
        assert result.evidence is not None  # there is relaxation
        if writes:
            print(result.evidence.table())
            print(result.evidence.sentence())
            if contradictions(result):
                print(doubt(result))
        return result

    def _check_out(self) -> None:
        """Look at the folder before anything is read; do not make it."""
        if self.out is None:
            refuse_idle(self, ["overwrite"], "can act only with --out")
            return
        require_writable(self.out)
        if self.out.is_file():
            raise InputError(f"{self.out}: is a file, not a folder. Name another folder.")
        elif self.out.exists() and any(self.out.iterdir()) and not self.overwrite:
            raise InputError(
                f"{self.out}: the output folder is not empty. Name another one, or --overwrite it."
            )
