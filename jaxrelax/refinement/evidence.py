"""Is the asymmetry real? Each half-set's images judged by the other half-set's map.

Everything about a judging map, its gains included, must come from its own half-set: a gain taken
from the FSC between the half-sets would keep the shells in which noise happens to agree.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32

from jaxrelax.geometry import best_global_operator
from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    IsotypicParts,
    ShellSums,
    apply_gain,
    fsc,
    inverse_tau2,
    mean_weight,
    wiener_map,
)
from jaxrelax.refinement.closure import closed, containment
from jaxrelax.refinement.expectation import total
from jaxrelax.refinement.maximisation import coefficients, register_limit, unregularised_map
from jaxrelax.refinement.problem import MARGIN, Problem
from jaxrelax.refinement.result import AsymmetryEvidence, SubgroupTest
from jaxrelax.refinement.score_maps import region, split_parts
from jaxrelax.refinement.state import State
from jaxrelax.refinement.symmetry_test import (
    PERMUTATIONS,
    candidate_subgroups,
    group_correlation,
    informative,
    most_preserved,
    scores,
    split,
    subgroup_test,
)

# Order of G: beyond it subgroups are many, and are tested when asked for.
LARGEST_SEARCHED = 24


def own_half_map(problem: Problem, folds: list[ShellSums], max_shell: int) -> IsotypicParts:
    """A half-set's map with gains and mask estimated inside it, between two groups of its folds.

    The asymmetric part keeps a gain of one standard error of its FSC at least: it never vanishes
    altogether, so that there is always something to test.
    """
    box = working_box(max_shell)
    sphere = problem.sphere(box)
    middle = len(folds) // 2
    raw = [
        unregularised_map(problem, total(group), max_shell)
        for group in (folds[:middle], folds[middle:])
    ]
    density = problem.density_mask(raw[0], raw[1])
    parts = [split_parts(problem, map_ * sphere) for map_ in raw]
    whole = total(folds).accumulator()

    def joined(correlation):
        correlation = np.clip(correlation[: max_shell + 1], 0.0, 0.999)
        return 2 * correlation / (1 + correlation)

    symmetric = joined(fsc(parts[0].symmetric, parts[1].symmetric))
    correlation = fsc(*(region(problem, p.asymmetric * density) for p in parts))
    floor = 1.0 / np.sqrt(coefficients(problem, density))
    gain = joined(np.maximum(correlation, floor[: len(correlation)]))
    gain[np.arange(len(gain)) > register_limit(problem, max_shell)] = 0.0
    # Where a map ends a symmetric particle has an asymmetric rim, the same in both half-sets.
    gain[problem.whole(max_shell) + 1 :] = 0.0
    tau = inverse_tau2(mean_weight(whole, max_shell + 1), symmetric)
    solved = wiener_map(
        whole, tau.astype(np.float32), box=box, image_box=problem.map_box, margin=MARGIN
    )
    split = split_parts(problem, np.asarray(solved) * sphere)
    asymmetric = apply_gain(region(problem, split.asymmetric), gain)
    return IsotypicParts(split.symmetric, asymmetric * density)


def asymmetry_evidence(
    problem: Problem,
    state: State,
    accumulators: list[list[ShellSums]],
    max_shell: int,
    registers: Float32[np.ndarray, "n registers"],
    *,
    subgroups: Literal["auto", "all", "none"] = "auto",
    permutations: int = PERMUTATIONS,
) -> AsymmetryEvidence:
    """Judge every image by the other half-set's map: is the particle symmetric, and how far?

    Args:
        problem, state: where the refinement ended.
        accumulators: [half][fold] of a pass over the images.
        max_shell: their last shell.
        registers: final posterior under each image's own half-set, in that half-set's frame.
        subgroups: which subgroups are tested besides G: all, none, or (``"auto"``) all when G is
            rejected and not larger than O.
        permutations: foreign orientations per image.
    """
    agreed = problem.workers.agreed
    maps = agreed([own_half_map(problem, folds, max_shell) for folds in accumulators])
    candidates = candidate_subgroups(problem.group, problem.subgroup)
    correlations = agreed([group_correlation(m.asymmetric, problem.group) for m in maps])

    def test(number: int):
        chosen = [most_preserved(candidates[number], c, problem.group) for c in correlations]
        splits = [split(problem, m, c) for m, c in zip(maps, chosen, strict=True)]
        found = scores(problem, state, splits[::-1], permutations, max_shell=max_shell)
        rng = np.random.default_rng((problem.seed, 9, number))
        # Half-set 1 is the frame of the results.
        return found, agreed(
            subgroup_test(candidates[number].name, chosen[0].operators, found, rng)
        )

    found, whole = test(0)
    rows = [whole]
    wanted = subgroups == "all" or (
        subgroups == "auto" and whole.rejected and problem.group.order <= LARGEST_SEARCHED
    )
    if wanted:
        rows += [test(number)[1] for number in range(1, len(candidates))]
    rows = closed(rows, containment(candidates[: len(rows)], problem.group))

    gain, best = np.zeros(len(registers)), registers.argmax(axis=1)
    for one in found:
        gain[one.rows] = one.own - one.foreign.mean(axis=1, dtype=np.float64)
        best[one.rows] = one.best
    agreements, sizes = [], []
    for half in (1, 2):
        mine = problem.half_set == half
        agreement = best_global_operator(
            registers[mine].argmax(axis=1), best[mine], problem.group, problem.subgroup
        )
        agreements.append(agreement.agreement)
        sizes.append(mine.sum())
    return AsymmetryEvidence(
        log_gain=gain,
        z_score=whole.z_score,
        p_value=whole.p_value,
        found=whole.rejected,
        half_set_agreement=float(np.average(agreements, weights=sizes)),
        expected_accuracy=float(registers.max(axis=1).mean()),
        nats_per_particle=whole.nats,
        subgroups=tuple(rows),
        supported=supported(rows, problem.subgroup.name, len(rows) == len(candidates)),
        tested=informative(found),
        poses_held_to=harmless_pose_errors(problem, state) if problem.mode.holds_poses else None,
    )


def supported(rows: list[SubgroupTest], kept: str, complete: bool) -> str | None:
    """The largest symmetry that is not rejected; the one that is kept if all others are.

    Args:
        rows: tests, any order; of equally large subgroups the one with the larger p counts.
        kept: name of H.
        complete: whether every subgroup above H is among them.
    """
    left = [row for row in rows if not row.rejected]
    if not left:
        return kept if complete else None
    largest = max(left, key=lambda row: (row.order, row.log10_p))
    # Without the tests of the subgroups only G itself can be said to be the largest.
    return largest.name if complete or largest is rows[0] else None


def harmless_pose_errors(problem: Problem, state: State) -> tuple[float, float]:
    """Errors of rotation (degrees) and shift (Å) that poses which are held must be well within.

    They move the particle's surface by one radian of phase at the highest frequency that scores
    images: the residual then holds as much of the symmetric part as the symmetric part itself.
    What registers can sort of that looks like asymmetry; its power falls as the errors' square.
    """
    shift = problem.resolution(state.score_shell) / (2.0 * np.pi)
    angle = np.rad2deg(shift / (0.5 * problem.particle_diameter_angstrom))
    return float(angle), float(shift)


def peak_memory_gib() -> float:
    """Peak resident memory of this process, in GiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
