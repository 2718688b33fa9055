"""From the last state to maps and registers for people: one frame, full resolution."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jaxrelax.engine.memory import give_back_freed, peak_memory_gib
from jaxrelax.imaging import rebox_map, resample_map
from jaxrelax.inference import entropy
from jaxrelax.io import Particles
from jaxrelax.judgement import (
    AsymmetryEvidence,
    Discriminability,
    asymmetry_evidence,
    discriminability_of_halves,
)
from jaxrelax.reconstruction import (
    DifferenceInSigma,
    IsotypicParts,
    Particle,
    apply_component_gains,
    apply_gain,
    component_curves,
    corrected_fsc,
    isotypic_parts,
    local_resolution,
    match_halves,
    onto_first,
    registers_onto_first,
    resolution_shell,
    resolved_shell,
    soft_sphere,
    symmetrise,
    unregularised_map,
)
from jaxrelax.refinement.differences import asymmetry_in_sigma
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.maximisation import joined_maps, maximisation, of_map, total
from jaxrelax.refinement.part_result import in_the_particle
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.result import Result
from jaxrelax.refinement.state import MapState, State, replaced
from jaxrelax.refinement.strength import averaged, cross_scores, honest_exponent, tempered

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
            :func:`jaxrelax.judgement.asymmetry_evidence`.
    """
    shells, particle, plan = problem.shells, problem.particle, problem.plan
    accumulated = shells.accumulated(state.score_shell, grow=False)
    banded = expectation(problem, state, accumulated, on_batch=on_batch)
    evidence, predicted = None, None
    if particle.relaxed:
        evidence, predicted = _judged(problem, state, banded, subgroups, on_batch)
    exponent = _honest(problem, state, banded, accumulated)
    if evidence is None or evidence.found:
        belief = plan.course.orders(state.course).belief._replace(
            faint=False, by_component=True, full=False
        )
        solved = maximisation(problem, banded.sums, belief, score_shell=state.score_shell)
        joined = joined_maps(problem, banded.sums, solved, float(state.maps.strength.factor))
        symmetric, asymmetric = MapState.stacked(joined)
        state = state.replace(
            maps=replaced(state.maps, symmetric=symmetric, asymmetric=asymmetric, sums=None)
        )
        del solved, joined
    del banded
    give_back_freed()
    found = expectation(problem, state, shells.last, n_folds=1, on_batch=on_batch)
    found.registers = averaged(tempered(found.registers, exponent), state.maps.strength.log_odds)
    if evidence is not None:
        # What is said of the registers is said of those that are written.
        expected = float(found.registers.max(axis=1).mean())
        evidence = dataclasses.replace(evidence, expected_accuracy=expected)
    raw = [unregularised_map(total(folds).maps[0], particle) for folds in found.sums]
    found.sums = []
    # A working box may be larger than that of the map.
    kept = [symmetrise(resample_map(m, shells.box), particle.subgroup) for m in raw]
    del raw
    box = problem.data.particles.optics[0].box
    if box > shells.box:
        kept = [m * window(particle) for m in kept]
    sphere = particle.sphere(shells.box)
    rung = shells.rung(state.score_shell)
    aligned = match_halves(
        particle, [particle.split(m * sphere) for m in kept], sphere,
        max_shell=shells.last, score_shell=rung,
    )  # fmt: skip
    first, second = kept[0], onto_first(particle, aligned.index, kept[1])

    mean = 0.5 * (first + second) * sphere
    mask = particle.fsc_mask(apply_gain(mean, joined_gain(state.maps.fsc)))
    curves = corrected_fsc(first, second, mask, np.random.default_rng((plan.seed, 3)))
    combined = _combined(problem, first, second, mean, mask, curves["corrected"], rung)
    curves |= combined.curves
    final, compared = combined.map, combined.in_sigma
    symmetrised = symmetrise(final, particle.group)

    local = local_resolution(first, second, mask, shells.pixel_size_angstrom)
    registers, particles = _in_one_frame(problem, found, aligned.index, predicted)
    result = Result(
        particles=particles,
        map=rebox_map(final, box),
        half_maps=(rebox_map(first, box), rebox_map(second, box)),
        map_symmetrised=rebox_map(symmetrised, box),
        difference=rebox_map(final - symmetrised, box),
        in_sigma=None if compared is None else compared.on_box(box),
        mask=rebox_map(mask, box),
        local_resolution=rebox_map(local, box),
        pixel_size_angstrom=shells.pixel_size_angstrom,
        shell_edge_angstrom=shells.edge_angstrom,
        registers=registers,
        operators=particle.registers.representatives,
        fsc=curves,
        resolution_angstrom=shells.resolution(resolution_shell(curves["corrected"])),
        asymmetric_resolution_angstrom=shells.resolved(combined.resolved),
        evidence=evidence,
        discriminability=predicted,
        noise_power=state.noise_power,
        history=[info.row() for info in (*state.history_before, *state.history)],
        reason=reason,
        settings=settings,
        seconds=seconds,
        peak_memory_gib=peak_memory_gib(),
    )
    return in_the_particle(problem, result)


