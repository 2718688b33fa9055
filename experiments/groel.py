"""GroEL-GroES: D7 to the eye at low resolution, C7 with its GroES cap. Does the test say so?

    python experiments/groel.py 1aon.pdb.gz --out groel [--specimen crystal]

Simulates particles of 1AON with the poses that a D7 refinement leaves, asks ``test_symmetry`` for
the symmetry that the images support, and refines with D7 relaxed to C7. The subunits of the
crystal differ among themselves (0.4 Å rms; the FSC of the map with its own C7 turn is 0.99 at
12 Å), which images of high SNR show; ``averaged``, the default, takes the model's C7 average, so
that C7 is exact and the only right answer.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np

from jaxrelax.assessment import register_accuracy
from jaxrelax.geometry import parse_group
from jaxrelax.io import read_map, read_particles, write_map
from jaxrelax.reconstruction import fsc, rotate_map, soft_sphere
from jaxrelax.refinement import Local, Mode, Registers, Relax, Result, refine
from jaxrelax.simulate import Projector, Simulation, model_atoms, simulate

GROUP, KEPT = "D7", "C7"
CAP = "O,P,Q,R,S,T,U"  # the seven chains of GroES
BFACTOR_ANGSTROM2 = 100.0


def averaged_map(model: Path, box: int, pixel: float, path: Path) -> Path:
    """The model's density averaged over the operators of C7, on the axes of D7."""
    atoms, _, _ = model_atoms(model, parse_group(GROUP), assembly="", partner_chains=(CAP,))
    projector = Projector(atoms, box, pixel, BFACTOR_ANGSTROM2, None)
    write_map(path, projector.map(operators=parse_group(KEPT).operators), pixel)
    return path


def report_test(result: Result) -> dict:
    """The table of subgroups, and what it supports."""
    evidence = result.evidence
    for row in evidence.subgroups:
        print(f"  {row.name:12} log10 p {row.log10_p:9.1f}  z {row.z_score:7.2f}")
    largest = float(result.registers.max(axis=1).mean())
    print(f"  supported: {evidence.supported}; mean largest posterior {largest:.3f}")
    return {
        "supported": evidence.supported,
        "subgroups": [[r.name, r.log10_p, r.z_score] for r in evidence.subgroups],
        "mean_max_posterior": largest,
        "seconds": result.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("groel"))
    parser.add_argument("--specimen", choices=("averaged", "crystal"), default="averaged")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--box", type=int, default=72)
    parser.add_argument("--pixel", type=float, default=5.0, help="Å")
    parser.add_argument("--pose-error", type=float, default=1.0, help="degrees; 0: exact poses")
    parser.add_argument("--ini-high", type=float, default=20.0, help="Å")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    asked.out.mkdir(parents=True, exist_ok=True)

    source: Path | str = asked.model
    chains: dict = {"assembly": "", "partner_chains": (CAP,)}
    if asked.specimen == "averaged":
        source = averaged_map(asked.model, asked.box, asked.pixel, asked.out / "averaged.mrc")
        chains = {}
    data = simulate(
        source, asked.out / "data",
        Simulation(
            n_images=asked.images, box=asked.box, pixel_size_angstrom=asked.pixel, group=GROUP,
            snr=asked.snr, pose_error_deg=asked.pose_error, shift_error_angstrom=asked.pose_error,
            seed=asked.seed, **chains,
        ),
    )  # fmt: skip
    particles, truth = read_particles(data.particles), read_particles(data.truth)
    true_map = read_map(data.truth_map)[0]
    turned = rotate_map(true_map, parse_group(KEPT).operators[1])
    shell = round(asked.box * asked.pixel / 12.0)
    print(f"FSC of the true map with its own C7 turn at 12 Å: {fsc(true_map, turned)[shell]:.4f}")
    mode: Mode = Registers()
    if asked.pose_error > 0.0:
        mode = Local(sigma_rotation_deg=asked.pose_error, sigma_shift_angstrom=asked.pose_error)

    def relaxed(to: str, subgroups) -> Result:
        return refine(
            particles, data.reference, mode=mode, relax=Relax(GROUP, to=to),
            ini_high=asked.ini_high, seed=asked.seed, subgroups=subgroups,
        )  # fmt: skip

    print(f"{GROUP} with everything between it and C1:", flush=True)
    found = {"options": {k: str(v) for k, v in vars(asked).items()}}
    found["test"] = report_test(relaxed("C1", "all"))
    print(f"{GROUP} relaxed to {KEPT}:", flush=True)
    result = relaxed(KEPT, "all")
    found["refinement"] = report_test(result)
    accuracy = register_accuracy(result, truth, GROUP, KEPT)
    # What lies outside the sphere turns out of the box.
    inside = soft_sphere(len(result.map), 0.42 * len(result.map), 4.0)
    kept = result.map * inside
    left = [
        float(np.linalg.norm(kept - rotate_map(result.map, g) * inside) / np.linalg.norm(kept))
        for g in parse_group(KEPT).operators[1:]
    ]
    found["refinement"] |= {"accuracy": accuracy.accuracy, "deviation_from_kept": max(left)}
    print(f"  register accuracy {accuracy.accuracy:.3f}; the map differs from its {KEPT} turns")
    print(f"  by {max(left):.2g} of its norm at most; {result.resolution_angstrom:.1f} Å")
    (asked.out / "groel.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
