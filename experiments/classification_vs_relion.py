"""Occupancy patterns by classification: today's workaround with RELION, and ours, in one table.

The data are of a C4 particle in three states: one partner, four, none; and junk. With RELION 3.1,
which needs be on PATH, a table is expanded by symmetry, the copies are classified in two without
alignment under a focus mask, here the *true* one, and the pattern of a particle is told from how
many of its four copies fall in the class that shows the partner: 0, 1 or 4. Two or three are no
pattern of this mixture: such particles are lost. Ours has one posterior per image over states and
registers, and junk; with poses held, as RELION's classification without alignment has them, and
with poses refined.

    python experiments/classification_vs_relion.py DATA FOLDER --relion
    python experiments/classification_vs_relion.py DATA FOLDER --relion --run
    python experiments/classification_vs_relion.py DATA FOLDER --run held
    python experiments/classification_vs_relion.py DATA FOLDER --ours DIR

DATA has ``particles.star``, ``reference.mrc``, ``truth.star`` (``rlnClassNumber``: 1 one partner,
2 four, 3 none, 0 junk) and ``truth_map_1.mrc``. A RELION run that FOLDER has already is judged
without ``--relion``. Accuracies are over the images that show a particle; what is lost counts as
wrong. A register is that of the one-partner state, over the images that are found in it and belong
to it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from jaxrelax.assessment import matching_rows, registers_within, state_accuracy
from jaxrelax.assessment.states import JUNK
from jaxrelax.geometry import point_group
from jaxrelax.io import Particles, read_map, read_particles, write_map, write_stack
from jaxrelax.reconstruction import symmetrise
from jaxrelax.reconstruction.masks import lowpass, soft_region

GROUP = point_group("C4")
ONE, FOUR, NONE, LOST = range(4)
PATTERN_OF_COPIES = np.array([NONE, ONE, LOST, LOST, FOUR])
MASK_LOWPASS_ANGSTROM, MASK_THRESHOLD = 15.0, 0.15  # of the largest density
MASK_EXTEND_ANGSTROM, MASK_EDGE_ANGSTROM = 3.4, 17.0
INITIAL_LOWPASS_ANGSTROM = 30.0
DIAMETER_ANGSTROM = 300.0
TIMES = "times.json"
POSES = ("held", "local")  # of ours


@dataclass(frozen=True)
class Patterns:
    """What a run says of every image of the truth.

    Attributes:
        who: the row of the table.
        pattern: ONE, FOUR, NONE or LOST.
        poses: with the register of the one-partner state applied.
        seconds: wall time.
        more: what else there is to say.
    """

    who: str
    pattern: np.ndarray
    poses: np.ndarray
    seconds: float
    more: str = ""


def main() -> None:
    """Run what is asked for and print the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("data", type=Path)
    options.add_argument("folder", type=Path, help="for RELION's files, and ours with --run")
    options.add_argument("--relion", action="store_true", help="run RELION")
    options.add_argument("--ours", type=Path, nargs="+", help="finished output folders of ours")
    options.add_argument(
        "--run", nargs="*", choices=POSES, help="run ours with these poses (none named: all)"
    )
    options.add_argument("--resolution", type=float, default=10.0, help="of RELION's E-step (Å)")
    options.add_argument("--tau2-fudge", type=float, default=4.0, help="of RELION")
    options.add_argument("--iterations", type=int, default=25)
    options.add_argument("--threads", type=int, default=2, help="of RELION")
    options.add_argument("--seed", type=int, default=1)
    arguments = options.parse_args()
    truth = read_particles(arguments.data / "truth.star")
    workaround = arguments.folder / "relion"
    if arguments.relion:
        run_relion(arguments, workaround)
    ours = list(arguments.ours or [])
    if arguments.run is not None:
        for poses in arguments.run or POSES:
            ours.append(run_ours(arguments.data, arguments.folder / f"ours_{poses}", poses))
    runs = []
    if (workaround / TIMES).exists():
        runs.append(patterns_of_relion(workaround, arguments.data, truth))
    runs += [patterns_of_ours(folder, truth) for folder in ours]
    if not runs:
        options.error("nothing to judge: --relion, --run or --ours DIR")
    print_table(runs, truth)