def _judged(
    problem: Problem, state: State, banded: Expectation, subgroups, on_batch
) -> tuple[AsymmetryEvidence, Discriminability]:
    """Whether the asymmetry is real, and what the half-maps predict of every image."""
    judged = banded
    if float(state.maps.strength.factor) < SMALLEST_AMPLITUDE:
        # The strength came out as nothing, so the posterior is uniform and its map symmetric.
        # What is judged then is the best that seeking had found.
        judged = expectation(
            problem, state, banded.sums[0][0].max_shell,
            weights_override=state.beliefs.sought, on_batch=on_batch,
        )  # fmt: skip
    execution, particle, mode = problem.execution, problem.particle, problem.plan.mode
    evidence = asymmetry_evidence(
        execution, particle, state.conditions(), of_map(judged.sums, 0), judged.registers,
        seed=problem.plan.seed, poses_held=mode.holds_poses, subgroups=subgroups,
    )  # fmt: skip
    del judged
    halves = [unregularised_map(total(folds).maps[0], particle) for folds in banded.sums]
    poses = state.poses
    widths = (float(poses.sigma_rotation_deg), float(poses.sigma_shift_angstrom))
    predicted = discriminability_of_halves(
        execution, particle, state.conditions(), *halves,
        pose_prior=None if mode.holds_poses else widths,
    )  # fmt: skip
    return evidence, predicted


def window(particle: Particle) -> Float32[np.ndarray, "n n n"]:
    """1 on the particle and 0 at the end of its box, so that half-maps have no edge there."""
    radius = 0.5 * particle.diameter_angstrom / particle.pixel_size_angstrom
    return soft_sphere(particle.box, radius, 0.5 * particle.box - radius)


def _honest(problem: Problem, state: State, banded: Expectation, max_shell: int) -> float:
    """How far posteriors under a half-set's own maps can be believed, see `honest_exponent`."""
    registers = problem.particle.n_registers
    if not problem.plan.calibrated or registers == 1:
        return 1.0
    strength = float(state.maps.strength.factor)
    scores = cross_scores(problem, state, state.maps.parts(), strength, max_shell=max_shell)
    share = problem.plan.model.fractions(state.latents).get("symmetric", 0.0)
    one = np.logaddexp.reduce(scores.registers, axis=1) - np.log(registers)
    with np.errstate(divide="ignore"):
        symmetric = np.exp(
            np.log(share) + scores.symmetric
            - np.logaddexp(np.log1p(-share) + one, np.log(share) + scores.symmetric)
        )  # fmt: skip
    other = np.exp(scores.registers - scores.registers.max(axis=1, keepdims=True))
    other /= other.sum(axis=1, keepdims=True)
    other = (1.0 - symmetric)[:, None] * other + symmetric[:, None] / registers
    return honest_exponent(banded.registers[scores.rows], other)


