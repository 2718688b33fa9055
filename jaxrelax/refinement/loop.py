"""One iteration: E-step, M-step, and the schedules of band, noise, prior and strength."""

from __future__ import annotations

import dataclasses
import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.geometry import pose_error_mod_group, rotation_angle
from jaxrelax.imaging import resample_map, working_box
from jaxrelax.reconstruction import IsotypicParts, isotypic_parts, resolution_shell
from jaxrelax.refinement.amplitude import LARGEST_RISE, OCCAM_NATS, calibrate, cross_scores
from jaxrelax.refinement.background import starting_noise
from jaxrelax.refinement.expectation import Expectation, expectation
from jaxrelax.refinement.maximisation import Maximisation, half_maps, maximisation
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.schedule import Stage, next_optimism, next_stage
from jaxrelax.refinement.state import State, StepInfo

# Mean squared distance between the views of a register and of the symmetrised map, in nats, while
# asymmetry is sought. So little that the posterior follows the images in proportion, and does not
# lock on what the first iterations happened to find.
HELD_NATS = 0.1
# Share of an image's weight that a random register gets in the first iteration of a symmetric
# start: enough that the half-maps' asymmetric parts rise above rounding, too little to decide.
SYMMETRY_BREAKING = 0.5
# Until the strength is calibrated every image may count in every register: the band is widened by
# this factor only.
WIDENED = 1.5
# Shells whose half-maps agree less add little to a score and much to its cost.
SCORE_ABOVE = 0.3
# Of the images, before any were looked at; and never less, or it could not grow again.
STARTING_JUNK, SMALLEST_JUNK = 0.02, 1e-4
# Farther than a local search goes in one iteration.
JUMP_DEG = 10.0
SMALLEST_ROTATION_PRIOR_DEG = 0.05
SMALLEST_SHIFT_PRIOR_ANGSTROM = 0.05
# Of where particles were picked; the first search has to find what they need.
SMALLEST_OFFSET_ANGSTROM = 1.0


def init(
    problem: Problem,
    reference: Float32[np.ndarray, "n n n"],
    *,
    ini_high_angstrom: float,
) -> State:
    """State before the first iteration: poses of the input, low-passed reference, noise.

    Args:
        problem: what stays fixed.
        reference: map on the problem's box, on the absolute scale of the images.
        ini_high_angstrom: the reference is used up to this resolution (RELION's ``ini_high``).
    """
    return _start(
        problem, reference[None], problem.shell(ini_high_angstrom), starting_noise(problem)
    )


def init_relaxation(problem: Problem, symmetric: State) -> State:
    """State before the first iteration of a relaxation, from where a symmetric stage ended.

    Args:
        problem: of the relaxation; its particles have the poses that were found.
        symmetric: the last state of the symmetric stage. Its half-maps are used up to the
            resolution in which asymmetry is sought, each for its own half-set.
    """
    shell = min(problem.shell(problem.mode.ini_high_angstrom), symmetric.score_shell)
    state = _start(problem, symmetric.symmetric, shell, symmetric.noise_power)
    return state.replace(history_before=(*symmetric.history_before, *symmetric.history))


