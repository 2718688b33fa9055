"""Beside RELION, on the same images: the E-step of a global search, or a relaxed refinement.

    python experiments/benchmarks/vs_relion.py DATA [--order N] [--images N] [--sym C1]
    python experiments/benchmarks/vs_relion.py DATA --relaxed C4 [--iterations 15]

DATA is a folder with ``particles.star``; ``relion_refine`` and ``relion_reconstruct`` must be on
the PATH. Both programs use all cores that this process may use, and the same reference, made of the
poses in the table (so that it has RELION's absolute scale). Each makes one iteration from it at
30 Å over HEALPix order N and 21 shifts, RELION with its oversampled second pass, here with the
climb of the best peaks. RELION's time is that of some images less that of a quarter of them, so
that nothing else counts; ours is that of the whole E-step over all images, once compiled. The poses
that both find are compared with ``truth.star`` where DATA has one.

``--relaxed`` refines all images from the poses in the table and the map of these poses: RELION with
``--relax_sym`` in local searches at HEALPix order 4 (σ 1.5°) for a fixed number of iterations, here
until the run stops by itself. Wall time and the share of right registers of both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np
import starfile
from jaxtyping import Float64

from jaxrelax.geometry import point_group, pose_error_mod_group, register_agreement
from jaxrelax.io import ImageReader, Particles, read_particles
from jaxrelax.refinement import Homogeneous, Local, Relax, prepare, refine
from jaxrelax.refinement.expectation import expectation

INI_HIGH = 30.0
RELAXED_INI_HIGH = 12.0  # as in a relaxed refinement here
PART = 4  # the smaller number of images is this part of the larger one
RIGHT_DEG = 15.0
SHIFT_STEP_PX, SHIFT_RANGE_PX = 2, 5  # 21 shifts


def relion_seconds(
    data: Path,
    reference: Path,
    images: int,
    order: int,
    symmetry: str,
    diameter: float,
    threads: int,
) -> tuple[float, Path]:
    """Wall time of one iteration of ``relion_refine``, and its table of particles."""
    (data / f"out_{images}").mkdir()
    command = [
        "relion_refine", "--i", f"first_{images}.star", "--o", f"out_{images}/run",
        "--ref", str(reference.resolve()), "--iter", "1", "--K", "1",
        "--ini_high", f"{INI_HIGH:g}", "--ctf", "--ctf_corrected_ref", "--tau2_fudge", "1",
        "--particle_diameter", f"{diameter:g}", "--flatten_solvent", "--zero_mask",
        "--norm", "--scale", "--sym", symmetry, "--pad", "2", "--pool", "30",
        "--healpix_order", str(order), "--oversampling", "1", "--offset_range",
        str(SHIFT_RANGE_PX), "--offset_step", str(SHIFT_STEP_PX), "--random_seed", "1",
        "--j", str(threads),
    ]  # fmt: skip
    began = time.perf_counter()
    called(command, data)
    seconds = time.perf_counter() - began
    return seconds, data / f"out_{images}" / "run_it001_data.star"


def copied(data: Path, folder: Path, numbers: tuple[int, ...]) -> None:
    """The first images in single precision, which every RELION reads, and a table for each number.

    The tables name the stack as it is seen from the folder, where both programs run.
    """
    n = max(numbers)
    particles = read_particles(data / "particles.star").select(np.arange(n))
    with ImageReader(particles) as reader:
        images = reader.read(np.arange(n))
    with mrcfile.new(folder / "images.mrcs", images) as file:
        file.set_image_stack()
        file.voxel_size = particles.optics[0].pixel_size_angstrom
    tables = starfile.read(data / "particles.star", always_dict=True)
    rows = tables["particles"].iloc[:n].copy()
    rows["rlnImageName"] = [f"{i + 1}@images.mrcs" for i in range(n)]
    for number in numbers:
        tables["particles"] = rows.iloc[:number]
        starfile.write(tables, folder / f"first_{number}.star")


def called(command: list[str], folder: Path) -> None:
    """Run a program of RELION, or stop with what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def reconstructed(folder: Path, images: int, symmetry: str, threads: int) -> Path:
    """A map of the poses in the table, on RELION's scale."""
    called(
        [
            "relion_reconstruct", "--i", f"first_{images}.star", "--o", "reference.mrc", "--ctf",
            "--sym", symmetry, "--maxres", "15", "--j", str(threads),
        ],
        folder,
    )  # fmt: skip
    return folder / "reference.mrc"


def our_seconds(
    particles: Particles, reference: Path, order: int, symmetry: str, repeats: int = 2
) -> tuple[float, Float64[np.ndarray, "n 3 3"]]:
    """Time of the fastest E-step once compiled, and the orientations that it finds."""
    mode = Homogeneous(coarsest_order=order, finest_order=order)
    setup = prepare(particles, reference, mode=mode, symmetry=symmetry, ini_high=INI_HIGH)
    shell = setup.problem.accumulated(setup.state.score_shell, grow=False)
    times: list[float] = []
    rotations = particles.rotations
    for _ in range(repeats + 1):
        began = time.perf_counter()
        rotations = expectation(setup.problem, setup.state, shell).rotations
        times.append(time.perf_counter() - began)
    return min(times[1:]), rotations


