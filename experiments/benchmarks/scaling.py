"""The E-step with one process on one core, beside two on two: what a second process gains.

    python experiments/benchmarks/scaling.py [--images N] [--box N] [--passes N] [--rounds N]

Every process is pinned to a core of its own, so that one process has no help from the other core.
All make the same passes over the same simulated images, from the same state. A second process
halves the images of each; what it cannot halve is the making of the maps that score, which every
process does for itself. Rounds of one and of two processes alternate, and the median of their
times is compared. Other programs on the same cores spoil that comparison, so the load of the
machine is printed, and the processor time of a pass beside its wall time: what one process needs
over what the busier of two needs is what they would gain on idle cores, but for waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def work(data: Path, passes: int, core: int, place: list[str]) -> None:
    """One process: print the seconds of each pass, by the clock and of the processor."""
    os.sched_setaffinity(0, {core})
    import jax

    jax.config.update("jax_platforms", "cpu")
    if place:
        jax.distributed.initialize(place[0], int(place[1]), int(place[2]))
    from jaxrelax.refinement import Local, Relax, prepare, step
    from jaxrelax.refinement.expectation import expectation

    setup = prepare(
        data / "particles.star", data / "reference.mrc", mode=Local(), relax=Relax("C4")
    )
    state = setup.state
    # The second pass is the first that scores with sums of the folds.
    for _ in range(2):
        state, _ = step(setup.problem, state)
    shell = setup.problem.shells.accumulated(state.score_shell, grow=False)
    seconds = []
    for _ in range(passes + 1):
        began = time.perf_counter(), time.process_time()
        expectation(setup.problem, state, shell)
        seconds.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    # The first one compiles.
    print(json.dumps(seconds[1:]), flush=True)


def measured(data: Path, passes: int, cores: list[int]) -> list[tuple[float, float]]:
    """Wall and processor seconds of each pass with one process per core: the largest of them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    running = []
    for index, core in enumerate(cores):
        words = ["--work", data, "--passes", passes, "--core", core]
        if len(cores) > 1:
            words += ["--place", address, len(cores), index]
        command = [sys.executable, __file__, *map(str, words)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a process failed; see its message above")
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return [
        (max(wall for wall, _ in one), max(processor for _, processor in one))
        for one in zip(*found, strict=True)
    ]


def main() -> None:
    """Simulate, measure, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", nargs=3, default=[], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is not None:
        work(asked.work, asked.passes, asked.core, asked.place)
        return
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two cores are needed")
    from jaxrelax.simulate import Simulation, simulate

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        config = Simulation(
            n_images=asked.images, box=asked.box, pixel_size_angstrom=256.0 / asked.box, snr=0.1
        )
        simulate("phantom", data, config)
        seconds: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(asked.rounds):
            for count, times in seconds.items():
                load = os.getloadavg()[0]
                found = measured(data, asked.passes, cores[:count])
                times += found
                told = ", ".join(f"{wall:.2f} ({processor:.2f})" for wall, processor in found)
                print(f"{count} at work: {told} s per pass (processor); load {load:.1f}")
    for number, name in enumerate(("wall", "processor")):
        one, two = (statistics.median(t[number] for t in times) for times in seconds.values())
        print(
            f"{name} time: {asked.images / one:.0f} and {asked.images / two:.0f} images per "
            f"second; two processes on two cores are {one / two:.2f} times as fast as one on one"
        )


if __name__ == "__main__":
    main()
