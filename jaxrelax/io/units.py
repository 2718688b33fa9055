"""Which rows of a table share noise: rows of one image, its sub-particles, segments of a tube."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float32, Float64, Int
from scipy.sparse.csgraph import connected_components

from jaxrelax.io.cryosparc import cryosparc_field
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import Particles, unique_names
from jaxrelax.io.stacks import file_name

# What `jaxrelax.io.sub_particles` and the windows that are cut around them say of a row: parent and
# copy, both from 1, height in Å, and the offset (px) of the window's centre from that of its image.
PARENT, COPY, HEIGHT = "jrxParent", "jrxCopy", "jrxHeight"
WINDOW = ("jrxWindowX", "jrxWindowY")
TUBE_COLUMNS = ("rlnHelicalTubeID", "filament/filament_uid")
# Where along its tube a segment lies.
_ALONG_TUBE = ("rlnHelicalTrackLengthAngst", "rlnHelicalTrackLength", "filament/position_A")
# What says from which image an image was made, by subtraction or extraction.
ORIGINAL = "rlnImageOriginalName"
_UIDS = ("uid", "sym_expand/src_uid")


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Units:
    """What of a table is independent of what: the rows of one *unit* share noise.

    Rows of the same image are one unit, and so are rows of one tube: its segments overlap.

    Attributes:
        picture: number of the stored image (file and slice) of every row; of sub-particles that
            name the images of their parents, of the image and the site.
        source: number of what was recorded: rows of a source show the same part of a micrograph,
            whether it is stored once or several times (subtracted, or extracted anew).
        unit: number of the unit, counted from 0 in order of first appearance.
        along: orders the rows of a unit, such that neighbours in a tube are neighbours.
        tube_column: the column that names tubes; None where there are none.
        window: where rows are windows cut from what the source shows, where they are there: offsets
            (x, y) in widths of the window; None where they are not.
    """

    picture: Int[np.ndarray, " rows"]
    source: Int[np.ndarray, " rows"]
    unit: Int[np.ndarray, " rows"]
    along: Float64[np.ndarray, " rows"]
    tube_column: str | None = None
    window: Float64[np.ndarray, "rows 2"] | None = None

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def single(self) -> bool:
        """Whether every row is a unit of its own."""
        return self.count == len(self.unit)

    @property
    def count(self) -> int:
        """Number of units."""
        return len(np.unique(self.unit))

    @property
    def copied(self) -> Bool[np.ndarray, " rows"]:
        """Rows whose source is in other rows, too; of windows, those that are there again."""
        number = self.source if self.window is None else self.picture
        return np.bincount(number)[number] > 1

    @cached_property
    def weight(self) -> Float32[np.ndarray, " rows"]:
        """1 over the number of rows that show the same: what a row adds to a likelihood.

        Windows of one image show the same where they overlap: they count by the shares of their
        pixels that they have in common, each of them fully with itself.
        """
        if self.window is None:
            return (1.0 / np.bincount(self.source)[self.source]).astype(np.float32)
        return (1.0 / _overlaps(self.source, self.window)).astype(np.float32)

    def select(self, rows: Int[np.ndarray, " some"]) -> Units:
        """Only these rows, in this order."""
        picture, source, unit = (
            _numbered(numbers[rows]) for numbers in (self.picture, self.source, self.unit)
        )
        window = None if self.window is None else self.window[rows]
        return Units(picture, source, unit, self.along[rows], self.tube_column, window)


def every_row(n: int) -> Units:
    """Units of a table in which nothing is said twice."""
    rows = np.arange(n)
    return Units(rows, rows, rows, rows.astype(np.float64))


def find_units(particles: Particles) -> Units:
    """What in a table shares noise, by what the table says.

    The same image are: the same slice of the same file, by whatever names (links are followed);
    rows with the same ``uid`` or ``sym_expand/src_uid``, or the same ``rlnImageOriginalName``. A
    tube is an ``rlnHelicalTubeID`` of a micrograph (of a stack, where micrographs are not named),
    or a ``filament/filament_uid``. Sub-particles have the source of their parent. No image is
    opened.

    Raises:
        InputError: a column that says what a row shows holds what is no number.
    """
    picture = _paired(_files(particles.stack_paths)[particles.stack_index], particles.image_index)
    source = _joined([picture[None], *_originals(particles)])
    tube_column, tube = _tubes(particles)
    unit = source if tube is None else _joined([source[None], tube[None]])
    copy, height = (written_column(particles, name) for name in (COPY, HEIGHT))
    if copy is not None and height is not None:
        picture = _paired(picture, _numbered(np.asarray([str(value) for value in copy])))
    return Units(picture, source, unit, _along(particles), tube_column, _windows(particles))


def written_column(particles: Particles, label: str) -> np.ndarray | None:
    """A column of jaxrelax's own: just made, of a STAR file, or of a ``.cs`` file; or None."""
    if label in particles.extra_columns:
        return particles.extra_columns[label]
    found = particles.column(label)
    return particles.column(cryosparc_field(label)) if found is None else found


def _windows(particles: Particles) -> Float64[np.ndarray, "rows 2"] | None:
    """Offsets of windows in their parents' images, in widths of the window."""
    columns = [written_column(particles, label) for label in WINDOW]
    box = np.array([group.box for group in particles.optics])[particles.optics_group]
    if any(column is None for column in columns) or not np.all(box > 0):
        return None
    offsets = []
    for label, column in zip(WINDOW, columns, strict=True):
        assert column is not None
        values = _numbers(column)
        if not np.isfinite(values).all():
            raise InputError(
                f"{particles.source}: column {label} holds what is no number. Correct it, or "
                "remove the column if windows of one image do not overlap."
            )
        offsets.append(values / box)
    return np.stack(offsets, axis=1)


