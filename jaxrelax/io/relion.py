"""RELION STAR files of particles, from 3.0 to 5, as `Particles`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from jaxrelax.geometry import euler_to_matrix
from jaxrelax.io import relion_refusals
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import (
    Document,
    Latents,
    Particles,
    Refusal,
    group_optics,
    require_columns,
    some_rows,
    unique_names,
)
from jaxrelax.io.stacks import resolve_stacks
from jaxrelax.io.star import StarTable, read_star

logger = logging.getLogger("jaxrelax")

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
PIXEL_SIZES = ("rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
UNSET_PSI = -999.0
_IMAGE_NAME = re.compile(r"^(?:(\d+)@)?(.+)$")


@dataclass(frozen=True)
class StarDocument(Document):
    """All the blocks of a STAR file, and which of them hold the particles and the optics."""

    tables: tuple[StarTable, ...]
    particle_block: int
    optics_block: int | None

    @property
    def particles(self) -> StarTable:
        """The block with one row per particle."""
        return self.tables[self.particle_block]

    @property
    def optics(self) -> StarTable | None:
        """``data_optics``; None in files of RELION 3.0 and older."""
        return None if self.optics_block is None else self.tables[self.optics_block]

    def with_particles(self, table: StarTable) -> StarDocument:
        """The same file with another block of particles."""
        i = self.particle_block
        return replace(self, tables=(*self.tables[:i], table, *self.tables[i + 1 :]))

    def select(self, rows: Int[np.ndarray, " rows"]) -> StarDocument:
        return self.with_particles(self.particles.select(rows))

    def column(self, name: str) -> np.ndarray | None:
        if name not in self.particles:
            return None
        return np.array(self.particles.column(name), dtype=object)

    def refusals(self) -> list[Refusal]:
        return relion_refusals.find(self.particles, self.optics)


def read_document(path: Path) -> StarDocument:
    """Read a STAR file and find its particles.

    Raises:
        InputError: no block has a column rlnImageName.
    """
    tables = read_star(path)
    with_images = [i for i, table in enumerate(tables) if "rlnImageName" in table]
    named = [i for i in with_images if tables[i].name == "particles"] or with_images
    if not named:
        raise InputError(
            f"{path}: no column rlnImageName in any block, so no particles. "
            "Give a STAR file of particles, such as run_data.star."
        )
    if len(tables[named[0]]) == 0:
        raise InputError(f"{path}: block 'data_{tables[named[0]].name}' has no rows.")
    optics = next((i for i, table in enumerate(tables) if table.name == "optics"), None)
    return StarDocument(tables, named[0], optics)


class _Lookup:
    """CTF values in RELION's order: particle table, then optics table, then a default."""

    def __init__(self, path: Path, document: StarDocument):
        self.path = path
        self.n = len(document.particles)
        self.particles = _Columns(path, document.particles)
        self.optics = None if document.optics is None else _Columns(path, document.optics)
        self.group = self._groups()

    def _groups(self) -> Int[np.ndarray, " particles"]:
        """0-based row of the optics table for each particle."""
        if self.optics is None:
            return np.zeros(self.n, np.int64)
        count = len(self.optics.table)
        if count == 0:
            raise InputError(f"{self.path}: block 'data_optics' has no rows.")
        if "rlnOpticsGroup" not in self.particles.table:
            if count == 1:
                return np.zeros(self.n, np.int64)
            raise InputError(
                f"{self.path}: no column rlnOpticsGroup in the particles although there are "
                f"{count} optics groups. Add the column."
            )
        numbers = self.optics.numbers("rlnOpticsGroup")
        numbers = np.arange(1.0, count + 1) if numbers is None else numbers
        wanted = self.particles.numbers("rlnOpticsGroup")
        assert wanted is not None
        match = wanted[:, None] == numbers[None, :]
        lost = ~match.any(axis=1)
        if lost.any():
            raise InputError(
                f"{self.path}, {some_rows(lost)}: rlnOpticsGroup {wanted[lost][0]:g} is not in "
                "'data_optics'. Add the group or correct the rows."
            )
        return match.argmax(axis=1)

    def __call__(self, *labels: str) -> Float64[np.ndarray, " particles"] | None:
        """Values of the first of these labels that the file has, particle table first."""
        for label in labels:
            values = self.particles.numbers(label)
            if values is not None:
                return values
            if self.optics is not None and (per_group := self.optics.numbers(label)) is not None:
                return per_group[self.group]
        return None

    def or_default(self, label: str, default: float) -> Float64[np.ndarray, " particles"]:
        values = self(label)
        return np.full(self.n, default) if values is None else values


