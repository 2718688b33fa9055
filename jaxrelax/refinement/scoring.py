"""Images streamed through the E-step's programs, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int

from jaxrelax.engine.execution import Execution
from jaxrelax.engine.programs import PerImage, Placed, search_program
from jaxrelax.engine.streams import prepared_batches
from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry
from jaxrelax.inference import PosePrior, Poses, PoseSearch, Stats
from jaxrelax.io import InputError
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import PoseState, State


class ScoredBatch(NamedTuple):
    """A batch after the E-step.

    Attributes:
        rows: of its images.
        images: on the devices, padded; weights of the whole accumulated band.
        found: of every image, on the host, without the padding.
        placed: where they go into the map, on the devices.
        stats: sums over the batch, on the devices; offsets of poses in units of the prior.
    """

    rows: Int[np.ndarray, " m"]
    images: ImageBatch
    found: PerImage
    placed: Placed
    stats: Stats


def scored_batches(
    problem: Problem,
    state: State,
    volume: FourierVolume,
    group: int,
    rows: Int[np.ndarray, " rows"],
    geometry: ImageGeometry,
    search: PoseSearch,
    params: Mapping[str, Any] | None = None,
    instead: Float32[np.ndarray, "n places"] | None = None,
    image_prior: Float32[np.ndarray, "n rows"] | None = None,
) -> Iterator[ScoredBatch]:
    """Stream images of one optics group through a search against one volume.

    Without parameters of the latents those of the beginning are taken: every image shows the
    particle, and in one of its registers. ``instead`` are weights of places that count in place of
    the posterior; ``image_prior`` is added to the log-prior of every row of the table.
    """
    execution, plan = problem.execution, problem.plan
    workers = execution.workers
    everywhere, split = workers.everywhere, workers.split
    pixel = execution.optics[group].pixel_size_angstrom
    score = search_program(execution, geometry, search, plan.model, plan.hard)
    target = everywhere(search.prepare(volume, geometry))
    sigma_rotation, sigma_shift = prior_widths(state.poses, search)
    prior = PosePrior(
        everywhere(np.float32(np.deg2rad(sigma_rotation))),
        everywhere(np.float32(sigma_shift / pixel)),
    )
    params = everywhere(jax.device_put(plan.model.init() if params is None else params))
    # Another pass draws other poses, a resumed run the same.
    drawn = everywhere(np.array([plan.seed % 2**32, state.iterations_done], np.uint32))
    size = execution.batch_size(geometry.n_inner)
    # One program, whether the posterior counts or what is given instead of it.
    use = everywhere(np.asarray(instead is not None))
    given = split(np.zeros((size, plan.table.n_places), np.float32))
    for batch in prepared_batches(
        execution, group, rows, geometry, state.noise_power[group], state.score_shell, size
    ):
        chosen, m = batch.rows, len(batch.rows)
        poses = _poses(execution, state.poses, batch.padded, pixel, search)
        if instead is not None:
            given = split(instead[batch.padded])
        leaning = None if image_prior is None else split(image_prior[batch.padded])
        found, placed, stats = score(
            target, batch.scored, poses, prior, params, drawn,
            split(batch.padded.astype(np.int32)), given, use, leaning,
        )  # fmt: skip
        found = jax.tree.map(lambda x, m=m: np.asarray(x)[:m], found)
        _require_finite(execution, chosen, found.log_evidence)
        yield ScoredBatch(chosen, batch.images, found, placed, stats)


def prior_widths(poses: PoseState, search: PoseSearch) -> tuple[float, float]:
    """Standard deviations of the pose prior of a search: rotation (degrees), shift (Å)."""
    shift = poses.sigma_offset_angstrom if search.from_picking else poses.sigma_shift_angstrom
    return float(poses.sigma_rotation_deg), float(shift)


def _require_finite(execution: Execution, rows, log_evidence) -> None:
    lost = rows[~np.isfinite(log_evidence).all(axis=1)]
    if len(lost):
        raise InputError(
            f"{execution.images.reader.image_name(int(lost[0]))} (row {lost[0] + 1}): the "
            "likelihood is not a number; the image or its CTF is damaged. Find such images "
            "with jaxrelax.io.find_bad_images, or leave them out with --skip-bad-images"
        )


def _poses(execution: Execution, poses: PoseState, rows, pixel: float, search: PoseSearch) -> Poses:
    picked = execution.data.particles.origins_angstrom
    centres = picked if search.from_picking else poses.centre_origins_angstrom

    def single(values):
        return execution.workers.split(values.astype(np.float32))

    modes, mode_origins = None, None
    if search.follows_modes:
        assert poses.mode_rotations is not None
        assert poses.mode_origins_angstrom is not None
        modes = single(poses.mode_rotations[rows])
        mode_origins = single(poses.mode_origins_angstrom[rows] / pixel)
    return Poses(
        rotations=single(poses.rotations[rows]),
        origins_px=single(poses.origins_angstrom[rows] / pixel),
        prior_rotations=single(poses.centre_rotations[rows]),
        prior_origins_px=single(centres[rows] / pixel),
        mode_rotations=modes,
        mode_origins_px=mode_origins,
    )
