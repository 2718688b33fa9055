"""Tables that point to other images of the same particles, and the way back.

As ``relion_particle_subtract`` has it: ``rlnImageName`` is the new image, ``rlnImageOriginalName``
the one it was made from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int64

from jaxrelax.io.cryosparc import CryosparcDocument
from jaxrelax.io.cryosparc_records import append_fields, fields_in_order
from jaxrelax.io.image_root import image_roots
from jaxrelax.io.moved import Moved
from jaxrelax.io.particles import Particles, image_names, named_images
from jaxrelax.io.relion_tables import StarDocument
from jaxrelax.io.units import ORIGINAL

IMAGE = "rlnImageName"
EARLIER = "jrxImageOriginalNameBefore"  # what stood in ORIGINAL
SIZE, SIZE_BEFORE = "rlnImageSize", "jrxImageSizeBefore"
CS_BEFORE = {
    "blob/path": "jrx/original_path",
    "blob/idx": "jrx/original_idx",
    "blob/shape": "jrx/original_shape",
}


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class NewImages:
    """Where the new images of a table are.

    Attributes:
        stacks: files, which may not be there yet.
        names: what tables call them.
        stack_index: which of them the image of a row is in.
        image_index: its place there, from 0.
    """

    stacks: tuple[Path, ...]
    names: tuple[str, ...]
    stack_index: Int[np.ndarray, " n"]
    image_index: Int64[np.ndarray, " n"]


def with_other_images(
    particles: Particles, images: NewImages, moved: Moved, *, as_star: bool, folder: Path
) -> Particles:
    """The particles with other images, and their present ones as the original ones.

    Args:
        particles: the table.
        images: the new images.
        moved: how they lie to the present ones.
        as_star: whether a STAR file is to be written; a ``.cs`` file has fields of its own.
        folder: where a ``.cs`` file is to be written.
    """
    changed = moved.apply(particles)
    document, extra = changed.document, moved.columns(len(particles))
    if isinstance(document, StarDocument):
        document = _with_new_names(document, images, moved)
    elif as_star:
        extra = {ORIGINAL: np.array(image_names(particles), dtype=object), **extra}
    else:
        assert isinstance(document, CryosparcDocument)
        document = _with_new_records(particles, document, images, moved, folder)
    changed = replace(
        changed, document=document, stack_paths=images.stacks, image_names=images.names,
        stack_index=images.stack_index.astype(np.int32), image_index=images.image_index,
    )  # fmt: skip
    return changed.with_updates(extra_columns=extra)


def stack_name(stack: Path, particles: Particles) -> str:
    """What tables call a new stack: seen from the project folder, else the whole path.

    That is the folder that the images' present names are relative to, or the working directory.
    """
    whole = stack.resolve()
    for root in [*image_roots(particles), Path.cwd()]:
        if whole.is_relative_to(root):
            return str(whole.relative_to(root))
    return str(whole)


def _with_new_names(document: StarDocument, images: NewImages, moved: Moved) -> StarDocument:
    table = document.particles
    before = table.column(IMAGE)
    if ORIGINAL in table:
        table = table.with_columns({EARLIER: table.column(ORIGINAL)})
    names = named_images(images.image_index, images.stack_index, images.names)
    table = table.with_columns({IMAGE: names, ORIGINAL: before})
    document = document.with_particles(table)
    if moved.box is None:
        return document
    return _with_size(document, str(moved.box))


def _with_size(document: StarDocument, box: str) -> StarDocument:
    """The image size of all optics groups, the former one beside it."""
    tables = list(document.tables)
    for i in {document.particle_block, document.optics_block} - {None}:
        table = tables[i]
        if SIZE in table:
            before = table.column(SIZE)
            tables[i] = table.with_columns({SIZE_BEFORE: before, SIZE: [box] * len(table)})
    return replace(document, tables=tuple(tables))


def _with_new_records(
    particles: Particles,
    document: CryosparcDocument,
    images: NewImages,
    moved: Moved,
    folder: Path,
) -> CryosparcDocument:
    """The records of the new images; ``write_cs`` makes their paths relative to the file."""
    records, n = document.records, len(particles)
    before = {mine: records[name] for name, mine in CS_BEFORE.items()}
    before["jrx/original_path"] = _seen_from(folder, particles, records["blob/path"])
    names = [name for name in records.dtype.names or () if name not in before]
    paths = np.array([os.fsencode(f">{path}") for path in images.stacks])[images.stack_index]
    others = [name for name in names if name != "blob/path"]
    records = append_fields(records[others], {"blob/path": paths, **before})
    # In their former order: programs show fields as they come.
    records = fields_in_order(records, [*names, *before])
    records["blob/idx"] = images.image_index
    if moved.box is not None:
        records["blob/shape"] = np.full((n, 2), moved.box)
    return CryosparcDocument(records)


def _seen_from(folder: Path, particles: Particles, paths: np.ndarray) -> np.ndarray:
    """Paths of present images; those relative to their file (``>``) as seen from a new one."""
    text = [path if isinstance(path, bytes) else os.fsencode(str(path)) for path in paths]
    whole = folder.resolve()
    seen = [os.fsencode(f">{os.path.relpath(stack, whole)}") for stack in particles.stack_paths]
    pairs = zip(text, particles.stack_index, strict=True)
    return np.array([seen[stack] if path.startswith(b">") else path for path, stack in pairs])
