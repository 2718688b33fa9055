"""Reconstruction from given poses: what ``relion_reconstruct`` does, with our half of the loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Int

from jaxrelax.engine.data import Data
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.streams import batches_at
from jaxrelax.geometry import parse_group
from jaxrelax.imaging import (
    Shells,
    resample_map,
    volume_radius,
    white_spectrum,
    working_box,
)
from jaxrelax.io import InputError, Particles, find_units
from jaxrelax.reconstruction import (
    Accumulator,
    Candidates,
    accumulate,
    completed,
    empty_accumulator,
    wiener_map,
)
from jaxrelax.refinement.splits import whole_half_sets


def random_registers(
    particles: Particles, group: str, seed: int
) -> tuple[Particles, Int[np.ndarray, " n"]]:
    """Particles distributed at random over the register mates of their poses.

    Returns:
        the particles with poses ``A gᵀ``, and the index of g drawn for each.

    Raises:
        InputError: unknown group.
    """
    operators = _operators(group)
    drawn = np.random.default_rng(seed).integers(len(operators), size=len(particles))
    rotations = particles.rotations @ operators[drawn].transpose(0, 2, 1)
    return particles.with_updates(rotations=rotations), drawn


def reconstruct(
    particles: Particles,
    *,
    symmetry: str = "C1",
    half: int | None = None,
    max_resolution: float | None = None,
    cache_gib: float = 0.0,
    on_batch=None,
) -> tuple[Float32[np.ndarray, "n n n"], float]:
    """Map of particles at their given poses: CTF-corrected, without noise weighting or prior.

    Args:
        particles: poses, origins, CTF and images.
        symmetry: group whose mates of every pose are all inserted.
        half: use only this half-set (1 or 2); an image that the table has on both sides is put on
            one, with a warning.
        max_resolution: leave out frequencies beyond this, in Å.
        cache_gib: memory for packed images.
        on_batch: called with the number of images done.

    Returns:
        the map on the box of the first optics group, and its pixel size in Å.

    Raises:
        InputError: no images, no such half-set, unknown group.
    """
    operators = _operators(symmetry)
    if half is not None:
        if half not in (1, 2):
            raise InputError(f"half-sets are 1 and 2, not {half}")
        # The same draw for both, so that they are the two sides of one split.
        halves = whole_half_sets(particles, find_units(particles), np.random.default_rng(0))
        particles = particles.select(halves == half)
    if len(particles) == 0:
        raise InputError(f"{particles.source}: no particles to reconstruct from")
    optics = particles.optics[0]
    data = Data.undivided(particles)
    pixel = optics.pixel_size_angstrom
    shells = Shells(optics.box, pixel, data.last_shell(optics.box, pixel))
    execution = Execution(
        data, shells, channels=2, particle_diameter_angstrom=shells.edge_angstrom,
        cache_bytes=int(cache_gib * 2**30),
    )  # fmt: skip
    last = shells.last if max_resolution is None else shells.at(max_resolution)
    accumulator = back_project(execution, last, operators, on_batch)
    solved = wiener_map(
        accumulator, jnp.zeros(last + 1), box=working_box(last), image_box=shells.box
    )
    return np.asarray(resample_map(np.asarray(solved), shells.box)), optics.pixel_size_angstrom


def back_project(
    execution: Execution, max_shell: int, operators: Float64[np.ndarray, "g 3 3"], on_batch=None
) -> Accumulator:
    """Accumulate every image at all mates of its pose, under white noise."""
    accumulator = empty_accumulator(volume_radius(max_shell))
    noise = white_spectrum(len(execution.optics), execution.shells.count)
    mates = operators.transpose(0, 2, 1).astype(np.float32)
    for group, rows in execution.data.batches(1, None):
        geometry = execution.geometry(group, max_shell, max_shell)
        add = jax.jit(
            lambda acc, images, candidates, geometry=geometry: accumulate(
                acc, images, geometry, candidates
            ),
            donate_argnums=0,
        )
        for chosen, images, rotations, origins in batches_at(
            execution, group, rows, geometry, noise[group]
        ):
            size = rotations.shape[0]
            for mate in mates:
                candidates = Candidates(
                    row=jnp.arange(size),
                    rotations=rotations @ mate,
                    origins_px=origins,
                    weight=jax.device_put((np.arange(size) < len(chosen)).astype(np.float32)),
                )
                accumulator = add(accumulator, images, candidates)
            if on_batch is not None:
                on_batch(len(chosen))
    return completed(accumulator)


def _operators(symmetry: str) -> Float64[np.ndarray, "g 3 3"]:
    try:
        return parse_group(symmetry).operators
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
