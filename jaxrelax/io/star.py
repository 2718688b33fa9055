"""STAR files as text: tables of labels and lines, written back as they were read.

Values stay text until somebody asks for a column, and a row nobody touched is written with its
own characters. That is what makes the round trip lossless: integers stay integers, ``000001@``
keeps its zeros and floats keep their digits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxrelax.io.atomic import atomic_write_bytes
from jaxrelax.io.star_text import parse, quote, split_comment, split_row


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

    def updated(
        self, rows: Sequence[int] | np.ndarray, values: Mapping[str, Sequence[str]]
    ) -> StarTable:
        """A table with new text for existing columns in some rows; other rows keep theirs.

        Args:
            rows: the rows to change.
            values: column name to as many values as there are rows to change.
        """
        positions = [self.labels.index(label) for label in values]
        lines = list(self.lines)
        columns = list(values.values())
        for i, row in enumerate(rows):
            text, comment = split_comment(lines[row])
            cells = split_row(text)
            for position, column in zip(positions, columns, strict=True):
                cells[position] = column[i]
            lines[row] = " ".join(quote(cell) for cell in cells) + comment
        return replace(self, lines=tuple(lines))

    def appended(self, values: Mapping[str, Sequence[str]]) -> StarTable:
        """A table with new columns on the right; the text of the old ones is kept."""
        lines = []
        for line, tail in zip(self.lines, zip(*values.values(), strict=True), strict=True):
            text, comment = split_comment(line)
            lines.append(" ".join([text, *map(quote, tail)]) + comment)
        return replace(self, labels=(*self.labels, *values), lines=tuple(lines))

    def with_columns(self, values: Mapping[str, Sequence[str]]) -> StarTable:
        """A table in which these columns have these values, whether it had them or not."""
        old = {label: text for label, text in values.items() if label in self}
        table = self.updated(range(len(self)), old) if old else self
        new = {label: text for label, text in values.items() if label not in self}
        return table.appended(new) if new else table

    def without(self, *dropped: str) -> StarTable:
        """A table without these columns; those that it does not have do not matter."""
        kept = [i for i, label in enumerate(self.labels) if label not in dropped]
        if len(kept) == len(self.labels):
            return self
        lines = []
        for line in self.lines:
            text, comment = split_comment(line)
            cells = split_row(text)
            lines.append(" ".join(quote(cells[i]) for i in kept) + comment)
        return replace(self, labels=tuple(self.labels[i] for i in kept), lines=tuple(lines))

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

    Bytes that are no UTF-8 (RELION knows no encoding) are kept as lone surrogates, so that they
    are written, and looked for on the disk, as they were.

    Raises:
        InputError: the file is missing, is not text, holds no block, or a row has not as many
            values as the block has columns (named by line number).
    """
    return tuple(
        StarTable(b.name, tuple(b.labels), tuple(b.rows), b.is_loop, b.comment)
        for b in parse(Path(path))
    )


def write_star_tables(path: str | os.PathLike, tables: Iterable[StarTable]) -> None:
    """Write blocks to a STAR file, whole or not at all."""
    text = "\n" + "\n\n".join(table.text() for table in tables) + "\n"
    atomic_write_bytes(path, text.encode("utf-8", "surrogateescape"))
