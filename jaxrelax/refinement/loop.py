"""One iteration: E-step, M-step, and what the components make of them."""

from __future__ import annotations

import dataclasses
import time
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxrelax.arrays import AnyArray
from jaxrelax.engine.programs import update_program
from jaxrelax.geometry import pose_error_mod_group
from jaxrelax.imaging import working_box
from jaxrelax.inference import entropy
from jaxrelax.reconstruction import IsotypicParts, resolution_shell, resolved_shell
from jaxrelax.reconstruction.fsc import cross_power, spectrum
from jaxrelax.refinement.course import Orders, Seen
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.history import DEVIATION_BANDS, StepInfo
from jaxrelax.refinement.learned_noise import next_spectrum
from jaxrelax.refinement.maximisation import Maximisation, half_maps, in_order, maximisation
from jaxrelax.refinement.pose_changes import pose_changes
from jaxrelax.refinement.pose_prior import next_poses
from jaxrelax.refinement.pose_schedule import have_settled, pose_search
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.start import starting_weights
from jaxrelax.refinement.state import (
    Beliefs,
    FoldSums,
    MapState,
    PoseState,
    State,
    Strength,
)
from jaxrelax.refinement.strength import calibrated

# Farther than a local search goes in one iteration.
JUMP_DEG = 10.0


def step(problem: Problem, state: State, on_batch=None) -> tuple[State, StepInfo]:
    """One iteration: ``(state, info)``.

    Args:
        problem, state: where we are.
        on_batch: called with the number of images done, for progress.
    """
    began, plan = time.perf_counter(), problem.plan
    workers = problem.execution.workers
    band, orders = state.course.band, plan.course.orders(state.course)
    shell = problem.shells.accumulated(state.score_shell, grow=bool(band.growing))
    weights = starting_weights(problem, state) if state.iteration == 0 else None
    found = expectation(problem, state, shell, weights_override=weights, on_batch=on_batch)
    solved = maximisation(
        problem, found.sums, orders.belief, score_shell=state.score_shell, apart=found.exclusive
    )
    exchange_states(problem, found, solved.order)
    maps = half_maps(problem, solved)
    poses = next_poses(problem, state, found)
    info = _report(problem, state, found, solved, maps, poses)
    # Sums are the same bits in all processes, what follows from them may be rounded differently.
    agreed = workers.agreed((shared(solved), maps, info, poses))
    solved, maps, info, poses = agreed
    course = plan.course.next(
        state.course, Seen(info, solved.learned.fsc_symmetric, shell, problem.shells)
    )
    orders = plan.course.orders(course)
    after = state.replace(
        iteration=np.asarray(state.iteration + 1),
        poses=poses,
        beliefs=_beliefs(state, found, orders),
        latents=update_program(plan.model)(state.latents, found.latents),
        noise_power=next_spectrum(plan.noise, state.noise_power, found.residual, found.count),
        maps=_maps(problem, state, found, solved, maps, orders),
    )
    if orders.calibrates and problem.particle.relaxed and plan.calibrated:
        held = state.maps.strength.held_nats
        after = calibrated(problem, after, maps, None if held is None else float(held), shell)
    info = dataclasses.replace(info, seconds=time.perf_counter() - began)
    return after.replace(course=course, history=state.history.appended(info)), info


def exchange_states(problem: Problem, found: Expectation, order: list[int]) -> None:
    """Give the states of half-set 2 the numbers that they have in half-set 1, in place.

    Args:
        problem: half-sets, and the table.
        found: of a pass.
        order: of the M-step's :func:`jaxrelax.reconstruction.match_states`.
    """
    if order == list(range(len(order))):
        return
    maps, second = problem.plan.table.place_maps, problem.data.half_set == 2
    columns = np.concatenate([np.flatnonzero(maps == k) for k in order])
    found.registers[second] = found.registers[second][:, columns]
    found.sums[1] = [in_order(fold, order) for fold in found.sums[1]]