def run_relion(arguments: argparse.Namespace, folder: Path) -> None:
    """Expansion and focused classification; leaves RELION's files and the wall time in a folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    data = arguments.data
    # RELION 3.1 reads no float16. Names of images stay as they are.
    shutil.copy(data / "particles.star", folder)
    particles = read_particles(data / "particles.star")
    pixel = particles.optics[0].pixel_size_angstrom
    for name, stack in zip(particles.image_names, particles.stack_paths, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.mmap(stack, permissive=True) as images:
            assert images.data is not None
            write_stack(folder / name, (image for image in images.data), pixel)
    reference, pixel = read_map(data / "reference.mrc")
    write_map(folder / "initial.mrc", lowpass(reference, pixel, INITIAL_LOWPASS_ANGSTROM), pixel)
    write_map(folder / "focus.mrc", true_focus_mask(data), pixel)
    begun = time.perf_counter()
    command(
        folder, "relion_particle_symmetry_expand",
        "--i", "particles.star", "--o", "expanded.star", "--sym", GROUP.name,
    )  # fmt: skip
    expanded = time.perf_counter()
    (folder / "run").mkdir()
    command(
        folder, "relion_refine",
        "--i", "expanded.star", "--o", "run/run", "--ref", "initial.mrc",
        "--ini_high", f"{INITIAL_LOWPASS_ANGSTROM:g}", "--K", "2", "--skip_align",
        "--iter", str(arguments.iterations), "--tau2_fudge", f"{arguments.tau2_fudge:g}",
        "--particle_diameter", f"{DIAMETER_ANGSTROM:g}", "--solvent_mask", "focus.mrc",
        "--flatten_solvent", "--zero_mask", "--ctf", "--norm", "--scale",
        "--strict_highres_exp", f"{arguments.resolution:g}",
        "--random_seed", str(arguments.seed), "--j", str(arguments.threads), "--pool", "30",
        "--dont_combine_weights_via_disc",
    )  # fmt: skip
    done = time.perf_counter()
    took = {
        "expand": expanded - begun, "refine": done - expanded, "iterations": arguments.iterations,
        "threads": arguments.threads, "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    (folder / TIMES).write_text(json.dumps(took))


def true_focus_mask(data: Path) -> np.ndarray:
    """Where the one partner is: the true map has more there than its symmetrised self."""
    density, pixel = read_map(data / "truth_map_1.mrc")
    partner = np.maximum(density - np.asarray(symmetrise(density, GROUP)), 0.0)
    partner = lowpass(partner, pixel, MASK_LOWPASS_ANGSTROM)
    solid = partner > MASK_THRESHOLD * partner.max()
    return soft_region(solid, pixel, MASK_EXTEND_ANGSTROM, MASK_EDGE_ANGSTROM)


def command(folder: Path, *words: str) -> None:
    """Run a program in a folder.

    Raises:
        RuntimeError: it failed.
    """
    log = folder / f"{words[0]}.log"
    with log.open("w") as handle:
        done = subprocess.run(
            words, cwd=folder, stdout=handle, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {log.read_text()[-2000:]}")


def patterns_of_relion(folder: Path, data: Path, truth: Particles) -> Patterns:
    """How many copies of every image are in the class that shows the partner."""
    took = json.loads((folder / TIMES).read_text())
    last = folder / "run" / f"run_it{took['iterations']:03d}"
    copies = read_particles(f"{last}_data.star")
    focus = true_focus_mask(data)
    shown = [
        float(np.sum(read_map(f"{last}_class{k:03d}.mrc")[0] * focus) / focus.sum()) for k in (1, 2)
    ]
    with_partner = copies.class_number == 1 + int(np.argmax(shown))
    rows = matching_rows(copies, truth)
    count = np.bincount(rows, with_partner, minlength=len(truth)).astype(int)
    poses = np.zeros((len(truth), 3, 3))
    poses[rows[with_partner]] = copies.rotations[with_partner]  # one copy where it counts
    return Patterns(
        f"RELION 3.1, expanded, K=2 ({took['threads']} threads, {took['cores']} cores)",
        PATTERN_OF_COPIES[count],
        poses,
        took["expand"] + took["refine"],
        f"copies in the partner's class: {np.bincount(count, minlength=5).tolist()} images with "
        f"0 … 4; mean density of the two classes under the mask {shown[0]:.4g}, {shown[1]:.4g}",
    )


def run_ours(data: Path, folder: Path, poses: str) -> Path:
    """Classify with jaxrelax, poses held or refined; returns the output folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    command(
        folder.parent, sys.executable, "-m", "jaxrelax.cli", "refine",
        str((data / "particles.star").resolve()),
        "--reference", str((data / "reference.mrc").resolve()),
        "--mode", "classification", "--states", "C4:C1", "C4", "C4", "--poses", poses,
        "--out", str(folder.resolve()), "--overwrite",
    )  # fmt: skip
    return folder