def _start(
    problem: Problem,
    references: Float32[np.ndarray, "m b b b"],
    shell: int,
    noise_power: Float64[np.ndarray, "groups shells"],
) -> State:
    """Nothing is known but poses, noise, and one map or one for each half-set, up to a shell."""
    shell = min(shell, problem.last_score_shell)
    box = working_box(problem.rung(shell))
    start = problem.relax.start if problem.relax is not None else "symmetric"
    parts = [
        isotypic_parts(
            resample_map(one, box) * problem.sphere(box), problem.group, problem.subgroup
        )
        for one in references
    ]
    symmetric = np.stack([p.symmetric for p in parts])
    asymmetric = np.stack([p.asymmetric for p in parts])
    if start != "reference":
        asymmetric = np.zeros_like(asymmetric)
    n = len(problem.particles)
    rotation, shift = problem.mode.prior_widths()
    nothing = np.zeros(shell + 1)
    return State(
        iteration=0,
        score_shell=shell,
        rotations=problem.particles.rotations.copy(),
        origins_angstrom=problem.particles.origins_angstrom.copy(),
        prior_rotations=problem.particles.rotations.copy(),
        prior_origins_angstrom=problem.particles.origins_angstrom.copy(),
        registers=np.full((n, problem.n_registers), 1.0 / problem.n_registers, np.float32),
        log_gain=np.zeros(n, np.float32),
        noise_power=noise_power,
        sigma_rotation_deg=rotation,
        sigma_shift_angstrom=shift,
        # Of which nothing is known: as far as the first search sees.
        sigma_offset_angstrom=problem.resolution(shell),
        symmetric=symmetric,
        asymmetric=asymmetric,
        fsc=nothing,
        fsc_symmetric=nothing,
        fsc_asymmetric=nothing,
        optimism=problem.relax.optimism if problem.relax is not None else 0.0,
        stage=_first_stage(problem),
        growing=_first_stage(problem) != "seek",
        alignment=0,
        symmetric_probability=np.zeros(n, np.float32),
        junk_probability=np.zeros(n, np.float32),
        sought=np.full((n, problem.n_registers), 1.0 / problem.n_registers, np.float32),
    )


def _first_stage(problem: Problem) -> Stage:
    """Asymmetry is sought unless there is none to seek or it is given."""
    if problem.relax is None or problem.relax.start != "symmetric":
        return "settle"
    return "seek"


def starting_weights(problem: Problem) -> Float32[np.ndarray, "n registers"] | None:
    """Register weights of the first accumulation, or None where the posterior decides."""
    relax = problem.relax
    if relax is None or relax.start == "reference":
        return None
    n, registers = len(problem.particles), problem.n_registers
    if relax.start == "poses":
        return np.eye(registers, dtype=np.float32)[np.zeros(n, int)]
    rng = np.random.default_rng((problem.seed, 2))
    random = np.eye(registers)[rng.integers(registers, size=n)]
    weights = (1 - SYMMETRY_BREAKING) / registers + SYMMETRY_BREAKING * random
    return weights.astype(np.float32)


