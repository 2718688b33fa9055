"""The M-step: from sums to the prior under which they become the maps that score images.

Each half-set is regularised on its own. Its map is split into the G-symmetric part and the rest;
the gains come from the FSC of each part between register-aligned half-maps. The asymmetric one
gets a bonus where its FSC cannot be told from noise, and a strength of its own: held while
asymmetry is sought, then calibrated (see :mod:`jaxrelax.refinement.amplitude`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64

from jaxrelax.geometry import isotypic_weights
from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    HalfAlignment,
    IsotypicParts,
    ShellSums,
    align_half_maps,
    apply_component_gains,
    apply_gain,
    asymmetric_coefficients,
    component_counts,
    component_fsc,
    corrected_fsc,
    first_below,
    fsc,
    independent_fraction,
    mean_weight,
    rotate_map,
    share_of_components,
    wiener_map,
)
from jaxrelax.reconstruction.fsc import shell_counts
from jaxrelax.refinement.expectation import total
from jaxrelax.refinement.problem import MARGIN, Problem
from jaxrelax.refinement.schedule import Stage
from jaxrelax.refinement.score_maps import (
    MapPrior,
    kept_share,
    region,
    score_map,
    split_parts,
)

LARGEST_GAIN = 0.999
# Of the density of the body: what is left of a partner's after a low-pass.
FAINT_PARTNER = 0.3
JOIN_ABOVE = 0.5


class Maximisation(NamedTuple):
    """Prior, half-maps and curves of one M-step."""

    prior: MapPrior
    halves: list[ShellSums]
    raw: list[Float32[np.ndarray, "b b b"]]  # unregularised half-maps, not masked
    fsc: Float64[np.ndarray, " shells"]
    fsc_symmetric: Float64[np.ndarray, " shells"]
    fsc_asymmetric: Float64[np.ndarray, " shells"]
    asymmetric_fsc: float  # weighted mean over the scored band
    asymmetric_signal: float  # the same in standard errors
    alignment: int


def maximisation(
    problem: Problem,
    sums: list[list[ShellSums]],
    max_shell: int,
    *,
    optimism: float,
    score_shell: int,
    stage: Stage,
) -> Maximisation:
    """The prior of the next pass, from the sums of the last.

    Args:
        problem: groups, masks, folds.
        sums: [half][fold].
        max_shell: last shell accumulated.
        optimism: standard errors added to the asymmetric FSC.
        score_shell: band over which the mean asymmetric FSC is taken.
        stage: before settling the density of the asymmetry may be nowhere but, faint, in the
            symmetric part, and its components are not told apart.
    """
    box = working_box(max_shell)
    sphere = problem.sphere(box)
    relaxed = problem.n_registers > 1
    halves = [total(folds) for folds in sums]
    raw = [unregularised_map(problem, h, max_shell) for h in halves]
    maps = [m * sphere for m in raw]
    parts = [split_parts(problem, m) for m in maps]

    n_shells = max_shell + 1
    gain = np.zeros((max(len(isotypic_weights(problem.group)) - 1, 1), n_shells))
    fsc_asymmetric = np.zeros(n_shells)
    alignment, mean, signal = 0, 0.0, 0.0
    if relaxed:
        counts = coefficients(problem, sphere)[:n_shells]
        aligned = align_parts(problem, parts, max_shell, score_shell, sphere)
        alignment, fsc_asymmetric = aligned.index, aligned.fsc
        # Weighted by the inverse standard error of each shell.
        weight = np.sqrt(counts) * voting_shells(problem, n_shells, score_shell)
        mean = float(np.sum(fsc_asymmetric[:n_shells] * weight) / np.sum(weight))
        signal = mean * float(np.sum(weight) / np.sqrt(np.sum(weight**2 / counts)))

    turn = problem.group.operators[alignment]
    turned = rotate_map(raw[1], turn)
    curve = fsc(maps[0], turned * sphere)[:n_shells]
    density = problem.density_mask(
        raw[0], turned, faintest=faintest_partner(problem) if stage != "settle" else 1.0
    )
    # The gains are those of the masked maps: inside the mask there is less noise per signal than
    # in the sphere. What the mask itself correlates is measured with random phases and removed.
    rng = np.random.default_rng((problem.seed, 6))
    plain = problem.relax is not None and problem.relax.prior == "plain"
    compared = (maps[0], turned * sphere) if plain else (parts[0].symmetric, parts[1].symmetric)
    fsc_symmetric = corrected_fsc(*compared, density, rng)["corrected"][:n_shells]
    if relaxed:
        inside = [IsotypicParts(p.symmetric, p.asymmetric * density) for p in parts]
        inner = align_parts(problem, inside, max_shell, score_shell, density)
        fsc_asymmetric = inner.fsc[:n_shells]
        counts = coefficients(problem, density)[:n_shells]
        # While seeking all components are alike: what is known of them is noise. Amplified, they
        # all count in full: what they come to is not known before.
        curves = np.broadcast_to(fsc_asymmetric, gain.shape)
        if stage == "settle" and not plain:
            curves = component_curves(problem, inside, inner, density)[:, :n_shells]
        gain = np.clip(curves + optimism / np.sqrt(counts), 0.0, LARGEST_GAIN)
        if plain or stage == "amplify":
            gain = np.ones_like(gain)
        gain[:, np.arange(n_shells) > register_limit(problem, problem.whole(max_shell))] = 0.0
    weight = np.stack([mean_weight(h.accumulator(), n_shells) for h in halves])
    return Maximisation(
        prior=MapPrior(weight, fsc_symmetric, gain, density),
        halves=halves,
        raw=raw,
        fsc=curve,
        fsc_symmetric=fsc_symmetric,
        fsc_asymmetric=fsc_asymmetric,
        asymmetric_fsc=mean,
        asymmetric_signal=signal,
        alignment=alignment,
    )


def faintest_partner(problem: Problem) -> float:
    """Power of a partner averaged over all registers, as a share of the body's."""
    return (FAINT_PARTNER / problem.n_registers) ** 2


