"""``jaxrelax select``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.options import Switch, default_of
from jaxrelax.cli.table_output import check_table_output, write_table
from jaxrelax.io import InputError, Particles, select_by_posterior
from jaxrelax.io.reading import load_particles


@dataclass(frozen=True)
class Command:
    """Write the particles of a finished run that are surely enough in a state or a register."""

    folder: tyro.conf.Positional[Path]
    """Output folder of a refinement."""
    out: Path
    """The table to write: .star, or .cs if the particles of the run came from one."""
    state: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Take particles whose best state is this, from 1. May be given several times."""
    register: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Take particles whose most probable register is this, from 1; in a run with states, that of
    the one --state. May be given several times."""
    min_probability: float = default_of(select_by_posterior, "min_probability")
    """Take particles that are there with at least this probability: of the state, of the register
    if one is named, and of showing a particle at all, multiplied. Without --state and --register
    it is that of the best state, or of the best register of a run without states."""
    max_junk: float = default_of(select_by_posterior, "max_junk")
    """Take particles that are junk with at most this probability."""
    overwrite: Switch = False
    """Replace a file of this name."""

    def run(self) -> Particles:
        """Write the selected rows, with all their columns.

        Raises:
            InputError: the folder has no such table, the table no states or registers, no row is
                left, or anything else about the input; nothing is written then.
        """
        source = self._source()
        check_table_output(self.out, source, overwrite=self.overwrite)
        with RunConsole() as console:
            particles = load_particles(source, require_poses=False, require_ctf=False)
            selected = particles.select(
                select_by_posterior(
                    particles,
                    states=self.state,
                    registers=self.register,
                    min_probability=self.min_probability,
                    max_junk=self.max_junk,
                )
            )
            write_table(selected, self.out)
            console.say(f"{self.out}: {len(selected)} of {len(particles)} particles")
        return selected

    def _source(self) -> Path:
        """The table of the folder that is of the kind to be written."""
        for name in ("min_probability", "max_junk"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} is {value:g}; a probability is between 0 and 1.")
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder. Give the output folder of a run.")
        star, cs = self.folder / "particles.star", self.folder / "particles.cs"
        if not star.exists():
            raise InputError(
                f"{self.folder}: has no particles.star. Give the output folder of a finished run."
            )
        if self.out.suffix != ".cs":
            return star
        if not cs.exists():
            raise InputError(
                f"{self.out}: {self.folder} has no particles.cs, since its run was not given a .cs "
                "file. Write a .star file."
            )
        return cs
