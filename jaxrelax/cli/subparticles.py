"""``jaxrelax subparticles``."""
# ruff: noqa: RUF009  (defaults are read from the functions, and are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.options import Switch, checked, default_of, refuse_idle
from jaxrelax.cli.table_output import check_table_output, write_table
from jaxrelax.geometry import PointGroup, equivalent_sites, parse_group
from jaxrelax.io import InputError, Particles, Windows, read_particles
from jaxrelax.io.moved import HeightSign
from jaxrelax.io.reading import load_particles
from jaxrelax.io.subparticles import sub_particles
from jaxrelax.io.windows import plan_windows, write_windows


@dataclass(frozen=True)
class Command:
    """Write a site of every particle, in each of its copies, as particles of their own."""

    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with poses and CTFs."""
    symmetry: str
    """The symmetry (C4, D3, T, O, I1, or a text file of operators); C1 for one site alone."""
    at: tuple[float, float, float]
    """The site: x, y and z in Å from the centre of the map's box. On an axis, it has fewer
    copies."""
    out: Path
    """The table to write (.star, or .cs if the particles came from one). It has the columns
    jrxParent (row of the input), jrxCopy (operator) and jrxHeight (Å)."""
    box: int | None = None
    """Cut windows of this side (pixels) and write them as a stack beside the table (.mrcs). Without
    it the table names the images of the particles, with large origins."""
    defocus_by_height: HeightSign = default_of(sub_particles, "defocus_by_height")
    """Defocus of a site that is higher along the beam than the particle's centre: less by its
    height; more (plus), where images were mirrored; or that of the particle (none)."""
    leave_out_partial: Switch = default_of(plan_windows, "leave_out_partial")
    """With --box: leave out windows that reach beyond their image. Otherwise they are filled with
    its background."""
    passthrough: tuple[Path, ...] = default_of(read_particles, "passthrough")
    """Passthrough files of a .cs file; by default those of the same job in the same folder."""
    image_root: Path | None = default_of(read_particles, "image_root")
    """Folder that image names are relative to."""
    overwrite: Switch = False
    """Replace files of these names."""

    def run(self) -> Particles:
        """Write the table, and the stack if there is one.

        Raises:
            InputError: anything about the input; nothing is written then.
        """
        if self.particles.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        if self.box is None:
            refuse_idle(self, ["leave_out_partial"], "can act only with --box")
        check_table_output(self.out, self.particles, overwrite=self.overwrite)
        group = checked(parse_group, group=self.symmetry)
        with RunConsole() as console:
            particles = load_particles(
                self.particles, self.image_root, passthrough=self.passthrough,
                require_ctf=self.defocus_by_height != "none",
            )  # fmt: skip
            made = sub_particles(
                particles, group, self.at, defocus_by_height=self.defocus_by_height
            )
            console.say(f"{self.out}: {self._sites(group)}")
            if self.box is None:
                write_table(made, self.out)
            else:
                made = self._cut(made, self.box, console)
            console.say(
                f"{self.out}: {len(made)} sub-particles of {len(particles)} particles; those of "
                "one share its half-set"
            )
        return made

    def _sites(self, group: PointGroup) -> str:
        """How many there are, and why."""
        sites = equivalent_sites(group, self.at)
        count, kept = len(sites.operators), len(sites.stabiliser)
        text = f"{count} sites" if count > 1 else "1 site"
        if kept == 1:
            return f"{text} of {group.name}, in general position"
        place = " ".join(f"{x:.2f}" for x in sites.position.round(2) + 0.0)
        return f"{text} of {group.name}: {kept} operators leave {place} where it is"

    def _cut(self, made: Particles, box: int, console: RunConsole) -> Particles:
        """Cut the windows, and write their table; neither is there without the other.

        Raises:
            InputError: a stack is there already, or see `plan_windows` and `write_windows`.
        """
        windows = plan_windows(
            made, box, self.out.with_suffix(".mrcs"), leave_out_partial=self.leave_out_partial
        )
        self._require_free(windows, made)
        write_windows(windows)
        try:
            write_table(windows.particles, self.out)
        except BaseException:
            for path in windows.particles.stack_paths:
                path.unlink(missing_ok=True)
            raise
        partial = int(windows.partial.sum())
        if partial:
            console.say(
                f"{self.out}: {partial} windows reach beyond their images and are filled with the "
                "background there; --leave-out-partial leaves them out"
            )
        if left := len(made) - len(windows.particles):
            console.say(f"{self.out}: {left} windows reach beyond their images and are left out")
        return windows.particles

    def _require_free(self, windows: Windows, made: Particles) -> None:
        read = {path.resolve() for path in made.stack_paths}
        for path in windows.particles.stack_paths:
            if path.resolve() in read:
                raise InputError(
                    f"{path}: windows would be written over the images that they are cut from. "
                    "Give --out another name."
                )
            if path.exists() and not self.overwrite:
                raise InputError(
                    f"{path}: is there already. Name another table, or --overwrite it."
                )
