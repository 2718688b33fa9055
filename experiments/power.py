"""How many images it takes to find an asymmetry, against what the data could tell at all.

    python experiments/power.py --small        # or --full; what is done is skipped
    python experiments/power.py --plot         # figure and table from the CSV

For every mass of the partner and SNR, by bisection over the number of images: the smallest number
at which asymmetry is found (p < 0.01) in at least half of the seeds, poses known. Three answers:

- bound: the Neyman–Pearson test of the *true* asymmetric map, registers unknown, against it
  symmetrised, at level 0.01 with power 0.5. No test that has to find the map can do better.
- ours: refine from the symmetric map; found when the program's own test says so.
- field: the field's way (see sweeps.py) has no test; it is lent ours, on its own maps. What its
  user would look at, the mean largest posterior, is kept beside it, and so is the same number for
  a particle that is exactly symmetric (control): there it must not look like success.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
import pandas as pd
from sweeps import COLOURS, LABELS, DataSet, Point, Rows, data_set

from jaxrelax.assessment import oracle_registers, register_accuracy
from jaxrelax.assessment.figures import MUTED, legend, new_figure, style
from jaxrelax.imaging import batch_ctf, extract_slices, pixel_weights
from jaxrelax.judgement.verdict import p_text
from jaxrelax.reconstruction import IsotypicParts
from jaxrelax.refinement import Map, Registers, Relax, prepare
from jaxrelax.refinement.scoring import hypothesis_volume

LEVEL = 0.01
LADDER = tuple(round(32 * 2 ** (step / 2)) for step in range(16))  # 32 … 5793 images
LARGEST = {"small": 2897, "full": LADDER[-1]}
BOUND_IMAGES = 300  # poses and CTFs that the bound is averaged over
BOUND_DRAWS = 40  # of the noise, for each of them
SUMS = 2000

#       group  mass %  SNR
# At higher SNR a handful of images would do if the map were known: nothing to compare with.
SMALL = (("C4", 20.0, 0.03), ("D2", 20.0, 0.03), ("C4", 20.0, 0.01))
FULL = tuple(
    (group, mass, snr)
    for group in ("C4", "D2") for mass in (5.0, 10.0, 20.0) for snr in (0.01, 0.03, 0.1)
)  # fmt: skip

KEYS = (*(f.name for f in fields(Point)), "seed", "method")
COLUMNS = ("found", "p_value", "mean_max_posterior", "accuracy", "ceiling", "seconds")
BOUND_KEYS = ("group", "mass_percent", "snr")
BOUND_COLUMNS = ("images", "nats", "predicted_accuracy", "ceiling")


def gram(data: DataSet, noise_power: np.ndarray) -> np.ndarray:
    """Weighted inner products (n, J, J) of the views of D in the registers of every true pose.

    Of the log-likelihood ratios x_j − ½ K_jj to the symmetrised map, K is the covariance of x; its
    mean is 0 for a symmetric particle and column t of K for one in register t.
    """
    true, symmetric = data.maps
    pixel = data.truth.optics[0].pixel_size_angstrom
    setup = prepare(
        data.truth, Map(true, pixel), mode=Registers(), relax=Relax(data.point.group)
    )  # fmt: skip
    problem = setup.problem
    last = problem.shells.last
    table = problem.plan.table
    parts = IsotypicParts(np.zeros_like(true), true - symmetric)
    volume = hypothesis_volume(table, parts, last, problem.shells.box)
    geometry = problem.execution.geometry(0, last, last)
    weights = pixel_weights(
        jnp.asarray(noise_power[0].astype(np.float32)), geometry.packing, geometry.slice_shell, last
    )
    found = []
    for rows in np.array_split(np.arange(len(data.truth)), 10):
        rotations = jnp.asarray(data.truth.rotations[rows].astype(np.float32))
        views = extract_slices(volume, rotations, geometry.slice_wavevectors)
        views = views[:, ~table.symmetrised]
        ctf = batch_ctf(problem.execution.ctf_parameters(rows), geometry, False)
        views = views * (ctf * jnp.sqrt(weights))[:, None]
        found.append(np.asarray(jnp.einsum("njf,nkf->njk", views, views.conj()).real, np.float64))
    return np.concatenate(found)


def gains(k: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Draws of the log-likelihood ratio of one image, asymmetric and symmetric, and accuracy.

    The accuracy is that of the most probable register, for comparison with that on images.
    """
    values, vectors = np.linalg.eigh(k)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    noise = np.einsum("njk,nkd->ndj", root, rng.standard_normal((*k.shape[:2], BOUND_DRAWS)))
    half = 0.5 * np.diagonal(k, axis1=1, axis2=2)[:, None]
    asymmetric = noise + k[:, None, :, 0] - half
    accuracy = float(np.mean(asymmetric.argmax(axis=2) == 0))

    def mixture(x):
        return (np.logaddexp.reduce(x, axis=2) - np.log(k.shape[1])).ravel()

    return mixture(asymmetric), mixture(noise - half), accuracy


