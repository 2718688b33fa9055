"""`inspect_file`: what a file holds, and what a refinement would refuse about it.

What is refused is asked of the readers that a refinement uses, and not judged here again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jaxrelax.io.copies import describe_units
from jaxrelax.io.cryosparc import POSE, SHIFT, CryosparcDocument
from jaxrelax.io.errors import InputError
from jaxrelax.io.images import ImageReader, require_images
from jaxrelax.io.mrc import read_mask, read_reference
from jaxrelax.io.mrc_header import read_header
from jaxrelax.io.particles import Particles
from jaxrelax.io.reading import check_supported, load_particles, read_particles
from jaxrelax.io.relion_tables import ANGLES, StarDocument
from jaxrelax.io.star import read_star
from jaxrelax.io.writing import IMAGE_SIGN

logger = logging.getLogger("jaxrelax")

STACK_SUFFIXES = (".mrcs", ".st")
MAP_SUFFIXES = (".mrc", ".map", ".mrcs", ".st", ".ccp4")


@dataclass(frozen=True)
class Inspection:
    """What `inspect_file` found.

    Attributes:
        path: the file.
        kind: what it is, in words.
        rows: (label, value) pairs, in order.
        refusals: what a refinement would stop at; empty if it would go.
        warnings: what it would go on with, but the user should know.
    """

    path: Path
    kind: str
    rows: tuple[tuple[str, str], ...]
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class _Notes:
    rows: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, label: str, value: object) -> None:
        self.rows.append((label, str(value)))

    def refuse_if_raises(self, check: Callable[[], object]) -> None:
        try:
            check()
        except InputError as error:
            if str(error) not in self.refusals:
                self.refusals.append(str(error))

    def inspection(self, path: Path, kind: str) -> Inspection:
        rows, refusals, warnings = tuple(self.rows), tuple(self.refusals), tuple(self.warnings)
        return Inspection(path, kind, rows, refusals, warnings)


def inspect_file(
    path: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    *,
    passthrough: Iterable[str | os.PathLike] = (),
    take: Callable[[Path], object] | None = None,
) -> Inspection:
    """Look at a STAR file, ``.cs`` file, map or stack.

    Args:
        path: the file.
        image_root, passthrough: as for `read_particles`.
        take: takes a table as a refinement does, and raises what that would; what it logs as
            warnings is told. By default the table is read and the headers of its stacks, but no
            image.

    Raises:
        InputError: there is no such file, or it is of no known kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    passthrough = tuple(passthrough)
    if path.suffix in (".star", ".cs"):

        def load(**options) -> Particles:
            return load_particles(path, image_root, passthrough=passthrough, **options)

        def take_headers(path: Path) -> None:
            ImageReader(read_particles(path, image_root, passthrough=passthrough)).validate()

        with _heard() as heard:
            found = _inspect_table(path, load, take_headers if take is None else take)
        return replace(found, warnings=tuple(dict.fromkeys([*found.warnings, *heard])))
    if path.suffix in MAP_SUFFIXES:
        return _inspect_mrc(path)
    raise InputError(
        f"{path}: not a .star, .cs or MRC file ({', '.join(MAP_SUFFIXES)}), by its name."
    )


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Warnings that are logged meanwhile, kept instead of shown."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


def format_inspection(inspection: Inspection) -> str:
    """A plain-text table."""
    width = max([len(label) for label, _ in inspection.rows], default=0)
    lines = [f"{inspection.path}: {inspection.kind}"]
    lines += [f"  {label.ljust(width)}  {value}" for label, value in inspection.rows]
    lines += [f"  warning: {text}" for text in inspection.warnings]
    if inspection.refusals:
        lines.append("  A refinement would refuse this file:")
        lines += [f"    - {text}" for text in inspection.refusals]
    else:
        lines.append("  Nothing here that a refinement would refuse.")
    return "\n".join(lines)


