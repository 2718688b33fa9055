"""Several particles in one table, sorted from nothing: states, and poses beside separate runs.

    python experiments/heterogeneous.py OUT --tetramer 6q20.cif.gz --channel 6o1p.pdb.gz
        [--images 800] [--snr 0.1] [--separate]

Simulates TRPV5 (6O1P) and neuraminidase with no, one and four Fabs (6Q20), as many images of each,
and mixes them in one table without poses. ``jaxrelax refine --mode classification --poses global``
starts from the true maps at 30 Å, one for each state; it is judged against the truth and, with
``--separate``, against refinements of each kind of particle alone (``--mode homogeneous``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import starfile

from jaxrelax.assessment.states import state_accuracy
from jaxrelax.geometry import point_group, pose_error_mod_group
from jaxrelax.io import read_particles
from jaxrelax.simulate import Simulation, simulate

# Fabs of 6Q20 in ring order.
FABS = ("H1,L1", "H3,L3", "H2,L2", "H4,L4")
SMALL = Simulation(box=64, pixel_size_angstrom=5.0, group="C4", max_shift_angstrom=8.0)


@dataclass(frozen=True)
class Kind:
    """A kind of particle: which file, which of its Fabs, and its state's symmetry."""

    name: str
    model: str
    symmetry: str
    occupancy: str = ""


KINDS = (
    Kind("channel", "channel", "C4"),
    Kind("none", "tetramer", "C4", "0000:1.0"),
    Kind("one", "tetramer", "C4:C1", "1000:1.0"),
    Kind("four", "tetramer", "C4", "1111:1.0"),
)


def made(out: Path, given: argparse.Namespace) -> None:
    """Simulate every kind, and put all in one table in random order, without poses."""
    tables, truths, optics = [], [], None
    for number, kind in enumerate(KINDS):
        folder = out / kind.name
        if not (folder / "simulation.json").exists():
            config = replace(SMALL, n_images=given.images, snr=given.snr, seed=number)
            if kind.occupancy:
                config = replace(config, partner_chains=FABS, occupancy=kind.occupancy)
            simulate(getattr(given, kind.model), folder, config)
        for tables_, file in ((tables, "particles.star"), (truths, "truth.star")):
            read = starfile.read(folder / file)
            optics, table = read["optics"], read["particles"].copy()
            names = table["rlnImageName"].str.split("@", expand=True)
            table["rlnImageName"] = names[0] + "@" + kind.name + "/" + names[1]
            table["rlnClassNumber"] = number + 1
            tables_.append(table)
    order = np.random.default_rng(0).permutation(sum(map(len, tables)))
    picked = tables[0].columns.intersection(tables[-1].columns)
    poses = [one for one in picked if one.startswith(("rlnAngle", "rlnOrigin"))]
    sides = [*poses, "rlnClassNumber", "rlnRandomSubset"]
    for name, parts in (("particles.star", tables), ("truth.star", truths)):
        table = pd.concat([part[[*picked]] for part in parts]).iloc[order]
        if name == "particles.star":
            table = table.drop(columns=[one for one in sides if one in table])
        starfile.write({"optics": optics, "particles": table}, out / name, overwrite=True)


def run(out: Path, *words: str) -> None:
    """``jaxrelax refine``, unless its folder is there."""
    if (out / "result.json").exists():
        return
    command = [sys.executable, "-m", "jaxrelax.cli", "refine", *words, "--out", str(out)]
    print("$ " + " ".join(command), flush=True)
    start = time.monotonic()
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"{out}: the refinement failed")
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def pose_errors(found, truth, rows: np.ndarray) -> np.ndarray:
    """In degrees, modulo C4, of some images."""
    errors = pose_error_mod_group(found.rotations[rows], truth.rotations[rows], point_group("C4"))
    return np.rad2deg(errors)


def main() -> None:
    """Simulate, refine, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--tetramer", type=Path, required=True)
    parser.add_argument("--channel", type=Path, required=True)
    parser.add_argument("--images", type=int, default=800, help="of every kind")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--separate", action="store_true")
    given = parser.parse_args()
    out = given.out
    made(out, given)
    first, *others = (str(out / kind.name / "truth_map.mrc") for kind in KINDS)
    run(
        out / "mixed", str(out / "particles.star"), "--reference", first,
        "--further-references", *others, "--mode", "classification", "--poses", "global",
        "--states", *(kind.symmetry for kind in KINDS),
    )  # fmt: skip
    found, truth = (read_particles(out / f) for f in ("mixed/particles.star", "truth.star"))
    columns = starfile.read(out / "mixed/particles.star")["particles"]
    label = np.asarray(columns["rlnClassNumber"]).astype(int) - 1
    true = np.asarray(starfile.read(out / "truth.star")["particles"]["rlnClassNumber"]) - 1
    right = state_accuracy(
        label, true, n_states=len(KINDS), matched=False,
        probability=np.asarray(columns["jrxStateProbability"], np.float64),
    )  # fmt: skip
    print(right.summary())
    print(right.confusion)
    for number, kind in enumerate(KINDS):
        rows = np.flatnonzero((true == number) & (label == number))
        line = f"{kind.name}: {len(rows)} images, median pose error "
        line += f"{np.median(pose_errors(found, truth, rows)):.2f} deg"
        every = np.flatnonzero(true == number)
        line += f" (of all {len(every)}: {np.median(pose_errors(found, truth, every)):.2f} deg)"
        if given.separate:
            alone = out / f"{kind.name}-alone"
            reference = str(out / kind.name / "reference.mrc")
            words = [str(out / kind.name / "particles.star"), "--reference", reference]
            relax = ["--relax" if ":" in kind.symmetry else "--symmetry", "C4"]
            run(alone, *words, "--mode", "homogeneous", *relax)
            one, own = (
                read_particles(path)
                for path in (alone / "particles.star", out / kind.name / "truth.star")
            )
            errors = pose_errors(one, own, np.arange(len(one)))
            line += f", alone {np.median(errors):.2f} deg"
        print(line, flush=True)


if __name__ == "__main__":
    main()
