"""Images streamed from disk to the devices: corrected, weighted, in batches of one size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float64, Int

from jaxrelax.engine.execution import Execution
from jaxrelax.engine.programs import preparation
from jaxrelax.engine.rest import by_side, without_rest
from jaxrelax.imaging import ImageBatch, ImageGeometry


class Conditions(NamedTuple):
    """Under which images are scored: at which poses, against which noise, up to where.

    Attributes:
        rotations: A of every image.
        origins_angstrom: of every image.
        noise_power: noise spectrum per optics group, E|X|² per shell.
        score_shell: last shell that scores.
    """

    rotations: Float64[np.ndarray, "n 3 3"]
    origins_angstrom: Float64[np.ndarray, "n 2"]
    noise_power: Float64[np.ndarray, "groups shells"]
    score_shell: int


class PreparedBatch(NamedTuple):
    """Images on the device, padded with repeats to one size; the repeats are marked invalid."""

    rows: Int[np.ndarray, " m"]
    padded: Int[np.ndarray, " size"]  # row of every image, repeats included
    scored: ImageBatch  # in the scored band
    images: ImageBatch  # in the whole band of the geometry


def prepared_batches(
    execution: Execution,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    noise_power: Float64[np.ndarray, " shells"],
    score_shell: int,
    size: int,
) -> Iterator[PreparedBatch]:
    """Stream images of one optics group, corrected and weighted for scoring.

    Where a part is refined they come without the rest, a half-set and fold after another.
    """
    source, packing, workers = execution.images, geometry.packing, execution.workers
    kept = source.keeps(group, packing)
    prepare = preparation(execution, group, geometry, kept)
    power = workers.everywhere(noise_power.astype(np.float32))
    shell = workers.everywhere(score_shell)
    batches = [
        some[i : i + size] for some in by_side(execution, rows) for i in range(0, len(some), size)
    ]
    stream = source.packed(batches, group, packing, size) if kept else source.padded(batches, size)
    for chosen, data in stream:
        m = len(chosen)
        padded = np.concatenate([chosen, np.full(size - m, chosen[0])])
        scored, images = prepare(
            workers.split(data), execution.ctf_parameters(padded), power, shell,
            workers.split(np.arange(size) < m),
        )  # fmt: skip
        del data  # not held while the batch is worked on
        if execution.rest is not None:
            scored, images = without_rest(execution, group, geometry, padded, scored, images)
        yield PreparedBatch(chosen, padded, scored, images)


def batches_at(
    execution: Execution,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    noise_power: Float64[np.ndarray, " shells"],
) -> Iterator[tuple[np.ndarray, ImageBatch, jax.Array, jax.Array]]:
    """Stream images at the poses of the input, under a given noise spectrum.

    Yields:
        rows, images (padded with repeats to one size, marked invalid), rotations, origins in px.
    """
    particles, split = execution.data.particles, execution.workers.split
    pixel = particles.optics[group].pixel_size_angstrom
    size = execution.batch_size(geometry.packing.n_pixels)
    for batch in prepared_batches(
        execution, group, rows, geometry, noise_power, execution.shells.count, size
    ):
        yield (
            batch.rows,
            batch.images,
            split(particles.rotations[batch.padded].astype(np.float32)),
            split((particles.origins_angstrom[batch.padded] / pixel).astype(np.float32)),
        )