def _inspect_table(
    path: Path, load: Callable[..., Particles], take: Callable[[Path], object]
) -> Inspection:
    notes = _Notes()
    try:
        blocks = read_star(path) if path.suffix == ".star" else ()
        if blocks and not any("rlnImageName" in table for table in blocks):
            for table in blocks:
                shape = f"{len(table)} rows, {len(table.labels)} columns"
                notes.add(f"block data_{table.name}", shape)
            notes.refuse_if_raises(lambda: take(path))
            return notes.inspection(path, "STAR file without particles")
        particles = load(require_poses=False, require_ctf=False)
    except InputError as error:
        notes.refusals.append(str(error))
        return notes.inspection(path, "a table that cannot be read")
    _describe(particles, notes)
    taken = _Notes()
    taken.refuse_if_raises(lambda: take(path))
    if taken.refusals:
        _list_refusals(particles, load, notes)
        notes.refusals = notes.refusals or taken.refusals
    return notes.inspection(path, _table_kind(particles))


def _describe(particles: Particles, notes: _Notes) -> None:
    notes.add("particles", len(particles))
    _describe_optics(particles, notes)
    notes.add("defocus", _range(particles.defocus_u_angstrom / 1e4, "µm"))
    if np.any(particles.phase_shift_deg):
        notes.add("phase shift", _range(particles.phase_shift_deg, "°"))
    notes.add("poses", _poses(particles))
    notes.add("half-sets", _counts(particles.half_set))
    notes.add("classes", _counts(particles.class_number))
    if particles.micrograph is not None:
        notes.add("micrographs", len(set(particles.micrograph)))

    def describe_shared() -> None:
        for label, value in describe_units(particles):
            notes.add(label, value)

    notes.refuse_if_raises(describe_shared)
    _describe_aberrations(particles, notes)
    used = np.unique(particles.stack_index)
    present = sum(os.path.isfile(particles.stack_paths[stack]) for stack in used)
    notes.add("image files", f"{present} of {len(used)} found")
    dark = int(np.sum(particles.image_sign < 0))
    if dark:
        column = "blob/sign" if isinstance(particles.document, CryosparcDocument) else IMAGE_SIGN
        which = "all" if dark == len(particles) else f"{dark} of {len(particles)}"
        notes.add("contrast", f"{which} dark on light ({column} -1); inverted when read")


def _list_refusals(particles: Particles, load: Callable[..., Particles], notes: _Notes) -> None:
    """All the faults of a table that is refused; who takes it stops at the first."""
    notes.refuse_if_raises(load)
    notes.refusals += [str(refusal) for refusal in check_supported(particles)]
    reader = ImageReader(particles)
    notes.refuse_if_raises(reader.validate)
    for stack in np.unique(particles.stack_index):
        if os.path.isfile(particles.stack_paths[stack]):
            notes.refuse_if_raises(lambda stack=stack: reader.header(int(stack)))


def _table_kind(particles: Particles) -> str:
    document = particles.document
    if isinstance(document, CryosparcDocument):
        return "cryoSPARC particles"
    assert isinstance(document, StarDocument)
    if document.optics is None:
        return "RELION particles (3.0 or older: no optics table)"
    return "RELION particles (3.1 or newer)"


def _describe_optics(particles: Particles, notes: _Notes) -> None:
    members = np.bincount(particles.optics_group, minlength=len(particles.optics))
    for group, count in zip(particles.optics, members, strict=True):
        box = f"{group.box} px" if group.box else "unknown"
        flags = ", CTF-premultiplied" * group.ctf_premultiplied
        flags += ", phase-flipped" * group.phase_flipped
        notes.add(
            f"optics group {group.name}",
            f"{count} particles, box {box}, {group.pixel_size_angstrom:.5g} Å/px, "
            f"{group.voltage_kv:g} kV, Cs {group.spherical_aberration_mm:g} mm, "
            f"amplitude contrast {group.amplitude_contrast:g}{flags}",
        )


