"""Where states may start, measured against each other: random images, clusters, true maps.

    python experiments/state_starts.py OUT [--data NA_MIXTURE] [--seeds 5] [--docs docs]

Phantoms with two sites that are occupied independently of each other, looked at without symmetry at
their true poses: four states, which differ in two directions. From one consensus they are
classified from random images and from clusters along the directions in which images differ most,
with several seeds, and from the true states, as a measure. ``--data`` is a folder with
particles.star, reference.mrc and truth.star of a C4 particle in three states: one partner, four,
none; and junk. It is classified into C4:C1, C4, C4, also from the occupancy of the consensus, and
into three relaxed states, with two seeds. What OUT holds is not made again. ``--docs`` puts the
tables into results.md. Half an hour on two cores for the phantoms, an hour and a half for the data.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from classification import consensus
from pages import quote, table

from jaxrelax import Classification, prepare
from jaxrelax.assessment import oracle_patterns
from jaxrelax.assessment.states import adjusted_rand, state_accuracy
from jaxrelax.io import read_map, read_particles
from jaxrelax.refinement import Setup, State, done, finish_states, step
from jaxrelax.refinement.stages import following
from jaxrelax.refinement.start import starting_weights
from jaxrelax.refinement.state import replaced
from jaxrelax.refinement.state_starts import mostly, placed
from jaxrelax.simulate import Simulation, simulate

SITES = Simulation(
    n_images=1200, box=48, pixel_size_angstrom=6.0, group="C2", protomer_kda=60.0,
    partner_kda=40.0, occupancy="0.5", pose_error_deg=0.0, shift_error_angstrom=0.0, seed=3,
)  # fmt: skip
SNRS = (0.1, 0.05)
NAMES = {
    "random": "random images",
    "directions": "clusters along directions",
    "occupancy": "occupancy of the consensus",
    "truth": "the true states",
}


def true_states(data: Path, sites: bool) -> np.ndarray:
    """State of every image, from 0; −1 for junk."""
    truth = read_particles(data / "truth.star")
    if sites:
        return np.unique(np.asarray(truth.column("jrxOccupiedSites")), return_inverse=True)[1]
    return np.asarray(truth.column("rlnClassNumber")).astype(int) - 1


def started(setup: Setup, ended: State, start: str, seed: int, true: np.ndarray) -> Setup:
    """The classification that follows a consensus, from a start."""
    stage = setup.following[0]
    # Truth begins in the states as clusters do.
    mode = dataclasses.replace(
        stage.make.keywords["mode"], start="directions" if start == "truth" else start
    )
    begin = partial(stage.begin.func, start="random" if start == "truth" else start, seed=seed)
    make = partial(stage.make, mode=mode)
    one = dataclasses.replace(stage, make=make, begin=begin)
    trial = following(dataclasses.replace(setup, following=(one,)), ended)
    if start == "truth":
        labels = np.where(true < 0, 0, true)
        share = mostly(labels, len(trial.problem.of_maps))
        weights = placed(trial.problem, ended.beliefs.registers, share)
        beliefs = replaced(trial.state.beliefs, registers=weights, sought=weights)
        trial = dataclasses.replace(trial, state=trial.state.replace(beliefs=beliefs))
    return trial


def classified(trial: Setup, true: np.ndarray) -> dict:
    """What a classification ends with."""
    problem, state, began = trial.problem, trial.state, time.perf_counter()
    weights = starting_weights(problem, state)
    while state.iteration == 0 or (reason := done(trial, state)) is None:
        state = step(problem, state)[0]
    result = finish_states(problem, state, reason=reason, seconds=0.0, settings={})
    labels = np.asarray(result.particles.extra_columns["rlnClassNumber"]).astype(int) - 1
    right = state_accuracy(
        labels, true, n_states=len(result.states), posterior=result.state_posterior,
        probability=np.asarray(result.particles.extra_columns["jrxStateProbability"], np.float64),
        junk_probability=np.asarray(
            result.particles.extra_columns["jrxJunkProbability"], np.float64
        ),
    )  # fmt: skip
    return {
        "accuracy": float(right.accuracy),
        "posterior": float(right.mean_posterior),
        "start": _agreeing(problem, weights, true),
        "labels": labels.tolist(),
        "iterations": int(state.iteration),
        "seconds": time.perf_counter() - began,
    }


def _agreeing(problem, weights, true: np.ndarray) -> float | None:
    """Accuracy of the states that images begin in, in half-set 1; each has numbers of its own."""
    if weights is None:
        return None
    count, rows = len(problem.of_maps), (problem.data.half_set == 1) & (true >= 0)
    maps = problem.plan.table.place_maps
    of_state = np.stack([weights[:, maps == k].sum(axis=1) for k in range(count)], axis=1)
    found = of_state.argmax(axis=1)[rows]
    if len(found) == 0:
        return None
    best = max(
        np.mean(np.take(order, found) == true[rows])
        for order in itertools.permutations(range(count))
    )
    return float(best)


def runs(
    out: Path, name: str, data: Path, particles: str, states: tuple[str, ...], poses: str,
    starts: list[str], seeds: int, true: np.ndarray,
) -> dict[str, list[dict]]:  # fmt: skip
    """All starts of one set, from one consensus; each is kept in a file."""
    kept = {start: [out / f"{name}_{start}_{s + 1}.json" for s in range(seeds)] for start in starts}
    kept = {s: files[: 1 if s in ("truth", "occupancy") else None] for s, files in kept.items()}
    if not all(one.exists() for files in kept.values() for one in files):
        out.mkdir(parents=True, exist_ok=True)
        mode = Classification(states, poses=poses, start="random")
        setup = prepare(data / particles, data / "reference.mrc", mode=mode)
        ended = consensus(setup)
        for start, files in kept.items():
            for seed, file in enumerate(files, start=1):
                if file.exists():
                    continue
                began = time.perf_counter()
                trial = started(setup, ended, start, seed, true)
                begun = time.perf_counter() - began
                found = classified(trial, true) | {"begun": begun}
                file.write_text(json.dumps(found))
                print(name, start, seed, f"{found['accuracy']:.3f}", flush=True)
    return {s: [json.loads(one.read_text()) for one in files] for s, files in kept.items()}


def rows(name: str, found: dict[str, list[dict]], true: np.ndarray) -> list[str]:
    """A row of the table for every start."""
    lines, shown = [], true >= 0
    for start, every in found.items():
        right = [one["accuracy"] for one in every]
        labels = [np.array(one["labels"])[shown] for one in every]
        pairs = [adjusted_rand(*pair) for pair in itertools.combinations(labels, 2)]
        begun = [one["start"] for one in every if one["start"] is not None]
        several = len(right) > 1
        lines += table(
            [name, NAMES[start],
             f"{np.median(begun):.3f}" if begun and start == "directions" else "–",
             f"{np.median(right):.3f}", f"{min(right):.3f} to {max(right):.3f}" if several else "–",
             f"{min(pairs):.2f}" if pairs else "–",
             f"{np.median([one['iterations'] for one in every]):.0f}",
             f"{np.median([one['begun'] for one in every]):.0f} s, "
             f"{np.median([one['seconds'] for one in every]):.0f} s"], heading=False,
        )  # fmt: skip
    return lines


def main() -> None:
    """Make what there is not, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    lines = table(
        ["images", "states start from", "right in the start", "right: median", "least to most",
         "least agreement of seeds (ARI)", "iterations", "start, then classification"],
        heading=True,
    )  # fmt: skip
    for snr in SNRS:
        data = given.out / f"sites_snr{snr:g}"
        if not (data / "simulation.json").exists():
            simulate("phantom", data, dataclasses.replace(SITES, snr=snr))
        truth = read_particles(data / "truth.star")
        maps = [read_map(path)[0] for path in sorted(data.glob("truth_map_*.mrc"))]
        best = oracle_patterns(truth, maps, group="C2").accuracy
        true = true_states(data, sites=True)
        found = runs(
            given.out, data.name, data, "truth.star", ("C1",) * 4, "held",
            ["random", "directions", "truth"], given.seeds, true,
        )  # fmt: skip
        lines += rows(f"two sites, SNR {snr:g} (oracle {best:.3f})", found, true)
    if given.data is not None:
        true, name = true_states(given.data, sites=False), given.data.name
        for states, starts in (
            (("C4:C1", "C4", "C4"), ["random", "directions", "occupancy"]),
            (("C4:C1",) * 3, ["random", "directions"]),
        ):
            kind = "-".join(states).replace(":", "to")
            found = runs(
                given.out, f"{name}_{kind}", given.data, "particles.star", states, "local",
                starts, min(given.seeds, 2), true,
            )  # fmt: skip
            lines += rows(f"{name}, {' '.join(states)}", found, true)
    print("\n".join(lines))
    if given.docs is not None:
        quote(given.docs / "results.md", "state-starts", lines)


if __name__ == "__main__":
    main()
