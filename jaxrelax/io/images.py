"""Images of particles, read slice by slice from stacks that stay on disk."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Num

from jaxrelax.io.errors import InputError, LostImagesError, MissingImagesError
from jaxrelax.io.mrc_header import MrcHeader, read_header
from jaxrelax.io.particles import Particles
from jaxrelax.io.stacks import missing_images_message

logger = logging.getLogger("jaxrelax")

PIXEL_SIZE_TOLERANCE = 1e-3  # relative; headers hold float32 quotients


class ImageReader:
    """Reads images of a `Particles` table, opening each stack when first needed.

    Only the slices asked for are read. At most ``max_open`` stacks are held open. One thread
    at a time may call `read`.

    Stacks are read, not memory-mapped: mapped pages count as memory of the process, as much as it
    has ever read, and a file that is cut short while it is mapped kills the process.
    """

    def __init__(self, particles: Particles, max_open: int = 64):
        self._open: OrderedDict[int, int] = OrderedDict()  # file descriptors
        self._lock = threading.Lock()  # of them
        self._headers: dict[int, MrcHeader] = {}
        self.particles = particles
        self.max_open = max_open

    def __len__(self) -> int:
        return len(self.particles)

    def header(self, stack: int) -> MrcHeader:
        """Header of a stack, by its number in ``particles.stack_paths``.

        Raises:
            MissingImagesError: the file is not there.
            InputError: it is truncated, no MRC file, or its images are not square and even.
        """
        if stack not in self._headers:
            path = self.particles.stack_paths[stack]
            if not os.path.isfile(path):
                raise self._missing(stack)
            header = read_header(path)
            require_images(header)
            self._headers[stack] = header
        return self._headers[stack]

    def validate(self) -> None:
        """Check every stack against the table, from the headers alone.

        A header with another pixel size than the optics table is only a warning in the log:
        the optics table is right.

        Raises:
            MissingImagesError: image files are not there.
            InputError: a stack is truncated, has another box than the optics table, or has
                fewer images than the table names.
        """
        table = self.particles
        used = np.unique(table.stack_index)
        missing = [int(stack) for stack in used if not os.path.isfile(table.stack_paths[stack])]
        if missing:
            raise self._missing(missing[0], others=len(missing) - 1)
        self._require_indices(np.arange(len(table)))
        pairs = np.unique(np.column_stack([table.stack_index, table.optics_group]), axis=0)
        mismatched: dict[str, None] = {}
        for stack, group in pairs.tolist():
            header, optics = self.header(stack), table.optics[group]
            if optics.box and header.shape[2] != optics.box:
                raise InputError(
                    f"{header.path}: the box is {header.shape[2]} pixels, but {table.source} "
                    f"says {optics.box} for optics group '{optics.name}'. "
                    "Correct the table or extract the images again."
                )
            found, said = header.pixel_size_angstrom, optics.pixel_size_angstrom
            if found > 0 and abs(found - said) > PIXEL_SIZE_TOLERANCE * said:
                mismatched[f"{header.path} ({found:.5g} Å, table {said:.5g} Å)"] = None
        if mismatched:
            logger.warning(
                "The pixel size in the header of %d stack(s) is not that of the optics table, "
                "which is used: %s",
                len(mismatched),
                "; ".join(list(mismatched)[:3]),
            )

    def box(self, rows: Int[np.ndarray, " rows"] | None = None) -> int:
        """Box size in pixels of these particles (all by default).

        Raises:
            InputError: they have different boxes.
        """
        stacks = self.particles.stack_index if rows is None else self.particles.stack_index[rows]
        boxes = {self.header(int(stack)).shape[2] for stack in np.unique(stacks)}
        if len(boxes) != 1:
            raise InputError(
                f"{self.particles.source}: images of different boxes ({sorted(boxes)}) in one "
                "batch. Read each optics group by itself."
            )
        return boxes.pop()

    def read(self, rows, *, as_stored: bool = False) -> Num[np.ndarray, "rows y x"]:
        """Images of these rows of the table, in this order.

        Args:
            rows: at least one.
            as_stored: in the type of their stacks, which leaves the conversion to who works with
                them; float32 where stacks have different ones or a foreign byte order, or an image
                is to be negated. By default always float32.

        Raises:
            InputError: as `header` and `box`, or an image lies outside its stack.
            LostImagesError: a stack that was whole when it was first used is not any more.
            IndexError: a row is not in the table.
        """
        rows = np.asarray(rows, dtype=np.int64).reshape(-1)
        if rows.size == 0:
            raise ValueError("no rows to read")
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"row {int(rows.max())} of a table of {len(self)} particles")
        self._require_indices(rows)
        size = self.box(rows)
        stacks, slices = self.particles.stack_index[rows], self.particles.image_index[rows]
        negative = self.particles.image_sign[rows] < 0
        kinds = {self.header(int(stack)).dtype for stack in np.unique(stacks)}
        kind = np.dtype(np.float32)
        if as_stored and len(kinds) == 1 and not negative.any():
            (stored,) = kinds
            kind = stored if stored.isnative else kind
        out = np.empty((len(rows), size, size), kind)
        # By stack, and forwards inside it: this is how disks and page caches like it.
        for i in np.lexsort((slices, stacks)):
            out[i] = self._slice(int(stacks[i]), int(slices[i]), int(rows[i]))
        if negative.any():
            out[negative] *= -1.0
        return out

    def image_name(self, row: int) -> str:
        """``17@stack.mrcs``, for messages."""
        table = self.particles
        return f"{table.image_index[row] + 1}@{table.image_names[table.stack_index[row]]}"

    def close(self) -> None:
        """Close all stacks; a later `read` opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _slice(self, stack: int, index: int, row: int) -> np.ndarray:
        header = self.header(stack)
        size = header.bytes_per_slice
        start = header.data_offset + index * size
        try:
            # Another thread may close the file, to open one of its own.
            with self._lock:
                data = os.pread(self._file(stack), size, start)
                while len(data) < size and (
                    more := os.pread(self._file(stack), size - len(data), start + len(data))
                ):
                    data += more
        except OSError as error:
            raise self._lost(stack, row, error.strerror or str(error)) from error
        if len(data) < size:
            raise self._lost(stack, row, "the file has become shorter")
        return np.frombuffer(data, header.dtype).reshape(header.shape[1:])

    def _file(self, stack: int) -> int:
        if stack in self._open:
            self._open.move_to_end(stack)
        else:
            while len(self._open) >= self.max_open:
                os.close(self._open.popitem(last=False)[1])
            self._open[stack] = os.open(self.header(stack).path, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[stack]

    def _lost(self, stack: int, row: int, why: str) -> LostImagesError:
        return LostImagesError(
            f"{self.particles.stack_paths[stack]}: image '{self.image_name(row)}' (row "
            f"{self.particles.rows_of_file()[row] + 1} of {self.particles.source}) can no longer "
            f"be read: {why}. Restore the file."
        )

    def _require_indices(self, rows: Int[np.ndarray, " rows"]) -> None:
        table = self.particles
        stacks = table.stack_index[rows]
        used, inverse = np.unique(stacks, return_inverse=True)
        counts = np.array([self.header(int(stack)).shape[0] for stack in used])
        outside = table.image_index[rows] >= counts[inverse.reshape(-1)]
        if outside.any():
            row = int(rows[np.flatnonzero(outside)[0]])
            header = self.header(int(table.stack_index[row]))
            raise InputError(
                f"{table.source}, row {table.rows_of_file()[row] + 1}: image "
                f"'{self.image_name(row)}' is outside its stack, {header.path}, which has "
                f"{header.shape[0]} images. Remove the row or "
                "give the stack that belongs to this table."
            )

    def _missing(self, stack: int, others: int = 0) -> MissingImagesError:
        table = self.particles
        return MissingImagesError(
            missing_images_message(
                table.stack_paths[stack],
                table.image_names[stack],
                table.source,
                table.image_root,
                others,
            )
        )


def require_images(header: MrcHeader) -> None:
    """Refuse a stack that is cut short, or whose images are not square and even.

    Raises:
        InputError: names the file.
    """
    header.require_whole()
    _, ny, nx = header.shape
    if ny != nx:
        raise InputError(f"{header.path}: images of {nx} x {ny} pixels are not square. Crop them.")
    if nx % 2:
        raise InputError(
            f"{header.path}: the box of {nx} pixels is odd. Crop or pad the images to an even box."
        )


def find_bad_images(
    reader: ImageReader, rows: Int[np.ndarray, " rows"] | None = None, chunk: int = 256
) -> dict[int, str]:
    """Rows whose image holds NaN or infinities, or is constant, with the reason.

    Reads every image once, ``chunk`` at a time.
    """
    rows = np.arange(len(reader)) if rows is None else np.asarray(rows)
    bad: dict[int, str] = {}
    groups = reader.particles.optics_group[rows]
    for group in np.unique(groups):
        members = rows[groups == group]
        for start in range(0, len(members), chunk):
            part = members[start : start + chunk]
            images = reader.read(part)
            for row, image in zip(part, images, strict=True):
                low, high = float(image.min()), float(image.max())  # NaN if any pixel is
                if not (np.isfinite(low) and np.isfinite(high)):
                    bad[int(row)] = "NaN or infinite pixels"
                elif low == high:
                    bad[int(row)] = "all pixels are equal"
    return bad


def drop_bad_images(
    particles: Particles,
    skip_bad: bool | None = False,
    bad: Mapping[int, str] | None = None,
) -> Particles:
    """The particles whose images are usable.

    Args:
        particles: whose images are all read once, unless ``bad`` is given.
        skip_bad: leave bad images out, with a count in the log, instead of raising; None where
            nobody can be told to ask for it.
        bad: rows that cannot be used, with the reason, where somebody has looked already.

    Raises:
        InputError: there are bad images and ``skip_bad`` is not True, or no good one is left.
    """
    with ImageReader(particles) as reader:
        bad = find_bad_images(reader) if bad is None else bad
        if not bad:
            return particles
        rows = particles.rows_of_file()
        named = [
            f"{reader.image_name(row)} (row {rows[row] + 1}: {bad[row]})" for row in sorted(bad)[:5]
        ]
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    listing = ", ".join(named) + more
    if not skip_bad or len(bad) == len(particles):
        or_else = "" if skip_bad is None else ", or leave them out with --skip-bad-images"
        raise InputError(
            f"{particles.source}: {len(bad)} of {len(particles)} images cannot be used: "
            f"{listing}. Remove these rows{or_else}."
        )
    logger.warning("Left out %d of %d images: %s", len(bad), len(particles), listing)
    keep = np.ones(len(particles), bool)
    keep[list(bad)] = False
    return particles.select(keep)
