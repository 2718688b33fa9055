"""Where image names of a written table are relative to, noted in the table itself.

Names stay as they were, so that RELION and cryoSPARC find the images from the project folder and
tables can be joined by them. A STAR file carries the folders in comments, which RELION passes
over; a ``.cs`` file in a field, where it lies so that names do not resolve from it anyway.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from jaxrelax.io.particles import Particles
from jaxrelax.io.stacks import file_name, resolve_stacks

_MARK = "# jaxrelax image root: "


def image_roots(particles: Particles) -> list[Path]:
    """Folders that relative image names were found in, in order of first use."""
    pairs = zip(particles.image_names, particles.stack_paths, strict=True)
    found = (_root(name, path) for name, path in pairs)
    return list(dict.fromkeys(root for root in found if root is not None))


def with_note(comment: str, roots: list[Path], written: Path) -> str:
    """A comment with these folders in place of those that it notes.

    Each is noted relative to the file, which survives moving the project, and absolutely, which
    survives moving the file.
    """
    folder = written.resolve().parent
    texts = [form for root in roots for form in (os.path.relpath(root, folder), str(root))]
    notes = [_MARK + _escaped(text) for text in texts]
    kept = [line for line in comment.split("\n") if line and not line.startswith(_MARK)]
    return "\n".join([*notes, *kept])


def noted(comment: str) -> list[str]:
    """Folders that a comment notes, as they stand there."""
    lines = comment.split("\n")
    marked = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    return [os.fsdecode(unquote_to_bytes(text)) for text in marked]


def resolves_alone(particles: Particles, written: Path) -> bool:
    """Whether image names lead to the images from the folder of a file and its parents."""
    return resolve_stacks(particles.image_names, written, None, cwd=False) == particles.stack_paths


def relative_roots(particles: Particles, written: Path) -> list[str]:
    """For each stack the folder of its relative name, seen from a file; '' if it is absolute."""
    folder = written.resolve().parent
    found = []
    for name, path in zip(particles.image_names, particles.stack_paths, strict=True):
        root = _root(name, path)
        found.append("" if root is None else os.path.relpath(root, folder))
    return found


def _root(name: str, path: Path) -> Path | None:
    relative = Path(file_name(name))
    if relative.is_absolute() or not os.path.isfile(path):
        return None
    root = path.parents[len(relative.parts) - 1]
    return root if root / relative == path else None


def _escaped(text: str) -> str:
    """Percent-encoded; RELION takes ``data_`` for the head of a block in a comment, too."""
    return quote(os.fsencode(text)).replace("data_", "data%5F")
