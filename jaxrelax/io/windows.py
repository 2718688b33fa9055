"""Windows cut from the images of particles, each around the centre of its row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from jaxrelax.io.cryosparc import CryosparcDocument
from jaxrelax.io.cryosparc_records import append_fields
from jaxrelax.io.cut import cut_images, reaches_beyond
from jaxrelax.io.errors import InputError
from jaxrelax.io.images import ImageReader
from jaxrelax.io.mrc import write_stack
from jaxrelax.io.particles import Document, Particles, image_names
from jaxrelax.io.relion_tables import PIXEL_SIZES, CtfLookup, StarDocument
from jaxrelax.io.units import ORIGINAL, WINDOW, written_column
from jaxrelax.io.writing import fixed

LEAST_BOX = 16
_NAME, _COORDINATES, _SIZE = "rlnImageName", ("rlnCoordinateX", "rlnCoordinateY"), "rlnImageSize"
# Of a micrograph, in which coordinates are counted, before that of the images.
_COORDINATE_PIXELS = (*PIXEL_SIZES[1:], PIXEL_SIZES[0])
# Images whose windows are cut at once.
_CHUNK = 64


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Windows:
    """Where to cut, and the table of what comes out.

    Attributes:
        particles: one row for each window, with its stack, box, rest of the origin (at most half a
            pixel) and, in STAR files that have them, coordinates of its centre.
        parents: the same rows with the images that are cut.
        offsets_px: (x, y) of the window's centre from that of the parent's image.
        partial: windows that reach beyond their image.
    """

    particles: Particles
    parents: Particles
    offsets_px: Int[np.ndarray, "rows 2"]
    partial: Bool[np.ndarray, " rows"]


def plan_windows(
    particles: Particles, box: int, stack: Path, *, leave_out_partial: bool = False
) -> Windows:
    """Windows around the particles' centres, as they will be written by `write_windows`.

    Whole pixels are cut, and nothing is interpolated. ``rlnImageOriginalName`` is the image that a
    window is of, unless the table has that column. Two columns keep where in that image it is:
    ``jrxWindowX`` and ``jrxWindowY``, the offset of its centre from the image's in pixels.

    Args:
        particles: with origins of any size; their rows are in the order in which images are read.
        box: side of the windows in pixels.
        stack: the file to write; optics groups of other pixel sizes have files of their own, with a
            number behind the name.
        leave_out_partial: leave out windows that reach beyond their image.

    Raises:
        InputError: the box is odd, small or larger than the images, there are no images, or all
            windows would be left out.
    """
    _require_box(particles, box)
    offsets, partial = _places(particles, box)
    if leave_out_partial and partial.any():
        if partial.all():
            raise InputError(
                f"{particles.source}: all windows of {box} pixels reach beyond their images. Give "
                "a smaller --box, or have them filled without --leave-out-partial."
            )
        kept = np.flatnonzero(~partial)
        particles, offsets, partial = particles.select(kept), offsets[kept], partial[kept]
    pixel = np.array([group.pixel_size_angstrom for group in particles.optics])
    moved = offsets * pixel[particles.optics_group, None]
    sizes, of_group = np.unique(pixel, return_inverse=True)
    stack_index = of_group.reshape(-1)[particles.optics_group].astype(np.int32)
    files = [stack]
    if len(sizes) > 1:
        files = [stack.with_stem(f"{stack.stem}_{i + 1}") for i in range(len(sizes))]
    image_index = np.zeros(len(particles), np.int64)
    for number in range(len(sizes)):
        of = stack_index == number
        image_index[of] = np.arange(np.count_nonzero(of))
    names = tuple(str(file) for file in files)
    columns: dict[str, np.ndarray] = {}
    for axis, label in enumerate(WINDOW):
        # Of images that are windows themselves: from the image that those were cut from.
        before = written_column(particles, label)
        columns[label] = offsets[:, axis] + (0 if before is None else before.astype(int))
    if particles.column(ORIGINAL) is None:
        columns[ORIGINAL] = np.array(image_names(particles), dtype=object)
    made = particles.with_updates(
        origins_angstrom=particles.origins_angstrom + moved, extra_columns=columns
    )
    made = replace(
        made,
        optics=tuple(replace(group, box=box) for group in particles.optics),
        stack_paths=tuple(Path.cwd() / file for file in files),
        image_names=names,
        stack_index=stack_index,
        image_index=image_index,
    )
    made = replace(made, document=_document(made, moved, box))
    return Windows(made, particles, offsets, partial)


def write_windows(windows: Windows) -> None:
    """Write the stacks of the windows, float32; each appears when it is whole.

    Images are read once and kept no longer than their windows need them. What a window has beyond
    its image is filled with the mean of the image outside of the circle that it holds.

    Raises:
        InputError: an image holds NaN or infinities, or see `ImageReader` and `write_stack`; no
            stack is left behind then.
    """
    written: list[Path] = []
    table = windows.particles
    try:
        for number, path in enumerate(table.stack_paths):
            rows = np.flatnonzero(table.stack_index == number)
            if not len(rows):
                continue
            pixel = table.optics[table.optics_group[rows[0]]].pixel_size_angstrom
            write_stack(path, _cut(windows, rows), pixel)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _cut(
    windows: Windows, rows: Int[np.ndarray, " some"]
) -> Iterator[Float32[np.ndarray, "windows box box"]]:
    parents = windows.parents
    # As they are stored: the sign stays in the table.
    parents = replace(parents, image_sign=np.ones_like(parents.image_sign))
    box = windows.particles.optics[0].box
    key = np.stack([parents.stack_index, parents.image_index], axis=1)[rows]
    # Where another image begins; those of one are neighbours.
    begins = np.flatnonzero(np.any(np.diff(key, axis=0, prepend=-1) != 0, axis=1))
    group = parents.optics_group[rows]
    with ImageReader(parents) as reader:
        at = 0
        while at < len(begins):
            upto = at + 1
            while (
                upto < len(begins)
                and upto - at < _CHUNK
                and group[begins[upto]] == group[begins[at]]
            ):
                upto += 1
            firsts = begins[at:upto]
            ends = np.append(begins, len(rows))[at + 1 : upto + 1]
            images = reader.read(rows[firsts])
            for image, first, end in zip(images, firsts, ends, strict=True):
                if not np.all(np.isfinite(image)):
                    raise InputError(
                        f"{parents.source}: image '{reader.image_name(int(rows[first]))}' holds "
                        "NaN or infinite pixels. Remove its row."
                    )
                offsets = windows.offsets_px[rows[first:end]]
                yield cut_images(np.broadcast_to(image, (len(offsets), *image.shape)), offsets, box)
            at = upto


def _places(
    particles: Particles, box: int
) -> tuple[Int[np.ndarray, "rows 2"], Bool[np.ndarray, " rows"]]:
    """Pixels nearest to where the particles are, as offsets, and whether windows reach beyond."""
    sizes = np.array([group.box for group in particles.optics])[particles.optics_group]
    pixel = np.array([group.pixel_size_angstrom for group in particles.optics])
    steps = np.rint(-particles.origins_angstrom / pixel[particles.optics_group, None])
    offsets = steps.astype(int)
    return offsets, reaches_beyond(sizes, box, offsets)


def _require_box(particles: Particles, box: int) -> None:
    if box % 2 or box < LEAST_BOX:
        raise InputError(f"--box {box}: windows have an even side of {LEAST_BOX} pixels or more.")
    with ImageReader(particles) as reader:
        reader.validate()
    smallest = min(group.box for group in particles.optics)
    if box > smallest:
        raise InputError(
            f"--box {box}: windows are cut from images of {smallest} pixels. Give a smaller box, "
            "or none for a table that names the images themselves."
        )


def _document(made: Particles, moved_angstrom: Float64[np.ndarray, "rows 2"], box: int) -> Document:
    """The tables with the names of the windows, their box, and where their centres are."""
    document = made.document
    if isinstance(document, CryosparcDocument):
        folder = made.stack_paths[0].parent
        paths = [os.fsencode(f">{os.path.relpath(path, folder)}") for path in made.stack_paths]
        records = document.records.copy()
        path_kind = np.array(paths)[made.stack_index]
        if records.dtype["blob/path"].kind == "U":
            path_kind = np.array([os.fsdecode(path) for path in path_kind])
        names = [name for name in records.dtype.names or () if name != "blob/path"]
        records = append_fields(records[names], {"blob/path": path_kind})
        records["blob/idx"], records["blob/shape"] = made.image_index, box
        return CryosparcDocument(records)
    assert isinstance(document, StarDocument)
    text = {_NAME: image_names(made)}
    table = document.particles
    if all(label in table for label in _COORDINATES):
        lookup = CtfLookup(made.source, document)
        pixel = lookup(*_COORDINATE_PIXELS)
        if pixel is None:  # RELION 3.0 has one for both
            pixel = np.array([g.pixel_size_angstrom for g in made.optics])[made.optics_group]
        for axis, label in enumerate(_COORDINATES):
            try:
                values = np.array(table.column(label), np.float64)
            except ValueError as error:
                raise InputError(
                    f"{made.source}: column {label} holds what is no number ({error}). Correct the "
                    "values, or remove the column."
                ) from error
            text[label] = fixed(values + moved_angstrom[:, axis] / pixel)
    if _SIZE in table:
        text[_SIZE] = [str(box)] * len(made)
    document = document.with_particles(table.with_columns(text))
    optics = document.optics
    if optics is not None and document.optics_block is not None and _SIZE in optics:
        sized = optics.with_columns({_SIZE: [str(box)] * len(optics)})
        at = document.optics_block
        document = replace(
            document, tables=(*document.tables[:at], sized, *document.tables[at + 1 :])
        )
    return document
