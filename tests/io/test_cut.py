"""Windows at whole pixels, inside images and beyond them."""

import numpy as np
import pytest

from jaxrelax.io.cut import cut_images, reaches_beyond

IMAGE = np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("box", [8, 12, 16, 24])
@pytest.mark.parametrize("offset", [(0, 0), (3, -2), (-6, 5), (30, 0)])
def test_pixels_are_those_of_the_image_or_the_mean_of_its_background(box, offset):
    (window,) = cut_images(IMAGE, np.array([offset]), box)
    background = [
        IMAGE[0, y, x] for y in range(16) for x in range(16) if (y - 8) ** 2 + (x - 8) ** 2 >= 64
    ]
    outside = 0
    for y in range(box):
        for x in range(box):
            there = y - box // 2 + 8 + offset[1], x - box // 2 + 8 + offset[0]
            inside = all(0 <= one < 16 for one in there)
            outside += not inside
            expected = IMAGE[0][there] if inside else np.mean(background)
            assert window[y, x] == pytest.approx(expected, abs=1e-6)
    assert reaches_beyond(np.array([16]), box, np.array([offset])) == [outside > 0]


def test_the_particle_is_at_the_centre_of_its_window():
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 13, 6] = 1.0  # at (−4, +3), so its origin is (4, −3)
    (window,) = cut_images(image, np.array([[-4, 3]]), 10)
    assert window[5, 5] == 1.0
