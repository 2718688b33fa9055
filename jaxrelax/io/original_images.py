"""The way back from a table of other images to that of the original ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrelax.io.cryosparc import CryosparcDocument
from jaxrelax.io.cryosparc_records import append_fields, fields_in_order
from jaxrelax.io.errors import InputError
from jaxrelax.io.image_root import image_roots, resolves_alone
from jaxrelax.io.moved import COLUMNS, Moved
from jaxrelax.io.other_images import CS_BEFORE, EARLIER, IMAGE, SIZE, SIZE_BEFORE
from jaxrelax.io.particles import Particles, unique_names
from jaxrelax.io.relion_tables import StarDocument
from jaxrelax.io.stacks import file_name, resolve_stacks
from jaxrelax.io.units import ORIGINAL
from jaxrelax.io.writing import cryosparc_field, write_cs, write_star


def original_images(particles: Particles) -> Particles:
    """The particles with the images that theirs were made from.

    What ``relion_particle_subtract --revert`` does, for its tables as well; the column with the
    other images goes. A centre that was moved, windows and changes of the defocus are taken back at
    the poses that the table has now. All else stays.

    Args:
        particles: a table in which ``rlnImageOriginalName`` stands, or ``jrx/original_path``.

    Raises:
        InputError: it has no such column; or the centre was moved, and there are no poses.
    """
    moved = Moved.read(particles)
    if moved.centre_angstrom is not None and not particles.has_poses:
        raise InputError(
            f"{particles.source}: its centre was moved, and without poses it cannot be moved back. "
            "Give the table with poses."
        )
    particles = moved.undo(particles)
    document = particles.document
    if isinstance(document, StarDocument):
        return _of_star(particles, document)
    assert isinstance(document, CryosparcDocument)
    return _of_records(particles, document)


def write_original(particles: Particles, path: Path) -> None:
    """Write what `original_images` made; folders are noted only if images are not found otherwise.

    So the file beside the one it came from is that file again where nothing else was changed, up
    to white space.

    Raises:
        InputError: see `jaxrelax.io.write_star` and `jaxrelax.io.write_cs`.
    """
    if path.suffix == ".cs":
        return write_cs(particles, path)
    roots = [] if resolves_alone(particles, path) else image_roots(particles)
    return write_star(particles, path, roots)


def _of_star(particles: Particles, document: StarDocument) -> Particles:
    table = document.particles
    if ORIGINAL not in table:
        raise InputError(
            f"{particles.source}: no column {ORIGINAL}, so it does not say which images these were "
            "made from. Give a table of subtracted particles."
        )
    names = table.column(ORIGINAL)
    table = table.with_columns({IMAGE: names})
    if EARLIER in table:
        table = table.with_columns({ORIGINAL: table.column(EARLIER)}).without(EARLIER)
    else:
        table = table.without(ORIGINAL)
    document = document.with_particles(table.without(*COLUMNS))
    tables = list(document.tables)
    for i, one in enumerate(tables):
        if SIZE_BEFORE in one:
            tables[i] = one.with_columns({SIZE: one.column(SIZE_BEFORE)}).without(SIZE_BEFORE)
    document = replace(document, tables=tuple(tables))
    numbers, stacks = zip(*map(_split, names), strict=True)
    index, distinct = unique_names(list(stacks))
    return _found(particles, document, np.array(numbers), index, distinct)


def _split(name: str) -> tuple[int, str]:
    """Place from 0, and stack, of ``000001@stack.mrcs`` or of a file with one image."""
    number, at, stack = name.partition("@")
    return (int(number) - 1, stack) if at and number.isdecimal() else (0, name)


def _of_records(particles: Particles, document: CryosparcDocument) -> Particles:
    records = document.records
    fields = records.dtype.names or ()
    missing = [mine for mine in CS_BEFORE.values() if mine not in fields]
    if missing:
        raise InputError(
            f"{particles.source}: no field {', '.join(missing)}, so it does not say which images "
            "these were made from. Give a table of subtracted particles."
        )
    gone = {*CS_BEFORE.values(), *map(cryosparc_field, COLUMNS)}
    kept = [name for name in fields if name not in gone]
    others = [name for name in kept if name not in CS_BEFORE]
    before = {name: records[mine] for name, mine in CS_BEFORE.items()}
    back = fields_in_order(append_fields(records[others], before), kept)
    text = [path.decode("utf-8", "surrogateescape") for path in back["blob/path"].tolist()]
    index, distinct = unique_names([file_name(path) for path in text])
    boxes = back["blob/shape"][:, 1]
    groups = [
        replace(group, box=int(boxes[particles.optics_group == number][0]))
        for number, group in enumerate(particles.optics)
    ]
    particles = replace(particles, optics=tuple(groups))
    images = back["blob/idx"].astype(np.int64)
    return _found(particles, CryosparcDocument(back), images, index, distinct)


def _found(
    particles: Particles,
    document: StarDocument | CryosparcDocument,
    image_index: np.ndarray,
    index: np.ndarray,
    names: tuple[str, ...],
) -> Particles:
    paths = resolve_stacks(
        names, particles.source, particles.image_root, particles.document.noted_roots()
    )
    return replace(
        particles, document=document, stack_index=index, image_names=names, stack_paths=paths,
        image_index=image_index,
    )  # fmt: skip