def _describe_aberrations(particles: Particles, notes: _Notes) -> None:
    """What is applied beyond the CTF of RELION 3.0, as the largest phases that an image has."""
    if not any(group.aberrations for group in particles.optics):
        notes.add("aberrations", "none")
    for group in particles.optics:
        aberrations = group.aberrations
        if not aberrations:
            continue
        angle = np.linspace(0.0, 2.0 * np.pi, 73)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        nyquist = 0.5 / group.pixel_size_angstrom
        phases = [
            f"{kind} phase up to {np.abs(phase(nyquist * circle)).max():.3g} rad"
            for kind, terms, phase in (
                ("antisymmetric", aberrations.odd, aberrations.odd_phase),
                ("symmetric", aberrations.even, aberrations.even_phase),
            )
            if terms
        ]
        parts = [", ".join(phases) + f" at {1.0 / nyquist:.3g} Å"] if phases else []
        if aberrations.is_stretched:
            largest, smallest = aberrations.stretches
            parts.append(f"magnification anisotropic by {100.0 * (largest / smallest - 1.0):.2g} %")
        notes.add(f"aberrations of {group.name}", "; ".join(parts))
    if particles.ctf_scale is not None:
        notes.add("CTF scale", _range(particles.ctf_scale, "").strip())


def _poses(particles: Particles) -> str:
    if particles.has_poses:
        shift = np.hypot(*particles.origins_angstrom.T)
        return f"yes; shifts up to {shift.max():.3g} Å"
    needed = (POSE, SHIFT) if isinstance(particles.document, CryosparcDocument) else ANGLES
    missing = [label for label in needed if particles.column(label) is None]
    return f"no ({', '.join(missing)} missing)" if missing else "some unset (psi -999)"


def _inspect_mrc(path: Path) -> Inspection:
    notes = _Notes()
    try:
        header = read_header(path)
    except InputError as error:
        notes.refusals.append(str(error))
        return notes.inspection(path, "no MRC file")
    nz, ny, nx = header.shape
    if header.is_stack():
        notes.add("images", nz)
    notes.add("size", f"{nx} x {ny} x {nz}")
    notes.add("mode", header.dtype.name)
    known = header.pixel_size_angstrom > 0
    notes.add("pixel size", f"{header.pixel_size_angstrom:.5g} Å" if known else "not in the header")
    whole = header.file_bytes >= header.expected_bytes
    notes.add("file", "whole" if whole else "truncated")
    if header.is_stack():
        notes.refuse_if_raises(lambda: require_images(header))
        if path.suffix not in STACK_SUFFIXES:  # its name does not say what it is meant for
            notes.warnings.append(
                f"as a map a refinement would refuse it: {nx} x {ny} x {nz} voxels is not a cube"
            )
        return notes.inspection(path, "image stack")
    notes.refuse_if_raises(lambda: read_reference(path))
    if not notes.refusals:
        values, _ = read_reference(path)
        notes.add("values", _range(values, ""))
        _describe_as_mask(path, values, notes)
    return notes.inspection(path, "map")


def _describe_as_mask(path: Path, values: np.ndarray, notes: _Notes) -> None:
    """Whether a map would do as a mask, where it may be meant for one: nothing below 0."""
    if values.min() < 0:
        return
    try:
        read_mask(path)
    except InputError as error:
        notes.add("as a mask", "no")
        notes.warnings.append(f"as a mask a refinement would refuse it: {error}")
    else:
        notes.add("as a mask", "yes")


def _range(values: np.ndarray, unit: str) -> str:
    return f"{values.min():.3g} to {values.max():.3g} {unit}".rstrip()


def _counts(values: np.ndarray) -> str:
    numbers, counts = np.unique(values, return_counts=True)
    if list(numbers) == [0]:
        return "none"
    pairs = zip(numbers, counts, strict=True)
    return ", ".join(f"{number or 'unset'}: {count}" for number, count in pairs)
