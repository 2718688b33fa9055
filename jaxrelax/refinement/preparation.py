"""From tables and maps to a refinement that is ready to iterate: checks, boxes, scales."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import Float32

from jaxrelax.imaging import NoiseModel, RadialNoise, radii_px, rebox_map
from jaxrelax.io import (
    ImageReader,
    InputError,
    Particles,
    read_map,
    read_mask,
    read_particles,
)
from jaxrelax.reconstruction import particle_radius_angstrom
from jaxrelax.refinement import loop
from jaxrelax.refinement.checkpoint import array_hash, file_hash, particles_hash
from jaxrelax.refinement.components import Local, Mode, Relax
from jaxrelax.refinement.criteria import (
    Criterion,
    MaxIterations,
    RegistersSettled,
    ResolutionStalled,
)
from jaxrelax.refinement.described import described
from jaxrelax.refinement.problem import Problem, particle_box, relaxation_groups
from jaxrelax.refinement.reference import matched_power, matched_scale, on_box, require_axes
from jaxrelax.refinement.state import State
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


@dataclass(frozen=True)
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
    pixel = optics.pixel_size_angstrom
    diameter = _diameter(particle_diameter, values, pixel)
    # The map's box is that of the particle: what images have around it, it need not hold.
    box = particle_box(optics.box, pixel, diameter)
    workers = available_workers(devices)
    half_set = _half_sets(particles, seed)
    folds = relax.cross_fit if relax is not None else 5
    register_mask = _register_mask(relax, optics.box, pixel)
    if register_mask is not None:
        register_mask = rebox_map(register_mask, box)
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
    values = rebox_map(values, box)
    match = matched_scale if mode.needs_poses else matched_power
    values = match(problem, values, problem.rung(problem.shell(ini_high)), name)
    state = loop.init(problem, values, ini_high_angstrom=ini_high)
    until = DEFAULT_UNTIL if until is None else until
    identity = {
        "mode": described(mode),
        "relax": described(relax),
        "symmetry": symmetry,
        "noise": described(noise),
        "ini_high": ini_high,
        "max_alignment_resolution": max_alignment_resolution,
        "particle_diameter": diameter,
        "normalise": normalise,
        "seed": seed,
        "particles": file_hash(particles.source) if particles.source.is_file() else "in memory",
        "particle_values": particles_hash(particles),
        "n_particles": len(particles),
        "reference": reference_hash,
        "register_mask": None if register_mask is None else array_hash(register_mask),
    }
    return Setup(problem, state, until, identity, relaxation)


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
