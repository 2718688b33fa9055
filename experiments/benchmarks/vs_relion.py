"""Beside RELION, on the same images: a global E-step, an auto-refinement, a relaxed refinement.

    python experiments/benchmarks/vs_relion.py search DATA [--order N] [--images N] [--sym C1]
    python experiments/benchmarks/vs_relion.py refine DATA [--images N] [--limit-minutes N]
    python experiments/benchmarks/vs_relion.py relax DATA [--iterations 15]

DATA is a folder with ``particles.star``, ``truth.star`` and, for ``refine``, ``reference.mrc``, the
true map averaged over the symmetry. RELION's programs must be on the PATH. Both programs use all
cores that this process may use, and the same reference, made of the poses in the table (so that it
has RELION's absolute scale).

``search``: each makes one iteration from the reference at 30 Å over HEALPix order N and 21 shifts,
RELION with its oversampled second pass, here with the climb of the best peaks. RELION's time is
that of some images less that of a quarter of them, so that nothing else counts; ours is that of the
whole E-step over all images, once compiled.

``refine``: from 30 Å and no poses to convergence under the symmetry, RELION's auto-refinement with
the defaults of its interface. One that has not converged at the limit is compared as it is; the
ratio of times is then a lower bound. Times of processors are given too, as they depend less on what
else runs on the machine. Resolutions are of the half-maps inside one sphere (FSC 0.143)
and of their mean against ``reference.mrc`` (FSC 0.5).

``relax``: all images from the poses in the table and the map of these poses, RELION with
``--relax_sym`` in local searches at HEALPix order 4 (σ 1.5°) for a fixed number of iterations, here
until the run stops by itself. Wall time and the share of right registers of both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np
from jaxtyping import Float, Float64
from relion_runs import SHIFT_RANGE_PX, Relion, require

from jaxrelax.geometry import point_group, pose_error_mod_group, register_agreement
from jaxrelax.inference.global_search import SHIFT_REACH
from jaxrelax.io import Particles, read_particles
from jaxrelax.reconstruction import fsc, resolution_shell, soft_sphere
from jaxrelax.refinement import (
    Callback,
    Homogeneous,
    Local,
    Problem,
    Relax,
    Result,
    State,
    StepInfo,
    prepare,
    refine,
)
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.state import replaced

INI_HIGH = 30.0
RELAXED_INI_HIGH = 12.0  # as in a relaxed refinement here
PART = 4  # the smaller number of images is this part of the larger one
RIGHT_DEG = 15.0
EDGE_PX = 5.0


def our_seconds(
    particles: Particles, reference: Path, order: int, symmetry: str, repeats: int = 2
) -> tuple[float, Float64[np.ndarray, "n 3 3"]]:
    """Time of the fastest E-step once compiled, and the orientations that it finds.

    With shifts as far as RELION's: from a reference of low resolution the default is far more.
    """
    mode = Homogeneous(coarsest_order=order, finest_order=order)
    setup = prepare(particles, reference, mode=mode, symmetry=symmetry, ini_high=INI_HIGH)
    reach = SHIFT_RANGE_PX * particles.optics[0].pixel_size_angstrom
    poses = replaced(setup.state.poses, sigma_offset_angstrom=np.asarray(reach / SHIFT_REACH))
    state = setup.state.replace(poses=poses)
    shell = setup.problem.shells.accumulated(state.score_shell, grow=False)
    times: list[float] = []
    rotations = particles.rotations
    for _ in range(repeats + 1):
        began = time.perf_counter()
        rotations = expectation(setup.problem, state, shell).rotations
        times.append(time.perf_counter() - began)
    return min(times[1:]), rotations


def search(relion: Relion, asked: argparse.Namespace) -> None:
    """Both programs search all orientations once; print rates."""
    total = len(read_particles(asked.data / "particles.star"))
    n = asked.images or 400
    relion.copy(asked.data, (n // PART, n, total))
    reference = relion.reconstruct(total, asked.truth_sym)
    particles = read_particles(relion.folder / f"first_{total}.star")
    seconds, ours = our_seconds(particles, reference, asked.order, asked.sym)
    rates = {"jaxrelax": total / seconds}
    times = []
    for number in (n // PART, n):
        seconds, table = relion.search(number, asked.order, asked.sym, INI_HIGH)
        times.append(seconds)
    rates["RELION"] = (n - n // PART) / (times[1] - times[0])
    found = {"jaxrelax": ours[:n], "RELION": relion.orientations(table)}
    truth = read_particles(asked.data / "truth.star").select(np.arange(n))
    print(f"global E-step, order {asked.order}, {asked.sym}, {relion.threads} cores")
    for name, rate in rates.items():
        error = error_deg(found[name], truth, asked.truth_sym)
        print(f"  {name:8s} {rate:9.2f} images/s; the first {n} images: {error}")
    print(f"  ratio    {rates['jaxrelax'] / rates['RELION']:9.1f}")


def auto_refine(relion: Relion, asked: argparse.Namespace) -> None:
    """Both programs refine from nothing; print time, resolution and errors of poses."""
    truth = read_particles(asked.data / "truth.star")
    n = asked.images or len(truth)
    truth = truth.select(np.arange(n))
    symmetry = asked.truth_sym
    relion.copy(asked.data, (n,), poses=False)
    reference = relion.reconstruct(n, symmetry)
    with mrcfile.open(asked.data / "reference.mrc") as file:
        true_map = np.array(file.data, np.float32)
    pixel = truth.optics[0].pixel_size_angstrom

    def line(name: str, seconds, processor, iterations: int, halves, rotations, end: str) -> str:
        between, to_truth = resolutions(halves, true_map, asked.particle_diameter, pixel)
        return (
            f"  {name:8s} {seconds:7.0f} s ({processor:.0f} s of processors), {iterations} "
            f"iterations ({end}); half-maps {between:.1f} Å, to the true map {to_truth:.1f} Å; "
            f"{error_deg(rotations, truth, symmetry)}"
        )

    print(f"refining {symmetry} from {INI_HIGH:g} Å, {n} images, {relion.threads} cores")
    began, processor = time.perf_counter(), time.process_time()
    ours = refine(
        relion.folder / f"first_{n}_blind.star", reference, mode=Homogeneous(), symmetry=symmetry,
        ini_high=INI_HIGH,
    )  # fmt: skip
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    print(
        line(
            "jaxrelax", seconds, processor, len(ours.history), ours.half_maps,
            ours.particles.rotations, ours.reason,
        ),
        flush=True,
    )  # fmt: skip
    print(f"  jaxrelax {compilation(ours)}", flush=True)
    if asked.limit_minutes == 0.0:
        return
    theirs = relion.auto_refine(n, symmetry, INI_HIGH, 60.0 * asked.limit_minutes)
    end = "converged" if theirs.converged else "stopped at the limit"
    rotations = theirs.particles.rotations
    print(
        line(
            "RELION", theirs.seconds, theirs.processor_seconds, theirs.iterations, theirs.halves,
            rotations, end,
        )
    )  # fmt: skip
    bound = "" if theirs.converged else "more than "
    print(
        f"  RELION's time over ours: {bound}{theirs.seconds / seconds:.2f}; of processors "
        f"{bound}{theirs.processor_seconds / processor:.2f}"
    )


def relax(relion: Relion, asked: argparse.Namespace) -> None:
    """Both programs relax the group; print time and registers."""
    truth = read_particles(asked.data / "truth.star")
    n = asked.images or len(truth)
    truth = truth.select(np.arange(n))
    group = asked.truth_sym
    relion.copy(asked.data, (n,))
    reference = relion.reconstruct(n, group)
    times = {}
    times["RELION"], table = relion.relax(n, group, asked.iterations, RELAXED_INI_HIGH)
    watch = AccuracyWatch(truth, group)
    began = time.perf_counter()
    ours = refine(
        relion.folder / f"first_{n}.star", reference, mode=Local(), relax=Relax(group),
        subgroups="none", callbacks=[watch],
    )  # fmt: skip
    times["jaxrelax"] = time.perf_counter() - began
    found = {"RELION": relion.orientations(table), "jaxrelax": ours.particles.rotations}
    done = {"RELION": asked.iterations, "jaxrelax": len(ours.history)}
    operators = point_group(group)
    print(f"relaxing {group}, {n} images, {relion.threads} cores")
    right = {
        name: register_agreement(rotations, truth.rotations, operators, point_group("C1")).fraction
        for name, rotations in found.items()
    }
    for name, seconds in times.items():
        print(
            f"  {name:8s} {seconds:7.0f} s, {done[name]} iterations, "
            f"registers right {right[name]:.3f}, {error_deg(found[name], truth, group)}"
        )
    print(f"  jaxrelax {compilation(ours)}")
    print(f"  RELION's time over ours {times['RELION'] / times['jaxrelax']:.2f}")
    for name, fraction in (
        ("more registers right than RELION's", right["RELION"]),
        ("nine tenths of its own", 0.9 * right["jaxrelax"]),
    ):
        passed = watch.passed(fraction)
        if passed is not None:
            iteration, seconds, reached = passed
            print(
                f"  jaxrelax has {name} for good after iteration {iteration}: {seconds:.0f} s, "
                f"{reached:.3f} right; RELION's time over this {times['RELION'] / seconds:.1f}"
            )


class AccuracyWatch(Callback):
    """Share of right registers after every iteration, and how long it took."""

    def __init__(self, truth: Particles, group: str):
        self._truth, self._group = truth, point_group(group)
        self._rows: list[tuple[int, float, float]] = []
        self._began = time.perf_counter()  # preparing counts

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """Count registers with the half-sets in one frame, as a result would have them."""
        best = state.beliefs.registers.argmax(axis=1)
        rotations = state.poses.rotations @ problem.particle.registers.representatives[best].mT
        turn = self._group.operators[int(state.maps.alignment)].T
        second = problem.data.half_set == 2
        rotations = np.where(second[:, None, None], rotations @ turn, rotations)
        right = register_agreement(rotations, self._truth.rotations, self._group, point_group("C1"))
        seconds = time.perf_counter() - self._began
        self._rows.append((info.iteration, seconds, right.fraction))

    def passed(self, fraction: float) -> tuple[int, float, float] | None:
        """(iteration, seconds, share) from which on the share stays above ``fraction``."""
        below = [i for i, row in enumerate(self._rows) if row[2] <= fraction]
        first = below[-1] + 1 if below else 0
        return self._rows[first] if first < len(self._rows) else None


def resolutions(
    halves: tuple[Float[np.ndarray, "n n n"], ...],
    true_map: Float[np.ndarray, "n n n"],
    diameter: float,
    pixel_size_angstrom: float,
) -> tuple[float, float]:
    """Of two half-maps (FSC 0.143) and of their mean beside the true map (0.5), Å, in a sphere."""
    n = true_map.shape[0]
    mask = soft_sphere(n, 0.5 * diameter / pixel_size_angstrom, EDGE_PX)
    edge = n * pixel_size_angstrom
    between = resolution_shell(fsc(halves[0], halves[1], mask))
    beside = resolution_shell(fsc(0.5 * (halves[0] + halves[1]), true_map, mask), 0.5)
    return edge / between, edge / beside


def compilation(ours: Result) -> str:
    """How many programs a run made, and how long that took, in words."""
    return (
        f"compiled {ours.compiled_programs} programs or found them in the cache, "
        f"in {ours.compile_seconds:.0f} s"
    )


def error_deg(rotations: Float64[np.ndarray, "n 3 3"], truth: Particles, symmetry: str) -> str:
    """Median error and the share of right poses, in words."""
    error = np.rad2deg(pose_error_mod_group(rotations, truth.rotations, point_group(symmetry)))
    right = np.mean(error < RIGHT_DEG)
    return f"median error {np.median(error):.2f}°, {100 * right:.0f} % within {RIGHT_DEG:g}°"


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, function in (("search", search), ("refine", auto_refine), ("relax", relax)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("data", type=Path)
        command.add_argument("--images", type=int, help="the first so many; 400 or all by default")
        command.add_argument("--truth-sym", default="C4", help="symmetry of the particle")
        command.add_argument("--particle-diameter", type=float, default=220.0, help="Å")
        if name == "search":
            command.add_argument("--order", type=int, default=2)
            command.add_argument("--sym", default="C1", help="of both programs' sampling")
        if name == "refine":
            command.add_argument(
                "--limit-minutes", type=float, default=600.0, help="of RELION; 0: not run"
            )
        if name == "relax":
            command.add_argument("--iterations", type=int, default=15, help="of RELION")
    asked = parser.parse_args()
    require("relion_refine", "relion_reconstruct")
    if asked.run is auto_refine and asked.limit_minutes:
        require("mpirun", "relion_refine_mpi")
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        asked.run(Relion(Path(scratch), asked.particle_diameter, threads), asked)


if __name__ == "__main__":
    main()
