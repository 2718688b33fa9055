"""Relax and reconstruct at held poses before each pose search, or in every iteration at once.

    python experiments/inner_iterations.py [--seeds K] [--inner 0 2 5]

Small phantoms with wrong poses, refined from the symmetric map with ``Relax(inner_iterations=n)``:
0 is the plain order, in which every iteration searches poses and registers together. Prints a table
of register accuracy, the median pose error that is left, iterations, how many of them searched
poses, and the time as a ratio to the plain order.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
from sweeps import INI_HIGH_ANGSTROM, DataSet, Point, data_set, relaxation

from jaxrelax.assessment import register_accuracy
from jaxrelax.geometry import parse_group, pose_error_mod_group
from jaxrelax.refinement import Result, refine

POINTS = (
    Point("C4", 10.0, 0.15, 800, pose_error_deg=3.0),
    Point("C4", 10.0, 0.15, 800, pose_error_deg=6.0),
    Point("C3", 10.0, 0.3, 800, pose_error_deg=6.0),
    Point("D2", 10.0, 0.15, 800, pose_error_deg=3.0),
)


def refined(data: DataSet, inner: int) -> Result:
    """One refinement from the symmetric map."""
    relax = dataclasses.replace(relaxation("ours", data.point.group), inner_iterations=inner)
    return refine(
        data.consensus, data.folder / "reference.mrc", mode=data.mode, relax=relax,
        ini_high=INI_HIGH_ANGSTROM, seed=data.seed, subgroups="none",
    )  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--inner", type=int, nargs="+", default=[0, 2, 5])
    asked = parser.parse_args()
    print("| data | inner | accuracy | pose error, ° | iterations | with a search | time, ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for point in POINTS:
        for seed in range(asked.seeds):
            with data_set(point, seed) as data:
                plain = 0.0
                for inner in asked.inner:
                    began = time.perf_counter()
                    result = refined(data, inner)
                    seconds = time.perf_counter() - began
                    plain = plain or seconds
                    group = parse_group(point.group)
                    found = register_accuracy(result.particles, data.truth, group)
                    error = pose_error_mod_group(result.poses, data.truth.rotations, group)
                    searched = sum(row["held_poses"] == 0.0 for row in result.history)
                    print(
                        f"| {point.group}, SNR {point.snr:g}, {point.pose_error_deg:g}°, seed "
                        f"{seed} | {inner} | {found.accuracy:.3f} | "
                        f"{np.rad2deg(np.median(error)):.2f} | {len(result.history)} | {searched} "
                        f"| {seconds / plain:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
