"""``jaxrelax refine``."""
# ruff: noqa: RUF009  (defaults are read from the components, and are immutable)

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from jaxrelax.assessment import (
    AgainstTruth,
    ReportEvery,
    Strip,
    consequence,
    save,
    two_resolutions,
    warnings,
)
from jaxrelax.assessment.against_truth import truth_sentence
from jaxrelax.assessment.repeats import agreement_of_repeats, repeats_sentence
from jaxrelax.assessment.state_shares import state_shares
from jaxrelax.cli.console import LOGGER, ProgressBars, RunConsole
from jaxrelax.cli.option_groups import (
    ClassificationOptions,
    GlobalSearchOptions,
    LocalSearchOptions,
    MapOptions,
    ParticleOptions,
    RefinementOptions,
    RelaxationOptions,
    WorkerOptions,
)
from jaxrelax.cli.options import Switch, default_of, flag, given_options, refuse_idle
from jaxrelax.cli.part_options import PartOptions
from jaxrelax.imaging import NoiseModel, RadialNoise, SmoothNoise
from jaxrelax.io import InputError, OutputFolder, require_writable
from jaxrelax.reconstruction import LocalPrior, MapPrior
from jaxrelax.refinement import Callback, Mode, Relax, refine
from jaxrelax.refinement.result import Result

NOISE = {"from-images": True, "white": False}


def noise_default() -> Literal["from-images", "white"]:
    """The noise model's own default as this command calls it."""
    return "from-images" if default_of(RadialNoise, "from_images") else "white"


