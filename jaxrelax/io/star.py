"""STAR files as text: tables of labels and lines, written back as they were read.

Values stay text until somebody asks for a column, and a row nobody touched is written with its
own characters. That is what makes the round trip lossless: integers stay integers, ``000001@``
keeps its zeros and floats keep their digits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxrelax.io.atomic import atomic_write_text
from jaxrelax.io.errors import InputError

_SPACE = re.compile(r"\s")
_QUOTED = re.compile(r"'([^']*)'(?=\s|$)|\"([^\"]*)\"(?=\s|$)|(\S+)")


def split_row(line: str) -> list[str]:
    """The values of one row; quotes around a value with spaces are taken off."""
    if "'" not in line and '"' not in line:
        return line.split()
    return [next(g for g in match.groups() if g is not None) for match in _QUOTED.finditer(line)]


def quote(value: str) -> str:
    """A value as it must stand in a STAR row: quoted when empty or when it holds white space."""
    if value and not _SPACE.search(value):
        return value
    return f'"{value}"' if '"' not in value else f"'{value}'"


@dataclass(frozen=True)
class StarTable:
    """One ``data_`` block.

    Attributes:
        name: what follows ``data_``; empty for an unnamed block.
        labels: column names without the leading underscore.
        lines: one text line per row. A block that is no loop has exactly one.
        is_loop: whether the block is written with ``loop_``.
        comment: comment lines before the block (RELION's ``# version 30001``).
    """

    name: str
    labels: tuple[str, ...]
    lines: tuple[str, ...]
    is_loop: bool = True
    comment: str = ""

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, label: str) -> bool:
        return label in self.labels

    def columns(self, labels: Iterable[str]) -> dict[str, list[str]]:
        """Text of the named columns, in one pass over the rows; labels not here are left out."""
        wanted = [label for label in labels if label in self.labels]
        positions = [self.labels.index(label) for label in wanted]
        picked = [[] for _ in wanted]
        for line in self.lines:
            values = split_row(line)
            for column, position in zip(picked, positions, strict=True):
                column.append(values[position])
        return dict(zip(wanted, picked, strict=True))

    def column(self, label: str) -> list[str]:
        """Text of one column.

        Raises:
            KeyError: the table has no such column.
        """
        return self.columns([label])[label]

    def select(self, rows: Sequence[int] | np.ndarray) -> StarTable:
        """The same table with only these rows, in this order."""
        return replace(self, lines=tuple(self.lines[int(row)] for row in rows))

    def updated(self, rows: Sequence[int] | np.ndarray, values: Mapping[str, Sequence[str]]):
        """A table with new text for existing columns in some rows; other rows keep theirs.

        Args:
            rows: the rows to change.
            values: column name to as many values as there are rows to change.
        """
        positions = [self.labels.index(label) for label in values]
        lines = list(self.lines)
        columns = list(values.values())
        for i, row in enumerate(rows):
            cells = split_row(lines[row])
            for position, column in zip(positions, columns, strict=True):
                cells[position] = column[i]
            lines[row] = " ".join(quote(cell) for cell in cells)
        return replace(self, lines=tuple(lines))

    def appended(self, values: Mapping[str, Sequence[str]]) -> StarTable:
        """A table with new columns on the right; the text of the old ones is kept."""
        tails = zip(*values.values(), strict=True)
        lines = tuple(
            line.rstrip() + " " + " ".join(quote(cell) for cell in tail)
            for line, tail in zip(self.lines, tails, strict=True)
        )
        return replace(self, labels=(*self.labels, *values), lines=lines)

    def text(self) -> str:
        """The block as it stands in a file."""
        head = f"{self.comment}\ndata_{self.name}\n\n" if self.comment else f"data_{self.name}\n\n"
        if not self.is_loop:
            cells = split_row(self.lines[0])
            pairs = zip(self.labels, cells, strict=True)
            return head + "".join(f"_{label} {quote(cell)}\n" for label, cell in pairs)
        labels = "".join(f"_{label} #{i}\n" for i, label in enumerate(self.labels, 1))
        return head + "loop_\n" + labels + "".join(line + "\n" for line in self.lines)


def make_table(
    name: str, columns: Mapping[str, Sequence[str]], *, is_loop: bool = True, comment: str = ""
) -> StarTable:
    """A table from columns of text, all of the same length."""
    lines = tuple(" ".join(map(quote, row)) for row in zip(*columns.values(), strict=True))
    return StarTable(name, tuple(columns), lines, is_loop, comment)


def read_star(path: str | os.PathLike) -> tuple[StarTable, ...]:
    """All the blocks of a STAR file, in order.

    Raises:
        InputError: the file is missing, is not text, holds no block, or a row has not as many
            values as the block has columns (named by line number).
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file, so not a STAR file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    starts = [i for i, line in enumerate(lines) if line.startswith("data_")]
    if not starts:
        raise InputError(f"{path}: no 'data_' block, so not a STAR file.")
    tables = []
    previous_end = 0
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        comment = _comment_before(lines, start, previous_end)
        tables.append(_parse_block(path, lines, start, end, comment))
        previous_end = start + 1
    return tuple(tables)


def write_star_tables(path: str | os.PathLike, tables: Iterable[StarTable]) -> None:
    """Write blocks to a STAR file, whole or not at all."""
    atomic_write_text(path, "\n" + "\n\n".join(table.text() for table in tables) + "\n")


def _comment_before(lines: list[str], start: int, floor: int) -> str:
    """The comment lines directly above a block, over blank lines."""
    found = []
    for i in range(start - 1, floor - 1, -1):
        line = lines[i].strip()
        if line.startswith("#"):
            found.append(line)
        elif line:
            break
    return "\n".join(reversed(found))


def _parse_block(path: Path, lines: list[str], start: int, end: int, comment: str) -> StarTable:
    name = lines[start].split()[0][len("data_") :]
    labels: list[str] = []
    single: list[str] = []  # the values of a block that is no loop
    rows: list[str] = []
    is_loop = False
    for number in range(start + 1, end):
        line = lines[number].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("loop_") and not labels:
            is_loop = True
        elif line.startswith("_") and not rows:
            label, _, rest = line[1:].partition(" ") if " " in line else line[1:].partition("\t")
            labels.append(label)
            if not is_loop:
                single.append(rest.strip())
        elif line.startswith(";"):
            raise InputError(
                f"{path}, line {number + 1}: multi-line text values are not supported; "
                "write the value on one line in quotes."
            )
        else:
            rows.append(lines[number].rstrip())
            if len(split_row(line)) != len(labels):
                raise InputError(
                    f"{path}, line {number + 1}: {len(split_row(line))} values for the "
                    f"{len(labels)} columns of block 'data_{name}'. Correct or remove this row."
                )
    if len(set(labels)) != len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise InputError(
            f"{path}, block 'data_{name}': column {', '.join(twice)} stands there more than "
            "once. Remove one of them."
        )
    if not is_loop:
        rows = [" ".join(quote(split_row(value)[0]) if value else '""' for value in single)]
    return StarTable(name, tuple(labels), tuple(rows), is_loop, comment)