def patterns_of_ours(folder: Path, truth: Particles) -> Patterns:
    """Best states; the first is relaxed, and which of the others is which the truth says."""
    particles = read_particles(folder / "particles.star")
    rows = matching_rows(particles, truth)
    true = true_patterns(truth)
    state = particles.class_number - 1

    def column(label: str) -> np.ndarray:
        values = particles.column(label)
        assert values is not None
        return values.astype(float)

    junk = column("jrxJunkProbability")
    judged = state_accuracy(
        state, true[rows], probability=column("jrxStateProbability"), junk_probability=junk
    )
    standing_for = np.where(judged.matching < 0, LOST, judged.matching)
    pattern = np.full(len(truth), LOST)
    pattern[rows] = np.where(junk < 0.5, standing_for[state], LOST)
    poses = np.zeros((len(truth), 3, 3))
    poses[rows] = particles.rotations
    seconds = json.loads((folder / "result.json").read_text())["seconds"]
    return Patterns(f"jaxrelax, {folder.name}", pattern, poses, seconds, judged.summary())


def true_patterns(truth: Particles) -> np.ndarray:
    """ONE, FOUR, NONE, or JUNK."""
    return np.where(truth.class_number > 0, truth.class_number - 1, JUNK)


def print_table(runs: list[Patterns], truth: Particles) -> None:
    """One row per run."""
    true = true_patterns(truth)
    shown = true != JUNK
    print("| run | pattern right | of those not lost | lost | registers of one | seconds |")
    print("|---|---|---|---|---|---|")
    for run in runs:
        right = run.pattern == true
        lost = run.pattern == LOST
        one = (run.pattern == ONE) & (true == ONE)
        registers = "none"
        if one.any():
            agreed = registers_within(one, run.poses, truth.rotations, GROUP, point_group("C1"))
            registers = f"{agreed.fraction:.3f} of {one.sum()}"
        print(
            f"| {run.who} | {right[shown].mean():.3f} | {right[shown & ~lost].mean():.3f} | "
            f"{np.sum(lost & shown)} of {shown.sum()} | {registers} | {run.seconds:.0f} |"
        )
    for run in runs:
        print(f"\n{run.who}\n{run.more}")
        print(
            "| true | " + " | ".join(("one", "four", "none", "lost")) + " |\n|---|---|---|---|---|"
        )
        for name, value in (("one", ONE), ("four", FOUR), ("none", NONE), ("junk", JUNK)):
            found = np.bincount(run.pattern[true == value], minlength=4)
            print(f"| {name} | " + " | ".join(map(str, found)) + " |")


if __name__ == "__main__":
    main()
