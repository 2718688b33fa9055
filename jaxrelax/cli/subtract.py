"""``jaxrelax subtract``."""
# ruff: noqa: RUF009  (defaults are read from the functions, and are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.option_groups import MapOptions, TableOptions
from jaxrelax.cli.options import Switch, default_of, flag, given_options, refuse_idle
from jaxrelax.cli.table_output import GROUP, check_table_output
from jaxrelax.io import InputError, Particles, drop_bad_images, require_writable
from jaxrelax.io.moved import HeightSign, Moved, require_unmoved
from jaxrelax.io.original_images import original_images, write_original
from jaxrelax.io.reading import load_particles
from jaxrelax.io.registers import REGISTERS, RegisterPosterior, has_registers, read_registers
from jaxrelax.io.result_groups import write_particle_group
from jaxrelax.refinement.reference import load_mask, on_box
from jaxrelax.refinement.subtracted_files import TABLE, Layout, write_subtracted
from jaxrelax.refinement.subtraction import Scale, Subtraction, mass_centre

# Of a box; smaller ones hold nothing that could be refined.
SMALLEST_BOX = 16


@dataclass(frozen=True)
class Command:
    """Take the projections of what lies outside a mask away from every image; or find the original
    images of such a table again, with --revert.
    """

    out: Path
    """The folder to write stack and table into; with --revert the table to write (.star, or .cs if
    it came from one)."""
    particles: tyro.conf.Positional[Path | None] = None
    """RELION .star file or cryoSPARC .cs file with poses and CTFs."""
    map: Path | None = None
    """Map (.mrc) of the whole particle, in the frame of the poses."""
    keep: Path | None = None
    """Mask (.mrc) of the part that stays in the images."""
    registers: Path | None = None
    """Posterior over registers (registers.npz) that was written with the table; by default the one
    beside it. What is subtracted is the mean over it."""
    table_poses: Switch = False
    """Subtract at the poses of the table, whatever other registers there may be."""
    scale: float | None = None
    """Factor that brings the map to the grey scale of the images; by default found by least
    squares over all images. Maps that jaxrelax wrote have 1."""
    recentre: Switch = False
    """Move the centre of the box to the part: to the centre of mass of its mask, or --fulcrum."""
    fulcrum: tuple[float, float, float] | None = None
    """With --recentre: the point (x y z, Å from the centre of the box) that becomes the centre."""
    defocus_by_height: HeightSign = "minus"
    """With --recentre: defocus of a centre that is higher along the beam than the old one: less by
    its height; more (plus), where images were mirrored; or as it was (none)."""
    box: int | None = None
    """Cut a window of this many pixels about the particle's (new) centre out of every image."""
    dtype: Literal["float32", "float16"] = default_of(write_subtracted, "dtype")  # type: ignore[assignment]
    """Type of the pixels (float16 is half the size; RELION before version 4 does not read it)."""
    revert: Path | None = None
    """A table of subtracted particles, maybe refined further: write it with its original images."""
    skip_bad_images: Switch = default_of(drop_bad_images, "skip_bad")
    """Leave out images that are constant or have pixels that are no numbers, instead of
    stopping."""
    overwrite: Switch = False
    """Replace files that are there."""

    table: tyro.conf.OmitArgPrefixes[TableOptions] = TableOptions()
    maps: tyro.conf.OmitArgPrefixes[MapOptions] = MapOptions()

    def run(self) -> Particles:
        """Write the subtracted particles, or revert a table.

        Raises:
            InputError: anything about the input or the options; nothing is written then.
        """
        if self.revert is not None:
            return self._revert(self.revert)
        if self.particles is None or self.map is None or self.keep is None:
            names = ("particles", "map", "keep")
            missing = [name for name in names if getattr(self, name) is None]
            raise InputError(f"{_said(missing)}: missing; or give a table to --revert.")
        self._check_options()
        with RunConsole() as console:
            return self._subtract(console, self.particles, self.map, self.keep)

    def _subtract(self, console: RunConsole, source: Path, map_: Path, keep: Path) -> Particles:
        particles = self.table.read(source)
        require_unmoved(particles)
        registers = self._registers(particles)
        layout = Layout.of(particles, self.out, self.box)
        layout.require_free(particles, overwrite=self.overwrite)
        optics = particles.optics[0]
        box, pixel = optics.box, optics.pixel_size_angstrom
        whole = self.maps.read(map_)
        values = on_box(whole.values, whole.pixel_size_angstrom, box, pixel, whole.name)
        mask = load_mask(keep, box, pixel, 2.0 * box * pixel)
        particles = drop_bad_images(particles, self.skip_bad_images)
        if registers is not None:
            registers = registers.select(particles.rows_of_file())
        # Optics groups of which nothing is left have no place in stacks.
        layout = Layout.of(particles, self.out, self.box)
        layout.require_free(particles, overwrite=self.overwrite)
        subtraction = Subtraction(particles, values, mask, registers)
        moved = Moved.to(
            particles,
            self._centre(mask, pixel),
            defocus_by_height=self.defocus_by_height,
            box=self.box,
        )
        _make_folder(self.out)
        if self.scale is None:
            scale = subtraction.matched_scale()
        else:
            scale = Scale((self.scale,) * len(particles.optics), self.scale)
        summary = write_subtracted(subtraction, scale, moved, layout, self.dtype)
        for line in _lines(summary, layout, particles):
            console.say(line)
        return particles

    def _check_options(self) -> None:
        if not self.recentre:
            refuse_idle(self, ["fulcrum", "defocus_by_height"], "can act only with --recentre")
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"--scale is {self.scale:g}; the scale of a map is positive.")
        if self.fulcrum is not None and not np.all(np.isfinite(self.fulcrum)):
            raise InputError("--fulcrum: its three numbers are finite, in Å.")
        if self.box is not None and (self.box % 2 or self.box < SMALLEST_BOX):
            raise InputError(
                f"--box is {self.box}; the box of images is even, and at least {SMALLEST_BOX}."
            )
        if self.table_poses:
            refuse_idle(self, ["registers"], "not with --table-poses")
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file, not a folder. Name another folder.")
        require_writable(self.out)

    def _registers(self, particles: Particles) -> RegisterPosterior | None:
        if self.table_poses:
            return None
        if self.registers is not None:
            return read_registers(self.registers, particles)
        beside = particles.source.with_name(REGISTERS)
        if not has_registers(particles):
            return None
        if not beside.exists():
            raise InputError(
                f"{particles.source}: comes from a relaxed run, and there is no {beside} with the "
                "posterior over registers. Name it with --registers, or subtract at the poses of "
                "the table (--table-poses)."
            )
        return read_registers(beside, particles)

    def _centre(self, mask: np.ndarray, pixel: float) -> np.ndarray | None:
        if not self.recentre:
            return None
        return mass_centre(mask, pixel) if self.fulcrum is None else np.array(self.fulcrum)

    def _revert(self, source: Path) -> Particles:
        allowed = {"out", "revert", "overwrite", "image_root", "passthrough"}
        idle = [name for name in given_options(self) if name not in allowed]
        if idle:
            words = ", ".join(
                "the table of particles" if n == "particles" else flag(n) for n in idle
            )
            raise InputError(f"{words}: cannot act with --revert.")
        if source.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        check_table_output(self.out, source, overwrite=self.overwrite)
        with RunConsole() as console:
            particles = load_particles(
                source, self.table.image_root, passthrough=self.table.passthrough,
                require_poses=False, require_ctf=False,
            )  # fmt: skip
            original = original_images(particles)
            write_original(original, self.out)
            if self.out.suffix == ".cs":
                write_particle_group(self.out.with_suffix(GROUP), self.out, "Particles")
            console.say(f"{self.out}: {len(original)} particles with their original images")
        return original


