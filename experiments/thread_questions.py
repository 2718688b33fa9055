"""Numbers for the questions that users ask each other, on small phantoms.

    python experiments/thread_questions.py [--only start register …] [--docs docs]

How a relaxation is started, soft or hard registers, a mask and a resolution limit for registers
alone, symmetric particles, what a pose is compared with, and which views tell registers apart.
Prints a table for each, and puts it into ``faq.md`` of the folder given by ``--docs``. Partners of
10 % of the mass at exact poses unless a table says otherwise; one seed. About ten minutes on two
cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from climb import POINTS
from pages import quote, table
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from sweeps import INI_HIGH_ANGSTROM, PIXEL_ANGSTROM, DataSet, Point, data_set

from jaxrelax.assessment import predict_registers, register_accuracy
from jaxrelax.geometry import parse_group, pose_error_mod_group
from jaxrelax.io import write_map
from jaxrelax.judgement.predicted import VIEW_BINS_DEG
from jaxrelax.judgement.verdict import p_text
from jaxrelax.reconstruction import rotate_map
from jaxrelax.refinement import Map, Registers, Relax, Result, refine

DATA = (POINTS[0], POINTS[2])
SYMMETRIC = tuple(dataclasses.replace(point, occupancy="all") for point in DATA)
WRONG_POSES = Point("C4", 10.0, 0.15, 800, pose_error_deg=3.0)
VIEWED = tuple(
    Point(group, 10.0, snr, 1000) for group, snr in (("C2", 0.1), ("C4", 0.2), ("D2", 0.2))
)
FIELD = dict(cross_fit=1, prior="plain", optimism=0.0, junk=False)
NARROW_DEG = 15.0
# Onto a place halfway between two sites of C4, and away from all of D2's.
AWAY = Rotation.from_euler("z", 45.0, degrees=True).as_matrix()


def name(point: Point) -> str:
    """A data set in a few words."""
    return f"{point.group}, SNR {point.snr:g}, {point.images:,} images"


def partner(point: Point) -> np.ndarray:
    """What breaks the symmetry of this object where one site of it is occupied."""
    with data_set(dataclasses.replace(point, occupancy="one", images=20), 0) as one:
        true, symmetric = one.maps
    return true - symmetric


def relaxed(data: DataSet, reference: Path | None = None, **options) -> Result:
    """A refinement; from the symmetric map unless an option says otherwise."""
    particles = data.true_start() if options.get("start") == "poses" else data.consensus
    return refine(
        particles, reference or data.folder / "reference.mrc", mode=data.mode,
        relax=Relax(data.point.group, **options), ini_high=INI_HIGH_ANGSTROM, seed=data.seed,
        subgroups="none",
    )  # fmt: skip


def p_value(result: Result) -> str:
    """That of the test for asymmetry."""
    assert result.evidence is not None  # the symmetry was relaxed
    return p_text(result.evidence.subgroups[0].log10_p)


def judged(data: DataSet, result: Result) -> tuple[str, ...]:
    """Accuracy, mean largest posterior, calibration error, p, iterations."""
    found = register_accuracy(result, data.truth, data.point.group)
    assert found.calibration is not None  # a result has posteriors
    return (
        f"{found.accuracy:.3f}",
        f"{found.mean_max_posterior:.3f}",
        f"{found.calibration.expected_error:.3f}",
        p_value(result),
        str(len(result.history)),
    )


@functools.cache
def as_it_is(point: Point) -> tuple[str, ...]:
    """The refinement with every option at its default, which several tables compare with."""
    with data_set(point, 0) as data:
        return judged(data, relaxed(data))


JUDGED = ("accuracy", "posterior", "ECE", "p", "iterations")


def broken_references(point: Point, folder: Path, symmetric: np.ndarray) -> dict[str, Path]:
    """The symmetric map with the partner at its site, and with it where there is none."""
    asymmetric = partner(point)
    maps = {"the true map": asymmetric, "a wrong map": rotate_map(asymmetric, AWAY)}
    paths = {}
    for which, part in maps.items():
        paths[which] = folder / f"{which.split()[1]}.mrc"
        write_map(paths[which], np.asarray(symmetric + part), PIXEL_ANGSTROM)
    return paths


def starts() -> Iterator[tuple[str, ...]]:
    """From where a relaxation starts."""
    yield ("data", "start", *JUDGED)
    for point in DATA:
        with data_set(point, 0) as data:
            references = broken_references(point, data.folder, data.maps[1])
            ways = {"symmetric": (None, "symmetric")}
            ways |= {
                f"reference: {which}": (path, "reference") for which, path in references.items()
            }
            ways["poses: the true registers"] = (None, "poses")
            for way, (reference, start) in ways.items():
                found = as_it_is(point)
                if start != "symmetric":
                    found = judged(data, relaxed(data, reference, start=start))
                yield (name(point), way, *found)


def registers() -> Iterator[tuple[str, ...]]:
    """Weighted by the posterior, or the best one; in jaxrelax and in the field's way."""
    yield ("data", "register", *JUDGED)
    ways = {
        "soft (default)": {},
        "hard": {"register": "hard"},
        "the field's way, soft": FIELD,
        "the field's way, hard": FIELD | {"register": "hard"},
    }
    for point in DATA:
        with data_set(point, 0) as data:
            for way, options in ways.items():
                found = judged(data, relaxed(data, **options)) if options else as_it_is(point)
                yield (name(point), way, *found)


