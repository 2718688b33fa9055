"""Particles written back: STAR for RELION, ``.cs`` for cryoSPARC, untouched values as they were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from jaxrelax.geometry import matrix_to_cryosparc_pose, matrix_to_euler
from jaxrelax.io.atomic import atomic_open
from jaxrelax.io.cryosparc import (
    ALIGNMENT_PIXEL,
    CLASS,
    NOTED_ROOT,
    POSE,
    SHIFT,
    SPLIT,
    CryosparcDocument,
    cryosparc_field,
    shift_pixel_size,
)
from jaxrelax.io.cryosparc_records import append_fields
from jaxrelax.io.cryosparc_to_star import star_document
from jaxrelax.io.errors import InputError
from jaxrelax.io.image_root import image_roots, relative_roots, resolves_alone, with_note
from jaxrelax.io.particles import Particles
from jaxrelax.io.relion_tables import ANGLES, StarDocument
from jaxrelax.io.star import StarTable, write_star_tables

# What images are multiplied by when they are read: +1, or -1 where their particle is black.
IMAGE_SIGN, SIGN = "jrxImageSign", "blob/sign"
IMAGES = "blob/path"
# Columns of STAR files for which ``.cs`` files have fields: ``alignments3D/class`` and
# ``sym_expand/src_uid``.
_SAID_OTHERWISE = ("rlnClassNumber", "rlnImageOriginalName")


def write_star(
    particles: Particles, path: str | os.PathLike, roots: Sequence[Path] | None = None
) -> None:
    """Write particles as a STAR file that RELION 3.1 to 5 and jaxrelax read.

    From a STAR file: every block, column and row stays, in the form it had (3.0 stays 3.0). Rows
    whose pose, origin, half-set or class changed get new text in those columns; all other text
    is kept. Where images are to be inverted, ``jrxImageSign`` says so to jaxrelax. From a ``.cs``
    file: a STAR file of RELION 3.1 is made. Extra columns come last.
    Comments note where image names are relative to, for `read_particles`.

    Args:
        particles: what is written.
        path: the file.
        roots: folders to note; by default those that names of its images are relative to.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
    """
    document = particles.document
    if isinstance(document, CryosparcDocument):
        document = star_document(particles)
    elif isinstance(document, StarDocument):
        table = _updated_rows(particles, document)
        if np.any(particles.image_sign < 0):
            table = table.with_columns({IMAGE_SIGN: as_text(particles.image_sign)})
        document = document.with_particles(table)
    else:
        raise TypeError(f"no way to write {type(document).__name__} as STAR")
    table = document.particles
    for label, values in particles.extra_columns.items():
        table = table.with_columns({label: as_text(values)})
    tables = document.with_particles(table).tables
    if document.optics is not None:
        tables = tuple(_with_version(t) for t in tables)
    noted = image_roots(particles) if roots is None else list(roots)
    note = with_note(tables[0].comment, noted, Path(path))
    write_star_tables(path, (replace(tables[0], comment=note), *tables[1:]))


def as_text(values: np.ndarray) -> list[str]:
    """Integers as integers, floats with seven digits, everything else as it is."""
    if values.dtype.kind == "f":
        return [f"{x:.7g}" for x in values]
    if values.dtype.kind == "b":
        return [str(int(x)) for x in values]
    return [str(x) for x in values]


def fixed(values: Float64[np.ndarray, " rows"]) -> list[str]:
    """Angles and origins as RELION writes them: six decimals, without a negative zero."""
    return [f"{x:.6f}" for x in np.round(values, 6) + 0.0]


def _updated_rows(particles: Particles, document: StarDocument) -> StarTable:
    table = document.particles
    everything = np.arange(len(particles))
    for name, changed in particles.changed_rows().items():
        if not changed.any():
            continue
        columns = _columns_of(name, particles, document)
        missing = [label for label in columns if label not in table]
        if missing:
            table = table.appended({label: columns[label](everything) for label in missing})
        rows = np.flatnonzero(changed)
        present = {label: text(rows) for label, text in columns.items() if label not in missing}
        if present:
            table = table.updated(rows, present)
    return table


def _columns_of(name: str, particles: Particles, document: StarDocument) -> dict:
    """Labels that hold a field, each with a function from rows to text."""
    if name == "rotations":
        angles = matrix_to_euler(particles.rotations)

        def angle(axis: int):
            return lambda rows: fixed(angles[axis][rows])

        return {label: angle(axis) for axis, label in enumerate(ANGLES)}
    if name == "half_set":
        return {"rlnRandomSubset": lambda rows: as_text(particles.half_set[rows])}
    if name == "class_number":
        return {"rlnClassNumber": lambda rows: as_text(particles.class_number[rows])}
    in_table = document.particles.labels
    suffixes = [s for s in ("Angst", "") if f"rlnOriginX{s}" in in_table]
    suffixes = suffixes or ["Angst" if document.optics is not None else ""]
    pixel_size = np.array([group.pixel_size_angstrom for group in particles.optics])

    def origin(axis: int, suffix: str):
        def text(rows: np.ndarray) -> list[str]:
            values = particles.origins_angstrom[rows, axis]
            scale = 1.0 if suffix else pixel_size[particles.optics_group[rows]]
            return fixed(values / scale)

        return text

    return {
        f"rlnOrigin{letter}{suffix}": origin(axis, suffix)
        for suffix in suffixes
        for axis, letter in enumerate("XY")
    }


def _with_version(table: StarTable) -> StarTable:
    """RELION tells files with an optics table by their version line."""
    if with_note(table.comment, [], Path()):
        return table
    return replace(table, comment="# version 30001")


def write_cs(particles: Particles, path: str | os.PathLike) -> None:
    """Write particles that came from a ``.cs`` file as one, with every field kept.

    ``alignments3D/pose``, ``shift``, ``split`` and ``class`` are changed in the rows that
    changed, in cryoSPARC's units. Extra columns become fields: ``jrxRegisterEntropy`` is
    ``jrx/register_entropy``. Fields joined from passthrough files are in the same file.

    Raises:
        InputError: the particles came from a STAR file, the disk is full, or the folder cannot
            be written to.
    """
    document = particles.document
    if not isinstance(document, CryosparcDocument):
        raise InputError(
            f"{path}: the particles of {particles.source} did not come from a .cs file, so "
            "cryoSPARC's uids are not known. Write a STAR file and import that."
        )
    records = _with_alignment_fields(particles, document.records).copy()
    names = records.dtype.names or ()
    changed = particles.changed_rows()
    rows = changed["rotations"]
    records[POSE][rows] = matrix_to_cryosparc_pose(particles.rotations[rows])
    rows = changed["origins_angstrom"]
    pixel_size = np.array([group.pixel_size_angstrom for group in particles.optics])
    scale = shift_pixel_size(records, pixel_size[particles.optics_group])
    records[SHIFT][rows] = particles.origins_angstrom[rows] / scale[rows, None]
    for name, field in (("half_set", SPLIT), ("class_number", CLASS)):
        rows = changed[name] & (getattr(particles, name) > 0)
        if rows.any():
            records[field][rows] = getattr(particles, name)[rows] - 1
    if np.any((records[SIGN] < 0 if SIGN in names else False) != (particles.image_sign < 0)):
        if SIGN not in names:
            records = append_fields(records, {SIGN: np.ones(len(records), np.float32)})
        records[SIGN] = particles.image_sign
    for label, values in particles.extra_columns.items():
        if label in _SAID_OTHERWISE:
            continue
        records = _with_field(records, cryosparc_field(label), _fixed_width(values))
    records = _with_paths(particles, Path(path), records)
    records = _with_note(particles, Path(path), records)
    with atomic_open(path) as handle:
        np.save(handle, records, allow_pickle=False)


def _with_paths(particles: Particles, path: Path, records: np.ndarray) -> np.ndarray:
    """The records with names that are relative to their file (``>``) seen from the new one.

    So cryoSPARC exports them. All other names are relative to the project, and stay.
    """
    names = records[IMAGES]
    text = names.dtype.kind == "U"
    marked = np.char.startswith(names, ">" if text else b">")
    if not marked.any():
        return records
    folder = path.resolve().parent
    seen = [f">{os.path.relpath(stack, folder)}" for stack in particles.stack_paths]
    seen = np.array(seen if text else [os.fsencode(name) for name in seen])
    return _with_field(records, IMAGES, np.where(marked, seen[particles.stack_index], names))


def _with_note(particles: Particles, path: Path, records: np.ndarray) -> np.ndarray:
    """The records with the folders of their images, unless names lead there from the file."""
    roots = relative_roots(particles, path)
    alone = not any(roots) or resolves_alone(particles, path)
    if alone and NOTED_ROOT not in (records.dtype.names or ()):
        return records
    text = np.array([os.fsencode(root) for root in roots])
    return _with_field(records, NOTED_ROOT, text[particles.stack_index])


def _with_field(records: np.ndarray, name: str, values: np.ndarray) -> np.ndarray:
    """The records with a field of these values, in place of one of that name."""
    names = records.dtype.names or ()
    if name not in names:
        return append_fields(records, {name: values})
    if values.dtype.kind in "SU" and records.dtype[name].itemsize < values.dtype.itemsize:
        others = records[[other for other in names if other != name]]
        return append_fields(others, {name: values})
    records[name] = values
    return records


def _fixed_width(values: np.ndarray) -> np.ndarray:
    """Text as bytes, as cryoSPARC keeps it; a ``.cs`` file holds no Python objects."""
    if values.dtype.kind in "OU":
        return np.array([str(value).encode() for value in values])
    return values


def _with_alignment_fields(particles: Particles, records: np.ndarray) -> np.ndarray:
    """The records with fields for what changed, where the input has none."""
    n, names = len(records), records.dtype.names or ()
    changed = particles.changed_rows()
    pixel_size = np.array([group.pixel_size_angstrom for group in particles.optics])
    needed = {
        POSE: np.zeros((n, 3), np.float32),
        SHIFT: np.zeros((n, 2), np.float32),
        ALIGNMENT_PIXEL: pixel_size[particles.optics_group].astype(np.float32),
    }
    fields = {}
    if POSE not in names or SHIFT not in names:
        fields.update(needed)
    if changed["half_set"].any():
        fields[SPLIT] = np.zeros(n, np.uint32)
    if changed["class_number"].any():
        fields[CLASS] = np.zeros(n, np.uint32)
    fields = {name: values for name, values in fields.items() if name not in names}
    return append_fields(records, fields) if fields else records
