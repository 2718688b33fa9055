"""What K states cost beside one: a pass at held poses, and the memory of sums.

    python experiments/benchmarks/states.py DATA --states 1 2 3

DATA holds particles.star and reference.mrc of a C4 particle. Every number of states runs in a
process of its own, so that peaks of memory are its own; the best of three passes counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import jax

from jaxrelax import Classification, Registers, prepare
from jaxrelax.engine.memory import few_heaps, peak_memory_gib
from jaxrelax.refinement import step
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.stages import following


def one(data: Path, count: int) -> None:
    """Seconds of a pass, MiB of sums and GiB of peak memory with so many states, printed."""
    few_heaps()
    mode = Classification(("C4",) * count, poses=Registers()) if count > 1 else Registers()
    symmetry = {} if count > 1 else {"symmetry": "C4"}
    setup = prepare(data / "particles.star", data / "reference.mrc", mode=mode, **symmetry)
    state = step(setup.problem, setup.state)[0]
    if count > 1:
        setup = following(setup, state)
        state = step(setup.problem, setup.state)[0]
    state = step(setup.problem, state)[0]
    shell = setup.problem.shells.accumulated(state.score_shell, grow=False)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        expectation(setup.problem, state, shell)
        best = min(best, time.perf_counter() - began)
    sums = sum(leaf.nbytes for leaf in jax.tree.leaves(state.maps.sums.values))
    print(f"{best} {sums / 2**20} {peak_memory_gib()} {shell}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--states", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return one(given.data, given.one)
    first = None
    print("states  shell  pass/one  per state  sums/one  peak/one")
    for count in given.states:
        command = [sys.executable, __file__, str(given.data), "--one", str(count)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds, sums, peak, shell = map(float, out.splitlines()[-1].split())
        first = (seconds, sums, peak) if first is None else first
        ratio = [a / b for a, b in zip((seconds, sums, peak), first, strict=True)]
        print(
            f"{count:6d}  {shell:5.0f}  {ratio[0]:8.2f}  {ratio[0] / count:9.2f}  {ratio[1]:8.2f}"
            f"  {ratio[2]:8.2f}"
        )
    return None


if __name__ == "__main__":
    main()
