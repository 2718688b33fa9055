"""Which maps have the group that is said? Broken ones that had it, beside those that never did.

    python experiments/group_fit.py MODELS [--phantoms] > table.md

MODELS holds 6q20.cif.gz (neuraminidase with four Fabs, C4), 1aon.pdb.gz (GroEL with GroES, C7 from
D7), 1mnf.pdb.gz (GroEL, D7) and 6o1p.pdb.gz (TRPV5, C4). Maps end at 8 to 30 Å, without noise and
with white noise of as much power as the map has in its last shells (FSC between two such maps 0.5
there). Printed is what :class:`jaxrelax.reconstruction.GroupFits` measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

from jaxrelax.geometry import point_group
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction import GroupFits
from jaxrelax.simulate import Projector
from jaxrelax.simulate.atoms import DELETED
from jaxrelax.simulate.models import model_atoms
from jaxrelax.simulate.phantom import phantom_atoms

PIXEL, BFACTOR, BOX = 3.4, 100.0, 96
RESOLUTIONS = (8.0, 12.0, 20.0, 30.0)
FABS = tuple(f"L{i},H{i}" for i in (1, 3, 2, 4))
SITES = {"no Fab": "0000", "one Fab": "1000", "two Fabs, opposite": "1010", "three Fabs": "1110",
         "four Fabs": "1111"}  # fmt: skip


def occupied(atoms, digits: str) -> np.ndarray:
    """Weights of atoms whose site k is occupied if digit k is 1."""
    weights = np.ones(len(atoms.weights))
    for site, digit in enumerate(digits):
        weights[atoms.sites == site] = float(digit)
    return weights


def specimens(models: Path, phantoms: bool) -> Iterator[tuple[str, np.ndarray, float, str, str]]:
    """Name, map, pixel, groups that were broken or hold, groups that are wrong."""
    atoms = model_atoms(models / "6q20.cif.gz", point_group("C4"), partner_chains=FABS)[0]
    projector = Projector(atoms, BOX, PIXEL, BFACTOR)
    for name, digits in SITES.items():
        map_ = projector.map(occupied(atoms, digits))
        yield f"neuraminidase, {name}", map_, PIXEL, "C4", "C3 C5 C8 D4"
    # The chains of the ring are A1, A3, A2, A4.
    atoms = model_atoms(
        models / "6q20.cif.gz", point_group("C4"), partner_chains=FABS, delete_chains=("A3", "A4")
    )[0]
    projector = Projector(atoms, BOX, PIXEL, BFACTOR)
    for name, digits in (("no Fab", "0000"), ("Fabs", "1010")):
        weights = np.where(atoms.sites == DELETED, 0.0, occupied(atoms, digits))
        yield f"opposite protomers, {name}", projector.map(weights), PIXEL, "C2", "C4 D2"
    for name, path, group, wrong in (
        ("GroEL–GroES", "1aon.pdb.gz", "D7", "C5 D5 C14"),
        ("GroEL", "1mnf.pdb.gz", "D7", "C5 D5 D14"),
        ("TRPV5", "6o1p.pdb.gz", "C4", "C3 C8 D4"),
    ):
        atoms = model_atoms(models / path, point_group(group), assembly="")[0]
        yield name, Projector(atoms, BOX, PIXEL, BFACTOR).map(), PIXEL, group, wrong
    if not phantoms:
        return
    kinds = (("C2", "C4 D2"), ("C3", "C6 D3"), ("D2", "D4 T"), ("D3", "D6"), ("T", "O"),
             ("O", "T I1"), ("I1", "I2 I3"))  # fmt: skip
    for (group, wrong), seed in product(kinds, (1, 2, 3)):
        atoms = phantom_atoms(group, seed=seed)
        reach = np.linalg.norm(atoms.positions_angstrom, axis=1).max()
        pixel = max(2.5, 2.2 * reach / BOX)
        projector = Projector(atoms, BOX, pixel, BFACTOR)
        order = point_group(group).order
        for name, digits in (("no", "0" * order), ("one", "1" + "0" * (order - 1))):
            map_ = projector.map(occupied(atoms, digits))
            yield f"phantom {group} ({seed}), {name} partner", map_, pixel, group, wrong


def limited(map_: np.ndarray, pixel: float, resolution: float) -> np.ndarray:
    """The map to a resolution, sampled so that it is the last shell."""
    return resample_map(map_, min(len(map_), 2 * int(len(map_) * pixel / resolution)))


def noisy(map_: np.ndarray, seed: int) -> np.ndarray:
    """The map with white noise of the power that it has in its last shells."""
    noise = np.random.default_rng(seed).standard_normal(map_.shape).astype(np.float32)
    n = len(map_)
    shells = np.sqrt(sum(g**2 for g in np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 3)))
    last = (shells > 0.4 * n) & (shells < 0.5 * n)
    power = [np.mean(np.abs(np.fft.fftn(m))[last] ** 2) for m in (map_, noise)]
    return map_ + noise * np.float32(np.sqrt(power[0] / power[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--phantoms", action="store_true", help="made-up particles, too")
    asked = parser.parse_args()
    print("| map | said | Å | turns | flips | turns, noise | flips, noise | |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for name, map_, pixel, right, wrong in specimens(asked.models, asked.phantoms):
        for resolution in RESOLUTIONS:
            coarse = limited(map_, pixel, resolution)
            fits = [GroupFits(m) for m in (coarse, noisy(coarse, 0))]
            for group in (*right.split(), *wrong.split()):
                found = [f.judge(point_group(group)) for f in fits]
                numbers = " | ".join(f"{v.asked.turns:.2f} | {v.asked.flips:.2f}" for v in found)
                said = ", ".join(
                    f"refused ({v.better.group.name if v.better else 'none'})"
                    if v.refused else "passes"
                    for v in found
                )  # fmt: skip
                kind = group if group in right.split() else f"*{group}*"
                print(f"| {name} | {kind} | {resolution:.0f} | {numbers} | {said} |", flush=True)


if __name__ == "__main__":
    main()
