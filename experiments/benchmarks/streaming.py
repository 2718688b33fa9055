"""Memory of a run against the number of its images, and what reading them from disk costs.

    python experiments/benchmarks/streaming.py [--images 5000 50000] [--stack 500] [--high 20]

A phantom of C4 with one partner is simulated in a box of 128; a table of as many rows as asked
names the images of that one stack again and again, so that a large run needs no large disk. Each
number of images is refined in a process of its own, one iteration and everything that follows it,
and the peak memory of that process is printed. Before that an E-step over the first number of
images is timed with all images read from the stack and with all of them in the cache, in turn and
in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxrelax.io import read_particles, write_star
from jaxrelax.refinement import Local, MaxIterations, prepare, refine
from jaxrelax.refinement.expectation import expectation
from jaxrelax.simulate import Simulation, simulate

AMPLE_GIB = 64.0
ROUNDS = 4
REPEATED = "repeated_{}.star"


def peak_gib() -> float:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20


def whole_run(folder: Path, images: int, high: float) -> dict[str, float]:
    """Refine in this process: one iteration, the held-out test, and the maps to Nyquist."""
    began = time.perf_counter()
    refine(
        folder / REPEATED.format(images), folder / "reference.mrc", mode=Local(), relax="C4",
        until=MaxIterations(1), ini_high=high, subgroups="none",
    )  # fmt: skip
    return {"peak_gib": peak_gib(), "seconds": time.perf_counter() - began}


def passes(folder: Path, images: int, high: float) -> dict[str, float]:
    """Seconds of an E-step, with images from disk and from the cache."""
    setups = {
        name: prepare(
            folder / REPEATED.format(images), folder / "reference.mrc", mode=Local(), relax="C4",
            ini_high=high, cache_gib=gib,
        )
        for name, gib in (("disk", 0.0), ("cache", AMPLE_GIB))
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in setups}
    for _ in range(ROUNDS + 1):
        for name, setup in setups.items():
            shell = setup.problem.shells.accumulated(setup.state.score_shell, grow=False)
            began = time.perf_counter()
            expectation(setup.problem, setup.state, shell)
            seconds[name].append(time.perf_counter() - began)
    # The first round compiles, and fills the cache.
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def in_new_process(task: str, folder: Path, images: int, high: float) -> dict[str, float]:
    """What a task returns, from a process in which nothing else ran."""
    script = [sys.executable, __file__, "--task", task, str(folder), str(images), str(high)]
    output = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--task"]:
        task = {"run": whole_run, "passes": passes}[sys.argv[2]]
        print(json.dumps(task(Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument("--stack", type=int, default=500, help="different images")
    parser.add_argument("--high", type=float, default=20.0, help="ini_high in Å")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = Simulation(n_images=asked.stack, box=128, pixel_size_angstrom=2.6, group="C4")
        made = simulate("phantom", folder, config)
        particles = read_particles(made.particles)
        for images in asked.images:
            rows = np.arange(images) % asked.stack
            write_star(particles.select(rows), folder / REPEATED.format(images))
        print(f"{len(os.sched_getaffinity(0))} cores, box 128, scored to {asked.high:g} Å")
        first = asked.images[0]
        timed = in_new_process("passes", folder, first, asked.high)
        disk, cache = (first / timed[name] for name in ("disk", "cache"))
        print(
            f"E-step over {first} images: {disk:.0f} images/s from disk, {cache:.0f} from the "
            f"cache: {disk / cache:.2f}",
            flush=True,
        )
        lowest = np.inf
        for images in asked.images:
            run = in_new_process("run", folder, images, asked.high)
            lowest = min(lowest, run["peak_gib"])
            print(
                f"{images} images: peak {run['peak_gib']:.2f} GiB "
                f"({run['peak_gib'] / lowest:.3f} of the lowest), {run['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
