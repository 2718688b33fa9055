"""The noise has its spectrum, variance one, and no hidden symmetry."""

import numpy as np
import pytest

from jaxrelax.simulate.noise import CORNER_ANGSTROM, coloured_noise, noise_amplitude

BOX, PIXEL = 64, 3.0


def power(colour, n=200):
    rng = np.random.default_rng(0)
    amplitude = noise_amplitude(BOX, PIXEL, colour)
    images = np.stack([coloured_noise(rng, amplitude) for _ in range(n)])
    return images, np.mean(np.abs(np.fft.rfft2(images)) ** 2, axis=0) / BOX**2, amplitude


@pytest.mark.parametrize("colour", [0.0, 1.0, 4.0])
def test_spectrum_and_variance(colour):
    images, spectrum, amplitude = power(colour)
    assert np.var(images) == pytest.approx(1.0, rel=0.02)
    assert np.mean(spectrum / amplitude**2) == pytest.approx(1.0, abs=0.01)
    assert np.std(spectrum / amplitude**2) < 1.5 / np.sqrt(200)


def test_white_is_white():
    assert np.allclose(noise_amplitude(BOX, PIXEL, 0.0), 1.0)


def test_colour_is_the_excess_at_low_resolution():
    amplitude = noise_amplitude(256, PIXEL, 3.0)
    corner = amplitude[0, round(256 * PIXEL / CORNER_ANGSTROM)]
    floor = amplitude[0, 0] / 4.0
    assert corner == pytest.approx(2.5 * floor, rel=0.05)


def test_isotropic():
    amplitude = noise_amplitude(BOX, PIXEL, 2.0)
    assert np.array_equal(amplitude[: BOX // 2 + 1, 0], amplitude[0])


def test_not_centro_symmetric():
    images, _, _ = power(1.0)
    inner = images[:, 1:, 1:]
    inverted = inner[:, ::-1, ::-1]
    # Neighbouring pixels of coloured noise correlate, which widens the error a little.
    assert abs(np.mean(inner * inverted)) < 0.01
    assert np.isrealobj(images)
