"""Values that cannot be: numbers of a table that no microscope or refinement has, row named.

What is wrong by a unit (volts, µm, per cent) gives a map without a word, or one of NaN; so it is
refused. What is only unusual passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import some_rows

SMALLEST_DEFOCUS_ANGSTROM = 100.0  # nobody focuses a whole group better; 50 µm are below it
LARGEST_DEFOCUS_ANGSTROM = 1e6
# So many µm, by which a part of a group is told that has the unit of another program: of images in
# focus (phase plates) few are by chance as near, and none of a group that is not.
LARGEST_DEFOCUS_UM, MOST_IN_FOCUS = 10.0, 0.05


@dataclass(frozen=True)
class Limits:
    """What a quantity may be, and the advice where it is not."""

    low: float
    high: float
    says: str

    def outside(self, values: Float64[np.ndarray, " particles"]) -> Bool[np.ndarray, " particles"]:
        """Where values lie outside, or are not finite."""
        return np.logical_not((values >= self.low) & (values <= self.high))


LIMITS = {
    "pixel_size_angstrom": Limits(
        0.01, 1e3, "the pixel size is in Å and above 0. Correct {column} (for STAR files before "
        "3.1: the detector's pixel size in µm and the magnification)."
    ),
    "voltage_kv": Limits(
        10.0, 5e3, "the voltage is in kV (300, not 300000). Correct {column}."
    ),
    "spherical_aberration_mm": Limits(
        -100.0, 100.0, "the spherical aberration is in mm (2.7). Correct {column}."
    ),
    "amplitude_contrast": Limits(
        0.0, 1.0, "the amplitude contrast is a fraction from 0 to 1 (0.1, not 10 %). Correct "
        "{column}."
    ),
    "defocus_angstrom": Limits(
        -LARGEST_DEFOCUS_ANGSTROM, LARGEST_DEFOCUS_ANGSTROM,
        "a defocus is in Å (15000 for 1.5 µm). Correct {column}."
    ),
    "phase_shift_deg": Limits(
        -3600.0, 3600.0, "a phase shift is in degrees in STAR files, and in radians in .cs files. "
        "Correct {column}."
    ),
    "bfactor_angstrom2": Limits(
        -1e4, 1e5, "a B factor is in Å² (100). Correct {column}."
    ),
    "beam_tilt_mrad": Limits(
        -100.0, 100.0, "a beam tilt is in mrad (0.5). Correct {column}."
    ),
}  # fmt: skip


def require_possible(
    path: Path, quantity: str, column: str, values: Float64[np.ndarray, " particles"]
) -> None:
    """Refuse a column of which some values lie outside `LIMITS`.

    Args:
        path: the table.
        quantity: key of `LIMITS`; values are in its unit.
        column: what the file calls it.
        values: one per particle.

    Raises:
        InputError: names rows, column and value.
    """
    wrong = LIMITS[quantity].outside(values)
    if wrong.any():
        raise InputError(
            f"{path}, {some_rows(wrong)}: {column} is {values[wrong][0]:g}; "
            + LIMITS[quantity].says.format(column=column)
        )


def require_defocus(
    path: Path,
    columns: tuple[str, str],
    u: Float64[np.ndarray, " particles"],
    v: Float64[np.ndarray, " particles"],
    optics_group: np.ndarray,
) -> None:
    """Refuse defoci out of range, and optics groups whose defoci must be in another unit.

    Raises:
        InputError: names rows, column and value.
    """
    for column, values in zip(columns, (u, v), strict=True):
        require_possible(path, "defocus_angstrom", column, values)
    largest = np.maximum(np.abs(u), np.abs(v))
    for group in np.unique(optics_group):
        members = optics_group == group
        top = float(largest[members].max())
        if 0.0 < top < SMALLEST_DEFOCUS_ANGSTROM:
            raise InputError(
                f"{path}, {some_rows(members)}: no {columns[0]} or {columns[1]} is above {top:g} "
                f"in these rows; a defocus is in Å (15000 for 1.5 µm). Correct the columns."
            )
        in_um = members & (largest > 0.0) & (largest < LARGEST_DEFOCUS_UM)
        if in_um.sum() > MOST_IN_FOCUS * members.sum():
            raise InputError(
                f"{path}, {some_rows(in_um)}: {columns[0]} and {columns[1]} are at most "
                f"{largest[in_um].max():g} in these rows, and up to {top:g} in others of their "
                "optics group; a defocus is in Å (15000 for 1.5 µm). Correct the columns."
            )


def half_sets(
    path: Path, column: str, values: Float64[np.ndarray, " particles"], first: int
) -> np.ndarray:
    """Half-sets as 1 and 2, and 0 where unset.

    Args:
        path: the table.
        column: what the file calls it.
        values: as the file has them.
        first: number of the first half-set in the file, 0 or 1; one less means unset.

    Raises:
        InputError: names rows with another number.
    """
    own = values - first + 1.0
    wrong = ~np.isin(own, (0.0, 1.0, 2.0))
    if wrong.any():
        unset = f", or {first - 1} where there is none" if first else ""
        raise InputError(
            f"{path}, {some_rows(wrong)}: {column} is {values[wrong][0]:g}; half-sets are {first} "
            f"and {first + 1}{unset}. Correct these rows, or remove the column to have half-sets "
            "drawn."
        )
    return own.astype(np.int8)


def class_numbers(path: Path, column: str, values: Float64[np.ndarray, " particles"]) -> np.ndarray:
    """Classes as the file numbers them.

    Raises:
        InputError: names rows whose class is no whole number, or negative.
    """
    wrong = (values < 0) | (values != np.rint(values)) | (values > 2**31 - 2)
    if wrong.any():
        raise InputError(
            f"{path}, {some_rows(wrong)}: {column} is {values[wrong][0]:g}; classes are whole "
            "numbers. Correct these rows or remove the column."
        )
    return values.astype(np.int32)


def boxes(path: Path, column: str, values: Float64[np.ndarray, " particles"]) -> np.ndarray:
    """Box sizes as they are; 0 where the file does not say.

    Raises:
        InputError: names rows whose box is no whole number of pixels, or negative.
    """
    wrong = (values < 0) | (values != np.rint(values)) | (values > 2**20)
    if wrong.any():
        raise InputError(
            f"{path}, {some_rows(wrong)}: {column} is {values[wrong][0]:g}; a box is a whole "
            f"number of pixels. Correct {column}."
        )
    return values
