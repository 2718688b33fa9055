"""``jaxrelax reconstruct``."""
# ruff: noqa: RUF009  (defaults are read from the functions, and are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.option_groups import ParticleOptions
from jaxrelax.cli.options import Switch, default_of, refuse_idle
from jaxrelax.engine.workers import available_workers
from jaxrelax.io import InputError, drop_bad_images, require_writable, write_map
from jaxrelax.io.copies import describe_units
from jaxrelax.refinement.reconstruct import random_registers, reconstruct
from jaxrelax.refinement.usable import bad_images


@dataclass(frozen=True)
class Command:
    """Reconstruct a map from particles at their poses, corrected for the CTF, without a prior."""

    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with poses and CTFs."""
    out: Path
    """The map to write (.mrc)."""
    symmetry: str = default_of(reconstruct, "symmetry")
    """Symmetry of the map."""
    break_symmetry: str | None = None
    """Distribute the particles at random over the registers of this group first."""
    seed: int = 0
    """With --break-symmetry: seed of the draw."""
    half: Literal[1, 2] | None = default_of(reconstruct, "half")
    """Use this half-set only. An image that is in several rows is in one of the two."""
    max_resolution: float | None = default_of(reconstruct, "max_resolution")
    """Leave out frequencies beyond this resolution (Å)."""
    overwrite: Switch = False
    """Replace the map if it is there."""

    table: tyro.conf.OmitArgPrefixes[ParticleOptions] = ParticleOptions()

    def run(self) -> Path:
        """Write the map."""
        if self.out.exists() and not self.overwrite:
            raise InputError(f"{self.out}: is there already. Name another map, or --overwrite it.")
        if self.out.suffix not in (".mrc", ".map"):
            raise InputError(f"{self.out}: a map is written as .mrc. Name the file so.")
        if not self.out.parent.is_dir():
            raise InputError(f"{self.out.parent}: no such folder. Make it, or name another.")
        require_writable(self.out.parent)
        if self.break_symmetry is None:
            refuse_idle(self, ["seed"], "can act only with --break-symmetry")
        with RunConsole() as console:
            particles = self.table.read(self.particles)
            for label, value in describe_units(particles):
                console.say(f"{self.particles}: {label}: {value}")
            bad = bad_images(particles, available_workers(None))
            particles = drop_bad_images(particles, self.table.skip_bad_images, bad)
            if self.break_symmetry is not None:
                particles, _ = random_registers(particles, self.break_symmetry, self.seed)
            map_, pixel = reconstruct(
                particles,
                symmetry=self.symmetry,
                half=self.half,
                max_resolution=self.max_resolution,
            )
            write_map(self.out, map_, pixel)
            console.say(f"{self.out}: {map_.shape[0]} voxels of {pixel:.5g} Å a side")
        return self.out