def shared(solved: Maximisation) -> Maximisation:
    """What of an M-step processes have to agree on."""
    return solved._replace(halves=[], maps=[one._replace(raw=[], parts=[]) for one in solved.maps])


def _beliefs(state: State, found: Expectation, orders: Orders) -> Beliefs:
    sought = found.registers if orders.seeks else state.beliefs.sought
    return Beliefs(
        found.registers, found.symmetric, found.junk, found.log_gain, sought, found.claimed
    )


def _maps(
    problem: Problem,
    state: State,
    found: Expectation,
    solved: Maximisation,
    maps: list[IsotypicParts],
    orders: Orders,
) -> MapState:
    """Sums and what makes maps of them; the strength is held to what the course says."""
    strength, seen = state.maps.strength, found.nats_per_power
    held = orders.held_nats if problem.plan.calibrated else None
    return MapState(
        *MapState.stacked(maps),
        sums=FoldSums.of(found.sums, solved.weight, solved.learned.state),
        fsc=solved.fsc,
        fsc_symmetric=solved.learned.fsc_symmetric,
        fsc_asymmetric=solved.learned.fsc_asymmetric,
        alignment=np.asarray(solved.alignment),
        strength=Strength(
            factor=strength.factor,
            held_nats=None if held is None else np.asarray(held),
            nats_per_power=strength.nats_per_power if seen is None else np.asarray(seen),
            log_odds=strength.log_odds,
        ),
    )


def _report(
    problem: Problem,
    state: State,
    found: Expectation,
    solved: Maximisation,
    maps: list[IsotypicParts],
    poses: PoseState,
) -> StepInfo:
    """The scalars of an iteration."""
    shells, plan, course = problem.shells, problem.plan, problem.plan.course
    orders, search = course.orders(state.course), pose_search(problem, state)
    settled = have_settled(problem, state)
    best, before = found.registers.argmax(axis=1), state.beliefs.registers.argmax(axis=1)
    rms = [np.sqrt(np.mean(p.symmetric**2)) for p in maps]
    rms_asymmetric = [np.sqrt(np.mean(p.asymmetric**2)) for p in maps]
    # Without relaxation that of the masked maps: the solvent's noise makes the other one jump.
    curve = solved.fsc if problem.particle.relaxed else solved.learned.fsc_symmetric
    jumps = pose_error_mod_group(found.rotations, state.poses.rotations, problem.common_group)
    fractions = plan.model.fractions(state.latents)
    return StepInfo(
        iteration=state.iterations_done + 1,
        resolution_angstrom=shells.resolution(resolution_shell(curve)),
        mean_fsc=float(np.sum(curve[1:]) / shells.last),
        score_resolution_angstrom=shells.resolution(state.score_shell),
        mean_max_posterior=float(found.registers.max(axis=1).mean()),
        register_change=float(np.mean(best != before)),
        register_flow=flow(found.registers, state.beliefs.registers, found.junk),
        log_likelihood=float(found.log_marginal.mean()),
        pose_jumps=float(np.mean(np.rad2deg(jumps) > JUMP_DEG)),
        asymmetric_fsc=solved.asymmetric_fsc,
        asymmetric_signal=solved.asymmetric_signal,
        asymmetric_resolution_angstrom=_resolved(problem, solved),
        asymmetric_power=float(np.mean(np.array(rms_asymmetric) / np.maximum(rms, 1e-30))),
        register_nats=found.nats,
        held_out_gain=float(found.log_gain.mean()),
        optimism=orders.belief.optimism,
        amplitude=float(state.maps.strength.factor),
        symmetric_fraction=fractions.get("symmetric", 0.0),
        junk_fraction=fractions.get("junk", 0.0),
        sigma_rotation_deg=float(poses.sigma_rotation_deg),
        sigma_shift_angstrom=float(
            poses.sigma_offset_angstrom if search.from_picking else poses.sigma_shift_angstrom
        ),
        seconds=0.0,
        score_shell=state.score_shell,
        phase=course.phase(state.course),
        # Between two searches nothing is seen of what poses still do.
        settled=course.may_stop(state.course)
        and settled
        and search.holds_poses == plan.mode.holds_poses,
        poses_settled=settled,
        held_poses=search.holds_poses,
        relaxed=plan.relax is not None,
        searched_globally=search.is_global,
        deviations=_deviations(problem, maps),
        **pose_changes(problem, state, found),
        **_of_states(problem, state, found),
    )