def half_maps(problem: Problem, solved: Maximisation) -> list[IsotypicParts]:
    """The regularised map of each whole half-set, in its own frame."""
    return [score_map(problem, h, i, solved.prior) for i, h in enumerate(solved.halves)]


def joined_maps(
    problem: Problem, sums: list[list[ShellSums]], solved: Maximisation, amplitude: float
) -> list[IsotypicParts]:
    """Maps to score with once more, averaged with the other half-set's where the two agree.

    Beyond the first shell whose FSC is below JOIN_ABOVE every half-set keeps to itself, so that
    the FSC at the resolution limit stays that of independent halves (RELION's
    ``low_resol_join_halves``, with the limit from the data). Only for a last scoring: fed back,
    the half-sets would come to agree on noise.

    Args:
        problem: groups, masks, folds.
        sums: [half][fold].
        solved: their M-step.
        amplitude: calibrated factor of the asymmetric gain.

    Returns:
        One map per half-set and fold left out.
    """
    prior = solved.prior
    sphere = problem.sphere(len(prior.density))
    turn = problem.group.operators[solved.alignment]
    share = kept_share(problem)
    parts = [split_parts(problem, m * sphere) for m in solved.raw]
    # Each half-set's view of the other: the symmetric part has one frame, the rest is turned.
    others = [
        IsotypicParts(parts[1].symmetric, rotate_map(parts[1].asymmetric, turn)),
        IsotypicParts(parts[0].symmetric, rotate_map(parts[0].asymmetric, turn.T)),
    ]
    gains = [
        np.clip(c, 0.0, LARGEST_GAIN) for c in (prior.fsc_symmetric[None], prior.gain * amplitude)
    ]
    counts = (symmetric_coefficients(problem, prior.density), coefficients(problem, prior.density))
    low = [
        np.stack([_agreeing(row, count) for row in rows])
        for rows, count in zip(gains, counts, strict=True)
    ]
    joined_gain = [2.0 * c / (1.0 + c) * m for c, m in zip(gains, low, strict=True)]

    def apply(part: int, map_, rows):
        if part == 0:
            return apply_gain(map_, rows[0])
        return apply_component_gains(map_, rows, problem.group)

    result = []
    for half, folds in enumerate(sums):
        for fold in folds:
            rest = solved.halves[half] - fold if problem.cross_fitted else solved.halves[half]
            own = split_parts(problem, unregularised_map(problem, rest, prior.max_shell) * sphere)
            alone = score_map(problem, rest, half, prior, share)
            factors = (1.0, np.float32(amplitude))
            symmetric, asymmetric = (
                apply(i, (share * own[i] + others[half][i]) / (share + 1.0), joined_gain[i])
                * prior.density
                + apply(i, factors[i] * alone[i], 1.0 - low[i])
                for i in range(2)
            )
            result.append(IsotypicParts(symmetric, region(problem, asymmetric)))
    return result