class Combined(NamedTuple):
    """Of both half-sets.

    Attributes:
        map: regularised.
        curves: FSCs of the symmetric and of the asymmetric parts.
        resolved: last shell to which the asymmetric part is resolved; 0 without any.
        in_sigma: where what symmetrisation removes is real; None where nothing is relaxed.
    """

    map: Float32[np.ndarray, "n n n"]
    curves: dict[str, np.ndarray]
    resolved: int
    in_sigma: DifferenceInSigma | None


def _combined(problem: Problem, first, second, mean, mask, corrected, rung: int) -> Combined:
    """The average of the aligned half-maps, each isotypic part with its own Wiener gain."""
    particle, last = problem.particle, problem.shells.last
    if not particle.relaxed:
        counts = particle.symmetric_coefficients(mask)
        map_ = apply_gain(mean, joined_gain(until_zero(corrected, counts)))
        return Combined(np.asarray(map_), {}, 0, None)
    density = particle.density_mask(first, second)
    sphere = particle.sphere(particle.box)
    parts = [isotypic_parts(m * sphere, particle.group, particle.subgroup) for m in (first, second)]
    rng = np.random.default_rng((problem.plan.seed, 7))
    symmetric = corrected_fsc(parts[0].symmetric, parts[1].symmetric, density, rng)["corrected"]
    inside = [IsotypicParts(p.symmetric, p.asymmetric * density) for p in parts]
    # Already in one frame; but every shell is judged with the operator that the others choose.
    aligned = match_halves(particle, inside, density, max_shell=last, score_shell=rung)
    by_component = component_curves(particle, inside, aligned, density)
    whole, counts = particle.symmetric_coefficients(density), particle.coefficients(density)
    final = apply_gain(
        0.5 * (parts[0].symmetric + parts[1].symmetric), joined_gain(until_zero(symmetric, whole))
    ) + apply_component_gains(
        particle.region(0.5 * (parts[0].asymmetric + parts[1].asymmetric)),
        np.stack([joined_gain(until_zero(row, counts)) for row in by_component]),
        particle.group,
    )
    return Combined(
        np.asarray(final),
        {"symmetric": symmetric, "asymmetric": aligned.fsc},
        resolved_shell(aligned.fsc, counts),
        asymmetry_in_sigma(particle, parts, density, symmetric, aligned.fsc),
    )


def _in_one_frame(
    problem: Problem, found: Expectation, alignment: int, predicted: Discriminability | None
) -> tuple[Float32[np.ndarray, "n registers"], Particles]:
    """Registers and poses with half-set 2 turned onto half-set 1."""
    data, particle = problem.data, problem.particle
    registers, second = found.registers.copy(), data.half_set == 2
    registers[second] = registers_onto_first(particle, alignment, found.registers[second])
    best: Int[np.ndarray, " n"] = registers.argmax(axis=1)
    rotations = found.rotations @ particle.registers.representatives[best].transpose(0, 2, 1)
    columns = {}
    if particle.relaxed:
        columns = {
            "jrxRegister": best.astype(np.int32) + 1,
            "jrxRegisterProbability": registers.max(axis=1).astype(np.float64),
            "jrxRegisterEntropy": entropy(registers.astype(np.float64)),
            "jrxJunkProbability": found.junk.astype(np.float64),
            "jrxSymmetricProbability": found.symmetric.astype(np.float64),
        }
    if predicted is not None:
        columns |= predicted.columns()
    particles = data.particles.with_updates(
        rotations=rotations,
        origins_angstrom=found.origins_angstrom,
        half_set=data.half_set,
        extra_columns=columns,
    )
    return registers, particles


def joined_gain(curve):
    """Wiener gain of the average of two half-maps: 2F/(1+F)."""
    f = np.clip(curve, 0.0, 1.0)
    return 2 * f / (1 + f)


def until_zero(curve, counts):
    """The curve up to where it first falls to noise, then zero.

    Low shells have few coefficients: one of them alone is no end (see ``first_below``).
    """
    end = resolution_shell(curve, 0.05, counts)
    return np.where(np.arange(len(curve)) <= end, curve, 0.0)
