"""``jaxrelax reconstruct``."""
# ruff: noqa: RUF009  (defaults are read from the functions, and are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.options import default_of, refuse_idle
from jaxrelax.io import InputError, drop_bad_images, read_particles, write_map
from jaxrelax.refinement.reconstruct import random_registers, reconstruct

Switch = tyro.conf.FlagCreatePairsOff[bool]


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
    """Use this half-set only."""
    max_resolution: float | None = default_of(reconstruct, "max_resolution")
    """Leave out frequencies beyond this resolution (Å)."""
    image_root: Path | None = default_of(read_particles, "image_root")
    """Folder that image names are relative to."""
    passthrough: tuple[Path, ...] = default_of(read_particles, "passthrough")
    """Passthrough files of a .cs file; by default those of the same job in the same folder."""
    ignore_aberrations: Switch = default_of(read_particles, "ignore_aberrations")
    """Go on although the table has aberrations that are not modelled."""
    skip_bad_images: Switch = default_of(drop_bad_images, "skip_bad")
    """Leave out images that are constant or hold NaN, instead of stopping."""
    overwrite: Switch = False
    """Replace the map if it is there."""

    def run(self) -> Path:
        """Write the map."""
        if self.out.exists() and not self.overwrite:
            raise InputError(f"{self.out}: is there already. Name another map, or --overwrite it.")
        if self.out.suffix not in (".mrc", ".map"):
            raise InputError(f"{self.out}: a map is written as .mrc. Name the file so.")
        if not self.out.parent.is_dir():
            raise InputError(f"{self.out.parent}: no such folder. Make it, or name another.")
        if self.break_symmetry is None:
            refuse_idle(self, ["seed"], "can act only with --break-symmetry")
        if self.particles.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        with RunConsole() as console:
            particles = read_particles(
                self.particles,
                self.image_root,
                passthrough=self.passthrough,
                ignore_aberrations=self.ignore_aberrations,
            )
            particles = drop_bad_images(particles, self.skip_bad_images)
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
