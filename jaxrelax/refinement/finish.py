"""From the last state to maps and registers for people: one frame, full resolution."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int

from jaxrelax.imaging import rebox_map, resample_map
from jaxrelax.inference import entropy
from jaxrelax.io import Particles
from jaxrelax.reconstruction import (
    IsotypicParts,
    apply_component_gains,
    apply_gain,
    corrected_fsc,
    isotypic_parts,
    resolution_shell,
    rotate_map,
    soft_sphere,
    solvent_mask,
    symmetrise,
)
from jaxrelax.refinement.amplitude import averaged, cross_scores, honest_exponent, tempered
from jaxrelax.refinement.discriminability import Discriminability
from jaxrelax.refinement.evidence import asymmetry_evidence, peak_memory_gib
from jaxrelax.refinement.expectation import Expectation, expectation, total
from jaxrelax.refinement.maximisation import (
    align_parts,
    coefficients,
    component_curves,
    joined_maps,
    maximisation,
    symmetric_coefficients,
    unregularised_map,
)
from jaxrelax.refinement.prediction import discriminability_of_halves
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.result import Result
from jaxrelax.refinement.score_maps import region, split_parts
from jaxrelax.refinement.state import State

SMALLEST_AMPLITUDE = 0.1


def finish(
    problem: Problem,
    state: State,
    *,
    reason: str,
    seconds: float,
    settings: dict,
    on_batch=None,
    subgroups: Literal["auto", "all", "none"] = "auto",
) -> Result:
    """Final pass over the images and everything that is written.

    Images are scored once more (cross-fitted, in the scored band) and accumulated twice: by fold
    in the scored band, for the evidence, and by half-set up to Nyquist, for the maps.

    Args:
        problem, state: where the loop stopped.
        reason: why it stopped.
        seconds: wall time so far.
        settings: what was asked, JSON-able.
        on_batch: called with the number of images done.
        subgroups: which subgroups are tested, see
            :func:`jaxrelax.refinement.evidence.asymmetry_evidence`.
    """
    rung = problem.rung(state.score_shell)
    accumulated = problem.accumulated(state.score_shell, grow=False)
    banded = expectation(problem, state, accumulated, on_batch=on_batch)
    evidence, predicted = None, None
    if problem.n_registers > 1:
        judged = banded
        if state.amplitude < SMALLEST_AMPLITUDE:
            # The strength came out as nothing, so the posterior is uniform and its map symmetric.
            # What is judged then is the best that seeking had found.
            judged = expectation(
                problem, state, accumulated, weights_override=state.sought, on_batch=on_batch
            )
        evidence = asymmetry_evidence(
            problem, state, judged.sums, accumulated, judged.registers, subgroups=subgroups
        )
        del judged
        halves = [unregularised_map(problem, total(folds), accumulated) for folds in banded.sums]
        predicted = discriminability_of_halves(problem, state, *halves)
    exponent = _honest(problem, state, banded, accumulated)
    if evidence is None or evidence.found:
        solved = maximisation(
            problem, banded.sums, accumulated, optimism=state.optimism,
            score_shell=state.score_shell, stage="settle",
        )  # fmt: skip
        maps = joined_maps(problem, banded.sums, solved, state.amplitude)
        state = state.replace(
            fold_sums=state.fold_sums[:0],
            symmetric=np.stack([p.symmetric for p in maps]).astype(np.float32),
            asymmetric=np.stack([p.asymmetric for p in maps]).astype(np.float32),
        )
    del banded
    found = expectation(problem, state, problem.last_shell, n_folds=1, on_batch=on_batch)
    found.registers = averaged(tempered(found.registers, exponent), state.log_odds)
    if evidence is not None:
        # What is said of the registers is said of those that are written.
        expected = float(found.registers.max(axis=1).mean())
        evidence = dataclasses.replace(evidence, expected_accuracy=expected)
    raw = [unregularised_map(problem, total(folds), problem.last_shell) for folds in found.sums]
    # A working box may be larger than that of the map.
    kept = [symmetrise(resample_map(m, problem.map_box), problem.subgroup) for m in raw]
    box = problem.particles.optics[0].box
    if box > problem.map_box:
        kept = [m * _window(problem) for m in kept]
    sphere = problem.sphere(problem.map_box)
    aligned = align_parts(
        problem, [split_parts(problem, m * sphere) for m in kept], problem.last_shell, rung, sphere
    )
    first, second = kept[0], rotate_map(kept[1], problem.group.operators[aligned.index])

    mean = 0.5 * (first + second) * sphere
    mask = solvent_mask(apply_gain(mean, _joined(state.fsc)), problem.map_pixel_size_angstrom)
    curves = corrected_fsc(first, second, mask, np.random.default_rng((problem.seed, 3)))
    final, by_part = _combined(problem, first, second, mean, mask, curves["corrected"], rung)
    curves |= by_part
    symmetrised = symmetrise(final, problem.group)

    registers, particles = _in_one_frame(problem, found, aligned.index, predicted)
    return Result(
        particles=particles,
        map=rebox_map(final, box),
        half_maps=(rebox_map(first, box), rebox_map(second, box)),
        map_symmetrised=rebox_map(symmetrised, box),
        difference=rebox_map(final - symmetrised, box),
        mask=rebox_map(mask, box),
        pixel_size_angstrom=problem.map_pixel_size_angstrom,
        shell_edge_angstrom=problem.box_edge_angstrom,
        registers=registers,
        operators=problem.registers.representatives,
        fsc=curves,
        resolution_angstrom=problem.resolution(resolution_shell(curves["corrected"])),
        evidence=evidence,
        discriminability=predicted,
        noise_power=state.noise_power,
        history=[dict(row) for row in (*state.history_before, *state.history)],
        reason=reason,
        settings=settings,
        seconds=seconds,
        peak_memory_gib=peak_memory_gib(),
    )


def _window(problem: Problem) -> Float32[np.ndarray, "n n n"]:
    """1 on the particle and 0 at the end of its box, so that half-maps have no edge there."""
    radius = 0.5 * problem.particle_diameter_angstrom / problem.map_pixel_size_angstrom
    return soft_sphere(problem.map_box, radius, 0.5 * problem.map_box - radius)


def _honest(problem: Problem, state: State, banded: Expectation, max_shell: int) -> float:
    """How far posteriors under a half-set's own maps can be believed, see `honest_exponent`."""
    if problem.relax is None or problem.relax.prior == "plain" or problem.n_registers == 1:
        return 1.0
    maps = [IsotypicParts(s, a) for s, a in zip(state.symmetric, state.asymmetric, strict=True)]
    scores = cross_scores(problem, state, maps, state.amplitude, max_shell=max_shell)
    share = state.symmetric_fraction
    one = np.logaddexp.reduce(scores.registers, axis=1) - np.log(problem.n_registers)
    with np.errstate(divide="ignore"):
        symmetric = np.exp(
            np.log(share) + scores.symmetric
            - np.logaddexp(np.log1p(-share) + one, np.log(share) + scores.symmetric)
        )  # fmt: skip
    other = np.exp(scores.registers - scores.registers.max(axis=1, keepdims=True))
    other /= other.sum(axis=1, keepdims=True)
    other = (1.0 - symmetric)[:, None] * other + symmetric[:, None] / problem.n_registers
    return honest_exponent(banded.registers[scores.rows], other)


