"""Exactly symmetric particles, many times: how often does the symmetry test err?

    python experiments/negative_controls.py --out controls.csv --groups C2 C4 D2 --seeds 100

One row per run: p-value of the full symmetry, mean largest posterior, and what made the run. Rows
are appended as runs end; runs that the file already holds are skipped, so the same command goes on
where it was stopped. A summary of everything in the file is printed at the end.

Variants: ``plain``; ``pose`` (consensus poses with small errors, refined locally); ``noise-high``
and ``noise-low`` (the noise is taken to have 1.3 times the amplitude that it has, or 1/1.3 of it);
``axis`` (poses and origins as a consensus would have them whose axis lies half a pixel off the box
centre, refined locally); ``copies`` (every image in two rows, one in each half-set);
``expanded`` (a symmetry-expanded table, half-sets drawn row by row); ``tubes`` (half of the images,
each twice, once displaced, as overlapping segments of tubes); ``setting`` (map and poses in another
setting of the group: that must be refused, and is aligned as ``jaxrelax align`` does it); ``local``
(maps have the prior that varies in space). The last five have poses as ``pose`` has them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "jaxcache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import numpy as np
import scipy.stats

from jaxrelax.cli.align import aligned_particles
from jaxrelax.geometry import point_group, rotvec_to_matrix
from jaxrelax.imaging import RadialNoise
from jaxrelax.io import (
    ImageReader,
    InputError,
    Particles,
    read_map,
    read_particles,
    write_stack,
    write_star,
)
from jaxrelax.reconstruction import align_axes, moved, rotate_map
from jaxrelax.refinement import Local, Map, Registers, Relax, refine
from jaxrelax.refinement.reference_group import require_group
from jaxrelax.simulate import Simulation, simulate

GROUPS = ("C2", "C3", "C4", "D2", "D7", "T", "O", "I")
VARIANTS = (
    *("plain", "pose", "noise-high", "noise-low", "axis", "copies", "expanded", "tubes", "setting"),
    "local",
)
# Turns about z that lead to another setting of a group.
OTHER_SETTING_DEG = {"D2": 45.0, "D3": 30.0, "D4": 22.5, "D7": 180.0 / 14.0, "O": 45.0, "I": 90.0}
COLUMNS = (
    *("variant", "group", "seed", "n_images", "box", "p_value", "log10_p", "z_score", "nats"),
    *("mean_max_posterior", "excess_posterior", "tested", "n_iterations", "reason", "seconds"),
)
SIGNIFICANCE = 0.01
AXIS_OFF_PX = 0.5
WITH_WRONG_POSES = ("pose", "axis", "copies", "expanded", "tubes", "setting", "local")
TUBES, SEGMENT_STEP_PX = 20, 3
# Of all subunits and partners together; small rings are wide for their mass and must fit the box.
MASS_KDA, RING_MASS_KDA, LARGEST_RING = 240.0, 120.0, 4


class WrongNoise(RadialNoise):
    """A noise spectrum that is off by a factor, whatever the residuals say.

    Attributes:
        factor: of the power.
    """

    factor: float = 1.0

    def update(self, power, residual, count):
        """The spectrum of the residuals, times the factor."""
        return self.factor * super().update(power / self.factor, residual, count)


NOISE = {"noise-high": WrongNoise(factor=1.3**2), "noise-low": WrongNoise(factor=1.3**-2)}


def simulation(group: str, variant: str, seed: int, n_images: int, box: int) -> Simulation:
    """A symmetric phantom: every site carries its partner."""
    order = point_group(group).order
    each = (RING_MASS_KDA if order <= LARGEST_RING else MASS_KDA) / order
    moved = variant in WITH_WRONG_POSES
    return Simulation(
        n_images=n_images,
        box=box,
        pixel_size_angstrom=8.0 if box < 40 else 7.0,
        group=group,
        occupancy="all",
        protomer_kda=max(0.4 * each, 1.0),
        partner_kda=max(0.6 * each, 1.0),
        phantom_seed=seed % 10,
        snr=0.1,
        pose_error_deg=2.0 if moved else 0.0,
        shift_error_angstrom=1.0 if moved else 0.0,
        max_shift_angstrom=5.0,
        seed=seed,
        dtype="float32",
    )


def off_centre(particles, rng: np.random.Generator, pixel: float):
    """Origins of a consensus map that lies half a pixel off the centre, across its axis."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    vector = AXIS_OFF_PX * pixel * np.array([np.cos(angle), np.sin(angle), 0.0])
    moved = particles.origins_angstrom + (particles.rotations @ vector)[:, :2]
    return particles.with_updates(origins_angstrom=moved)