def relaxed_by_relion(
    folder: Path,
    reference: Path,
    images: int,
    group: str,
    iterations: int,
    diameter: float,
    threads: int,
) -> tuple[float, Particles]:
    """Wall time of ``relion_refine --relax_sym``, and its particles."""
    (folder / "relaxed").mkdir()
    command = [
        "relion_refine", "--i", f"first_{images}.star", "--o", "relaxed/run",
        "--ref", str(reference.resolve()), "--iter", str(iterations), "--K", "1",
        "--ini_high", f"{RELAXED_INI_HIGH:g}", "--ctf", "--ctf_corrected_ref",
        "--tau2_fudge", "4", "--particle_diameter", f"{diameter:g}", "--flatten_solvent",
        "--zero_mask", "--norm", "--scale", "--sym", "C1", "--relax_sym", group, "--pad", "2",
        "--pool", "30", "--healpix_order", "4", "--sigma_ang", "1.5", "--oversampling", "1",
        "--offset_range", "3", "--offset_step", "1", "--random_seed", "1", "--j", str(threads),
    ]  # fmt: skip
    began = time.perf_counter()
    called(command, folder)
    seconds = time.perf_counter() - began
    table = folder / "relaxed" / f"run_it{iterations:03d}_data.star"
    return seconds, read_particles(table, image_root=folder)


def compare_relaxed(data: Path, group: str, iterations: int, diameter: float) -> None:
    """Both programs relax the group; print time and registers."""
    threads = len(os.sched_getaffinity(0))
    truth = read_particles(data / "truth.star")
    total = len(truth)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copied(data, folder, (total,))
        reference = reconstructed(folder, total, group, threads)
        times = {}
        times["RELION"], theirs = relaxed_by_relion(
            folder, reference, total, group, iterations, diameter, threads
        )
        began = time.perf_counter()
        ours = refine(
            folder / f"first_{total}.star", reference, mode=Local(), relax=Relax(group),
            subgroups="none",
        )  # fmt: skip
        times["jaxrelax"] = time.perf_counter() - began
        rotations = {"RELION": in_order(theirs), "jaxrelax": ours.particles.rotations}
    done = {"RELION": iterations, "jaxrelax": len(ours.history)}
    operators = point_group(group)
    print(f"relaxing {group}, {total} images, {threads} cores")
    for name, seconds in times.items():
        right = register_agreement(rotations[name], truth.rotations, operators, point_group("C1"))
        error = error_deg(rotations[name], truth, group)
        print(
            f"  {name:8s} {seconds:7.0f} s, {done[name]} iterations, "
            f"registers right {right.fraction:.3f}, {error}"
        )
    print(f"  RELION's time over ours {times['RELION'] / times['jaxrelax']:.2f}")


def in_order(particles: Particles) -> Float64[np.ndarray, "n 3 3"]:
    """Orientations in the order of the stack: RELION sorts its tables by micrograph."""
    return particles.rotations[np.argsort(particles.image_index)]


def error_deg(rotations: Float64[np.ndarray, "n 3 3"], truth: Particles, symmetry: str) -> str:
    """Median error and the share of right poses, in words."""
    error = np.rad2deg(pose_error_mod_group(rotations, truth.rotations, point_group(symmetry)))
    right = np.mean(error < RIGHT_DEG)
    return f"median error {np.median(error):.2f}°, {100 * right:.0f} % within {RIGHT_DEG:g}°"


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--sym", default="C1", help="of both programs' sampling")
    parser.add_argument("--truth-sym", default="C4", help="errors are taken modulo this")
    parser.add_argument("--particle-diameter", type=float, default=220.0, help="Å, for RELION")
    parser.add_argument("--relaxed", metavar="GROUP", help="relax this group from the poses")
    parser.add_argument("--iterations", type=int, default=15, help="of RELION, with --relaxed")
    asked = parser.parse_args()
    if shutil.which("relion_refine") is None:
        raise SystemExit("relion_refine is not on the PATH")
    if asked.relaxed:
        compare_relaxed(asked.data, asked.relaxed, asked.iterations, asked.particle_diameter)
        return
    threads = len(os.sched_getaffinity(0))
    total = len(read_particles(asked.data / "particles.star"))
    numbers = (asked.images // PART, asked.images)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copied(asked.data, folder, (*numbers, total))
        reference = reconstructed(folder, total, asked.truth_sym, threads)
        particles = read_particles(folder / f"first_{total}.star")
        seconds, found["jaxrelax"] = our_seconds(particles, reference, asked.order, asked.sym)
        rates = {"jaxrelax": total / seconds}
        times = []
        for n in numbers:
            seconds, table = relion_seconds(
                folder, reference, n, asked.order, asked.sym, asked.particle_diameter, threads
            )
            times.append(seconds)
        rates["RELION"] = (numbers[1] - numbers[0]) / (times[1] - times[0])
        found["RELION"] = in_order(read_particles(table, image_root=folder))
    print(f"global E-step, order {asked.order}, {asked.sym}, {threads} cores")
    for name, rate in rates.items():
        print(f"  {name:8s} {rate:9.2f} images/s")
    print(f"  ratio    {rates['jaxrelax'] / rates['RELION']:9.1f}")
    if (asked.data / "truth.star").is_file():
        truth = read_particles(asked.data / "truth.star").select(np.arange(numbers[1]))
        for name, rotations in found.items():
            text = error_deg(rotations[: numbers[1]], truth, asked.truth_sym)
            print(f"  {name:8s} {text} of the first {numbers[1]} images")


if __name__ == "__main__":
    main()