def images_needed(one: np.ndarray, null: np.ndarray, rng: np.random.Generator) -> int:
    """Fewest images with which the sum of ``one`` exceeds that of ``null`` at level and power."""

    def enough(n: int) -> bool:
        shape = (SUMS, n)
        threshold = np.quantile(rng.choice(null, shape).sum(axis=1), 1.0 - LEVEL)
        return bool(np.median(rng.choice(one, shape).sum(axis=1)) > threshold)

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > 2**13:  # the sums are normal by now: extrapolated
            spread = -np.quantile(rng.normal(size=10**6), LEVEL) * null.std()
            return int(np.ceil((spread / (one.mean() - null.mean())) ** 2))
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def add_bound(rows: Rows, point: Point) -> int:
    """The bound for a mass and an SNR, made if it is missing."""
    key = {name: asdict(point)[name] for name in BOUND_KEYS}
    if (known := rows.get(key)) is not None:
        return int(known["images"])
    rng = np.random.default_rng(0)
    with data_set(replace(point, images=BOUND_IMAGES), 0) as data:
        pixel = data.truth.optics[0].pixel_size_angstrom
        oracle = oracle_registers(
            data.truth, data.maps[0], pixel_size_angstrom=pixel, group=point.group
        )
        one, null, predicted = gains(gram(data, oracle.noise_power), rng)
    found = {
        "images": images_needed(one, null, rng),
        "nats": float(one.mean()),
        "predicted_accuracy": predicted,
        "ceiling": oracle.accuracy,
    }
    rows.append(key | found)
    print(f"{key}: bound {found['images']} images", flush=True)
    return found["images"]


def add_run(rows: Rows, point: Point, seed: int, method: str) -> bool:
    """One refinement, made if it is missing: whether it found asymmetry."""
    key = {**asdict(point), "seed": seed, "method": method}
    if (known := rows.get(key)) is not None:
        return bool(known["found"])
    with data_set(point, seed) as data:
        result = data.refine(method)
        asymmetric = point.occupancy == "one"
        posterior = float(result.registers.max(axis=1).mean())
        found = {
            "found": int(result.evidence.p_value < LEVEL),
            "p_value": result.evidence.p_value,
            "mean_max_posterior": posterior,
            "seconds": result.seconds,
        }
        if asymmetric:
            pixel = data.truth.optics[0].pixel_size_angstrom
            found["accuracy"] = register_accuracy(result, data.truth, point.group).accuracy
            found["ceiling"] = oracle_registers(
                data.truth, data.maps[0], pixel_size_angstrom=pixel, group=point.group
            ).accuracy
    rows.append(key | found)
    p = p_text(np.log10(max(found["p_value"], 1e-300)))
    print(
        f"{point.group} {point.mass_percent:g} % SNR {point.snr:g} {point.images:5d} images "
        f"{point.occupancy} seed {seed} {method:6s} p {p}  "
        f"mean max posterior {posterior:.3f}  {found['seconds']:.1f} s",
        flush=True,
    )
    return bool(found["found"])


def smallest(found_at: Callable[[int], bool], bound: int, largest: int) -> int | None:
    """The ladder's first number of images at which it is found; None if at none.

    Below the bound nothing is tried: there no test has power 0.5.
    """
    steps = [n for n in LADDER if bound <= n <= largest]
    low, high = -1, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found_at(steps[middle]) else (middle, high)
    return steps[high] if high < len(steps) else None


