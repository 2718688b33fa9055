"""``registers.npz``: the posterior over registers beside the table it was written with."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import Particles
from jaxrelax.io.selection import REGISTER, REGISTER_PROBABILITY
from jaxrelax.io.writing import cryosparc_field

REGISTERS = "registers.npz"
SHIFTS = "operator_shifts_angstrom"
_NO_SHIFT_ANGSTROM = 1e-3
# A register whose probability is nearer than this to the largest may be the one that was written.
_TIE = 1e-3


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class RegisterPosterior:
    """Where the images of a table may be.

    Attributes:
        posterior: probability of every register.
        operators: r_j; register j of the pose A without register is A r_jᵀ.
        best: the register that the poses of the table are in.
    """

    posterior: Float[np.ndarray, "n registers"]
    operators: Float64[np.ndarray, "registers 3 3"]
    best: Int[np.ndarray, " n"]

    def select(self, rows: Int[np.ndarray, " some"]) -> RegisterPosterior:
        """That of some rows of the table."""
        return RegisterPosterior(self.posterior[rows], self.operators, self.best[rows])

    def poses(
        self, rotations: Float[np.ndarray, "n 3 3"]
    ) -> Float64[np.ndarray, "n registers 3 3"]:
        """The poses of a table in all registers: A r_bᵀ, which it has, times r_b r_jᵀ."""
        bare = rotations @ self.operators[self.best]
        return bare[:, None] @ self.operators.transpose(0, 2, 1)[None]


def has_registers(particles: Particles) -> bool:
    """Whether a table says that a relaxed run wrote it."""
    return _column(particles, REGISTER_PROBABILITY) is not None


def read_registers(path: str | os.PathLike, particles: Particles) -> RegisterPosterior:
    """The posterior over registers of a table that a relaxed run wrote.

    Args:
        path: ``registers.npz``.
        particles: the whole table, in the order in which it was written.

    Raises:
        InputError: no such file, or another one; it is of another table; or it is over the
            registers of several states, which are seen in different maps.
    """
    path = Path(path)
    posterior, operators = _arrays(path)
    table = particles.source
    if len(posterior) != len(particles):
        raise InputError(
            f"{path}: of {len(posterior)} particles, and {table} has {len(particles)}. Give the "
            "table that was written with it, or subtract at the poses of the table "
            "(--table-poses)."
        )
    best = posterior.argmax(axis=1)
    column = _column(particles, REGISTER)
    if column is not None:
        said = np.asarray(column).astype(np.float64).astype(np.int64) - 1
        known = (said >= 0) & (said < len(operators))
        theirs = posterior[np.arange(len(best)), np.where(known, said, 0)]
        foreign = ~known | (theirs < posterior.max(axis=1) - _TIE)
        if foreign.any():
            raise InputError(
                f"{path}: {particles.some_rows(foreign)} of {table} are in another register than "
                "the most probable one there, so it is not of this table. Give the file that was "
                "written with it, or subtract at the poses of the table (--table-poses)."
            )
        best = said
    return RegisterPosterior(posterior, operators, best)


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = set(stored.files)
            if not {"posterior", "operators"} <= names:
                raise ValueError("it has no arrays posterior and operators")
            posterior, operators = stored["posterior"], stored["operators"].astype(np.float64)
            moving = SHIFTS in names and bool(np.any(np.abs(stored[SHIFTS]) > _NO_SHIFT_ANGSTROM))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not the {REGISTERS} of a relaxed run ({error}). Give that of its output "
            "folder."
        ) from error
    if "state" in names:
        raise InputError(
            f"{path}: these are the registers of several states, and what lies outside of a mask "
            "is another map in each. Subtract from the particles of one state "
            "(particles_class01.star) at the poses of the table (--table-poses)."
        )
    if moving:
        raise InputError(
            f"{path}: these are registers about an axis that does not go through the centre of the "
            "box, and mates are elsewhere in their images. Subtract at the poses of the table "
            "(--table-poses)."
        )
    if posterior.ndim != 2 or operators.shape != (posterior.shape[1], 3, 3):
        raise InputError(
            f"{path}: a posterior of shape {posterior.shape} does not belong to operators of shape "
            f"{operators.shape}. Give the file as the run wrote it."
        )
    return posterior, operators


def _column(particles: Particles, label: str) -> np.ndarray | None:
    """A column by its name in a STAR file, whichever kind of file the particles are from."""
    column = particles.column(label)
    return particles.column(cryosparc_field(label)) if column is None else column
