"""``jaxrelax align``."""
# ruff: noqa: RUF009  (groups of options are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jaxrelax.cli.console import LOGGER, RunConsole
from jaxrelax.cli.option_groups import MapOptions
from jaxrelax.cli.options import Switch, checked, default_of, refuse_idle
from jaxrelax.cli.table_output import GROUP, write_table
from jaxrelax.geometry import Frame, PointGroup, parse_group
from jaxrelax.imaging import resample_map
from jaxrelax.io import (
    InputError,
    Particles,
    read_particles,
    read_reference,
    require_writable,
    write_map,
)
from jaxrelax.io.reading import load_particles
from jaxrelax.reconstruction import (
    AxisAlignment,
    GroupFits,
    align_axes,
    fits_beside,
    moved,
    symmetry_correlation,
)
from jaxrelax.refinement.part import axis_options, shifted
from jaxrelax.refinement.reference import load_mask
from jaxrelax.refinement.subtraction import mass_centre

FINEST_BOX = 96
# Mean correlation of an aligned map with its rotated copies below which it is called asymmetric.
# Noise has none at any order of the group, while its symmetrised self always holds a part of it.
LEAST_COPY_CORRELATION = 0.3


@dataclass(frozen=True)
class Command:
    """Put the symmetry axes of a map where the group has them, and move the poses with them."""

    map: tyro.conf.Positional[Path]
    """The map (.mrc), with its axes in any orientation, and some pixels off the centre."""
    symmetry: str
    """Its symmetry (C4, D3, T, O, I, or a text file of operators)."""
    out: Path | None = None
    """The aligned map to write (.mrc); may be left out with --mask."""
    mask: Path | None = None
    """Mask (.mrc): look for the axes of what is inside alone, and say where they are, in the
    words of `jaxrelax refine --mask`."""
    particles: Path | None = None
    """Particles (.star or .cs) with poses in the frame of the map."""
    out_particles: Path | None = None
    """With --particles: the same particles in the frame of the aligned map (.star, or .cs if they
    came from one)."""
    passthrough: tuple[Path, ...] = default_of(read_particles, "passthrough")
    """Passthrough files of a .cs file; by default those of the same job in the same folder."""
    image_root: Path | None = default_of(read_particles, "image_root")
    """With --particles: folder that image names are relative to."""
    force_group: Switch = False
    """Go on, with a warning, where the map does not have the symmetry that is said."""
    overwrite: Switch = False
    """Replace files of these names."""
    maps: tyro.conf.OmitArgPrefixes[MapOptions] = MapOptions()

    def run(self) -> AxisAlignment:
        """Write the aligned map, and the particles if there are any.

        Raises:
            InputError: the map does not have that symmetry, or anything else about the input;
                nothing is written then.
        """
        self._check()
        group: PointGroup = checked(parse_group, group=self.symmetry)
        if group.order == 1:
            raise InputError("--symmetry C1 has no axes to align. Name the symmetry of the map.")
        with RunConsole() as console:
            map_, pixel = read_reference(self.map, self.maps.map_pixel_size_angstrom)
            particles = None
            if self.particles is not None:
                particles = load_particles(
                    self.particles,
                    self.image_root,
                    passthrough=self.passthrough,
                    require_ctf=False,
                )
            steps = np.zeros(3, int)
            looked_at = map_
            if self.mask is not None:
                mask = load_mask(self.mask, len(map_), pixel, 2.0 * len(map_) * pixel)
                # From its middle on: axes are looked for around the centre of a box.
                steps = np.rint(mass_centre(mask, pixel) / pixel).astype(int)
                looked_at = shifted(map_ * mask, -steps)
            found = align_axes(looked_at, group, FINEST_BOX)
            aligned = moved(looked_at, found.rotation, found.centre_px)
            if (doubt := self._doubt(looked_at, aligned, found, group)) is not None:
                if not self.force_group:
                    raise InputError(f"{doubt} (--force-group writes it all the same.)")
                LOGGER.warning("%s", doubt)
            found = found._replace(centre_px=found.centre_px + steps)
            console.say(self._where(found, group, pixel))
            console.say(
                "correlation with its symmetrised self: "
                f"{found.correlation:.3f} before, {found.aligned_correlation:.3f} after"
            )
            if self.out is not None:
                write_map(self.out, moved(map_, found.rotation, found.centre_px), pixel)
                console.say(f"{self.out}: the aligned map")
            if particles is not None and self.out_particles is not None:
                particles = aligned_particles(particles, found, pixel)
                write_table(particles, self.out_particles)
                console.say(f"{self.out_particles}: {len(particles)} particles in its frame")
        return found

    def _where(self, found: AxisAlignment, group: PointGroup, pixel: float) -> str:
        """Where the axes are: off those of the box, or of a part by themselves."""
        if self.mask is None:
            return (
                f"{self.map}: axes of {group.name} were off by {found.angle_deg:.2f}° and "
                f"{found.shift_px:.2f} px ({found.shift_px * pixel:.2f} Å)"
            )
        frame = Frame(found.rotation, np.asarray(found.centre_px) * pixel)
        return (
            f"{self.map}: inside {self.mask} {group.name} is about an axis that is off z by "
            f"{found.angle_deg:.1f}° and off the centre by {frame.off_axis_angstrom:.1f} Å: "
            f"{axis_options(frame.centre_angstrom, frame.axes[2])}"
        )

    def _check(self) -> None:
        """Refuse options and names before anything is read."""
        if self.out is None:
            if self.mask is None:
                raise InputError("--out: say where the aligned map goes.")
            idle = ["particles", "out_particles", "overwrite"]
            refuse_idle(self, idle, "can act only with --out")
        if self.particles is None:
            refuse_idle(self, ["out_particles", "image_root"], "can act only with --particles")
        elif self.out_particles is None:
            raise InputError(
                "--particles: say with --out-particles where the aligned particles go."
            )
        if self.particles is None or self.particles.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        if self.out is not None and self.out.suffix not in (".mrc", ".map"):
            raise InputError(f"{self.out}: a map is written as .mrc. Name the file so.")
        outputs = [] if self.out is None else [self.out]
        if self.particles is not None and self.out_particles is not None:
            outputs.append(self.out_particles)
            if self.out_particles.suffix not in (".star", self.particles.suffix):
                raise InputError(
                    f"{self.out_particles}: particles of {self.particles} are written as "
                    f"{' or '.join(dict.fromkeys(['.star', self.particles.suffix]))}. Name the "
                    "file so."
                )
            if self.out_particles.suffix == ".cs":
                outputs.append(self.out_particles.with_suffix(GROUP))
        for path in outputs:
            if path.exists() and any(
                source is not None and source.exists() and path.samefile(source)
                for source in (self.map, self.particles)
            ):
                raise InputError(f"{path}: is what is to be aligned. Name another file.")
            if path.exists() and not self.overwrite:
                raise InputError(f"{path}: is there already. Name another file, or --overwrite it.")
            if not path.parent.is_dir():
                raise InputError(f"{path.parent}: no such folder. Make it, or name another.")
            require_writable(path.parent)

    def _doubt(self, map_, aligned, found: AxisAlignment, group: PointGroup) -> str | None:
        """Why the map does not seem to have that symmetry, even aligned; or None."""
        # ‖Sym V‖² ÷ ‖V‖² is the mean over the group of the correlations of V with g V, and that
        # with itself is 1.
        copies = (group.order * found.aligned_correlation**2 - 1) / (group.order - 1)
        # Another group may hold as the map is, or only when it is aligned.
        before, after = (
            GroupFits(np.asarray(resample_map(m, min(len(m), FINEST_BOX)))).judge(
                group, aligned=True
            )
            for m in (map_, aligned)
        )
        others = [verdict.better for verdict in (before, after) if verdict.better is not None]
        better = max(others, key=lambda fit: fit.copies, default=None)
        if better is not None and not fits_beside(after.asked, better, aligned=True):
            has = symmetry_correlation(resample_map(map_, min(len(map_), FINEST_BOX)), better.group)
            return (
                f"{self.map}: this map has {better.group.name} ({has:.3f}), not {group.name} "
                f"({found.aligned_correlation:.3f} after alignment; without what is alike at every "
                f"angle {better.copies:.2f} and {after.asked.copies:.2f}). Check --symmetry."
            )
        if copies < LEAST_COPY_CORRELATION or after.refused:
            return (
                f"{self.map}: does not look like it has the symmetry {group.name}: at best it "
                f"correlates {max(copies, 0.0):.2f} with its rotated copies. Check --symmetry; if "
                "that is right, its axes were not found, and relion_align_symmetry may find them."
            )
        return None


def aligned_particles(
    particles: Particles, found: AxisAlignment, map_pixel_size_angstrom: float
) -> Particles:
    """The particles in the frame of the aligned map."""
    frame = Frame(found.rotation, np.asarray(found.centre_px) * map_pixel_size_angstrom)
    rotations, origins = frame.poses(
        particles.rotations, particles.origins_angstrom, particles.magnifications
    )
    return particles.with_updates(rotations=rotations, origins_angstrom=origins)
