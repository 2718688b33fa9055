"""``jaxrelax predict``."""
# ruff: noqa: RUF009  (defaults are read from the components, and are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from jaxrelax.assessment import partner_ball, predict_registers
from jaxrelax.cli.console import RunConsole
from jaxrelax.cli.option_groups import MapOptions, PoseErrorOptions, RegisterOptions, TableOptions
from jaxrelax.cli.options import Switch, checked, default_of, refuse_idle
from jaxrelax.cli.table_output import check_table_output, write_table
from jaxrelax.geometry import parse_group
from jaxrelax.io import InputError
from jaxrelax.judgement import Discriminability
from jaxrelax.reconstruction import symmetrise
from jaxrelax.refinement import Map
from jaxrelax.refinement.reference_group import require_group

BALL_OPTIONS = ("partner_kda", "partner_at", "mass_kda")


@dataclass(frozen=True)
class Command:
    """Say how well registers could be told apart, image by image, before any refinement."""

    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with poses and CTFs."""
    relax: Annotated[str, tyro.conf.arg(aliases=["--symmetry"])]
    """The symmetry that would be relaxed (C4, D3, T, O, I, or a text file of operators)."""
    map: Path | None = None
    """A map with the asymmetry (.mrc). Its noise counts as asymmetry: give a good one, or use the
    prediction at the end of a refinement."""
    reference: Path | None = None
    """Instead of --map: the symmetric map (.mrc), to which a ball of protein is added."""
    partner_kda: float | None = None
    """With --reference: mass of the partner (kDa)."""
    partner_at: tuple[float, float, float] | None = None
    """With --reference: x y z of the partner's centre (Å from the box centre); by default on the
    surface, where its symmetry mates are furthest away."""
    mass_kda: float | None = None
    """With --reference: mass of what the reference shows (kDa), for the grey value of protein; by
    default from its volume."""
    max_resolution: float = default_of(predict_registers, "max_resolution")
    """Use frequencies up to this resolution (Å)."""
    mode: Literal["local", "registers"] = "local"
    """Poses are known to a prior of the widths below, or taken for exact."""
    particle_diameter: float | None = default_of(predict_registers, "particle_diameter")
    """Diameter of the particle, partner included (Å); by default from the map."""
    normalise: Literal["auto", "yes", "no"] = default_of(predict_registers, "normalise")
    """Normalise the background of every image; auto looks at all of them, and normalises the
    optics groups that need it."""
    contrast: Literal["auto", "white", "black"] = default_of(predict_registers, "contrast")
    """Of the particles in the images; auto compares them with the map, and inverts images that are
    clearly black."""
    seed: int = default_of(predict_registers, "seed")
    """Seed of the samples of images for noise and grey scale."""
    force_group: Switch = False
    """Go on, with a warning, where the map does not have the symmetry that is said."""
    out: Path | None = None
    """Write the particles (.star, or .cs if they came from one) with the columns
    jrxDiscriminability (nats) and jrxExpectedAccuracy."""
    overwrite: Switch = False
    """With --out: replace the file if it is there."""

    relaxation: tyro.conf.OmitArgPrefixes[RegisterOptions] = RegisterOptions()
    pose_error: tyro.conf.OmitArgPrefixes[PoseErrorOptions] = PoseErrorOptions()
    """With --mode local: how well the poses are known."""
    maps: tyro.conf.OmitArgPrefixes[MapOptions] = MapOptions()
    table: tyro.conf.OmitArgPrefixes[TableOptions] = TableOptions()

    def run(self) -> Discriminability:
        """Print the prediction, and write it if asked to.

        Raises:
            InputError: an option that cannot act or is missing, or anything about the input.
        """
        self._check()
        mode = self.pose_error.mode("--mode", self.mode)
        relax = self.relaxation.component(self.relax)
        with RunConsole() as console:
            particles = self.table.read(self.particles)
            found = predict_registers(
                particles,
                self._map(),
                relax,
                mode=mode,
                max_resolution=self.max_resolution,
                particle_diameter=self.particle_diameter,
                normalise=self.normalise,
                contrast=self.contrast,
                seed=self.seed,
                force_group=self.force_group,
            )
            console.say(found.summary())
            if self.out is not None:
                write_table(particles.with_updates(extra_columns=found.columns()), self.out)
                console.say(f"{self.out}: {len(particles)} particles")
        return found

    def _map(self) -> Map | Path:
        if self.map is not None:
            return self.maps.later(self.map)
        assert self.reference is not None
        assert self.partner_kda is not None
        group = checked(parse_group, group=self.relax)
        reference = self.maps.read(self.reference)
        values, pixel = reference.values, reference.pixel_size_angstrom
        # Symmetrised below it has whatever group is said.
        require_group(values, group, str(self.reference), force=self.force_group)
        ball = partner_ball(
            values, pixel, group, self.partner_kda,
            centre_angstrom=self.partner_at, reference_mass_kda=self.mass_kda,
        )  # fmt: skip
        # What the reference has of asymmetry is noise here.
        return Map(np.asarray(symmetrise(values, group)) + ball, pixel, reference.name)

    def _check(self) -> None:
        """Refuse options before anything is read."""
        if (self.map is None) == (self.reference is None):
            raise InputError(
                "give one of --map (a map with the asymmetry) and --reference (the symmetric map, "
                "with --partner-kda)."
            )
        if self.map is not None:
            refuse_idle(self, BALL_OPTIONS, "can act only with --reference")
        elif self.partner_kda is None:
            raise InputError("--reference: say with --partner-kda how heavy the partner is.")
        if self.max_resolution <= 0:
            raise InputError(f"--max-resolution is {self.max_resolution:g} Å; it must be above 0.")
        if self.out is None:
            refuse_idle(self, ["overwrite"], "can act only with --out")
        else:
            check_table_output(self.out, self.particles, overwrite=self.overwrite)