def _resolved(problem: Problem, solved: Maximisation) -> float:
    """See ``StepInfo.asymmetric_resolution_angstrom``."""
    relaxed = next((one for one in problem.of_maps if one.relaxed), None)
    if relaxed is None:
        return 0.0
    curve = solved.learned.fsc_asymmetric
    counts = relaxed.coefficients(relaxed.sphere(working_box(len(curve) - 1)))
    return problem.shells.resolved(resolved_shell(curve, counts))


def _deviations(problem: Problem, maps: list[IsotypicParts]) -> tuple[float, ...]:
    """See ``StepInfo.deviations``; of all maps together, 0 where there is no density."""
    if not any(one.relaxed for one in problem.of_maps):
        return ()
    n = len(maps[0].symmetric)
    power = np.sum([[_power(part, n) for part in one] for one in maps], axis=0)
    ends = [min(int(problem.particle.edge_angstrom / to), n // 2) for to in DEVIATION_BANDS]
    bands = [power[:, low + 1 : high + 1].sum(axis=1) for low, high in pairwise([0, *ends])]
    return tuple(float(np.sqrt(own / max(whole, 1e-30))) for whole, own in bands)


def _power(part: Float[AnyArray, "b b b"], n: int) -> Float[np.ndarray, " shells"]:
    transform = spectrum(np.asarray(part))
    return np.asarray(cross_power(transform, transform, n))


def _of_states(problem: Problem, state: State, found: Expectation) -> dict[str, Any]:
    """What there is to report where images may show several maps."""
    if len(problem.of_maps) == 1:
        return {}
    shown = max(float(np.sum(1.0 - found.junk, dtype=np.float64)), 1e-30)
    now, before = (of_states(problem, p) for p in (found.registers, state.beliefs.registers))
    return {
        "state_change": flow(now, before, found.junk),
        "state_certainty": float(np.sum(certainty(now, found.junk))) / shown,
        "fractions": state_fractions(problem, found),
    }


def of_states(
    problem: Problem, places: Float[np.ndarray, "n places"]
) -> Float[np.ndarray, "n states"]:
    """Posterior of every map, from that of the places where images go."""
    maps = problem.plan.table.place_maps
    return np.stack([places[:, maps == k].sum(axis=1) for k in range(len(problem.of_maps))], axis=1)


def certainty(
    posterior: Float[np.ndarray, "n hypotheses"], junk: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """1 − normalised entropy of a posterior, times how surely an image shows the particle."""
    sure = 1.0 - entropy(posterior.astype(np.float64)) / np.log(max(posterior.shape[1], 2))
    return np.maximum(sure, 0.0) * (1.0 - junk)


def flow(
    now: Float[np.ndarray, "n hypotheses"],
    before: Float[np.ndarray, "n hypotheses"],
    junk: Float[np.ndarray, " n"],
) -> float:
    """Share of images whose best hypothesis is another one, each counted by its certainty.

    Args:
        now, before: posteriors.
        junk: probability that an image shows no particle.
    """
    certain = certainty(now, junk)
    changed = now.argmax(axis=1) != before.argmax(axis=1)
    # Where nobody is sure of anything nothing has changed.
    return float(np.sum(certain * changed)) / max(float(np.sum(certain)), 1e-3 * len(certain))


def state_fractions(problem: Problem, found: Expectation) -> tuple[float, ...]:
    """Of the images that show the particle, what is in every state."""
    counted = (1.0 - found.junk) @ of_states(problem, found.registers)
    return tuple(float(one) for one in counted / counted.sum())
