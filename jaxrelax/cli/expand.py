"""``jaxrelax expand``."""
# ruff: noqa: RUF009  (defaults are read from the functions, and are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.options import Switch, checked, default_of, refuse_idle
from jaxrelax.cli.table_output import check_table_output, write_table
from jaxrelax.geometry import parse_group
from jaxrelax.io import Particles, expand_symmetry, read_particles
from jaxrelax.io.reading import load_particles


@dataclass(frozen=True)
class Command:
    """Write every particle at each of its symmetry-related poses, and which row a copy is of."""

    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with poses."""
    symmetry: str
    """The symmetry (C4, D3, T, O, I, or a text file of operators)."""
    out: Path
    """The expanded table to write (.star, or .cs if the particles came from one), with the columns
    jrxParent (row of the input) and jrxCopy (operator), both from 1."""
    passthrough: tuple[Path, ...] = default_of(read_particles, "passthrough")
    """Passthrough files of a .cs file; by default those of the same job in the same folder."""
    image_root: Path | None = default_of(read_particles, "image_root")
    """Folder that image names are relative to."""
    overwrite: Switch = False
    """Replace a file of this name."""

    def run(self) -> Particles:
        """Write the expanded table.

        Raises:
            InputError: the group is unknown or C1, the table is expanded already, or anything else
                about the input; nothing is written then.
        """
        if self.particles.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        check_table_output(self.out, self.particles, overwrite=self.overwrite)
        group = checked(parse_group, group=self.symmetry)
        with RunConsole() as console:
            # Poses are all that counts; what the imaging model does not do, it need not.
            particles = load_particles(
                self.particles, self.image_root, passthrough=self.passthrough, require_ctf=False
            )
            expanded = expand_symmetry(particles, group)
            write_table(expanded, self.out)
            console.say(
                f"{self.out}: {len(particles)} particles at {group.order} poses each, "
                f"{len(expanded)} rows"
            )
        return expanded
