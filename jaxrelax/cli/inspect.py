"""``jaxrelax inspect``."""
# ruff: noqa: RUF009  (groups of options are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jaxrelax.cli.option_groups import ParticleOptions
from jaxrelax.cli.options import Switch, default_of, refuse_idle
from jaxrelax.cli.output_pipe import unread_output
from jaxrelax.engine.workers import available_workers
from jaxrelax.io import Inspection, format_inspection, inspect_file
from jaxrelax.refinement import Homogeneous, Local, Registers, refine
from jaxrelax.refinement.consistent import check_particles
from jaxrelax.refinement.usable import usable_particles

MODES = {"homogeneous": Homogeneous, "local": Local, "registers": Registers}
TABLES = (".star", ".cs")


@dataclass(frozen=True)
class Command:
    """Say what a file holds, and what a refinement would refuse about it (exit status 1 then)."""

    file: tyro.conf.Positional[Path]
    """A .star or .cs file, a map, a mask or a stack."""
    mode: Literal["homogeneous", "local", "registers"] = "local"
    """Tables: the mode of the refinement; poses are not needed with homogeneous."""
    headers_only: Switch = False
    """Tables: look at the headers of image files only. Otherwise every image is read once, as a
    refinement does before it begins."""
    normalise: Literal["auto", "yes", "no"] = default_of(refine, "normalise")
    """Tables: as for the refinement; with no it takes images without a background."""

    table: tyro.conf.OmitArgPrefixes[ParticleOptions] = ParticleOptions()

    def run(self) -> int:
        """Print what was found; 1 if a refinement would refuse the file."""
        found = self.inspection()
        with unread_output():  # the status counts even if nobody reads why
            print(format_inspection(found))
            if self.headers_only:
                print(
                    "  Images were not read; a refinement refuses those that are constant or hold "
                    "NaN."
                )
        return 1 if found.refusals else 0

    def inspection(self) -> Inspection:
        """What was found.

        Raises:
            InputError: there is no such file, or it is of no known kind.
        """
        if self.file.suffix not in TABLES:
            idle = ["mode", "headers_only", "normalise", *vars(self.table)]
            refuse_idle(self, idle, "can act only on tables of particles")
        if self.headers_only:
            refuse_idle(self, ["normalise", "skip_bad_images"], "cannot act with --headers-only")
        mode = MODES[self.mode]()

        def take(path: Path) -> None:
            table = self.table
            needed = mode.needs_poses
            particles = table.read(path, require_poses=needed)
            units, half_set = check_particles(particles, mode)
            if not self.headers_only:
                usable_particles(
                    particles, units, half_set, available_workers(None),
                    normalise=self.normalise, skip_bad=table.skip_bad_images,
                )  # fmt: skip

        return inspect_file(
            self.file, self.table.image_root, passthrough=self.table.passthrough, take=take
        )
