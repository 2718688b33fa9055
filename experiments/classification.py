"""Classification with relaxation on images with known states: accuracy, seeds, number of states.

    python experiments/classification.py DATA               # --states C4:C1 C4 C4, as users do
    python experiments/classification.py DATA --folder OUT  # what jaxrelax refine --out OUT wrote
    python experiments/classification.py DATA --seeds 5       # random starts from one consensus
    python experiments/classification.py DATA --auto          # the number of states is found
    python experiments/classification.py DATA --forced 2      # states that are not there
    python experiments/classification.py --homogeneous 20     # small simulated sets of one state
    python experiments/classification.py --homogeneous 10 --seed 10   # the second half of them

DATA holds particles.star, reference.mrc and, with rlnClassNumber (0: junk), truth.star.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import starfile

from jaxrelax import Callback, Classification, prepare, refine
from jaxrelax.assessment import register_accuracy
from jaxrelax.assessment.states import adjusted_rand, state_accuracy
from jaxrelax.io import read_particles
from jaxrelax.refinement import done, finish_states, step
from jaxrelax.refinement.stages import following
from jaxrelax.simulate import Simulation, simulate


class Show(Callback):
    """One line an iteration."""

    def on_step(self, problem, state, info):
        fractions = " ".join(f"{100 * one:.1f}" for one in info.fractions)
        print(
            f"  {info.iteration}: {info.score_resolution_angstrom:.1f} Å, posterior "
            f"{info.mean_max_posterior:.3f}, changed {100 * info.state_change:.1f} %, states "
            f"{fractions or '-'} %, {info.seconds:.1f} s",
            flush=True,
        )


def truth_labels(data: Path) -> np.ndarray:
    """True class of every image, from 0; −1 for junk."""
    table = starfile.read(data / "truth.star")
    table = table["particles"] if isinstance(table, dict) else table
    if "rlnClassNumber" not in table:  # of one kind
        return np.zeros(len(table), int)
    return np.asarray(table["rlnClassNumber"]).astype(int) - 1


def judge(result, data: Path) -> None:
    """What a result got right, printed."""
    columns = result.particles.extra_columns
    compare(
        result.particles,
        columns,
        result.state_posterior,
        [r.registers for r in result.states],
        data,
    )
    for one in result.states:
        print(f"{one.name}: {100 * one.fraction:.1f} %, {one.resolution_angstrom:.2f} Å")
    if result.support is not None:
        print(result.support.sentence())


def judge_folder(folder: Path, data: Path) -> None:
    """The same of an output folder."""
    table = starfile.read(folder / "particles.star")
    columns = table["particles"] if isinstance(table, dict) else table
    with np.load(folder / "registers.npz") as arrays:
        state, places = arrays["state"], arrays["posterior"]
    count = state.max()
    posterior = np.stack([places[:, state == k + 1].sum(axis=1) for k in range(count)], axis=1)
    registers = np.bincount(state)[1:].tolist()
    compare(read_particles(folder / "particles.star"), columns, posterior, registers, data)
    written = json.loads((folder / "result.json").read_text())
    for one in written["states"]:
        print(f"{one['name']}: {100 * one['fraction']:.1f} %, {one['resolution_angstrom']:.2f} Å")
    print(written["states_supported"]["sentence"])
    groups = written["states_supported"]["told_apart"]
    if 1 < len(groups) < count:
        together = np.stack(
            [posterior[:, [k - 1 for k in group]].sum(axis=1) for group in groups], axis=1
        )
        best = together.argmax(axis=1)
        right = state_accuracy(
            best, truth_labels(data), n_states=len(groups), probability=together.max(axis=1),
            posterior=together,
            junk_probability=np.asarray(columns["jrxJunkProbability"], np.float64),
        )  # fmt: skip
        print(f"classes that are not told apart taken for one:\n{right.summary()}")
    print(f"{written['seconds']:.0f} s, {written['peak_memory_gib']:.2f} GiB")


def compare(particles, columns, posterior, registers, data: Path, group: str = "C4") -> None:
    """Labels, posteriors and registers against the truth, printed."""
    true, found = truth_labels(data), np.asarray(columns["rlnClassNumber"]).astype(int) - 1
    right = state_accuracy(
        found, true, n_states=len(registers),
        probability=np.asarray(columns["jrxStateProbability"], np.float64), posterior=posterior,
        junk_probability=np.asarray(columns["jrxJunkProbability"], np.float64),
    )  # fmt: skip
    print(right.summary())
    print("confusion (true by found):")
    print(right.confusion)
    truth = read_particles(data / "truth.star")
    for number, count in enumerate(registers):
        if count == 1 or right.matching[number] < 0:
            continue
        rows = np.flatnonzero((found == number) & (true == right.matching[number]))
        own = register_accuracy(particles.select(rows), truth.select(rows), group)
        print(f"registers in state {number + 1}: {own.accuracy:.3f} of {len(rows)}")


def states(data: Path, mode: Classification, seed: int = 0) -> None:
    """One run, as a user would make it."""
    began = time.perf_counter()
    result = refine(
        data / "particles.star", data / "reference.mrc", mode=mode, seed=seed, callbacks=[Show()]
    )
    print(f"{time.perf_counter() - began:.0f} s, stopped: {result.reason}")
    if result.states:
        judge(result, data)
    else:
        print(f"one state: {result.evidence.sentence() if result.evidence else ''}")


def consensus(setup):
    """The consensus that all starts have in common, at its end."""
    state = setup.state
    while state.iteration == 0 or done(setup, state) is None:
        state, info = step(setup.problem, state)
        Show().on_step(setup.problem, state, info)
    return state


def seeds(data: Path, mode: Classification, count: int) -> None:
    """Random starts compared with each other and with the truth."""
    setup = prepare(data / "particles.star", data / "reference.mrc", mode=mode)
    ended = consensus(setup)
    true, labels = truth_labels(data), []
    for seed in range(1, count + 1):
        stage = setup.following[0]
        # With another seed.
        begin = partial(stage.begin.func, start="random", seed=seed)
        one = dataclasses.replace(stage, begin=begin)
        trial = following(dataclasses.replace(setup, following=(one,)), ended)
        state = trial.state
        while state.iteration == 0 or (reason := done(trial, state)) is None:
            state = step(trial.problem, state)[0]
        result = finish_states(trial.problem, state, reason=reason, seconds=0.0, settings={})
        print(f"seed {seed}: {int(state.iteration)} iterations")
        judge(result, data)
        labels.append(np.asarray(result.particles.extra_columns["rlnClassNumber"]))
    shown = true >= 0
    print("adjusted Rand index over images that are not junk:")
    for i, one in enumerate(labels):
        print(
            " ".join(f"{adjusted_rand(one[shown], other[shown]):.3f}" for other in labels[: i + 1])
        )


def homogeneous(count: int, first: int) -> None:
    """The number of states that is found where there is one."""
    answers = []
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as folder:
            simulate(
                "phantom", Path(folder) / "set",
                Simulation(
                    n_images=400, box=48, pixel_size_angstrom=6.5, snr=0.1, group="C4", seed=seed,
                    phantom_seed=seed, protomer_kda=60.0, partner_kda=60.0,
                    occupancy="one" if seed % 2 else "all",
                ),
            )  # fmt: skip
            data = Path(folder) / "set"
            result = refine(
                data / "particles.star", data / "reference.mrc", seed=seed,
                mode=Classification(("C4:C1",), start="splits"),
            )  # fmt: skip
        answers.append(max(len(result.states), 1))
        print(f"seed {seed}: {answers[-1]} state(s), {result.seconds:.0f} s", flush=True)
    print(f"one state in {answers.count(1)} of {count}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--states", nargs="+", default=["C4:C1", "C4", "C4"])
    parser.add_argument("--poses", choices=("held", "local"), default="local")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--auto", action="store_true")
    parser.add_argument("--forced", type=int)
    parser.add_argument("--homogeneous", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.homogeneous:
        return homogeneous(given.homogeneous, given.seed)
    if given.data is None:
        parser.error("name the folder of the data")
    if given.folder:
        return judge_folder(given.folder, given.data)
    if given.seeds:
        mode = Classification(given.states, poses=given.poses, start="random")
        return seeds(given.data, mode, given.seeds)
    if given.auto:
        mode = Classification(("C4:C1",), poses=given.poses, start="splits")
    elif given.forced:
        mode = Classification(("C4:C1",) * given.forced, poses=given.poses)
    else:
        mode = Classification(given.states, poses=given.poses)
    return states(given.data, mode, given.seed)


if __name__ == "__main__":
    main()