class _Columns:
    """Columns of one block as numbers, with errors that name the column and the row."""

    def __init__(self, path: Path, table: StarTable):
        self.path = path
        self.table = table
        self.text = table.columns(_WANTED)  # one pass over the file

    def numbers(self, label: str) -> Float64[np.ndarray, " rows"] | None:
        if label not in self.text:
            return None
        text = self.text[label]
        try:
            values = np.array(text, dtype=np.float64)
        except ValueError as error:
            row = next(i for i, value in enumerate(text) if not _is_number(value))
            raise InputError(
                f"{self.path}, block 'data_{self.table.name}', row {row + 1}: column {label} is "
                f"'{text[row]}', not a number. Correct the value."
            ) from error
        if not np.all(np.isfinite(values)):
            raise InputError(
                f"{self.path}, block 'data_{self.table.name}', "
                f"{some_rows(~np.isfinite(values))}: column {label} is not finite. "
                "Correct or remove these rows."
            )
        return values


_WANTED = (
    *ANGLES,
    *PIXEL_SIZES,
    *("rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "rlnOpticsGroupName"),
    *("rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst"),
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor"),
    *("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImageSize"),
    *("rlnPixelSize", "rlnMagnification", "rlnDetectorPixelSize"),
    *("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"),
    *("rlnRandomSubset", "rlnClassNumber"),
)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def load_star(
    path: Path, image_root: Path | None, require_poses: bool, require_ctf: bool
) -> Particles:
    """Read a STAR file of particles; aberrations are not looked at (see `Document.refusals`).

    Raises:
        InputError: the file, a block or a needed column is missing or holds something else.
    """
    document = read_document(path)
    lookup = _Lookup(path, document)
    n = lookup.n
    pixel_size = _pixel_size(path, lookup)
    ctf = _ctf(path, lookup, require_ctf)
    has_poses, rotations = _rotations(path, lookup, require_poses)
    origins = _origins_angstrom(lookup, pixel_size)
    box = lookup.or_default("rlnImageSize", 0.0)

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
    )
    stack_index, names, image_index = _images(path, lookup.particles.text["rlnImageName"])
    micrograph = lookup.particles.text.get("rlnMicrographName")
    if micrograph is not None:
        numbers, distinct = unique_names(micrograph)
        micrograph = np.array(distinct, dtype=object)[numbers]
    latents = Latents(
        rotations,
        origins,
        lookup.or_default("rlnRandomSubset", 0.0).astype(np.int8),
        lookup.or_default("rlnClassNumber", 0.0).astype(np.int32),
    )
    return Particles(
        source=path,
        image_root=image_root,
        rotations=latents.rotations,
        origins_angstrom=latents.origins_angstrom,
        defocus_u_angstrom=ctf["rlnDefocusU"],
        defocus_v_angstrom=ctf["rlnDefocusV"],
        defocus_angle_deg=ctf["rlnDefocusAngle"],
        phase_shift_deg=lookup.or_default("rlnPhaseShift", 0.0),
        bfactor_angstrom2=lookup.or_default("rlnCtfBfactor", 0.0),
        optics_group=optics_group,
        optics=optics,
        half_set=latents.half_set,
        class_number=latents.class_number,
        stack_paths=resolve_stacks(names, path, image_root),
        stack_index=stack_index,
        image_index=image_index,
        image_names=names,
        image_sign=np.ones(n, np.int8),
        micrograph=micrograph,
        has_poses=has_poses,
        document=document,
        as_read=latents,
    )


def _group_names(lookup: _Lookup) -> list[str]:
    if lookup.optics is None:
        return ["opticsGroup1"]
    count = len(lookup.optics.table)
    default = [f"opticsGroup{i + 1}" for i in range(count)]
    return lookup.optics.text.get("rlnOpticsGroupName", default)


def _pixel_size(path: Path, lookup: _Lookup) -> Float64[np.ndarray, " particles"]:
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
    if np.any(values <= 0):
        raise InputError(
            f"{path}, {some_rows(values <= 0)}: the pixel size is not positive. "
            "Correct rlnImagePixelSize (or rlnDetectorPixelSize and rlnMagnification)."
        )
    return values


def _ctf(
    path: Path, lookup: _Lookup, required: bool
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
    zeros = np.zeros(lookup.n)
    values = {label: zeros if value is None else value for label, value in found.items()}
    return {**values, "rlnAmplitudeContrast": lookup.or_default("rlnAmplitudeContrast", 0.0)}


def _rotations(
    path: Path, lookup: _Lookup, required: bool
) -> tuple[bool, Float64[np.ndarray, "particles 3 3"]]:
    missing = [label for label in ANGLES if label not in lookup.particles.text]
    if required:
        require_columns(
            path, "poses", missing, "Run a consensus refinement first, and give its run_data.star."
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
    lookup: _Lookup, pixel_size: Float64[np.ndarray, " particles"]
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
    """Stack number, stack names and 0-based slice from ``000001@stack.mrcs``."""
    numbers = np.zeros(len(image_names), np.int64)
    files = []
    for row, text in enumerate(image_names):
        match = _IMAGE_NAME.match(text)
        number = None if match is None else match[1]
        if match is None or (number is not None and int(number) < 1):
            raise InputError(
                f"{path}, row {row + 1}: rlnImageName '{text}' is not of the form "
                "000001@stack.mrcs, counting from 1."
            )
        numbers[row] = 0 if number is None else int(number) - 1
        files.append(match[2])
    index, distinct = unique_names(files)
    return index, distinct, numbers