@dataclass(frozen=True)
class Command:
    """Refine particles with or without consensus poses, with or without symmetry relaxation."""

    most_used: ClassVar[tuple[str, ...]] = (
        "particles", "reference", "out", "relax", "mode", "symmetry", "noise", "resume",
        "overwrite", "quiet",
    )  # fmt: skip
    particles: tyro.conf.Positional[Path]
    """RELION .star file or cryoSPARC .cs file with CTFs, and poses unless --mode is homogeneous."""
    reference: Path
    """Map to start from (.mrc), in the frame of the poses."""
    out: Path
    """Output folder; made if it does not exist, must be empty otherwise (or see --resume)."""

    relax: str | None = None
    """Relax this symmetry (C4, D3, T, O, I, or a text file of operators): find the register of
    every particle."""
    register: Literal["soft", "hard"] = default_of(Relax, "register")
    """With --relax: give an image to all registers by their probability, or to the best."""
    subgroups: Literal["auto", "all", "none"] = default_of(refine, "subgroups")
    """With --relax: which of its subgroups the images are asked about besides the group itself;
    auto asks about all if the group is rejected and has no more than 24 operators."""

    mode: Literal["homogeneous", "local", "registers", "classification"] = "local"
    """Find poses among all orientations, refine those of the input locally, hold them and infer
    registers only, or infer which of several states an image shows, together with its register."""
    symmetry: str = default_of(refine, "symmetry")
    """Without --relax: symmetry of the map."""
    force_group: Switch = False
    """Go on, with a warning, where the reference does not have the symmetry that is said."""
    noise: Literal["from-images", "white", "smooth"] = noise_default()
    """Starting noise: from the background of the images, or white of unit variance. smooth starts
    from the background too and learns a smooth spectrum, for optics groups of few images."""
    fixed_noise: Switch = default_of(RadialNoise, "fixed")
    """Keep the starting noise spectrum, instead of learning it."""
    truth: Path | None = None
    """Of simulated particles the table with their true poses: history.csv and the report say what
    is right in every iteration."""
    report_every: int = 0
    """Write report.html of the state so far every so many iterations; each takes the time of the
    final passes. 0: at the end alone."""
    resume: Switch = False
    """Go on from the checkpoint in the output folder."""
    overwrite: Switch = False
    """Replace the results of an earlier run in the output folder."""
    quiet: Annotated[Switch, tyro.conf.arg(aliases=["-q"])] = False
    """Show only warnings and errors; log.txt has everything."""

    relaxation: tyro.conf.OmitArgPrefixes[RelaxationOptions] = RelaxationOptions()
    """With --relax: which registers there are, and how they are inferred."""
    part: tyro.conf.OmitArgPrefixes[PartOptions] = PartOptions()
    pose_prior: tyro.conf.OmitArgPrefixes[LocalSearchOptions] = LocalSearchOptions()
    """With --mode local: how well the poses are known, at first."""
    classification: tyro.conf.OmitArgPrefixes[ClassificationOptions] = ClassificationOptions()
    """With --mode classification: which states there are, and how they are told apart."""
    search: tyro.conf.OmitArgPrefixes[GlobalSearchOptions] = GlobalSearchOptions()
    """With --mode homogeneous or --poses global: how finely all orientations are searched."""
    refinement: tyro.conf.OmitArgPrefixes[RefinementOptions] = RefinementOptions()
    workers: tyro.conf.OmitArgPrefixes[WorkerOptions] = WorkerOptions()
    maps: tyro.conf.OmitArgPrefixes[MapOptions] = MapOptions()
    table: tyro.conf.OmitArgPrefixes[ParticleOptions] = ParticleOptions()

    @property
    def interrupted(self) -> str:
        """What to say after Ctrl-C."""
        if not self.out.is_dir():
            return "interrupted; nothing was written."
        return "interrupted. The same command with --resume goes on from the last iteration."

    def run(self) -> Result:
        """Refine, save everything, and say what was found."""
        mode, relax, noise = self.components()
        arguments = self.refinement.arguments(mode)
        self.part.component()  # refused before anything is made or read
        self.workers.check()
        if self.report_every < 0:
            raise InputError(f"--report-every is {self.report_every}; it cannot be negative.")
        _check_folder(self.out, self.resume, self.overwrite)
        writes = self.workers.join()
        with RunConsole(self.quiet, silent=not writes) as console:
            console.log_only(self.described())
            particles = self.table.read(self.particles, require_poses=mode.needs_poses)
            against = None if self.truth is None else AgainstTruth(self.truth)
            strip = Strip()
            watching: list[Callback] = [strip] if against is None else [against, strip]
            bars = ProgressBars(console)
            folder = OutputFolder(self.out)
            run = partial(
                refine,
                particles,
                self._references(),
                mode=mode,
                relax=relax,
                symmetry=self.symmetry,
                part=self.part.component(),
                noise=noise,
                subgroups=self.subgroups,
                devices=self.workers.devices,
                skip_bad_images=self.table.skip_bad_images,
                force_group=self.force_group,
                map_prior=self.map_prior,
            )
            making = (_MakeFolder(self, console), bars) if writes else ()
            if self.report_every:
                watching.append(ReportEvery(folder, self.report_every, self.described(), strip))
            making = [*making, *watching]
            try:
                result = run(callbacks=making, out=folder, resume=self.resume, **arguments)
                result = self._repeated(result, run, arguments, (bars,) if writes else ())
            finally:
                bars.stop()
            if writes:
                result = replace(result, settings={**result.settings, "command": self.described()})
                result = result if against is None else against.added_to(result)
                result = strip.added_to(result)
                save(result, folder)
                tell(result, folder)
        return result

    def _repeated(self, result: Result, run, arguments: dict, callbacks) -> Result:
        """With what runs with other seeds say, if any are asked for."""
        count = self.classification.seeds
        if count == 1:
            return result
        if not result.states:
            LOGGER.warning("one state was found, so that there are none for --seeds to compare")
            return result
        runs = [result]
        for number in range(1, count):
            seed = arguments["seed"] + number
            LOGGER.info("run %d of %d, with seed %d", number + 1, count, seed)
            runs.append(run(callbacks=callbacks, **arguments | {"seed": seed}))
        return replace(result, repeats=agreement_of_repeats(runs))

    def _references(self):
        """The reference, or those of all states."""
        further = self.classification.further_references
        first, *others = (self.maps.later(path) for path in (self.reference, *further))
        return [first, *others] if others else first

    @property
    def map_prior(self) -> MapPrior | None:
        """Without relaxation the prior that varies in space, if asked for; else the default."""
        alone = self.relax is None and self.mode != "classification"
        return LocalPrior() if alone and self.relaxation.prior == "local" else None

    def components(self) -> tuple[Mode, Relax | None, NoiseModel]:
        """Mode, relaxation and noise model of these options.

        Raises:
            InputError: a value is out of range, or an option is given that cannot act.
        """
        relax, mode = None, None
        if self.relax is not None:
            relax = self.relaxation.component(self.relax, register=self.register)
        else:
            idle = [*vars(self.relaxation), "register", "subgroups", "relax_from"]
            if self.map_prior is not None:
                idle.remove("prior")
            refuse_idle(self, idle, "can act only with --relax")
        if self.mode != "classification":
            idle = list(vars(self.classification))
            refuse_idle(self, idle, "can act only with --mode classification")
        if self.mode == "classification":
            refuse_idle(self, ["subgroups"], "states are not tested for subgroups")
            everywhere = self.classification.poses == "global"
            if not everywhere:
                why = "can act only with --mode homogeneous or --poses global"
                refuse_idle(self, vars(self.search), why)
            poses = self.pose_prior.mode("--poses", self.classification.poses)
            poses = self.search.component() if everywhere else poses
            mode = self.classification.component(relax, self.symmetry, poses)
            if self.classification.states:
                refuse_idle(self, ["symmetry"], "every state of --states says its own")
            return mode, relax, self._noise()
        if self.mode == "homogeneous":
            refuse_idle(self, vars(self.pose_prior), "can act only with --mode local")
            mode = self.search.component()
        else:
            refuse_idle(self, vars(self.search), "can act only with --mode homogeneous")
            mode = self.pose_prior.mode("--mode", self.mode)
        if self.mode == "registers":
            refuse_idle(self, ["inner_iterations"], "cannot act with --mode registers")
        if self.mode == "registers" and relax is None:
            raise InputError(
                "--mode registers infers registers, and there are none without --relax. Name "
                "the symmetry to relax, or use `jaxrelax reconstruct` for a map at given poses."
            )
        return mode, relax, self._noise()

    def _noise(self) -> NoiseModel:
        if self.noise == "smooth":
            refuse_idle(self, ["fixed_noise"], "cannot act with --noise smooth, which is learned")
            return SmoothNoise()
        return RadialNoise(from_images=NOISE[self.noise], fixed=self.fixed_noise)

    def described(self) -> str:
        """The options as a command line, for the log; a shell takes it as it is."""
        words: list[str] = []
        for name, value in given_options(self).items():
            if name == "particles":
                continue
            if isinstance(value, bool):
                words.append(flag(name) if value else "--no-" + flag(name)[2:])
            elif isinstance(value, tuple):
                words += [flag(name), *map(str, value)]
            else:
                words += [flag(name), str(value)]
        return shlex.join(["jaxrelax", "refine", str(self.particles), *words])