def step(problem: Problem, state: State, on_batch=None) -> tuple[State, StepInfo]:
    """One iteration: ``(state, info)``.

    Args:
        problem, state: where we are.
        on_batch: called with the number of images done, for progress.
    """
    began = time.perf_counter()
    accumulate_shell = problem.accumulated(state.score_shell, grow=state.growing)
    first = state.iteration == 0
    found = expectation(
        problem, state, accumulate_shell,
        weights_override=starting_weights(problem) if first else None, on_batch=on_batch,
    )  # fmt: skip
    solved = maximisation(
        problem, found.sums, accumulate_shell,
        optimism=state.optimism, score_shell=state.score_shell,
        stage=state.stage,
    )  # fmt: skip
    maps = half_maps(problem, solved)
    widths = _prior_widths(problem, state, found)
    info = _report(problem, state, found, solved, maps, widths)
    # Sums are the same bits in all processes, what follows from them may be rounded differently.
    solved = solved._replace(halves=[], raw=[])
    solved, maps, info, widths = problem.workers.agreed((solved, maps, info, widths))
    search = state.search(problem)
    searched_globally = search.is_global
    row = info.row() | {
        "score_shell": float(state.score_shell),
        "widened": float(state.stage != "seek"),
        "amplified": float(state.stage == "amplify"),
        # Between two searches nothing is seen of what poses still do.
        "settled": float(
            state.stage == "settle"
            and state.poses_settled(problem)
            and search.holds_poses == problem.mode.holds_poses
        ),
        "poses_settled": float(state.poses_settled(problem)),
        "held_poses": float(search.holds_poses),
        "relaxed": float(problem.relax is not None),
        "searched_globally": float(searched_globally),
    }
    history = (*state.history, row)
    centre = state.prior_rotations, state.prior_origins_angstrom
    if search.from_picking:
        centre = found.rotations, found.origins_angstrom
    modes = found.mode_rotations, found.mode_origins_angstrom
    if search.holds_poses:
        modes = state.mode_rotations, state.mode_origins_angstrom
    stage, optimism = state.stage, state.optimism
    if problem.relax is not None:
        stage = next_stage(stage, history)
        optimism = next_optimism(problem.relax.optimism, stage, optimism, info.asymmetric_signal)
    score_shell, growing = _next_band(problem, state, solved, accumulate_shell, stage)
    after = state.replace(
        iteration=state.iteration + 1,
        rotations=found.rotations,
        origins_angstrom=found.origins_angstrom,
        prior_rotations=centre[0],
        prior_origins_angstrom=centre[1],
        mode_rotations=modes[0],
        mode_origins_angstrom=modes[1],
        registers=found.registers,
        log_gain=found.log_gain,
        noise_power=problem.noise.update(state.noise_power, found.residual, found.count),
        sigma_rotation_deg=widths.rotation_deg,
        sigma_shift_angstrom=widths.shift_angstrom,
        sigma_offset_angstrom=widths.offset_angstrom,
        symmetric=np.stack([p.symmetric for p in maps]).astype(np.float32),
        asymmetric=np.stack([p.asymmetric for p in maps]).astype(np.float32),
        fsc=solved.fsc,
        fsc_symmetric=solved.fsc_symmetric,
        fsc_asymmetric=solved.fsc_asymmetric,
        optimism=optimism,
        stage=stage,
        alignment=solved.alignment,
        fold_sums=np.stack([np.stack([f.values for f in folds]) for folds in found.sums]),
        weight=solved.prior.weight,
        gain=solved.prior.gain,
        density=solved.prior.density,
        held_nats=-1.0 if _plain(problem) or stage == "amplify" else HELD_NATS,
        nats_per_power=found.nats_per_power or state.nats_per_power,
        junk_fraction=_next_junk(problem, state, found),
        symmetric_probability=found.symmetric,
        junk_probability=found.junk,
        sought=found.registers if stage in ("seek", "widen") else state.sought,
        history=history,
    )
    if stage == "settle" and problem.n_registers > 1 and not _plain(problem):
        after = _calibrated(problem, after, maps, state.held_nats, accumulate_shell)
    seconds = time.perf_counter() - began
    history = (*state.history, row | {"seconds": seconds})
    after = after.replace(score_shell=score_shell, growing=growing, history=history)
    return after, dataclasses.replace(info, seconds=seconds)


def _plain(problem: Problem) -> bool:
    return problem.relax is None or problem.relax.prior == "plain"


def _report(
    problem: Problem,
    state: State,
    found: Expectation,
    solved: Maximisation,
    maps: list[IsotypicParts],
    widths: _Widths,
) -> StepInfo:
    """The scalars of an iteration."""
    best, before = found.registers.argmax(axis=1), state.registers.argmax(axis=1)
    rms = [np.sqrt(np.mean(p.symmetric**2)) for p in maps]
    rms_asymmetric = [np.sqrt(np.mean(p.asymmetric**2)) for p in maps]
    # Without relaxation that of the masked maps: the solvent's noise makes the other one jump.
    curve = solved.fsc if problem.n_registers > 1 else solved.fsc_symmetric
    return StepInfo(
        iteration=state.iterations_done + 1,
        resolution_angstrom=problem.resolution(resolution_shell(curve)),
        mean_fsc=float(np.sum(curve[1:]) / problem.last_shell),
        score_resolution_angstrom=problem.resolution(state.score_shell),
        mean_max_posterior=float(found.registers.max(axis=1).mean()),
        register_change=float(np.mean(best != before)),
        rotation_change_deg=float(
            np.rad2deg(np.median(rotation_angle(found.rotations @ state.rotations.mT)))
        ),
        shift_change_angstrom=float(
            np.median(np.linalg.norm(found.origins_angstrom - state.origins_angstrom, axis=1))
        ),
        pose_jumps=_pose_jumps(problem, state, found),
        asymmetric_fsc=solved.asymmetric_fsc,
        asymmetric_signal=solved.asymmetric_signal,
        asymmetric_power=float(np.mean(np.array(rms_asymmetric) / np.maximum(rms, 1e-30))),
        register_nats=found.nats,
        held_out_gain=float(found.log_gain.mean()),
        optimism=state.optimism,
        amplitude=state.amplitude,
        symmetric_fraction=state.symmetric_fraction,
        junk_fraction=state.junk_fraction,
        sigma_rotation_deg=widths.rotation_deg,
        sigma_shift_angstrom=(
            widths.offset_angstrom if state.search(problem).from_picking else widths.shift_angstrom
        ),
        seconds=0.0,
    )