def _overlaps(
    source: Int[np.ndarray, " rows"], window: Float64[np.ndarray, "rows 2"]
) -> Float64[np.ndarray, " rows"]:
    """Of every window the summed shares that the windows of its source have of it, 1 for itself."""
    order = np.argsort(source, kind="stable")
    source, window = source[order], window[order]
    total = np.ones(len(source))
    for lag in range(1, int(np.bincount(source).max(initial=1))):
        same = np.flatnonzero(source[:-lag] == source[lag:])
        apart = np.abs(window[same] - window[same + lag])
        shared = np.prod(np.maximum(1.0 - apart, 0.0), axis=1)
        total[same] += shared
        total[same + lag] += shared
    out = np.empty(len(total))
    out[order] = total
    return out


def _numbered(keys: np.ndarray) -> Int[np.ndarray, " rows"]:
    """Numbers for distinct keys, in order of first appearance."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def _paired(first: np.ndarray, second: np.ndarray) -> Int[np.ndarray, " rows"]:
    """Numbers for distinct pairs."""
    second = _numbered(second)
    return _numbered(_numbered(first) * (second.max(initial=0) + 1) + second)


def _joined(keys: Sequence[Int[np.ndarray, "_ rows"]]) -> Int[np.ndarray, " rows"]:
    """Rows that share any key, however indirectly, get one number; a negative key is none.

    Keys of one array are of one kind, those of different arrays never the same.
    """
    n = keys[0].shape[1]
    if len(keys) == 1 and len(keys[0]) == 1:
        return _numbered(keys[0][0])
    size, rows, nodes = n, [], []
    for of_kind in keys:
        for key in of_kind:
            known = key >= 0
            rows.append(np.flatnonzero(known))
            nodes.append(key[known] + size)
        size += int(of_kind.max(initial=-1)) + 1
    ends = (np.concatenate(rows), np.concatenate(nodes))
    graph = scipy.sparse.coo_array((np.ones(len(ends[0]), bool), ends), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    return _numbered(label[:n])


def _files(paths: Iterable[Path]) -> Int[np.ndarray, " stacks"]:
    """A number for every file, the same for all names of one."""
    keys: dict[object, int] = {}
    numbers = []
    for path in paths:
        try:
            found = os.stat(path)
            key: object = (found.st_dev, found.st_ino)
        except OSError:
            key = os.path.realpath(path)
        numbers.append(keys.setdefault(key, len(keys)))
    return np.array(numbers, np.int64)


def _originals(particles: Particles) -> list[Int[np.ndarray, "names rows"]]:
    """Numbers of the originals that a table names, by kind of name; -1 where it names none."""
    found = []
    uids = [column for name in _UIDS if (column := particles.column(name)) is not None]
    if uids:
        values = np.stack([np.asarray(column, np.uint64) for column in uids])
        numbers = _numbered(values.reshape(-1)).reshape(values.shape)
        found.append(np.where(values == 0, -1, numbers))
    column = written_column(particles, ORIGINAL)
    if column is not None:
        texts = [_image_key(str(value)) for value in column]
        known = np.array([bool(text) for text in texts])
        found.append(np.where(known, unique_names(texts)[0], -1)[None])
    return found


def _image_key(text: str) -> str:
    """``000017@a.mrcs`` without its leading zeros; empty for what is no image name."""
    number, at, file = text.partition("@")
    counted = at and number.isascii() and number.isdigit()
    return f"{int(number)}@{file_name(file)}" if counted else ""


def _tubes(particles: Particles) -> tuple[str | None, Int[np.ndarray, " rows"] | None]:
    """The column that names tubes and a number for each; -1 for rows in none (0 or below)."""
    for name in TUBE_COLUMNS:
        column = particles.column(name)
        if column is None:
            continue
        inside = _tube_numbers(particles, name, column) > 0
        if not inside.any():
            continue
        if name == "rlnHelicalTubeID":
            names = particles.micrograph
            where = particles.stack_index
            if names is not None:
                where = unique_names([str(value) for value in names])[0]
            tube = _paired(where, _numbers(column))
        else:  # unsigned, with more digits than a float has
            tube = _numbered(np.asarray(column))
        return name, np.where(inside, tube, -1)
    return None, None


def _tube_numbers(
    particles: Particles, name: str, column: np.ndarray
) -> Float64[np.ndarray, " rows"]:
    """Tubes as numbers.

    Raises:
        InputError: some are none, and what shares noise would be a guess.
    """
    numbers = _numbers(column)
    if not np.isfinite(numbers).all():
        each = [_numbers(column[row : row + 1])[0] for row in range(len(column))]
        wrong = ~np.isfinite(each)
        raise InputError(
            f"{particles.source}, {particles.some_rows(wrong)}: {name} is '{column[wrong][0]}', "
            "and tubes are numbers. Correct these rows, or remove the column if segments do not "
            "overlap."
        )
    return numbers


def _along(particles: Particles) -> Float64[np.ndarray, " rows"]:
    for name in _ALONG_TUBE:
        column = particles.column(name)
        if column is not None and np.isfinite(values := _numbers(column)).all():
            return values
    return np.arange(len(particles), dtype=np.float64)


def _numbers(column: np.ndarray) -> Float64[np.ndarray, " rows"]:
    try:
        return np.asarray(column, dtype=np.float64).reshape(len(column))
    except ValueError:
        return np.full(len(column), np.nan)
