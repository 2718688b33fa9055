"""Images at draws from the posterior of their poses, or at its peaks: registers, poses and map.

    python experiments/draws.py DATA [--draws 0 2 4] [--group C4]

DATA holds ``particles.star``, ``truth.star``, ``truth_map.mrc`` and ``reference.mrc``. Relaxed
refinements from the poses in the table, in which an image goes into the map at so many draws, 0
being the peak. Prints register accuracy, pose errors (modulo the group), and the resolution of the
unfiltered half-maps' mean beside the true map in a sphere (FSC 0.5).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from jaxrelax.geometry import point_group, pose_error_mod_group, register_agreement
from jaxrelax.inference import GaussNewton
from jaxrelax.io import read_map, read_particles
from jaxrelax.reconstruction import fsc, resolution_shell, rotate_map, soft_sphere
from jaxrelax.refinement import Local, Relax, Result, refine

EDGE_PX = 5.0


def to_the_truth_angstrom(result: Result, folder: Path, group: str, diameter: float) -> float:
    """Resolution beside the true map, in the register of the group that agrees best."""
    true_map, pixel = read_map(folder / "truth_map.mrc")
    mean = 0.5 * (result.half_maps[0] + result.half_maps[1])
    mask = soft_sphere(len(mean), 0.5 * diameter / pixel, EDGE_PX)
    curves = [fsc(rotate_map(mean, g), true_map, mask) for g in point_group(group).operators]
    return len(mean) * pixel / max(resolution_shell(curve, 0.5) for curve in curves)


def judged(result: Result, folder: Path, group: str, diameter: float) -> list[str]:
    """Share of right registers, median pose error (°), iterations, band (Å), map (Å): as text."""
    truth, operators = read_particles(folder / "truth.star"), point_group(group)
    found = result.particles.rotations
    right = register_agreement(found, truth.rotations, operators, point_group("C1")).fraction
    error = np.rad2deg(np.median(pose_error_mod_group(found, truth.rotations, operators)))
    scored = result.history[-1]["score_resolution_angstrom"]
    beside = to_the_truth_angstrom(result, folder, group, diameter)
    numbers = f"{right:.3f}", f"{error:.2f}", f"{len(result.history)}", f"{scored:.1f}"
    return [*numbers, f"{beside:.2f}"]


def main() -> None:
    """Refine and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--group", default="C4")
    parser.add_argument("--particle-diameter", type=float, default=220.0, help="Å")
    asked = parser.parse_args()
    print("| draws | accuracy | pose error, ° | iterations | scored, Å | to the true map, Å |")
    print("| --- | --- | --- | --- | --- | --- |")
    for draws in asked.draws:
        result = refine(
            asked.data / "particles.star", asked.data / "reference.mrc",
            mode=Local(pose_search=GaussNewton(n_draws=draws)), relax=Relax(asked.group),
            subgroups="none",
        )  # fmt: skip
        row = judged(result, asked.data, asked.group, asked.particle_diameter)
        print(f"| {draws} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
