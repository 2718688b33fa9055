"""Packed images, batch by batch: from disk through a reader thread, or from a bounded cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Complex64, Float, Num

from jaxrelax.engine.workers import EACH, Workers
from jaxrelax.imaging import HalfSpectrum, normalise_background, pack
from jaxrelax.imaging.chunks import equal_part, fitting
from jaxrelax.io import ImageReader, Particles, prefetch

# Temporaries of a transform, for each pixel of an image.
PIXEL_BYTES = 24

_normalised = jax.jit(normalise_background, static_argnums=1)


class ImageSource:
    """Streams the packed band of images; keeps it in memory while that fits a budget.

    Args:
        particles: the table; its stacks are opened and validated here.
        particle_radius_px: per optics group, for normalisation.
        normalise: bring each image's background to mean 0 and standard deviation 1; for all
            optics groups, or each.
        cache_bytes: packed bands up to this size are kept between passes.
        own: rows of this process, the only ones that are asked for.
        workers: devices that pack the images.
    """

    def __init__(
        self,
        particles: Particles,
        particle_radius_px: list[float],
        normalise: bool | Sequence[bool],
        cache_bytes: int,
        own: Bool[np.ndarray, " n"],
        workers: Workers,
    ):
        self.particles = particles
        self.reader = ImageReader(particles)
        self.reader.validate()
        self.particle_radius_px = particle_radius_px
        groups = len(particles.optics)
        self.normalise = (normalise,) * groups if isinstance(normalise, bool) else tuple(normalise)
        self.cache_bytes = cache_bytes
        self.own = own
        self.workers = workers
        self._place_in_group = np.empty(len(particles), int)
        for group in range(len(particles.optics)):
            rows = np.flatnonzero(own & (particles.optics_group == group))
            self._place_in_group[rows] = np.arange(len(rows))
        self._cache: dict[tuple[int, int, int], np.ndarray] = {}
        self._filled: dict[tuple[int, int, int], np.ndarray] = {}
        self._pack: dict[tuple[int, int, int], Callable] = {}

    def raw(self, batches: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each batch: rows, images (rows, y, x) as they are on disk, read one batch ahead."""
        return prefetch(self.reader, batches)

    def normalised(
        self, images: Num[np.ndarray, "rows y x"], group: int
    ) -> Float[Array, "rows y x"]:
        """Images with their background normalised, where that of their group is to be."""
        images_ = jax.device_put(images).astype(np.float32)
        if self.normalise[group]:
            return _normalised(images_, self.particle_radius_px[group])
        return images_

    def keeps(self, group: int, packing: HalfSpectrum) -> bool:
        """Whether the packed band of a group is kept between passes."""
        return self._cache_for((group, packing.max_shell, packing.n_inner), packing) is not None

    def padded(
        self, batches: list[np.ndarray], size: int
    ) -> Iterator[tuple[np.ndarray, Num[np.ndarray, "size y x"]]]:
        """For each batch: rows, and ``size`` images as they are on disk, the last one repeated.

        ``size`` is that of the largest batch of all calls, so that what is made of the images
        compiles once.
        """
        for rows, images in self.raw(batches):
            repeats = ((0, size - len(rows)), (0, 0), (0, 0))
            yield rows, np.pad(images, repeats, mode="edge") if len(rows) < size else images

    def packed(
        self, batches: list[np.ndarray], group: int, packing: HalfSpectrum, size: int
    ) -> Iterator[tuple[np.ndarray, Complex64[np.ndarray, "size freq"]]]:
        """For each batch of rows of one optics group: rows, and ``size`` packed images.

        They are kept; see :meth:`keeps`.
        """
        key = (group, packing.max_shell, packing.n_inner)
        cache, filled = self._cache[key], self._filled[key]
        place = self._place_in_group
        if all(filled[place[rows]].all() for rows in batches):
            for rows in batches:
                repeated = np.pad(place[rows], (0, size - len(rows)), mode="edge")
                yield rows, cache[repeated]
            return
        if key not in self._pack:
            self._pack[key] = self.workers.program(self.packing(group, packing), (EACH,), EACH)
        for rows, images in self.padded(batches, size):
            values = np.asarray(self._pack[key](self.workers.split(images)))
            del images  # not held while the batch is worked on
            cache[place[rows]] = values[: len(rows)]
            filled[place[rows]] = True
            yield rows, values

    def packing(
        self, group: int, packing: HalfSpectrum
    ) -> Callable[[Num[Array, "size y x"]], Complex[Array, "size freq"]]:
        """What makes packed images of those on disk; to be part of a program.

        Some images at a time: a batch is far larger than the cache, and transforms of all of it at
        once wait for memory.
        """
        # Not the source itself: programs outlive it.
        normalise, radius = self.normalise[group], self.particle_radius_px[group]

        def some(images):
            images = images.astype(jnp.float32)
            if normalise:
                images = normalise_background(images, radius)
            return pack(images, packing)

        def packed(images):
            n, *shape = images.shape
            size = equal_part(n, fitting(PIXEL_BYTES * math.prod(shape)))
            return jax.lax.map(some, images.reshape(-1, size, *shape)).reshape(n, -1)

        return packed

    def _cache_for(self, key, packing):
        if key not in self._cache:
            n = int(np.sum(self.own & (self.particles.optics_group == key[0])))
            # Only the current band of each group is worth keeping.
            for old in [k for k in self._cache if k[0] == key[0]]:
                del self._cache[old], self._filled[old]
            others = sum(array.nbytes for array in self._cache.values())
            if 8 * n * packing.n_pixels + others > self.cache_bytes:
                return None
            self._cache[key] = np.empty((n, packing.n_pixels), np.complex64)
            self._filled[key] = np.zeros(n, bool)
        return self._cache[key]
