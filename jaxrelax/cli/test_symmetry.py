"""``jaxrelax test-symmetry``."""
# ruff: noqa: RUF009  (defaults are read from the components, and are immutable)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrelax.assessment import save, symmetry_summary, warnings
from jaxrelax.cli.console import LOGGER, ProgressBars, RunConsole
from jaxrelax.cli.options import checked, default_of, refuse_idle
from jaxrelax.cli.refine import LOCAL_OPTIONS, MOST_ITERATIONS, SETTLED
from jaxrelax.io import InputError, OutputFolder, drop_bad_images, read_particles
from jaxrelax.refinement import Local, MaxIterations, Mode, Registers, Relax, refine
from jaxrelax.refinement.result import Result

Switch = tyro.conf.FlagCreatePairsOff[bool]

# Field of the component → option.
RELAX_OPTIONS = {
    "to": "to",
    "mask": "register_mask",
    "max_resolution": "register_max_resolution",
    "cross_fit": "cross_fit",
    "prior": "prior",
    "optimism": "optimism",
    "junk": "junk",
    "start": "start",
}


@dataclass(frozen=True)
class Command:
    """Say which symmetry held-out images support: that of the consensus, or which subgroup."""

    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with poses and CTFs."""
    reference: Path
    """Map to start from (.mrc), in the frame of the poses."""
    group: str
    """The symmetry of the consensus (C4, D7, T, O, I, or a text file of operators)."""
    to: str = default_of(Relax, "to")
    """The subgroup that is taken for granted; symmetries between the two are tested."""
    out: Path | None = None
    """Folder for symmetry_test.json, the report and the maps; without it nothing is written."""

    poses: Literal["fixed", "local"] = "fixed"
    """Hold the poses, or refine them locally. Errors of the poses can look like asymmetry."""
    sigma_rotation_deg: float = default_of(Local, "sigma_rotation_deg")
    """With --poses local: starting width of the pose prior per rotation axis (degrees)."""
    sigma_shift_angstrom: float = default_of(Local, "sigma_shift_angstrom")
    """With --poses local: starting width of the pose prior per shift axis (Å)."""
    learn_prior: bool = default_of(Local, "learn_prior")
    """With --poses local: let these widths follow the posterior."""

    register_mask: Path | None = default_of(Relax, "mask")
    """Mask (.mrc): only density inside it is tested."""
    register_max_resolution: float | None = default_of(Relax, "max_resolution")
    """Only frequencies up to this resolution (Å) are tested."""
    cross_fit: int = default_of(Relax, "cross_fit")
    """Folds per half-set; images are scored against maps without their fold."""
    prior: Literal["isotypic", "plain"] = default_of(Relax, "prior")
    """Give the asymmetric part a gain and a strength of its own, or take one FSC for the whole
    map, as other programs do."""
    optimism: float = default_of(Relax, "optimism")
    """Standard errors added to the asymmetric FSC until it stands without. Acts on the isotypic
    prior only."""
    junk: bool = default_of(Relax, "junk")
    """Infer which images show no particle, or a symmetric one, and count them by the probability
    that they do not."""
    start: Literal["symmetric", "reference", "poses"] = default_of(Relax, "start")
    """Start from the symmetrised reference, the reference as it is, or the registers of the input
    poses."""
    ini_high: float = default_of(refine, "ini_high")
    """Resolution (Å) to which the reference is used."""
    particle_diameter: float | None = default_of(refine, "particle_diameter")
    """Diameter of the particle (Å); by default from the reference."""
    normalise: Literal["auto", "yes", "no"] = default_of(refine, "normalise")
    """Normalise the background of every image; auto looks whether it is."""
    max_iterations: int = MOST_ITERATIONS
    """Stop after so many iterations at the latest."""
    seed: int = default_of(refine, "seed")
    """Seed of everything random."""

    image_root: Path | None = default_of(read_particles, "image_root")
    """Folder that image names are relative to."""
    passthrough: tuple[Path, ...] = default_of(read_particles, "passthrough")
    """Passthrough files of a .cs file; by default those of the same job in the same folder."""
    ignore_aberrations: Switch = default_of(read_particles, "ignore_aberrations")
    """Go on although the table has aberrations that are not modelled."""
    skip_bad_images: Switch = default_of(drop_bad_images, "skip_bad")
    """Leave out images that are constant or hold NaN, instead of stopping."""
    overwrite: Switch = False
    """With --out: replace the results of an earlier run in the folder."""
    cache_gib: float = default_of(refine, "cache_gib")
    """Memory for images between iterations (GiB)."""
    quiet: Annotated[Switch, tyro.conf.arg(aliases=["-q"])] = False
    """Show only the table, warnings and errors."""

    def run(self) -> Result:
        """Relax, test, and print the table of symmetries.

        Raises:
            InputError: as `jaxrelax.refine`; the folder is not made then.
        """
        relax, mode = self._components()
        with RunConsole(self.quiet) as console:
            particles = read_particles(
                self.particles,
                self.image_root,
                passthrough=self.passthrough,
                ignore_aberrations=self.ignore_aberrations,
            )
            particles = drop_bad_images(particles, self.skip_bad_images)
            bars = ProgressBars(console)
            try:
                result = refine(
                    particles,
                    self.reference,
                    mode=mode,
                    relax=relax,
                    until=SETTLED | MaxIterations(self.max_iterations),
                    callbacks=(bars,),
                    ini_high=self.ini_high,
                    particle_diameter=self.particle_diameter,
                    normalise=self.normalise,
                    seed=self.seed,
                    cache_gib=self.cache_gib,
                    subgroups="all",
                )
            finally:
                bars.stop()
            if self.out is not None:
                folder = OutputFolder.create(self.out, overwrite=self.overwrite)
                save(result, folder)
                folder.write_json("symmetry_test.json", symmetry_summary(result))
                LOGGER.info("Results are in %s.", folder.path)
            for note in warnings(result):
                LOGGER.warning("%s", note)
        assert result.evidence is not None  # there is relaxation
        print(result.evidence.table())
        print(result.evidence.sentence())
        return result

    def _components(self) -> tuple[Relax, Mode]:
        """Relaxation and mode of these options; the folder is looked at, not made."""
        if self.max_iterations < 1:
            raise InputError(f"--max-iterations is {self.max_iterations}; at least 1 is needed.")
        if self.cache_gib < 0:
            raise InputError(f"--cache-gib is {self.cache_gib:g}; it cannot be negative.")
        if self.particles.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        if self.out is None:
            refuse_idle(self, ["overwrite"], "can act only with --out")
        elif self.out.is_file():
            raise InputError(f"{self.out}: is a file, not a folder. Name another folder.")
        elif self.out.exists() and any(self.out.iterdir()) and not self.overwrite:
            raise InputError(
                f"{self.out}: the output folder is not empty. Name another one, or --overwrite it."
            )
        if self.prior == "plain":
            refuse_idle(self, ["optimism"], "can act only with --prior isotypic")
        fields = {field: getattr(self, option) for field, option in RELAX_OPTIONS.items()}
        if self.register_mask is not None:
            fields["mask"] = str(self.register_mask)
        relax = checked(Relax, group=self.group, **fields)
        if self.poses == "fixed":
            refuse_idle(self, LOCAL_OPTIONS.values(), "can act only with --poses local")
            return relax, Registers()
        widths = {field: getattr(self, option) for field, option in LOCAL_OPTIONS.items()}
        return relax, checked(Local, **widths)