class _MakeFolder(Callback):
    """Make the folder when the inputs have been accepted: bad input leaves nothing behind."""

    def __init__(self, command: Command, console: RunConsole):
        self.command, self.console = command, console

    def on_start(self, problem, state) -> None:
        command = self.command
        folder = OutputFolder.create(command.out, command.resume, command.overwrite)
        self.console.open_log(folder / "log.txt")


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
    require_writable(path)


def tell(result: Result, folder: OutputFolder) -> None:
    """Say what was found, and where it is. The evidence's own sentence has been said."""
    LOGGER.info("%s", consequence(result))
    for share in state_shares(result):
        LOGGER.info("%s", share.sentence())
    if result.repeats is not None:
        LOGGER.info("%s", repeats_sentence(result))
    if result.copies is not None and result.copies.exclusive is not None:
        LOGGER.info("%s", result.copies.sentence())
    of_what = " of the mean map" if result.states else ""
    LOGGER.info("Resolution%s %s. Stopped: %s.", of_what, two_resolutions(result), result.reason)
    if (sentence := truth_sentence(result)) is not None:
        LOGGER.info("%s", sentence)
    for note in warnings(result):
        LOGGER.warning("%s", note)
    LOGGER.info("Results are in %s; read %s first.", folder.path, folder / "report.html")
