"""``jaxrelax refine``."""
# ruff: noqa: RUF009  (defaults are read from the components, and are immutable)

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxrelax.assessment import consequence, save, warnings
from jaxrelax.cli.console import LOGGER, ProgressBars, RunConsole
from jaxrelax.cli.options import checked, default_of, flag, refuse_idle
from jaxrelax.imaging import NoiseModel, RadialNoise, SmoothNoise
from jaxrelax.io import InputError, OutputFolder, Particles, drop_bad_images, read_particles
from jaxrelax.refinement import Callback, Local, MaxIterations, Mode, Registers, Relax, refine
from jaxrelax.refinement.criteria import Either
from jaxrelax.refinement.refine import DEFAULT_UNTIL
from jaxrelax.refinement.result import Result

Switch = tyro.conf.FlagCreatePairsOff[bool]

# Field of the component → option. The tests hold these complete.
RELAX_OPTIONS = {
    "to": "to",
    "mask": "register_mask",
    "max_resolution": "register_max_resolution",
    "register": "register",
    "cross_fit": "cross_fit",
    "prior": "prior",
    "optimism": "optimism",
    "junk": "junk",
    "start": "start",
}
LOCAL_OPTIONS = {
    "sigma_rotation_deg": "sigma_rotation_deg",
    "sigma_shift_angstrom": "sigma_shift_angstrom",
    "learn_prior": "learn_prior",
}
assert isinstance(DEFAULT_UNTIL, Either)
SETTLED, LIMIT = DEFAULT_UNTIL.first, DEFAULT_UNTIL.second
assert isinstance(LIMIT, MaxIterations)
MOST_ITERATIONS = LIMIT.iterations
NOISE = {"from-images": True, "white": False}


def noise_default() -> Literal["from-images", "white"]:
    """The noise model's own default as this command calls it."""
    return "from-images" if default_of(RadialNoise, "from_images") else "white"