def in_both_half_sets(particles: Particles) -> Particles:
    """Every row twice, once in each half-set."""
    n = len(particles)
    twice = particles.select(np.tile(np.arange(n), 2))
    return twice.with_updates(half_set=np.repeat([1, 2], n))


def expanded(particles: Particles, group: str, rng: np.random.Generator) -> Particles:
    """A row for every mate of every pose, in any order, with a half-set of its own."""
    operators = point_group(group).operators
    n, order = len(particles), len(operators)
    rows = np.repeat(np.arange(n), order)
    mates = particles.rotations[rows] @ np.tile(operators.transpose(0, 2, 1), (n, 1, 1))
    table = particles.select(rows).with_updates(
        rotations=mates, half_set=rng.integers(1, 3, size=n * order)
    )
    return table.select(rng.permutation(n * order))


def segments(particles: Particles, folder: Path) -> Particles:
    """Every image twice, once displaced, with whatever noise it has; as segments of tubes."""
    n = len(particles)
    pixel = particles.optics[0].pixel_size_angstrom
    with ImageReader(particles) as reader:
        images = reader.read(np.arange(n))
    displaced = np.roll(images, SEGMENT_STEP_PX, axis=2)
    write_stack(
        folder / "segments.mrcs", np.concatenate([images, displaced]), pixel_size_angstrom=pixel
    )
    origins = particles.origins_angstrom
    table = particles.select(np.tile(np.arange(n), 2)).with_updates(
        origins_angstrom=np.concatenate([origins, origins - [SEGMENT_STEP_PX * pixel, 0.0]]),
        half_set=np.zeros(2 * n),
        extra_columns={
            "rlnImageName": np.array([f"{i + 1:06d}@segments.mrcs" for i in range(2 * n)]),
            "rlnHelicalTubeID": np.tile(np.arange(n) % TUBES + 1, 2),
            "rlnMicrographName": np.full(2 * n, "micrograph.mrc"),
        },
    )
    write_star(table, folder / "segments.star")
    return read_particles(folder / "segments.star")


def turned_and_aligned(particles: Particles, path: Path, group: str) -> tuple[Particles, Map]:
    """A consensus in another setting of the group, refused as it is, and brought back.

    Raises:
        AssertionError: the other setting was taken for the group.
    """
    values, pixel = read_map(path)
    turn = rotvec_to_matrix(np.deg2rad([0.0, 0.0, OTHER_SETTING_DEG[group]]))
    values = rotate_map(values, turn)
    particles = particles.with_updates(rotations=particles.rotations @ turn.T)
    try:
        require_group(values, point_group(group), "the turned map")
    except InputError:
        found = align_axes(values, point_group(group))
        values = moved(values, found.rotation, found.centre_px)
        return aligned_particles(particles, found, pixel), Map(values, pixel)
    raise AssertionError("the other setting of the group was not refused")


