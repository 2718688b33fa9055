"""Differences in σ: how often symmetric particles show one, and what finished runs show.

    python experiments/differences.py [--runs FAB CONTROL --data FOLDER] [--seeds 25] [--docs docs]

First symmetric phantoms, by the functions that ``finish`` calls: half-maps of a body that is
exactly symmetric, with noise that is stronger in the middle and at high frequencies, the second
turned onto the first where it fits best. Counts those with a significant region. Then output
folders of ``jaxrelax refine --relax C4`` on neuraminidase with one Fab and with four, against the
true map in FOLDER (truth_map.mrc, reference.mrc): σ where the true map has no difference,
positions, and how far the first is from the true one. Prints tables; ``--docs`` puts them into
results.md. A minute.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from pages import quote, table
from scipy import ndimage

from jaxrelax.geometry import parse_group, subgroup
from jaxrelax.io import read_map
from jaxrelax.reconstruction import (
    DifferenceInSigma,
    Particle,
    apply_gain,
    fsc,
    match_halves,
    onto_first,
    rotate_map,
    soft_sphere,
    symmetrise,
)
from jaxrelax.refinement.differences import asymmetry_in_sigma

BOX, PIXEL_ANGSTROM = 48, 2.0
DIAMETER_ANGSTROM = 0.8 * BOX * PIXEL_ANGSTROM
NOISE = 0.3  # of the density's scale
PAIRS = (("C4", "C1"), ("C3", "C1"), ("D2", "C2"), ("D7", "C7"))
SCORED_SHELL = 10
# Of the largest true difference: less is none.
NOTHING = 0.02


def body(rng: np.random.Generator) -> np.ndarray:
    """Blobs inside the sphere, without symmetry."""
    axis = np.arange(BOX) - BOX // 2
    density = np.zeros((BOX,) * 3)
    for _ in range(40):
        centre = rng.uniform(-0.25 * BOX, 0.25 * BOX, 3)
        each = [np.exp(-((axis - c) ** 2) / 8.0) for c in centre]
        density += np.einsum("z,y,x->zyx", *each)
    return density.astype(np.float32)


def symmetric_phantom(group: str, kept: str, seed: int) -> DifferenceInSigma:
    """What symmetrisation removes of one that has the symmetry."""
    rng = np.random.default_rng(seed)
    whole = parse_group(group)
    part = parse_group("C1") if kept == "C1" else subgroup(whole, kept)
    particle = Particle(whole, part, BOX, PIXEL_ANGSTROM, DIAMETER_ANGSTROM)
    true = symmetrise(body(rng), whole)
    true /= true.std()
    squared = sum(np.meshgrid(*[(np.arange(BOX) - BOX // 2.0) ** 2] * 3, indexing="ij"))
    envelope = 1.0 + 0.5 * np.exp(-squared / (2.0 * (BOX / 5.0) ** 2))
    halves = []
    for _ in range(2):
        white = (NOISE * rng.standard_normal(true.shape)).astype(np.float32)
        noise = apply_gain(white, np.linspace(0.5, 1.5, BOX)) * envelope
        halves.append(symmetrise((true + noise).astype(np.float32), part))
    sphere = particle.sphere(BOX)
    parts = [particle.split((m * sphere).astype(np.float32)) for m in halves]
    aligned = match_halves(
        particle, parts, sphere, max_shell=BOX // 2 - 1, score_shell=SCORED_SHELL
    )
    turned = (halves[0], np.asarray(onto_first(particle, aligned.index, halves[1])))
    parts = [particle.split((m * sphere).astype(np.float32)) for m in turned]
    symmetric = fsc(parts[0].symmetric, parts[1].symmetric)
    inside = soft_sphere(BOX, 0.4 * BOX, 3.0)
    return asymmetry_in_sigma(particle, parts, inside, symmetric, np.asarray(aligned.fsc))


def phantom_table(seeds: int) -> list[str]:
    """A row for every group."""
    lines = table(["symmetry", "phantoms", "with a region", "σ: standard deviation", "beyond 3 σ"],
                  heading=True)  # fmt: skip
    for group, kept in PAIRS:
        found = [symmetric_phantom(group, kept, seed) for seed in range(seeds)]
        sigma = np.concatenate([one.sigma[one.searched] for one in found])
        regions = sum(bool(one.regions) for one in found)
        name = f"{group} → {kept}"
        lines += table([name, str(seeds), str(regions), *_spread(sigma)], heading=False)
    return lines


def _spread(sigma: np.ndarray) -> tuple[str, str]:
    return f"{sigma.std():.2f}", f"{100 * np.mean(np.abs(sigma) > 3.0):.2f} %"


def run_table(fab: Path, control: Path, data: Path) -> list[str]:
    """What two finished runs show."""
    lines = table(
        ["run", "positions", "first: off by", "significant voxels", "of these where nothing is",
         "σ there: standard deviation", "beyond 3 σ"], heading=True,
    )  # fmt: skip
    whole, pixel = read_map(data / "truth_map.mrc")
    odd = whole - read_map(data / "reference.mrc")[0]
    for name, folder, true in (("one Fab", fab, odd), ("four (control)", control, None)):
        told = json.loads((folder / "result.json").read_text())["difference"]
        sigma = read_map(folder / "difference_sigma.mrc")[0]
        # Where nothing is significant there is no threshold.
        significant = np.abs(sigma) >= (told["threshold_sigma"] or np.inf)
        nothing, away = sigma != 0, "–"
        if true is not None:
            true = _in_frame(true, read_map(folder / "difference.mrc")[0])
            there = np.abs(true) > NOTHING * np.abs(true).max()
            # The difference was filtered: what is there is seen so far around it.
            far = np.asarray(ndimage.distance_transform_edt(~there))
            nothing &= far * pixel > told["band_angstrom"]
            away = f"{_off(folder, np.maximum(true, 0.0), pixel):.1f} Å"
        with (folder / "difference_positions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        peaks = ", ".join(f"{float(row['peak_sigma']):+.1f} σ" for row in rows) or "none"
        counts = (f"{np.sum(significant):,}", f"{np.sum(significant & nothing):,}")
        cells = [name, peaks, away, *counts, *_spread(sigma[nothing])]
        lines += table(cells, heading=False)
    return lines


def _in_frame(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The true difference in the register frame of a run."""
    turned = [np.asarray(rotate_map(true, one)) for one in parse_group("C4").operators]
    return max(turned, key=lambda one: float(np.sum(one * found)))


def _off(folder: Path, added: np.ndarray, pixel: float) -> float:
    """Distance of the first position from the true centre of mass of what is more, in Å."""
    # The density of the partner, without what is spread around it.
    mass = np.where(added > 0.25 * added.max(), added, 0.0)
    centre = np.array(ndimage.center_of_mass(mass))[::-1] - len(mass) // 2
    with (folder / "difference_positions.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    found = [float(first[f"{axis}_from_centre_angstrom"]) for axis in "xyz"]
    return float(np.linalg.norm(np.array(found) - pixel * centre))


def main() -> None:
    """Print, and put into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, nargs=2, metavar=("FAB", "CONTROL"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--docs", type=Path)
    asked = parser.parse_args()
    found = {"symmetric-phantoms": phantom_table(asked.seeds)}
    if asked.runs:
        if asked.data is None:
            parser.error("--runs needs --data, the folder with the true map")
        fab, control = asked.runs
        found["differences-of-runs"] = run_table(fab, control, asked.data)
    for name, lines in found.items():
        print("\n".join(["", *lines]))
        if asked.docs:
            quote(asked.docs / "results.md", name, lines)


if __name__ == "__main__":
    main()
