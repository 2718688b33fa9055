"""From a refinement of the whole particle to one of its part: frame, poses, and the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.geometry import euler_to_matrix
from jaxrelax.imaging import rebox_map
from jaxrelax.io import InputError, Particles
from jaxrelax.reconstruction import particle_box
from jaxrelax.refinement.classification import Classification, OccupancyPatterns
from jaxrelax.refinement.modes import Mode
from jaxrelax.refinement.part import Located, Part
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.rest import learned_rest
from jaxrelax.refinement.start import init

# The pose of the rest, in tables of a part that was refined before.
BASE_ANGLES = ("jrxBaseAngleRot", "jrxBaseAngleTilt", "jrxBaseAnglePsi")
BASE_ORIGINS = ("jrxBaseOriginXAngst", "jrxBaseOriginYAngst")


class OfPart(NamedTuple):
    """What the refinement of a part is made of.

    Attributes:
        particles: with their poses in the frame of the part.
        reference: in the frame, on the images' box and their scale, inside the mask.
        make: problems of the part, as ``make_problem``.
        box: of the part's map.
    """

    particles: Particles
    reference: Float32[np.ndarray, "n n n"]
    make: Callable[..., Problem]
    box: int


def require_part(part: Part, mode: Mode, references: int) -> None:
    """Refuse modes that a part cannot be refined in.

    Raises:
        InputError: says which, and why.
    """
    if not mode.needs_poses:
        raise InputError(
            f"a part is refined from the poses of the whole particle, and mode "
            f"{type(mode).__name__} finds poses anew; use --mode local (Local())"
        )
    if references > 1 or (isinstance(mode, Classification) and mode.start == "references"):
        raise InputError(
            "several references and a part: states of a part start from one reference of the "
            "whole particle; leave --further-references out"
        )
    if isinstance(mode, OccupancyPatterns) and part.mask is not None:
        raise InputError(
            "--states patterns infers which of all sites are occupied, and a part holds one; "
            "leave --mask (Part.mask) out"
        )


def at_base_poses(particles: Particles) -> Particles:
    """The particles at the poses of the rest: those of the table unless it says others."""
    base = base_poses(particles)
    if base is None:
        return particles
    return particles.with_updates(rotations=base[0], origins_angstrom=base[1])


def base_poses(
    particles: Particles,
) -> tuple[Float64[np.ndarray, "n 3 3"], Float64[np.ndarray, "n 2"]] | None:
    """Poses of the rest that an earlier refinement of a part wrote; None where there was none.

    Raises:
        InputError: some of its columns are missing, or no numbers.
    """
    columns = {name: particles.column(name) for name in (*BASE_ANGLES, *BASE_ORIGINS)}
    if all(values is None for values in columns.values()):
        return None
    missing = [name for name, values in columns.items() if values is None]
    if missing:
        raise InputError(
            f"{particles.source}: has some columns of the pose of the rest, and not "
            f"{', '.join(missing)}. Give the table as it was written, or remove all jrxBase columns"
        )
    try:
        numbers = {name: np.asarray(v).astype(np.float64) for name, v in columns.items()}
    except ValueError as error:
        raise InputError(f"{particles.source}: a jrxBase column holds no numbers ({error})") from (
            error
        )
    for name, values in numbers.items():
        if not np.all(np.isfinite(values)):
            raise InputError(
                f"{particles.source}, {particles.some_rows(~np.isfinite(values))}: {name} is not "
                "finite"
            )
    angles = (numbers[name] for name in BASE_ANGLES)
    return euler_to_matrix(*angles), np.stack([numbers[name] for name in BASE_ORIGINS], axis=1)


def of_part(
    part: Part,
    where: Located,
    whole: Problem,
    reference: Float32[np.ndarray, "b b b"],
    particles: Particles,
    make: Callable[..., Problem],
    *,
    ini_high_angstrom: float,
) -> OfPart:
    """The refinement of a part, from that of the whole at the poses of the rest.

    Args:
        part, where: what is refined, and where.
        whole: the whole particle, its poses held, nothing relaxed.
        reference: of the whole, on its box and the absolute scale of the images.
        particles: with the poses of the part, in the map's frame.
        make: of the whole's problem.
        ini_high_angstrom: the reference is used up to this.
    """
    optics = particles.optics[0]
    rest = None
    if where.mask is not None:
        inside = rebox_map(np.clip(where.back_near(where.mask), 0.0, 1.0), whole.shells.box)
        state = init(whole, reference, ini_high_angstrom=ini_high_angstrom)
        rest = learned_rest(whole, state, 1.0 - inside)
    rotations, origins = where.frame.poses(
        particles.rotations, particles.origins_angstrom, particles.magnifications
    )
    framed = particles.with_updates(rotations=rotations, origins_angstrom=origins)
    map_ = where.into(rebox_map(reference, optics.box))
    diameter = min(where.diameter_angstrom, optics.box * optics.pixel_size_angstrom)
    box = particle_box(optics.box, optics.pixel_size_angstrom, diameter)
    made = partial(
        make,
        map_box=box,
        particle_diameter_angstrom=diameter,
        background_diameter_angstrom=whole.particle.diameter_angstrom,
        where=where,
        rest=rest,
    )
    return OfPart(framed, map_ if where.mask is None else map_ * where.mask, made, box)


def with_signs(particles: Particles, white: Particles) -> Particles:
    """The particles with the contrast of others of the same rows."""
    return dataclasses.replace(particles, image_sign=white.image_sign)
