"""Packed images: alike from disk and from the cache, and no more memory for more images."""

import tracemalloc

import jax
import numpy as np
import pytest

from jaxrelax.engine.image_source import ImageSource
from jaxrelax.engine.workers import alone
from jaxrelax.imaging import half_spectrum
from tests.refinement.conftest import TINY, DataSet

BATCH = 64


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    return DataSet(tmp_path_factory.mktemp("images"), **TINY | {"n_images": BATCH}).truth


def batches_of(number: int) -> list[np.ndarray]:
    """The last one is not full."""
    return [np.arange(i * BATCH, (i + 1) * BATCH - 7 * (i == number - 1)) for i in range(number)]


def streamed(source: ImageSource, batches: int):
    """Packed images, as a pass over them has them."""
    rows, packing = batches_of(batches), half_spectrum(32, 12)
    if source.keeps(0, packing):
        yield from source.packed(rows, 0, packing, BATCH)
        return
    pack = jax.jit(source.packing(0, packing))
    for some, images in source.padded(rows, BATCH):
        yield some, pack(images)


def source(particles, batches: int, cache_bytes: int) -> ImageSource:
    many = particles.select(np.arange(batches * BATCH) % BATCH)
    return ImageSource(
        many, [10.0], normalise=False, cache_bytes=cache_bytes,
        own=np.ones(len(many), bool), workers=alone(),
    )  # fmt: skip


def peak(particles, batches: int) -> int:
    """Bytes of arrays and objects that a pass over the images needs at most."""
    images = source(particles, batches, 0)
    for _ in streamed(images, 1):  # compiles
        pass
    tracemalloc.start()
    try:
        seen = sum(len(rows) for rows, _ in streamed(images, batches))
        assert seen == batches * BATCH - 7
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_a_pass_does_not_grow_with_the_images(particles):
    # The least of three: on a busy machine the reader may be a batch further at the peak, but
    # images that are kept are there each time.
    few, many = (min(peak(particles, batches) for _ in range(3)) for batches in (5, 60))
    image_bytes = 4 * 32**2 * BATCH
    # The rows of all batches are in memory; their images are not.
    assert many < few + 55 * 8 * BATCH + image_bytes
    assert many < 6 * image_bytes


def test_the_cache_gives_what_the_disk_gives(particles):
    disk, cached = source(particles, 3, 0), source(particles, 3, 2**30)
    for _ in range(2):
        for (rows, one), (others, other) in zip(
            streamed(disk, 3), streamed(cached, 3), strict=True
        ):
            np.testing.assert_array_equal(rows, others)
            assert one.shape[0] == BATCH
            np.testing.assert_array_equal(one[: len(rows)], other[: len(rows)])
    assert cached.keeps(0, half_spectrum(32, 12))
    assert not disk.keeps(0, half_spectrum(32, 12))


def test_only_the_current_band_is_kept(particles):
    images = source(particles, 3, 2**30)
    list(streamed(images, 3))
    assert images.keeps(0, half_spectrum(32, 10))
    assert len(images._cache) == 1
