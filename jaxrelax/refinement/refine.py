"""The façade: from particles and a reference to a result, through init, step and finish."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import Float32

from jaxrelax.imaging import NoiseModel, RadialNoise, radii_px
from jaxrelax.io import (
    ImageReader,
    InputError,
    LostImagesError,
    OutputFolder,
    Particles,
    read_map,
    read_mask,
    read_particles,
)
from jaxrelax.reconstruction import particle_radius_angstrom
from jaxrelax.refinement import loop
from jaxrelax.refinement.callbacks import Callback
from jaxrelax.refinement.checkpoint import array_hash, file_hash, load_checkpoint, save_checkpoint
from jaxrelax.refinement.compilation import Compilations
from jaxrelax.refinement.components import Local, Mode, Relax
from jaxrelax.refinement.criteria import (
    Criterion,
    MaxIterations,
    RegistersSettled,
    ResolutionStalled,
)
from jaxrelax.refinement.finish import finish
from jaxrelax.refinement.problem import Problem, relaxation_groups
from jaxrelax.refinement.reference import matched_power, matched_scale, on_box, require_axes
from jaxrelax.refinement.result import Result
from jaxrelax.refinement.state import State, StepInfo
from jaxrelax.refinement.workers import available_workers

LOG = logging.getLogger("jaxrelax")

DEFAULT_UNTIL: Criterion = (ResolutionStalled() & RegistersSettled()) | MaxIterations(50)
SMALLEST_HALF_SET = 10


class Map(eqx.Module):
    """A map in memory with its pixel size, wherever a path is accepted.

    Attributes:
        values: (N, N, N) array [z, y, x].
        pixel_size_angstrom: in Å.
    """

    values: Float32[np.ndarray, "n n n"]
    pixel_size_angstrom: float


@dataclasses.dataclass(frozen=True)
class Setup:
    """A refinement ready to iterate.

    Attributes:
        problem: what stays fixed.
        state: before the first iteration.
        until: when to stop.
        identity: settings and hashes of the inputs, see :func:`save_checkpoint`.
        relaxation: the problem of the relaxation that follows this symmetric stage, for the
            particles with the poses that it finds; None if nothing follows.
    """

    problem: Problem
    state: State
    until: Criterion
    identity: dict[str, Any]
    relaxation: Callable[[Particles], Problem] | None = None


def prepare(
    particles: Particles | str | Path,
    reference: Map | str | Path,
    *,
    mode: Mode | None = None,
    relax: Relax | str | None = None,
    symmetry: str = "C1",
    noise: NoiseModel | None = None,
    until: Criterion | None = None,
    ini_high: float | None = None,
    max_alignment_resolution: float | None = None,
    particle_diameter: float | None = None,
    normalise: Literal["auto", "yes", "no"] = "auto",
    seed: int = 0,
    cache_gib: float = 0.0,
    devices: int | Literal["all"] | None = None,
) -> Setup:
    """Check the inputs and build the state before the first iteration.

    Arguments as for :func:`refine`.

    Raises:
        InputError: anything about the inputs that would make the refinement wrong.
    """
    if isinstance(particles, str | Path):
        needed = mode is None or mode.needs_poses
        particles = read_particles(particles, require_poses=needed)
    mode = Local() if mode is None else mode
    relax = Relax(relax) if isinstance(relax, str) else relax
    if relax is not None and symmetry.upper() != "C1":
        raise InputError(
            f"symmetry {symmetry} with relaxation: say which symmetry is kept with Relax(to=...)"
        )
    noise = RadialNoise() if noise is None else noise
    if len(particles) == 0:
        raise InputError(f"{particles.source}: no particles")
    if mode.needs_poses and not particles.has_poses:
        raise InputError(
            f"{particles.source}: no poses, and mode {type(mode).__name__} starts from them; "
            "Homogeneous finds poses itself"
        )
    if relax is not None and not mode.needs_poses:
        _require_start(relax, mode)
    if relax is not None and relax.inner_iterations > 0 and mode.holds_poses:
        raise InputError(
            f"inner iterations lie between searches of poses, and mode {type(mode).__name__} holds "
            "them; leave Relax.inner_iterations at 0"
        )
    ini_high = mode.ini_high_angstrom if ini_high is None else ini_high
    if ini_high <= 0:
        raise InputError(f"ini_high is a resolution in Å, above 0; got {ini_high}")
    if max_alignment_resolution is not None and max_alignment_resolution <= 0:
        raise InputError(
            "max_alignment_resolution is a resolution in Å, above 0; got "
            f"{max_alignment_resolution}"
        )

    relaxation_groups(relax, symmetry)  # unknown groups are refused before anything is read
    name = "the reference" if isinstance(reference, Map) else str(reference)
    optics = particles.optics[0]
    if isinstance(reference, Map):
        values, pixel = np.asarray(reference.values, np.float32), reference.pixel_size_angstrom
    else:
        values, pixel = read_map(reference)
    # As it was given: what becomes of it below depends on the rounding of a machine.
    reference_hash = array_hash(values)
    values = on_box(values, pixel, optics.box, optics.pixel_size_angstrom, name)
    box, pixel = optics.box, optics.pixel_size_angstrom
    diameter = _diameter(particle_diameter, values, pixel)
    workers = available_workers(devices)
    half_set = _half_sets(particles, seed)
    folds = relax.cross_fit if relax is not None else 5
    register_mask = _register_mask(relax, box, pixel)
    make = partial(
        Problem,
        noise=noise,
        map_box=box,
        map_pixel_size_angstrom=pixel,
        particle_diameter_angstrom=diameter,
        half_set=half_set,
        fold=np.random.default_rng((seed, 0)).integers(max(folds, 2), size=len(particles)),
        normalise=workers.agreed(_normalise(normalise, particles, diameter)),
        seed=seed,
        cache_bytes=int(cache_gib * 2**30),
        max_alignment_resolution_angstrom=max_alignment_resolution,
        workers=workers,
    )
    relaxation = None
    if relax is not None and mode.relaxed is not None:
        relaxation = partial(
            make, mode=mode.relaxed, relax=relax, symmetry="C1", register_mask=register_mask
        )
        problem = make(particles, mode=mode, relax=None, symmetry=relax.group, register_mask=None)
    else:
        problem = make(
            particles, mode=mode, relax=relax, symmetry=symmetry, register_mask=register_mask
        )
    require_axes(problem, values, name)
    match = matched_scale if mode.needs_poses else matched_power
    values = match(problem, values, problem.rung(problem.shell(ini_high)), name)
    state = loop.init(problem, values, ini_high_angstrom=ini_high)
    until = DEFAULT_UNTIL if until is None else until
    identity = {
        "mode": repr(mode),
        "relax": repr(relax),
        "symmetry": symmetry,
        "noise": repr(noise),
        "ini_high": ini_high,
        "max_alignment_resolution": max_alignment_resolution,
        "particle_diameter": diameter,
        "normalise": normalise,
        "seed": seed,
        "particles": file_hash(particles.source) if particles.source.is_file() else "in memory",
        "n_particles": len(particles),
        "reference": reference_hash,
        "register_mask": None if register_mask is None else array_hash(register_mask),
    }
    return Setup(problem, state, until, identity, relaxation)


def done(setup: Setup, state: State) -> str | None:
    """Why the refinement may stop at this state, or None.

    While asymmetry is sought, only a fixed number of iterations stops it: at the symmetric saddle
    every other criterion is satisfied. So it is while poses are searched globally.
    """
    return setup.problem.workers.agreed(_reason(setup, state))


def _reason(setup: Setup, state: State) -> str | None:
    if state.stage == "settle" and not state.search(setup.problem).is_global:
        if setup.relaxation is not None and not setup.problem.mode.settles_before_relaxing:
            return "poses have settled"
        return setup.until.reason(state)
    return setup.until.limit(state)


def relaxed(setup: Setup, state: State) -> Setup:
    """The relaxation that follows a symmetric stage.

    Args:
        setup: of the symmetric stage.
        state: where it ended, or a state of the relaxation itself, to go on from there.

    Raises:
        ValueError: nothing follows.
    """
    if setup.relaxation is None:
        raise ValueError("no relaxation follows this refinement")
    begun = _in_relaxation(state)
    particles = setup.problem.particles.with_updates(
        rotations=state.prior_rotations if begun else state.rotations,
        origins_angstrom=state.prior_origins_angstrom if begun else state.origins_angstrom,
    )
    problem = setup.relaxation(particles)
    start = state if begun else loop.init_relaxation(problem, state)
    return Setup(problem, start, setup.until, setup.identity)


def _require_start(relax: Relax, mode: Mode) -> None:
    """Refuse to start from what a search without poses does not have.

    Raises:
        InputError: registers of poses that are still to be found, or an asymmetric reference that
            a symmetric stage has long left.
    """
    if relax.start == "poses":
        raise InputError(
            f'relaxation with start="poses" takes the registers of the input poses, and mode '
            f"{type(mode).__name__} finds poses anew; use mode Local"
        )
    if relax.start == "reference" and mode.relaxed is not None:
        raise InputError(
            'relaxation with start="reference" follows a symmetric stage that the reference\'s '
            'asymmetry does not outlive; relax from the start (relax_from="start")'
        )


def _in_relaxation(state: State) -> bool:
    """Whether a state is of a relaxation: only there are registers to choose from."""
    return state.registers.shape[1] > 1


def iterate(
    particles: Particles | str | Path, reference: Map | str | Path, **options: Any
) -> Iterator[tuple[State, StepInfo]]:
    """The refinement one step at a time: yields ``(state, info)`` until the criterion stops it.

    Takes the arguments of :func:`prepare`.
    """
    setup: Setup | None = prepare(particles, reference, **options)
    while setup is not None:
        state = setup.state
        while state.iteration == 0 or done(setup, state) is None:
            state, info = loop.step(setup.problem, state)
            yield state, info
        setup = relaxed(setup, state) if setup.relaxation is not None else None


def refine(
    particles: Particles | str | Path,
    reference: Map | str | Path,
    *,
    mode: Mode | None = None,
    relax: Relax | str | None = None,
    symmetry: str = "C1",
    noise: NoiseModel | None = None,
    until: Criterion | None = None,
    callbacks: Sequence[Callback] = (),
    out: OutputFolder | None = None,
    resume: bool = False,
    ini_high: float | None = None,
    max_alignment_resolution: float | None = None,
    particle_diameter: float | None = None,
    normalise: Literal["auto", "yes", "no"] = "auto",
    seed: int = 0,
    cache_gib: float = 0.0,
    devices: int | Literal["all"] | None = None,
    subgroups: Literal["auto", "all", "none"] = "auto",
) -> Result:
    """Refine particles against a reference, with or without symmetry relaxation.

    Where ``jax.distributed`` was initialised all processes call this alike and share the images;
    only process 0 reads and writes the folder, and its result counts: that of others may be
    rounded differently.

    Args:
        particles: table of particles (or its path) with consensus poses and CTFs.
        reference: map on the absolute scale of the images (or any scale: it is matched).
        mode: which latent variables are free; ``Local()`` by default.
        relax: what symmetry is relaxed; a group's name stands for ``Relax(name)``. While a mode
            searches poses globally the symmetry is imposed, unless it says otherwise.
        symmetry: symmetry imposed on the map when nothing is relaxed.
        noise: noise model; ``RadialNoise()`` by default.
        until: when to stop; resolution stalled and registers settled, at most 50 iterations.
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
        normalise: bring image backgrounds to mean 0 and variance 1; ``"auto"`` looks at some.
        seed: of everything random.
        cache_gib: memory for packed images of each process between iterations. By default every
            pass reads them again, one batch ahead, so that memory does not depend on their number;
            give some where reading and transforming them holds up the device.
        devices: how many of the devices of this process work, or ``"all"``; by default one where
            JAX runs on CPUs, and all accelerators.
        subgroups: with relaxation, which symmetries between ``Relax.to`` and ``Relax.group`` the
            images are asked about: none but the group itself, all, or (``"auto"``) all if the
            group is rejected and has no more than 24 operators.

    Returns:
        Maps, registers, poses and diagnostics, both half-sets in one register frame.

    Raises:
        InputError: bad input, with file, column or row and the way out.
        WorkerLost: another process has ended; the checkpoint of the last iteration is whole.
        LostImagesError: images that can no longer be read while it runs; the checkpoint remains.
    """
    began = time.perf_counter()
    with Compilations() as compiled:
        setup = prepare(
            particles, reference, mode=mode, relax=relax, symmetry=symmetry, noise=noise,
            until=until, ini_high=ini_high,
            max_alignment_resolution=max_alignment_resolution, particle_diameter=particle_diameter,
            normalise=normalise, seed=seed, cache_gib=cache_gib, devices=devices,
        )  # fmt: skip
        if resume:
            if out is None:
                raise InputError("resume needs the output folder whose checkpoint to go on from")
            # Read by process 0 alone: others may not see its folder.
            workers = setup.problem.workers
            saved = load_checkpoint(out, setup.identity) if workers.writes else None
            saved = workers.agreed(saved)
            if saved is not None and setup.relaxation is not None and _in_relaxation(saved):
                setup = relaxed(setup, saved)
            elif saved is not None:
                setup = dataclasses.replace(setup, state=saved)

        def on_batch(images: int) -> None:
            for callback in callbacks:
                callback.on_batch(images)

        for callback in callbacks:
            callback.on_start(setup.problem, setup.state)
        state = setup.state
        try:
            while True:
                state = setup.state
                while state.iteration == 0 or (reason := done(setup, state)) is None:
                    state, info = loop.step(setup.problem, state, on_batch)
                    LOG.info("%s", _line(info, state))
                    if out is not None and setup.problem.workers.writes:
                        save_checkpoint(out, state, setup.identity)
                    for callback in callbacks:
                        callback.on_step(setup.problem, state, info)
                if setup.relaxation is None:
                    break
                LOG.info("symmetric stage ended: %s; relaxing it now", reason)
                setup = relaxed(setup, state)
            for callback in callbacks:
                callback.on_finish(reason)
            settings = {"until": repr(setup.until), "devices": str(setup.problem.workers)}
            result = finish(
                setup.problem, state, reason=reason, seconds=0.0,
                settings=setup.identity | settings, on_batch=on_batch, subgroups=subgroups,
            )  # fmt: skip
        except LostImagesError as error:
            raise LostImagesError(f"{error} {_way_on(out, state)}") from error
    result = dataclasses.replace(
        result,
        seconds=time.perf_counter() - began,
        compiled_programs=compiled.programs,
        compile_seconds=compiled.seconds,
    )
    if result.evidence is not None:
        LOG.info("%s", result.evidence.sentence())
    return result


def _way_on(out: OutputFolder | None, state: State) -> str:
    """How a run goes on that lost its images after some iterations."""
    if out is None:
        return "Then start again."
    done = state.iterations_done
    kept = f"; {done} iterations are kept in {out.path}" if done else ""
    return f"Then go on with --resume (resume=True){kept}."


def _line(info: StepInfo, state: State) -> str:
    text = (
        f"iteration {info.iteration}: {info.resolution_angstrom:.2f} Å, scored to "
        f"{info.score_resolution_angstrom:.2f} Å"
    )
    if state.registers.shape[1] > 1:
        text += (
            f", mean max posterior {info.mean_max_posterior:.3f}, asymmetric FSC "
            f"{info.asymmetric_fsc:.3f} ({info.asymmetric_signal:.1f} s.e.), registers changed "
            f"{100 * info.register_change:.1f} %, {state.stage}"
        )
    if state.history[-1]["searched_globally"] == 1.0:
        text += f", all orientations ({100 * info.pose_jumps:.1f} % found another pose)"
    return text + f" ({info.seconds:.1f} s)"


def _diameter(given: float | None, reference, pixel: float) -> float:
    edge = reference.shape[0] * pixel
    if given is None:
        return min(2.0 * particle_radius_angstrom(reference, pixel) + 10.0, 0.94 * edge)
    if not 0 < given <= edge:
        raise InputError(f"particle diameter {given} Å does not fit the box of {edge:.1f} Å")
    return given


def _half_sets(particles: Particles, seed: int):
    """The half-sets of the input, or random ones where it has none.

    Raises:
        InputError: some rows have a half-set and others not, or a half-set is too small.
    """
    given = particles.half_set
    if (given == 0).all():
        half = np.random.default_rng((seed, 5)).permutation(len(given)) % 2 + 1
        given = half.astype(np.int8)
    elif (given == 0).any():
        raise InputError(
            f"{particles.source}: rlnRandomSubset is set in some rows and not in row "
            f"{int(np.flatnonzero(given == 0)[0]) + 1}; remove the column to have half-sets drawn"
        )
    smallest = min(int((given == 1).sum()), int((given == 2).sum()))
    if smallest < SMALLEST_HALF_SET:
        raise InputError(
            f"{particles.source}: a half-set of {smallest} images is too small to refine; at "
            f"least {SMALLEST_HALF_SET} are needed"
        )
    return given


def _register_mask(relax: Relax | None, box: int, pixel: float):
    if relax is None or relax.mask is None:
        return None
    mask, mask_pixel = read_mask(relax.mask)
    return np.clip(on_box(mask, mask_pixel, box, pixel, relax.mask), 0.0, 1.0)


def _normalise(choice: str, particles: Particles, diameter: float) -> bool:
    """Whether to normalise; ``auto`` does where sampled backgrounds are off by more than 20 %."""
    if choice not in ("auto", "yes", "no"):
        raise InputError(f'normalise is "auto", "yes" or "no", not {choice!r}')
    if choice != "auto":
        return choice == "yes"
    with ImageReader(particles) as reader:
        reader.validate()
        rows = np.linspace(0, len(particles) - 1, min(len(particles), 32)).astype(int)
        off = []
        for row in rows:
            optics = particles.optics[particles.optics_group[row]]
            outside = radii_px(optics.box) > 0.5 * diameter / optics.pixel_size_angstrom
            background = reader.read(np.array([row]))[0][outside]
            off.append(max(abs(background.mean()), abs(background.std() - 1.0)))
    if np.median(off) <= 0.2:
        return False
    LOG.warning("%s: image backgrounds are not normalised; normalising them", particles.source)
    return True
