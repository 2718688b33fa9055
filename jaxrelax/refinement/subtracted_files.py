"""Subtracted images as files: stacks, tables that point to them, and what was done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrelax.io import InputError, Particles, atomic_write_text, write_cs, write_stack, write_star
from jaxrelax.io.cryosparc import CryosparcDocument
from jaxrelax.io.cut import cut_images, reaches_beyond
from jaxrelax.io.image_root import image_roots
from jaxrelax.io.moved import Moved
from jaxrelax.io.other_images import NewImages, stack_name, with_other_images
from jaxrelax.io.result_groups import write_particle_group
from jaxrelax.refinement.subtraction import Scale, Subtraction

TABLE, STACK, SUMMARY = "particles_subtracted", "subtracted", "subtraction.json"


class Layout(NamedTuple):
    """Which files there will be.

    Attributes:
        folder: of all of them.
        stacks: optics groups in each stack: those of one box and pixel size.
        from_cryosparc: whether the table came from a ``.cs`` file.
    """

    folder: Path
    stacks: dict[Path, list[int]]
    from_cryosparc: bool

    @classmethod
    def of(cls, particles: Particles, folder: Path, box: int | None) -> Layout:
        """Layout for a table, the images having another box where one is given."""
        kinds: dict[tuple[int, float], list[int]] = {}
        for number in np.unique(particles.optics_group).tolist():
            group = particles.optics[number]
            kinds.setdefault((box or group.box, group.pixel_size_angstrom), []).append(number)
        several = len(kinds) > 1
        names = [f"{STACK}_{i}" if several else STACK for i in range(1, len(kinds) + 1)]
        stacks = {folder / f"{n}.mrcs": g for n, g in zip(names, kinds.values(), strict=True)}
        return cls(folder, stacks, isinstance(particles.document, CryosparcDocument))

    @property
    def tables(self) -> list[Path]:
        """STAR file, and cryoSPARC's if the input was one."""
        kinds = (".star", ".cs", ".csg") if self.from_cryosparc else (".star",)
        return [self.folder / (TABLE + kind) for kind in kinds]

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [*self.stacks, *self.tables, self.folder / SUMMARY]

    def require_free(self, particles: Particles, *, overwrite: bool) -> None:
        """Refuse to write over the input, or over anything that is not to be replaced.

        Raises:
            InputError: names the file.
        """
        for path in filter(Path.exists, self.files):
            inputs = [particles.source, *particles.stack_paths]
            if any(one.exists() and path.samefile(one) for one in inputs):
                raise InputError(f"{path}: is an input. Name another folder.")
            if not overwrite:
                raise InputError(
                    f"{path}: is there already. Name another folder, or --overwrite it."
                )


def write_subtracted(
    subtraction: Subtraction,
    scale: Scale,
    moved: Moved,
    layout: Layout,
    dtype: str = "float32",
    on_batch: Callable[[int], None] | None = None,
) -> dict:
    """Write stacks, then tables, then the summary; if anything fails none of them is left.

    Images are streamed: a batch is in memory, whatever the stack's size. They stand in the stacks
    in the order of the table, one optics group after another.

    Args:
        subtraction: the images.
        scale: of its map.
        moved: how new images lie to the present ones.
        layout: the files.
        dtype: of the stacks: float32 or float16.
        on_batch: called with the number of images done.

    Returns:
        The summary, which is also ``subtraction.json``.

    Raises:
        InputError: an image cannot be read, a value is too large for float16, the disk is full, or
            the folder cannot be written to.
    """
    particles = subtraction.particles
    with _all_or_none(layout.files):
        images = _write_stacks(subtraction, scale, moved, layout, dtype, on_batch)
        for path in layout.tables:
            if path.suffix == ".csg":
                write_particle_group(path, path.with_suffix(".cs"), "Subtracted particles")
                continue
            as_star = path.suffix == ".star"
            table = with_other_images(
                particles, images, moved, as_star=as_star, folder=layout.folder
            )
            if as_star:
                # Former images are found from here, too.
                roots = [*image_roots(table), *image_roots(particles)]
                write_star(table, path, list(dict.fromkeys(roots)))
            else:
                write_cs(table, path)
        content = _summary(subtraction, scale, moved)
        atomic_write_text(layout.folder / SUMMARY, json.dumps(content, indent=2) + "\n")
    return content


def _write_stacks(subtraction, scale, moved, layout, dtype, on_batch) -> NewImages:
    particles = subtraction.particles
    stack_index = np.zeros(len(particles), np.int64)
    image_index = np.zeros(len(particles), np.int64)
    for number, (path, groups) in enumerate(layout.stacks.items()):
        order = np.concatenate([np.flatnonzero(particles.optics_group == g) for g in groups])
        stack_index[order], image_index[order] = number, np.arange(len(order))

        def batches(path=path, groups=groups) -> Iterator[np.ndarray]:
            for group in groups:
                found = subtraction.images(group, scale.factors[group], on_batch)
                for rows, left in found:
                    if moved.windows_px is not None:
                        left = cut_images(left, moved.windows_px[rows], moved.box)
                    if dtype == "float16" and np.abs(left).max() > np.finfo(np.float16).max:
                        raise InputError(
                            f"{path}: values of the images are too large for float16. Write "
                            "--dtype float32."
                        )
                    yield left

        write_stack(path, batches(), particles.optics[groups[0]].pixel_size_angstrom, dtype)
    stacks = tuple(path.resolve() for path in layout.stacks)
    names = tuple(stack_name(path, particles) for path in stacks)
    return NewImages(stacks, names, stack_index, image_index)


@contextmanager
def _all_or_none(files: list[Path]) -> Iterator[None]:
    """What an unfinished subtraction has written is removed."""
    # An earlier one's table would point to images of this one.
    for path in files:
        path.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        raise


def _summary(subtraction: Subtraction, scale: Scale, moved: Moved) -> dict:
    particles, registers = subtraction.particles, subtraction.registers
    content: dict = {
        "input": str(particles.source),
        "n_particles": len(particles),
        "scale": asdict(scale),
        "optics_groups": [group.name for group in particles.optics],
        "share_of_power_outside": subtraction.share_outside,
        "registers": None,
        "centre_angstrom": None,
        "box": moved.box,
        "windows_beyond_their_image": None,
    }
    if registers is not None:
        content["registers"] = {
            "number": registers.posterior.shape[1],
            "mean_max_posterior": float(registers.posterior.max(axis=1).mean(dtype=np.float64)),
        }
    if moved.centre_angstrom is not None:
        content["centre_angstrom"] = moved.centre_angstrom.tolist()
    if moved.windows_px is not None and moved.box is not None:
        boxes = np.array([group.box for group in particles.optics])[particles.optics_group]
        beyond = reaches_beyond(boxes, moved.box, moved.windows_px)
        content["windows_beyond_their_image"] = int(beyond.sum())
    return content
