"""From the last state of a classification to maps of all states, and posteriors."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Int

from jaxrelax.engine.memory import give_back_freed, peak_memory_gib
from jaxrelax.imaging import rebox_map, resample_map, working_box
from jaxrelax.inference import entropy
from jaxrelax.inference.exclusion import Claims, assigned
from jaxrelax.io import InputError, Particles
from jaxrelax.reconstruction import (
    Belief,
    HalfMaps,
    IsotypicParts,
    OwnGains,
    SharedAndOwn,
    apply_gain,
    corrected_fsc,
    local_resolution,
    match_halves,
    onto_first,
    own_filtered,
    registers_filtered,
    registers_onto_first,
    resolution_shell,
    resolved_shell,
    symmetrise,
    unregularised_map,
)
from jaxrelax.refinement.claims import excluding, make_joint
from jaxrelax.refinement.classification import OccupancyPatterns
from jaxrelax.refinement.differences import states_in_sigma
from jaxrelax.refinement.exclusive import copies_in_states, parents_of
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.finish import joined_gain, until_zero, window
from jaxrelax.refinement.held_out_states import (
    StatesApart,
    given,
    states_apart,
    under_the_other_half,
)
from jaxrelax.refinement.loop import exchange_states, of_states
from jaxrelax.refinement.maximisation import (
    half_maps,
    joined_maps,
    maximisation,
    total,
)
from jaxrelax.refinement.part_result import in_the_particle
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.result import Result, StateMap
from jaxrelax.refinement.state import State, replaced
from jaxrelax.refinement.strength import honest_exponent, tempered

LIKELY_JUNK = 0.5


def finish_states(
    problem: Problem,
    state: State,
    *,
    reason: str,
    seconds: float,
    settings: dict,
    on_batch=None,
) -> Result:
    """Final passes over the images and everything that is written.

    Images are scored by the maps of their own half-set without their fold; by those of the other
    half-set, which never saw them and so say how sure one may be; and by both joined, which is what
    is written. The last pass accumulates up to Nyquist.

    Args:
        problem, state: where the loop stopped.
        reason: why it stopped.
        seconds: wall time so far.
        settings: what was asked, JSON-able.
        on_batch: called with the number of images done.
    """
    shells, accumulated = problem.shells, problem.shells.accumulated(state.score_shell, grow=False)
    state = excluding(problem, state)
    banded = expectation(problem, state, accumulated, on_batch=on_batch)
    belief = problem.plan.course.orders(state.course).belief
    solved = maximisation(
        problem, banded.sums, belief, score_shell=state.score_shell, apart=banded.exclusive
    )
    if banded.claimed is not None:
        state = state.replace(beliefs=replaced(state.beliefs, claimed=banded.claimed))
    exchange_states(problem, banded, solved.order)
    mode = problem.plan.mode
    patterns = mode.patterns if isinstance(mode, OccupancyPatterns) else None
    if patterns is None:
        other, apart = states_apart(problem, state, solved, banded.junk, accumulated, on_batch)
    else:
        # Patterns are known to differ: by their sites, of one partner.
        maps, apart = half_maps(problem, solved), None
        other = under_the_other_half(problem, state, maps, accumulated, on_batch)
    shows = banded.junk < LIKELY_JUNK
    exponent = honest_exponent(banded.registers[shows], other.registers[shows])
    either_half = _either_half(problem, banded.registers[shows], other.registers[shows])
    joined = joined_maps(problem, banded.sums, solved, 1.0)
    del banded, solved, other
    give_back_freed()
    found = expectation(problem, given(state, joined), shells.last, n_folds=1, on_batch=on_batch)
    del joined
    claims = make_joint(problem, state, found, exponent)
    if claims is None:
        found.registers = tempered(found.registers, exponent)
    halves = [total(folds) for folds in found.sums]
    found.sums = []
    kept, matched = [], []
    rung = shells.rung(state.score_shell)
    sphere = problem.particle.sphere(shells.box)
    box = problem.data.particles.optics[0].box
    for number, particle in enumerate(problem.of_maps):
        raw = [unregularised_map(half.maps[number], particle) for half in halves]
        raw = [symmetrise(resample_map(m, shells.box), particle.subgroup) for m in raw]
        if box > shells.box:
            raw = [m * window(particle) for m in raw]
        parts = [particle.split(m * sphere) for m in raw]
        aligned = match_halves(particle, parts, sphere, max_shell=shells.last, score_shell=rung)
        kept.append(raw)
        matched.append(HalfMaps(raw, parts, aligned, shells.last, rung))
    shown = found.junk < LIKELY_JUNK
    registers, particles, posterior, best = _in_one_frame(problem, found, matched, claims, apart)
    weight = (1.0 - found.junk)[:, None] * posterior
    fractions = weight.sum(axis=0, dtype=np.float64) / weight.sum(dtype=np.float64)
    counts = np.bincount(best[shown], minlength=len(matched))
    states, mean = _state_maps(problem, matched, fractions, counts)
    first, second, final, mask, curves = mean
    symmetrised = symmetrise(final, problem.particle.group)
    result = Result(
        particles=particles,
        map=rebox_map(final, box),
        half_maps=(rebox_map(first, box), rebox_map(second, box)),
        map_symmetrised=rebox_map(symmetrised, box),
        difference=rebox_map(final - symmetrised, box),
        mask=rebox_map(mask, box),
        pixel_size_angstrom=shells.pixel_size_angstrom,
        shell_edge_angstrom=shells.edge_angstrom,
        registers=registers,
        operators=problem.plan.table.place_operators,
        fsc=curves,
        resolution_angstrom=shells.resolution(resolution_shell(curves["corrected"])),
        evidence=None,
        noise_power=state.noise_power,
        history=[info.row() for info in (*state.history_before, *state.history)],
        reason=reason,
        settings=settings | {"honest_exponent": exponent},
        seconds=seconds,
        peak_memory_gib=peak_memory_gib(),
        states=states,
        states_apart=apart,
        patterns=patterns,
        either_half=either_half,
        copies=_copies(problem, found, np.where(shown, best, -1)),
    )
    return in_the_particle(problem, result)


def _either_half(
    problem: Problem, own: Float[np.ndarray, "n places"], other: Float[np.ndarray, "n places"]
) -> Int[np.ndarray, "states states"]:
    """Images by their most probable state under maps of either half-set."""
    count = len(problem.of_maps)
    rows, columns = (of_states(problem, one).argmax(axis=1) for one in (own, other))
    return np.bincount(rows * count + columns, minlength=count**2).reshape(count, count)


def _copies(problem: Problem, found: Expectation, state: Int[np.ndarray, " n"]):
    """How often copies of one parent are in one state; None where the table knows of no copies."""
    data = problem.data
    try:
        parent = parents_of(data.particles, data.units)
    except InputError:  # of no consequence where nothing was asked of copies
        parent = None
    if parent is None or np.bincount(parent).max() < 2:
        return None
    return copies_in_states(parent, state, len(problem.of_maps), found.exclusive)


def _in_one_frame(
    problem: Problem,
    found: Expectation,
    matched: list[HalfMaps],
    claims: Claims | None,
    apart: StatesApart | None,
) -> tuple[
    Float32[np.ndarray, "n places"],
    Particles,
    Float[np.ndarray, "n states"],
    Int[np.ndarray, " n"],
]:
    """Posteriors and poses with half-set 2 turned onto half-set 1, state by state."""
    data, table = problem.data, problem.plan.table
    second, registers = data.half_set == 2, found.registers.copy()
    best_of_state, largest = [], []
    for number, (particle, one) in enumerate(zip(problem.of_maps, matched, strict=True)):
        columns = np.flatnonzero(table.place_maps == number)
        block = registers[:, columns]
        if particle.relaxed:
            block[second] = registers_onto_first(particle, one.matched.index, block[second])
            registers[:, columns] = block
        best_of_state.append(columns[block.argmax(axis=1)])
        largest.append(block.max(axis=1) / np.maximum(block.sum(axis=1), 1e-30))
    posterior = of_states(problem, registers)
    best, every, exclusive = posterior.argmax(axis=1), np.arange(len(posterior)), {}
    if apart is not None and claims is None:
        # Labels stay those that were found: which image went into which map.
        weight = 1.0 - found.junk.astype(np.float64)
        registers = apart.averaged(registers, table.place_maps, weight @ posterior / weight.sum())
        posterior = of_states(problem, registers)
    if claims is not None:
        assert problem.exclusive is not None
        assert found.exclusive is not None
        best = assigned(claims, found.exclusive, problem.exclusive.parent)
        exclusive = {"jrxExclusiveProbability": claims.has}
    place = np.stack(best_of_state, axis=1)[every, best]
    first = np.array([np.flatnonzero(table.place_maps == k)[0] for k in range(len(matched))])
    rotations = found.rotations @ table.place_operators[place].transpose(0, 2, 1)
    particles = data.particles.with_updates(
        rotations=rotations,
        origins_angstrom=found.origins_angstrom,
        half_set=data.half_set,
        class_number=best + 1,
        extra_columns={
            "rlnClassNumber": best.astype(np.int32) + 1,
            "jrxStateProbability": posterior[every, best].astype(np.float64),
            "jrxStateEntropy": entropy(posterior.astype(np.float64)),
            "jrxRegister": (place - first[best]).astype(np.int32) + 1,
            "jrxRegisterProbability": np.stack(largest, axis=1)[every, best].astype(np.float64),
            "jrxJunkProbability": found.junk.astype(np.float64),
            **exclusive,
        },
    )
    return registers, particles, posterior, best


def _state_maps(
    problem: Problem,
    matched: list[HalfMaps],
    fractions: Float[np.ndarray, " states"],
    counts: Int[np.ndarray, " states"],
):
    """Maps of all states, and half-maps, map, mask and curves of their mean."""
    shells, plan, particles = problem.shells, problem.plan, problem.of_maps
    rng = np.random.default_rng((plan.seed, 7))
    prior = plan.prior if isinstance(plan.prior, SharedAndOwn) else SharedAndOwn()
    # A band that decides between states is no band of their maps.
    prior = dataclasses.replace(prior, finest_difference_angstrom=None)
    learned: OwnGains = prior.learn(
        [_on_working_box(one) for one in matched], fractions, Belief(), particles, rng
    ).state
    sphere = problem.particle.sphere(shells.box)
    pairs = [
        (one.raw[0], onto_first(particle, one.matched.index, one.raw[1]))
        for one, particle in zip(matched, particles, strict=True)
    ]
    parts = [
        particle.split(0.5 * (first + second) * sphere)
        for particle, (first, second) in zip(particles, pairs, strict=True)
    ]
    learned = learned.on_box(shells.box)
    density, differing = learned.density, learned.differing
    shared = np.einsum("k,kzyx->zyx", fractions, np.stack([p.symmetric for p in parts]))
    shared = shared.astype(np.float32)
    whole = problem.particle.symmetric_coefficients(density)
    body = apply_gain(shared, joined_gain(until_zero(learned.fsc_shared, whole)))
    compared = states_in_sigma(particles, pairs, fractions, density, learned.fsc_shared)
    # As the loop filters: a small state agrees with itself on little, but on a difference that it
    # has in common with others it does.
    # What differs has no more symmetry than the state with the least.
    counts_of = [particle.symmetric_coefficients(differing) for particle in particles]
    most = np.max(counts_of, axis=0)
    gains = [joined_gain(until_zero(gain, most)) for gain in learned.own]
    of_states = own_filtered(parts, shared, learned, gains)
    states, edge = [], problem.data.particles.optics[0].box
    for number, (particle, part) in enumerate(zip(particles, parts, strict=True)):
        map_ = body + of_states[number]
        curves = {"own": np.asarray(learned.fsc_own[number])}
        own, asymmetric_resolved = resolved_shell(curves["own"], counts_of[number]), 0
        gains, profile = learned.asymmetric[number], learned.asymmetric_profile[number]
        if gains is not None and profile is not None:
            asymmetric_counts = particle.coefficients(differing)
            rows = np.stack([joined_gain(until_zero(row, asymmetric_counts)) for row in gains])
            asymmetric = registers_filtered(part.asymmetric, rows, profile, particle)
            map_ = map_ + particle.region(asymmetric * differing)
            curves["asymmetric"] = np.asarray(learned.fsc_asymmetric[number])
            asymmetric_resolved = resolved_shell(curves["asymmetric"], asymmetric_counts)
        mask = particle.fsc_mask(map_)
        first, second = pairs[number]
        local = local_resolution(first, second, mask, shells.pixel_size_angstrom)
        curves = corrected_fsc(first, second, mask, np.random.default_rng((plan.seed, 3))) | curves
        n = min(map(len, curves.values()))
        states.append(
            StateMap(
                name=particle.name,
                group=particle.group.name,
                kept=particle.subgroup.name,
                fraction=float(fractions[number]),
                count=int(counts[number]),
                registers=particle.n_registers,
                map=rebox_map(np.asarray(map_, np.float32), edge),
                half_maps=(rebox_map(first, edge), rebox_map(second, edge)),
                mask=rebox_map(mask, edge),
                local_resolution=rebox_map(local, edge),
                fsc={name: np.asarray(curve[:n], np.float64) for name, curve in curves.items()},
                resolution_angstrom=shells.resolution(resolution_shell(curves["corrected"])),
                own_resolution_angstrom=shells.resolved(own),
                asymmetric_resolution_angstrom=shells.resolved(asymmetric_resolved),
                in_sigma=compared[number].on_box(edge),
            )
        )
    weights = fractions.astype(np.float32)
    first, second = (
        np.einsum("k,kzyx->zyx", weights, np.stack([p[half] for p in pairs])) for half in (0, 1)
    )
    mask = problem.particle.fsc_mask(body)
    curves = corrected_fsc(first, second, mask, np.random.default_rng((plan.seed, 3)))
    return tuple(states), (first, second, np.asarray(body, np.float32), mask, curves)


def _on_working_box(one: HalfMaps) -> HalfMaps:
    """Half-maps on the box of the particle, where priors expect the box of the last shell."""
    box = working_box(one.max_shell)
    parts = [
        IsotypicParts(resample_map(p.symmetric, box), resample_map(p.asymmetric, box))
        for p in one.parts
    ]
    return one._replace(raw=[resample_map(m, box) for m in one.raw], parts=parts)
