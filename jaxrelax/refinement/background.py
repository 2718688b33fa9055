"""Noise before any map: what the images show around their particles."""

from __future__ import annotations

from functools import partial
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jaxtyping import Float64

from jaxrelax.imaging import background_power, white_spectrum
from jaxrelax.io import InputError
from jaxrelax.refinement.problem import Problem

# The scale, the contrast and the first iteration all ask for it.
_MEASURED: WeakKeyDictionary[Problem, dict[int, np.ndarray]] = WeakKeyDictionary()


def starting_noise(problem: Problem) -> Float64[np.ndarray, "groups shells"]:
    """Noise spectrum per optics group from the image background, or white."""
    if problem.noise.from_images:
        return background_spectrum(problem)
    return white_spectrum(len(problem.particles.optics), problem.n_shells)


def background_spectrum(
    problem: Problem, at_most: int = 1000
) -> Float64[np.ndarray, "groups shells"]:
    """Spectrum per optics group of what surrounds the particles; measured once."""
    known = _MEASURED.setdefault(problem, {})
    if at_most not in known:
        known[at_most] = _measured(problem, at_most)
    return known[at_most].copy()


def _measured(problem: Problem, at_most: int) -> Float64[np.ndarray, "groups shells"]:
    spectrum = white_spectrum(len(problem.particles.optics), problem.n_shells)
    rng = np.random.default_rng((problem.seed, 1))
    for group in range(len(problem.particles.optics)):
        rows = np.flatnonzero(problem.particles.optics_group == group)
        rows = problem.mine(np.sort(rng.permutation(rows)[:at_most]))
        geometry = problem.geometry(group, problem.last_shell, problem.last_shell)
        radius = problem.images.particle_radius_px[group]
        power, count = np.zeros(geometry.packing.n_pixels), 0
        measured = jax.jit(
            partial(background_power, packing=geometry.packing, particle_radius_px=radius)
        )
        batches = np.array_split(rows, max(len(rows) // 100, 1)) if len(rows) else []
        for _, images in problem.images.raw(batches):
            prepared = problem.images.normalised(images, group)
            power += np.asarray(measured(prepared)).sum(axis=0)
            count += len(images)
        power, count = problem.workers.total((power, count))
        if not count:
            continue  # none of its images could be used
        if power.sum() == 0:
            raise InputError(
                f"{problem.particles.source}: the images of optics group "
                f"'{problem.particles.optics[group].name}' show no noise around their particles; "
                "give the images before masking, or start from white noise (--noise white)"
            )
        shells = np.minimum(geometry.slice_shell, problem.n_shells - 1)
        weight = geometry.packing.multiplicity
        seen = np.bincount(shells, weight, minlength=problem.n_shells)
        sums = np.bincount(shells, weight * power / count, minlength=problem.n_shells)
        means = np.divide(sums, seen, out=np.ones_like(sums), where=seen > 0)
        last = int(np.flatnonzero(seen)[-1])
        means[last + 1 :] = means[last]
        spectrum[group] = means
    return spectrum
