"""The climb away from the symmetric map: what speeds it up, and what it ends in.

    python experiments/climb.py [--seeds K] [--docs docs]

Refines small phantoms at fixed poses and compares, on the same images: folds scored with the newest
sums or with those of the last pass; the strength of the asymmetric part held while seeking or left
to its gain; little optimism; fewer and more folds; several random starts. Prints a table, and
writes it to ``climb.md`` of the folder given by ``--docs``. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
from sweeps import INI_HIGH_ANGSTROM, DataSet, Point, data_set

from jaxrelax.geometry import best_global_operator, parse_group, register_agreement
from jaxrelax.refinement import Registers, Relax, State, prepare, step
from jaxrelax.refinement.maximisation import kept_share
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.refine import done
from jaxrelax.refinement.score_maps import score_map

POINTS = (
    Point("C4", 10.0, 0.15, 600),
    Point("C4", 10.0, 0.08, 1000),
    Point("D2", 10.0, 0.12, 800),
)
MOST_ITERATIONS = 60


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to climb."""

    name: str
    newest: bool = True
    held: bool = True
    optimism: float = 6.0
    folds: int = 5
    start: str = "symmetric"
    seed: int = 0


VARIANTS = (
    Variant("as it is"),
    Variant("from the true registers", start="poses"),
    Variant("old sums", newest=False),
    Variant("strength not held", held=False),
    Variant("old sums, strength not held", newest=False, held=False),
    Variant("optimism 3", optimism=3.0),
    Variant("old sums, not held, optimism 3", newest=False, held=False, optimism=3.0),
    Variant("1 fold (no cross-fitting)", folds=1),
    Variant("2 folds", folds=2),
    Variant("10 folds", folds=10),
    Variant("another random start", seed=1),
)


def with_old_sums(problem: Problem, state: State, held: bool) -> State:
    """The state with the maps of every fold made beforehand, so that no fold sees newer ones."""
    sums = state.sums()
    if not sums:
        return state
    symmetric, asymmetric = [], []
    for half, folds in enumerate(sums):
        for fold in range(len(folds)):
            others = folds[:fold] + folds[fold + 1 :] if problem.data.cross_fitted else folds
            rest = others[0]
            for one in others[1:]:
                rest = rest + one
            parts = score_map(problem, rest, half, state.prior(), kept_share(problem))
            symmetric.append(parts.symmetric)
            asymmetric.append(parts.asymmetric)
    return state.replace(
        symmetric=np.stack(symmetric),
        asymmetric=np.stack(asymmetric) * np.float32(strength(state, held)),
        fold_sums=state.fold_sums[:0],
        held_nats=-1.0,
    )


def strength(state: State, held: bool) -> float:
    """Of the asymmetric part, from the distance that it had in the last pass.

    The maps of a pass are not known to this script, so it is held one pass late.
    """
    last = state.history[-1]
    if not held or state.held_nats < 0 or last["register_nats"] <= 0:
        return state.amplitude
    return float(np.sqrt(state.held_nats / last["register_nats"])) * last["applied"]


def accuracy(problem: Problem, state: State, data: DataSet) -> float:
    """Mean over the half-sets, each in its own frame."""
    best = problem.particle.registers.representatives[state.registers.argmax(axis=1)]
    poses = state.rotations @ best.transpose(0, 2, 1)
    return float(
        np.mean(
            [
                register_agreement(
                    poses[chosen], data.truth.rotations[chosen], problem.particle.group, problem.particle.subgroup
                ).fraction
                for chosen in (problem.data.half_set == 1, problem.data.half_set == 2)
            ]
        )
    )


def climb(data: DataSet, variant: Variant) -> dict:
    """One refinement, step by step."""
    particles = data.true_start() if variant.start == "poses" else data.consensus
    setup = prepare(
        particles, data.folder / "reference.mrc", mode=Registers(),
        relax=Relax(
            data.point.group, cross_fit=variant.folds, optimism=variant.optimism,
            start=variant.start,
        ),
        ini_high=INI_HIGH_ANGSTROM, seed=variant.seed,
    )  # fmt: skip
    problem, state = setup.problem, setup.state
    curve: list[float] = []
    began = time.perf_counter()
    while not curve or (done(setup, state) is None and len(curve) < MOST_ITERATIONS):
        applied = 1.0
        if not variant.newest:
            applied = strength(state, variant.held) if state.history else 1.0
            state = with_old_sums(problem, state, variant.held)
        elif not variant.held:
            state = state.replace(held_nats=-1.0)
        state, _ = step(problem, state)
        row = {**state.history[-1], "applied": applied}
        state = state.replace(history=(*state.history[:-1], row))
        curve.append(accuracy(problem, state, data))
    reached = np.flatnonzero(np.array(curve) >= 0.95 * curve[-1])
    posterior = float(state.registers.max(axis=1).mean())
    return {
        "accuracy": curve[-1],
        "posterior": posterior,
        "iterations": len(curve),
        "to_95": int(reached[0]) + 1 if variant.start == "symmetric" else 0,
        "seconds": time.perf_counter() - began,
        "registers": state.registers.argmax(axis=1),
        "half_set": problem.data.half_set,
    }


def agreement(data: DataSet, first: dict, second: dict) -> float:
    """Share of images in the same register in two runs, each half-set up to one operator."""
    group = parse_group(data.point.group)
    # Half-sets come from the file, so they are those of both runs.
    return float(
        np.mean(
            [
                best_global_operator(
                    first["registers"][chosen], second["registers"][chosen], group
                ).agreement
                for chosen in (first["half_set"] == 1, first["half_set"] == 2)
            ]
        )
    )


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--docs", type=Path)
    asked = parser.parse_args()
    lines = [
        "| data | variant | accuracy | mean max posterior | iterations | to 0.95 of it | agreement "
        "with *as it is* | time, ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for point in POINTS:
        for seed in range(asked.seeds):
            with data_set(point, seed) as data:
                base: dict = {}
                for variant in VARIANTS:
                    found = climb(data, variant)
                    base = base or found
                    name = f"{point.group}, SNR {point.snr:g}, {point.images} images, seed {seed}"
                    lines.append(
                        f"| {name} | {variant.name} | {found['accuracy']:.3f} | "
                        f"{found['posterior']:.3f} | {found['iterations']} | "
                        f"{found['to_95'] or '-'} | {agreement(data, base, found):.3f} | "
                        f"{found['seconds'] / base['seconds']:.1f} |"
                    )
                    print(lines[-1], flush=True)
    if asked.docs:
        text = (
            "# The climb\n\nMade by `python experiments/climb.py --docs docs`, not by hand.\n"
            "Partners of 10 % of the mass on phantoms at exact poses; accuracy before the last,\n"
            "joined scoring, each half-set in its own frame.\n\n" + "\n".join(lines) + "\n"
        )
        (asked.docs / "climb.md").write_text(text)


if __name__ == "__main__":
    main()
