"""Packing: exact inverse, Parseval with multiplicities, shifts, prefix bands."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.imaging import half_spectrum, pack, shift_phases, unpack


@pytest.fixture
def image():
    return np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)


def test_round_trip_of_a_band_limited_image(image):
    packing = half_spectrum(32, 12, 7)
    band_limited = unpack(pack(jnp.asarray(image), packing), packing)
    again = unpack(pack(band_limited, packing), packing)
    np.testing.assert_allclose(again, band_limited, atol=2e-6)


def test_matches_numpy_fft_about_the_centre(image):
    packing = half_spectrum(32, 15)
    spectrum = np.fft.fft2(np.fft.ifftshift(image, axes=(1, 2)).astype(np.float64)) / 32
    kx, ky = packing.wavevectors_px.astype(int).T
    np.testing.assert_allclose(
        pack(jnp.asarray(image), packing), spectrum[:, ky % 32, kx], atol=1e-5
    )


def test_multiplicities_give_parseval(image):
    packing = half_spectrum(32, 12)
    band = unpack(pack(jnp.asarray(image), packing), packing)
    power = (packing.multiplicity * np.abs(pack(band, packing)) ** 2).sum(axis=1)
    np.testing.assert_allclose(power, (np.asarray(band) ** 2).sum(axis=(1, 2)), rtol=1e-5)


def test_inner_band_is_a_prefix():
    packing = half_spectrum(32, 12, 7)
    assert (packing.shell[: packing.n_inner] <= 7).all()
    assert (packing.shell[packing.n_inner :] > 7).all()
    assert packing.inner().n_pixels == packing.n_inner
    assert set(map(tuple, packing.inner().wavevectors_px)) == set(
        map(tuple, half_spectrum(32, 7).wavevectors_px)
    )


def test_phases_shift_the_image_by_plus_t(image):
    packing = half_spectrum(32, 15)
    band = unpack(pack(jnp.asarray(image), packing), packing)
    moved = pack(band, packing) * shift_phases(jnp.asarray([[3.0, -2.0]] * 3), packing)
    expected = np.roll(np.asarray(band), (3, -2), axis=(2, 1))  # x by +3, y by −2
    np.testing.assert_allclose(unpack(moved, packing), expected, atol=3e-6)


@pytest.mark.parametrize(("box", "shell"), [(31, 5), (32, 16), (32, 0)])
def test_refuses_odd_boxes_and_shells_outside(box, shell):
    with pytest.raises(ValueError, match=r"even boxes|max_shell"):
        half_spectrum(box, shell)
