"""Packed images, batch by batch: from disk through a reader thread, or from a bounded cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from jaxrelax.imaging import HalfSpectrum, normalise_background, pack
from jaxrelax.io import ImageReader, Particles, prefetch
from jaxrelax.refinement.workers import EACH, Workers

_normalised = jax.jit(normalise_background, static_argnums=1)


class ImageSource:
    """Streams the packed band of images; keeps it in memory while that fits a budget.

    Args:
        particles: the table; its stacks are opened and validated here.
        particle_radius_px: per optics group, for normalisation.
        normalise: bring each image's background to mean 0 and standard deviation 1.
        cache_bytes: packed bands up to this size are kept between passes.
        own: rows of this process, the only ones that are asked for.
        workers: devices that pack the images.
    """

    def __init__(
        self,
        particles: Particles,
        particle_radius_px: list[float],
        normalise: bool,
        cache_bytes: int,
        own: Bool[np.ndarray, " n"],
        workers: Workers,
    ):
        self.particles = particles
        self.reader = ImageReader(particles)
        self.reader.validate()
        self.particle_radius_px = particle_radius_px
        self.normalise = normalise
        self.cache_bytes = cache_bytes
        self.own = own
        self.workers = workers
        self._place_in_group = np.empty(len(particles), int)
        for group in range(len(particles.optics)):
            rows = np.flatnonzero(own & (particles.optics_group == group))
            self._place_in_group[rows] = np.arange(len(rows))
        self._cache: dict[tuple[int, int, int], np.ndarray] = {}
        self._filled: dict[tuple[int, int, int], np.ndarray] = {}
        self._prepare: dict[tuple[int, int, int], Callable] = {}

    def raw(self, batches: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each batch: rows, images (rows, y, x) as they are on disk, read one batch ahead."""
        return prefetch(self.reader, batches)

    def normalised(
        self, images: Float32[np.ndarray, "rows y x"], group: int
    ) -> Float[Array, "rows y x"]:
        """Images with their background normalised, if that was asked for."""
        images_ = jax.device_put(images)
        if self.normalise:
            return _normalised(images_, self.particle_radius_px[group])
        return images_

    def packed(
        self, batches: list[np.ndarray], group: int, packing: HalfSpectrum, size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each batch of rows of one optics group: rows, packed images (rows, freq).

        ``size`` is that of the largest batch of all calls, so that the preparation compiles once.
        """
        key = (group, packing.max_shell, packing.n_inner)
        cache = self._cache_for(key, packing)
        place = self._place_in_group
        if cache is not None and all(self._filled[key][place[rows]].all() for rows in batches):
            for rows in batches:
                yield rows, cache[place[rows]]
            return
        prepare = self._preparation(group, packing)
        for rows, images in self.raw(batches):
            if len(rows) < size:
                images = np.pad(images, ((0, size - len(rows)), (0, 0), (0, 0)), mode="edge")
            packed = np.asarray(prepare(self.workers.split(images)))[: len(rows)]
            del images  # not held while the batch is worked on
            if cache is not None:
                cache[place[rows]] = packed
                self._filled[key][place[rows]] = True
            yield rows, packed

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

    def _preparation(self, group, packing):
        key = (group, packing.max_shell, packing.n_inner)
        if key not in self._prepare:
            radius = self.particle_radius_px[group]

            def prepare(images):
                if self.normalise:
                    images = normalise_background(images, radius)
                return pack(images, packing)

            self._prepare[key] = self.workers.program(prepare, (EACH,), EACH)
        return self._prepare[key]
