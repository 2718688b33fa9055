"""The façade: from particles and a reference to a result, through init, step and finish."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float32

from jaxrelax.imaging import NoiseModel, RadialNoise, radii_px
from jaxrelax.io import (
    ImageReader,
    InputError,
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
    """A refinement ready to iterate."""

    problem: Problem
    state: State
    until: Criterion
    identity: dict[str, Any]


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
    particle_diameter: float | None = None,
    normalise: Literal["auto", "yes", "no"] = "auto",
    seed: int = 0,
    cache_gib: float = 1.0,
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
        raise InputError(
            f"relaxation starts from the poses of a symmetric refinement, and mode "
            f"{type(mode).__name__} from none: refine with symmetry={relax.group!r} first, and "
            "relax its particles with mode Local"
        )
    ini_high = mode.ini_high_angstrom if ini_high is None else ini_high
    if ini_high <= 0:
        raise InputError(f"ini_high is a resolution in Å, above 0; got {ini_high}")

    relaxation_groups(relax, symmetry)  # unknown groups are refused before anything is read
    name = "the reference" if isinstance(reference, Map) else str(reference)
    optics = particles.optics[0]
    if isinstance(reference, Map):
        values, pixel = np.asarray(reference.values, np.float32), reference.pixel_size_angstrom
    else:
        values, pixel = read_map(reference)
    values = on_box(values, pixel, optics.box, optics.pixel_size_angstrom, name)
    box, pixel = optics.box, optics.pixel_size_angstrom
    diameter = _diameter(particle_diameter, values, pixel)
    half_set = _half_sets(particles, seed)
    folds = relax.cross_fit if relax is not None else 5
    problem = Problem(
        particles,
        mode=mode,
        relax=relax,
        symmetry=symmetry,
        noise=noise,
        map_box=box,
        map_pixel_size_angstrom=pixel,
        particle_diameter_angstrom=diameter,
        register_mask=_register_mask(relax, box, pixel),
        half_set=half_set,
        fold=np.random.default_rng((seed, 0)).integers(max(folds, 2), size=len(particles)),
        normalise=_normalise(normalise, particles, diameter),
        seed=seed,
        cache_bytes=int(cache_gib * 2**30),
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
        "particle_diameter": diameter,
        "normalise": normalise,
        "seed": seed,
        "particles": file_hash(particles.source) if particles.source.is_file() else "in memory",
        "n_particles": len(particles),
        "reference": array_hash(values),
        "register_mask": None
        if problem.register_mask is None
        else array_hash(problem.register_mask),
    }
    return Setup(problem, state, until, identity)


def done(setup: Setup, state: State) -> str | None:
    """Why the refinement may stop at this state, or None.

    While asymmetry is sought, only a fixed number of iterations stops it: at the symmetric saddle
    every other criterion is satisfied. So it is while poses are searched globally.
    """
    if state.stage == "settle" and not state.search(setup.problem).is_global:
        return setup.until.reason(state)
    return setup.until.limit(state)


def iterate(
    particles: Particles | str | Path, reference: Map | str | Path, **options: Any
) -> Iterator[tuple[State, StepInfo]]:
    """The refinement one step at a time: yields ``(state, info)`` until the criterion stops it.

    Takes the arguments of :func:`prepare`.
    """
    setup = prepare(particles, reference, **options)
    state = setup.state
    while state.iteration == 0 or done(setup, state) is None:
        state, info = loop.step(setup.problem, state)
        yield state, info


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
    particle_diameter: float | None = None,
    normalise: Literal["auto", "yes", "no"] = "auto",
    seed: int = 0,
    cache_gib: float = 1.0,
    subgroups: Literal["auto", "all", "none"] = "auto",
) -> Result:
    """Refine particles against a reference, with or without symmetry relaxation.

    Args:
        particles: table of particles (or its path) with consensus poses and CTFs.
        reference: map on the absolute scale of the images (or any scale: it is matched).
        mode: which latent variables are free; ``Local()`` by default.
        relax: what symmetry is relaxed; a group's name stands for ``Relax(name)``.
        symmetry: symmetry imposed on the map when nothing is relaxed.
        noise: noise model; ``RadialNoise()`` by default.
        until: when to stop; resolution stalled and registers settled, at most 50 iterations.
        callbacks: what watches the run.
        out: folder for checkpoints, one per iteration; None keeps none. The results are written by
            :func:`jaxrelax.assessment.save`.
        resume: go on from the folder's checkpoint, if it has one.
        ini_high: resolution in Å to which the reference is used, and in which asymmetry is sought;
            by default 12, and 30 where poses are searched from nothing.
        particle_diameter: of the spherical mask, in Å; by default from the reference.
        normalise: bring image backgrounds to mean 0 and variance 1; ``"auto"`` looks at some.
        seed: of everything random.
        cache_gib: memory for packed images between iterations; beyond it they are read again.
        subgroups: with relaxation, which symmetries between ``Relax.to`` and ``Relax.group`` the
            images are asked about: none but the group itself, all, or (``"auto"``) all if the
            group is rejected and has no more than 24 operators.

    Returns:
        Maps, registers, poses and diagnostics, both half-sets in one register frame.

    Raises:
        InputError: bad input, with file, column or row and the way out.
    """
    began = time.perf_counter()
    setup = prepare(
        particles, reference, mode=mode, relax=relax, symmetry=symmetry, noise=noise, until=until,
        ini_high=ini_high, particle_diameter=particle_diameter, normalise=normalise, seed=seed,
        cache_gib=cache_gib,
    )  # fmt: skip
    problem, state = setup.problem, setup.state
    if resume:
        if out is None:
            raise InputError("resume needs the output folder whose checkpoint to go on from")
        state = load_checkpoint(out, setup.identity) or state

    def on_batch(images: int) -> None:
        for callback in callbacks:
            callback.on_batch(images)

    for callback in callbacks:
        callback.on_start(problem, state)
    while state.iteration == 0 or (reason := done(setup, state)) is None:
        state, info = loop.step(problem, state, on_batch)
        LOG.info("%s", _line(info, state))
        if out is not None:
            save_checkpoint(out, state, setup.identity)
        for callback in callbacks:
            callback.on_step(problem, state, info)
    for callback in callbacks:
        callback.on_finish(reason)
    result = finish(
        problem, state, reason=reason, seconds=0.0,
        settings=setup.identity | {"until": repr(setup.until), "devices": str(jax.devices())},
        on_batch=on_batch, subgroups=subgroups,
    )  # fmt: skip
    result = dataclasses.replace(result, seconds=time.perf_counter() - began)
    if result.evidence is not None:
        LOG.info("%s", result.evidence.sentence())
    return result


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
