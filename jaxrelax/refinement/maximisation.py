"""The M-step: from accumulators to the maps that score the next iteration.

Each half-set is regularised on its own. Its map is split into the G-symmetric part and the rest;
the gains come from the FSC of each part between register-aligned half-maps, plus an optimistic
bonus for the asymmetric part while asymmetry is being sought.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64

from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    Accumulator,
    HalfAlignment,
    IsotypicParts,
    align_half_maps,
    apply_gain,
    asymmetric_coefficients,
    corrected_fsc,
    density_mask,
    first_below,
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
JOIN_ABOVE = 0.5


class Maximisation(NamedTuple):
    """Maps and curves of one M-step."""

    symmetric: Float32[np.ndarray, "m b b b"]
    asymmetric: Float32[np.ndarray, "m b b b"]
    fsc: Float64[np.ndarray, " shells"]
    fsc_symmetric: Float64[np.ndarray, " shells"]
    fsc_asymmetric: Float64[np.ndarray, " shells"]
    gain: Float64[np.ndarray, " shells"]
    asymmetric_fsc: float  # weighted mean over the scored band
    asymmetric_signal: float  # the same in standard errors
    asymmetric_power: float
    alignment: int


def maximisation(
    problem: Problem,
    accumulators: list[list[Accumulator]],
    max_shell: int,
    *,
    optimism: float,
    score_shell: int,
    seeking: bool,
    join_halves: bool = False,
) -> Maximisation:
    """Maps to score with, one per half-set and left-out fold.

    Args:
        problem: groups, masks, folds.
        accumulators: [half][fold], completed.
        max_shell: last shell accumulated.
        optimism: standard errors added to the asymmetric FSC.
        score_shell: band over which the mean asymmetric FSC is taken.
        seeking: leave the asymmetric part its whole sphere; afterwards only where density is.
        join_halves: average the half-sets where they agree. Only for a last scoring: fed back,
            they would come to agree on noise.
    """
    box = working_box(max_shell)
    sphere = problem.sphere(box)
    relaxed = problem.n_registers > 1
    halves = [total(folds) for folds in accumulators]
    raw = [unregularised_map(problem, h, max_shell) for h in halves]
    maps = [m * sphere for m in raw]
    parts = [split_parts(problem, m) for m in maps]

    n_shells = max_shell + 1
    gain, fsc_asymmetric = np.zeros(n_shells), np.zeros(n_shells)
    alignment, mean, signal = 0, 0.0, 0.0
    if relaxed:
        counts = coefficients(problem, sphere)[:n_shells]
        alignment, fsc_asymmetric = align_parts(problem, parts, max_shell, score_shell, sphere)
        # Weighted by the inverse standard error of each shell.
        weight = np.sqrt(counts) * voting_shells(problem, n_shells, score_shell)
        mean = float(np.sum(fsc_asymmetric[:n_shells] * weight) / np.sum(weight))
        signal = mean * float(np.sum(weight) / np.sqrt(np.sum(weight**2 / counts)))

    turn = problem.group.operators[alignment]
    curve = fsc(maps[0], rotate_map(maps[1], turn))[:n_shells]
    density = density_mask(
        0.5 * (raw[0] + rotate_map(raw[1], turn)),
        problem.box_edge_angstrom / box,
        0.5 * problem.particle_diameter_angstrom,
        problem.group,
    )
    # The gains are those of the masked maps: inside the mask there is less noise per signal than
    # in the sphere. What the mask itself correlates is measured with random phases and removed.
    rng = np.random.default_rng((problem.seed, 6))
    fsc_symmetric = corrected_fsc(parts[0].symmetric, parts[1].symmetric, density, rng)["corrected"]
    fsc_symmetric = fsc_symmetric[:n_shells]
    if relaxed:
        if not seeking:
            inside = [IsotypicParts(p.symmetric, p.asymmetric * density) for p in parts]
            fsc_asymmetric = align_parts(problem, inside, max_shell, score_shell, density).fsc
            counts = coefficients(problem, density)[:n_shells]
        fsc_asymmetric = fsc_asymmetric[:n_shells]
        gain = np.clip(fsc_asymmetric + optimism / np.sqrt(counts), 0.0, LARGEST_GAIN)
        gain[np.arange(n_shells) > register_limit(problem, max_shell)] = 0.0

    fitted = _leave_one_out(problem, accumulators, halves, fsc_symmetric, gain, box)
    if join_halves:
        # Each half-set's view of the other: the symmetric part has one frame, the rest is turned.
        others = [
            IsotypicParts(parts[1].symmetric, rotate_map(parts[1].asymmetric, turn)),
            IsotypicParts(parts[0].symmetric, rotate_map(parts[0].asymmetric, turn.T)),
        ]
        fitted = _joined(problem, accumulators, halves, fitted, others, fsc_symmetric, gain)
    fitted = [
        IsotypicParts(
            part.symmetric * density,
            region(problem, part.asymmetric) * (1.0 if seeking else density),
        )
        for part in fitted
    ]
    rms = np.sqrt([np.mean(p.symmetric**2) for p in fitted])
    rms_asymmetric = np.sqrt([np.mean(p.asymmetric**2) for p in fitted])
    return Maximisation(
        symmetric=np.stack([p.symmetric for p in fitted]).astype(np.float32),
        asymmetric=np.stack([p.asymmetric for p in fitted]).astype(np.float32),
        fsc=curve,
        fsc_symmetric=fsc_symmetric,
        fsc_asymmetric=fsc_asymmetric,
        gain=gain,
        asymmetric_fsc=mean,
        asymmetric_signal=signal,
        asymmetric_power=float(np.mean(rms_asymmetric / np.maximum(rms, 1e-30))),
        alignment=alignment,
    )


def _leave_one_out(problem, accumulators, halves, fsc_symmetric, gain, box):
    """Wiener maps of each half-set without each of its folds, split and with their gains."""
    sphere = problem.sphere(box)
    share = kept_share(problem)
    fitted: list[IsotypicParts] = []
    for half, folds in zip(halves, accumulators, strict=True):
        weight = np.asarray(mean_weight(half, len(fsc_symmetric)))
        tau = (inverse_tau2(weight, fsc_symmetric) * share).astype(np.float32)
        for fold in folds:
            rest = half - fold if problem.cross_fitted else half
            solved = wiener_map(rest, tau, box=box, image_box=problem.map_box)
            split = split_parts(problem, np.asarray(solved) * sphere)
            fitted.append(IsotypicParts(split.symmetric, apply_gain(split.asymmetric, gain)))
    return fitted


def _joined(problem, accumulators, halves, fitted, others, fsc_symmetric, gain):
    """Maps averaged with the other half-set's in the shells where the two agree.

    Beyond the first shell whose FSC is below JOIN_ABOVE every half-set keeps to itself, so that
    the FSC at the resolution limit stays that of independent halves (RELION's
    ``low_resol_join_halves``, with the limit from the data).
    """
    max_shell = len(gain) - 1
    sphere = problem.sphere(working_box(max_shell))
    share = kept_share(problem)
    low = [
        np.where(np.arange(len(c)) < first_below(c, JOIN_ABOVE), 1.0, 0.0)
        for c in (fsc_symmetric, gain)
    ]
    joined_gain = [
        2.0 * np.clip(c, 0.0, 1.0) / (1.0 + np.clip(c, 0.0, 1.0)) * m
        for c, m in zip((fsc_symmetric, gain), low, strict=True)
    ]
    result = []
    for index, part in enumerate(fitted):
        half, fold = divmod(index, problem.n_folds)
        rest = halves[half]
        if problem.cross_fitted:
            rest = rest - accumulators[half][fold]
        own = split_parts(problem, unregularised_map(problem, rest, max_shell) * sphere)
        result.append(
            IsotypicParts(
                *(
                    apply_gain((share * own[i] + others[half][i]) / (share + 1.0), joined_gain[i])
                    + apply_gain(part[i], 1.0 - low[i])
                    for i in range(2)
                )
            )
        )
    return result


def total(folds: list[Accumulator]) -> Accumulator:
    """Sum over folds."""
    return reduce(lambda a, b: a + b, folds)


def kept_share(problem: Problem) -> float:
    """Share of a half-set's images in the map that scores one of them."""
    return (problem.n_folds - 1) / problem.n_folds if problem.cross_fitted else 1.0


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


