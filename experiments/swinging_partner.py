"""A partner that swings: relaxed, then refined by itself with its mask.

    python experiments/swinging_partner.py OUT --model 6q20.cif.gz [--docs docs]

Simulates neuraminidase with one Fab that swings about its hinge (10° rms; 1,500 images of 128 px at
2.6 Å, SNR 0.03), refines it with ``--relax C4``, and then refines the Fab from where that left it:
`jaxrelax refine OUT/relaxed/particles.star --mask fab.mrc`. The mask is that of the truth, turned
into the frame of the relaxed map. What both know of the Fab's own pose, over the images whose
register is right, and to which resolution its half-maps agree inside the mask; and the FSC with the
true Fab. ``--docs`` puts the table into guide/local.md. A quarter of an hour on two cores; what is
there already is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pages import quote, table
from scipy import ndimage

from jaxrelax.assessment import register_accuracy
from jaxrelax.cli import main as jaxrelax
from jaxrelax.geometry import (
    euler_to_matrix,
    recentred_origins,
    rotation_angle,
)
from jaxrelax.io import Particles, read_map, read_particles, write_map
from jaxrelax.reconstruction import corrected_fsc, fsc, resolution_shell, rotate_map
from jaxrelax.refinement.subtraction import mass_centre

SIMULATED = (
    *("--symmetry", "C4", "--delete-chains", "H2", "L2", "H3", "L3", "H4", "L4"),
    *("--n-images", 1500, "--snr", 0.03, "--box", 128, "--pixel-size-angstrom", 2.6),
    *("--pose-error-deg", 1.5, "--shift-error-angstrom", 0.8, "--swing", 10, "--seed", 3),
)
GROUP = "C4"


class Known(NamedTuple):
    """What a run knows of the partner.

    Attributes:
        angle_deg: median error of its orientation.
        rms_deg: root mean square error.
        place_angstrom: median distance of its centre in the images from where it is.
        resolution_angstrom: half-maps inside the mask, FSC at 0.143 corrected for the mask.
        to_truth_angstrom: FSC with the true partner inside the mask at 0.5.
    """

    angle_deg: float
    rms_deg: float
    place_angstrom: float
    resolution_angstrom: float
    to_truth_angstrom: float


def run(*words: object) -> None:
    """A command of jaxrelax; its failure ends the experiment."""
    code = jaxrelax([str(word) for word in words])
    if code:
        raise SystemExit(code)


def part_truth(truth: Particles) -> tuple[np.ndarray, np.ndarray]:
    """Poses and origins of the partner."""

    def column(name: str) -> np.ndarray:
        return np.asarray(truth.column(name), np.float64)

    angles = [column(f"jrxPartAngle{name}") for name in ("Rot", "Tilt", "Psi")]
    origins = [column(f"jrxPartOrigin{axis}Angst") for axis in "XY"]
    return euler_to_matrix(*angles), np.stack(origins, axis=1)


def known(folder: Path, truth: Particles, right, operator, mask, true_part, pixel) -> Known:
    """What a finished run knows of the partner."""
    found = read_particles(folder / "particles.star")
    rotations, origins = part_truth(truth)
    angle = np.rad2deg(rotation_angle(found.rotations @ operator.T @ np.swapaxes(rotations, 1, 2)))
    # Of the truth's frame; the map of the run is turned against it.
    centre = mass_centre(mask, pixel)
    here = -recentred_origins(found.origins_angstrom, found.rotations, centre)
    there = -recentred_origins(origins, rotations, operator @ centre)
    apart = np.linalg.norm(here - there, axis=1)
    halves = [read_map(folder / f"half{k}.mrc")[0] for k in (1, 2)]
    curves = corrected_fsc(*halves, mask, np.random.default_rng(0))
    shell = resolution_shell(curves["corrected"])
    mean = 0.5 * (halves[0] + halves[1])
    with_truth = fsc(mean * mask, true_part * mask)
    edge = len(mask) * pixel
    return Known(
        float(np.median(angle[right])),
        float(np.sqrt(np.mean(angle[right] ** 2))),
        float(np.median(apart[right])),
        edge / max(shell, 1),
        edge / max(int(np.flatnonzero(with_truth[1:] < 0.5)[0]), 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    data, relaxed, local = given.out / "data", given.out / "relaxed", given.out / "local"
    if not (data / "truth.star").exists():
        run("simulate", given.model, *SIMULATED, "--out", data)
    if not (relaxed / "result.json").exists():
        run(
            "refine", data / "particles.star", "--reference", data / "reference.mrc",
            "--relax", GROUP, "--out", relaxed, "--overwrite",
        )  # fmt: skip
    truth = read_particles(data / "truth.star")
    particles = read_particles(relaxed / "particles.star")
    accuracy = register_accuracy(particles, truth, GROUP)
    operator = accuracy.operator
    mask, pixel = read_map(data / "part_mask.mrc")
    mask = np.clip(np.asarray(rotate_map(mask, operator.T)), 0.0, 1.0)
    true_part = np.asarray(rotate_map(read_map(data / "truth_part.mrc")[0], operator.T))
    # Wide enough for a partner that swings.
    wide = ndimage.grey_dilation(mask, size=(5, 5, 5))
    write_map(given.out / "fab.mrc", wide, pixel)
    if not (local / "result.json").exists():
        run(
            "refine", relaxed / "particles.star", "--reference", relaxed / "map.mrc",
            "--mask", given.out / "fab.mrc", "--sigma-rotation-deg", "6",
            "--sigma-shift-angstrom", "3", "--out", local, "--overwrite",
        )  # fmt: skip
    back = particles.rotations @ operator.T
    right = np.rad2deg(rotation_angle(back @ np.swapaxes(truth.rotations, 1, 2))) < 20.0
    rows = []
    for name, folder in (("whole particle, relaxed", relaxed), ("the Fab by its mask", local)):
        one = known(folder, truth, right, operator, mask, true_part, pixel)
        rows.append([
            name, f"{one.angle_deg:.1f}°", f"{one.rms_deg:.1f}°", f"{one.place_angstrom:.1f} Å",
            f"{one.resolution_angstrom:.1f} Å", f"{one.to_truth_angstrom:.1f} Å",
        ])  # fmt: skip
    heading = [
        "poses", "Fab's orientation: median error", "rms", "its centre in the image: median error",
        "half-maps inside the mask", "with the true Fab, FSC 0.5",
    ]  # fmt: skip
    lines = table(heading, heading=True)
    for row in rows:
        lines += table(row, heading=False)
    print(f"registers right: {accuracy.accuracy:.3f}\n", *lines, sep="\n")
    if given.docs is not None:
        quote(given.docs / "guide" / "local.md", "swinging-partner", lines)


if __name__ == "__main__":
    main()
