"""Neuraminidase with one Fab, images with known truth: registers, poses and map against the truth.

Judges finished refinements of a folder with ``particles.star``, ``truth.star``, ``truth_map.mrc``:

    jaxrelax refine DATA/particles.star --reference DATA/reference.mrc --relax C4 --out OUT
    python experiments/neuraminidase.py DATA OUT [OUT ...] [--oracle] [--true-start STAR]

``--true-start STAR`` only writes the particles with their consensus poses moved to the true
register; refine them with ``--start poses`` for the run that starts from the true registers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrelax.assessment import consensus_error, oracle_registers, register_accuracy
from jaxrelax.geometry import nearest_operator, point_group, pose_error_mod_group
from jaxrelax.imaging import RadialNoise
from jaxrelax.io import Particles, read_map, read_particles, write_star
from jaxrelax.reconstruction import fsc, resolution_shell, rotate_map, solvent_mask
from jaxrelax.refinement import Local, init
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.problem import make_problem
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.refinement.state import replaced

GROUP = "C4"


def tables(data: Path):
    """Consensus and true particles."""
    return read_particles(data / "particles.star"), read_particles(data / "truth.star")


def true_start(data: Path) -> Particles:
    """Consensus poses at the register mate nearest to the true pose."""
    consensus, truth = tables(data)
    operators = point_group(GROUP).operators
    mate, _ = nearest_operator(truth.rotations.mT @ consensus.rotations, operators)
    return consensus.with_updates(rotations=consensus.rotations @ operators[mate].mT)


def poses_under_true_map(data: Path, resolution_angstrom: float, passes: int = 4) -> float:
    """Median pose error (degrees) when the refinement's own search has the true map.

    Same search and the prior that the consensus errors really have; noise relearned.
    """
    consensus, truth = tables(data)
    start = true_start(data)
    rotation, shift = consensus_error(consensus, truth, GROUP)
    true_map, pixel = read_map(data / "truth_map.mrc")
    n = len(start)
    problem = make_problem(
        start, mode=Local(sigma_rotation_deg=rotation, sigma_shift_angstrom=shift), relax=None,
        symmetry="C1", noise=RadialNoise(), map_box=len(true_map), map_pixel_size_angstrom=pixel,
        particle_diameter_angstrom=0.65 * len(true_map) * pixel, register_mask=None,
        half_set=np.ones(n, np.int8), fold=np.zeros(n, int), normalise=False, seed=0,
        cache_bytes=2**30,
    )  # fmt: skip
    state = init(problem, true_map, ini_high_angstrom=resolution_angstrom)
    nothing = np.zeros((n, 1), np.float32)
    for _ in range(passes):
        shell = problem.shells.rung(state.score_shell)
        found = expectation(problem, state, shell, n_folds=1, weights_override=nothing)
        state = state.replace(
            poses=replaced(
                state.poses, rotations=found.rotations, origins_angstrom=found.origins_angstrom
            ),
            noise_power=problem.plan.noise.update(state.noise_power, found.residual, found.count),
        )
    identity = point_group("C1")
    errors = pose_error_mod_group(state.poses.rotations, truth.rotations, identity)
    return float(np.rad2deg(np.median(errors)))


def judge(data: Path, out: Path, reference_curve, mask) -> None:
    """Print registers, poses and map of one refinement."""
    truth = read_particles(data / "truth.star")
    result = read_particles(out / "particles.star")
    told = json.loads((out / "result.json").read_text())
    history = pd.read_csv(out / "history.csv")
    accuracy = register_accuracy(result, truth, GROUP)
    print(f"\n{out}\n{accuracy.summary()}")
    print(f"time {told['seconds']:.0f} s, peak memory {told['peak_memory_gib']:.2f} GiB")
    limit = float(history["score_resolution_angstrom"].iloc[-1])
    best = poses_under_true_map(data, limit)
    print(
        f"median pose error of the same search against the true map, scored to {limit:.2f} Å: "
        f"{best:.2f}°, ratio {accuracy.pose_error_deg / best:.2f}"
    )
    true_map, _ = read_map(data / "truth_map.mrc")
    final, pixel = read_map(out / "map.mrc")
    operator = point_group(GROUP).operators[accuracy.operator_index]
    curve = fsc(rotate_map(final, operator), true_map, mask)
    end = resolution_shell(reference_curve, 0.5)
    worst = int(np.argmax((reference_curve - curve)[1 : end + 1])) + 1
    print("shell  Å      FSC(map, truth)  FSC(true poses, truth)")
    for shell in range(2, end + 1, max(end // 16, 1)):
        print(
            f"{shell:5d}  {len(final) * pixel / shell:5.1f}  {curve[shell]:15.3f}  "
            f"{reference_curve[shell]:15.3f}"
        )
    print(
        f"largest deficit up to shell {end} ({len(final) * pixel / end:.1f} Å): "
        f"{(reference_curve - curve)[worst]:.3f} at shell {worst}"
    )


def main() -> None:
    """Parse, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="*")
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--true-start", type=Path)
    asked = parser.parse_args()
    if asked.true_start:
        write_star(true_start(asked.data), asked.true_start)
        return
    consensus, truth = tables(asked.data)
    true_map, pixel = read_map(asked.data / "truth_map.mrc")
    if asked.oracle:
        best = oracle_registers(truth, true_map, pixel_size_angstrom=pixel, group=GROUP)
        print(
            f"oracle (true map and poses): accuracy {best.accuracy:.4f}, "
            f"mean max posterior {best.mean_max_posterior:.4f}"
        )
    errors = pose_error_mod_group(consensus.rotations, truth.rotations, point_group(GROUP))
    rotation, shift = consensus_error(consensus, truth, GROUP)
    print(
        f"consensus: median pose error {np.rad2deg(np.median(errors)):.2f}°, per axis "
        f"{rotation:.2f}° and {shift:.2f} Å"
    )
    mask = solvent_mask(true_map, pixel)
    best_map, _ = reconstruct(truth)
    reference_curve = fsc(best_map, true_map, mask)
    for out in asked.out:
        judge(asked.data, out, reference_curve, mask)


if __name__ == "__main__":
    main()