def coefficients(
    problem: Problem, mask: Float32[np.ndarray, "b b b"]
) -> Float64[np.ndarray, " shells"]:
    """Independent coefficients of the asymmetric part per shell, inside a mask."""
    fraction = independent_fraction(region(problem, mask))
    return asymmetric_coefficients(len(mask), fraction, problem.group, problem.subgroup)


def voting_shells(problem: Problem, n_shells: int, score_shell: int) -> Bool[np.ndarray, " s"]:
    """Which shells judge the asymmetric part: the scored ones that tell registers apart."""
    shells = np.arange(n_shells)
    return (shells > 0) & (shells <= register_limit(problem, score_shell))


def align_parts(
    problem: Problem,
    parts: list[IsotypicParts],
    max_shell: int,
    score_shell: int,
    mask: Float32[np.ndarray, "b b b"],
) -> HalfAlignment:
    """Register alignment of half-map 2 onto half-map 1; the identity without relaxation.

    ``mask`` is what the parts were multiplied by (besides the register mask).
    """
    box = mask.shape[0]
    if problem.n_registers == 1:
        return HalfAlignment(0, np.zeros(box // 2 + 1))
    weight = np.sqrt(coefficients(problem, mask))
    weight[: max_shell + 1] *= voting_shells(problem, max_shell + 1, score_shell)
    weight[max_shell + 1 :] = 0.0
    return align_half_maps(
        region(problem, parts[0].asymmetric),
        region(problem, parts[1].asymmetric),
        problem.group,
        problem.normaliser,
        weight,
        independent_fraction(region(problem, mask)),
    )


def register_limit(problem: Problem, shell: int) -> int:
    """Last shell that may tell registers apart."""
    if problem.relax is None or problem.relax.max_resolution is None:
        return shell
    return min(shell, problem.shell(problem.relax.max_resolution))


def split_parts(problem: Problem, map_: Float32[np.ndarray, "b b b"]) -> IsotypicParts:
    """Isotypic parts of a map; without relaxation everything is imposed to be symmetric."""
    parts = isotypic_parts(map_, problem.group, problem.subgroup)
    if problem.n_registers > 1:
        return parts
    return IsotypicParts(parts.symmetric, np.zeros_like(parts.symmetric))


def region(
    problem: Problem, asymmetric: Float32[np.ndarray, "b b b"]
) -> Float32[np.ndarray, "b b b"]:
    """The asymmetric part inside the register mask, if there is one."""
    if problem.register_mask is None:
        return asymmetric
    return asymmetric * problem.register_mask_at(asymmetric.shape[0])
