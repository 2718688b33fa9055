"""How new images of a table lie to the former ones: another centre, windows, other defoci.

A table says so in columns of its own, as changes, so that it can be taken back after poses were
refined further.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

from jaxrelax.geometry import heights_angstrom, recentred_origins
from jaxrelax.io.cryosparc import CryosparcDocument
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import Particles
from jaxrelax.io.relion_tables import StarDocument
from jaxrelax.io.units import WINDOW, written_column
from jaxrelax.io.writing import fixed

HeightSign = Literal["minus", "plus", "none"]
CENTRE = ("jrxCentreX", "jrxCentreY", "jrxCentreZ")  # Å, of the new box in the former one
DEFOCUS_CHANGE = "jrxDefocusChange"  # Å
COLUMNS = (*CENTRE, *WINDOW, DEFOCUS_CHANGE)
_DEFOCI = {"rlnDefocusU": "defocus_u_angstrom", "rlnDefocusV": "defocus_v_angstrom"}
_CS_DEFOCI = {"ctf/df1_A": "defocus_u_angstrom", "ctf/df2_A": "defocus_v_angstrom"}


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Moved:
    """How the new images lie to the former ones.

    Attributes:
        centre_angstrom: the point of the former map that is at the centre of the new box; None
            where the centre stays.
        defocus_change_angstrom: added to both defoci; None where they stay.
        windows_px: offsets of new images in the former ones; None where these are whole.
        box: of the new images; None where it stays.
    """

    centre_angstrom: Float64[np.ndarray, "3"] | None = None
    defocus_change_angstrom: Float64[np.ndarray, " n"] | None = None
    windows_px: Int64[np.ndarray, "n 2"] | None = None
    box: int | None = None

    @classmethod
    def to(
        cls,
        particles: Particles,
        centre_angstrom: Float64[np.ndarray, "3"] | None,
        *,
        defocus_by_height: HeightSign,
        box: int | None,
    ) -> Moved:
        """The centre to a point (x, y, z), and windows of a box about the particles there.

        Args:
            particles: with poses.
            centre_angstrom: Å from the centre of the box; None leaves it.
            defocus_by_height: with a new centre, whether defoci become those at its height.
            box: None leaves the images whole.

        Raises:
            InputError: the defocus is to be changed of images that have it already.
        """
        change = windows = None
        if centre_angstrom is not None:
            # As the table will have it, so that the way back is the same.
            centre_angstrom = np.round(np.asarray(centre_angstrom, np.float64), 4)
            sign = height_sign(particles, defocus_by_height)
            if sign:
                change = np.round(sign * heights_angstrom(particles.rotations, centre_angstrom), 3)
        moved = cls(centre_angstrom, change, None, box)
        if box is not None:
            origins = moved._recentred(particles, 1.0) / _pixel_sizes(particles)[:, None]
            windows = np.rint(-origins).astype(np.int64)
        return replace(moved, windows_px=windows)

    def apply(self, particles: Particles) -> Particles:
        """Particles with origins, defoci and boxes of the new images."""
        if self.centre_angstrom is not None:
            particles = particles.with_updates(origins_angstrom=self._recentred(particles, 1.0))
        if self.windows_px is not None:
            particles = particles.with_updates(
                origins_angstrom=particles.origins_angstrom + self._shifts(particles)
            )
        if self.defocus_change_angstrom is not None:
            particles = with_defoci(particles, self.defocus_change_angstrom)
        if self.box is None:
            return particles
        optics = tuple(replace(group, box=self.box) for group in particles.optics)
        return replace(particles, optics=optics)

    def undo(self, particles: Particles) -> Particles:
        """Particles with origins and defoci of the former images, at the poses that they have."""
        if self.windows_px is not None:
            particles = particles.with_updates(
                origins_angstrom=particles.origins_angstrom - self._shifts(particles)
            )
        if self.centre_angstrom is not None:
            particles = particles.with_updates(origins_angstrom=self._recentred(particles, -1.0))
        if self.defocus_change_angstrom is not None:
            particles = with_defoci(particles, -self.defocus_change_angstrom)
        return particles

    def columns(self, n: int) -> dict[str, np.ndarray]:
        """What tells a table of the change."""
        found: dict[str, np.ndarray] = {}
        if self.centre_angstrom is not None:
            for label, value in zip(CENTRE, self.centre_angstrom, strict=True):
                found[label] = np.full(n, value)
        if self.defocus_change_angstrom is not None:
            found[DEFOCUS_CHANGE] = self.defocus_change_angstrom
        if self.windows_px is not None:
            found |= dict(zip(WINDOW, self.windows_px.T, strict=True))
        return found

    @classmethod
    def read(cls, particles: Particles) -> Moved:
        """What the columns of a table say.

        Raises:
            InputError: only some of them are there, or they hold no numbers.
        """
        centre = _numbers(particles, CENTRE)
        if centre is not None and np.ptp(centre, axis=0).any():
            raise InputError(
                f"{particles.source}: {', '.join(CENTRE)} differ between rows: tables of several "
                "subtractions were joined. Revert each by itself."
            )
        change = _numbers(particles, (DEFOCUS_CHANGE,))
        windows = _numbers(particles, WINDOW)
        return cls(
            None if centre is None else centre[0],
            None if change is None else change[:, 0],
            None if windows is None else np.rint(windows).astype(np.int64),
        )

    def _shifts(self, particles: Particles) -> Float64[np.ndarray, "n 2"]:
        assert self.windows_px is not None
        return self.windows_px * _pixel_sizes(particles)[:, None]

    def _recentred(self, particles: Particles, sign: float) -> Float64[np.ndarray, "n 2"]:
        if self.centre_angstrom is None:
            return particles.origins_angstrom
        return recentred_origins(
            particles.origins_angstrom, particles.rotations, sign * self.centre_angstrom,
            particles.magnifications,
        )  # fmt: skip


def require_unmoved(particles: Particles) -> None:
    """Refuse images that were moved before: the way back from new ones would be that of both.

    Raises:
        InputError: names the column.
    """
    for label in COLUMNS:
        if written_column(particles, label) is not None:
            raise InputError(
                f"{particles.source}: has {label}: its images are windows, or their centre was "
                "moved. Subtract from the images that they were made of (jaxrelax subtract "
                "--revert finds them), and cut and move afterwards."
            )


def height_sign(particles: Particles, defocus_by_height: HeightSign) -> float:
    """What a height is multiplied by to become a change of the defocus.

    Raises:
        InputError: the defocus is to be changed of images that were multiplied by their CTF or its
            sign.
        ValueError: no such sign.
    """
    if defocus_by_height not in get_args(HeightSign):
        raise ValueError(f"defocus_by_height is minus, plus or none, not {defocus_by_height!r}")
    if defocus_by_height == "none":
        return 0.0
    for group in particles.optics:
        if group.ctf_premultiplied or group.phase_flipped:
            how = "their CTF" if group.ctf_premultiplied else "the sign of their CTF"
            raise InputError(
                f"{particles.source}: the images of optics group '{group.name}' were multiplied by "
                f"{how}, with the defocus of the whole particle. Keep that with "
                "--defocus-by-height none, or give the images from before."
            )
    return -1.0 if defocus_by_height == "minus" else 1.0


def with_defoci(particles: Particles, change: Float64[np.ndarray, " n"]) -> Particles:
    """Particles whose defoci, U and V, are changed by so many Å, in their tables, too."""
    values = {name: getattr(particles, name) + change for name in _DEFOCI.values()}
    document = particles.document
    if isinstance(document, StarDocument):
        text = {label: fixed(values[name]) for label, name in _DEFOCI.items()}
        document = document.with_particles(document.particles.with_columns(text))
    elif isinstance(document, CryosparcDocument):
        records = document.records.copy()
        for label, name in _CS_DEFOCI.items():
            records[label] = values[name]
        document = CryosparcDocument(records)
    return replace(particles, document=document, **values)


def _numbers(particles: Particles, labels: tuple[str, ...]) -> Float64[np.ndarray, "n k"] | None:
    columns = [written_column(particles, label) for label in labels]
    if all(column is None for column in columns):
        return None
    missing = [label for label, column in zip(labels, columns, strict=True) if column is None]
    if missing:
        raise InputError(
            f"{particles.source}: no column {', '.join(missing)}, although there are others of "
            f"{', '.join(labels)}. Give the table with all of them."
        )
    try:
        return np.stack([np.asarray(column).astype(np.float64) for column in columns], axis=1)  # type: ignore[union-attr]
    except ValueError as error:
        raise InputError(
            f"{particles.source}: {', '.join(labels)}: not a number ({error})."
        ) from None


def _pixel_sizes(particles: Particles) -> Float64[np.ndarray, " n"]:
    return np.array([g.pixel_size_angstrom for g in particles.optics])[particles.optics_group]
