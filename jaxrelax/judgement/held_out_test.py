"""Is the asymmetry real? Each half-set's images judged by the other half-set's map.

Everything about a judging map, its gains included, must come from its own half-set: a gain taken
from the FSC between the half-sets would keep the shells in which noise happens to agree.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Literal

import numpy as np
from jaxtyping import Float32

from jaxrelax.engine.execution import Execution
from jaxrelax.engine.memory import give_back_freed
from jaxrelax.engine.streams import Conditions
from jaxrelax.geometry import best_global_operator
from jaxrelax.imaging import MARGIN, Shells, working_box
from jaxrelax.judgement.closure import closed, containment
from jaxrelax.judgement.subgroup_classes import (
    candidate_subgroups,
    group_correlation,
    most_preserved,
    split,
)
from jaxrelax.judgement.symmetry_test import PERMUTATIONS, informative, scores, subgroup_test
from jaxrelax.judgement.verdict import AsymmetryEvidence, SubgroupTest
from jaxrelax.reconstruction import (
    IsotypicParts,
    Particle,
    ShellSums,
    apply_gain,
    fsc,
    inverse_tau2,
    mean_weight,
    unregularised_map,
    wiener_map,
)

# Order of G: beyond it subgroups are many, and are tested when asked for.
LARGEST_SEARCHED = 24


def own_half_map(particle: Particle, folds: list[ShellSums]) -> IsotypicParts:
    """A half-set's map with gains and mask estimated inside it, between two groups of its folds.

    The asymmetric part keeps a gain of one standard error of its FSC at least: it never vanishes
    altogether, so that there is always something to test.
    """
    max_shell = folds[0].max_shell
    box = working_box(max_shell)
    sphere = particle.sphere(box)
    middle = len(folds) // 2
    raw = [
        unregularised_map(reduce(add, group), particle)
        for group in (folds[:middle], folds[middle:])
    ]
    density = particle.density_mask(raw[0], raw[1])
    parts = [particle.split(map_ * sphere) for map_ in raw]
    whole = reduce(add, folds).accumulator()

    def joined(correlation):
        correlation = np.clip(correlation[: max_shell + 1], 0.0, 0.999)
        return 2 * correlation / (1 + correlation)

    symmetric = joined(fsc(parts[0].symmetric, parts[1].symmetric))
    correlation = fsc(*(particle.region(p.asymmetric * density) for p in parts))
    floor = 1.0 / np.sqrt(particle.coefficients(density))
    gain = joined(np.maximum(correlation, floor[: len(correlation)]))
    gain[np.arange(len(gain)) > particle.register_limit(max_shell)] = 0.0
    # Where a map ends a symmetric particle has an asymmetric rim, the same in both half-sets.
    gain[max_shell - MARGIN + 1 :] = 0.0
    tau = inverse_tau2(mean_weight(whole, max_shell + 1), symmetric)
    solved = wiener_map(
        whole, tau.astype(np.float32), box=box, image_box=particle.box, margin=MARGIN
    )
    split = particle.split(np.asarray(solved) * sphere)
    asymmetric = apply_gain(particle.region(split.asymmetric), gain)
    return IsotypicParts(split.symmetric, asymmetric * density)


def asymmetry_evidence(
    execution: Execution,
    particle: Particle,
    conditions: Conditions,
    sums: list[list[ShellSums]],
    registers: Float32[np.ndarray, "n registers"],
    *,
    seed: int = 0,
    poses_held: bool = False,
    subgroups: Literal["auto", "all", "none"] = "auto",
    permutations: int = PERMUTATIONS,
) -> AsymmetryEvidence:
    """Judge every image by the other half-set's map: is the particle symmetric, and how far?

    It judges images (execution) of a particle, so it takes both.

    Args:
        execution: the images.
        particle: its groups, and which density tells registers apart.
        conditions: at which poses images are judged, under which noise, up to where.
        sums: ``[half][fold]`` of a pass over the images.
        registers: final posterior under each image's own half-set, in that half-set's frame.
        seed: of the draws.
        poses_held: whether the poses are those of the input, which the test takes for exact.
        subgroups: which subgroups are tested besides G: all, none, or (``"auto"``) all when G is
            rejected and not larger than O.
        permutations: foreign orientations per image.
    """
    agreed, group = execution.workers.agreed, particle.group
    max_shell = sums[0][0].max_shell
    maps = agreed([own_half_map(particle, folds) for folds in sums])
    candidates = candidate_subgroups(group, particle.subgroup)
    correlations = agreed([group_correlation(m.asymmetric, group) for m in maps])

    def test(number: int):
        chosen = [most_preserved(candidates[number], c, group) for c in correlations]
        splits = [split(m, c, group) for m, c in zip(maps, chosen, strict=True)]
        found = scores(
            execution, particle, conditions, splits[::-1], permutations, seed=seed,
            max_shell=max_shell,
        )  # fmt: skip
        give_back_freed()
        rng = np.random.default_rng((seed, 9, number))
        # Half-set 1 is the frame of the results.
        return found, agreed(
            subgroup_test(candidates[number].name, chosen[0].operators, found, rng)
        )

    found, whole = test(0)
    rows = [whole]
    wanted = subgroups == "all" or (
        subgroups == "auto" and whole.rejected and group.order <= LARGEST_SEARCHED
    )
    if wanted:
        rows += [test(number)[1] for number in range(1, len(candidates))]
    rows = closed(rows, containment(candidates[: len(rows)], group))

    gain, best = np.zeros(len(registers)), registers.argmax(axis=1)
    for one in found:
        gain[one.rows] = one.own - one.foreign.mean(axis=1, dtype=np.float64)
        best[one.rows] = one.best
    agreements, sizes = [], []
    for half in (1, 2):
        mine = execution.data.half_set == half
        agreement = best_global_operator(
            registers[mine].argmax(axis=1), best[mine], group, particle.subgroup
        )
        agreements.append(agreement.agreement)
        sizes.append(mine.sum())
    held_to = None
    if poses_held:
        held_to = harmless_pose_errors(
            execution.shells, conditions.score_shell, particle.diameter_angstrom
        )
    return AsymmetryEvidence(
        log_gain=gain,
        z_score=whole.z_score,
        p_value=whole.p_value,
        found=whole.rejected,
        half_set_agreement=float(np.average(agreements, weights=sizes)),
        expected_accuracy=float(registers.max(axis=1).mean()),
        nats_per_particle=whole.nats,
        subgroups=tuple(rows),
        supported=supported(rows, particle.subgroup.name, len(rows) == len(candidates)),
        tested=informative(found),
        poses_held_to=held_to,
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


def harmless_pose_errors(
    shells: Shells, score_shell: int, diameter_angstrom: float
) -> tuple[float, float]:
    """Errors of rotation (degrees) and shift (Å) that poses which are held must be well within.

    They move the particle's surface by one radian of phase at the highest frequency that scores
    images: the residual then holds as much of the symmetric part as the symmetric part itself.
    What registers can sort of that looks like asymmetry; its power falls as the errors' square.
    """
    shift = shells.resolution(score_shell) / (2.0 * np.pi)
    angle = np.rad2deg(shift / (0.5 * diameter_angstrom))
    return float(angle), float(shift)
