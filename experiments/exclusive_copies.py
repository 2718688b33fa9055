"""Which of four sub-particles has the one Fab: each judged for itself, and all of a particle.

    python experiments/exclusive_copies.py OUT --data NA_FAB_C4 [--relaxed RUN] [--docs docs]

Of neuraminidase with one Fab at one of four sites (a folder with particles.star, reference.mrc and
truth.star), relaxed from C4 (RUN is an output folder of that; else it is refined first), windows of
64 pixels are cut around all four sites with ``jaxrelax subparticles``, and classified into two
states, which differ inside a sphere of 42 Å around the site; once as they are, and once with
``--exclusive auto``. Prints in how many images the copy that is in the Fab's class is that of the
true register, in how many there is none, and in how many there are several. ``--docs`` puts the
table into guide/subparticles.md. Five minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from pages import quote, table

from jaxrelax.cli import main as jaxrelax
from jaxrelax.geometry import point_group, register_agreement
from jaxrelax.io import read_map, read_particles, write_map
from jaxrelax.reconstruction import soft_sphere

GROUP, BOX = "C4", 64
FOCUS_ANGSTROM, EDGE_ANGSTROM = 42.0, 12.0


def run(*words: object) -> None:
    """A command of jaxrelax, which must succeed."""
    if jaxrelax([str(word) for word in words]):
        raise SystemExit(f"jaxrelax {words[0]} failed")


def share(poses: np.ndarray, true: np.ndarray, of: int) -> float:
    """Images in the true register, up to one turn for all, as a share of so many."""
    found = register_agreement(poses, true, point_group(GROUP), point_group("C1"))
    return found.fraction * len(poses) / of


def cut(relaxed: Path, out: Path) -> tuple[Path, Path, Path]:
    """Windows of all sites, their reconstruction and the mask around the site."""
    with (relaxed / "difference_positions.csv").open() as file:
        row = next(csv.DictReader(file))
    at = [row[f"{axis}_from_centre_angstrom"] for axis in "xyz"]
    sites, map_path, mask_path = out / "sites.star", out / "sites.mrc", out / "focus.mrc"
    words = ("--symmetry", GROUP, "--at", *at, "--box", BOX, "--out", sites, "--overwrite")
    run("subparticles", relaxed / "particles.star", *words)
    run("reconstruct", sites, "--out", out / "map.mrc", "--max-resolution", 8, "--overwrite")
    (out / "map.mrc").replace(map_path)
    density, pixel = read_map(map_path)
    sphere = soft_sphere(len(density), FOCUS_ANGSTROM / pixel, EDGE_ANGSTROM / pixel)
    write_map(mask_path, sphere, pixel)
    return sites, map_path, mask_path


def measured(name: str, folder: Path, relaxed: Path, truth: Path) -> list[str]:
    """The row of a classification."""
    found, before, true = (
        read_particles(path)
        for path in (folder / "particles.star", relaxed / "particles.star", truth)
    )
    parent, copy, state = (
        np.asarray(found.column(label)).astype(int)
        for label in ("jrxParent", "jrxCopy", "rlnClassNumber")
    )
    fab = int(np.bincount(state, minlength=3)[1:].argmin()) + 1  # one copy of four
    n = len(before)
    claims = np.bincount(parent[state == fab] - 1, minlength=n)
    rows = np.flatnonzero((state == fab) & (claims[parent - 1] == 1))
    whose = parent[rows] - 1
    operators = point_group(GROUP).operators[copy[rows] - 1]
    poses = before.rotations[whose] @ operators.transpose(0, 2, 1)
    right = share(poses, true.rotations[whose], n)
    told = json.loads((folder / "result.json").read_text())["copies_of_parents"]
    several = int(np.sum(claims > 1))
    if told["with_several_in_class"][fab - 1] != several:
        raise SystemExit(f"{folder}: {several} particles with several claims, but it says {told}")
    return [name, f"{right:.3f}", f"{int(np.sum(claims == 0)):,}", f"{several:,}"]


def main() -> None:
    """Cut, classify twice, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--relaxed", type=Path)
    parser.add_argument("--docs", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    relaxed = options.relaxed
    if relaxed is None:
        relaxed = options.out / "relaxed"
        words = ("--reference", options.data / "reference.mrc", "--relax", GROUP)
        run("refine", options.data / "particles.star", *words, "--out", relaxed, "--overwrite")
    truth = options.data / "truth.star"
    sites, map_path, mask_path = cut(relaxed, options.out)
    before, true = read_particles(relaxed / "particles.star"), read_particles(truth)
    right = share(before.rotations, true.rotations, len(before))
    rows = [["whole particles, relaxed", f"{right:.3f}", "–", "–"]]
    for name, words in (("alone", ()), ("exclusive", ("--exclusive", "auto"))):
        folder = options.out / name
        run(
            "refine", sites, "--reference", map_path, "--mode", "classification",
            "--states", "C1", "C1", "--poses", "held", "--focus-mask", mask_path,
            "--max-alignment-resolution", 10, *words, "--out", folder, "--overwrite",
        )  # fmt: skip
        label = "copies, each for itself" if name == "alone" else "copies, `--exclusive auto`"
        rows.append(measured(label, folder, relaxed, truth))
    heading = [f"{len(before):,} images", "in the right copy", "in none", "in several"]
    lines = table(heading, heading=True)
    for row in rows:
        lines += table(row, heading=False)
    print("\n".join(lines))
    if options.docs is not None:
        quote(options.docs / "guide" / "subparticles.md", "exclusive-copies", lines)


if __name__ == "__main__":
    main()
