"""What a pass finds of images, batch by batch, put where its expectation has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxrelax.geometry import project_to_so3
from jaxrelax.imaging import ImageGeometry
from jaxrelax.inference import Hypotheses, Stats
from jaxrelax.refinement.claims import Scores
from jaxrelax.refinement.scoring import ScoredBatch

if TYPE_CHECKING:
    from jaxrelax.refinement.expectation import Expectation


def record(table: Hypotheses, batch: ScoredBatch, pixel: float, result: Expectation) -> None:
    """Put what was found of a batch's images where it belongs."""
    rows, found = batch.rows, batch.found
    result.rotations[rows] = project_to_so3(found.rotations.astype(np.float64))
    result.origins_angstrom[rows] = pixel * found.origins_px
    result.mode_rotations[rows] = project_to_so3(found.mode_rotations.astype(np.float64))
    result.mode_origins_angstrom[rows] = pixel * found.mode_origins_px
    result.registers[rows] = found.places
    result.symmetric[rows] = found.symmetric
    result.junk[rows] = sum(found.outside.values())
    result.log_marginal[rows] = found.log_marginal
    if table.symmetrised.any():
        apart = found.log_evidence[:, ~table.symmetrised]
        alike = found.log_evidence[:, table.symmetric_row]
        one = np.logaddexp.reduce(apart, axis=1) - np.log(np.float32(apart.shape[1]))
        result.log_gain[rows] = one - alike
        # Register parts add up to nothing, so the mean of their log-evidences over that of the
        # symmetrised map is half the mean squared distance.
        below = apart.mean(axis=1) - alike
        result.nats += float(np.sum(-2.0 * below, dtype=np.float64))


def keep(scores: Scores, rows: np.ndarray, kept: Scores | None) -> None:
    """Put the scores of a batch where they belong."""
    assert kept is not None
    for array, values in zip(kept, scores, strict=True):
        array[rows] = values


def learned(
    result: Expectation,
    group: int,
    geometry: ImageGeometry,
    stats: Stats,
    prior_widths: tuple[float, float],
) -> None:
    """Add what a pass has learned from an optics group.

    Offsets of poses are in units of the prior: its standard deviations are degrees and Å.
    """
    inner, counted = geometry.inner(), float(stats.counted)
    n_shells = result.count.shape[1]
    shells = np.minimum(inner.slice_shell, n_shells - 1)
    result.residual[group] += stats.residual
    result.count[group] += counted * np.bincount(
        shells, inner.packing.multiplicity, minlength=n_shells
    )
    result.counted += counted
    result.rotation_moment_rad2 += float(stats.rotation) * np.deg2rad(prior_widths[0]) ** 2
    result.shift_moment_angstrom2 += float(stats.shift) * prior_widths[1] ** 2
    latents = jax.tree.map(np.asarray, stats.latents)
    if result.latents:
        latents = jax.tree.map(np.add, result.latents, latents)
    result.latents = latents