def masks() -> Iterator[tuple[str, ...]]:
    """Where, and up to which frequency, registers may differ."""
    yield ("data", "registers are told apart by", *JUDGED)
    for point in DATA:
        with data_set(point, 0) as data:
            asymmetric = partner(point)
            soft = gaussian_filter((asymmetric > 0.3 * asymmetric.max()).astype(np.float32), 1.0)
            site = np.clip(3.0 * soft, 0.0, 1.0)
            ways: dict[str, dict] = {"everything (default)": {}}
            for place, mask in (("the partner", site), ("a wrong place", rotate_map(site, AWAY))):
                path = data.folder / f"mask_{place.split()[1]}.mrc"
                write_map(path, np.clip(np.asarray(mask), 0.0, 1.0), PIXEL_ANGSTROM)
                ways[f"a mask around {place}"] = {"mask": str(path)}
            for limit in (20.0, 30.0):
                ways[f"frequencies to {limit:g} Å"] = {"max_resolution": limit}
            for way, options in ways.items():
                found = judged(data, relaxed(data, **options)) if options else as_it_is(point)
                yield (name(point), way, *found)


def symmetric_particles() -> Iterator[tuple[str, ...]]:
    """What is found in particles with a partner at every site."""
    yield ("data, every site occupied", "start, method", "posterior", "chance", "p", "iterations")
    for point in SYMMETRIC:
        with data_set(point, 0) as data:
            broken = broken_references(point, data.folder, data.maps[1])["the true map"]
            ways = {
                "symmetric": (None, {}),
                "reference with one partner more": (broken, {"start": "reference"}),
                "the field's way, soft": (None, FIELD),
                "the field's way, hard": (None, FIELD | {"register": "hard"}),
            }
            for way, (reference, options) in ways.items():
                result = relaxed(data, reference, **options)
                yield (
                    name(point), way, f"{result.registers.max(axis=1).mean():.3f}",
                    f"{1.0 / result.registers.shape[1]:.3f}",
                    p_value(result), str(len(result.history)),
                )  # fmt: skip


def pose_differences() -> Iterator[tuple[str, ...]]:
    """The poses of the last iteration, compared with everything they may be compared with."""
    yield ("compared with", "column of history.csv", "difference", "in another register")
    with data_set(WRONG_POSES, 0) as data:
        group = parse_group(data.point.group)
        result = relaxed(data)
        last = result.history[-1]
        error = np.median(pose_error_mod_group(result.poses, data.truth.rotations, group))
        found = register_accuracy(result, data.truth, group)
        relaxed_share = float(np.mean(result.registers.argmax(axis=1) != 0))

    def of(column: str) -> str:
        return f"{last[column]:.2f}°"

    for words, column, share in (
        ("iteration n − 1, without registers, median", "rotation_change_deg", None),
        ("iteration n − 1, with them, mean", "full_rotation_change_deg", last["register_change"]),
        ("the pose searched in this iteration, mean", "relaxed_rotation_deg", relaxed_share),
        ("the start, without registers, median", "start_rotation_deg", None),
        ("the start, with them, mean", "start_full_rotation_deg", relaxed_share),
    ):
        yield (words, f"`{column}`", of(column), "–" if share is None else f"{100 * share:.1f} %")
    yield (
        "the truth, without registers, median", "(simulated)", f"{np.rad2deg(error):.2f}°",
        f"{100 * (1.0 - found.accuracy):.1f} %",
    )  # fmt: skip


def off_the_sites(data: DataSet) -> np.ndarray:
    """Angle between line of sight and the nearest line from the axis through a site, degrees."""
    density = np.clip(data.maps[0] - data.maps[1], 0.0, None)
    density = np.where(density > 0.3 * density.max(), density, 0.0)
    middle = np.array(density.shape) // 2
    z, y, x = (
        density.ravel() @ np.indices(density.shape).reshape(3, -1).T
    ) / density.sum() - middle
    sites = parse_group(data.point.group).operators @ np.array([x, y, z])
    if data.point.group.startswith("C"):
        sites[:, 2] = 0.0  # height along the axis is the same at all sites
    along = np.abs(np.einsum("nk,sk->ns", data.truth.rotations[:, 2], sites))
    cosine = along / np.linalg.norm(sites, axis=1)
    return np.rad2deg(np.arccos(np.clip(cosine, 0.0, 1.0))).min(axis=1)


def views() -> Iterator[tuple[str, ...]]:
    """Expected accuracy with the true map by the angle between line of sight and axis."""
    bins = [f"{a:.0f}° to {b:.0f}°" for a, b in itertools.pairwise(VIEW_BINS_DEG)]
    yield ("data", "all views", "along the axis", *bins, "through a site")
    for point in VIEWED:
        with data_set(point, 0) as data:
            found = predict_registers(
                data.truth, Map(data.maps[0], PIXEL_ANGSTROM), point.group, mode=Registers()
            )
            through = off_the_sites(data) < NARROW_DEG
        which = np.digitize(found.view_deg, VIEW_BINS_DEG[1:-1])
        along = found.view_deg < NARROW_DEG
        chosen = [along, *(which == one for one in range(len(bins))), through]
        yield (
            name(point), f"{found.mean_accuracy:.3f}",
            *(f"{found.expected_accuracy[rows].mean():.3f} ({rows.sum()})" for rows in chosen),
        )  # fmt: skip


QUESTIONS: dict[str, Callable[[], Iterator[tuple[str, ...]]]] = {
    "start": starts,
    "register": registers,
    "mask": masks,
    "symmetric": symmetric_particles,
    "difference": pose_differences,
    "views": views,
}


def main() -> None:
    """Run, print, quote."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--docs", type=Path)
    asked = parser.parse_args()
    for question in asked.only:
        lines = []
        for row in QUESTIONS[question]():
            added = table(row, heading=not lines)
            print("\n".join(added), flush=True)
            lines += added
        if asked.docs:
            quote(asked.docs / "faq.md", question, lines)


if __name__ == "__main__":
    main()
