"""`read_particles`: one door for STAR and ``.cs`` files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrelax.io.cryosparc import load_cryosparc
from jaxrelax.io.errors import InputError, UnsupportedError
from jaxrelax.io.mrc_header import read_header
from jaxrelax.io.particles import Particles, Refusal
from jaxrelax.io.relion import load_star

logger = logging.getLogger("jaxrelax")


def read_particles(
    path: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    *,
    passthrough: Iterable[str | os.PathLike] = (),
    require_poses: bool = True,
) -> Particles:
    """Read particles from a RELION STAR file (3.0 to 5, or one loop) or a cryoSPARC ``.cs``.

    The images are not opened. Files that are not found are an error once they are needed.

    Args:
        path: the ``.star`` or ``.cs`` file.
        image_root: folder that image names are relative to. Without it, the file's folder, its
            parents and the working directory are searched, and what jaxrelax noted in the file
            when it wrote it.
        passthrough: ``.cs`` files with the fields that the job did not change, joined by uid.
            Without it, files of the same job called ``*passthrough_particles*.cs`` in the same
            folder are joined.
        require_poses: raise when there are no poses; otherwise they are the identity.

    Raises:
        UnsupportedError: columns ask for what the imaging model does not do.
        InputError: anything else about the file that cannot be honoured.
    """
    particles = load_particles(
        path, image_root, passthrough=passthrough, require_poses=require_poses
    )
    refusals = check_supported(particles)
    if refusals:
        asked = "; ".join(f"{r.column}: {r.reason}" for r in refusals)
        ways = " ".join(dict.fromkeys(r.way_out for r in refusals))
        raise UnsupportedError(f"{path}: {asked}. {ways}")
    _warn_of_pooled_classes(particles)
    return particles


def check_supported(particles: Particles, allow: Iterable[str] = ()) -> list[Refusal]:
    """What the table asks for and the imaging model does not do; columns in ``allow`` left out."""
    refusals = particles.document.refusals()
    for group in particles.optics:
        if group.box % 2:
            refusals.append(
                Refusal(
                    "box",
                    f"the box of {group.box} pixels of optics group '{group.name}' is odd",
                    "Crop or pad the images to an even box.",
                )
            )
    allowed = set(allow)
    return [refusal for refusal in refusals if refusal.column not in allowed]


def load_particles(
    path: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    *,
    passthrough: Iterable[str | os.PathLike] = (),
    require_poses: bool = True,
    require_ctf: bool = True,
) -> Particles:
    """As `read_particles`, but what is unsupported is left to the caller (`check_supported`)."""
    path = Path(path)
    root = None if image_root is None else Path(image_root)
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no such folder. Correct --image-root.")
    if path.suffix == ".cs":
        others = tuple(map(Path, passthrough))
        particles = load_cryosparc(path, root, others, require_poses, require_ctf)
    elif path.suffix == ".star":
        particles = load_star(path, root, require_poses, require_ctf)
    else:
        raise InputError(f"{path}: not a .star or .cs file. Give a file of particles.")
    return _with_boxes(particles)


def _warn_of_pooled_classes(particles: Particles) -> None:
    classes, counts = np.unique(particles.class_number, return_counts=True)
    if len(classes) < 2:
        return
    shown = ", ".join(f"{c} ({n})" for c, n in list(zip(classes, counts, strict=True))[:6])
    more = ", ..." if len(classes) > 6 else ""
    logger.warning(
        "%s: particles of %d classes are taken together: class %s%s. For one of them give a table "
        "of it alone (relion_star_handler --select rlnClassNumber --minval 1 --maxval 1; in "
        "cryoSPARC the class's own particles).",
        particles.source, len(classes), shown, more,
    )  # fmt: skip


def _with_boxes(particles: Particles) -> Particles:
    """Take box sizes that the table leaves out from the stacks, where those are there."""
    groups = list(particles.optics)
    for number, group in enumerate(groups):
        if group.box:
            continue
        stacks = np.unique(particles.stack_index[particles.optics_group == number])
        for stack in stacks:
            if os.path.isfile(particles.stack_paths[stack]):
                box = read_header(particles.stack_paths[stack]).shape[2]
                groups[number] = replace(group, box=box)
                break
    return replace(particles, optics=tuple(groups))
