"""The box of the map beside that of the images: registers, poses, map and time.

    python experiments/particle_box.py DATA [--room 1.1 1.25 1.5] [--group C4]

DATA holds ``particles.star``, ``truth.star``, ``truth_map.mrc`` and ``reference.mrc``. Relaxed
refinements from the poses in the table, in which the map's box is at least so many times as wide
as the particle (and at most that of the images). Prints register accuracy, pose errors (modulo the
group), the resolution of the unfiltered half-maps' mean beside the true map in a sphere (FSC 0.5),
and the seconds of all processors in the last iteration.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from draws import judged

from jaxrelax.reconstruction import particle
from jaxrelax.refinement import Callback, Local, Problem, Relax, State, StepInfo, refine


class LastIteration(Callback):
    """Box of the maps, and time of processors of the last iteration."""

    def __init__(self):
        self.box, self.seconds, self._before = 0, 0.0, 0.0

    def on_start(self, problem: Problem, state: State) -> None:
        """Note the box."""
        self.box, self._before = problem.shells.box, time.process_time()

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """Note the time."""
        now = time.process_time()
        self.seconds, self._before = now - self._before, now


def main() -> None:
    """Refine and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--room", type=float, nargs="+", default=[1.1, 1.25, 1.5])
    parser.add_argument("--group", default="C4")
    parser.add_argument("--particle-diameter", type=float, default=220.0, help="Å")
    asked = parser.parse_args()
    columns = (
        "box, px", "accuracy", "pose error, °", "iterations", "scored, Å", "to the true map, Å",
        "s of processors",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    for room in asked.room:
        particle.ROOM = room
        last = LastIteration()
        result = refine(
            asked.data / "particles.star", asked.data / "reference.mrc", mode=Local(),
            relax=Relax(asked.group), subgroups="none", callbacks=[last],
            particle_diameter=asked.particle_diameter,
        )  # fmt: skip
        row = judged(result, asked.data, asked.group, asked.particle_diameter)
        print(f"| {last.box} | {' | '.join(row)} | {last.seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