def _pose_jumps(problem: Problem, state: State, found: Expectation) -> float:
    """Fraction of images that found another pose."""
    moved = pose_error_mod_group(found.rotations, state.rotations, problem.group)
    return float(np.mean(np.rad2deg(moved) > JUMP_DEG))


def _next_band(
    problem: Problem, state: State, solved: Maximisation, accumulate_shell: int, stage: Stage
) -> tuple[int, bool]:
    """Last shell that scores in the next iteration, and whether to look beyond it."""
    if stage == "seek":
        # The band is held: no need to know what lies beyond it.
        return state.score_shell, False
    lowest = int(state.history[0]["score_shell"]) if state.history else state.score_shell
    # Poses rest on the symmetric part, which has |G| times the images behind each voxel; the
    # gains keep what is noise in either part from scoring.
    reach = resolution_shell(solved.fsc_symmetric, SCORE_ABOVE)
    if stage != "settle":
        reach = min(reach, int(WIDENED * lowest))
    last = min(max(problem.whole(accumulate_shell), lowest), problem.last_score_shell)
    # Where no more is asked for there is no need to look beyond, either.
    growing = reach >= last and last < problem.last_score_shell
    return int(np.clip(reach, min(lowest, last), last)), growing


def _next_junk(problem: Problem, state: State, found: Expectation) -> float:
    """Fraction of junk: the mean posterior, once there are maps made of the images."""
    if not _junk(problem):
        return 0.0
    if state.iteration == 0:
        return STARTING_JUNK
    return float(np.clip(found.junk.mean(), SMALLEST_JUNK, 1.0 - SMALLEST_JUNK))


def _calibrated(problem: Problem, state: State, maps, held_nats: float, max_shell: int) -> State:
    """Strength of the asymmetric part and symmetric fraction, from the other half's images.

    ``held_nats`` is what the maps were held to so far, below 0 if they were not; ``max_shell`` the
    last one accumulated.
    """
    amplitude = state.amplitude
    scores = cross_scores(problem, state, maps, amplitude, max_shell=max_shell)
    found = problem.workers.agreed(
        calibrate(
            scores.registers,
            scores.symmetric,
            (1.0 - scores.junk) * problem.units.weight[scores.rows],
            with_symmetric=_junk(problem),
        )
    )
    most = LARGEST_RISE * held_nats if held_nats > 0 else np.inf
    nats = min(found.nats, most)
    return state.replace(
        amplitude=amplitude * found.factor * np.sqrt(nats / max(found.nats, 1e-30)),
        held_nats=nats,
        symmetric_fraction=found.symmetric_fraction,
        log_odds=0.5 * found.log_likelihood - OCCAM_NATS,
    )


def _junk(problem: Problem) -> bool:
    return problem.relax is not None and problem.relax.junk


class _Widths(NamedTuple):
    """Standard deviations of the pose priors, see State."""

    rotation_deg: float
    shift_angstrom: float
    offset_angstrom: float


def _prior_widths(problem: Problem, state: State, found: Expectation) -> _Widths:
    """Empirical-Bayes widths of the pose prior: the posterior's mean squared offset."""
    search = state.search(problem)
    widths = _Widths(
        state.sigma_rotation_deg, state.sigma_shift_angstrom, state.sigma_offset_angstrom
    )
    shift = float(np.sqrt(found.shift_moment_angstrom2))
    if search.from_picking:
        return widths._replace(offset_angstrom=max(shift, SMALLEST_OFFSET_ANGSTROM))
    if not problem.mode.learns_prior or search.holds_poses:
        return widths
    rotation = float(np.rad2deg(np.sqrt(found.rotation_moment_rad2)))
    return widths._replace(
        rotation_deg=max(rotation, SMALLEST_ROTATION_PRIOR_DEG),
        shift_angstrom=max(shift, SMALLEST_SHIFT_PRIOR_ANGSTROM),
    )
