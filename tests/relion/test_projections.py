"""Slices, shifts and CTF against ``relion_project``; its stacks and tables read by our readers."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.imaging import (
    ctf,
    extract_slices,
    fourier_volume,
    half_spectrum,
    pack,
    shift_phases,
    volume_radius,
)
from jaxrelax.io import ImageReader, read_particles

from .conftest import BAND, BOX, PIXEL_ANGSTROM, band_correlations, ctf_parameters


@pytest.fixture(scope="module")
def packing():
    return half_spectrum(BOX, BAND)


@pytest.fixture(scope="module")
def model(particles, true_map, packing):
    """Our slices of the true map with the particles at −origin, and our CTFs."""
    volume = fourier_volume(jnp.asarray(true_map[None]), radius=volume_radius(BAND), image_box=BOX)
    rotations = jnp.asarray(particles.rotations, jnp.float32)
    slices = extract_slices(volume, rotations, packing.wavevectors_px)[:, 0]
    origins = jnp.asarray(particles.origins_angstrom / PIXEL_ANGSTROM, jnp.float32)
    frequencies = jnp.asarray(packing.frequencies(PIXEL_ANGSTROM))
    return slices * shift_phases(-origins, packing), ctf(ctf_parameters(particles), frequencies)


@pytest.fixture(scope="module", params=["plain", "ctf"])
def projected(request, relion, data_set):
    """Whether the CTF was applied, and the particles that RELION wrote."""
    name = f"projected_{request.param}"
    option = ["--ctf"] if request.param == "ctf" else []
    relion(
        "relion_project", "--i", "truth_map.mrc", "--ang", "truth.star", "--o", name, *option,
        folder=data_set,
    )  # fmt: skip
    return request.param == "ctf", read_particles(data_set / f"{name}.star")


@pytest.fixture(scope="module")
def relions_images(projected, packing):
    reader = ImageReader(projected[1])
    reader.validate()
    return pack(jnp.asarray(reader.read(np.arange(len(reader)))), packing)


def test_every_image_correlates_with_relions_inside_the_band(
    projected, relions_images, model, packing
):
    ours = model[0] * model[1] if projected[0] else model[0]
    correlation = band_correlations(ours, relions_images, packing)
    assert correlation.min() > 0.9999


def test_images_have_relions_absolute_scale(projected, relions_images, model, packing):
    # Both take an image to be the sum of the map over z.
    ours = np.asarray(model[0] * model[1] if projected[0] else model[0])
    theirs = np.asarray(relions_images)
    for shell in range(1, BAND + 1):
        members = packing.shell == shell
        cross = np.sum((theirs * ours.conj()).real[:, members])
        assert cross / np.sum(np.abs(ours[:, members]) ** 2) == pytest.approx(1.0, abs=2e-3)


def test_the_shift_has_relions_sign(projected, relions_images, particles, model, packing):
    origins = jnp.asarray(particles.origins_angstrom / PIXEL_ANGSTROM, jnp.float32)
    wrong_way = model[0] * shift_phases(2.0 * origins, packing)
    ours = wrong_way * model[1] if projected[0] else wrong_way
    correlation = band_correlations(ours, relions_images, packing)
    far = np.linalg.norm(particles.origins_angstrom, axis=1) > 6.0
    assert correlation[far].max() < 0.9


def test_the_table_that_relion_wrote_says_what_ours_said(projected, particles):
    written = projected[1]
    # RELION prints angles with five decimals.
    np.testing.assert_allclose(written.rotations, particles.rotations, atol=1e-6)
    np.testing.assert_allclose(written.origins_angstrom, particles.origins_angstrom, atol=1e-4)
    np.testing.assert_allclose(written.defocus_u_angstrom, particles.defocus_u_angstrom, atol=0.1)
    np.testing.assert_allclose(written.phase_shift_deg, 25.0)
    np.testing.assert_array_equal(written.half_set, particles.half_set)
    np.testing.assert_array_equal(written.optics_group, particles.optics_group)
    assert written.optics == particles.optics
    np.testing.assert_array_equal(
        written.column("jrxTrueRegister"), particles.column("jrxTrueRegister")
    )
