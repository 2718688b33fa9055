"""Register accuracy over groups, masses, SNR, numbers of images, junk and pose errors.

    python experiments/register_accuracy.py --small        # or --full; what is done is skipped
    python experiments/register_accuracy.py --oracle       # ceilings only: to choose the points
    python experiments/register_accuracy.py --plot         # figures and docs/sweep.md again

Every data set is judged with the true map (the ceiling), from the true registers (the fixed point
that a perfect search would reach), from the symmetric map (ours), and from the symmetric map by
the field's way. Not a full factorial: every group at its base point, then one factor at a time.

Rows are kept in FOLDER/register_accuracy.csv and never made again; after a change of the program
start with an empty folder.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
from sweep_report import write_report
from sweeps import METHODS, DataSet, Point, Rows, data_set

from jaxrelax.assessment import oracle_registers, register_accuracy
from jaxrelax.assessment.accuracy import has_register
from jaxrelax.geometry import parse_group, point_group, register_agreement, right_cosets
from jaxrelax.refinement import Callback

#       group  mass %  SNR  images
BASE = (
    Point("C2", 10.0, 0.1, 1000),
    Point("C3", 10.0, 0.15, 1000),
    Point("C4", 10.0, 0.2, 1000),
    Point("C6", 10.0, 0.2, 1000),
    Point("C12", 5.0, 0.3, 1000),
    Point("D2", 10.0, 0.2, 1000),
    Point("D7", 10.0, 0.3, 1000),
    Point("T", 10.0, 0.3, 1000),
    Point("O", 20.0, 0.2, 1000),
    Point("I", 20.0, 0.1, 1000),
)
ONE_AT_A_TIME = (
    {"mass_percent": 1.0},
    {"mass_percent": 2.0},
    {"mass_percent": 5.0},
    {"mass_percent": 20.0},
    {"snr": 0.05},
    {"snr": 0.1},
    {"snr": 1.0},
    {"images": 300},
    {"images": 3000},
    {"junk_percent": 10.0},
    {"junk_percent": 30.0},
    {"junk_percent": 10.0, "junk_kind": "object"},
    {"junk_percent": 30.0, "junk_kind": "object"},
    {"pose_error_deg": 2.0},
    {"pose_error_deg": 5.0},
)
VARIED_GROUPS = ("C4", "D2", "D7")
SMALL_GROUPS = ("C2", "C4", "C6", "D2")
SMALL_VARIATIONS = (
    {"junk_percent": 30.0, "junk_kind": "object"},
    {"junk_percent": 30.0},
    {"mass_percent": 5.0},
    {"images": 300},
    {"pose_error_deg": 3.0},
)

KEYS = (*(f.name for f in fields(Point)), "seed", "method")
COLUMNS = (
    "accuracy", "mean_max_posterior", "ece", "brier", "p_value", "iterations",
    "iterations_to_95", "seconds", "chance", "same_frame",
    "bin_count", "bin_confidence", "bin_accuracy",
)  # fmt: skip


def design(size: str) -> list[Point]:
    """The points of ``small``, ``base`` or ``full``, each once."""
    base = {point.group: point for point in BASE}
    if size == "small":
        points = [base[group] for group in SMALL_GROUPS]
        points += [replace(base["C4"], **change) for change in SMALL_VARIATIONS]
    else:
        points = list(BASE)
    if size == "full":
        points += [
            replace(base[group], **change) for group in VARIED_GROUPS for change in ONE_AT_A_TIME
        ]
    return list(dict.fromkeys(points))


class AccuracyCurve(Callback):
    """Register accuracy after each iteration, every half-set in its own best frame."""

    def __init__(self, data: DataSet):
        self.group, self.kept = parse_group(data.point.group), point_group("C1")
        self.mates = right_cosets(self.group, self.kept).representatives.mT
        self.judged = has_register(data.truth)
        self.true = data.truth.rotations
        self.values: list[float] = []

    def on_step(self, problem, state, info) -> None:
        """Judge the best register of every particle."""
        best = state.beliefs.registers.argmax(axis=1)
        poses = state.poses.rotations @ self.mates[best]
        right = 0
        for half in (1, 2):
            rows = self.judged & (problem.data.half_set == half)
            found = register_agreement(poses[rows], self.true[rows], self.group, self.kept)
            right += int(found.correct.sum())
        self.values.append(right / int(self.judged.sum()))

    def iterations_to(self, share: float) -> int:
        """The first iteration that has this share of the accuracy of the last one."""
        return 1 + int(np.argmax(np.array(self.values) >= share * self.values[-1]))


def calibration_columns(table) -> dict[str, object]:
    """Calibration as columns; reliability bins as numbers separated by spaces."""

    def text(values):
        return " ".join(f"{value:.5g}" for value in values)

    return {
        "ece": table.expected_error,
        "brier": table.brier,
        "bin_count": text(table.count),
        "bin_confidence": text(table.confidence),
        "bin_accuracy": text(table.accuracy),
    }


def judge_oracle(data: DataSet, at_consensus: bool) -> dict[str, object]:
    """Registers under the true map: the ceiling."""
    began = time.perf_counter()
    known = {"poses": data.consensus, "mode": data.mode} if at_consensus else {}
    best = oracle_registers(
        data.truth, data.maps[0], group=data.point.group,
        pixel_size_angstrom=data.truth.optics[0].pixel_size_angstrom, **known,
    )  # fmt: skip
    return {
        "accuracy": best.accuracy,
        "mean_max_posterior": best.mean_max_posterior,
        "chance": 1.0 / best.registers.shape[1],
        "seconds": time.perf_counter() - began,
        **calibration_columns(best.calibration),
    }


def judge_refinement(data: DataSet, method: str) -> dict[str, object]:
    """A refinement against the truth."""
    curve = AccuracyCurve(data)
    result = data.refine(method, [curve])
    found = register_accuracy(result, data.truth, data.point.group)
    return {
        "accuracy": found.accuracy,
        "mean_max_posterior": found.mean_max_posterior,
        "p_value": result.evidence.p_value,
        "iterations": len(result.history),
        "iterations_to_95": curve.iterations_to(0.95),
        "seconds": result.seconds,
        "chance": found.chance,
        "same_frame": found.same_frame,
        **calibration_columns(found.calibration),
    }


def run(rows: Rows, point: Point, seed: int, oracle_only: bool) -> None:
    """Make the rows of one data set that are missing."""
    methods = ["oracle"]
    if point.pose_error_deg > 0:
        methods.append("oracle_consensus")
    if not oracle_only:
        methods += METHODS
    keys = {method: {**asdict(point), "seed": seed, "method": method} for method in methods}
    missing = [method for method in methods if rows.get(keys[method]) is None]
    if not missing:
        return
    with data_set(point, seed) as data:
        for method in missing:
            if method.startswith("oracle"):
                found = judge_oracle(data, at_consensus=method == "oracle_consensus")
            else:
                found = judge_refinement(data, method)
            rows.append(keys[method] | found)
            print(
                f"{point.group:4s}{point.mass_percent:5.0f} %  SNR {point.snr:<5g}"
                f"{point.images:6d} images  junk {point.junk_percent:.0f} % {point.junk_kind:6s}  "
                f"{point.pose_error_deg:g}°  seed {seed}  {method:17s}"
                f"accuracy {found['accuracy']:.3f}  "
                f"mean max posterior {found['mean_max_posterior']:.3f}  {found['seconds']:.1f} s",
                flush=True,
            )


def main() -> None:
    """Parse, sweep, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="one seed, small groups (default)")
    size.add_argument("--base", action="store_true", help="all groups at their base points")
    size.add_argument("--full", action="store_true", help="all groups and factors, three seeds")
    parser.add_argument("--seeds", type=int, help="number of seeds")
    parser.add_argument("--groups", nargs="+", help="only these")
    parser.add_argument("--out", type=Path, default=Path("out/sweep"), help="folder of the CSV")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    parser.add_argument("--oracle", action="store_true", help="ceilings only, no report")
    parser.add_argument("--plot", action="store_true", help="report on what the CSV has")
    asked = parser.parse_args()
    rows = Rows(asked.out / "register_accuracy.csv", KEYS, COLUMNS)
    if not asked.plot:
        seeds = asked.seeds or (3 if asked.full else 1)
        for seed in range(seeds):
            for point in design("full" if asked.full else "base" if asked.base else "small"):
                if asked.groups and point.group not in asked.groups:
                    continue
                run(rows, point, seed, asked.oracle)
    if not asked.oracle and len(rows.table()):
        write_report(rows.table(), list(KEYS[:-2]), asked.docs)


if __name__ == "__main__":
    main()
