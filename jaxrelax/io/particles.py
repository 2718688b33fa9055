"""A table of particles: arrays for the numerical core, the original tables for the round trip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8, Int32, Int64

from jaxrelax.geometry import Aberrations
from jaxrelax.io.errors import InputError


@dataclass(frozen=True)
class OpticsGroup:
    """Images that share a microscope and a box: one row of RELION's ``data_optics``.

    ``box`` is in pixels; 0 means that neither the table nor any image on disk tells it.
    ``ctf_premultiplied``: the images were multiplied by their CTF; ``phase_flipped``: by its
    sign. The imaging model has to do the same to its projections. ``aberrations`` hold beam tilt,
    too.
    """

    name: str
    pixel_size_angstrom: float
    box: int
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    ctf_premultiplied: bool = False
    phase_flipped: bool = False
    aberrations: Aberrations = Aberrations()  # noqa: RUF009  (immutable)


@dataclass(frozen=True)
class Refusal:
    """Something in an input that changes the images and that jaxrelax does not model."""

    column: str
    reason: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.column}: {self.reason}. {self.way_out}"


class Document(ABC):
    """The tables as they were read, row by row with the particles."""

    @abstractmethod
    def select(self, rows: Int[np.ndarray, " rows"]) -> Document:
        """The same tables with only these rows, in this order."""

    @abstractmethod
    def column(self, name: str) -> np.ndarray | None:
        """One column as the file has it, one entry per particle; None where there is none."""

    @abstractmethod
    def noted_roots(self) -> list[str]:
        """Folders that image names are relative to, as jaxrelax noted when it wrote the file."""

    @abstractmethod
    def refusals(self) -> list[Refusal]:
        """What these tables ask for and the imaging model does not do."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Latents:
    """What a refinement changes, as it was read: tells the writer which rows are untouched."""

    rotations: Float64[np.ndarray, "particles 3 3"]
    origins_angstrom: Float64[np.ndarray, "particles 2"]
    half_set: Int8[np.ndarray, " particles"]
    class_number: Int32[np.ndarray, " particles"]

    def select(self, rows: Int[np.ndarray, " rows"]) -> Latents:
        """Only these rows, in this order."""
        return Latents(
            self.rotations[rows],
            self.origins_angstrom[rows],
            self.half_set[rows],
            self.class_number[rows],
        )


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Particles:
    """Particles of one STAR or ``.cs`` file.

    Attributes:
        source: the file.
        image_root: folder that image names are relative to, if the user gave one.
        rotations: ``A``, taking volume coordinates to image coordinates.
        origins_angstrom: RELION's origin (x, y); shifting the image by +origin centres the
            particle.
        defocus_u_angstrom, defocus_v_angstrom, defocus_angle_deg, phase_shift_deg,
        bfactor_angstrom2: CTF per particle, RELION's signs and units.
        ctf_scale: a factor of the whole CTF per particle; None where it is 1 for all.
        optics_group: 0-based index into ``optics``.
        optics: the optics groups that occur.
        half_set: 1 or 2; 0 where unset.
        class_number: 1-based; 0 where unset.
        stack_paths: image files; a file that was not found stands here under the first folder
            where it was looked for, and is an error once its images are needed.
        stack_index: index into ``stack_paths``.
        image_index: 0-based slice of the stack.
        image_names: what the table calls each stack, parallel to ``stack_paths``.
        image_sign: +1 or -1; images are multiplied by it when read, so that the particle is
            white (cryoSPARC's ``blob/sign``).
        micrograph: name of the micrograph, or None.
        has_poses: whether the file had poses; if not, rotations are the identity.
        document: the original tables.
        as_read: poses, origins, half-sets and classes as the document has them.
        extra_columns: new columns to write, one value per particle.
        source_rows: 0-based rows of the file where only some were selected, or None.
    """

    source: Path
    image_root: Path | None
    rotations: Float64[np.ndarray, "particles 3 3"]
    origins_angstrom: Float64[np.ndarray, "particles 2"]
    defocus_u_angstrom: Float64[np.ndarray, " particles"]
    defocus_v_angstrom: Float64[np.ndarray, " particles"]
    defocus_angle_deg: Float64[np.ndarray, " particles"]
    phase_shift_deg: Float64[np.ndarray, " particles"]
    bfactor_angstrom2: Float64[np.ndarray, " particles"]
    optics_group: Int32[np.ndarray, " particles"]
    optics: tuple[OpticsGroup, ...]
    half_set: Int8[np.ndarray, " particles"]
    class_number: Int32[np.ndarray, " particles"]
    stack_paths: tuple[Path, ...]
    stack_index: Int32[np.ndarray, " particles"]
    image_index: Int64[np.ndarray, " particles"]
    image_names: tuple[str, ...]
    image_sign: Int8[np.ndarray, " particles"]
    micrograph: np.ndarray | None
    has_poses: bool
    document: Document = field(repr=False)
    as_read: Latents = field(repr=False)
    ctf_scale: Float64[np.ndarray, " particles"] | None = None
    extra_columns: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    source_rows: Int64[np.ndarray, " particles"] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.rotations.shape[0]

    def rows_of_file(self) -> Int64[np.ndarray, " particles"]:
        """0-based row of each particle in the file that it was read from."""
        return np.arange(len(self)) if self.source_rows is None else self.source_rows

    def some_rows(self, mask: Bool[np.ndarray, " particles"]) -> str:
        """Which particles these are, as rows of the file: see `some_rows`."""
        return _numbered_rows(self.rows_of_file()[mask] + 1)

    @property
    def magnifications(self) -> Float64[np.ndarray, "particles 2 2"] | None:
        """M of every image; None where all are magnified alike in all directions."""
        if not any(group.aberrations.is_stretched for group in self.optics):
            return None
        return np.stack([g.aberrations.matrix for g in self.optics])[self.optics_group]

    def column(self, name: str) -> np.ndarray | None:
        """A column of the file by its own name (``rlnHelicalTubeID``, ``blob/idx``), or None."""
        return self.document.column(name)

    def select(self, rows) -> Particles:
        """Only these particles, in this order.

        Args:
            rows: indices, or a boolean mask over all particles.
        """
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise ValueError(f"the mask has shape {rows.shape} for {len(self)} particles")
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        names = [
            *("rotations", "origins_angstrom", "half_set", "class_number", "defocus_u_angstrom"),
            *("defocus_v_angstrom", "defocus_angle_deg", "phase_shift_deg", "bfactor_angstrom2"),
            *("optics_group", "stack_index", "image_index", "image_sign"),
        ]
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in names},
            micrograph=None if self.micrograph is None else self.micrograph[rows],
            ctf_scale=None if self.ctf_scale is None else self.ctf_scale[rows],
            document=self.document.select(rows),
            as_read=self.as_read.select(rows),
            extra_columns={name: values[rows] for name, values in self.extra_columns.items()},
            source_rows=self.rows_of_file()[rows],
        )

    def with_updates(
        self,
        rotations: np.ndarray | None = None,
        origins_angstrom: np.ndarray | None = None,
        half_set: np.ndarray | None = None,
        class_number: np.ndarray | None = None,
        extra_columns: Mapping[str, np.ndarray] | None = None,
    ) -> Particles:
        """The same particles with new poses, origins, half-sets, classes or extra columns.

        Arrays of any float or integer type are taken, with the shapes of the attributes. Extra
        columns are one-dimensional, of numbers or text; they are added to earlier ones.

        Raises:
            ValueError: an array has another shape than (particles, ...), or is not finite.
        """
        n = len(self)
        changes: dict = {}
        for name, value, shape, dtype in (
            ("rotations", rotations, (n, 3, 3), np.float64),
            ("origins_angstrom", origins_angstrom, (n, 2), np.float64),
            ("half_set", half_set, (n,), np.int8),
            ("class_number", class_number, (n,), np.int32),
        ):
            if value is None:
                continue
            value = np.asarray(value)
            if value.shape != shape:
                raise ValueError(f"{name} has shape {value.shape}, not {shape}")
            if not np.all(np.isfinite(value)):
                raise ValueError(f"{name} is not finite")
            changes[name] = value.astype(dtype)
        if rotations is not None:
            changes["has_poses"] = True
        if extra_columns is not None:
            new = {name: np.asarray(values) for name, values in extra_columns.items()}
            for name, values in new.items():
                if values.shape != (n,):
                    raise ValueError(f"column {name} has shape {values.shape}, not {(n,)}")
            changes["extra_columns"] = {**self.extra_columns, **new}
        return replace(self, **changes)

    def changed_rows(self) -> dict[str, Bool[np.ndarray, " particles"]]:
        """Which rows differ from the file, for each of the fields a refinement updates."""
        before = self.as_read
        return {
            "rotations": np.any(self.rotations != before.rotations, axis=(1, 2)),
            "origins_angstrom": np.any(self.origins_angstrom != before.origins_angstrom, axis=1),
            "half_set": self.half_set != before.half_set,
            "class_number": self.class_number != before.class_number,
        }


