"""Predicted register accuracy against the oracle's: does what CTF, noise and pose say come true?

    python experiments/discriminability.py [--na FOLDER] [--control FOLDER] [--out TABLE.csv]

Simulates phantoms of several groups, partners and noise levels, and compares on each, with the
true map and the same band: the mean expected accuracy (no image looked at) and the accuracy of the
oracle (registers inferred from the images), at the true poses and at the consensus poses under
their prior. The last columns predict with a ball of protein in place of the true partner, as one
would before any refinement.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrelax.assessment import (
    consensus_error,
    oracle_registers,
    partner_ball,
    predict_registers,
)
from jaxrelax.geometry import parse_group
from jaxrelax.io import read_map, read_particles
from jaxrelax.refinement import Local, Map, Registers
from jaxrelax.simulate import Simulation, simulate

RESOLUTION_ANGSTROM = 12.0
COMMON = dict(n_images=1000, box=72, pixel_size_angstrom=4.0, dtype="float32")
PHANTOMS = {
    "C2, 20 kDa": dict(group="C2", partner_kda=20.0, snr=0.02),
    "C4, 25 kDa": dict(group="C4", partner_kda=25.0, snr=0.03),
    "C4, 45 kDa, noisy": dict(group="C4", partner_kda=45.0, snr=0.008),
    "C4, 45 kDa, 5° and 3 Å off": dict(
        group="C4", partner_kda=45.0, snr=0.015, pose_error_deg=5.0, shift_error_angstrom=3.0
    ),
    "D2, 15 kDa": dict(group="D2", partner_kda=15.0, snr=0.06),
    "C7, 30 kDa, two optics groups": dict(
        group="C7", partner_kda=30.0, snr=0.04, n_optics_groups=2
    ),
    "C4, all four (control)": dict(group="C4", partner_kda=45.0, snr=0.03, occupancy="all"),
}


def compare(folder: Path, group: str, partner_kda: float) -> dict[str, float]:
    """One row of the table."""
    particles, truth = (read_particles(folder / f"{n}.star") for n in ("particles", "truth"))
    true_map, pixel = read_map(folder / "truth_map.mrc")
    reference, _ = read_map(folder / "reference.mrc")
    rotation, shift = consensus_error(particles, truth, group)
    local = Local(sigma_rotation_deg=rotation, sigma_shift_angstrom=shift)
    row = {}
    for name, mode, table in (("true poses", Registers(), truth), ("prior", local, particles)):
        predicted = predict_registers(
            table, Map(true_map, pixel), group, mode=mode, max_resolution=RESOLUTION_ANGSTROM
        )
        oracle = oracle_registers(
            truth, true_map, pixel_size_angstrom=pixel, group=group, mode=mode,
            max_resolution_angstrom=RESOLUTION_ANGSTROM,
            poses=None if table is truth else table,
        )  # fmt: skip
        row |= {f"{name}: predicted": predicted.mean_accuracy, f"{name}: oracle": oracle.accuracy}
        row[f"{name}: max posterior"] = oracle.mean_max_posterior
    row["nats"] = float(predicted.nats.mean())
    held = oracle_registers(
        truth, true_map, pixel_size_angstrom=pixel, group=group, poses=particles,
        max_resolution_angstrom=RESOLUTION_ANGSTROM,
    )  # fmt: skip
    row["consensus held: oracle"] = held.accuracy
    ball = partner_ball(reference, pixel, parse_group(group), partner_kda)
    guessed = predict_registers(
        particles, Map(reference + ball, pixel), group, mode=local,
        max_resolution=RESOLUTION_ANGSTROM,
    )  # fmt: skip
    row |= {"ball: predicted": guessed.mean_accuracy, "ball: nats": float(guessed.nats.mean())}
    if predicted.nats.mean() < 1e-6:
        # No register exists: which of the equal ones comes first is no accuracy.
        row |= {name: np.nan for name in row if name.endswith("oracle")}
    row["standard error"] = float(np.sqrt(oracle.accuracy * (1 - oracle.accuracy) / len(truth)))
    return row


def main() -> None:
    """Simulate, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--na", type=Path, help="neuraminidase with one Fab (shared data)")
    parser.add_argument("--control", type=Path, help="neuraminidase with four Fabs (shared data)")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = {}
    for name, options in PHANTOMS.items():
        with tempfile.TemporaryDirectory() as folder:
            config = Simulation(**(COMMON | options))
            simulate("phantom", folder, config)
            rows[name] = compare(Path(folder), config.group, config.partner_kda)
        print(name, rows[name], flush=True)
    for name, given in (("neuraminidase, one Fab", asked.na), ("four Fabs", asked.control)):
        if given is not None:
            rows[name] = compare(given, "C4", 47.0)
    table = pd.DataFrame(rows).T
    print(table.round(3).to_string())
    if asked.out:
        table.to_csv(asked.out, float_format="%.4f")


if __name__ == "__main__":
    main()
