"""The result of a part where it is in the particle, and how it moves against the rest."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Float64, Int

from jaxrelax.engine.rest import Rest
from jaxrelax.geometry import matrix_to_euler, matrix_to_rotvec, recentred_origins
from jaxrelax.imaging import rebox_map
from jaxrelax.reconstruction import DifferenceInSigma
from jaxrelax.refinement.part import Located
from jaxrelax.refinement.part_stage import BASE_ANGLES, BASE_ORIGINS
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.result import PartMotion, Result

TURN = ("jrxPartTurnXDeg", "jrxPartTurnYDeg", "jrxPartTurnZDeg")
SHIFT = ("jrxPartShiftXAngst", "jrxPartShiftYAngst")


def in_the_particle(problem: Problem, result: Result) -> Result:
    """Maps and poses of a part as those of the particle that it belongs to; of all as they are.

    Total poses are those of the table; with a mask also those of the rest, and the motion between
    the two: ``A = A₀ exp([v]×)`` with v in degrees about the axes of the map, and where the centre
    is seen less where the rest has it.

    Args:
        problem: says where the part is, and what surrounds it.
        result: in the frame of the part.
    """
    where, rest = problem.where, problem.execution.rest
    if where is None:
        return result
    particles, frame = result.particles, where.frame
    stretched = particles.magnifications
    rotations, origins = frame.poses_of_map(
        particles.rotations, particles.origins_angstrom, stretched
    )
    columns: dict[str, np.ndarray] = {}
    motion = None
    if rest is not None:
        columns = motion_columns(rotations, origins, rest, frame.centre_angstrom, stretched)
        # Of a part in registers: what it is turned by beside them.
        bare = particles.rotations @ result.operators[best_place(result)]
        there = frame.poses_of_map(bare, particles.origins_angstrom, stretched)
        motion = _motion(motion_columns(*there, rest, frame.centre_angstrom, stretched), where)
    moved = particles.with_updates(
        rotations=rotations, origins_angstrom=origins, extra_columns=columns
    )
    operators, shifts = frame.operators_of_map(result.operators)
    mask = where.back_near(result.mask)
    changes = {
        "particles": moved,
        "map": _placed(result.map, where),
        "half_maps": tuple(where.back(half) for half in result.half_maps),
        "map_symmetrised": _placed(result.map_symmetrised, where),
        "difference": _placed(result.difference, where),
        "mask": mask,
        "operators": operators,
        "operator_shifts_angstrom": shifts,
        "in_sigma": _in_sigma(result.in_sigma, where),
        "local_resolution": _near(result.local_resolution, where),
        "states": tuple(
            dataclasses.replace(
                one,
                map=_placed(one.map, where),
                half_maps=tuple(where.back(half) for half in one.half_maps),
                mask=where.back_near(one.mask),
                in_sigma=_in_sigma(one.in_sigma, where),
                local_resolution=_near(one.local_resolution, where),
            )
            for one in result.states
        ),
        "part": motion,
    }
    if rest is not None:
        around = _everything_around(rest, len(result.map))
        changes["map_composite"] = (around + changes["map"]).astype(np.float32)
    return dataclasses.replace(result, **changes)


def best_place(result: Result) -> Int[np.ndarray, " n"]:
    """Register, of all states together, that the poses of a result are in."""
    if not result.states:
        return result.best_register
    counts = np.cumsum([0] + [one.registers for one in result.states])
    columns = result.particles.extra_columns
    state = np.asarray(columns["rlnClassNumber"], np.int64) - 1
    return counts[state] + np.asarray(columns["jrxRegister"], np.int64) - 1


def motion_columns(
    rotations: Float64[np.ndarray, "n 3 3"],
    origins_angstrom: Float64[np.ndarray, "n 2"],
    rest: Rest,
    centre_angstrom: Float64[np.ndarray, "3"],
    stretched: Float64[np.ndarray, "n 2 2"] | None,
) -> dict[str, Float64[np.ndarray, " n"]]:
    """Poses of the rest, and the motion of the part against it, as columns of a table.

    Args:
        rotations, origins_angstrom: total poses of the part, in the map's frame.
        rest: with its own.
        centre_angstrom: the point whose shift is meant.
        stretched: magnifications, see :func:`jaxrelax.geometry.recentred_origins`.
    """
    turn = np.rad2deg(matrix_to_rotvec(np.swapaxes(rest.rotations, 1, 2) @ rotations))
    seen, held = (
        -recentred_origins(o, r, centre_angstrom, stretched)
        for r, o in ((rotations, origins_angstrom), (rest.rotations, rest.origins_angstrom))
    )
    values = [
        *np.stack(matrix_to_euler(rest.rotations), axis=0),
        *rest.origins_angstrom.T,
        *turn.T,
        *(seen - held).T,
    ]
    return dict(zip((*BASE_ANGLES, *BASE_ORIGINS, *TURN, *SHIFT), values, strict=True))


def _motion(columns: dict[str, np.ndarray], where: Located) -> PartMotion:
    turn = np.stack([columns[name] for name in TURN], axis=1)
    shift = np.stack([columns[name] for name in SHIFT], axis=1)
    by_axis = np.sqrt(np.mean(turn**2, axis=0))
    x, y, z = (float(value) for value in where.frame.centre_angstrom)
    a, b, c = (float(value) for value in where.frame.axes[2])
    i, j, k = (float(value) for value in by_axis)
    return PartMotion(
        (x, y, z), (a, b, c), float(np.sqrt(np.sum(by_axis**2))), (i, j, k),
        float(np.sqrt(np.mean(shift**2))),
    )  # fmt: skip


def _placed(map_: Float32[np.ndarray, "n n n"], where: Located) -> Float32[np.ndarray, "n n n"]:
    """A map of the part in the particle, without what its mask leaves out."""
    return where.back(map_ if where.mask is None else map_ * where.mask)


def _everything_around(rest: Rest, box: int) -> Float32[np.ndarray, "n n n"]:
    """The rest, of all images."""
    return rebox_map(rest.maps.mean(axis=(0, 1), dtype=np.float64).astype(np.float32), box)


def _near(values: Float32[np.ndarray, "n n n"] | None, where: Located):
    return None if values is None else where.back_near(values)


def _in_sigma(found: DifferenceInSigma | None, where: Located) -> DifferenceInSigma | None:
    if found is None:
        return None

    def place(point):
        x, y, z = (float(value) for value in where.frame.point_of_map(np.asarray(point)))
        return x, y, z

    regions = tuple(
        dataclasses.replace(
            one,
            peak_angstrom=place(one.peak_angstrom),
            centre_angstrom=place(one.centre_angstrom),
        )
        for one in found.regions
    )
    return dataclasses.replace(
        found,
        sigma=where.back_near(found.sigma),
        significant=where.back_near(found.significant.astype(np.float32)) > 0.5,
        searched=where.back_near(found.searched.astype(np.float32)) > 0.5,
        regions=regions,
    )
