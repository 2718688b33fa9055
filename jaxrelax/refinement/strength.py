"""How strongly the asymmetric part may speak: calibrated by images that had no part in it.

A gain from an FSC is a guess of how much of a map is signal; cross-fitting inside a half-set leaves
the registers of other images, which were found with the help of the judged one. What neither can
know is how well the map predicts images it never saw. So each half-set's images are scored by the
other half-set's map, and the strength α of its asymmetric part and the fraction π of symmetric
particles are those of highest likelihood,

    Σ_i log[ (1 − π) (1/J) Σ_j exp(α x_ij − ½ α² d²_i) + π ],

with x_ij the match of register j and d²_i the squared distance of the views from the symmetrised
one. Where there is nothing to find α is zero, and all registers stay equal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import scipy.optimize
from jaxtyping import Float, Float32, Int

from jaxrelax.engine.data import Data
from jaxrelax.engine.memory import give_back_freed
from jaxrelax.engine.side_by_side import Side, both, one_by_one
from jaxrelax.inference import FixedPoses, Junk, SymmetricState, logit
from jaxrelax.reconstruction import IsotypicParts, scoring_volume
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.scoring import scored_batches
from jaxrelax.refinement.state import State, Strength, replaced

# Per half-set; a strength needs no more.
MOST_IMAGES = 2000
LARGEST_STEP = 4.0
# Of the strength, in nats, from one iteration to the next: registers sharpen by degrees, and what a
# soft posterior has found of the map leads the rest of it.
LARGEST_RISE = 4.0
# What a strength that was fitted to the very images must gain over none to be as likely: noise
# alone gains 2.7 nats in one of a hundred symmetric particles (half a χ² of one degree). The
# half-sets' scores are correlated when there is only noise, so half of their sum is counted.
OCCAM_NATS = 3.0
# Of the symmetric state, as if so many particles had been seen outside it.
PRIOR_COUNT = 20.0


class CrossScores(NamedTuple):
    """Images of one half-set under the map of the other."""

    rows: Int[np.ndarray, " n"]
    registers: Float32[np.ndarray, "n registers"]  # log-evidences
    symmetric: Float32[np.ndarray, " n"]
    junk: Float32[np.ndarray, " n"]  # probability


class Calibrated(NamedTuple):
    """Strength and symmetric fraction of highest likelihood.

    Attributes:
        factor: of the strength that the maps had.
        nats: mean squared distance between views that it stands for.
        symmetric_fraction: π.
        log_likelihood: over that of the symmetrised map, in nats.
    """

    factor: float
    nats: float
    symmetric_fraction: float
    log_likelihood: float


def cross_scores(
    problem: Problem, state: State, maps: list[IsotypicParts], strength: float, *, max_shell: int
) -> CrossScores:
    """Score each half-set's images by the other half-set's map, poses held.

    Processes share the images, and all get the whole result. It is an E-step without sums, and
    needs all of the problem.

    Args:
        problem, state: inputs, poses, noise and band.
        maps: of half-sets 1 and 2, each in its own frame.
        strength: factor of their asymmetric parts.
        max_shell: last shell to which images are prepared, at least the scored band; that of the
            pass before, whose program then serves.
    """
    give_back_freed()  # of the M-step before: two volumes are made next
    execution, table = problem.execution, problem.plan.table
    rung = problem.shells.rung(state.score_shell)
    n = len(problem.data)
    registers = np.zeros((n, problem.particle.n_registers), np.float32)
    symmetric = np.zeros(n, np.float32)
    chosen = _sample(problem.data, problem.plan.seed)

    def score(half: int, side: Side) -> None:
        parts = maps[1 - half]
        parts = IsotypicParts(parts.symmetric, np.float32(strength) * parts.asymmetric)
        volume = scoring_volume([parts], table, max_shell=rung, image_box=problem.shells.box)
        for group, rows in chosen[half]:
            geometry = execution.geometry(group, max_shell, rung)
            for batch in scored_batches(
                problem, state, volume, group, execution.mine(rows), geometry, FixedPoses()
            ):
                registers[batch.rows] = batch.found.log_evidence[:, ~table.symmetrised]
                symmetric[batch.rows] = batch.found.log_evidence[:, table.symmetric_row]
                if group == chosen[half][-1][0]:
                    side.go_on()
                if side.stopped:
                    return

    both(partial(score, 0), partial(score, 1), alone=one_by_one(execution, state.score_shell))
    give_back_freed()
    seen = [rows for of_half in chosen for _, rows in of_half]
    rows = np.concatenate(seen)
    found = (registers[rows], symmetric[rows])
    found = execution.workers.rows(found, execution.own[rows])
    return CrossScores(rows, *found, state.beliefs.junk[rows])


def _sample(data: Data, seed: int) -> list[list[tuple[int, Int[np.ndarray, " rows"]]]]:
    """Images that are scored: [half] of (optics group, rows)."""
    rng = np.random.default_rng((seed, 8))
    chosen = []
    for half in (1, 2):
        groups = data.batches(half, None)
        share = min(1.0, MOST_IMAGES / sum(len(rows) for _, rows in groups))
        if share < 1.0:
            groups = [
                (group, np.sort(rng.permutation(rows)[: max(1, round(share * len(rows)))]))
                for group, rows in groups
            ]
        chosen.append(groups)
    return chosen


def calibrated(
    problem: Problem,
    state: State,
    maps: list[IsotypicParts],
    held_before: float | None,
    max_shell: int,
) -> State:
    """Strength of the asymmetric part and symmetric fraction, from the other half's images.

    Args:
        problem, state: after the M-step.
        maps: of the half-sets.
        held_before: nats that the maps were held to so far, None if they were not.
        max_shell: last shell accumulated.
    """
    strength = state.maps.strength
    factor = float(strength.factor)
    scores = cross_scores(problem, state, maps, factor, max_shell=max_shell)
    latents = problem.plan.model.latents
    symmetric = [one.name for one in latents if isinstance(one, SymmetricState)]
    found = problem.execution.workers.agreed(
        calibrate(
            scores.registers,
            scores.symmetric,
            (1.0 - scores.junk) * problem.data.units.weight[scores.rows],
            with_symmetric=any(isinstance(one, Junk) for one in latents),
        )
    )
    nats = min(found.nats, np.inf if held_before is None else LARGEST_RISE * held_before)
    after = Strength(
        factor=np.asarray(factor * found.factor * np.sqrt(nats / max(found.nats, 1e-30))),
        held_nats=np.asarray(nats),
        nats_per_power=strength.nats_per_power,
        log_odds=np.asarray(0.5 * found.log_likelihood - OCCAM_NATS),
    )
    fraction = dict.fromkeys(symmetric, logit(found.symmetric_fraction))
    return state.replace(
        maps=replaced(state.maps, strength=after), latents={**state.latents, **fraction}
    )


def calibrate(
    registers: Float[np.ndarray, "n registers"],
    symmetric: Float[np.ndarray, " n"],
    counted: Float[np.ndarray, " n"],
    *,
    with_symmetric: bool,
) -> Calibrated:
    """Strength of the asymmetric part, and fraction of symmetric particles, from scores.

    Args:
        registers: log-evidence of every register.
        symmetric: of the symmetrised map.
        counted: weight of every image, e.g. the probability that it is not junk.
        with_symmetric: whether there may be symmetric particles; otherwise π is zero.
    """
    below = np.asarray(registers, np.float64) - np.asarray(symmetric, np.float64)[:, None]
    distance = np.maximum(-2.0 * below.mean(axis=1, keepdims=True), 0.0)
    match = below + 0.5 * distance
    if not np.any(distance > 1e-9):
        return Calibrated(0.0, 0.0, 0.0, 0.0)

    def likelihood(factor: float, fraction: float) -> float:
        terms = factor * match - 0.5 * factor**2 * distance
        top = terms.max(axis=1)
        mixed = np.log(np.mean(np.exp(terms - top[:, None]), axis=1)) + top + np.log1p(-fraction)
        if fraction > 0.0:
            mixed = np.logaddexp(mixed, np.log(fraction))
        return float(np.sum(counted * mixed)) + PRIOR_COUNT * np.log1p(-fraction)

    def best(fraction: float):
        # Concave enough near its maximum, but flat at zero: a grid finds the right slope.
        grid = np.concatenate([[0.0], np.geomspace(0.02, LARGEST_STEP, 18)])
        values = [likelihood(f, fraction) for f in grid]
        at = int(np.argmax(values))
        if at == 0:
            return 0.0, values[0]
        low, high = grid[at - 1], grid[min(at + 1, len(grid) - 1)]
        return _largest(lambda f: likelihood(f, fraction), low, high, 1e-3)

    def found(factor: float, fraction: float, value: float) -> Calibrated:
        nats = factor**2 * float(np.average(distance[:, 0], weights=np.maximum(counted, 1e-9)))
        return Calibrated(factor, nats, fraction, value)

    factor, value = best(0.0)
    if not with_symmetric or factor == 0.0:
        return found(factor, 0.0, value)
    fraction, mixed = _largest(lambda share: best(share)[1], 0.0, 0.95, 2e-3)
    if mixed <= value:
        return found(factor, 0.0, value)
    return found(best(fraction)[0], fraction, mixed)


def _largest(
    function: Callable[[float], float], low: float, high: float, accuracy: float
) -> tuple[float, float]:
    """Where a function is largest between two bounds, and its value there."""
    found = cast(
        scipy.optimize.OptimizeResult,
        scipy.optimize.minimize_scalar(
            lambda x: -function(x), bounds=(low, high), method="bounded",
            options={"xatol": accuracy},
        ),
    )  # fmt: skip
    return float(found.x), -float(found.fun)


def tempered(
    registers: Float[np.ndarray, "n registers"], exponent: float
) -> Float32[np.ndarray, "n registers"]:
    """Posteriors raised to a power between 0 (uniform) and 1, and normalised."""
    log = exponent * np.log(np.maximum(np.asarray(registers, np.float64), 1e-30))
    values = np.exp(log - log.max(axis=1, keepdims=True))
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def averaged(
    registers: Float[np.ndarray, "n registers"], log_odds: Float[np.ndarray, ""] | float | None
) -> Float32[np.ndarray, "n registers"]:
    """Posteriors averaged with uniform ones, by the odds that there is asymmetry at all.

    None: it is certain, or nobody asked.
    """
    if log_odds is None:
        return np.asarray(registers, np.float32)
    probability = 1.0 / (1.0 + np.exp(-np.clip(float(log_odds), -50.0, 50.0)))
    values = probability * registers + (1.0 - probability) / registers.shape[1]
    return np.asarray(values).astype(np.float32)


def honest_exponent(
    own: Float[np.ndarray, "n registers"], other: Float[np.ndarray, "n registers"]
) -> float:
    """The power at which posteriors under one's own half-set are no surer than under the other's.

    Both maps are made of (nearly) as many images. Under the other half-set's map, which never saw
    an image, its posterior is honest; being surer under one's own is what cross-fitting leaves of
    self-bias, through the registers of the images that share the map.

    Args:
        own: posteriors under the own half-set's map without the image's fold.
        other: posteriors of the same images under the other half-set's map.
    """
    honest = float(np.mean(np.max(other, axis=1)))

    def surer(exponent: float) -> float:
        return float(np.mean(np.max(tempered(own, exponent), axis=1))) - honest

    if surer(1.0) <= 0.0:
        return 1.0
    if surer(0.0) >= 0.0:
        return 0.0
    return cast(float, scipy.optimize.brentq(surer, 0.0, 1.0, xtol=1e-3))
