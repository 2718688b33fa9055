"""What a refinement of many large images would take: an extrapolation from small ones.

Used by ``cost.py --extrapolate``. A C4 phantom with one partner is refined locally, registers
relaxed, in boxes of several sizes, the particle two thirds of the box wide and scored to two thirds
of Nyquist: as late iterations are. Each box has a process of its own. What is counted is processor
time (of all threads together), which other programs on the machine change less than wall time.

The law is that of the algorithm: what is done for every image grows with its pixels, N², what is
done for every map, and its memory, with voxels, N³, each with a constant. It is fitted to the boxes
that were measured; how far they are from it is printed beside.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxrelax.io import read_particles
from jaxrelax.refinement import Callback, Local, MaxIterations, refine
from jaxrelax.simulate import Simulation, simulate

EDGE_ANGSTROM = 333.0
FILLED = 2.0 / 3.0  # of the edge by the particle, and of Nyquist by the scored band
PASSES = 20
BOXES = (48, 64, 96, 128)
NUMBERS = (300, 900)
LARGE = ((50_000, 256), (200_000, 256), (50_000, 400), (200_000, 400))


class Clock(Callback):
    """Processor time of every iteration."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_start(self, problem, state) -> None:
        """Begin."""
        self._last = time.process_time()

    def on_step(self, problem, state, info) -> None:
        """An iteration ends."""
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now


def measure(folder: Path, box: int) -> dict[str, float]:
    """Processor seconds in this process, by images and by maps, and its peak memory.

    Of the two numbers of images the difference is what images take, and the rest is for maps.
    """
    pixel = EDGE_ANGSTROM / box
    config = Simulation(
        n_images=max(NUMBERS), box=box, pixel_size_angstrom=pixel, group="C4", snr=0.1
    )
    simulate("phantom", folder, config)
    everything = read_particles(folder / "particles.star")
    passes, rests, peak = [], [], 0.0
    for images in NUMBERS:
        for _ in range(2):  # the first run compiles
            clock, began = Clock(), time.process_time()
            result = refine(
                everything.select(np.arange(images)), folder / "reference.mrc", mode=Local(),
                relax="C4", until=MaxIterations(3), ini_high=2.0 * pixel / FILLED,
                particle_diameter=FILLED * EDGE_ANGSTROM, callbacks=[clock],
            )  # fmt: skip
            rest = time.process_time() - began - sum(clock.seconds)
        passes.append(min(clock.seconds[1:]))
        rests.append(rest)
        peak = result.peak_memory_gib
    found = {"peak_gib": peak}
    for name, (few, many) in (("pass", passes), ("rest", rests)):
        slope = (many - few) / (NUMBERS[1] - NUMBERS[0])
        found |= {f"{name}: image": slope, f"{name}: maps": few - slope * NUMBERS[0]}
    return found


@dataclass(frozen=True)
class Law:
    """A constant and a power of the box."""

    constant: float
    factor: float
    power: int
    off: float

    @classmethod
    def fitted(cls, boxes: list[int], values: list[float], power: int) -> Law:
        """By least squares of relative distances; neither term is below zero."""
        x, y = np.array(boxes, float) ** power, np.array(values)
        design = np.stack([1.0 / y, x / y], axis=1)
        constant, factor = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0]
        if constant < 0.0:
            constant, factor = 0.0, np.sum(x / y) / np.sum((x / y) ** 2)
        off = float(np.max(np.abs((constant + factor * x) / y - 1.0)))
        return cls(float(constant), float(factor), power, off)

    def at(self, box: int) -> float:
        """Its value."""
        return self.constant + self.factor * box**self.power


POWERS = {"pass: image": 2, "pass: maps": 3, "rest: image": 2, "rest: maps": 3, "peak_gib": 3}


def extrapolated(folder: Path) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Rows of two tables, each with its heading: what was measured, and what would be needed."""
    found = {box: _in_new_process(folder / str(box), box) for box in BOXES}
    laws = {
        name: Law.fitted(list(BOXES), [one[name] for one in found.values()], power)
        for name, power in POWERS.items()
    }
    measured: list[tuple[str, ...]] = [
        ("box, px", "pass: ms per image", "pass: s for maps", "once: ms per image",
         "once: s for maps", "peak memory, GiB")
    ]  # fmt: skip
    for box, one in found.items():
        measured.append((str(box), *_row(one)))
    off = (f"{100 * laws[name].off:.0f} %" for name in POWERS)
    measured.append(("furthest from the law", *off))
    needed: list[tuple[str, ...]] = [
        ("images", "box, px", "a pass, core-hours", f"{PASSES} passes and the end",
         "memory, GiB", "images on disk, GiB")
    ]  # fmt: skip
    for images, box in LARGE:
        at = {name: law.at(box) for name, law in laws.items()}
        one = (images * at["pass: image"] + at["pass: maps"]) / 3600
        end = (images * at["rest: image"] + at["rest: maps"]) / 3600
        disk = images * box**2 * 4 / 2**30
        needed.append(
            (f"{images:,}", str(box), f"{one:.1f}", f"{PASSES * one + end:.0f}",
             f"{at['peak_gib']:.0f}", f"{disk:.0f}")
        )  # fmt: skip
    return measured, needed


def _row(one: dict[str, float]) -> tuple[str, ...]:
    times = (
        1e3 * one["pass: image"],
        one["pass: maps"],
        1e3 * one["rest: image"],
        one["rest: maps"],
    )
    return (*(f"{value:.2f}" for value in times), f"{one['peak_gib']:.2f}")


def _in_new_process(folder: Path, box: int) -> dict[str, float]:
    folder.mkdir(parents=True)
    script = [sys.executable, __file__, str(folder), str(box)]
    output = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
