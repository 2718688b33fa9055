"""Runs of RELION's command-line programs for comparisons, and the files that they need."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import starfile
from jaxtyping import Float32, Float64

from jaxrelax.io import ImageReader, Particles, read_particles

SHIFT_STEP_PX, SHIFT_RANGE_PX = 2, 5  # 21 shifts
PROCESSES = 3  # of an auto-refinement: one leads, and one works on each half-set
ITERATION = re.compile(r"run_it(\d+)")


@dataclass(frozen=True)
class Relion:
    """A folder with copied images in which RELION runs.

    Attributes:
        folder: it is filled by :meth:`copy`.
        diameter: of the particle's mask, Å.
        threads: cores to use.
    """

    folder: Path
    diameter: float
    threads: int

    def copy(self, data: Path, numbers: tuple[int, ...], poses: bool = True):
        """The first images in single precision, which every RELION reads; a table for each number.

        The tables name the stack as it is seen from the folder, where both programs run.

        Args:
            data: folder with ``particles.star``.
            numbers: of images; table ``first_N.star`` has N of them.
            poses: without, ``first_N_blind.star`` is written too, which has no orientations,
                origins and half-sets.
        """
        n = max(numbers)
        particles = read_particles(data / "particles.star").select(np.arange(n))
        with ImageReader(particles) as reader:
            images = reader.read(np.arange(n))
        with mrcfile.new(self.folder / "images.mrcs", images) as file:
            file.set_image_stack()
            file.voxel_size = particles.optics[0].pixel_size_angstrom
        tables = starfile.read(data / "particles.star", always_dict=True)
        rows = tables["particles"].iloc[:n].copy()
        rows["rlnImageName"] = [f"{i + 1}@images.mrcs" for i in range(n)]
        # Each program makes half-sets of its own.
        found = [c for c in rows if c.startswith(("rlnAngle", "rlnOrigin")) or "Subset" in c]
        for number in numbers:
            tables["particles"] = rows.iloc[:number]
            starfile.write(tables, self.folder / f"first_{number}.star")
            if not poses:
                tables["particles"] = rows.iloc[:number].drop(columns=found)
                starfile.write(tables, self.folder / f"first_{number}_blind.star")

    def reconstruct(self, images: int, symmetry: str) -> Path:
        """A map of the poses in the table, on RELION's scale."""
        self._call(
            [
                "relion_reconstruct", "--i", f"first_{images}.star", "--o", "reference.mrc",
                "--ctf", "--sym", symmetry, "--maxres", "15", "--j", str(self.threads),
            ]
        )  # fmt: skip
        return self.folder / "reference.mrc"

    def search(self, images: int, order: int, symmetry: str, ini_high: float):
        """One iteration over all orientations: wall time, and the table of particles."""
        seconds = self._refine(
            f"search_{images}", f"first_{images}.star",
            ["--iter", "1", "--sym", symmetry, "--ini_high", f"{ini_high:g}", "--tau2_fudge", "1",
             "--healpix_order", str(order), "--offset_range", str(SHIFT_RANGE_PX),
             "--offset_step", str(SHIFT_STEP_PX), "--j", str(self.threads)],
        )  # fmt: skip
        return seconds, self.folder / f"search_{images}" / "run_it001_data.star"

    def relax(self, images: int, group: str, iterations: int, ini_high: float):
        """Local searches with ``--relax_sym`` at order 4: wall time, and the table of particles."""
        seconds = self._refine(
            "relaxed", f"first_{images}.star",
            ["--iter", str(iterations), "--sym", "C1", "--relax_sym", group,
             "--ini_high", f"{ini_high:g}", "--tau2_fudge", "4", "--healpix_order", "4",
             "--sigma_ang", "1.5", "--offset_range", "3", "--offset_step", "1",
             "--j", str(self.threads)],
        )  # fmt: skip
        return seconds, self.folder / "relaxed" / f"run_it{iterations:03d}_data.star"

    def auto_refine(
        self, images: int, symmetry: str, ini_high: float, limit_seconds: float
    ) -> AutoRefined:
        """From no poses to convergence, or to the limit: gold standard, orders 2 to local 4.

        The defaults of RELION's interface.
        """
        (self.folder / "refined").mkdir()
        each = max(self.threads // (PROCESSES - 1), 1)
        command = [
            "mpirun", "-n", str(PROCESSES), "--oversubscribe", "--mca", "mpi_yield_when_idle", "1",
            "relion_refine_mpi", "--auto_refine", "--split_random_halves",
            "--low_resol_join_halves", "40", "--i", f"first_{images}_blind.star",
            "--o", "refined/run", *self._common(), "--sym", symmetry,
            "--ini_high", f"{ini_high:g}", "--healpix_order", "2",
            "--auto_local_healpix_order", "4", "--offset_range", str(SHIFT_RANGE_PX),
            "--offset_step", str(SHIFT_STEP_PX), "--j", str(each),
        ]  # fmt: skip
        began, processor = time.perf_counter(), _processor_seconds()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._call(command, limit_seconds)
        seconds, processor = time.perf_counter() - began, _processor_seconds() - processor
        refined = self.folder / "refined"
        converged = (refined / "run_class001.mrc").is_file()
        if converged:
            return AutoRefined(
                seconds, processor, len(list(refined.glob("run_it*_data.star"))) - 1, True,
                self._in_order(refined / "run_data.star"),
                tuple(_map(refined / f"run_half{h}_class001_unfil.mrc") for h in (1, 2)),
            )  # fmt: skip
        # The second half-map of an iteration is written last.
        done = [
            int(ITERATION.search(p.name)[1]) for p in refined.glob("run_it*_half2_class001.mrc")
        ]
        last = max(done, default=0) - 1
        if last < 1:
            raise SystemExit(f"RELION made less than two iterations in {limit_seconds:.0f} s")
        return AutoRefined(
            seconds, processor, last, False,
            self._in_order(refined / f"run_it{last:03d}_data.star"),
            tuple(_map(refined / f"run_it{last:03d}_half{h}_class001.mrc") for h in (1, 2)),
        )  # fmt: skip

    def orientations(self, table: Path) -> Float64[np.ndarray, "n 3 3"]:
        """Of the images in the order of their stack."""
        return self._in_order(table).rotations

    def _in_order(self, table: Path) -> Particles:
        # RELION sorts its tables by micrograph.
        particles = read_particles(table, image_root=self.folder)
        return particles.select(np.argsort(particles.image_index))

    def _common(self) -> list[str]:
        return [
            "--ref", str((self.folder / "reference.mrc").resolve()), "--ctf",
            "--ctf_corrected_ref", "--particle_diameter", f"{self.diameter:g}",
            "--flatten_solvent", "--zero_mask", "--norm", "--scale", "--pad", "2", "--pool", "30",
            "--oversampling", "1", "--random_seed", "1",
        ]  # fmt: skip

    def _refine(self, name: str, table: str, options: list[str]) -> float:
        (self.folder / name).mkdir()
        command = ["relion_refine", "--i", table, "--o", f"{name}/run", "--K", "1"]
        began = time.perf_counter()
        self._call([*command, *self._common(), *options])
        return time.perf_counter() - began

    def _call(self, command: list[str], limit_seconds: float | None = None):
        """Run a program, or stop with what it said.

        Raises:
            subprocess.TimeoutExpired: beyond the limit; the program has been ended.
        """
        # In a container everything may belong to root, which Open MPI refuses by default.
        allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        running = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | allowed,
        )  # fmt: skip
        try:
            said = running.communicate(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            # Not killed: mpirun has to end the processes that it started.
            running.terminate()
            running.communicate()
            raise
        if running.returncode:
            raise SystemExit(f"{command[0]} failed:\n{said[0][-2000:]}\n{said[1][-2000:]}")


@dataclass
class AutoRefined:
    """An auto-refinement, converged or stopped."""

    seconds: float  # of wall time
    processor_seconds: float  # of all its processes
    iterations: int
    converged: bool
    particles: Particles  # in the order of the stack
    halves: tuple[Float32[np.ndarray, "n n n"], ...]


def require(*programs: str):
    """End with a message where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not on the PATH")


def _processor_seconds() -> float:
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _map(path: Path) -> Float32[np.ndarray, "n n n"]:
    with mrcfile.open(path) as file:
        return np.array(file.data, np.float32)