def run(runs: Rows, bounds: Rows, size: str, seeds: int) -> pd.DataFrame:
    """All points: one row for each with the numbers of images."""
    table = []
    for group, mass, snr in SMALL if size == "small" else FULL:
        point = Point(group, mass, snr, LARGEST[size])
        row: dict[str, object] = {"group": group, "mass_percent": mass, "snr": snr}
        row["bound"] = add_bound(bounds, point)
        for method in ("ours", "field"):

            def found_at(images: int, point=point, method=method) -> bool:
                some = replace(point, images=images)
                found = [add_run(runs, some, seed, method) for seed in range(seeds)]
                return 2 * sum(found) >= seeds

            row[method] = images = smallest(found_at, row["bound"], LARGEST[size])
            control = replace(point, images=images or LARGEST[size], occupancy="all")
            add_run(runs, control, 0, method)
            for name, some in (("", replace(control, occupancy="one")), ("control_", control)):
                made = runs.get({**asdict(some), "seed": 0, "method": method}) or {}
                for column in ("mean_max_posterior", "p_value"):
                    row[f"{method}_{name}{column}"] = made.get(column)
        table.append(row)
    return pd.DataFrame(table)


def plot(table: pd.DataFrame, largest: int, docs: Path) -> None:
    """Images needed against the bound's, and the same against the mass."""
    matplotlib.rcParams["svg.hashsalt"] = "jaxrelax"
    figure = new_figure(5.4, 4.4)
    axes = style(
        figure.add_subplot(), "bound: images needed if the map were known", "images needed (p<0.01)"
    )
    axes.set(xscale="log", yscale="log")
    limits = [0.7 * table["bound"].min(), 1.4 * largest]
    axes.plot(limits, limits, color=MUTED, lw=0.8, label="bound")
    for method in ("ours", "field"):
        reached = table[method].notna()
        look = {"color": COLOURS[method], "ls": "", "ms": 6}
        axes.plot(
            table["bound"][reached], table[method][reached], marker="o", label=LABELS[method],
            **look,
        )  # fmt: skip
        never = table["bound"][~reached]
        axes.plot(never, np.full(len(never), largest), marker="^", mfc="none", **look)
    for row in table.itertuples():
        text = f"{row.group} {row.mass_percent:g} % {row.snr:g}"
        axes.annotate(
            text, (row.bound, row.bound), xytext=(2, -8), textcoords="offset points", fontsize=6
        )
    legend(axes, loc="lower right")
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    figure.savefig(docs / "figures" / "power.svg", format="svg", metadata={"Date": None})


def main() -> None:
    """Parse, bisect, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="three points, two seeds (default)")
    size.add_argument("--full", action="store_true", help="both groups, all masses and SNRs")
    parser.add_argument("--seeds", type=int, help="number of seeds per number of images")
    parser.add_argument("--out", type=Path, default=Path("out/power"), help="folder of the CSVs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the figure goes")
    parser.add_argument("--bound", action="store_true", help="the bounds only")
    parser.add_argument("--plot", action="store_true", help="draw the table of the last sweep")
    asked = parser.parse_args()
    chosen = "full" if asked.full else "small"
    bounds = Rows(asked.out / "bound.csv", BOUND_KEYS, BOUND_COLUMNS)
    if asked.bound:
        for group, mass, snr in SMALL if chosen == "small" else FULL:
            add_bound(bounds, Point(group, mass, snr, BOUND_IMAGES))
        print(bounds.table().to_string(index=False))
        return
    path = asked.out / f"power_{chosen}.csv"
    if not asked.plot:
        runs = Rows(asked.out / "runs.csv", KEYS, COLUMNS)
        seeds = asked.seeds or (3 if asked.full else 2)
        run(runs, bounds, chosen, seeds).to_csv(path, index=False)
    table = pd.read_csv(path)
    print(table.to_string(index=False))
    plot(table, LARGEST[chosen], asked.docs)


if __name__ == "__main__":
    main()
