"""A symmetry-expanded table beside the one that it was made from: map, FSC, truth.

    python experiments/expanded_tables.py OUT

300 images of a C4 phantom are expanded as another program would (no column tells of it), once with
the half-sets of the particles and once with half-sets drawn row by row. Each table is refined with
relaxation, with C4 imposed and without symmetry, and reconstructed at its own poses. Prints the
shells at which the FSC of the half-maps falls below 0.5 and 0.143, its mean, and what independent
half-maps that agree as these do with the true map would have: the product of their FSCs with it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrelax.geometry import point_group
from jaxrelax.io import Particles, expand_symmetry, read_map, read_particles, write_star
from jaxrelax.reconstruction import fsc, soft_sphere, symmetrise
from jaxrelax.refinement import Local, MaxIterations, Relax, refine
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.simulate import Simulation, simulate

BOX = 48
WAYS = {"C4 relaxed": {"relax": Relax("C4")}, "C4": {"symmetry": "C4"}, "C1": {"symmetry": "C1"}}


def tables(out: Path) -> dict[str, Path]:
    """The table, and both expansions of it."""
    made = simulate(
        "phantom", out,
        Simulation(
            n_images=300, box=BOX, pixel_size_angstrom=5.0, group="C4", snr=0.1,
            protomer_kda=25.0, partner_kda=40.0, max_shift_angstrom=5.0, pose_error_deg=2.0,
        ),
    )  # fmt: skip
    expanded = _told_by_nobody(expand_symmetry(read_particles(made.particles), point_group("C4")))
    by_row = np.random.default_rng(0).integers(1, 3, len(expanded))
    write_star(expanded, out / "expanded.star")
    write_star(expanded.with_updates(half_set=by_row), out / "by_row.star")
    names = {"particles": "as it was", "expanded": "expanded", "by_row": "half-sets by row"}
    return {words: out / f"{name}.star" for name, words in names.items()}


def _told_by_nobody(expanded: Particles) -> Particles:
    return replace(expanded, extra_columns={})


def main() -> None:
    """Simulate, refine, reconstruct and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    given = tables(out)
    mask = soft_sphere(BOX, 0.375 * BOX, 3.0)
    true = symmetrise(read_map(out / "truth_map.mrc")[0], point_group("C4"))
    print("| way | table | rows | below 0.5 | below 0.143 | mean | by the true map |")
    print("|---|---|---|---|---|---|---|")
    for way, options in WAYS.items():
        for words, path in given.items():
            result = refine(
                path, out / "reference.mrc", mode=Local(), until=MaxIterations(4), ini_high=25.0,
                **options,
            )  # fmt: skip
            show(way, words, len(result.particles), list(result.half_maps), true, mask)
    for symmetry in ("C4", "C1"):
        for words, path in given.items():
            particles = read_particles(path)
            halves = [reconstruct(particles, symmetry=symmetry, half=h)[0] for h in (1, 2)]
            show(f"reconstruct {symmetry}", words, len(particles), halves, true, mask)


def show(way: str, words: str, rows: int, halves: list, true: np.ndarray, mask: np.ndarray) -> None:
    """Print a line."""
    curve = fsc(halves[0] * mask, halves[1] * mask)
    # Relaxed maps are not symmetric, and what is compared is.
    told = "-"
    if "relaxed" not in way:
        told = f"{np.mean(np.prod([fsc(half * mask, true * mask) for half in halves], 0)):.3f}"
    falls = [int(np.argmax(np.append(curve, -1.0) < level)) for level in (0.5, 0.143)]
    print(f"| {way} | {words} | {rows} | {falls[0]} | {falls[1]} | {curve.mean():.3f} | {told} |")


if __name__ == "__main__":
    main()
