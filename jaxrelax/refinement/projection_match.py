"""Scalar products of images with the projections of one map, at the poses of the input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Float64, Int

from jaxrelax.engine.execution import Execution
from jaxrelax.engine.programs import misfit_program
from jaxrelax.engine.streams import batches_at
from jaxrelax.imaging import fourier_volume, resample_map, volume_radius, working_box
from jaxrelax.reconstruction import Particle


def low_passed(
    particle: Particle, reference: Float32[np.ndarray, "n n n"], max_shell: int
) -> Float32[np.ndarray, "b b b"]:
    """The reference as far as it is used at first, inside the particle's sphere."""
    box = working_box(max_shell)
    return np.asarray(resample_map(reference, box) * particle.sphere(box))


def matches(
    execution: Execution,
    low: Float32[np.ndarray, "b b b"],
    group: int,
    rows: Int[np.ndarray, " rows"],
    max_shell: int,
    noise_power: Float64[np.ndarray, " shells"],
) -> Iterator[tuple[np.ndarray, Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]]:
    """For each batch of some images of an optics group: rows, ⟨y, p⟩ and ⟨p, p⟩.

    y is the image, p the projection of the map at its pose under its CTF, and the product that of
    the likelihood up to ``max_shell``: under the right noise spectrum the noise of ⟨y, p⟩ has
    variance ⟨p, p⟩.
    """
    volume = fourier_volume(
        low[None], radius=volume_radius(max_shell), image_box=execution.shells.box
    )
    geometry = execution.geometry(group, max_shell, max_shell)
    misfits = misfit_program(geometry)
    for chosen, *images in batches_at(execution, group, rows, geometry, noise_power):
        scores = np.asarray(misfits(volume, *images), np.float64)
        none, once, twice = scores[:, : len(chosen)]
        power = 0.5 * (twice - 2 * once + none)
        yield chosen, 0.5 * (none + power - once), power
