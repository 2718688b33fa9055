"""What is moved to the device in one iteration, and that it grows only where it must.

    python experiments/benchmarks/transfers.py [--images 240] [--box 48]

A phantom of C4 is relaxed at its poses. Of the third iteration, which scores with the sums of the
folds, every transfer to the device is counted with its bytes, as JAX's transfer guard logs it: as a
processor goes through it, where maps are made by NumPy and FINUFFT and handed over, and as an
accelerator does, where they are made by programs (the backend's name is changed for that; nothing
else can be without one). Then the same with twice the images and with twice the folds. Arrays with
a row for each image of a batch are counted apart: they are what has to come in.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from jaxrelax.refinement import Registers, Relax, prepare, step
from jaxrelax.simulate import Simulation, simulate

LOGGED = re.compile(r"host-to-device transfer: (?:aval=ShapedArray\((\w+)\[([\d,]*)\]\))?")
ITERATION, END = "--- iteration", "--- end"


def child(images: int, box: int, folds: int, accelerator: bool) -> None:
    """Two iterations, and a third one whose transfers are logged."""
    with tempfile.TemporaryDirectory() as folder:
        data = simulate(
            "phantom", folder,
            Simulation(
                n_images=images, box=box, pixel_size_angstrom=4.5 * 56 / box, group="C4",
                protomer_kda=30.0, partner_kda=45.0, snr=0.15, max_shift_angstrom=8.0, seed=3,
            ),
        )  # fmt: skip
        relax = Relax("C4", cross_fit=folds)
        setup = prepare(data.particles, data.reference, mode=Registers(), relax=relax)
        name = "cuda" if accelerator else "cpu"
        with mock.patch.object(jax, "default_backend", return_value=name):
            state, execution = setup.state, setup.problem.execution
            for _ in range(2):
                state, _ = step(setup.problem, state)
            shell = setup.problem.shells.rung(state.score_shell)
            size = execution.batch_size(execution.geometry(0, shell, shell).n_inner)
            print(f"{ITERATION} {size}", file=sys.stderr, flush=True)
            with jax.transfer_guard("log_explicit"):
                step(setup.problem, state)
            print(END, file=sys.stderr, flush=True)


def counted(images: int, box: int, folds: int, accelerator: bool) -> tuple[list[int], list[int]]:
    """(number, bytes) of what has a row for each image of a batch, and of everything else."""
    options = [str(images), str(box), str(folds), str(int(accelerator))]
    text = subprocess.run(
        [sys.executable, __file__, "--child", *options], stderr=subprocess.PIPE, check=True,
        text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ).stderr  # fmt: skip
    inside = text[text.index(ITERATION) : text.index(END)]
    size = int(inside[len(ITERATION) :].split(maxsplit=1)[0])
    batches, others = [0, 0], [0, 0]
    for kind, shape in LOGGED.findall(inside):
        lengths = [int(n) for n in shape.split(",") if n]
        row = batches if lengths[:1] == [size] else others
        row[0] += 1
        row[1] += int(np.prod(lengths)) * np.dtype(kind).itemsize if kind else 0
    return batches, others


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--box", type=int, default=48)
    parser.add_argument("--child", nargs=4, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        images, box, folds, accelerator = asked.child
        child(images, box, folds, bool(accelerator))
        return
    print(
        "| as | images | folds | with batches: puts, MB | else: puts, MB |\n|---|---|---|---|---|"
    )
    for accelerator in (False, True):
        for images, folds in ((asked.images, 5), (2 * asked.images, 5), (asked.images, 10)):
            found = counted(images, asked.box, folds, accelerator)
            cells = [f"{number}, {size / 1e6:.2f}" for number, size in found]
            name = "an accelerator" if accelerator else "a processor"
            print(f"| {name} | {images} | {folds} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