def one_run(group: str, variant: str, seed: int, n_images: int, box: int) -> dict:
    """Simulate, relax, test; a row of the table."""
    began = time.perf_counter()
    config = simulation(group, variant, seed, n_images, box)
    with tempfile.TemporaryDirectory() as folder:
        data = simulate("phantom", folder, config)
        particles = read_particles(data.particles)
        if variant == "axis":
            rng = np.random.default_rng((seed, 1))
            particles = off_centre(particles, rng, config.pixel_size_angstrom)
        elif variant == "copies":
            particles = in_both_half_sets(particles)
        elif variant == "expanded":
            particles = expanded(particles, group, np.random.default_rng((seed, 2)))
        elif variant == "tubes":
            particles = segments(particles.select(np.arange(n_images // 2)), Path(folder))
        reference: Path | Map = data.reference
        if variant == "setting":
            particles, reference = turned_and_aligned(particles, data.reference, group)
        result = refine(
            particles,
            reference,
            mode=Local() if variant in WITH_WRONG_POSES else Registers(),
            relax=Relax(group, prior="local" if variant == "local" else "isotypic"),
            noise=NOISE.get(variant),
            ini_high=25.0,
            seed=seed,
            subgroups="none",
        )
    evidence, largest = result.evidence, float(result.registers.max(axis=1).mean())
    return {
        "variant": variant,
        "group": group,
        "seed": seed,
        "n_images": n_images,
        "box": box,
        "p_value": evidence.p_value,
        "log10_p": evidence.subgroups[0].log10_p,
        "z_score": evidence.z_score,
        "nats": evidence.nats_per_particle,
        "mean_max_posterior": largest,
        "excess_posterior": largest - 1.0 / len(result.operators),
        "tested": int(evidence.tested),
        "n_iterations": len(result.history),
        "reason": result.reason,
        "seconds": time.perf_counter() - began,
    }


def key(row: dict) -> tuple:
    """What tells runs apart."""
    return tuple(str(row[name]) for name in ("variant", "group", "seed", "n_images", "box"))


def read(path: Path) -> list[dict]:
    """Rows of earlier runs; a last line that was cut short is left out, and from the file too."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole))
    rows = list(csv.DictReader(whole))
    return [row for row in rows if all(row.get(name) not in (None, "") for name in COLUMNS)]


def summarise(rows: list[dict]) -> None:
    """False positives, uniformity of p, and how far from uniform posteriors are."""
    print("\nvariant     group  runs  tested  p<0.01  KS p-value  largest excess posterior")
    groups = list(dict.fromkeys((row["variant"], row["group"]) for row in rows))
    for variant, group in [*groups, *((v, None) for v in dict.fromkeys(v for v, _ in groups))]:
        mine = [r for r in rows if r["variant"] == variant and group in (None, r["group"])]
        p = np.array([float(r["p_value"]) for r in mine])
        tested = np.array([int(r["tested"]) for r in mine]) == 1
        excess = max(float(r["excess_posterior"]) for r in mine)
        uniform = scipy.stats.kstest(p[tested], "uniform").pvalue if tested.any() else np.nan
        print(
            f"{variant:11} {group or 'all':5}  {len(mine):4d}  {tested.sum():6d}  "
            f"{np.mean(p < SIGNIFICANCE):6.3f}  {uniform:10.3g}  {excess:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("negative_controls.csv"))
    parser.add_argument("--seeds", type=int, default=20, help="runs per group and variant")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--groups", nargs="+", default=list(GROUPS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"])
    parser.add_argument("--small", action="store_true", help="200 images of 32 px, not 400 of 40")
    parser.add_argument("--summary-only", action="store_true")
    asked = parser.parse_args()
    n_images, box = (200, 32) if asked.small else (400, 40)
    rows = read(asked.out)
    done = {key(row) for row in rows}
    # Groups outermost: runs of one shape share their compiled programs.
    for variant in asked.variants:
        for group in asked.groups:
            for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
                name = {"variant": variant, "group": group, "seed": seed}
                if asked.summary_only or key(name | {"n_images": n_images, "box": box}) in done:
                    continue
                try:
                    row = one_run(group, variant, seed, n_images, box)
                except Exception as error:  # one bad run must not end a night of them
                    print(f"{variant} {group} {seed}: {type(error).__name__}: {error}", flush=True)
                    continue
                rows.append({k: str(v) for k, v in row.items()})
                append(asked.out, row)
                print(
                    f"{variant} {group} {seed}: p = {row['p_value']:.3g}, "
                    f"z = {row['z_score']:.2f}, excess posterior "
                    f"{row['excess_posterior']:.4f}, {row['seconds']:.1f} s",
                    flush=True,
                )
    with contextlib.suppress(ValueError):
        summarise(rows)


def append(path: Path, row: dict) -> None:
    """One line at a time, so that a run that is stopped loses at most its own."""
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