@dataclass(frozen=True)
class Command:
    """Refine particles with consensus poses, with or without symmetry relaxation."""

    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with poses and CTFs."""
    reference: Path
    """Map to start from (.mrc), in the frame of the poses."""
    out: Path
    """Output folder; made if it does not exist, must be empty otherwise (or see --resume)."""

    relax: str | None = None
    """Relax this symmetry (C4, D3, T, O, I, or a text file of operators): find the register of
    every particle."""
    to: str = default_of(Relax, "to")
    """With --relax: the subgroup that is kept."""
    register_mask: Path | None = default_of(Relax, "mask")
    """With --relax: mask (.mrc); only density inside it tells registers apart."""
    register_max_resolution: float | None = default_of(Relax, "max_resolution")
    """With --relax: registers are told apart by frequencies up to this resolution (Å)."""
    register: Literal["soft", "hard"] = default_of(Relax, "register")
    """With --relax: give an image to all registers by their probability, or to the best."""
    cross_fit: int = default_of(Relax, "cross_fit")
    """With --relax: folds per half-set; images are scored against maps without their fold. 1
    scores them against maps that contain them."""
    prior: Literal["isotypic", "plain"] = default_of(Relax, "prior")
    """With --relax: give the asymmetric part a gain and a strength of its own, or take one FSC for
    the whole map, as other programs do."""
    optimism: float = default_of(Relax, "optimism")
    """With --relax: standard errors added to the asymmetric FSC until it stands without. Acts on
    the isotypic prior only."""
    junk: bool = default_of(Relax, "junk")
    """With --relax: infer which images show no particle, or a symmetric one, and count them by
    the probability that they do not."""
    start: Literal["symmetric", "reference", "poses"] = default_of(Relax, "start")
    """With --relax: start from the symmetrised reference, the reference as it is, or the
    registers of the input poses."""

    subgroups: Literal["auto", "all", "none"] = default_of(refine, "subgroups")
    """With --relax: which of its subgroups the images are asked about besides the group itself;
    auto asks about all if the group is rejected and has no more than 24 operators."""

    mode: Literal["local", "registers"] = "local"
    """Refine poses locally, or hold them and infer registers only."""
    sigma_rotation_deg: float = default_of(Local, "sigma_rotation_deg")
    """With --mode local: starting width of the pose prior per rotation axis (degrees)."""
    sigma_shift_angstrom: float = default_of(Local, "sigma_shift_angstrom")
    """With --mode local: starting width of the pose prior per shift axis (Å)."""
    learn_prior: bool = default_of(Local, "learn_prior")
    """With --mode local: let these widths follow the posterior."""

    symmetry: str = default_of(refine, "symmetry")
    """Without --relax: symmetry of the map."""
    ini_high: float = default_of(refine, "ini_high")
    """Resolution (Å) to which the reference is used."""
    particle_diameter: float | None = default_of(refine, "particle_diameter")
    """Diameter of the particle (Å); by default from the reference."""
    noise: Literal["from-images", "white", "smooth"] = noise_default()
    """Starting noise: from the background of the images, or white of unit variance. smooth starts
    from the background too and learns a smooth spectrum, for optics groups of few images."""
    fixed_noise: Switch = default_of(RadialNoise, "fixed")
    """Keep the starting noise spectrum, instead of learning it."""
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

    resume: Switch = False
    """Go on from the checkpoint in the output folder."""
    overwrite: Switch = False
    """Replace the results of an earlier run in the output folder."""
    cache_gib: float = default_of(refine, "cache_gib")
    """Memory for images between iterations (GiB)."""
    quiet: Annotated[Switch, tyro.conf.arg(aliases=["-q"])] = False
    """Show only warnings and errors; log.txt has everything."""

    @property
    def interrupted(self) -> str:
        """What to say after Ctrl-C."""
        if not self.out.is_dir():
            return "interrupted; nothing was written."
        return "interrupted. The same command with --resume goes on from the last iteration."

    def run(self) -> Result:
        """Refine, save everything, and say what was found."""
        mode, relax, noise = self.components()
        _check_folder(self.out, self.resume, self.overwrite)
        with RunConsole(self.quiet) as console:
            particles = self.read_particles()
            bars = ProgressBars(console)
            folder = OutputFolder(self.out)
            try:
                result = refine(
                    particles,
                    self.reference,
                    mode=mode,
                    relax=relax,
                    symmetry=self.symmetry,
                    noise=noise,
                    until=SETTLED | MaxIterations(self.max_iterations),
                    callbacks=(_MakeFolder(self, console), bars),
                    out=folder,
                    resume=self.resume,
                    ini_high=self.ini_high,
                    particle_diameter=self.particle_diameter,
                    normalise=self.normalise,
                    seed=self.seed,
                    cache_gib=self.cache_gib,
                    subgroups=self.subgroups,
                )
            finally:
                bars.stop()
            save(result, folder)
            tell(result, folder)
        return result

    def components(self) -> tuple[Mode, Relax | None, NoiseModel]:
        """Mode, relaxation and noise model of these options.

        Raises:
            InputError: a value is out of range, or an option is given that cannot act.
        """
        if self.max_iterations < 1:
            raise InputError(f"--max-iterations is {self.max_iterations}; at least 1 is needed.")
        if self.cache_gib < 0:
            raise InputError(f"--cache-gib is {self.cache_gib:g}; it cannot be negative.")
        relax = None
        if self.relax is None:
            refuse_idle(self, [*RELAX_OPTIONS.values(), "subgroups"], "can act only with --relax")
        else:
            if self.prior == "plain":
                refuse_idle(self, ["optimism"], "can act only with --prior isotypic")
            relax = checked(Relax, group=self.relax, **self._fields(RELAX_OPTIONS))
        if self.mode == "registers":
            refuse_idle(self, LOCAL_OPTIONS.values(), "can act only with --mode local")
            if relax is None:
                raise InputError(
                    "--mode registers infers registers, and there are none without --relax. Name "
                    "the symmetry to relax, or use `jaxrelax reconstruct` for a map at given poses."
                )
            mode: Mode = Registers()
        else:
            mode = checked(Local, **self._fields(LOCAL_OPTIONS))
        return mode, relax, self._noise()

    def _noise(self) -> NoiseModel:
        if self.noise == "smooth":
            refuse_idle(self, ["fixed_noise"], "cannot act with --noise smooth, which is learned")
            return SmoothNoise()
        return RadialNoise(from_images=NOISE[self.noise], fixed=self.fixed_noise)

    def read_particles(self) -> Particles:
        """The table, with images that cannot be used refused or left out.

        Raises:
            InputError: see `jaxrelax.io.read_particles` and `jaxrelax.io.drop_bad_images`.
        """
        if self.particles.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        particles = read_particles(
            self.particles,
            self.image_root,
            passthrough=self.passthrough,
            ignore_aberrations=self.ignore_aberrations,
        )
        return drop_bad_images(particles, self.skip_bad_images)

    def _fields(self, options: dict[str, str]) -> dict[str, Any]:
        values = {field: getattr(self, option) for field, option in options.items()}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}

    def described(self) -> str:
        """The options as a command line, for the log."""
        given = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "particles" or value == field.default:
                continue
            if isinstance(value, bool):
                given.append(flag(field.name) if value else "--no-" + flag(field.name)[2:])
            elif isinstance(value, tuple):
                given.append(" ".join([flag(field.name), *map(str, value)]))
            else:
                given.append(f"{flag(field.name)} {value}")
        return " ".join(["jaxrelax refine", str(self.particles), *given])


class _MakeFolder(Callback):
    """Make the folder when the inputs have been accepted: bad input leaves nothing behind."""

    def __init__(self, command: Command, console: RunConsole):
        self.command, self.console = command, console

    def on_start(self, problem, state) -> None:
        command = self.command
        folder = OutputFolder.create(command.out, command.resume, command.overwrite)
        self.console.open_log(folder / "log.txt")
        self.console.log_only(command.described())


def _check_folder(path: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder before anything is read; make and remove nothing.

    Raises:
        InputError: as `OutputFolder.create`.
    """
    if path.exists() and not overwrite:
        OutputFolder.create(path, resume)
    elif resume and overwrite:
        raise InputError(f"{path}: give one of --resume and --overwrite, not both.")
    elif path.is_file():
        raise InputError(f"{path}: is a file, not a folder. Name another folder.")


def tell(result: Result, folder: OutputFolder) -> None:
    """Say what was found, and where it is. The evidence's own sentence has been said."""
    LOGGER.info("%s", consequence(result))
    LOGGER.info("Resolution %.2f Å. Stopped: %s.", result.resolution_angstrom, result.reason)
    for note in warnings(result):
        LOGGER.warning("%s", note)
    LOGGER.info("Results are in %s; read %s first.", folder.path, folder / "report.html")
