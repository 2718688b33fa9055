"""Images streamed through a pose search: the half of the E-step that looks at one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Float64, Int

from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    fourier_volume,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.inference import PosePrior, Poses, PoseSearch
from jaxrelax.io import InputError
from jaxrelax.reconstruction import rotated_maps
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.programs import preparation, search_program
from jaxrelax.refinement.state import State


def register_volume(
    problem: Problem,
    symmetric: Float32[np.ndarray, "b b b"],
    asymmetric: Float32[np.ndarray, "b b b"],
    max_shell: int,
) -> FourierVolume:
    """One channel per hypothesis.

    A row with operator r at pose A is the map at pose ``A rᵀ``. The symmetric part is the same
    array in every channel, so that interpolation cannot prefer a register; only the asymmetric
    part is turned: ``V_j(x) = S(x) + D(r_j x)``. Maps that reach beyond ``max_shell`` are
    resampled, so that one program serves a band whatever was accumulated.
    """
    box, table = working_box(max_shell), problem.hypotheses
    symmetric, asymmetric = resample_map(symmetric, box), resample_map(asymmetric, box)
    inverses = table.operators[~table.symmetrised].transpose(0, 2, 1)
    turned = rotated_maps(asymmetric, inverses)
    channels = [symmetric if alone else symmetric + next(turned) for alone in table.symmetrised]
    return fourier_volume(
        jax.device_put(np.stack(channels)), radius=volume_radius(max_shell),
        image_box=problem.map_box,
    )  # fmt: skip


@dataclass
class ScoredBatch:
    """A batch after the search; per-image arrays without the padding rows."""

    rows: Int[np.ndarray, " m"]
    size: int  # with padding
    images: ImageBatch  # padded; weights of the whole accumulated band
    rotations: Float32[np.ndarray, "m modes places 3 3"]
    origins_px: Float32[np.ndarray, "m modes places 2"]
    # Where it goes into the map, and with what share of a place's weight.
    placed_rotations: Float32[np.ndarray, "m placed places 3 3"]
    placed_origins_px: Float32[np.ndarray, "m placed places 2"]
    shares: Float32[np.ndarray, "m placed places"]
    modes: Float32[np.ndarray, "m modes places"]  # probability of each, given the place
    weights: Float32[np.ndarray, "m places"]
    kept: Float32[np.ndarray, "m places"]  # what the image contributes to each place
    log_evidence: Float32[np.ndarray, "m rows"]  # of every hypothesis
    symmetric: Float32[np.ndarray, " m"]  # posterior of the symmetric state
    junk: Float32[np.ndarray, " m"]  # and of junk
    residual: Float32[np.ndarray, " shells"]
    moments: tuple[float, float]  # sums of squared offsets from the prior's centre: rad², Å²
    counted: float  # images that residual and moments count, junk by its probability


class PreparedBatch(NamedTuple):
    """Images on the device, padded with repeats to one size; the repeats are marked invalid."""

    rows: Int[np.ndarray, " m"]
    padded: Int[np.ndarray, " size"]  # row of every image, repeats included
    scored: ImageBatch  # in the scored band
    images: ImageBatch  # in the whole band of the geometry


def prepared_batches(
    problem: Problem,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    noise_power: Float64[np.ndarray, " shells"],
    score_shell: int,
    size: int,
) -> Iterator[PreparedBatch]:
    """Stream images of one optics group, corrected and weighted for scoring."""
    source, packing = problem.images, geometry.packing
    kept = source.keeps(group, packing)
    prepare = preparation(problem, group, geometry, kept)
    workers = problem.workers
    power = workers.everywhere(noise_power.astype(np.float32))
    shell = workers.everywhere(score_shell)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    stream = source.packed(batches, group, packing, size) if kept else source.padded(batches, size)
    for chosen, data in stream:
        m = len(chosen)
        padded = np.concatenate([chosen, np.full(size - m, chosen[0])])
        scored, images = prepare(
            workers.split(data), problem.ctf_parameters(padded), power, shell,
            workers.split(np.arange(size) < m),
        )  # fmt: skip
        del data  # not held while the batch is worked on
        yield PreparedBatch(chosen, padded, scored, images)


def scored_batches(
    problem: Problem,
    state: State,
    volume: FourierVolume,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    search: PoseSearch,
    params: Mapping[str, Any] | None = None,
) -> Iterator[ScoredBatch]:
    """Stream images of one optics group through a search against one volume.

    Without parameters of the latents those of the beginning are taken: every image shows the
    particle, and in one of its registers.
    """
    pixel = problem.particles.optics[group].pixel_size_angstrom
    score = search_program(problem, geometry, search)
    target = problem.workers.everywhere(search.prepare(volume, geometry))
    size = problem.batch_size(geometry.n_inner)
    everywhere, table = problem.workers.everywhere, problem.hypotheses
    sigma_shift = state.sigma_offset_angstrom if search.from_picking else state.sigma_shift_angstrom
    prior = PosePrior(
        everywhere(np.float32(np.deg2rad(state.sigma_rotation_deg))),
        everywhere(np.float32(sigma_shift / pixel)),
    )
    params = everywhere(jax.device_put(problem.model.init() if params is None else params))
    # Another pass draws other poses, a resumed run the same.
    drawn = everywhere(np.array([problem.seed % 2**32, state.iterations_done], np.uint32))
    for batch in prepared_batches(
        problem, group, rows, geometry, state.noise_power[group], state.score_shell, size
    ):
        chosen, m = batch.rows, len(batch.rows)
        poses = _poses(problem, state, batch.padded, pixel, search)
        (peaks, placed, modes), sums, posterior, kept = score(
            target, batch.scored, poses, prior, params, drawn,
            problem.workers.split(batch.padded.astype(np.int32)),
        )  # fmt: skip
        evidence = np.asarray(posterior.log_evidence)[:m]
        lost = chosen[~np.isfinite(evidence).all(axis=1)]
        if len(lost):
            raise InputError(
                f"{problem.images.reader.image_name(int(lost[0]))} (row {lost[0] + 1}): the "
                "likelihood is not a number; the image or its CTF is damaged. Find such images "
                "with jaxrelax.io.find_bad_images, or leave them out with --skip-bad-images"
            )
        yield ScoredBatch(
            rows=chosen,
            size=size,
            images=batch.images,
            rotations=np.asarray(peaks[0])[:m],
            origins_px=np.asarray(peaks[1])[:m],
            placed_rotations=np.asarray(placed[0])[:m],
            placed_origins_px=np.asarray(placed[1])[:m],
            shares=np.asarray(placed[2])[:m],
            modes=np.asarray(modes)[:m],
            weights=np.asarray(posterior.places)[:m],
            kept=np.asarray(kept)[:m],
            log_evidence=evidence,
            symmetric=np.asarray(posterior.rows)[:m, table.symmetrised].sum(axis=1),
            junk=np.asarray(posterior.outside["junk"])[:m],
            residual=np.asarray(sums.residual),
            moments=(
                float(sums.rotation) * np.deg2rad(state.sigma_rotation_deg) ** 2,
                float(sums.shift) * sigma_shift**2,
            ),
            counted=float(sums.counted),
        )


def batches_at(
    problem: Problem,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    noise_power: Float64[np.ndarray, " shells"],
) -> Iterator[tuple[np.ndarray, ImageBatch, jax.Array, jax.Array]]:
    """Stream images at the poses of the input, under a given noise spectrum.

    Yields:
        rows, images (padded with repeats to one size, marked invalid), rotations, origins in px.
    """
    particles, split = problem.particles, problem.workers.split
    pixel = particles.optics[group].pixel_size_angstrom
    size = problem.batch_size(geometry.packing.n_pixels)
    for batch in prepared_batches(
        problem, group, rows, geometry, noise_power, problem.n_shells, size
    ):
        yield (
            batch.rows,
            batch.images,
            split(particles.rotations[batch.padded].astype(np.float32)),
            split((particles.origins_angstrom[batch.padded] / pixel).astype(np.float32)),
        )


def _poses(problem: Problem, state: State, rows, pixel: float, search: PoseSearch) -> Poses:
    picked = problem.particles.origins_angstrom
    origins = picked if search.from_picking else state.prior_origins_angstrom

    def single(values):
        return problem.workers.split(values.astype(np.float32))

    return Poses(
        rotations=single(state.rotations[rows]),
        origins_px=single(state.origins_angstrom[rows] / pixel),
        prior_rotations=single(state.prior_rotations[rows]),
        prior_origins_px=single(origins[rows] / pixel),
        mode_rotations=single(state.mode_rotations[rows]) if search.follows_modes else None,
        mode_origins_px=(
            single(state.mode_origins_angstrom[rows] / pixel) if search.follows_modes else None
        ),
    )
