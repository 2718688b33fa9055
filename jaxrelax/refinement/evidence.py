"""Is the asymmetry real? Each half-set's images judged by the other half-set's map.

Under the null hypothesis that the particle is symmetric, the other half's asymmetric map is a
function of data that the judged images had no part in, so the likelihood ratio of the register
mixture against the symmetrised map has expectation 1 and is an e-value (Ville's inequality; see
Grünwald, de Heide & Koolen, J. R. Stat. Soc. B 86 (2024) 1091). Everything about the map, its gain
included, must come from its own half-set: a gain taken from the FSC between the half-sets would
keep the shells in which noise happens to agree.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from jaxrelax.geometry import best_global_operator
from jaxrelax.imaging import working_box
from jaxrelax.inference import FixedPoses
from jaxrelax.reconstruction import (
    Accumulator,
    IsotypicParts,
    apply_gain,
    fsc,
    inverse_tau2,
    mean_weight,
    wiener_map,
)
from jaxrelax.refinement.maximisation import (
    region,
    register_limit,
    split_parts,
    total,
    unregularised_map,
)
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.result import AsymmetryEvidence
from jaxrelax.refinement.scoring import score_only
from jaxrelax.refinement.state import State

SIGNIFICANCE = 0.01


def own_half_map(problem: Problem, folds: list[Accumulator], max_shell: int) -> IsotypicParts:
    """A half-set's map with gains estimated inside it, between two groups of its folds."""
    box = working_box(max_shell)
    sphere = problem.sphere(box)
    middle = len(folds) // 2
    parts = [
        split_parts(problem, unregularised_map(problem, total(group), max_shell) * sphere)
        for group in (folds[:middle], folds[middle:])
    ]
    whole = total(folds)

    def joined(correlation):
        correlation = np.clip(correlation[: max_shell + 1], 0.0, 0.999)
        return 2 * correlation / (1 + correlation)

    symmetric = joined(fsc(parts[0].symmetric, parts[1].symmetric))
    gain = joined(fsc(region(problem, parts[0].asymmetric), region(problem, parts[1].asymmetric)))
    gain[np.arange(len(gain)) > register_limit(problem, max_shell)] = 0.0
    tau = inverse_tau2(np.asarray(mean_weight(whole, max_shell + 1)), symmetric)
    solved = wiener_map(whole, tau.astype(np.float32), box=box, image_box=problem.map_box)
    split = split_parts(problem, np.asarray(solved) * sphere)
    return IsotypicParts(split.symmetric, apply_gain(region(problem, split.asymmetric), gain))


def asymmetry_evidence(
    problem: Problem,
    state: State,
    accumulators: list[list[Accumulator]],
    max_shell: int,
    registers: Float32[np.ndarray, "n registers"],
) -> AsymmetryEvidence:
    """Judge every image by the other half-set's map.

    Args:
        problem, state: where the refinement ended.
        accumulators: [half][fold] of the last pass.
        max_shell: their last shell.
        registers: final posterior under each image's own half-set, in that half-set's frame.
    """
    maps = [own_half_map(problem, folds, max_shell) for folds in accumulators]
    swapped = [maps[1], maps[0]]
    weights, gain = score_only(problem, state, swapped, FixedPoses())
    e_values, agreements, sizes = [], [], []
    for half in (1, 2):
        mine = problem.half_set == half
        e_values.append(float(gain[mine].sum()))
        best = best_global_operator(
            registers[mine].argmax(axis=1), weights[mine].argmax(axis=1),
            problem.group, problem.subgroup,
        )  # fmt: skip
        agreements.append(best.agreement)
        sizes.append(mine.sum())
    log_e = float(np.logaddexp(*e_values) - np.log(2.0))
    p = float(np.exp(min(0.0, -log_e)))
    return AsymmetryEvidence(
        log_gain=gain.astype(np.float64),
        log_e_value=log_e,
        p_value=p,
        found=p < SIGNIFICANCE,
        half_set_agreement=float(np.average(agreements, weights=sizes)),
        expected_accuracy=float(registers.max(axis=1).mean()),
    )


def peak_memory_gib() -> float:
    """Peak resident memory of this process, in GiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
