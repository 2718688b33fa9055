"""RELION STAR files of particles, from 3.0 to 5, as `Particles`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int32

from jaxrelax.geometry import euler_to_matrix
from jaxrelax.io.aberrations import relion_aberrations
from jaxrelax.io.errors import InputError
from jaxrelax.io.mrc_header import read_header
from jaxrelax.io.particles import (
    Latents,
    Particles,
    group_optics,
    positive_scale,
    require_columns,
    some_rows,
    unique_names,
)
from jaxrelax.io.possible import (
    boxes,
    class_numbers,
    half_sets,
    require_defocus,
    require_possible,
)
from jaxrelax.io.relion_tables import ANGLES, PIXEL_SIZES, CtfLookup, read_document
from jaxrelax.io.stacks import resolve_stacks

logger = logging.getLogger("jaxrelax")

UNSET_PSI = -999.0
_QUANTITIES = {
    "rlnVoltage": "voltage_kv",
    "rlnSphericalAberration": "spherical_aberration_mm",
    "rlnAmplitudeContrast": "amplitude_contrast",
}
_IMAGE_NAME = re.compile(r"^(?:([0-9]+)@)?(.+)$")
_MOST_IMAGES = 10**12  # more than any file holds


def load_star(
    path: Path, image_root: Path | None, require_poses: bool, require_ctf: bool
) -> Particles:
    """Read a STAR file of particles; what is not modelled is not looked at (`Document.refusals`).

    Raises:
        InputError: the file, a block or a needed column is missing or holds something else.
    """
    document = read_document(path)
    lookup = CtfLookup(path, document)
    pixel_size = _pixel_size(path, lookup)
    ctf = _ctf(path, lookup, require_ctf)
    has_poses, rotations = _rotations(path, lookup, require_poses)
    origins = _origins_angstrom(lookup, pixel_size)
    box = boxes(path, "rlnImageSize", lookup.or_default("rlnImageSize", 0.0))
    phase_shift = lookup.or_default("rlnPhaseShift", 0.0)
    require_possible(path, "phase_shift_deg", "rlnPhaseShift", phase_shift)
    bfactor = lookup.or_default("rlnCtfBfactor", 0.0)
    require_possible(path, "bfactor_angstrom2", "rlnCtfBfactor", bfactor)

    optics_group, optics = group_optics(
        _group_names(lookup),
        lookup.group,
        {
            "pixel_size_angstrom": pixel_size,
            "box": box,
            "voltage_kv": ctf["rlnVoltage"],
            "spherical_aberration_mm": ctf["rlnSphericalAberration"],
            "amplitude_contrast": ctf["rlnAmplitudeContrast"],
            "ctf_premultiplied": lookup.or_default("rlnCtfDataAreCtfPremultiplied", 0.0) != 0,
            "phase_flipped": lookup.or_default("rlnCtfDataArePhaseFlipped", 0.0) != 0,
        },
        relion_aberrations(path, lookup, ctf["rlnVoltage"], ctf["rlnSphericalAberration"]),
    )
    stack_index, names, image_index = _images(path, lookup.particles.text["rlnImageName"])
    stack_paths = resolve_stacks(names, path, image_root, document.noted_roots())
    whole = image_index < 0
    _require_single(path, whole, names, stack_paths, stack_index)
    micrograph = lookup.particles.text.get("rlnMicrographName")
    if micrograph is not None:
        numbers, distinct = unique_names(micrograph)
        micrograph = np.array(distinct, dtype=object)[numbers]
    latents = Latents(
        rotations,
        origins,
        half_sets(path, "rlnRandomSubset", lookup.or_default("rlnRandomSubset", 0.0), first=1),
        class_numbers(path, "rlnClassNumber", lookup.or_default("rlnClassNumber", 0.0)),
    )
    return Particles(
        source=path,
        image_root=image_root,
        rotations=latents.rotations,
        origins_angstrom=latents.origins_angstrom,
        defocus_u_angstrom=ctf["rlnDefocusU"],
        defocus_v_angstrom=ctf["rlnDefocusV"],
        defocus_angle_deg=ctf["rlnDefocusAngle"],
        phase_shift_deg=phase_shift,
        bfactor_angstrom2=bfactor,
        optics_group=optics_group,
        optics=optics,
        half_set=latents.half_set,
        class_number=latents.class_number,
        stack_paths=stack_paths,
        stack_index=stack_index,
        image_index=np.where(whole, 0, image_index),
        image_names=names,
        image_sign=np.where(lookup.or_default("jrxImageSign", 1.0) < 0, -1, 1).astype(np.int8),
        micrograph=micrograph,
        has_poses=has_poses,
        document=document,
        as_read=latents,
        ctf_scale=positive_scale(path, lookup("rlnCtfScalefactor"), "rlnCtfScalefactor"),
    )


def _group_names(lookup: CtfLookup) -> list[str]:
    if lookup.optics is None:
        return ["opticsGroup1"]
    count = len(lookup.optics.table)
    default = [f"opticsGroup{i + 1}" for i in range(count)]
    return lookup.optics.text.get("rlnOpticsGroupName", default)


def _pixel_size(path: Path, lookup: CtfLookup) -> Float64[np.ndarray, " particles"]:
    values = lookup(*PIXEL_SIZES)
    if values is None:
        detector, magnification = lookup("rlnDetectorPixelSize"), lookup("rlnMagnification")
        if detector is not None and magnification is not None and np.all(magnification > 0):
            values = detector * 1e4 / magnification  # µm to Å
        else:
            values = lookup("rlnPixelSize")
    if values is None:
        raise InputError(
            f"{path}: no pixel size: none of the columns {', '.join(PIXEL_SIZES)} in "
            "'data_optics' or the particles, nor rlnDetectorPixelSize with a positive "
            "rlnMagnification. Add rlnImagePixelSize."
        )
    require_possible(path, "pixel_size_angstrom", "rlnImagePixelSize", values)
    return values


def _ctf(
    path: Path, lookup: CtfLookup, required: bool
) -> Mapping[str, Float64[np.ndarray, " particles"]]:
    labels = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnVoltage")
    labels = (*labels, "rlnSphericalAberration")
    found = {label: lookup(label) for label in labels}
    if required:
        require_columns(
            path,
            "the CTF",
            [label for label, values in found.items() if values is None],
            "Run a CTF estimation, or take the file that still has these columns.",
        )
    if "rlnAmplitudeContrast" not in lookup.particles.text and (
        lookup.optics is None or "rlnAmplitudeContrast" not in lookup.optics.text
    ):
        logger.warning("%s: no column rlnAmplitudeContrast; taken as 0, as RELION does.", path)
    found["rlnAmplitudeContrast"] = lookup.or_default("rlnAmplitudeContrast", 0.0)
    for label, quantity in _QUANTITIES.items():
        if (value := found[label]) is not None:
            require_possible(path, quantity, label, value)
    u, v = found["rlnDefocusU"], found["rlnDefocusV"]
    if u is not None and v is not None:
        require_defocus(path, ("rlnDefocusU", "rlnDefocusV"), u, v, lookup.group)
    zeros = np.zeros(lookup.n)
    return {label: zeros if value is None else value for label, value in found.items()}


def _rotations(
    path: Path, lookup: CtfLookup, required: bool
) -> tuple[bool, Float64[np.ndarray, "particles 3 3"]]:
    missing = [label for label in ANGLES if label not in lookup.particles.text]
    if required:
        require_columns(
            path,
            "poses",
            missing,
            "Run a consensus refinement first, and give its run_data.star; or let jaxrelax refine "
            "--mode homogeneous find them.",
        )
    if missing:
        return False, np.tile(np.eye(3), (lookup.n, 1, 1))
    rot, tilt, psi = (lookup.particles.numbers(label) for label in ANGLES)
    assert rot is not None
    assert tilt is not None
    assert psi is not None
    unset = psi == UNSET_PSI
    if unset.any():
        if required:
            raise InputError(
                f"{path}, {some_rows(unset)}: rlnAnglePsi is -999, which means 'unset'. "
                "Refine these particles first or remove the rows."
            )
        psi = np.where(unset, 0.0, psi)
    return not unset.any(), np.asarray(euler_to_matrix(rot, tilt, psi), np.float64)


def _origins_angstrom(
    lookup: CtfLookup, pixel_size: Float64[np.ndarray, " particles"]
) -> Float64[np.ndarray, "particles 2"]:
    columns = []
    for axis in "XY":
        values = lookup.particles.numbers(f"rlnOrigin{axis}Angst")
        if values is None:
            pixels = lookup.particles.numbers(f"rlnOrigin{axis}")
            values = np.zeros(lookup.n) if pixels is None else pixels * pixel_size
        columns.append(values)
    return np.stack(columns, axis=1)


def _images(path: Path, image_names: list[str]):
    """Stack number, stack names, and 0-based slice of ``000001@stack.mrcs``; -1 without one."""
    numbers = np.zeros(len(image_names), np.int64)
    files = []
    for row, text in enumerate(image_names):
        match = _IMAGE_NAME.match(text)
        number = None if match is None else match[1]
        if match is None or (number is not None and not 1 <= int(number) <= _MOST_IMAGES):
            raise InputError(
                f"{path}, row {row + 1}: rlnImageName '{text}' is not of the form "
                "000001@stack.mrcs, counting from 1."
            )
        numbers[row] = -1 if number is None else int(number) - 1
        files.append(match[2])
    index, distinct = unique_names(files)
    return index, distinct, numbers


def _require_single(
    path: Path,
    whole: Bool[np.ndarray, " particles"],
    names: Sequence[str],
    stack_paths: Sequence[Path],
    stack_index: Int32[np.ndarray, " particles"],
) -> None:
    """Refuse names without ``n@`` of files that hold more than one image.

    Raises:
        InputError: names the first such row.
    """
    for stack in np.unique(stack_index[whole]):
        if not os.path.isfile(stack_paths[stack]):
            continue  # an error of its own, once images are needed
        count = read_header(stack_paths[stack]).shape[0]
        if count > 1:
            rows = whole & (stack_index == stack)
            raise InputError(
                f"{path}, {some_rows(rows)}: rlnImageName '{names[stack]}' does not say which of "
                f"the {count} images of {stack_paths[stack]}. Write 000001@{names[stack]}, "
                "counting from 1."
            )
