"""Simulate a data set with known truth, as files that RELION and jaxrelax read."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxrelax.geometry import Aberrations, matrix_to_euler
from jaxrelax.io import InputError, write_map, write_stack
from jaxrelax.io.aberrations import TILT, aberration_columns
from jaxrelax.io.atomic import atomic_write_text
from jaxrelax.io.star import StarTable, make_table, write_star_tables
from jaxrelax.simulate.config import Simulation, SimulationResult
from jaxrelax.simulate.images import Microscope
from jaxrelax.simulate.pattern_truth import PatternTruth, pattern_truth
from jaxrelax.simulate.specimen import Specimen, load_specimen, magnification, require_room
from jaxrelax.simulate.swing import SwingingPart, part_mask, part_poses, rms_angle_deg
from jaxrelax.simulate.truth import Truth, draw_truth, group_colour, group_voltage_kv

logger = logging.getLogger("jaxrelax")

MICROGRAPHS_PER_GROUP = 20
MIN_BACKGROUND = 0.02  # of the pixels
MOST_PATTERN_MAPS = 99


def simulate(
    source: str | Path, out: str | Path, config: Simulation | None = None
) -> SimulationResult:
    """Make particle images of an atomic model, a map or the built-in phantom.

    Writes into the folder ``out``: ``particles.mrcs``; ``particles.star`` with consensus poses as
    a symmetric refinement leaves them (register at random, small errors); ``truth.star``, the
    same rows with the true poses and origins, and ``jrxTrueRegister`` (index g of the operator
    for which the true pose is the mate ``A gᵀ`` of the consensus pose ``A``), ``jrxJunk``,
    ``jrxSymmetric`` and ``jrxOccupiedSites``; ``truth_map.mrc`` (the object; where sites are
    occupied at random, its mean) and ``reference.mrc`` (the same, symmetrised over the group),
    both on the grey scale of the images: their sum over z, times the CTF, is the signal; and
    ``simulation.json``.

    Where sites are occupied at random and each operator has one, ``truth.star`` also says which
    of :func:`jaxrelax.geometry.occupancy_patterns` a particle has: ``rlnClassNumber`` (from 1; 0
    is junk), ``jrxRegister`` (from 1, within the pattern: the representative is seen at the mate
    of that register of the consensus pose, but for the pose error) and ``jrxPlacement`` (index t
    of the operator that takes the representative to the occupied sites: it is seen at the pose
    ``A t`` for the true pose A). The maps of the representatives are ``truth_map_01.mrc`` and so
    on, unless there are more than 99.

    Where a part swings (``swing_deg``) it is turned about its hinge h by a rotation S of its own
    in every image: a point r of it is at ``h + S (r − h)``. ``truth.star`` then has the pose of
    the part besides that of the body: ``jrxPartAngleRot``, ``jrxPartAngleTilt``,
    ``jrxPartAnglePsi`` (the pose ``A S``, for the true pose A of the body) and
    ``jrxPartOriginXAngst``, ``jrxPartOriginYAngst`` (the origin ``o − (A (h − S h))[:2]``, for the
    body's origin o): ``truth_part.mrc``, the part alone where it is on average, projected at that
    pose and origin as any particle is, gives the image of the part. ``part_mask.mrc`` is a soft
    mask around it. The hinge (Å from the centre of the box) and the names of the chains that swing
    are in ``simulation.json`` under ``measured``, ``swing``. The other maps show the part where it
    is on average, too; fully symmetric particles do not swing, nor does junk.

    Images follow RELION: white particles, centred on pixel ``box // 2`` once shifted by +origin,
    background of mean 0 and standard deviation 1.

    Args:
        source: path of a model (.cif, .pdb, maybe gzipped) or of a map (.mrc), or ``"phantom"``.
        out: folder to write into; made if it does not exist.
        config: the options; the defaults if left out.

    Raises:
        InputError: an option is out of range or cannot act on this source, or a file is unreadable
            or cannot be written.
    """
    config = Simulation() if config is None else config
    specimen = load_specimen(source, config)
    truth_rng, noise_rng = (np.random.default_rng([config.seed, i]) for i in range(2))
    truth = draw_truth(config, specimen.group, specimen.occupancy, truth_rng)
    _require_room_to_swing(specimen, truth, config)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot make this folder ({error.strerror}).") from error
    result = SimulationResult(
        folder=out,
        particles=out / "particles.star",
        truth=out / "truth.star",
        reference=out / "reference.mrc",
        truth_map=out / "truth_map.mrc",
        measured=dict(specimen.report),
    )
    patterns = pattern_truth(specimen, truth)
    radius = _particle_radius(specimen, config)
    microscope = Microscope(specimen, truth, config, radius)

    occupancy = specimen.occupancy.probabilities
    pixel = config.pixel_size_angstrom
    truth_map = microscope.scale * specimen.mean_map(occupancy, symmetrise=False)
    reference = microscope.scale * specimen.mean_map(occupancy, symmetrise=True)
    write_map(result.truth_map, truth_map, pixel)
    write_map(result.reference, reference, pixel)
    result.measured["asymmetric_power_fraction"] = _asymmetric_power(truth_map, reference)
    del truth_map, reference
    if patterns is not None:
        result.measured["patterns"] = patterns.report()
        result = replace(result, pattern_maps=_write_maps(specimen, patterns, microscope, out))

    if specimen.part is not None and truth.swings is not None:
        moving = truth.swings[~(truth.junk | truth.symmetric)]
        result = _write_part(result, specimen, specimen.part, moving, microscope)

    write_stack(out / "particles.mrcs", microscope.images(noise_rng), pixel, config.dtype)
    _write_tables(result, truth, config, patterns, _part_columns(specimen, truth, config))
    result.measured.update(
        grey_scale=microscope.scale,
        particle_diameter_angstrom=2.0 * radius,
        # The noise has variance one before the images are normalised.
        snr=microscope.variance.mean(),
        snr_per_optics_group=microscope.variance.per_group(),
        n_junk=int(truth.junk.sum()),
        n_symmetric=int(truth.symmetric.sum()),
        optics_groups=[
            {"voltage_kv": group_voltage_kv(config, g), "noise_colour": group_colour(config, g)}
            for g in range(config.n_optics_groups)
        ],
    )
    content = {"simulation": asdict(config), "measured": result.measured}
    atomic_write_text(out / "simulation.json", json.dumps(content, indent=2) + "\n")
    logger.info("%s: %d images, SNR %.3g.", out, config.n_images, result.measured["snr"])
    return result


def _particle_radius(specimen: Specimen, config: Simulation) -> float:
    diameter = config.particle_diameter_angstrom
    radius = specimen.radius_angstrom() if diameter is None else 0.5 * diameter
    area = np.pi * (radius / config.pixel_size_angstrom) ** 2
    if radius > 0.5 * config.box * config.pixel_size_angstrom:
        raise InputError(
            f"the particle's circle ({2 * radius:.0f} Å across) is larger than the box "
            f"({config.box * config.pixel_size_angstrom:.0f} Å). Use a larger box."
        )
    if area < 10.0:
        raise InputError(f"particle_diameter_angstrom {2 * radius:g} is only a few pixels.")
    return radius


def _asymmetric_power(
    truth_map: Float[np.ndarray, "z y x"], reference: Float[np.ndarray, "z y x"]
) -> float:
    """Power of what the symmetrisation removes, relative to that of the object."""
    difference = np.sum((truth_map - reference).astype(np.float64) ** 2)
    return float(difference / np.sum(truth_map.astype(np.float64) ** 2))


def _write_maps(
    specimen: Specimen, patterns: PatternTruth, microscope: Microscope, out: Path
) -> tuple[Path, ...]:
    """Maps of all patterns; none if they are too many."""
    if len(patterns.patterns) > MOST_PATTERN_MAPS:
        return ()
    pixel, paths = microscope.config.pixel_size_angstrom, []
    for number, density in enumerate(patterns.maps(specimen)):
        paths.append(out / f"truth_map_{number + 1:02d}.mrc")
        write_map(paths[-1], np.float32(microscope.scale) * density, pixel)
    return tuple(paths)


def _require_room_to_swing(specimen: Specimen, truth: Truth, config: Simulation) -> None:
    if specimen.part is not None and truth.swings is not None:
        positions = specimen.atoms.positions_angstrom
        reach = specimen.part.reach_angstrom(positions, truth.swings)
        require_room(reach, specimen.atoms, config)


def _write_part(
    result: SimulationResult,
    specimen: Specimen,
    part: SwingingPart,
    swings: Float[np.ndarray, "n 3 3"],
    microscope: Microscope,
) -> SimulationResult:
    """The map of the part and its mask; the result with them and with what was drawn."""
    pixel, folder = microscope.config.pixel_size_angstrom, result.folder
    paths = {"truth_part": folder / "truth_part.mrc", "part_mask": folder / "part_mask.mrc"}
    density = specimen.projector.map(part.atoms.astype(np.float64))
    write_map(paths["truth_part"], np.float32(microscope.scale) * density, pixel)
    positions = specimen.atoms.positions_angstrom[part.atoms]
    write_map(paths["part_mask"], part_mask(positions, microscope.config.box, pixel), pixel)
    result.measured["swing"] = {
        "hinge_angstrom": part.hinge_angstrom.tolist(),
        "chains": list(part.chains),
        "rms_angle_deg": rms_angle_deg(swings) if len(swings) else None,
    }
    return replace(result, **paths)


def _part_columns(specimen: Specimen, truth: Truth, config: Simulation) -> dict[str, list[str]]:
    """Pose of the part that swings, under names that say that it is not the particle's."""
    if specimen.part is None or truth.swings is None:
        return {}
    poses, origins = part_poses(
        truth.poses,
        truth.origins_angstrom,
        truth.swings,
        specimen.part.hinge_angstrom,
        magnification(config),
    )
    columns = _pose_columns(poses, origins)
    return {name.replace("rln", "jrxPart", 1): values for name, values in columns.items()}


def _write_tables(
    result: SimulationResult,
    truth: Truth,
    config: Simulation,
    patterns: PatternTruth | None,
    part: dict[str, list[str]],
) -> None:
    optics = _optics_table(config)
    consensus = _pose_columns(truth.consensus_poses, truth.consensus_origins_angstrom)
    true = _pose_columns(truth.poses, truth.origins_angstrom)
    common = _common_columns(truth)
    half = {"rlnRandomSubset": _integers(truth.half_set)}
    extra = {
        "jrxTrueRegister": _integers(truth.registers),
        "jrxJunk": _integers(truth.junk),
        "jrxSymmetric": _integers(truth.symmetric),
    }
    if truth.occupied.shape[1]:
        extra["jrxOccupiedSites"] = [_site_list(row) for row in truth.carried]
    if patterns is not None:
        extra["rlnClassNumber"] = _integers(patterns.states)
        extra["jrxRegister"] = _integers(patterns.registers)
        extra["jrxPlacement"] = _integers(patterns.placements)
    extra |= part
    for path, columns in (
        (result.particles, {**common, **consensus, **half}),
        (result.truth, {**common, **true, **half, **extra}),
    ):
        table = make_table("particles", columns, comment="# version 30001")
        write_star_tables(path, (optics, table))


def _optics_table(config: Simulation) -> StarTable:
    groups = range(config.n_optics_groups)
    columns = {
        "rlnOpticsGroup": [str(g + 1) for g in groups],
        "rlnOpticsGroupName": [f"opticsGroup{g + 1}" for g in groups],
        "rlnAmplitudeContrast": [f"{config.amplitude_contrast:.6f}" for _ in groups],
        "rlnSphericalAberration": [f"{config.spherical_aberration_mm:.6f}" for _ in groups],
        "rlnVoltage": [f"{group_voltage_kv(config, g):.6f}" for g in groups],
        "rlnImagePixelSize": [f"{config.pixel_size_angstrom:.6f}" for _ in groups],
        "rlnImageSize": [str(config.box) for _ in groups],
        "rlnImageDimensionality": ["2" for _ in groups],
        "rlnPhaseShift": [f"{config.phase_shift_deg:.6f}" for _ in groups],
    }
    if config.phase_shift_deg == 0.0:
        del columns["rlnPhaseShift"]
    if any(config.beam_tilt):
        for label, tilt in zip(TILT, config.beam_tilt, strict=True):
            columns[label] = [f"{tilt:.9g}" for _ in groups]
    # Beam tilt has columns of its own; the rest is the same in all groups.
    rest = Aberrations(*config.zernike_terms(), config.magnification)
    columns |= aberration_columns([rest for _ in groups])
    return make_table("optics", columns, comment="# version 30001")


def _common_columns(truth: Truth) -> dict[str, list[str]]:
    n = len(truth.registers)
    numbers = np.arange(n) % MICROGRAPHS_PER_GROUP + 1
    return {
        "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(n)],
        "rlnMicrographName": [
            f"group{g + 1}_mic{m:03d}.mrc" for g, m in zip(truth.optics_group, numbers, strict=True)
        ],
        "rlnOpticsGroup": _integers(truth.optics_group + 1),
        "rlnDefocusU": [f"{x:.2f}" for x in truth.defocus_u_angstrom],
        "rlnDefocusV": [f"{x:.2f}" for x in truth.defocus_v_angstrom],
        "rlnDefocusAngle": [f"{x:.3f}" for x in truth.defocus_angle_deg],
    }


def _pose_columns(
    poses: Float[np.ndarray, "n 3 3"], origins: Float[np.ndarray, "n 2"]
) -> dict[str, list[str]]:
    angles = matrix_to_euler(poses)
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    return {
        name: [f"{x:.6f}" for x in values]
        for name, values in zip(names, (*angles, *origins.T), strict=True)
    }


def _site_list(row: np.ndarray) -> str:
    return "+".join(str(i) for i in np.flatnonzero(row)) or "none"


def _integers(values: Sequence[Any] | np.ndarray) -> list[str]:
    return [str(int(value)) for value in values]
