"""Statistics of every image, and what is decided from them."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.engine.workers import alone
from jaxrelax.imaging import background_statistics, normalise_background
from jaxrelax.io import ImageReader, InputError, read_particles
from jaxrelax.io.mrc import write_stack
from jaxrelax.refinement.image_statistics import measured, usable_images
from tests.refinement.conftest import TINY, DataSet

N, BOX, PIXEL, DIAMETER = 240, 32, 7.0, 140.0


@pytest.fixture
def tiny(tmp_path):
    """A function: the particles, with some images changed."""
    data = DataSet(tmp_path / "data", **TINY)
    images = ImageReader(read_particles(data.star)).read(np.arange(N))

    def changed(rows, change):
        altered = images.copy()
        altered[rows] = change(altered[rows])
        particles = read_particles(data.star)
        write_stack(particles.stack_paths[0], altered, PIXEL)
        return particles

    return changed


def usable(particles, normalise="auto", skip_bad: bool | None = False):
    rows, normalised = usable_images(particles, DIAMETER, normalise, skip_bad, alone())
    return particles.select(rows), normalised


def test_statistics_of_the_background():
    rng = np.random.default_rng(0)
    images = (4.0 + 2.0 * rng.standard_normal((3, BOX, BOX))).astype(np.float32)
    images[1, 16, 16] = 1e6  # inside
    images[2, 0, 0] = -1e6  # outside
    x = np.arange(BOX) - BOX // 2
    outside = np.hypot(x[:, None], x) > 10
    found = background_statistics(jnp.asarray(images), 10.0)
    for i in (0, 1):
        assert found.mean[i] == pytest.approx(images[i][outside].mean(), rel=1e-4)
        assert found.deviation[i] == pytest.approx(images[i][outside].std(), rel=1e-4)
    assert 2 < found.peak[0] < 6
    assert found.peak[1] == pytest.approx(5e5, rel=0.2)
    assert found.peak[2] == pytest.approx(5e5, rel=0.2)
    np.testing.assert_allclose(found.spread, np.ptp(images, axis=(1, 2)), rtol=1e-6)
    images[0, 3, 3] = np.nan
    images[1, 3, 3] = -np.inf
    assert np.isnan(np.asarray(background_statistics(jnp.asarray(images), 10.0).spread)[:2]).all()


def test_raw_values_keep_their_precision():
    rng = np.random.default_rng(0)
    images = (30000.0 + rng.standard_normal((4, BOX, BOX))).astype(np.float32)
    found = background_statistics(jnp.asarray(images), 10.0)
    np.testing.assert_allclose(found.deviation, 1.0, atol=0.1)
    seen = np.asarray(normalise_background(jnp.asarray(images), 10.0))
    np.testing.assert_allclose(seen.std(axis=(1, 2)), 1.0, atol=0.1)


def test_a_plane_is_taken_from_images():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, BOX, BOX)).astype(np.float32)
    x = np.linspace(-1, 1, BOX, dtype=np.float32)
    tilted = 20 * images + 70 * x[None, :, None] - 40 * x[None, None] + 300
    np.testing.assert_allclose(
        normalise_background(jnp.asarray(tilted), 10.0),
        normalise_background(jnp.asarray(images), 10.0),
        atol=1e-4,
    )
    outside = np.hypot(np.arange(BOX)[:, None] - 16, np.arange(BOX) - 16) > 10
    seen = np.asarray(normalise_background(jnp.asarray(images), 10.0))[:, outside]
    np.testing.assert_allclose(seen.mean(axis=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(seen.std(axis=1), 1.0, atol=1e-5)


def test_every_image_is_measured(tiny):
    rows = np.arange(N) == N - 1
    found = measured(tiny(rows, lambda x: 3 * x + 7), DIAMETER, alone())
    assert len(found.mean) == N
    assert found.mean[-1] == pytest.approx(7.0, abs=0.5)
    assert found.far_off.tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("number", "change", "expected"),
    [
        (0, lambda x: x, False),
        (N, lambda x: 1.1 * x + 0.1, False),
        (N, lambda x: 1.3 * x, True),
        (3, lambda x: 100 * x, True),
        (1, lambda x: 100 * x, True),
        (1, lambda x: 0.1 * x, False),
        (12, lambda x: 0.1 * x, True),
        (12, lambda x: x + 1, True),
    ],
)
def test_a_group_is_normalised_for_what_its_images_do_to_it(tiny, number, change, expected):
    rows = np.arange(N) < number
    particles = tiny(rows, change)
    assert usable(particles)[1] == (expected,)
    assert usable(particles, "yes")[1] == (True,)
    assert usable(particles, "no")[1] == (False,)


def test_images_that_cannot_be_used(tiny):
    def spoil(images):
        images[0] = 1.0
        images[1, 3, 3] = np.nan
        images[2, 3, 3] = 1e5
        return images

    particles = tiny(np.arange(N) < 3, spoil)
    with pytest.raises(InputError, match=r"3 of 240 images cannot be used: .*skip-bad-images"):
        usable(particles)
    with pytest.raises(InputError, match=r"Remove these rows\.$"):
        usable(particles, skip_bad=None)
    kept, normalised = usable(particles, skip_bad=True)
    assert kept.image_index.tolist() == list(range(3, N))
    assert normalised == (False,)


def test_masked_images_will_do_where_nobody_normalises_them(tiny):
    x = np.arange(BOX) - BOX // 2
    circle = np.hypot(x[:, None], x) < 12
    particles = tiny(np.ones(N, bool), lambda images: images * circle)
    with pytest.raises(InputError, match="masked"):
        usable(particles)
    assert len(usable(particles, "no")[0]) == N
