"""Groups from the user: text files of operators, or anything that names a group."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from .groups import NotAGroupError, PointGroup, group_from_operators
from .point_groups import UnknownGroupError, point_group

# Lines of ``relion_refine --print_symmetry_ops`` that are not matrix rows.
_RELION_LINES = re.compile(
    r"(R\(\d+\)=|Euler angles:.*|\+\+\+\+ Using symmetry group .*|Running CPU instructions.*)"
)

# Printed operators carry five or six digits.
_TOLERANCE = 1e-3
# Operators that move every point by more have no fixed point.
_MEETING_ANGSTROM = 0.5
# An axis that is nearer to the centre of the box passes through it.
_CENTRED_ANGSTROM = 1e-3


def read_operators(
    path: str | os.PathLike[str], name: str | None = None, *, placed: bool = False
) -> PointGroup:
    """A point group from a text file that lists all of its operators.

    The file holds 3×3 rotation matrices that act on (x, y, z) vectors, each as one row of nine
    numbers (row by row) or as three rows of three. With a fourth number in every row, a
    translation in Å, an operator is x → R x + t, with x from the centre of the box: twelve numbers,
    or three rows of four. Numbers are separated by spaces, tabs or commas; ``#`` begins a comment;
    blank lines may stand between matrices. What ``relion_refine --sym X --print_symmetry_ops``
    prints can be read as it is.

    Args:
        path: the text file.
        name: the name of the group; the file's stem by default.
        placed: whether its axes may pass elsewhere than through the centre of the box.

    Returns:
        The group, identity first, otherwise in the order of the file. Rounded numbers are taken
        to the exact group nearest to them. ``centre_angstrom`` is where its axes meet; of one axis,
        the point of it that is nearest to the centre of the box.

    Raises:
        ValueError: if a line cannot be read; names file and line. Or if the axes pass elsewhere and
            that is not asked for.
        NotAGroupError: if the matrices are not a complete group; names the file, the lines of
            the matrices concerned, and the order of the group they generate.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    rows = _number_rows(path)
    affine, lines = _group_rows(path, rows)
    labels = [f"operator {i} (line {line})" for i, line in enumerate(lines, start=1)]
    try:
        group = group_from_operators(
            affine[:, :, :3], name=path.stem if name is None else name, tolerance=_TOLERANCE,
            labels=labels,
        )  # fmt: skip
        centre = _meeting(affine, labels)
    except NotAGroupError as error:
        raise NotAGroupError(f"{path}: {error}") from None
    if not np.any(np.abs(centre) > _CENTRED_ANGSTROM):
        return group
    if not placed:
        place = " ".join(f"{x:.1f}" for x in centre + 0.0)
        raise ValueError(
            f"{path}: these operators are about {place} Å from the centre of the box, and here "
            "they must be about the centre; give rotations alone (nine numbers), with a map and "
            "poses that are centred there"
        )
    return dataclasses.replace(group, centre_angstrom=tuple(centre.tolist()))


def _meeting(affine: Float64[np.ndarray, "n 3 4"], labels: list[str]) -> Float64[np.ndarray, "3"]:
    """The point nearest to the origin that all operators leave where it is, in Å.

    Raises:
        NotAGroupError: there is none; names the operator that moves it most.
    """
    left = (affine[:, :, :3] - np.eye(3)).reshape(-1, 3)
    # Rounded rotations have no exact axis: what is hardly moved is not moved.
    point = np.linalg.lstsq(left, -affine[:, :, 3].reshape(-1), rcond=10 * _TOLERANCE)[0]
    moved = np.linalg.norm((left @ point).reshape(-1, 3) + affine[:, :, 3], axis=1)
    worst = int(np.argmax(moved))
    if moved[worst] > _MEETING_ANGSTROM:
        raise NotAGroupError(
            f"the operators leave no point where it is, and so are no group: {labels[worst]} moves "
            f"the one that is moved least by {moved[worst]:.1f} Å. Translations are in Å, for "
            "positions from the centre of the box"
        )
    return point


def _number_rows(path: Path) -> list[tuple[int, list[float]]]:
    """(line number, numbers) of every line that holds numbers."""
    rows = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.split("#", 1)[0].strip()
        if not text or _RELION_LINES.fullmatch(text):
            continue
        try:
            numbers = [float(word) for word in text.replace(",", " ").split()]
        except ValueError:
            raise ValueError(
                f"{path}, line {line_number}: cannot read numbers from {text!r}. Expected nine "
                "numbers (a matrix) or three (a row of one), with translations twelve or four; "
                "'#' begins a comment."
            ) from None
        if len(numbers) not in (3, 4, 9, 12):
            raise ValueError(
                f"{path}, line {line_number}: found {len(numbers)} numbers; a line holds nine "
                "(a 3×3 matrix row by row) or three (one row of a matrix), or twelve and four with "
                "a translation at the end of every row."
            )
        rows.append((line_number, numbers))
    return rows


def _group_rows(
    path: Path, rows: list[tuple[int, list[float]]]
) -> tuple[Float64[np.ndarray, "n 3 4"], list[int]]:
    """Collect rows into matrices with translations; also the line on which each begins."""
    matrices: list[np.ndarray] = []
    lines: list[int] = []
    i = 0
    while i < len(rows):
        line, numbers = rows[i]
        if len(numbers) in (9, 12):
            block, whole = rows[i : i + 1], np.array(numbers).reshape(3, -1)
        else:
            block, width = rows[i : i + 3], len(numbers)
            if len(block) < 3 or any(len(row) != width for _, row in block):
                raise ValueError(
                    f"{path}, line {line}: a matrix begins here but does not have three rows of "
                    f"{'three' if width == 3 else 'four'} numbers."
                )
            whole = np.array([row for _, row in block])
        affine = np.zeros((3, 4))
        affine[:, : whole.shape[1]] = whole
        matrices.append(affine)
        lines.append(line)
        i += len(block)
    if not matrices:
        raise ValueError(f"{path}: no operators in this file; it should list 3×3 matrices.")
    return np.stack(matrices), lines


def parse_group(group: PointGroup | str | os.PathLike[str], *, placed: bool = False) -> PointGroup:
    """A `PointGroup` from a name, the path of an operators file, or a group (returned as it is).

    A string that names a point group is one, even where a file of that name exists; write
    ``./C4`` or pass a ``Path`` for the file. ``placed`` as of `read_operators`.

    Raises:
        UnknownGroupError: if a string is neither a group's name nor an existing file.
        ValueError, NotAGroupError, FileNotFoundError: from `read_operators`, for a file.
    """
    if isinstance(group, PointGroup):
        return group
    if not isinstance(group, str):
        return read_operators(group, placed=placed)
    try:
        return point_group(group)
    except UnknownGroupError as error:
        if Path(group).is_file():
            return read_operators(group, placed=placed)
        raise UnknownGroupError(
            f"{error} Nor is it the path of an existing file of operators."
        ) from None