def group_optics(
    names: list[str],
    first_key: Int[np.ndarray, " particles"],
    values: Mapping[str, Float[np.ndarray, " particles"]],
    aberrations: tuple[Int[np.ndarray, " particles"], tuple[Aberrations, ...]],
) -> tuple[Int32[np.ndarray, " particles"], tuple[OpticsGroup, ...]]:
    """Number the distinct settings that occur among the particles.

    Args:
        names: name for each value of ``first_key``.
        first_key: the group as the file numbers it, 0-based.
        values: the other fields of `OpticsGroup`, one value per particle.
        aberrations: which of the distinct ones every particle has, and these.

    Returns:
        The 0-based group of each particle, and the groups. A group of the file whose particles
        disagree about, say, the voltage becomes several, with a number after the name.
    """
    values = {**values, "aberrations": aberrations[0].astype(np.float64)}
    keys = np.column_stack([first_key.astype(np.float64), *values.values()])
    unique, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((first, unique[:, 0]))  # as the file numbers them, then as they appear
    unique, rank = unique[order], np.argsort(order)
    groups: list[OpticsGroup] = []
    used: dict[str, int] = {}
    for row in unique:
        name = names[int(row[0])]
        used[name] = used.get(name, 0) + 1
        fields: dict = dict(zip(values, (float(x) for x in row[1:]), strict=True))
        fields["box"] = int(fields["box"])
        fields["ctf_premultiplied"] = bool(fields["ctf_premultiplied"])
        fields["phase_flipped"] = bool(fields["phase_flipped"])
        fields["aberrations"] = aberrations[1][int(fields["aberrations"])]
        groups.append(OpticsGroup(name if used[name] == 1 else f"{name}-{used[name]}", **fields))
    return rank[inverse.reshape(-1)].astype(np.int32), tuple(groups)


