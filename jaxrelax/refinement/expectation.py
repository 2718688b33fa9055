"""The E-step: score every image against maps without it, and accumulate it under its posterior.

One implementation for every mode and for the final full-resolution pass. Images of one half-set
and fold share the volume that leaves their fold out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    batch_ctf,
    fourier_volume,
    pixel_weights,
    undo_premultiplication,
    volume_radius,
)
from jaxrelax.inference import (
    PosePosterior,
    PosePrior,
    Poses,
    PoseSearch,
    gain_over_mixture,
    harden,
    posterior,
    significant,
)
from jaxrelax.reconstruction import (
    Accumulator,
    Candidates,
    accumulate,
    completed,
    empty_accumulator,
    rotate_map,
)
from jaxrelax.refinement.problem import Problem
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
    rotation_moment_rad2: float  # posterior mean squared offset from the consensus, per axis
    shift_moment_angstrom2: float


def register_volume(
    problem: Problem,
    symmetric: Float32[np.ndarray, "b b b"],
    asymmetric: Float32[np.ndarray, "b b b"],
    max_shell: int,
) -> FourierVolume:
    """One channel per register, and one for the symmetric map when there are several.

    Channel j at pose A is the map at pose ``A r_jᵀ``. The symmetric part is the same array in every channel, so that interpolation cannot prefer a
    register; only the asymmetric part is turned: ``V_j(r) = S(r) + A(r_j r)``.
    """
    copies = [
        symmetric + rotate_map(asymmetric, representative.T)
        for representative in problem.registers.representatives
    ]
    if len(copies) > 1:
        copies.append(symmetric)
    return fourier_volume(
        jnp.asarray(np.stack(copies)), radius=volume_radius(max_shell), image_box=problem.map_box
    )


def _search_program(
    search: PoseSearch, geometry: ImageGeometry, n_shells: int, registers: int, chunk: int, hard: bool
):
    """Compiled E-step of one geometry: posterior over registers with the pose integrated out.

    The batch is worked through in chunks whose temporaries fit the cache.
    """
    inner = geometry.inner()

    @jax.jit
    def program(volume, batch: ImageBatch, poses: Poses, prior: PosePrior):
        scored = batch.inner(geometry.n_inner)
        images = (scored.data, scored.ctf, scored.valid)
        size = min(chunk, scored.data.shape[0])

        def one_chunk(part):
            (data, ctf, valid), some = part
            return search(
                volume, ImageBatch(data, ctf, scored.weights, valid), inner, some, prior, n_shells
            )

        def split(x):
            return x.reshape(-1, size, *x.shape[1:])

        found = jax.lax.map(one_chunk, jax.tree.map(split, (images, poses)))
        found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
        symmetric = found.log_evidence[:, -1]  # the last channel, see register_volume
        found = jax.tree.map(lambda x: x[:, :registers], found)
        weights = posterior(found.log_evidence)
        gain = gain_over_mixture(found.log_evidence) - symmetric
        kept = harden(weights) if hard else weights
        valid = batch.valid[:, None].astype(weights.dtype)
        residual = jnp.einsum("bj,bjs->s", weights * valid, found.residual_power)
        second = found.offset**2 + jnp.diagonal(found.covariance, axis1=-2, axis2=-1)
        second = jnp.einsum("bj,bja->a", weights * valid, second)
        moments = (residual, jnp.sum(second[:3]), jnp.sum(second[3:]))
        return found, moments, weights, kept * valid, gain

    return program


def _accumulate_program(geometry: ImageGeometry):
    return jax.jit(
        partial(_accumulate, geometry=geometry), donate_argnums=0
    )


def _accumulate(accumulator, batch, candidates, *, geometry):
    return accumulate(accumulator, batch, geometry, candidates)


def _batch_program(geometry: ImageGeometry, phase_flipped: bool, premultiplied: bool):
    @jax.jit
    def program(data, parameters, power, score_shell, valid):
        ctf = batch_ctf(parameters, geometry, phase_flipped)
        if premultiplied:
            data, ctf = undo_premultiplication(data, ctf)
        score = pixel_weights(power, geometry.packing, geometry.slice_shell, score_shell)
        everything = pixel_weights(
            power, geometry.packing, geometry.slice_shell, power.shape[0] - 1
        )
        return (
            ImageBatch(data, ctf, score, valid),
            ImageBatch(data, ctf, everything, valid),
        )

    return program


def expectation(
    problem: Problem,
    state: State,
    accumulate_shell: int,
    *,
    n_folds: int | None = None,
    weights_override: Float32[np.ndarray, "n registers"] | None = None,
    on_batch=None,
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
        accumulators=[[empty_accumulator(radius) for _ in range(keep_folds)] for _ in range(2)],
        rotations=state.rotations.copy(),
        origins_angstrom=state.origins_angstrom.copy(),
        registers=np.zeros((n, registers), np.float32),
        log_gain=np.zeros(n, np.float32),
        residual=np.zeros_like(state.noise_power),
        count=np.zeros_like(state.noise_power),
        rotation_moment_rad2=0.0,
        shift_moment_angstrom2=0.0,
    )
    moments = np.zeros(2)
    for half in (0, 1):
        for fold in range(problem.n_folds):
            index = half * problem.n_folds + fold
            groups = problem.batches(half + 1, fold)
            if not groups:
                continue
            volume = register_volume(
                problem, state.symmetric[index], state.asymmetric[index], score_rung
            )
            target = fold if keep_folds > 1 else 0
            accumulator = result.accumulators[half][target]
            for group, rows in groups:
                accumulator = _pass_over_group(
                    problem, state, volume, accumulator, group, rows, score_rung,
                    accumulate_shell, weights_override, result, moments, on_batch,
                )  # fmt: skip
            result.accumulators[half][target] = accumulator
    result.accumulators = [[completed(a) for a in folds] for folds in result.accumulators]
    result.rotation_moment_rad2 = moments[0] / (3 * n)
    result.shift_moment_angstrom2 = moments[1] / (2 * n)
    return result


def _pass_over_group(
    problem, state, volume, accumulator, group, rows, score_rung, accumulate_shell,
    weights_override, result, moments, on_batch,
):  # fmt: skip
    """Stream the images of one half-set, fold and optics group through the E-step."""
    optics = problem.particles.optics[group]
    pixel = optics.pixel_size_angstrom
    geometry = problem.geometry(group, accumulate_shell, score_rung)
    prepare, search, add = _programs(problem, group, geometry, score_rung, accumulate_shell)
    size = problem.batch_size(geometry.n_inner)
    prior = PosePrior(
        jnp.asarray(np.float32(np.deg2rad(state.sigma_rotation_deg))),
        jnp.asarray(np.float32(state.sigma_shift_angstrom / pixel)),
    )
    power = jnp.asarray(state.noise_power[group].astype(np.float32))
    score_shell = jnp.asarray(state.score_shell)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    scored_pixels = np.bincount(
        np.minimum(geometry.inner().slice_shell, problem.n_shells - 1),
        geometry.inner().packing.multiplicity,
        minlength=problem.n_shells,
    )
    for chosen, packed in problem.images.packed(batches, group, geometry.packing):
        padding = np.concatenate([chosen, np.full(size - len(chosen), chosen[0])])
        valid = jnp.asarray(np.arange(size) < len(chosen))
        data = np.zeros((size, packed.shape[1]), np.complex64)
        data[: len(chosen)] = packed
        scored, everything = prepare(
            jnp.asarray(data), problem.ctf_parameters(padding), power, score_shell, valid
        )
        poses = _poses(problem, state, padding, pixel)
        found, sums, weights, kept, gain = search(volume, scored, poses, prior)
        if weights_override is not None:
            kept = jnp.asarray(weights_override[padding]) * valid[:, None].astype(jnp.float32)
        candidates = _candidates(problem, np.asarray(kept), found, size)
        accumulator = add(accumulator, everything, candidates)

        m = len(chosen)
        weights = np.asarray(weights)[:m]
        best = weights.argmax(axis=1)
        rotations = np.asarray(found.rotations)[np.arange(m), best].astype(np.float64)
        result.rotations[chosen] = _orthonormal(rotations)
        result.origins_angstrom[chosen] = pixel * np.asarray(found.origins_px)[np.arange(m), best]
        result.registers[chosen] = weights
        result.log_gain[chosen] = np.asarray(gain)[:m]
        result.residual[group] += np.asarray(sums[0])
        result.count[group] += m * scored_pixels
        moments[0] += float(sums[1]) * np.deg2rad(state.sigma_rotation_deg) ** 2
        moments[1] += float(sums[2]) * state.sigma_shift_angstrom**2
        if on_batch is not None:
            on_batch(m)
    return accumulator


def _programs(problem, group, geometry, score_rung, accumulate_shell):
    optics = problem.particles.optics[group]
    shape = (optics.box, optics.pixel_size_angstrom, score_rung, accumulate_shell)
    flags = (optics.phase_flipped, optics.ctf_premultiplied)
    if (shape, flags) not in problem.programs:
        hard = problem.relax is not None and problem.relax.register == "hard"
        problem.programs[shape, flags] = (
            _batch_program(geometry, *flags),
            _search_program(
                problem.mode.search(), geometry, problem.n_shells, problem.n_registers,
                problem.chunk_size(geometry.n_inner), hard,
            ),
            _accumulate_program(geometry),
        )
    return problem.programs[shape, flags]


def _poses(problem: Problem, state: State, rows, pixel: float) -> Poses:
    particles = problem.particles

    def single(values):
        return jnp.asarray(values.astype(np.float32))

    return Poses(
        rotations=single(state.rotations[rows]),
        origins_px=single(state.origins_angstrom[rows] / pixel),
        prior_rotations=single(particles.rotations[rows]),
        prior_origins_px=single(particles.origins_angstrom[rows] / pixel),
    )


def _candidates(problem: Problem, weights, found: PosePosterior, size: int) -> Candidates:
    """Significant registers of a batch, padded to a power of two times the batch size."""
    rows, registers, kept = significant(weights)
    capacity = size
    while capacity < len(rows):
        capacity *= 2
    pad = capacity - len(rows)
    rows, registers = (np.pad(a, (0, pad)).astype(np.int32) for a in (rows, registers))
    mates = problem.registers.representatives.astype(np.float32).transpose(0, 2, 1)
    rotations = np.asarray(found.rotations)[rows, registers] @ mates[registers]
    return Candidates(
        row=jnp.asarray(rows),
        rotations=jnp.asarray(rotations),
        origins_px=jnp.asarray(np.asarray(found.origins_px)[rows, registers]),
        weight=jnp.asarray(np.pad(kept, (0, pad)).astype(np.float32)),
    )


def _orthonormal(rotations: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 3 3"]:
    """Nearest rotations: float32 products drift over many iterations."""
    u, _, vt = np.linalg.svd(rotations)
    return u @ vt
