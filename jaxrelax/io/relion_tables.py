"""The blocks of a RELION STAR file of particles, and values looked up in RELION's order."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from jaxrelax.io import image_root, relion_refusals
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import Document, Refusal, some_rows
from jaxrelax.io.star import StarTable, read_star

logger = logging.getLogger("jaxrelax")

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
PIXEL_SIZES = ("rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")


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

    def noted_roots(self) -> list[str]:
        return [root for table in self.tables for root in image_root.noted(table.comment)]

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
    of_optics = [i for i, table in enumerate(tables) if table.name == "optics"]
    _warn_of_unused(path, tables, named[0], [i for i in with_images if i != named[0]])
    if of_optics:
        _warn_of_unused(path, tables, of_optics[0], of_optics[1:])
    return StarDocument(tables, named[0], of_optics[0] if of_optics else None)


def _warn_of_unused(
    path: Path, tables: tuple[StarTable, ...], used: int, unused: list[int]
) -> None:
    """Say which blocks are left aside, because another one of their kind is used."""
    for i in unused:
        logger.warning(
            "%s: block 'data_%s' (%d rows) is used, as RELION does, and a further block 'data_%s' "
            "(%d rows) is not; join files with relion_star_handler --combine.",
            path, tables[used].name, len(tables[used]), tables[i].name, len(tables[i]),
        )  # fmt: skip


class CtfLookup:
    """CTF values in RELION's order: particle table, then optics table, then a default."""

    def __init__(self, path: Path, document: StarDocument):
        self.path = path
        self.n = len(document.particles)
        self.particles = NumberColumns(path, document.particles)
        self.optics = None if document.optics is None else NumberColumns(path, document.optics)
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
        distinct, counts = np.unique(numbers, return_counts=True)
        if np.any(counts > 1):
            raise InputError(
                f"{self.path}: optics group {distinct[counts > 1][0]:g} stands more than once in "
                "'data_optics'. Remove all but one of its rows, or give them numbers of their own."
            )
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


class NumberColumns:
    """Columns of one block as numbers, with errors that name the column and the row."""

    def __init__(self, path: Path, table: StarTable):
        self.path = path
        self.table = table
        self.text = table.columns(WANTED)  # one pass over the file

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


WANTED = (
    *ANGLES,
    *PIXEL_SIZES,
    *("rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "rlnOpticsGroupName"),
    *("rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst"),
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor"),
    *("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImageSize"),
    *("rlnPixelSize", "rlnMagnification", "rlnDetectorPixelSize"),
    *("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"),
    *("rlnRandomSubset", "rlnClassNumber", "jrxImageSign"),
    *("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike", "rlnCtfScalefactor"),
    *("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"),
)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
