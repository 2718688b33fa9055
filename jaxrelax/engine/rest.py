"""The rest of a particle of which a part is refined: its projections are taken from the images.

An image shows the part and the rest at poses of their own. That of the rest is held, and so what
it adds to the image is known: the likelihood of the part is that of what is left. As everywhere, no
image is compared with a map that it is in: what is taken from it is made of the other folds of its
half-set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32, Float64, Int

from jaxrelax.arrays import AnyArray
from jaxrelax.engine.program_cache import cached_program
from jaxrelax.engine.workers import ALL, EACH, Workers
from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    extract_slices,
    fourier_volume,
    resample_map,
    shift_phases,
    volume_radius,
    working_box,
)
from jaxrelax.imaging.chunks import equal_part, fitting

if TYPE_CHECKING:
    from jaxrelax.engine.execution import Execution

# Numbers that a projection and its image hold for a pixel.
NUMBERS = 16


@dataclass(frozen=True, eq=False)
class Rest:
    """What surrounds the part, and how images show it.

    Attributes:
        maps: on the absolute scale of the images, of every half-set without each of its folds.
        pixel_size_angstrom: of the maps.
        rotations, origins_angstrom: poses of the maps, of every image.
    """

    maps: Float32[np.ndarray, "2 folds b b b"]
    pixel_size_angstrom: float
    rotations: Float64[np.ndarray, "n 3 3"]
    origins_angstrom: Float64[np.ndarray, "n 2"]
    # Of each half-set the last one: (fold, last shell), volume.
    _volumes: dict[int, tuple[tuple[int, int], FourierVolume]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def edge_angstrom(self) -> float:
        """Edge of the maps' box in Å."""
        return self.maps.shape[-1] * self.pixel_size_angstrom

    def volume(self, half: int, fold: int, max_shell: int, workers: Workers) -> FourierVolume:
        """The transform, on the devices, that images of a half-set (0 or 1) and fold show."""
        known = self._volumes.get(half)
        if known is not None and known[0] == (fold, max_shell):
            return known[1]
        self._volumes.pop(half, None)  # not held while the next one is made
        box = self.maps.shape[-1]
        map_ = resample_map(self.maps[half, fold], min(working_box(max_shell), box))
        made = fourier_volume(map_[None], radius=volume_radius(max_shell), image_box=box)
        made = workers.everywhere(made)
        self._volumes[half] = ((fold, max_shell), made)
        return made


def by_side(execution: Execution, rows: Int[np.ndarray, " rows"]) -> list[Int[np.ndarray, " some"]]:
    """The rows of each half-set and fold, which show the same rest; without one all of them."""
    if execution.rest is None:
        return [rows]
    data = execution.data
    sides = np.stack([data.half_set[rows], data.fold[rows]], axis=1)
    kinds, number = np.unique(sides, axis=0, return_inverse=True)
    return [rows[number.reshape(-1) == k] for k in range(len(kinds))]


def without_rest(
    execution: Execution,
    group: int,
    geometry: ImageGeometry,
    padded: Int[np.ndarray, " size"],
    scored: ImageBatch,
    images: ImageBatch,
) -> tuple[ImageBatch, ImageBatch]:
    """A batch, in its scored and its whole band, without what the rest adds to it.

    Args:
        execution: has the rest.
        group: optics group of the images.
        geometry: of the images.
        padded: their rows, of one half-set and fold.
        scored, images: as they were prepared.
    """
    rest, data, workers = execution.rest, execution.data, execution.workers
    assert rest is not None
    pixel = execution.optics[group].pixel_size_angstrom
    ratio = rest.edge_angstrom / execution.shells.edge_angstrom
    longest = float(np.sqrt(np.max(np.sum(geometry.slice_wavevectors**2, axis=1))))
    volume = rest.volume(
        int(data.half_set[padded[0]]) - 1, int(data.fold[padded[0]]),
        max(math.ceil(ratio * longest - 0.5), 1), workers,
    )  # fmt: skip
    program = cached_program(
        lambda: _program(geometry, ratio, workers), "without rest", geometry, ratio, workers
    )
    left = program(
        volume, images.data, images.ctf,
        workers.split(rest.rotations[padded].astype(np.float32)),
        workers.split((rest.origins_angstrom[padded] / pixel).astype(np.float32)),
    )  # fmt: skip
    inner = left[:, : geometry.n_inner]  # the scored band comes first
    return (
        ImageBatch(inner, scored.ctf, scored.weights, scored.valid),
        ImageBatch(left, images.ctf, images.weights, images.valid),
    )


def _program(geometry: ImageGeometry, ratio: float, workers: Workers):
    def left_of_all(volume, data, ctf, rotations, origins_px):
        n = len(data)
        size = equal_part(n, fitting(4 * NUMBERS * data.shape[1]))

        def some(part):
            return residual(volume, part[0], part[1], part[2], part[3], geometry, ratio)

        parts = jax.tree.map(
            lambda x: x.reshape(-1, size, *x.shape[1:]), (data, ctf, rotations, origins_px)
        )
        return jax.lax.map(some, parts).reshape(n, -1)

    return workers.program(left_of_all, (ALL, EACH, EACH, EACH, EACH), EACH)


def residual(
    volume: FourierVolume,
    data: Complex[AnyArray, "batch freq"],
    ctf: Float[AnyArray, "batch freq"],
    rotations: Float[AnyArray, "batch 3 3"],
    origins_px: Float[AnyArray, "batch 2"],
    geometry: ImageGeometry,
    ratio: float,
) -> Complex[Array, "batch freq"]:
    """Packed images less the projections of a map under their CTFs.

    Args:
        volume: of one map.
        data, ctf: of the images, as in :class:`jaxrelax.imaging.ImageBatch`.
        rotations, origins_px: poses of the map.
        geometry: of the images, on the grid of the map that is refined.
        ratio: edge of the volume's map over that one's.
    """
    slices = extract_slices(volume, rotations, geometry.slice_wavevectors * np.float32(ratio))
    # The CTF has the factor of the map that is refined: a ratio of edges, see `image_geometry`.
    shown = slices[:, 0] * ctf * np.float32(ratio)
    return jnp.asarray(data) - shown * shift_phases(-origins_px, geometry.packing)
