"""One iteration: E-step, M-step, and the schedules of band, noise, prior and optimism."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Float32

from jaxrelax.geometry import rotation_angle
from jaxrelax.imaging import background_power, resample_map, white_spectrum, working_box
from jaxrelax.reconstruction import isotypic_parts, resolution_shell
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.maximisation import maximisation
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.schedule import Stage, next_stage
from jaxrelax.refinement.state import State, StepInfo

# Share of an image's weight that a random register gets in the first iteration of a symmetric
# start: enough that the half-maps' asymmetric parts rise above rounding, too little to decide.
SYMMETRY_BREAKING = 0.5
# While asymmetry is still being sought every image counts in every register: the band is widened
# by this factor only.
WIDENED = 1.5
# Shells whose half-maps agree less add little to a score and much to its cost.
SCORE_ABOVE = 0.3
SMALLEST_ROTATION_PRIOR_DEG = 0.05
SMALLEST_SHIFT_PRIOR_ANGSTROM = 0.05


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
    shell = problem.shell(ini_high_angstrom)
    box = working_box(problem.rung(shell))
    low = resample_map(reference, box) * problem.sphere(box)
    start = problem.relax.start if problem.relax is not None else "symmetric"
    parts = isotypic_parts(low, problem.group, problem.subgroup)
    asymmetric = parts.asymmetric if start == "reference" else np.zeros_like(parts.asymmetric)
    copies = 2 * problem.n_folds
    n = len(problem.particles)
    rotation, shift = problem.mode.prior_widths()
    nothing = np.zeros(shell + 1)
    return State(
        iteration=0,
        score_shell=shell,
        rotations=problem.particles.rotations.copy(),
        origins_angstrom=problem.particles.origins_angstrom.copy(),
        registers=np.full((n, problem.n_registers), 1.0 / problem.n_registers, np.float32),
        log_gain=np.zeros(n, np.float32),
        noise_power=starting_noise(problem),
        sigma_rotation_deg=rotation,
        sigma_shift_angstrom=shift,
        symmetric=np.repeat(parts.symmetric[None], copies, axis=0),
        asymmetric=np.repeat(asymmetric[None], copies, axis=0),
        fsc=nothing,
        fsc_symmetric=nothing,
        fsc_asymmetric=nothing,
        optimism=problem.relax.optimism if problem.relax is not None else 0.0,
        stage=_first_stage(problem),
        growing=_first_stage(problem) != "seek",
        alignment=0,
    )


def _first_stage(problem: Problem) -> Stage:
    """Asymmetry is sought unless there is none to seek or it is given."""
    if problem.relax is None:
        return "settle"
    return "withdraw" if problem.relax.start == "poses" else "seek"


def starting_noise(problem: Problem, at_most: int = 1000):
    """Noise spectrum per optics group from the image background, or white."""
    spectrum = white_spectrum(len(problem.particles.optics), problem.n_shells)
    if not problem.noise.from_images:
        return spectrum
    rng = np.random.default_rng((problem.seed, 1))
    for group in range(len(problem.particles.optics)):
        rows = np.flatnonzero(problem.particles.optics_group == group)
        rows = np.sort(rng.permutation(rows)[:at_most])
        geometry = problem.geometry(group, problem.last_shell, problem.last_shell)
        radius = problem.images.particle_radius_px[group]
        power, count = np.zeros(geometry.packing.n_pixels), 0
        for _, images in problem.images.raw(np.array_split(rows, max(len(rows) // 100, 1))):
            prepared = problem.images.normalised(images, group)
            power += np.asarray(background_power(prepared, geometry.packing, radius)).sum(axis=0)
            count += len(images)
        shells = np.minimum(geometry.slice_shell, problem.n_shells - 1)
        weight = geometry.packing.multiplicity
        seen = np.bincount(shells, weight, minlength=problem.n_shells)
        sums = np.bincount(shells, weight * power / count, minlength=problem.n_shells)
        means = np.divide(sums, seen, out=np.ones_like(sums), where=seen > 0)
        last = int(np.flatnonzero(seen)[-1])
        means[last + 1 :] = means[last]
        spectrum[group] = means
    return spectrum


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
        problem, found.accumulators, accumulate_shell,
        optimism=state.optimism, score_shell=state.score_shell,
        seeking=state.stage in ("seek", "widen"),
    )  # fmt: skip

    resolution = resolution_shell(solved.fsc)
    lowest = state.history[0]["score_shell"] if state.history else state.score_shell
    widths = _prior_widths(problem, state, found)
    best, before = found.registers.argmax(axis=1), state.registers.argmax(axis=1)
    info = StepInfo(
        iteration=state.iteration + 1,
        resolution_angstrom=problem.resolution(resolution),
        score_resolution_angstrom=problem.resolution(state.score_shell),
        mean_max_posterior=float(found.registers.max(axis=1).mean()),
        register_change=float(np.mean(best != before)),
        rotation_change_deg=float(
            np.rad2deg(np.median(rotation_angle(found.rotations @ state.rotations.mT)))
        ),
        shift_change_angstrom=float(
            np.median(np.linalg.norm(found.origins_angstrom - state.origins_angstrom, axis=1))
        ),
        asymmetric_fsc=solved.asymmetric_fsc,
        asymmetric_signal=solved.asymmetric_signal,
        asymmetric_power=solved.asymmetric_power,
        held_out_gain=float(found.log_gain.mean()),
        optimism=state.optimism,
        sigma_rotation_deg=widths[0],
        sigma_shift_angstrom=widths[1],
        seconds=time.perf_counter() - began,
    )
    row = info.row() | {
        "score_shell": float(state.score_shell),
        "widened": float(state.stage != "seek"),
    }
    history = (*state.history, row)
    stage, optimism = next_stage(state.stage, state.optimism, history)
    # While seeking, the band is held: no need to know what lies beyond it.
    score_shell, growing = state.score_shell, stage != "seek"
    if growing:
        # Poses rest on the symmetric part, which has |G| times the images behind each voxel; the
        # gains keep what is noise in either part from scoring.
        reach = resolution_shell(solved.fsc_symmetric, SCORE_ABOVE)
        if stage == "widen":
            reach = min(reach, int(WIDENED * lowest))
        score_shell = int(np.clip(reach, lowest, accumulate_shell))
        growing = reach >= accumulate_shell
    return (
        state.replace(
            iteration=state.iteration + 1,
            score_shell=score_shell,
            rotations=found.rotations,
            origins_angstrom=found.origins_angstrom,
            registers=found.registers,
            log_gain=found.log_gain,
            noise_power=problem.noise.update(state.noise_power, found.residual, found.count),
            sigma_rotation_deg=widths[0],
            sigma_shift_angstrom=widths[1],
            symmetric=solved.symmetric,
            asymmetric=solved.asymmetric,
            fsc=solved.fsc,
            fsc_symmetric=solved.fsc_symmetric,
            fsc_asymmetric=solved.fsc_asymmetric,
            optimism=optimism,
            stage=stage,
            growing=growing,
            alignment=solved.alignment,
            history=history,
        ),
        info,
    )


def _prior_widths(problem: Problem, state: State, found) -> tuple[float, float]:
    """Empirical-Bayes widths of the pose prior: the posterior's mean squared offset."""
    if not problem.mode.learns_prior:
        return state.sigma_rotation_deg, state.sigma_shift_angstrom
    rotation = float(np.rad2deg(np.sqrt(found.rotation_moment_rad2)))
    shift = float(np.sqrt(found.shift_moment_angstrom2))
    return max(rotation, SMALLEST_ROTATION_PRIOR_DEG), max(shift, SMALLEST_SHIFT_PRIOR_ANGSTROM)
