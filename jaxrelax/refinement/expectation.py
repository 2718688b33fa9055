"""The E-step: score every image against maps without it, and accumulate it under its posterior.

One implementation for every mode and for the final full-resolution pass. Images of one half-set
and fold share the volume that leaves their fold out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Int

from jaxrelax.geometry import project_to_so3
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
    IsotypicParts,
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
    rotation_moment_rad2: float = 0.0  # posterior mean squared offset from the consensus, per axis
    shift_moment_angstrom2: float = 0.0


def register_volume(
    problem: Problem,
    symmetric: Float32[np.ndarray, "b b b"],
    asymmetric: Float32[np.ndarray, "b b b"],
    max_shell: int,
) -> FourierVolume:
    """One channel per register, and one for the symmetric map when there are several.

    Channel j at pose A is the map at pose ``A r_jᵀ``. The symmetric part is the same array in
    every channel, so that interpolation cannot prefer a register; only the asymmetric part is
    turned: ``V_j(r) = S(r) + A(r_j r)``.
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
    search: PoseSearch,
    geometry: ImageGeometry,
    n_shells: int,
    registers: int,
    chunk: int,
    hard: bool,
):
    """Compiled E-step of one geometry: posterior over registers with the pose integrated out.

    The batch is worked through in chunks whose temporaries fit the cache.
    """
    inner = geometry.inner()

    @jax.jit
    def program(volume, batch: ImageBatch, poses: Poses, prior: PosePrior):
        images = (batch.data, batch.ctf, batch.valid)
        size = min(chunk, batch.data.shape[0])

        def one_chunk(part):
            (data, ctf, valid), some = part
            return search(
                volume, ImageBatch(data, ctf, batch.weights, valid), inner, some, prior, n_shells
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
            ImageBatch(data, ctf, score, valid).inner(geometry.n_inner),
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
        accumulators=[[empty_accumulator(radius) for _ in range(keep_folds)] for _ in range(2)],
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
        if not groups:
            continue
        volume = register_volume(
            problem, state.symmetric[index], state.asymmetric[index], score_rung
        )
        target = fold if keep_folds > 1 else 0
        accumulator = result.accumulators[half][target]
        for group, rows in groups:
            geometry = problem.geometry(group, accumulate_shell, score_rung)
            add = _accumulate_program(problem, group, accumulate_shell, score_rung)
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
        result.accumulators[half][target] = accumulator
    result.accumulators = [[completed(a) for a in folds] for folds in result.accumulators]
    result.rotation_moment_rad2 /= 3 * n
    result.shift_moment_angstrom2 /= 2 * n
    return result


def score_only(
    problem: Problem, state: State, maps: list[IsotypicParts], search: PoseSearch
) -> tuple[Float32[np.ndarray, "n registers"], Float32[np.ndarray, " n"]]:
    """Posterior over registers and log-gain of every image under one map per half-set.

    Args:
        problem, state: inputs, poses, noise and band.
        maps: the map that scores half-set 1, and the one for half-set 2.
        search: pose search to use.
    """
    n = len(problem.particles)
    registers, gain = np.zeros((n, problem.n_registers), np.float32), np.zeros(n, np.float32)
    rung = problem.rung(state.score_shell)
    for half, parts in enumerate(maps):
        volume = register_volume(problem, parts.symmetric, parts.asymmetric, rung)
        for group, rows in problem.batches(half + 1, None):
            geometry = problem.geometry(group, rung, rung)
            for batch in scored_batches(problem, state, volume, group, rows, geometry, search):
                registers[batch.rows] = batch.weights
                gain[batch.rows] = batch.gain
    return registers, gain


@dataclass
class ScoredBatch:
    """A batch after the search; per-image arrays without the padding rows."""

    rows: Int[np.ndarray, " m"]
    size: int  # with padding
    images: ImageBatch  # padded; weights of the whole accumulated band
    found: PosePosterior  # padded
    weights: Float32[np.ndarray, "m registers"]
    kept: Float32[np.ndarray, "m registers"]  # what the image contributes to each register
    gain: Float32[np.ndarray, " m"]
    residual: Float32[np.ndarray, " shells"]
    moments: tuple[float, float]  # sums of squared offsets, in prior standard deviations


def scored_batches(
    problem: Problem,
    state: State,
    volume: FourierVolume,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    search: PoseSearch,
) -> Iterator[ScoredBatch]:
    """Stream images of one optics group through a search against one volume."""
    pixel = problem.particles.optics[group].pixel_size_angstrom
    prepare, score = _programs(problem, group, geometry, search)
    size = problem.batch_size(geometry.n_inner)
    prior = PosePrior(
        jnp.asarray(np.float32(np.deg2rad(state.sigma_rotation_deg))),
        jnp.asarray(np.float32(state.sigma_shift_angstrom / pixel)),
    )
    power = jnp.asarray(state.noise_power[group].astype(np.float32))
    score_shell = jnp.asarray(state.score_shell)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    for chosen, packed in problem.images.packed(batches, group, geometry.packing):
        m = len(chosen)
        padding = np.concatenate([chosen, np.full(size - m, chosen[0])])
        data = np.zeros((size, packed.shape[1]), np.complex64)
        data[:m] = packed
        scored, everything = prepare(
            jnp.asarray(data), problem.ctf_parameters(padding), power, score_shell,
            jnp.asarray(np.arange(size) < m),
        )  # fmt: skip
        poses = _poses(problem, state, padding, pixel)
        found, sums, weights, kept, gain = score(volume, scored, poses, prior)
        yield ScoredBatch(
            rows=chosen,
            size=size,
            images=everything,
            found=found,
            weights=np.asarray(weights)[:m],
            kept=np.asarray(kept)[:m],
            gain=np.asarray(gain)[:m],
            residual=np.asarray(sums[0]),
            moments=(float(sums[1]), float(sums[2])),
        )


def batches_at(
    problem: Problem,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    noise_power: Float64[np.ndarray, " shells"],
) -> Iterator[tuple[Int[np.ndarray, " m"], ImageBatch, jax.Array, jax.Array]]:
    """Stream images at the poses of the input, under a given noise spectrum.

    Yields:
        rows, images (padded with repeats to one size, marked invalid), rotations, origins in px.
    """
    particles = problem.particles
    pixel = particles.optics[group].pixel_size_angstrom
    prepare = _preparation(problem, group, geometry)
    size = problem.batch_size(geometry.packing.n_pixels)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    for chosen, packed in problem.images.packed(batches, group, geometry.packing):
        m = len(chosen)
        padding = np.concatenate([chosen, np.full(size - m, chosen[0])])
        data = np.zeros((size, packed.shape[1]), np.complex64)
        data[:m] = packed
        _, images = prepare(
            jnp.asarray(data), problem.ctf_parameters(padding),
            jnp.asarray(noise_power.astype(np.float32)), jnp.asarray(problem.n_shells),
            jnp.asarray(np.arange(size) < m),
        )  # fmt: skip
        yield (
            chosen,
            images,
            jnp.asarray(particles.rotations[padding].astype(np.float32)),
            jnp.asarray((particles.origins_angstrom[padding] / pixel).astype(np.float32)),
        )


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


def _group_key(problem: Problem, group: int):
    optics = problem.particles.optics[group]
    return (
        optics.box, optics.pixel_size_angstrom, optics.phase_flipped, optics.ctf_premultiplied,
    )  # fmt: skip


def _preparation(problem: Problem, group: int, geometry: ImageGeometry):
    """Compiled CTF and weights of a batch."""
    optics = problem.particles.optics[group]
    packing = geometry.packing
    key = (_group_key(problem, group), packing.max_shell, packing.n_inner)
    if key not in problem.programs:
        problem.programs[key] = _batch_program(
            geometry, optics.phase_flipped, optics.ctf_premultiplied
        )
    return problem.programs[key]


def _programs(problem: Problem, group: int, geometry: ImageGeometry, search: PoseSearch):
    """Compiled batch preparation and search; groups of one geometry share them."""
    packing = geometry.packing
    search_key = (_group_key(problem, group), packing.n_inner, repr(search))
    if search_key not in problem.programs:
        hard = problem.relax is not None and problem.relax.register == "hard"
        problem.programs[search_key] = _search_program(
            search, geometry, problem.n_shells, problem.n_registers,
            problem.chunk_size(geometry.n_inner), hard,
        )  # fmt: skip
    return _preparation(problem, group, geometry), problem.programs[search_key]


def _accumulate_program(problem: Problem, group: int, accumulate_shell: int, score_rung: int):
    key = (_group_key(problem, group), accumulate_shell, score_rung, "accumulate")
    if key not in problem.programs:
        geometry = problem.geometry(group, accumulate_shell, score_rung)

        def program(accumulator, images, candidates):
            return accumulate(accumulator, images, geometry, candidates)

        problem.programs[key] = jax.jit(program, donate_argnums=0)
    return problem.programs[key]


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
