"""Preparation of the reference: box and scale."""

from __future__ import annotations

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    fourier_volume,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.inference import log_likelihood
from jaxrelax.io import InputError, read_map
from jaxrelax.refinement.background import background_spectrum
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.score_maps import slice_power
from jaxrelax.refinement.scoring import batches_at

LOG = logging.getLogger("jaxrelax")
PIXEL_TOLERANCE = 0.005
SCALE_TOLERANCE = 2.0
SCALE_SAMPLE = 500


def on_box(
    map_: Float32[np.ndarray, "n n n"],
    pixel_size_angstrom: float,
    box: int,
    target_pixel_angstrom: float,
    name: str,
) -> Float32[np.ndarray, "m m m"]:
    """A map on the images' box, resampled where only the sampling differs.

    Raises:
        InputError: the boxes differ in Å, so that resampling alone cannot match them.
    """
    n = map_.shape[0]
    edge, target = n * pixel_size_angstrom, box * target_pixel_angstrom
    if abs(edge - target) > PIXEL_TOLERANCE * target:
        raise InputError(
            f"{name}: box of {n} px at {pixel_size_angstrom:.4g} Å ({edge:.1f} Å) does not match "
            f"the images' {box} px at {target_pixel_angstrom:.4g} Å ({target:.1f} Å); crop or pad "
            "the map to that edge (relion_image_handler --new_box), or correct its pixel size"
        )
    if n == box:
        return map_
    LOG.warning("%s: resampled from %d to %d pixels", name, n, box)
    return resample_map(map_, box)


def load_on_box(path: str | Path, box: int, pixel: float) -> Float32[np.ndarray, "m m m"]:
    """Read a map and bring it on the images' box."""
    map_, map_pixel = read_map(path)
    return on_box(map_, map_pixel, box, pixel, str(path))


def matched_scale(
    problem: Problem, reference: Float32[np.ndarray, "n n n"], max_shell: int, name: str
) -> Float32[np.ndarray, "n n n"]:
    """The reference on the absolute scale of the images.

    The scale is the least-squares factor of its projections at the consensus poses, over a sample
    of images. Within a factor of two the map is left as it is: errors of the poses alone lower the
    factor.

    Raises:
        InputError: the factor is not positive: inverted contrast, or a map of something else.
    """
    low = _low(problem, reference, max_shell)
    volume = fourier_volume(low[None], radius=volume_radius(max_shell), image_box=problem.map_box)
    cross, power = 0.0, 0.0
    white = np.ones(problem.n_shells)
    rng = np.random.default_rng((problem.seed, 4))
    for group in range(len(problem.particles.optics)):
        rows = np.flatnonzero(problem.particles.optics_group == group)
        rows = np.sort(rng.permutation(rows)[: SCALE_SAMPLE // len(problem.particles.optics) + 1])
        rows = problem.mine(rows)
        geometry = problem.geometry(group, max_shell, max_shell)
        misfits = _misfits(geometry)
        for chosen, *images in batches_at(problem, group, rows, geometry, white):
            scores = np.asarray(misfits(volume, *images), np.float64)
            none, once, twice = scores[:, : len(chosen)].sum(axis=1)
            quadratic = 0.5 * (twice - 2 * once + none)
            power += quadratic
            cross += 0.5 * (none + quadratic - once)
    cross, power = problem.workers.total((cross, power))
    factor = cross / power if power > 0 else 0.0
    if factor <= 0:
        raise InputError(
            f"{name}: its projections do not match the images at the given poses (scale "
            f"{factor:.3g}); check contrast (particles must be white), pixel size and that the "
            "poses belong to this map"
        )
    return _scaled(reference, factor, name)


def _misfits(geometry: ImageGeometry):
    """Compiled ‖y − f p‖² of every image at f = 0, 1, 2, which gives ‖p‖² and ⟨y, p⟩."""

    @jax.jit
    def misfits(volume: FourierVolume, batch: ImageBatch, rotations, origins_px):
        def at(factor):
            scaled = FourierVolume(volume.values * factor, volume.radius)
            return -2.0 * log_likelihood(scaled, batch, geometry, rotations, origins_px)[0][:, 0]

        return jax.lax.map(at, jnp.arange(3, dtype=volume.values.dtype))

    return misfits


def matched_power(
    problem: Problem, reference: Float32[np.ndarray, "n n n"], max_shell: int, name: str
) -> Float32[np.ndarray, "n n n"]:
    """The reference on the absolute scale of images whose poses are not known.

    The scale is that at which its projections, at random poses and under the CTFs, have the power
    that a sample of images has beyond its background.

    Raises:
        InputError: the images have no more power than their background.
    """
    low = _low(problem, reference, max_shell)
    views = slice_power(low, problem.map_box, problem.n_shells)
    background = background_spectrum(problem)
    white = np.ones(problem.n_shells)
    rng = np.random.default_rng((problem.seed, 4))
    seen, expected = 0.0, 0.0
    for group in range(len(problem.particles.optics)):
        rows = np.flatnonzero(problem.particles.optics_group == group)
        rows = np.sort(rng.permutation(rows)[: SCALE_SAMPLE // len(problem.particles.optics) + 1])
        rows = problem.mine(rows)
        geometry = problem.geometry(group, max_shell, max_shell)
        # The zero frequency is what normalisation made of it.
        weight = geometry.packing.multiplicity * (geometry.packing.shell > 0)
        for chosen, batch, _, _ in batches_at(problem, group, rows, geometry, white):
            m = len(chosen)
            power = (
                np.abs(np.asarray(batch.data[:m])) ** 2 - background[group][geometry.slice_shell]
            )
            seen += float(np.sum(weight * power))
            ctf2 = np.asarray(batch.ctf[:m], np.float64) ** 2
            expected += float(np.sum(weight * ctf2 * views[geometry.slice_shell]))
    seen, expected = problem.workers.total((seen, expected))
    if seen <= 0 or expected <= 0:
        raise InputError(
            f"{name}: up to {problem.resolution(max_shell):.1f} Å the images have no more power "
            "than their background, so nothing can be aligned; check the particle diameter and "
            "that the images show particles"
        )
    return _scaled(reference, float(np.sqrt(seen / expected)), name)


def _low(problem: Problem, reference, max_shell: int):
    """The reference as far as it is used at first."""
    box = working_box(max_shell)
    return resample_map(reference, box) * problem.sphere(box)


def _scaled(reference, factor: float, name: str):
    if 1 / SCALE_TOLERANCE < factor < SCALE_TOLERANCE:
        return reference
    LOG.warning("%s: multiplied by %.4g to match the grey scale of the images", name, factor)
    return (reference * factor).astype(np.float32)
