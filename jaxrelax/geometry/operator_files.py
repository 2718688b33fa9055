"""Groups from the user: text files of operators, or anything that names a group."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from .groups import NotAGroupError, PointGroup, group_from_operators
from .point_groups import UnknownGroupError, point_group

# Lines of ``relion_refine --print_symmetry_ops`` that are not matrix rows.
_RELION_LINES = re.compile(
    r"(R\(\d+\)=|Euler angles:.*|\+\+\+\+ Using symmetry group .*|Running CPU instructions.*)"
)

# Printed operators carry five or six digits.
_TOLERANCE = 1e-3


def read_operators(path: str | os.PathLike[str], name: str | None = None) -> PointGroup:
    """A point group from a text file that lists all of its operators.

    The file holds 3×3 rotation matrices that act on (x, y, z) vectors, each as one row of nine
    numbers (row by row) or as three rows of three. Numbers are separated by spaces, tabs or
    commas; ``#`` begins a comment; blank lines may stand between matrices. What
    ``relion_refine --sym X --print_symmetry_ops`` prints can be read as it is.

    Args:
        path: the text file.
        name: the name of the group; the file's stem by default.

    Returns:
        The group, identity first, otherwise in the order of the file. Rounded numbers are taken
        to the exact group nearest to them.

    Raises:
        ValueError: if a line cannot be read; names file and line.
        NotAGroupError: if the matrices are not a complete group; names the file, the lines of
            the matrices concerned, and the order of the group they generate.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    rows = _number_rows(path)
    matrices, lines = _group_rows(path, rows)
    labels = [f"operator {i} (line {line})" for i, line in enumerate(lines, start=1)]
    try:
        return group_from_operators(
            matrices, name=path.stem if name is None else name, tolerance=_TOLERANCE, labels=labels
        )
    except NotAGroupError as error:
        raise NotAGroupError(f"{path}: {error}") from None


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
                "numbers (a matrix) or three (a row of one); '#' begins a comment."
            ) from None
        if len(numbers) not in (3, 9):
            raise ValueError(
                f"{path}, line {line_number}: found {len(numbers)} numbers; a line holds nine "
                "(a 3×3 matrix row by row) or three (one row of a matrix)."
            )
        rows.append((line_number, numbers))
    return rows


def _group_rows(path: Path, rows: list[tuple[int, list[float]]]) -> tuple[np.ndarray, list[int]]:
    """Collect rows into matrices; also the line on which each begins."""
    matrices: list[np.ndarray] = []
    lines: list[int] = []
    i = 0
    while i < len(rows):
        line, numbers = rows[i]
        if len(numbers) == 9:
            matrices.append(np.array(numbers).reshape(3, 3))
            i += 1
        else:
            block = rows[i : i + 3]
            if len(block) < 3 or any(len(row) != 3 for _, row in block):
                raise ValueError(
                    f"{path}, line {line}: a matrix begins here but does not have three rows of "
                    "three numbers."
                )
            matrices.append(np.array([row for _, row in block]))
            i += 3
        lines.append(line)
    if not matrices:
        raise ValueError(f"{path}: no operators in this file; it should list 3×3 matrices.")
    return np.stack(matrices), lines


def parse_group(group: PointGroup | str | os.PathLike[str]) -> PointGroup:
    """A `PointGroup` from a name, the path of an operators file, or a group (returned as it is).

    A string that names a point group is one, even where a file of that name exists; write
    ``./C4`` or pass a ``Path`` for the file.

    Raises:
        UnknownGroupError: if a string is neither a group's name nor an existing file.
        ValueError, NotAGroupError, FileNotFoundError: from `read_operators`, for a file.
    """
    if isinstance(group, PointGroup):
        return group
    if not isinstance(group, str):
        return read_operators(group)
    try:
        return point_group(group)
    except UnknownGroupError as error:
        if Path(group).is_file():
            return read_operators(group)
        raise UnknownGroupError(
            f"{error} Nor is it the path of an existing file of operators."
        ) from None
