"""`inspect_file`: what a file holds, and what a refinement would refuse about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxrelax.io.copies import describe_units
from jaxrelax.io.cryosparc import POSE, SHIFT, CryosparcDocument
from jaxrelax.io.errors import InputError, MissingImagesError
from jaxrelax.io.images import PIXEL_SIZE_TOLERANCE, ImageReader
from jaxrelax.io.mrc_header import MrcHeader, read_header
from jaxrelax.io.particles import Particles
from jaxrelax.io.reading import check_supported, load_particles
from jaxrelax.io.relion_tables import ANGLES, StarDocument
from jaxrelax.io.star import read_star

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
    path: str | os.PathLike, image_root: str | os.PathLike | None = None
) -> Inspection:
    """Look at a STAR file, ``.cs`` file, map or stack, without reading any image.

    Raises:
        InputError: there is no such file, or it is of no known kind, or cannot be parsed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.suffix in (".star", ".cs"):
        return _inspect_table(path, image_root)
    if path.suffix in MAP_SUFFIXES:
        return _inspect_mrc(path)
    raise InputError(
        f"{path}: not a .star, .cs or MRC file ({', '.join(MAP_SUFFIXES)}), by its name."
    )


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


def _inspect_table(path: Path, image_root: str | os.PathLike | None) -> Inspection:
    notes = _Notes()
    if path.suffix == ".star" and not any("rlnImageName" in t for t in read_star(path)):
        for table in read_star(path):
            shape = f"{len(table)} rows, {len(table.labels)} columns"
            notes.add(f"block data_{table.name}", shape)
        notes.refusals.append("no column rlnImageName, so no particles")
        return notes.inspection(path, "STAR file without particles")
    particles = load_particles(path, image_root, require_poses=False, require_ctf=False)
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
    for label, value in describe_units(particles):
        notes.add(label, value)
    _describe_aberrations(particles, notes)
    _describe_images(particles, notes)
    notes.refuse_if_raises(lambda: load_particles(path, image_root))
    notes.refusals += [str(r) for r in check_supported(particles) if str(r) not in notes.refusals]
    return notes.inspection(path, _table_kind(particles))


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


def _describe_images(particles: Particles, notes: _Notes) -> None:
    used = np.unique(particles.stack_index)
    present = [int(stack) for stack in used if particles.stack_paths[stack].is_file()]
    notes.add("image files", f"{len(present)} of {len(used)} found")
    if np.any(particles.image_sign < 0):
        notes.add("contrast", "dark on light (blob/sign -1); inverted when read")
    reader = ImageReader(particles)
    if len(present) == len(used):
        notes.refuse_if_raises(reader.validate)
    else:
        try:
            reader.validate()
        except MissingImagesError as error:
            notes.refusals.append(str(error))
        for stack in present:
            notes.refuse_if_raises(lambda stack=stack: reader.header(stack))
    for stack in present:
        try:
            found = reader.header(stack).pixel_size_angstrom
        except InputError:
            continue  # already among the refusals
        groups = np.unique(particles.optics_group[particles.stack_index == stack])
        said = particles.optics[int(groups[0])].pixel_size_angstrom
        if found > 0 and abs(found - said) > PIXEL_SIZE_TOLERANCE * said:
            notes.warnings.append(
                f"{particles.stack_paths[stack]}: header says {found:.5g} Å/px, the table "
                f"{said:.5g}; the table is used"
            )


def _inspect_mrc(path: Path) -> Inspection:
    notes = _Notes()
    header = read_header(path)
    nz, ny, nx = header.shape
    is_map = nz == ny == nx or (nz > 1 and path.suffix not in (".mrcs", ".st") and header.is_volume)
    notes.add("size", f"{nx} x {ny} x {nz}")
    notes.add("mode", header.dtype.name)
    known = header.pixel_size_angstrom > 0
    notes.add("pixel size", f"{header.pixel_size_angstrom:.5g} Å" if known else "not in the header")
    whole = header.file_bytes >= header.expected_bytes
    notes.add("file", "whole" if whole else "truncated")
    notes.refuse_if_raises(header.require_whole)
    if is_map:
        _check_map(header, notes)
        return notes.inspection(path, "map")
    notes.rows.insert(0, ("images", str(nz)))
    if ny != nx:
        notes.refusals.append(f"images of {nx} x {ny} pixels are not square")
    elif nx % 2:
        notes.refusals.append(f"the box of {nx} pixels is odd")
    return notes.inspection(path, "image stack")


def _check_map(header: MrcHeader, notes: _Notes) -> None:
    nz, ny, nx = header.shape
    if not nz == ny == nx:
        notes.refusals.append(f"{nx} x {ny} x {nz} voxels is not a cube")
    elif nx % 2:
        notes.refusals.append(f"the box of {nx} voxels is odd")
    if header.pixel_size_angstrom <= 0:
        notes.refusals.append("no pixel size in the header")
    if header.axes != (1, 2, 3):
        notes.refusals.append(f"axes in the order {header.axes}, not x, y, z")


def _range(values: np.ndarray, unit: str) -> str:
    return f"{values.min():.3g} to {values.max():.3g} {unit}"


def _counts(values: np.ndarray) -> str:
    numbers, counts = np.unique(values, return_counts=True)
    if list(numbers) == [0]:
        return "none"
    pairs = zip(numbers, counts, strict=True)
    return ", ".join(f"{number or 'unset'}: {count}" for number, count in pairs)
