"""Noise before any map: what the images show around their particles."""

from __future__ import annotations

from functools import partial
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jaxtyping import Float64

from jaxrelax.engine.execution import Execution
from jaxrelax.imaging import NoiseModel, background_power, white_spectrum
from jaxrelax.io import InputError

# The scale, the contrast and the first iteration all ask for it.
_MEASURED: WeakKeyDictionary[Execution, dict[tuple[int, int], np.ndarray]] = WeakKeyDictionary()


def starting_noise(
    execution: Execution, noise: NoiseModel, seed: int
) -> Float64[np.ndarray, "groups shells"]:
    """Noise spectrum per optics group from the image background, or white."""
    if noise.from_images:
        return background_spectrum(execution, seed)
    return white_spectrum(len(execution.optics), execution.shells.count)


def background_spectrum(
    execution: Execution, seed: int, at_most: int = 1000
) -> Float64[np.ndarray, "groups shells"]:
    """Spectrum per optics group of what surrounds the particles; measured once.

    Args:
        execution: images and shells.
        seed: of the sample.
        at_most: images of each optics group.
    """
    known = _MEASURED.setdefault(execution, {})
    if (seed, at_most) not in known:
        known[seed, at_most] = _measured(execution, seed, at_most)
    return known[seed, at_most].copy()


def _measured(
    execution: Execution, seed: int, at_most: int
) -> Float64[np.ndarray, "groups shells"]:
    particles, shells_ = execution.data.particles, execution.shells
    spectrum = white_spectrum(len(particles.optics), shells_.count)
    rng = np.random.default_rng((seed, 1))
    for group in range(len(particles.optics)):
        rows = np.flatnonzero(particles.optics_group == group)
        rows = execution.mine(np.sort(rng.permutation(rows)[:at_most]))
        geometry = execution.geometry(group, shells_.last, shells_.last)
        radius = execution.images.particle_radius_px[group]
        power, count = np.zeros(geometry.packing.n_pixels), 0
        measured = jax.jit(
            partial(background_power, packing=geometry.packing, particle_radius_px=radius)
        )
        batches = np.array_split(rows, max(len(rows) // 100, 1)) if len(rows) else []
        for _, images in execution.images.raw(batches):
            prepared = execution.images.normalised(images, group)
            power += np.asarray(measured(prepared)).sum(axis=0)
            count += len(images)
        power, count = execution.workers.total((power, count))
        if not count:
            continue  # none of its images could be used
        if power.sum() == 0:
            raise InputError(
                f"{particles.source}: the images of optics group "
                f"'{particles.optics[group].name}' show no noise around their particles; "
                "give the images before masking, or start from white noise (--noise white)"
            )
        shells = np.minimum(geometry.slice_shell, shells_.count - 1)
        weight = geometry.packing.multiplicity
        seen = np.bincount(shells, weight, minlength=shells_.count)
        sums = np.bincount(shells, weight * power / count, minlength=shells_.count)
        means = np.divide(sums, seen, out=np.ones_like(sums), where=seen > 0)
        last = int(np.flatnonzero(seen)[-1])
        means[last + 1 :] = means[last]
        spectrum[group] = means
    return spectrum
