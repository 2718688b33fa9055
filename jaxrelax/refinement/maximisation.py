"""The M-step: from accumulators to the maps that score the next iteration.

Each half-set is regularised on its own. Its map is split into the G-symmetric part and the rest;
the gains come from the FSC of each part between register-aligned half-maps, plus an optimistic
bonus for the asymmetric part while asymmetry is being sought.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    Accumulator,
    IsotypicParts,
    align_half_maps,
    apply_gain,
    asymmetric_coefficients,
    fsc,
    independent_fraction,
    inverse_tau2,
    isotypic_parts,
    mean_weight,
    rotate_map,
    wiener_map,
)
from jaxrelax.refinement.problem import Problem

LARGEST_GAIN = 0.999


class Maximisation(NamedTuple):
    """Maps and curves of one M-step."""

    symmetric: Float32[np.ndarray, "m b b b"]
    asymmetric: Float32[np.ndarray, "m b b b"]
    fsc: Float64[np.ndarray, " shells"]
    fsc_symmetric: Float64[np.ndarray, " shells"]
    fsc_asymmetric: Float64[np.ndarray, " shells"]
    gain: Float64[np.ndarray, " shells"]
    asymmetric_fsc: float  # weighted mean over the scored band
    asymmetric_power: float
    alignment: int


def total(folds: list[Accumulator]) -> Accumulator:
    """Sum over folds."""
    return reduce(lambda a, b: a + b, folds)


def unregularised_map(
    problem: Problem, accumulator: Accumulator, max_shell: int
) -> Float32[np.ndarray, "b b b"]:
    """Half-map without prior (a tiny ridge), on the working box."""
    return np.asarray(
        wiener_map(
            accumulator, np.zeros(max_shell + 1, np.float32),
            box=working_box(max_shell), image_box=problem.map_box,
        )
    )  # fmt: skip


def maximisation(
    problem: Problem,
    accumulators: list[list[Accumulator]],
    max_shell: int,
    *,
    optimism: float,
    score_shell: int,
) -> Maximisation:
    """Maps to score with, one per half-set and left-out fold.

    Args:
        problem: groups, masks, folds.
        accumulators: [half][fold], completed.
        max_shell: last shell accumulated.
        optimism: standard errors added to the asymmetric FSC.
        score_shell: band over which the mean asymmetric FSC is taken.
    """
    box = working_box(max_shell)
    sphere = problem.sphere(box)
    relaxed = problem.n_registers > 1
    halves = [total(folds) for folds in accumulators]
    maps = [unregularised_map(problem, h, max_shell) * sphere for h in halves]
    parts = [_parts(problem, m) for m in maps]

    n_shells = max_shell + 1
    fsc_symmetric = _padded(fsc(parts[0].symmetric, parts[1].symmetric), n_shells)
    counts = asymmetric_coefficients(
        box, _region_fraction(problem, box, sphere), problem.group, problem.subgroup
    )[:n_shells] if relaxed else np.ones(n_shells)  # fmt: skip
    gain, fsc_asymmetric, alignment, mean = np.zeros(n_shells), np.zeros(n_shells), 0, 0.0
    if relaxed:
        band = np.arange(n_shells) <= register_limit(problem, score_shell)
        asymmetric = [_region(problem, p.asymmetric) for p in parts]
        prior_gain = np.clip(max(optimism, 1.0) / np.sqrt(counts), 0, 1)
        weight = np.zeros(box // 2 + 1)
        weight[:n_shells] = counts * prior_gain * band
        weight[0] = 0.0
        aligned = align_half_maps(
            asymmetric[0], asymmetric[1], problem.group, problem.normaliser, weight
        )
        alignment = aligned.index
        fsc_asymmetric = _padded(aligned.fsc, n_shells)
        gain = np.clip(fsc_asymmetric + optimism / np.sqrt(counts), 0.0, LARGEST_GAIN)
        gain[~(np.arange(n_shells) <= register_limit(problem, max_shell))] = 0.0
        mean = float(np.sum(fsc_asymmetric * weight[:n_shells]) / np.sum(weight))

    second = rotate_map(maps[1], problem.group.operators[alignment])
    curve = _padded(fsc(maps[0], second), n_shells)

    leave_out = len(accumulators[0])
    kept = (leave_out - 1) / leave_out if leave_out > 1 else 1.0
    fitted: list[IsotypicParts] = []
    for half, folds in zip(halves, accumulators, strict=True):
        tau = inverse_tau2(np.asarray(mean_weight(half, n_shells)), fsc_symmetric) * kept
        for fold in folds:
            rest = half - fold if leave_out > 1 else half
            solved = wiener_map(
                rest, tau.astype(np.float32), box=box, image_box=problem.map_box
            )
            split = _parts(problem, np.asarray(solved) * sphere)
            if relaxed:
                split = IsotypicParts(
                    split.symmetric, apply_gain(_region(problem, split.asymmetric), gain)
                )
            fitted.append(split)
    rms = np.sqrt([np.mean(p.symmetric**2) for p in fitted])
    rms_asymmetric = np.sqrt([np.mean(p.asymmetric**2) for p in fitted])
    return Maximisation(
        symmetric=np.stack([p.symmetric for p in fitted]),
        asymmetric=np.stack([p.asymmetric for p in fitted]),
        fsc=curve,
        fsc_symmetric=fsc_symmetric,
        fsc_asymmetric=fsc_asymmetric,
        gain=gain,
        asymmetric_fsc=mean,
        asymmetric_power=float(np.mean(rms_asymmetric / np.maximum(rms, 1e-30))),
        alignment=alignment,
    )


def register_limit(problem: Problem, shell: int) -> int:
    """Last shell that may tell registers apart."""
    if problem.relax is None or problem.relax.max_resolution is None:
        return shell
    return min(shell, problem.shell(problem.relax.max_resolution))


def _parts(problem: Problem, map_) -> IsotypicParts:
    if problem.n_registers > 1:
        return isotypic_parts(map_, problem.group, problem.subgroup)
    symmetric = isotypic_parts(map_, problem.group, problem.group).symmetric
    return IsotypicParts(symmetric, np.zeros_like(symmetric))


def _region(problem: Problem, asymmetric):
    """The asymmetric part inside the register mask, if there is one."""
    if problem.register_mask is None:
        return asymmetric
    return asymmetric * problem.register_mask_at(asymmetric.shape[0])


def _region_fraction(problem: Problem, box: int, sphere) -> float:
    if problem.register_mask is None:
        return problem.independent_fraction(box)
    return independent_fraction(problem.register_mask_at(box) * sphere)


def _padded(curve, n_shells: int) -> Float64[np.ndarray, " shells"]:
    """A curve cut to the accumulated shells."""
    return np.asarray(curve, np.float64)[:n_shells]