def _combined(
    problem: Problem, first, second, mean, mask, corrected, rung: int
) -> tuple[Float32[np.ndarray, "n n n"], dict[str, np.ndarray]]:
    """The average of the aligned half-maps, each isotypic part with its own Wiener gain."""
    if problem.n_registers == 1:
        counts = symmetric_coefficients(problem, mask)
        return apply_gain(mean, _joined(_until_zero(corrected, counts))), {}
    density = problem.density_mask(first, second)
    sphere = problem.sphere(problem.map_box)
    parts = [isotypic_parts(m * sphere, problem.group, problem.subgroup) for m in (first, second)]
    rng = np.random.default_rng((problem.seed, 7))
    symmetric = corrected_fsc(parts[0].symmetric, parts[1].symmetric, density, rng)["corrected"]
    inside = [IsotypicParts(p.symmetric, p.asymmetric * density) for p in parts]
    # Already in one frame; but every shell is judged with the operator that the others choose.
    aligned = align_parts(problem, inside, problem.last_shell, rung, density)
    by_component = component_curves(problem, inside, aligned, density)
    whole, counts = symmetric_coefficients(problem, density), coefficients(problem, density)
    final = apply_gain(
        0.5 * (parts[0].symmetric + parts[1].symmetric), _joined(_until_zero(symmetric, whole))
    ) + apply_component_gains(
        region(problem, 0.5 * (parts[0].asymmetric + parts[1].asymmetric)),
        np.stack([_joined(_until_zero(row, counts)) for row in by_component]),
        problem.group,
    )
    return final, {"symmetric": symmetric, "asymmetric": aligned.fsc}


def _in_one_frame(
    problem: Problem, found: Expectation, alignment: int, predicted: Discriminability | None
) -> tuple[Float32[np.ndarray, "n registers"], Particles]:
    """Registers and poses with half-set 2 turned onto half-set 1.

    With g V₂ in the frame of V₁, the pose A r_jᵀ for V₂ is A (g r_j)ᵀ for g V₂.
    """
    group, cosets = problem.group, problem.registers
    elements = [group.index_of(r) for r in cosets.representatives]
    moved = cosets.coset_table[group.multiplication_table[alignment][elements]]
    registers = found.registers.copy()
    second = problem.half_set == 2
    registers[np.ix_(second, moved)] = found.registers[second]
    best: Int[np.ndarray, " n"] = registers.argmax(axis=1)
    rotations = found.rotations @ cosets.representatives[best].transpose(0, 2, 1)
    columns = {}
    if problem.n_registers > 1:
        columns = {
            "jrxRegister": best.astype(np.int32) + 1,
            "jrxRegisterProbability": registers.max(axis=1).astype(np.float64),
            "jrxRegisterEntropy": entropy(registers.astype(np.float64)),
            "jrxJunkProbability": found.junk.astype(np.float64),
            "jrxSymmetricProbability": found.symmetric.astype(np.float64),
        }
    if predicted is not None:
        columns |= predicted.columns()
    particles = problem.particles.with_updates(
        rotations=rotations,
        origins_angstrom=found.origins_angstrom,
        half_set=problem.half_set,
        extra_columns=columns,
    )
    return registers, particles


def _joined(curve):
    """Wiener gain of the average of two half-maps: 2F/(1+F)."""
    f = np.clip(curve, 0.0, 1.0)
    return 2 * f / (1 + f)


def _until_zero(curve, counts):
    """The curve up to where it first falls to noise, then zero.

    Low shells have few coefficients: one of them alone is no end (see ``first_below``).
    """
    end = resolution_shell(curve, 0.05, counts)
    return np.where(np.arange(len(curve)) <= end, curve, 0.0)
