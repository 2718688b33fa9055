"""Compiled programs of the E-step, one per image geometry and band; a run makes few of them.

They are kept for the whole process, so that many refinements of one shape (a scan over seeds)
compile once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrelax.arrays import AnyArray
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.program_cache import cached_program
from jaxrelax.engine.workers import ALL, EACH, Workers
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
    Hypotheses,
    Model,
    PosePrior,
    Poses,
    PoseSearch,
    Stats,
    draw_poses,
    e_step,
    found_at_places,
    harden,
    log_likelihood,
)
from jaxrelax.io import OpticsGroup
from jaxrelax.reconstruction import Accumulator, deposit_in_maps


def preparation(execution: Execution, group: int, geometry: ImageGeometry, packed: bool):
    """Compiled CTF and weights of a batch, of images as they are on disk or packed before."""
    source, workers = execution.images, execution.workers
    optics = execution.optics[group]
    made = (source.normalise[group], source.particle_radius_px[group])
    corrections = (optics.phase_flipped, optics.ctf_premultiplied)
    origin_counts = execution.origin_counts
    return cached_program(
        lambda: _preparation_program(
            geometry, workers, None if packed else source.packing(group, geometry.packing), optics,
            origin_counts,
        ),
        *("prepare", geometry, workers, packed, made, corrections, origin_counts),
    )  # fmt: skip


def search_program(
    execution: Execution, geometry: ImageGeometry, search: PoseSearch, model: Model, hard: bool
):
    """Compiled E-step; groups of one geometry share it.

    Args:
        execution: devices, and sizes of batches and chunks.
        geometry: of the images.
        search: how poses are searched.
        model: what else is unknown of an image.
        hard: images go to their best place alone.
    """
    workers = execution.workers
    shape = (execution.shells.count, model, execution.chunk_size(geometry.n_inner), hard)
    return cached_program(
        lambda: _search_program(search, geometry, workers, *shape),
        *("search", search, geometry.inner(), workers, shape),
    )


def deposit_program(execution: Execution, geometry: ImageGeometry, table: Hypotheses):
    """Compiled accumulation of a batch under its posterior, poses and weights on the devices.

    Every map of the table has its own accumulator.
    """
    workers, places = execution.workers, (table.place_operators, table.place_maps)
    return cached_program(
        lambda: _deposit_program(geometry, *places, workers),
        *("deposit", geometry, places, workers),
    )


def update_program(model: Model):
    """Compiled update of the parameters of all latents from what a pass has learned."""
    return cached_program(
        lambda: jax.jit(lambda params, learned: model.update(params, learned)), "update", model
    )


def misfit_program(geometry: ImageGeometry):
    """Compiled ‖y − f p‖² of every image at f = 0, 1, 2, which gives ‖p‖² and ⟨y, p⟩."""
    return cached_program(lambda: _misfit_program(geometry), *("misfit", geometry))


def _misfit_program(geometry: ImageGeometry):
    @jax.jit
    def misfits(volume: FourierVolume, batch: ImageBatch, rotations, origins_px):
        def at(factor):
            scaled = FourierVolume(volume.values * factor, volume.radius)
            return -2.0 * log_likelihood(scaled, batch, geometry, rotations, origins_px)[0][:, 0]

        return jax.lax.map(at, jnp.arange(3, dtype=volume.values.dtype))

    return misfits


def _deposit_program(
    geometry: ImageGeometry, operators: np.ndarray, maps: np.ndarray, workers: Workers
):
    def deposit_images(accumulators, weights, data, ctf, valid, placed: Placed):
        batch = ImageBatch(data, ctf, weights, valid)
        return deposit_in_maps(accumulators, batch, geometry, *placed, operators, maps)

    program = workers.program(
        deposit_images, (EACH, ALL, EACH, EACH, EACH, EACH), EACH, donate_argnums=(0,)
    )

    def insert(
        accumulators: tuple[Accumulator, ...], batch: ImageBatch, placed: Placed
    ) -> tuple[Accumulator, ...]:
        return program(accumulators, batch.weights, batch.data, batch.ctf, batch.valid, placed)

    return insert


class PerImage(NamedTuple):
    """What is kept of every image of a batch.

    Attributes:
        rotations, origins_px: of the best place's best mode.
        mode_rotations, mode_origins_px: of all modes there.
        places: probability of every place, given that the image shows the particle.
        symmetric: of the rows of symmetrised maps together.
        outside: of what stands outside the table, by the latent's name.
        log_evidence: of every row.
        log_marginal: of everything together, priors included.
    """

    rotations: Float[AnyArray, "batch 3 3"]
    origins_px: Float[AnyArray, "batch 2"]
    mode_rotations: Float[AnyArray, "batch modes 3 3"]
    mode_origins_px: Float[AnyArray, "batch modes 2"]
    places: Float[AnyArray, "batch places"]
    symmetric: Float[AnyArray, " batch"]
    outside: Mapping[str, Float[AnyArray, " batch"]]
    log_evidence: Float[AnyArray, "batch rows"]
    log_marginal: Float[AnyArray, " batch"]


class Placed(NamedTuple):
    """Where the images of a batch go into the map; stays on the devices.

    Attributes:
        rotations, origins_px: without the operator of the place.
        weights: how much of the image goes there.
    """

    rotations: Float[AnyArray, "batch placed places 3 3"]
    origins_px: Float[AnyArray, "batch placed places 2"]
    weights: Float[AnyArray, "batch placed places"]


def _search_program(
    search: PoseSearch,
    geometry: ImageGeometry,
    workers: Workers,
    n_shells: int,
    model: Model,
    chunk: int,
    hard: bool,
):
    """Every device works through its part of a batch in chunks whose temporaries fit the cache."""
    inner, table = geometry.inner(), model.table
    symmetrised = jnp.asarray(table.symmetrised, jnp.float32)

    def search_images(
        target, pixel_weights, prior: PosePrior, params, drawn, use, images, poses, numbers,
        instead, image_prior,
    ):  # fmt: skip
        def one_chunk(part):
            (data, ctf, valid), some, ids, given, leaning = part
            batch = ImageBatch(data, ctf, pixel_weights, valid)
            posterior, found, stats = e_step(
                model, params, search, target, batch, inner, some, prior, n_shells, leaning
            )
            found = found_at_places(model, found)
            modes = jax.nn.softmax(found.log_evidence, axis=1)
            image = jnp.arange(len(data))
            best = jnp.argmax(posterior.places, axis=1)
            mode = jnp.argmax(modes[image, :, best], axis=1)
            per_image = PerImage(
                found.rotations[image, mode, best],
                found.origins_px[image, mode, best],
                found.rotations[image, :, best],
                found.origins_px[image, :, best],
                posterior.places,
                posterior.rows @ symmetrised,
                posterior.outside,
                posterior.log_evidence,
                posterior.log_marginal,
            )
            kept = harden(posterior.places) if hard else posterior.places
            kept = jnp.where(use, given, kept * posterior.shows_particle[:, None])
            kept = kept * valid[:, None]
            if search.draws:
                key = jax.random.fold_in(jax.random.key(drawn[0]), drawn[1])
                where = draw_poses(found, modes, key, ids, search.draws)
                share = jnp.full((len(modes), search.draws, table.n_places), 1.0 / search.draws)
            else:
                where, share = (found.rotations, found.origins_px), modes
            return per_image, Placed(*where, kept[:, None] * share), stats

        def split(x):
            return x.reshape(-1, min(chunk, len(numbers)), *x.shape[1:])

        parts = jax.tree.map(split, (images, poses, numbers, instead, image_prior))
        *done, stats = jax.lax.map(one_chunk, parts)
        per_image, placed = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tuple(done))
        return per_image, placed, workers.added(jax.tree.map(lambda x: x.sum(axis=0), stats))

    program = workers.program(
        search_images,
        (ALL, ALL, ALL, ALL, ALL, ALL, EACH, EACH, EACH, EACH, EACH),
        (EACH, EACH, ALL),
    )

    def search_batch(
        target,
        batch: ImageBatch,
        poses: Poses,
        prior: PosePrior,
        params,
        drawn,
        numbers,
        instead,
        use,
        image_prior=None,
    ) -> tuple[PerImage, Placed, Stats]:
        images = (batch.data, batch.ctf, batch.valid)
        return program(
            target, batch.weights, prior, params, drawn, use, images, poses, numbers, instead,
            image_prior,
        )  # fmt: skip

    return search_batch


def _preparation_program(
    geometry: ImageGeometry,
    workers: Workers,
    pack: Callable | None,
    optics: OpticsGroup,
    origin_counts: bool,
):
    origin = ~np.any(geometry.slice_wavevectors, axis=1)

    def prepare_images(data, parameters, power, score_shell):
        if pack is not None:
            data = pack(data)
        data = without_odd_phase(data, geometry)
        ctf = batch_ctf(parameters, geometry, optics.phase_flipped)
        if optics.ctf_premultiplied:
            # By the CTF alone: the ratio of boxes is in the images once.
            data, ctf = undo_premultiplication(data, ctf / geometry.amplitude)
            ctf = ctf * geometry.amplitude
        score = pixel_weights(power, geometry.packing, geometry.slice_shell, score_shell)
        if not origin_counts:
            score = jnp.where(origin, 0.0, score)
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