def _agreeing(
    curve: Float64[np.ndarray, " shells"], counts: Float64[np.ndarray, " counted"]
) -> Float64[np.ndarray, " shells"]:
    """1 up to the first shell where the half-sets do not agree well enough to be joined."""
    return np.where(np.arange(len(curve)) < first_below(curve, JOIN_ABOVE, counts), 1.0, 0.0)


def component_curves(
    problem: Problem,
    parts: list[IsotypicParts],
    aligned: HalfAlignment,
    mask: Float32[np.ndarray, "b b b"],
) -> Float64[np.ndarray, "components shells"]:
    """FSC of every isotypic component of the asymmetric parts, as far as counts tell them apart.

    Args:
        problem: groups and masks.
        parts: of the half-maps, each in its own frame, multiplied by ``mask``.
        aligned: of these.
        mask: on the same box.
    """
    fraction = independent_fraction(region(problem, mask))
    counts = component_counts(len(mask), fraction, problem.group, problem.subgroup)
    if np.count_nonzero(counts[:, -1]) < 2:
        return np.broadcast_to(aligned.fsc, counts.shape)
    found = component_fsc(
        region(problem, parts[0].asymmetric), region(problem, parts[1].asymmetric),
        problem.group, aligned.chosen,
    )  # fmt: skip
    return share_of_components(aligned.fsc, found, counts)


def unregularised_map(
    problem: Problem, sums: ShellSums, max_shell: int
) -> Float32[np.ndarray, "b b b"]:
    """Half-map without prior (a tiny ridge), on the working box; see :data:`MARGIN`."""
    return np.asarray(
        wiener_map(
            sums.accumulator(), np.zeros(max_shell + 1, np.float32),
            box=working_box(max_shell), image_box=problem.map_box, margin=MARGIN,
        )
    )  # fmt: skip


def coefficients(
    problem: Problem, mask: Float32[np.ndarray, "b b b"]
) -> Float64[np.ndarray, " shells"]:
    """Independent coefficients of the asymmetric part per shell, inside a mask."""
    fraction = independent_fraction(region(problem, mask))
    return asymmetric_coefficients(len(mask), fraction, problem.group, problem.subgroup)


def symmetric_coefficients(
    problem: Problem, mask: Float32[np.ndarray, "b b b"]
) -> Float64[np.ndarray, " shells"]:
    """Independent coefficients of a G-symmetric map per shell, inside a mask."""
    return shell_counts(len(mask)) * independent_fraction(mask) / problem.group.order


def voting_shells(problem: Problem, n_shells: int, score_shell: int) -> Bool[np.ndarray, " s"]:
    """Which shells judge the asymmetric part: the scored ones that tell registers apart."""
    shells = np.arange(n_shells)
    last = min(register_limit(problem, score_shell), problem.whole(n_shells - 1))
    return (shells > 0) & (shells <= last)


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
        nothing = np.zeros(box // 2 + 1)
        return HalfAlignment(0, nothing, nothing.astype(int))
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