def positive_scale(
    path: Path, values: Float64[np.ndarray, " particles"] | None, name: str
) -> Float64[np.ndarray, " particles"] | None:
    """The factors of the CTFs, or None where they are all 1.

    Raises:
        InputError: one is not positive; with its row.
    """
    if values is None or np.all(values == 1.0):
        return None
    bad = np.asarray(~(values > 0))
    if bad.any():
        raise InputError(
            f"{path}, {some_rows(bad)}: {name} is {values[bad][0]:g}; a scale of the CTF is "
            "positive. Correct or remove these rows."
        )
    return values


def unique_names(names: list[str]) -> tuple[Int32[np.ndarray, " particles"], tuple[str, ...]]:
    """Number the distinct names in order of first appearance."""
    numbers: dict[str, int] = {}
    index = np.fromiter(
        (numbers.setdefault(name, len(numbers)) for name in names), np.int32, len(names)
    )
    return index, tuple(numbers)


def named_images(
    image_index: Int[np.ndarray, " particles"],
    stack_index: Int[np.ndarray, " particles"],
    stacks: Sequence[str],
) -> list[str]:
    """``000001@stack.mrcs``, as STAR files name images; indices are from 0."""
    pairs = zip(image_index, stack_index, strict=True)
    return [f"{image + 1:06d}@{stacks[stack]}" for image, stack in pairs]


def image_names(particles: Particles) -> list[str]:
    """The images of a table, as STAR files name them."""
    return named_images(particles.image_index, particles.stack_index, particles.image_names)


def some_rows(mask: Bool[np.ndarray, " particles"]) -> str:
    """'row 3', or 'rows 1, 2, 3, 4, 5 and 12 more': 1-based, for a message."""
    return _numbered_rows(np.flatnonzero(mask) + 1)


def _numbered_rows(rows: Int64[np.ndarray, " rows"]) -> str:
    shown = ", ".join(str(row) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


def require_columns(path: Path, what: str, missing: list[str], way_out: str) -> None:
    """Raise one `InputError` that names all the missing columns, if there are any."""
    if missing:
        noun = "column" if len(missing) == 1 else "columns"
        raise InputError(f"{path}: no {noun} {', '.join(missing)} ({what}). {way_out}")
