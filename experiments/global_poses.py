"""Poses from nothing beside those of a local refinement from the truth, on images of known truth.

    python experiments/global_poses.py DATA [--group C4] [--ini-high 30] [--images N]

DATA holds ``particles.star``, ``truth.star`` and ``reference.mrc``. Five refinements under the
group, pose errors modulo the group after every iteration:

- ``nothing``: poses and shifts of the table are thrown away, the reference is low-passed;
- ``reference``: the same from the reference up to 9 Å, to see what the way there costs;
- ``truth``: the local search of ``Homogeneous`` from the true poses. Its prior lies around them,
  and no refinement of unknown poses knows as much;
- ``wide`` and ``widest``: the same with a prior twice and four times as wide.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from jaxrelax.geometry import point_group, pose_error_mod_group
from jaxrelax.io import Particles, read_particles
from jaxrelax.refinement import Homogeneous, MaxIterations, Mode, ResolutionStalled, iterate

WRONG_DEG = 15.0
REFERENCE_ANGSTROM = 9.0  # as far as a good reference is believed


def without_poses(particles: Particles) -> Particles:
    """The particles as they come from picking."""
    n = len(particles)
    return particles.with_updates(
        rotations=np.tile(np.eye(3), (n, 1, 1)), origins_angstrom=np.zeros((n, 2))
    )


def main() -> None:
    """Run the refinements and print a table of every iteration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--group", default="C4")
    parser.add_argument("--ini-high", type=float, default=30.0)
    parser.add_argument("--images", type=int)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument(
        "--starts", nargs="+", default=["nothing", "reference", "truth", "wide", "widest"]
    )
    arguments = parser.parse_args()

    truth = read_particles(arguments.data / "truth.star")
    particles = read_particles(arguments.data / "particles.star")
    rows = np.arange(len(truth))[: arguments.images]
    truth, particles = truth.select(rows), particles.select(rows)
    local = Homogeneous().local
    wide, widest = (
        dataclasses.replace(
            local,
            sigma_rotation_deg=factor * local.sigma_rotation_deg,
            sigma_shift_angstrom=factor * local.sigma_shift_angstrom,
        )
        for factor in (2.0, 4.0)
    )
    true_poses = particles.with_updates(
        rotations=truth.rotations, origins_angstrom=truth.origins_angstrom
    )
    starts: dict[str, tuple[Particles, Mode, float]] = {
        "nothing": (without_poses(particles), Homogeneous(), arguments.ini_high),
        "reference": (without_poses(particles), Homogeneous(), REFERENCE_ANGSTROM),
        "truth": (true_poses, local, arguments.ini_high),
        "wide": (true_poses, wide, arguments.ini_high),
        "widest": (true_poses, widest, arguments.ini_high),
    }
    group = point_group(arguments.group)
    print(f"| start | iteration | search | resolution, Å | median, ° | off by > {WRONG_DEG:.0f}° |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.starts:
        table, mode, ini_high = starts[name]
        for state, info in iterate(
            table, arguments.data / "reference.mrc", mode=mode, symmetry=arguments.group,
            ini_high=ini_high, until=ResolutionStalled() | MaxIterations(arguments.iterations),
        ):  # fmt: skip
            found = state.poses.rotations
            error = np.rad2deg(pose_error_mod_group(found, truth.rotations, group))
            search = (
                "global" if info.searched_globally else "local" if mode.needs_poses else "modes"
            )
            print(
                f"| {name} | {info.iteration} | {search} | {info.resolution_angstrom:.1f} | "
                f"{np.median(error):.2f} | {np.mean(error > WRONG_DEG):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
