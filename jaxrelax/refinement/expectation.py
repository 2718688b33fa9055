"""The E-step: score every image against maps without it, and accumulate it under its posterior.

One implementation for every mode and for the final full-resolution pass. Images of one half-set
and fold share the volume that leaves their fold out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.geometry import project_to_so3
from jaxrelax.imaging import volume_radius
from jaxrelax.inference import significant
from jaxrelax.reconstruction import Accumulator, Candidates, completed, empty_accumulator
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.programs import accumulate_program
from jaxrelax.refinement.scoring import ScoredBatch, register_volume, scored_batches
from jaxrelax.refinement.state import State


@dataclass
class Expectation:
    """Results of one pass over all images."""

    accumulators: list[list[Accumulator]]  # [half][fold]
    rotations: Float64[np.ndarray, "n 3 3"]  # of the best register, without its operator
    origins_angstrom: Float64[np.ndarray, "n 2"]
    registers: Float32[np.ndarray, "n registers"]
    log_gain: Float32[np.ndarray, " n"]
    residual: Float64[np.ndarray, "groups shells"]
    count: Float64[np.ndarray, "groups shells"]
    rotation_moment_rad2: float = 0.0  # posterior mean squared offset from the consensus, per axis
    shift_moment_angstrom2: float = 0.0


def expectation(
    problem: Problem,
    state: State,
    accumulate_shell: int,
    *,
    n_folds: int | None = None,
    weights_override: Float32[np.ndarray, "n registers"] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Expectation:
    """One pass over the images.

    Args:
        problem, state: inputs and current maps, noise, poses.
        accumulate_shell: last shell accumulated (at least the scored band).
        n_folds: accumulators per half-set; by default the problem's folds. 1 joins the folds: the
            scores are still cross-fitted, only the sums are not kept apart.
        weights_override: register weights to accumulate with instead of the posterior (for the
            first iteration, before any map tells registers apart).
        on_batch: called with the number of images done.
    """
    n, registers = len(problem.particles), problem.n_registers
    keep_folds = problem.n_folds if n_folds is None else n_folds
    radius = volume_radius(accumulate_shell)
    score_rung = problem.rung(state.score_shell)
    result = Expectation(
        accumulators=[[], []],
        rotations=state.rotations.copy(),
        origins_angstrom=state.origins_angstrom.copy(),
        registers=np.zeros((n, registers), np.float32),
        log_gain=np.zeros(n, np.float32),
        residual=np.zeros_like(state.noise_power),
        count=np.zeros_like(state.noise_power),
    )
    for half, fold in itertools.product((0, 1), range(problem.n_folds)):
        index = half * problem.n_folds + fold
        groups = problem.batches(half + 1, fold)
        volume = register_volume(
            problem, state.symmetric[index], state.asymmetric[index], score_rung
        )
        if keep_folds > 1 or fold == 0:
            result.accumulators[half].append(empty_accumulator(radius))
        accumulator = result.accumulators[half].pop()
        for group, rows in groups:
            geometry = problem.geometry(group, accumulate_shell, score_rung)
            add = accumulate_program(problem, group, accumulate_shell, score_rung)
            for batch in scored_batches(
                problem, state, volume, group, rows, geometry, problem.mode.search()
            ):
                kept = batch.kept
                if weights_override is not None:
                    kept = weights_override[batch.rows]
                accumulator = add(accumulator, batch.images, _candidates(problem, kept, batch))
                _record(problem, state, group, geometry, batch, result)
                if on_batch is not None:
                    on_batch(len(batch.rows))
        if keep_folds > 1 or fold == problem.n_folds - 1:
            accumulator = completed(accumulator)
        result.accumulators[half].append(accumulator)
    result.rotation_moment_rad2 /= 3 * n
    result.shift_moment_angstrom2 /= 2 * n
    return result


def _record(problem, state, group, geometry, batch: ScoredBatch, result: Expectation):
    """Put a batch's results where they belong."""
    rows, found = batch.rows, batch.found
    m = np.arange(len(rows))
    best = batch.weights.argmax(axis=1)
    pixel = problem.particles.optics[group].pixel_size_angstrom
    rotations = np.asarray(found.rotations)[m, best].astype(np.float64)
    result.rotations[rows] = project_to_so3(rotations)
    result.origins_angstrom[rows] = pixel * np.asarray(found.origins_px)[m, best]
    result.registers[rows] = batch.weights
    result.log_gain[rows] = batch.gain
    inner = geometry.inner()
    shells = np.minimum(inner.slice_shell, problem.n_shells - 1)
    result.residual[group] += batch.residual
    result.count[group] += len(rows) * np.bincount(
        shells, inner.packing.multiplicity, minlength=problem.n_shells
    )
    rotation, shift = batch.moments
    result.rotation_moment_rad2 += rotation * np.deg2rad(state.sigma_rotation_deg) ** 2
    result.shift_moment_angstrom2 += shift * state.sigma_shift_angstrom**2


def _candidates(problem: Problem, weights, batch: ScoredBatch) -> Candidates:
    """Significant registers of a batch, padded to a power of two times the batch size."""
    rows, registers, kept = significant(weights)
    capacity = batch.size
    while capacity < len(rows):
        capacity *= 2
    pad = capacity - len(rows)
    rows, registers = (np.pad(a, (0, pad)).astype(np.int32) for a in (rows, registers))
    mates = problem.registers.representatives.astype(np.float32).transpose(0, 2, 1)
    rotations = np.asarray(batch.found.rotations)[rows, registers] @ mates[registers]
    return Candidates(
        row=jnp.asarray(rows),
        rotations=jnp.asarray(rotations),
        origins_px=jnp.asarray(np.asarray(batch.found.origins_px)[rows, registers]),
        weight=jnp.asarray(np.pad(kept, (0, pad)).astype(np.float32)),
    )
