"""The text of STAR files: what is a block, a label, a row, a value and a comment.

As RELION reads them (3.1.3, tried with ``relion_star_handler``): white space is ASCII's; a value
that begins with ``#`` starts a comment, also behind a row; a row may begin with ``data_``. More
lenient where RELION stops or drops rows: blank lines and comments between rows, CRLF, ``DATA_``.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from jaxrelax.io.errors import InputError

logger = logging.getLogger("jaxrelax")

BLANK = " \t\r\f\v"  # not Unicode's, whose U+0085 and no-break space are letters to RELION
_SPACE = re.compile(r"[ \t\r\n\f\v]")
_VALUE = re.compile(
    r"'([^']*)'(?=[ \t\r\f\v]|$)|\"([^\"]*)\"(?=[ \t\r\f\v]|$)|(#.*)|([^ \t\r\f\v]+)"
)
_MUST_QUOTE = ("#", "'", '"')  # as the first character


def split_row(line: str) -> list[str]:
    """The values of one row, without a comment behind them; quotes around a value are taken off."""
    if "'" not in line and '"' not in line and "#" not in line and line.isascii():
        return line.split()
    values = []
    for match in _VALUE.finditer(line):
        single, double, comment, bare = match.groups()
        if comment is not None:
            break
        values.append(next(value for value in (single, double, bare) if value is not None))
    return values


def split_comment(line: str) -> tuple[str, str]:
    """The values of a row as they stand there, and its comment with the blank before it."""
    if "#" in line:
        for match in _VALUE.finditer(line):
            if match[3] is not None:
                return line[: match.start()].rstrip(BLANK), " " + match[3]
    return line.rstrip(BLANK), ""


def quote(value: str) -> str:
    """A value as it must stand in a row: quoted if empty, with white space, or like a comment."""
    if value and not value.startswith(_MUST_QUOTE) and not _SPACE.search(value):
        return value
    return f'"{value}"' if '"' not in value else f"'{value}'"


@dataclass
class Block:
    """One ``data_`` block while it is read; fields as those of `StarTable`."""

    name: str
    comment: str
    line: int  # of its head, counting from 1
    labels: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    is_loop: bool = False
    values: list[str] = field(default_factory=list)  # of a block that is no loop
    gap: int = 0  # first line that stands behind a blank one in the table


def parse(path: Path) -> list[Block]:
    """The blocks of a STAR file, in order.

    Raises:
        InputError: see `jaxrelax.io.star.read_star`.
    """
    lines = _lines(path)
    blocks: list[Block] = []
    comments: list[str] = []
    blank = False
    for number, raw in enumerate(lines, 1):
        line = raw.strip(BLANK)
        if not line:
            blank = True
        elif line.startswith("#"):
            comments.append(line)
        elif (name := _head(line, blocks, lines, number, blank)) is not None:
            blocks.append(Block(name, "\n".join(comments), number))
            comments, blank = [], False
        elif blocks:
            _add(path, blocks[-1], line, raw.rstrip(BLANK), number, blank)
            comments, blank = [], False
    if not blocks:
        raise InputError(f"{path}: no 'data_' block, so not a STAR file.")
    for block in blocks:
        _finish(path, block)
    return blocks


def _lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if b"\0" in raw:
        raise InputError(f"{path}: not a text file, so not a STAR file.")
    text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return text.split("\n")  # splitlines() would split at U+0085 and others, too


def _head(line: str, blocks: list[Block], lines: list[str], number: int, blank: bool) -> str | None:
    """Name of the block that a line begins, or None.

    A row may begin with ``data_`` as well: it has as many values as the table has columns. In a
    table of one column it stands right below the row before, and no label follows.
    """
    if line[:5].lower() != "data_":
        return None
    words = split_row(line)
    if len(words) > 1:
        return None
    if blocks and blocks[-1].is_loop and len(blocks[-1].labels) == 1 and not blank:
        after = (text.strip(BLANK) for text in lines[number:])
        following = next((text for text in after if text and not text.startswith("#")), "")
        if not following.startswith("_") and following[:5].lower() != "loop_":
            return None
    return words[0][5:]


def _add(path: Path, block: Block, line: str, raw: str, number: int, blank: bool) -> None:
    """One more line, which is neither blank nor a comment, of a block."""
    words = split_row(line)
    if line[:5].lower() == "loop_" and len(words) == 1 and not block.labels:
        block.is_loop = True
    elif line.startswith("_") and not block.rows and not _is_row(block, line):
        label = words[0][1:].partition("#")[0]
        block.labels.append(label)
        if not block.is_loop:
            block.values.append(words[1] if len(words) > 1 else "")
    elif line.startswith(";"):
        raise InputError(
            f"{path}, line {number}: multi-line text values are not supported; "
            "write the value on one line in quotes."
        )
    elif not block.is_loop:
        raise InputError(
            f"{path}, line {number}: a value without a label in block 'data_{block.name}', which "
            "has no 'loop_'. Put the value behind its label, or 'loop_' before the labels."
        )
    elif len(words) != len(block.labels):
        raise InputError(
            f"{path}, line {number}: {len(words)} values for the {len(block.labels)} columns of "
            f"block 'data_{block.name}'. Correct or remove this row."
        )
    else:
        if blank and block.rows and not block.gap:
            block.gap = number
            logger.warning(
                "%s, line %d: a blank line in the table 'data_%s' before this one; RELION ends "
                "the table there, after %d rows. The rows behind it are read too.",
                path, number, block.name, len(block.rows),
            )  # fmt: skip
        block.rows.append(raw)


def _is_row(block: Block, line: str) -> bool:
    """Whether a line that begins with an underscore is the first row of a loop and no label."""
    words = split_row(line)
    numbered = words[-1] == str(len(block.labels) + 1)
    return block.is_loop and len(words) == len(block.labels) > 1 and not numbered


def _finish(path: Path, block: Block) -> None:
    if len(set(block.labels)) != len(block.labels):
        twice = sorted({label for label in block.labels if block.labels.count(label) > 1})
        raise InputError(
            f"{path}, block 'data_{block.name}': column {', '.join(twice)} stands there more than "
            "once. Remove one of them."
        )
    if not block.is_loop:
        block.rows = [" ".join(quote(value) for value in block.values)]