def _said(names: list[str]) -> str:
    """Options by their names."""
    return ", ".join("the table of particles" if n == "particles" else flag(n) for n in names)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}).") from error


def _lines(summary: dict, layout: Layout, particles: Particles) -> list[str]:
    """What was done, in words."""
    scale = summary["scale"]
    factors = " ".join(f"{factor:.4g}" for factor in scale["factors"])
    told = [f"scale of the map: {factors}"]
    if scale["correlation"] is not None:
        told[0] += f" (correlation with the images {scale['correlation']:.3f})"
    told.append(f"{100.0 * summary['share_of_power_outside']:.1f} % of its power is subtracted")
    if summary["registers"] is not None:
        told.append(
            f"the mean over {summary['registers']['number']} registers (mean maximal posterior "
            f"{summary['registers']['mean_max_posterior']:.3f})"
        )
    if summary["centre_angstrom"] is not None:
        x, y, z = summary["centre_angstrom"]
        told.append(f"centre moved to {x:.1f} {y:.1f} {z:.1f} Å")
    if summary["windows_beyond_their_image"]:
        told.append(
            f"{summary['windows_beyond_their_image']} windows of {summary['box']} px reach beyond "
            "their image; they have the mean of its background there"
        )
    return [*told, f"{layout.folder / (TABLE + '.star')}: {len(particles)} particles"]
