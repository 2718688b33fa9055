"""Occupancy patterns: what can be told at best, what a refinement tells, and the populations.

    python experiments/occupancy.py OUT --model 6q20.cif.gz [--sets c4 c4-pairs c6] [--snr 0.1]
        [--images 2000] [--refine [--options --poses held]]

Simulates neuraminidase with Fabs (6Q20, C4) whose sites are occupied independently at p = 0.5, the
same with pairs of opposite Fabs favoured at the same mean occupancy, and a C6 phantom at p = 0.5.
Prints the accuracy of the Bayes-optimal posterior under the true maps and the populations that
follow from it; with ``--refine`` those of ``jaxrelax refine --mode classification --states
patterns`` from its ``particles.star`` and ``registers.npz``, against the truth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxrelax.assessment import (
    PatternAccuracy,
    Populations,
    matching_rows,
    oracle_patterns,
    populations,
)
from jaxrelax.geometry import OccupancyPatterns, occupancy_patterns, point_group
from jaxrelax.io import Particles, read_map, read_particles
from jaxrelax.simulate import Simulation, simulate

# Fabs of 6Q20 in ring order.
FABS = ("H1,L1", "H3,L3", "H2,L2", "H4,L4")
# Mean occupancy one half; independent sites would have 1/16, 4/16, 4/16, 2/16, 4/16, 1/16.
PAIRS = "0000:0.15,1000:0.1,1100:0.1,1010:0.4,1110:0.1,1111:0.15"

NEURAMINIDASE = Simulation(
    n_images=2000,
    box=64,
    pixel_size_angstrom=5.0,
    group="C4",
    partner_chains=FABS,
    occupancy="0.5",
    max_shift_angstrom=8.0,
)
PHANTOM = Simulation(
    n_images=2000,
    box=64,
    pixel_size_angstrom=5.0,
    group="C6",
    protomer_kda=30.0,
    partner_kda=45.0,
    occupancy="0.5",
    max_shift_angstrom=8.0,
)


@dataclass(frozen=True)
class Set:
    """A data set: what is simulated, and at what SNR unless another is asked for."""

    config: Simulation
    snr: float
    of_model: bool = True


SETS = {
    "c4": Set(NEURAMINIDASE, 0.1),
    "c4-pairs": Set(replace(NEURAMINIDASE, occupancy=PAIRS), 0.1),
    "c6": Set(PHANTOM, 0.1, of_model=False),
}


def data_set(name: str, folder: Path, model: Path | None, snr: float | None, n: int | None) -> None:
    """Simulate, unless the folder has the data set already."""
    if (folder / "simulation.json").exists():
        return
    chosen = SETS[name]
    config = replace(chosen.config, snr=snr or chosen.snr, n_images=n or chosen.config.n_images)
    if chosen.of_model and model is None:
        raise SystemExit(f"{name}: give --model, the file of 6Q20")
    simulate(model if chosen.of_model and model else "phantom", folder, config)


def true_shares(truth: Particles, patterns: OccupancyPatterns) -> np.ndarray:
    """Of the particles of this data set."""
    states = truth.column("rlnClassNumber")
    assert states is not None
    counts = np.bincount([int(s) for s in states], minlength=len(patterns) + 1)[1:]
    return counts / counts.sum()


def oracle(folder: Path, group: str) -> PatternAccuracy:
    """Bayes-optimal patterns of a data set."""
    truth = read_particles(folder / "truth.star")
    maps = [read_map(path)[0] for path in sorted(folder.glob("truth_map_*.mrc"))]
    return oracle_patterns(truth, maps, group=group)


def report(found: Populations, truth: Particles, posteriors: np.ndarray, rows: np.ndarray) -> None:
    """Populations beside the truth, accuracy, and how far off they are in standard errors."""
    shares = true_shares(truth, found.patterns)
    print(found.summary())
    apart = (found.populations - shares) / found.standard_errors
    print("of these images   " + " ".join(f"{share:.4f}" for share in shares))
    # The errors are about the fractions behind the images; these ones' own are nearer.
    print("apart, in errors  " + " ".join(f"{each:+.1f}" for each in apart))
    print(f"largest difference {np.abs(found.populations - shares).max():.4f}")
    column = truth.column("rlnClassNumber")
    assert column is not None
    states = np.array([int(s) for s in column])[rows] - 1
    there = states >= 0
    correct = posteriors.argmax(axis=1)[there] == states[there]
    print(
        f"accuracy of the patterns {correct.mean():.4f}, mean max posterior "
        f"{posteriors.max(axis=1)[there].mean():.4f}"
    )


def refined(folder: Path, group: str, extra: list[str]) -> Path:
    """Classify into patterns with the command line, from the consensus."""
    out = folder / "refined"
    command = [
        *(sys.executable, "-m", "jaxrelax.cli", "refine", str(folder / "particles.star")),
        *("--reference", str(folder / "reference.mrc"), "--relax", group),
        *("--mode", "classification", "--states", "patterns", "--out", str(out), *extra),
    ]
    print("$ " + " ".join(command), flush=True)
    start = time.monotonic()
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"{folder}: the refinement failed")
    print(f"{time.monotonic() - start:.0f} s")
    return out


def posteriors_of(out: Path, patterns: OccupancyPatterns) -> tuple[Particles, np.ndarray]:
    """Particles of a run, and their posterior of the patterns.

    ``posterior`` of ``registers.npz`` has a column for each register of each pattern, in the order
    of the patterns.
    """
    particles = read_particles(out / "particles.star")
    with np.load(out / "registers.npz") as stored:
        joint = stored["posterior"].astype(np.float64)
    starts = np.cumsum([0, *patterns.multiplicity])
    if joint.shape != (len(particles), starts[-1]):
        raise SystemExit(
            f"{out}/registers.npz: posterior of shape {joint.shape}; expected "
            f"({len(particles)}, {starts[-1]}), all registers of all patterns"
        )
    states = np.add.reduceat(joint, starts[:-1], axis=1)
    return particles, states / states.sum(axis=1, keepdims=True)


def judge(folder: Path, out: Path, patterns: OccupancyPatterns) -> None:
    """Populations of a run against the truth."""
    truth = read_particles(folder / "truth.star")
    particles, posteriors = posteriors_of(out, patterns)
    junk = particles.column("jrxJunkProbability")
    shows = None if junk is None else 1.0 - np.array([float(each) for each in junk])
    report(
        populations(patterns, posteriors, shows), truth, posteriors, matching_rows(particles, truth)
    )


def main() -> None:
    """Simulate, print the ceiling, refine if asked, print the populations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, help="6q20.cif.gz")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--snr", type=float)
    parser.add_argument("--images", type=int)
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of refine")
    asked = parser.parse_args()
    for name in asked.sets:
        folder, group = asked.out / name, SETS[name].config.group
        patterns = occupancy_patterns(point_group(group))
        data_set(name, folder, asked.model, asked.snr, asked.images)
        start = time.monotonic()
        best = oracle(folder, group)
        print(
            f"\n{name}: oracle accuracy {best.accuracy:.4f}, mean max posterior "
            f"{best.mean_max_posterior:.4f}, register within the right pattern "
            f"{best.register_accuracy:.4f} ({time.monotonic() - start:.0f} s)"
        )
        truth = read_particles(folder / "truth.star")
        found = populations(patterns, best.states, prior=np.maximum(best.fractions, 1e-6))
        report(found, truth, best.states, best.judged)
        if asked.refine:
            judge(folder, refined(folder, group, asked.options), patterns)


if __name__ == "__main__":
    main()
