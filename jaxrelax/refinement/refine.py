"""The façade: from particles and a reference to a result, through init, step and finish."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from jaxrelax.engine.compilation import Compilations
from jaxrelax.imaging import NoiseModel
from jaxrelax.inference import Latent
from jaxrelax.io import InputError, LostImagesError, OutputFolder, Particles
from jaxrelax.reconstruction import MapPrior
from jaxrelax.refinement.argument_kinds import require_kinds
from jaxrelax.refinement.callbacks import Callback, Together
from jaxrelax.refinement.checkpoint import load_checkpoint, save_checkpoint
from jaxrelax.refinement.course import Course
from jaxrelax.refinement.criteria import Criterion
from jaxrelax.refinement.described import described
from jaxrelax.refinement.finish import finish
from jaxrelax.refinement.finish_states import finish_states
from jaxrelax.refinement.history import StepInfo
from jaxrelax.refinement.image_statistics import made_of_images
from jaxrelax.refinement.lines import details, in_short
from jaxrelax.refinement.loop import step
from jaxrelax.refinement.modes import Mode
from jaxrelax.refinement.notes import Notes
from jaxrelax.refinement.part import Part
from jaxrelax.refinement.preparation import prepare
from jaxrelax.refinement.reference import Map
from jaxrelax.refinement.relax import Relax
from jaxrelax.refinement.result import Result
from jaxrelax.refinement.setup import Setup, Splits
from jaxrelax.refinement.splits_of_states import split_states
from jaxrelax.refinement.stages import done, following
from jaxrelax.refinement.state import State

LOG = logging.getLogger("jaxrelax")


def iterate(
    particles: Particles | str | Path,
    reference: Map | str | Path | Sequence[Map | str | Path],
    *,
    mode: Mode | None = None,
    relax: Relax | str | None = None,
    symmetry: str = "C1",
    part: Part | None = None,
    noise: NoiseModel | None = None,
    until: Criterion | None = None,
    final_passes: int = 0,
    course: Course | None = None,
    map_prior: MapPrior | None = None,
    latents: Sequence[Latent] = (),
    callbacks: Sequence[Callback] = (),
    ini_high: float | None = None,
    max_alignment_resolution: float | None = None,
    particle_diameter: float | None = None,
    normalise: Literal["auto", "yes", "no"] = "auto",
    contrast: Literal["auto", "white", "black"] = "auto",
    skip_bad_images: bool | None = False,
    seed: int = 0,
    cache_gib: float = 0.0,
    devices: int | Literal["all"] | None = None,
    keep_copies: bool = False,
    force_group: bool = False,
) -> Iterator[tuple[State, StepInfo]]:
    """The refinement one step at a time: yields ``(state, info)`` until the criterion stops it.

    Not those iterations in which the number of states is found, which callbacks see. Nothing is
    written, and there is no final pass (:func:`finish`).

    Args:
        particles, reference: as of :func:`prepare`, like all that is not named here.
        callbacks: what watches the run, as of :func:`refine`.

    Raises:
        InputError: as :func:`prepare`, when this is called and not with the first step.
    """
    require_kinds(callbacks=callbacks)
    setup = prepare(
        particles, reference, mode=mode, relax=relax, symmetry=symmetry, part=part, noise=noise,
        until=until, final_passes=final_passes, course=course, map_prior=map_prior, latents=latents,
        ini_high=ini_high,
        max_alignment_resolution=max_alignment_resolution, particle_diameter=particle_diameter,
        normalise=normalise, contrast=contrast, skip_bad_images=skip_bad_images, seed=seed,
        cache_gib=cache_gib, devices=devices, keep_copies=keep_copies, force_group=force_group,
    )  # fmt: skip
    return _steps(setup, Together(tuple(callbacks)))


def _steps(setup: Setup, watching: Callback) -> Iterator[tuple[State, StepInfo]]:
    watching.on_start(setup.problem, setup.state)
    while True:
        state = setup.state
        while state.iteration == 0 or (reason := done(setup, state)) is None:
            state, info = step(setup.problem, state, watching.on_batch)
            watching.on_step(setup.problem, state, info)
            yield state, info
        if not setup.following:
            break
        if isinstance(setup.following[0], Splits):
            setup = _split(setup, state, watching)
        else:
            setup = following(setup, state)
    watching.on_finish(reason)


def refine(
    particles: Particles | str | Path,
    reference: Map | str | Path | Sequence[Map | str | Path],
    *,
    mode: Mode | None = None,
    relax: Relax | str | None = None,
    symmetry: str = "C1",
    part: Part | None = None,
    noise: NoiseModel | None = None,
    until: Criterion | None = None,
    final_passes: int = 0,
    course: Course | None = None,
    map_prior: MapPrior | None = None,
    latents: Sequence[Latent] = (),
    callbacks: Sequence[Callback] = (),
    out: OutputFolder | None = None,
    resume: bool = False,
    ini_high: float | None = None,
    max_alignment_resolution: float | None = None,
    particle_diameter: float | None = None,
    normalise: Literal["auto", "yes", "no"] = "auto",
    contrast: Literal["auto", "white", "black"] = "auto",
    skip_bad_images: bool | None = False,
    seed: int = 0,
    cache_gib: float = 0.0,
    devices: int | Literal["all"] | None = None,
    subgroups: Literal["auto", "all", "none"] = "auto",
    force_group: bool = False,
) -> Result:
    """Refine particles against a reference, with or without symmetry relaxation.

    Where ``jax.distributed`` was initialised all processes call this alike and share the images;
    only process 0 reads and writes the folder, and its result counts: that of others may be
    rounded differently.

    Args:
        particles: table of particles (or its path) with consensus poses and CTFs.
        reference: map on the absolute scale of the images (or any scale: it is matched); or, with
            a classification, one for each of its states, in their order and on one scale.
        mode: which latent variables are free; ``Local()`` by default.
        relax: what symmetry is relaxed; a group's name stands for ``Relax(name)``. While a mode
            searches poses globally the symmetry is imposed, unless it says otherwise.
        symmetry: symmetry imposed on the map when nothing is relaxed.
        part: only this part of the particle is refined, or symmetries are about these axes; None:
            the whole particle, about the centre of the box.
        noise: noise model; ``RadialNoise()`` by default.
        until: when to stop; by default when half-maps and their asymmetric parts agree no better
            and the mean posterior has settled, after 50 iterations at the latest.
        final_passes: so many more iterations after that, unless it is a fixed number that stops it.
        course: what is done when; by default asymmetry is sought, amplified and settled where
            a relaxation starts from a symmetric map, and all is straight else. It is the course of
            the relaxation where one follows a symmetric stage.
        map_prior: how sums over images become maps; by default what ``relax`` says.
        latents: further discrete latent variables of every image; of the relaxation, too, where
            one follows a symmetric stage.
        callbacks: what watches the run.
        out: folder for checkpoints, one per iteration; None keeps none. The results are written by
            :func:`jaxrelax.assessment.save`.
        resume: go on from the folder's checkpoint, if it has one.
        ini_high: resolution in Å to which the reference is used, and in which asymmetry is sought;
            by default 12, and 30 where poses are searched from nothing.
        max_alignment_resolution: images are scored by frequencies up to this, in Å, for poses and
            registers alike; None: as far as the half-maps agree. ``Relax.max_resolution`` limits
            registers alone.
        particle_diameter: of the spherical mask, in Å; by default from the reference.
        normalise: bring image backgrounds to mean 0 and variance 1; ``"auto"`` looks at all
            images, and does so in the optics groups in which they are off.
        contrast: particles are ``"white"`` or ``"black"`` in the images as the table has them;
            ``"auto"`` compares them with the reference, and inverts those that are clearly black.
        skip_bad_images: leave out images that cannot be used (NaN, constant, a pixel far from all
            others), instead of raising; None raises, too, without recommending it.
        seed: of everything random.
        cache_gib: memory for packed images of each process between iterations. By default every
            pass reads them again, one batch ahead, so that memory does not depend on their number;
            give some where reading and transforming them holds up the device.
        devices: how many of the devices of this process work, or ``"all"``; by default one where
            JAX runs on CPUs, and all accelerators.
        subgroups: with relaxation, which symmetries between ``Relax.to`` and ``Relax.group`` the
            images are asked about: none but the group itself, all, or (``"auto"``) all if the
            group is rejected and has no more than 24 operators.
        force_group: go on with a warning where the reference does not have the symmetry that is
            said, or has it on other axes.

    Returns:
        Maps, registers, poses and diagnostics, both half-sets in one register frame.

    Raises:
        InputError: bad input, with file, column or row and the way out.
        WorkerLost: another process has ended; the checkpoint of the last iteration is whole.
        LostImagesError: images that can no longer be read while it runs; the checkpoint remains.
    """
    began = time.perf_counter()
    require_kinds(callbacks=callbacks, out=out, resume=resume, subgroups=subgroups)
    if resume and out is None:
        raise InputError("resume needs the output folder whose checkpoint to go on from")
    watching = Together(tuple(callbacks))
    with Compilations() as compiled, Notes() as notes:
        setup = prepare(
            particles, reference, mode=mode, relax=relax, symmetry=symmetry, part=part,
            noise=noise, until=until, final_passes=final_passes, course=course, map_prior=map_prior,
            latents=latents, ini_high=ini_high,
            max_alignment_resolution=max_alignment_resolution, particle_diameter=particle_diameter,
            normalise=normalise, contrast=contrast, skip_bad_images=skip_bad_images, seed=seed,
            cache_gib=cache_gib, devices=devices, force_group=force_group,
        )  # fmt: skip
        if resume and out is not None:
            # Read by process 0 alone: others may not see its folder.
            workers = setup.problem.execution.workers
            saved = load_checkpoint(out, setup.identity) if workers.writes else None
            saved = workers.agreed(saved)
            if saved is not None:
                for _ in range(int(saved.stage)):
                    setup = following(setup, saved)
                setup = dataclasses.replace(setup, state=saved)

        watching.on_start(setup.problem, setup.state)
        state = setup.state
        try:
            while True:
                state = setup.state
                while state.iteration == 0 or (reason := done(setup, state)) is None:
                    state, info = step(setup.problem, state, watching.on_batch)
                    _say(info, setup.problem.plan.course, setup.until)
                    if out is not None and setup.problem.execution.workers.writes:
                        save_checkpoint(out, state, setup.identity)
                    watching.on_step(setup.problem, state, info)
                if not setup.following:
                    break
                if isinstance(setup.following[0], Splits):
                    setup = _split(setup, state, watching)
                    continue
                LOG.info("stage %d ended: %s", int(state.stage) + 1, reason)
                setup = following(setup, state)
            watching.on_finish(reason)
            plan = setup.problem.plan
            settings = {
                "until": repr(setup.until),
                "devices": str(setup.problem.execution.workers),
                # What was chosen where nothing was asked for.
                "course": described(plan.course),
                "map_prior": described(plan.prior),
                "latents": [described(latent) for latent in plan.model.latents],
            }
            settings |= made_of_images(setup.problem.execution)
            ended = {"reason": reason, "seconds": 0.0, "settings": setup.identity | settings}
            if len(setup.problem.of_maps) > 1:
                result = finish_states(setup.problem, state, on_batch=watching.on_batch, **ended)
            else:
                result = finish(
                    setup.problem, state, on_batch=watching.on_batch, subgroups=subgroups, **ended
                )
        except LostImagesError as error:
            raise LostImagesError(f"{error} {_way_on(out, state)}") from error
    if result.part is not None:
        LOG.info("%s.", result.part.sentence())
    result = dataclasses.replace(
        result,
        seconds=time.perf_counter() - began,
        compiled_programs=compiled.programs,
        compile_seconds=compiled.seconds,
        notes=tuple(notes.texts),
    )
    if result.evidence is not None:
        LOG.info("%s", result.evidence.sentence())
    return result


def _split(setup: Setup, consensus: State, watching: Callback) -> Setup:
    """The classification that held-out images support, to go on with.

    If they support none, the consensus goes on: as a stage of its own, so that it is known when it
    is resumed that this was asked.
    """

    def ended(trial: Setup) -> State:
        state = trial.state
        while state.iteration == 0 or done(trial, state) is None:
            state, info = step(trial.problem, state, watching.on_batch)
            _say(info, trial.problem.plan.course, trial.until)
            watching.on_step(trial.problem, state, info)
        return state

    found = split_states(setup, consensus, iterate=ended, on_batch=watching.on_batch)
    if found is not None:
        return found
    LOG.info("one state: the consensus goes on")
    goes_on = consensus.replace(stage=consensus.stage + 1)
    return dataclasses.replace(setup, state=goes_on, following=())


def _way_on(out: OutputFolder | None, state: State) -> str:
    """How a run goes on that lost its images after some iterations."""
    if out is None:
        return "Then start again."
    done = state.iterations_done
    kept = f"; {done} iterations are kept in {out.path}" if done else ""
    return f"Then go on with --resume (resume=True){kept}."


def _say(info: StepInfo, course: Course, until: Criterion) -> None:
    """Log an iteration; who shows a terminal takes what is in short."""
    LOG.info("%s", details(info, course), extra={"in_short": in_short(info, course, until)})
