"""Compiled programs of the E-step, one per image geometry and band; a run makes few of them.

They are kept for the whole process, so that many refinements of one shape (a scan over seeds)
compile once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    batch_ctf,
    pixel_weights,
    undo_premultiplication,
    without_odd_phase,
)
from jaxrelax.inference import (
    Model,
    PosePrior,
    Poses,
    PoseSearch,
    draw_poses,
    found_at_places,
    harden,
    infer,
    log_likelihood,
    over_modes,
    split_modes,
    statistics,
)
from jaxrelax.io import OpticsGroup
from jaxrelax.reconstruction import Accumulator, Candidates, accumulate
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.program_cache import cached_program
from jaxrelax.refinement.workers import ALL, EACH, Workers


def preparation(problem: Problem, group: int, geometry: ImageGeometry, packed: bool):
    """Compiled CTF and weights of a batch, of images as they are on disk or packed before."""
    source = problem.images
    optics = problem.particles.optics[group]
    made = (source.normalise[group], source.particle_radius_px[group])
    corrections = (optics.phase_flipped, optics.ctf_premultiplied)
    return cached_program(
        lambda: _preparation_program(
            geometry,
            problem.workers,
            None if packed else source.packing(group, geometry.packing),
            optics,
        ),
        *("prepare", geometry, problem.workers, packed, made, corrections),
    )


def search_program(problem: Problem, geometry: ImageGeometry, search: PoseSearch):
    """Compiled search; groups of one geometry share it."""
    hard = problem.relax is not None and problem.relax.register == "hard"
    shape = (problem.n_shells, problem.model, problem.chunk_size(geometry.n_inner), hard)
    return cached_program(
        lambda: _search_program(search, geometry, problem.workers, *shape),
        *("search", search, geometry.inner(), problem.workers, shape),
    )


def accumulate_program(problem: Problem, group: int, accumulate_shell: int, score_rung: int):
    """Compiled accumulation of as many candidates as a batch has images."""
    geometry = problem.geometry(group, accumulate_shell, score_rung)
    return cached_program(
        lambda: _accumulate_program(geometry, problem.workers),
        *("accumulate", geometry, problem.workers),
    )


def misfit_program(problem: Problem, group: int, max_shell: int):
    """Compiled ‖y − f p‖² of every image at f = 0, 1, 2, which gives ‖p‖² and ⟨y, p⟩."""
    geometry = problem.geometry(group, max_shell, max_shell)
    return cached_program(lambda: _misfit_program(geometry), *("misfit", geometry))


def _misfit_program(geometry: ImageGeometry):
    @jax.jit
    def misfits(volume: FourierVolume, batch: ImageBatch, rotations, origins_px):
        def at(factor):
            scaled = FourierVolume(volume.values * factor, volume.radius)
            return -2.0 * log_likelihood(scaled, batch, geometry, rotations, origins_px)[0][:, 0]

        return jax.lax.map(at, jnp.arange(3, dtype=volume.values.dtype))

    return misfits


def _accumulate_program(geometry: ImageGeometry, workers: Workers):
    def accumulate_images(accumulator, weights, data, ctf, valid, candidates):
        batch = ImageBatch(data, ctf, weights, valid)
        return accumulate(accumulator, batch, geometry, candidates)

    program = workers.program(
        accumulate_images, (EACH, ALL, EACH, EACH, EACH, EACH), EACH, donate_argnums=(0,)
    )

    def insert(accumulator: Accumulator, batch: ImageBatch, candidates: Candidates) -> Accumulator:
        return program(accumulator, batch.weights, batch.data, batch.ctf, batch.valid, candidates)

    return insert


def _search_program(
    search: PoseSearch,
    geometry: ImageGeometry,
    workers: Workers,
    n_shells: int,
    model: Model,
    chunk: int,
    hard: bool,
):
    """Compiled E-step of one geometry: posterior over registers with the pose integrated out.

    Every device works through its part of the batch in chunks whose temporaries fit the cache.
    """
    inner = geometry.inner()

    def search_images(
        target, pixel_weights, prior: PosePrior, params, drawn, images, poses, numbers
    ):
        batch = ImageBatch(images[0], images[1], pixel_weights, images[2])
        size = min(chunk, batch.data.shape[0])

        def one_chunk(part):
            (data, ctf, valid), some = part
            return search(
                target, ImageBatch(data, ctf, pixel_weights, valid), inner, some, prior, n_shells
            )

        def split(x):
            return x.reshape(-1, size, *x.shape[1:])

        found = jax.lax.map(one_chunk, jax.tree.map(split, (images, poses)))
        found = jax.tree.map(lambda x: x.reshape(batch.data.shape[0], *x.shape[2:]), found)
        found = split_modes(search, found)
        posterior = infer(model, params, over_modes(found.log_evidence), batch, inner)
        counted = batch.valid.astype(posterior.places.dtype) * posterior.shows_particle
        kept = (harden(posterior.places) if hard else posterior.places) * counted[:, None]
        sums = workers.added(statistics(model, posterior, found, batch))
        found = found_at_places(model, found)
        modes = jax.nn.softmax(found.log_evidence, axis=1)
        peaks = (found.rotations, found.origins_px)
        placed = (*peaks, modes)
        if search.draws:
            places = model.table.n_places
            share = jnp.full((len(modes), search.draws, places), 1.0 / search.draws)
            key = jax.random.fold_in(jax.random.key(drawn[0]), drawn[1])
            placed = (*draw_poses(found, modes, key, numbers, search.draws), share)
        return (peaks, placed, modes), sums, posterior, kept

    program = workers.program(
        search_images,
        (ALL, ALL, ALL, ALL, ALL, EACH, EACH, EACH),
        (EACH, ALL, EACH, EACH),
    )

    def search_batch(
        target, batch: ImageBatch, poses: Poses, prior: PosePrior, params, drawn, numbers
    ):
        images = (batch.data, batch.ctf, batch.valid)
        return program(target, batch.weights, prior, params, drawn, images, poses, numbers)

    return search_batch


def _preparation_program(
    geometry: ImageGeometry, workers: Workers, pack: Callable | None, optics: OpticsGroup
):
    def prepare_images(data, parameters, power, score_shell):
        if pack is not None:
            data = pack(data)
        data = without_odd_phase(data, geometry)
        ctf = batch_ctf(parameters, geometry, optics.phase_flipped)
        if optics.ctf_premultiplied:
            data, ctf = undo_premultiplication(data, ctf)
        score = pixel_weights(power, geometry.packing, geometry.slice_shell, score_shell)
        everything = pixel_weights(
            power, geometry.packing, geometry.slice_shell, power.shape[0] - 1
        )
        inner = slice(geometry.n_inner)  # the scored band alone
        return (data[:, inner], ctf[:, inner], score[inner]), (data, ctf, everything)

    arrays = (EACH, EACH, ALL)
    program = workers.program(prepare_images, (EACH, EACH, ALL, ALL), (arrays, arrays))

    def prepare(data, parameters, power, score_shell, valid) -> tuple[ImageBatch, ImageBatch]:
        scored, whole = program(data, parameters, power, score_shell)
        return ImageBatch(*scored, valid=valid), ImageBatch(*whole, valid=valid)

    return prepare
