"""From tables and maps to a refinement that is ready to iterate: checks, boxes, scales."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxrelax.engine.workers import available_workers
from jaxrelax.geometry import PointGroup
from jaxrelax.imaging import NoiseModel, RadialNoise, rebox_map
from jaxrelax.inference import Latent
from jaxrelax.io import (
    InputError,
    Particles,
    read_particles,
)
from jaxrelax.reconstruction import MapPrior, particle_box, particle_radius_angstrom
from jaxrelax.refinement.argument_kinds import require_kinds
from jaxrelax.refinement.checkpoint import array_hash, file_hash, particles_hash
from jaxrelax.refinement.classification import Classification
from jaxrelax.refinement.consistent import (
    check_particles,
    require_consistent,
    symmetry_of_consensus,
    with_references,
)
from jaxrelax.refinement.contrast import inverted, made_white
from jaxrelax.refinement.copies import one_row_each, say_what_shares_noise
from jaxrelax.refinement.course import Course
from jaxrelax.refinement.criteria import Criterion, FinalPasses
from jaxrelax.refinement.described import described
from jaxrelax.refinement.exclusive import exclusive_copies
from jaxrelax.refinement.modes import Local, Mode, Registers
from jaxrelax.refinement.part import (
    Part,
    located,
    require_axes_of_something,
    require_group_of_part,
    with_axes_of_group,
)
from jaxrelax.refinement.part_stage import at_base_poses, of_part, require_part, with_signs
from jaxrelax.refinement.problem import Problem, make_problem
from jaxrelax.refinement.projection_match import low_passed
from jaxrelax.refinement.reference import (
    Map,
    Reference,
    load_mask,
    matched_power,
    matched_scale,
    prepared_reference,
    require_apart,
)
from jaxrelax.refinement.register_mask import completed_mask
from jaxrelax.refinement.relax import Relax, relaxation_groups
from jaxrelax.refinement.setup import (
    DEFAULT_UNTIL,
    UNTIL_STATES_SETTLED,
    Setup,
    Splits,
    Stage,
)
from jaxrelax.refinement.splits import folds
from jaxrelax.refinement.start import init, init_relaxation
from jaxrelax.refinement.state_starts import init_states
from jaxrelax.refinement.usable import WIDEST, usable_particles

LOG = logging.getLogger("jaxrelax")


def prepare(
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
) -> Setup:
    """Check the inputs and build the state before the first iteration.

    Arguments as for :func:`refine`. With relaxation rows of one image at poses that are the same up
    to an operator of the group become one row, unless ``keep_copies`` says otherwise.

    Raises:
        InputError: anything about the inputs that would make the refinement wrong; an argument that
            is of another kind, with what was meant, before anything is read.
    """
    require_kinds(
        particles=particles, reference=reference, mode=mode, relax=relax, symmetry=symmetry,
        part=part, noise=noise, until=until, final_passes=final_passes, course=course,
        map_prior=map_prior, latents=latents, ini_high=ini_high,
        max_alignment_resolution=max_alignment_resolution, particle_diameter=particle_diameter,
        normalise=normalise, contrast=contrast,
        skip_bad_images=skip_bad_images, seed=seed, cache_gib=cache_gib, devices=devices,
        keep_copies=keep_copies, force_group=force_group,
    )  # fmt: skip
    if isinstance(particles, str | Path):
        needed = mode is None or mode.needs_poses
        particles = read_particles(particles, require_poses=needed)
    mode = Local() if mode is None else mode
    relax = Relax(relax) if isinstance(relax, str) else relax
    given = [reference] if isinstance(reference, Map | str | Path) else list(reference)
    mode = with_references(mode, len(given))
    classification = mode if isinstance(mode, Classification) else None
    states: list[tuple[PointGroup, PointGroup]] = []
    if classification is not None:
        relax, consensus = classification.consensus(relax, references=len(given) > 1)
        symmetry = symmetry_of_consensus(symmetry, consensus, relax)
        states = classification.groups() if len(given) > 1 else []
        if not states:
            mode = classification.mode_of_consensus
    noise = RadialNoise() if noise is None else noise
    ini_high = mode.ini_high_angstrom if ini_high is None else ini_high
    require_consistent(mode, relax, map_prior, symmetry)
    groups = relaxation_groups(relax, symmetry)  # unknown ones are refused before anything is read
    require_axes_of_something(part, relax, symmetry)
    part = with_axes_of_group(part, groups[0])
    if part is not None:
        require_part(part, classification or mode, len(given))
    units, half_set = check_particles(particles, mode, seed, tested=relax is not None)
    if classification is not None:
        exclusive_copies(classification, particles, units, len(given))
    if relax is not None and not keep_copies:
        rows = one_row_each(
            particles, units, *groups, poses_count=mode.needs_poses,
            registers_count=relax.start == "poses",
        )  # fmt: skip
        particles, units, half_set = particles.select(rows), units.select(rows), half_set[rows]
    say_what_shares_noise(particles, units)
    optics = particles.optics[0]
    of_whole = groups if part is None else relaxation_groups(None, part.rest_symmetry, placed=False)
    references = [
        prepared_reference(one, of, optics, force=force_group)
        for one, of in zip(given, states or [of_whole], strict=True)
    ]
    name, pixel = references[0].name, optics.pixel_size_angstrom
    diameter = max(_diameter(particle_diameter, one.values, pixel) for one in references)
    where = None
    if part is not None:
        where = located(part, groups[0], references[0].values, pixel, diameter)
        require_group_of_part(
            where, groups, references[0].values, name, relaxed=relax is not None, force=force_group
        )
    # The map's box is that of the particle: what images have around it, it need not hold.
    box = particle_box(optics.box, pixel, diameter)
    register_mask = _register_mask(relax, optics.box, pixel, diameter)
    if where is not None and register_mask is not None:
        register_mask = where.into_near(register_mask)
    if relax is not None and register_mask is not None:
        # Of several references the first that has registers.
        shown = next((k for k, (all_, kept) in enumerate(states) if kept.order < all_.order), 0)
        register_mask = completed_mask(
            rebox_map(register_mask, box), references[shown].values, relax, *groups
        )
    workers = available_workers(devices)
    if contrast == "black":
        particles = inverted(particles, np.ones(len(particles), bool))
    particles, units, half_set, normalised = usable_particles(
        particles, units, half_set, workers, particle_diameter_angstrom=diameter,
        normalise=normalise, skip_bad=skip_bad_images, tested=relax is not None,
    )  # fmt: skip
    n_folds = max(relax.cross_fit, 2) if relax is not None else 5
    make = partial(
        make_problem,
        noise=noise,
        map_box=box,
        map_pixel_size_angstrom=pixel,
        particle_diameter_angstrom=diameter,
        half_set=half_set,
        fold=folds(units, half_set, n_folds, seed),
        units=units,
        normalise=normalised,
        seed=seed,
        cache_bytes=int(cache_gib * 2**30),
        max_alignment_resolution_angstrom=max_alignment_resolution,
        workers=workers,
    )
    compared = partial(
        _compared, box=box, ini_high=ini_high, contrast=contrast, mode=mode, seed=seed
    )
    if part is not None and where is not None:
        # Contrast and scale are those of the whole particle, at the poses of the rest.
        held = partial(
            make, mode=Registers(), relax=None, symmetry=part.rest_symmetry, register_mask=None
        )
        whole = compared(held, at_base_poses(particles), references)
        particles = with_signs(particles, whole.problem.data.particles)
        made = of_part(
            part, where, whole.problem, whole.maps[0], particles, make, ini_high_angstrom=ini_high
        )
        particles, make, box = made.particles, made.make, made.box
        references = [references[0]._replace(values=made.reference)]
        del whole  # its images are read through another problem from here on
    # What is asked for belongs to the last stage.
    inferred = {"course": course, "latents": tuple(latents), "prior": map_prior}
    following: tuple[Stage, ...] = ()
    focus = None
    if classification is not None:
        focus = _focus_mask(classification, optics.box, pixel, diameter)
        if where is not None and focus is not None:
            focus = where.into_near(focus)
        of_states = partial(
            make, relax=relax, symmetry=symmetry, register_mask=register_mask,
            states=classification.groups(), **inferred,
            focus_mask=None if focus is None else rebox_map(focus, box),
            exclusive=exclusive_copies(classification, particles, units, len(given)),
        )  # fmt: skip
    if classification is not None and not states:
        later = partial(of_states, mode=classification.after_consensus)
        begin = partial(init_states, start=classification.starts_from(), seed=seed)
        following = (Stage(later, begin),)
        if classification.start == "splits":
            following = (Splits(later, begin, classification.most),)
        inferred = {}
    if states:
        make = partial(of_states, mode=mode)
    elif relax is not None and mode.relaxed is not None:
        relaxation = partial(
            make, mode=mode.relaxed, relax=relax, symmetry="C1", register_mask=register_mask,
            **inferred,
        )  # fmt: skip
        following = (Stage(relaxation, init_relaxation), *following)
        make = partial(make, mode=mode, relax=None, symmetry=relax.group, register_mask=None)
    else:
        make = partial(
            make, mode=mode, relax=relax, symmetry=symmetry, register_mask=register_mask,
            **inferred,
        )  # fmt: skip
    if where is None:
        problem, maps, low = compared(make, particles, references)
    else:
        problem = make(particles)
        maps, low = [rebox_map(references[0].values, box)], []
    if states:
        require_apart(problem.of_maps, low, [one.name for one in references])
    state = init(problem, *maps, ini_high_angstrom=ini_high)
    if until is None:
        until = DEFAULT_UNTIL if classification is None else UNTIL_STATES_SETTLED
    if final_passes:
        until = FinalPasses(until, final_passes)
    identity = {
        "mode": described(mode if classification is None else classification),
        "relax": described(relax),
        "symmetry": symmetry,
        "noise": described(noise),
        "course": described(course),
        "map_prior": described(map_prior),
        "latents": described(tuple(latents)),
        "ini_high": ini_high,
        "max_alignment_resolution": max_alignment_resolution,
        "particle_diameter": diameter,
        "normalise": normalise,
        "contrast": contrast,
        "seed": seed,
        "particles": file_hash(particles.source) if particles.source.is_file() else "in memory",
        "particle_values": particles_hash(particles),
        "n_particles": len(particles),
        "reference": references[0].hash if len(given) == 1 else [one.hash for one in references],
        "register_mask": None if register_mask is None else array_hash(register_mask),
        "focus_mask": None if focus is None else array_hash(focus),
    }
    if part is not None and where is not None:
        identity |= {"part": described(part)}
        identity |= {"part_mask": None if where.mask is None else array_hash(where.mask)}
    return Setup(problem, state, until, identity, following)


class _Compared(NamedTuple):
    """A problem whose particles are white, and references on their scale.

    Attributes:
        problem: with the particles.
        maps: references on its box.
        low: the same as far as they are used at first, before they were scaled.
    """

    problem: Problem
    maps: list[Float32[np.ndarray, "b b b"]]
    low: list[Float32[np.ndarray, "w w w"]]


def _compared(
    make: Callable[..., Problem],
    particles: Particles,
    references: Sequence[Reference],
    *,
    box: int,
    ini_high: float,
    contrast: str,
    mode: Mode,
    seed: int,
) -> _Compared:
    """References compared with the images: contrast, if it is to be found, and scale."""
    problem, name = make(particles), references[0].name
    maps = [rebox_map(one.values, box) for one in references]
    shell = problem.shells.rung(problem.shells.at(ini_high))
    low = [low_passed(problem.particle, one, shell) for one in maps]
    if contrast == "auto":
        white = made_white(
            problem.execution, low[0], shell, with_poses=mode.needs_poses, seed=seed, name=name
        )
        problem = problem if white is particles else make(white)
    # At the poses of the input a map matches all images or none, and that of a state some.
    match = matched_scale if mode.needs_poses and len(references) == 1 else matched_power
    maps = [
        match(problem.execution, first, one, shell, seed=seed, name=of.name)
        for first, one, of in zip(low, maps, references, strict=True)
    ]
    return _Compared(problem, maps, low)


def _diameter(given: float | None, reference, pixel: float) -> float:
    edge = reference.shape[0] * pixel
    if given is None:
        return min(2.0 * particle_radius_angstrom(reference, pixel) + 10.0, WIDEST * edge)
    if not 0 < given <= edge:
        raise InputError(f"particle diameter {given} Å does not fit the box of {edge:.1f} Å")
    return given


def _focus_mask(mode: Classification, box: int, pixel: float, diameter: float):
    if mode.focus_mask is None:
        return None
    return load_mask(mode.focus_mask, box, pixel, diameter)


def _register_mask(relax: Relax | None, box: int, pixel: float, diameter: float):
    if relax is None or relax.mask is None:
        return None
    return load_mask(relax.mask, box, pixel, diameter)
