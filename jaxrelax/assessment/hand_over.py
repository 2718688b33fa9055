"""Command lines by which other programs go on from an output folder, and settings of their jobs."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxrelax.geometry import UnknownGroupError, point_group
from jaxrelax.refinement.result import Result

# RELION looks for a pose within 3 standard deviations of 2 steps of its oversampled grid.
SEARCHED_STEPS = 6.0
COARSEST_LOCAL_ORDER = 4  # 1.9°; where RELION itself begins to search locally
SURE = 0.9  # probability from which on particles are selected


class Step(NamedTuple):
    """Something to do with a result.

    Attributes:
        title: what, in a few words.
        why: in one sentence.
        program: that does it.
        commands: lines for a shell, or jobs with their settings where the program is cryoSPARC.
            They are run in the folder that image names are relative to.
    """

    title: str
    why: str
    program: Literal["jaxrelax", "RELION", "cryoSPARC", "ChimeraX"]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class HandOver:
    """How to go on from the files of an output folder.

    Names are as seen from the folder that image names are relative to, where RELION has to run.

    Attributes:
        folder: the output folder.
        ini_high: low-pass (Å) at which another refinement may start; None where unknown.
        particle_diameter: of the spherical mask, in Å; None where unknown.
        smallest_turn_deg: between registers, which local searches must not reach; 360 without.
    """

    folder: str | os.PathLike = "out"
    ini_high: float | None = None
    particle_diameter: float | None = None
    smallest_turn_deg: float = 360.0

    @staticmethod
    def of(result: Result, folder: str | os.PathLike = "out") -> HandOver:
        """What a result was refined with."""
        return HandOver(
            folder=folder,
            ini_high=_number(result.settings.get("ini_high")),
            particle_diameter=_number(result.settings.get("particle_diameter")),
            smallest_turn_deg=smallest_turn_deg(result.operators),
        )

    def file(self, name: str) -> str:
        """A file of the output folder, quoted for a shell."""
        return shlex.quote(os.path.join(self.folder, name))

    def beside(self, suffix: str) -> str:
        """Another name next to the output folder: ``out_C2``; quoted for a shell."""
        return shlex.quote(f"{os.fspath(self.folder).rstrip('/')}_{suffix}")

    @property
    def local_order(self) -> int:
        """HEALPix order of a search by RELION that stays within the register of each pose."""
        order = COARSEST_LOCAL_ORDER
        while SEARCHED_STEPS * 30.0 / 2**order > 0.5 * self.smallest_turn_deg + 1e-6:
            order += 1
        return order

    def relion_postprocess(self, suffix: str = "") -> str:
        """Resolution and sharpening from the half-maps; ``_class01`` is the suffix of a state."""
        return (
            f"relion_postprocess --i {self.file(f'half1{suffix}.mrc')} "
            f"--i2 {self.file(f'half2{suffix}.mrc')} --mask {self.file(f'mask{suffix}.mrc')} "
            f"--auto_bfac --o {self.beside('relion')}/postprocess{suffix}"
        )

    def relion_refine(
        self, particles: str, reference: str, mask: str, symmetry: str, name: str = "run"
    ) -> str:
        """Both half-sets refined locally from the poses of a table, with a symmetry imposed.

        Poses are searched near where they are from the first iteration on
        (``--auto_local_healpix_order`` is the first order). The reference is on the absolute grey
        scale, so there is no ``--firstiter_cc``.

        Args:
            particles, reference, mask: of files, quoted.
            symmetry: as RELION calls it.
            name: of RELION's files.
        """
        order = self.local_order
        words = [
            "mpirun -n 3 relion_refine_mpi --auto_refine --split_random_halves",
            f"--i {particles} --ref {reference} --solvent_mask {mask}",
            f"--sym {symmetry} --healpix_order {order} --auto_local_healpix_order {order}",
            "--offset_range 3 --offset_step 2 --oversampling 1 --low_resol_join_halves 40",
        ]
        if self.ini_high is not None:
            words.append(f"--ini_high {self.ini_high:g}")
        if self.particle_diameter is not None:
            words.append(f"--particle_diameter {self.particle_diameter:g}")
        words.append(
            "--ctf --ctf_corrected_ref --norm --scale --flatten_solvent --zero_mask "
            f"--solvent_correct_fsc --pool 10 --j 4 --o {self.beside('relion')}/{name}"
        )
        return " ".join(words)

    @property
    def relion_folder(self) -> str:
        """RELION does not make the folder that it writes into."""
        return f"mkdir -p {self.beside('relion')}"

    def cryosparc_import(self, *groups: str) -> list[str]:
        """Jobs that import result groups of the output folder."""
        return [f"Import Result Group: {os.path.join(self.folder, group)}" for group in groups]

    def cryosparc_refinement(self, symmetry: str) -> str:
        """A local refinement that keeps half-sets and registers."""
        settings = [f"Symmetry: {symmetry}", "Force re-do GS split: off"]
        if self.ini_high is not None:
            settings.append(f"Initial lowpass resolution (A): {self.ini_high:g}")
        settings += [
            "Use pose/shift gaussian prior during alignment: on",
            f"Rotation search extent (deg): {min(20.0, 0.25 * self.smallest_turn_deg):.0f}",
        ]
        return f"Local Refinement, with {'; '.join(settings)}"


def smallest_turn_deg(operators: Float64[np.ndarray, "registers 3 3"]) -> float:
    """Smallest angle of rotation (degrees) that leads from one register to another; 360 for one."""
    first = np.einsum("aij,bij->ab", operators, operators)
    angles = np.degrees(np.arccos(np.clip((first - 1.0) / 2.0, -1.0, 1.0)))
    return float(angles[angles > 0.01].min(initial=360.0))


def _number(value) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def imposable(group: str) -> str | None:
    """A group by the name that every program knows; None for operators from a file."""
    try:
        return point_group(group).name
    except UnknownGroupError:
        return None


def from_cryosparc(result: Result) -> bool:
    """Whether the particles came from a ``.cs`` file."""
    return result.particles.source.suffix == ".cs"


def table_name(result: Result) -> str:
    """The table of the output folder that is of the kind of the input."""
    return "particles.cs" if from_cryosparc(result) else "particles.star"
