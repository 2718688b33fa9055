"""Projections and maps of points against sums of analytic Gaussians, and their centre."""

import numpy as np
import pytest

from jaxrelax.geometry import euler_to_matrix, point_group
from jaxrelax.simulate.atoms import BODY, Atoms, FormFactors
from jaxrelax.simulate.phantom import phantom_atoms
from jaxrelax.simulate.projection import Projector
from jaxrelax.simulate.specimen import voxels

BOX, PIXEL = 48, 2.5


def some_atoms(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return Atoms(
        positions_angstrom=rng.uniform(-30, 30, (n, 3)),
        weights=rng.uniform(0.5, 1.0, n),
        kinds=rng.integers(0, 2, n),
        masses_dalton=np.ones(n),
        sites=np.full(n, BODY),
        form_factors=FormFactors(
            np.array([[1.0, 0.5], [2.0, 0.3]]), np.array([[40.0, 8.0], [25.0, 60.0]])
        ),
    )


def analytic_image(atoms, pose, bfactor):
    """Σ of the projections of the atoms' Gaussians, evaluated at the pixels."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    xy = atoms.positions_angstrom @ pose[:2].T
    image = np.zeros((BOX, BOX))
    for (x, y), w, kind in zip(xy, atoms.weights, atoms.kinds, strict=True):
        d2 = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
        for a, b in zip(atoms.form_factors.a[kind], atoms.form_factors.b[kind], strict=True):
            # a exp(−b k²/4) is the transform of (4πa/b) exp(−4π² r²/b).
            total = b + bfactor
            image += w * a * 4 * np.pi / total * np.exp(-4 * np.pi**2 * d2 / total) * PIXEL**2
    return image


def test_projection_is_the_sum_of_analytic_gaussians():
    atoms, pose, bfactor = some_atoms(), euler_to_matrix(20.0, 55.0, -110.0), 700.0
    expected = analytic_image(atoms, pose, bfactor)
    image = Projector(atoms, BOX, PIXEL, bfactor).image(pose)
    assert np.abs(image - expected).max() < 2e-3 * expected.max()
    # A pixel of shift would be a large error here.
    assert np.abs(np.roll(image, 1, 0) - expected).max() > 0.1 * expected.max()


def test_projection_is_the_direct_fourier_sum():
    atoms, pose = some_atoms(), euler_to_matrix(-70.0, 100.0, 15.0)
    transform = Projector(atoms, BOX, PIXEL, 60.0).image_fourier(pose)
    scale = np.abs(transform).max()
    for iy, ix in [(0, 0), (2, 3), (-7, 4), (11, 12), (-15, 15)]:
        k = np.array([ix, iy]) / (BOX * PIXEL)
        f = atoms.form_factors.at(np.array([np.hypot(*k)]))[atoms.kinds, 0]
        phase = np.exp(-2j * np.pi * (atoms.positions_angstrom @ pose[:2].T @ k))
        expected = np.sum(atoms.weights * f * phase) * np.exp(-60.0 / 4 * (k @ k))
        centred = transform[iy, ix] * (-1.0) ** (ix + iy)
        assert abs(centred - expected) < 3e-3 * scale


def test_map_summed_over_z_is_the_image():
    projector = Projector(some_atoms(), BOX, PIXEL, 80.0)
    image = projector.image(np.eye(3))
    assert np.abs(projector.map().sum(axis=0) - image).max() < 1e-5 * image.max()


def test_map_axes_are_z_y_x():
    atoms = some_atoms(1)
    atoms.positions_angstrom[:] = [5 * PIXEL, -4 * PIXEL, 7 * PIXEL]
    density = Projector(atoms, BOX, PIXEL, 200.0).map()
    peak = np.unravel_index(density.argmax(), density.shape)
    assert peak == (BOX // 2 + 7, BOX // 2 - 4, BOX // 2 + 5)


def test_map_with_occupancies_is_linear():
    projector = Projector(some_atoms(), BOX, PIXEL, 80.0)
    first = (np.arange(30) < 10).astype(float)
    mixed = projector.map(0.25 * first + (1.0 - first))
    expected = 0.25 * projector.map(first) + projector.map(1.0 - first)
    assert np.allclose(mixed, expected, atol=1e-5 * expected.max())


def test_symmetrised_object_is_centred_on_the_pixel():
    """About pixel N//2 a quarter turn is exact: no half pixel anywhere."""
    atoms = phantom_atoms("C4", 8.0, 8.0)
    projector = Projector(atoms, 64, 4.0, 100.0)
    image = projector.image(np.eye(3))[1:, 1:]
    assert np.abs(np.rot90(image) - image).max() < 1e-6 * image.max()
    body = atoms.sites == BODY
    one = projector.map((body | (atoms.sites == 1)).astype(float), point_group("C4").operators)
    turned = np.rot90(one[:, 1:, 1:], axes=(1, 2))
    assert np.abs(turned - one[:, 1:, 1:]).max() < 1e-5 * one.max()


def test_symmetrised_map_is_the_mean_of_the_moved_objects():
    atoms, group = some_atoms(), point_group("D3")
    projector = Projector(atoms, BOX, PIXEL, 100.0)
    mean = np.mean(
        [Projector(atoms.rotated(g), BOX, PIXEL, 100.0).map() for g in group.operators], axis=0
    )
    symmetrised = projector.map(operators=group.operators)
    assert np.abs(symmetrised - mean).max() < 1e-5 * mean.max()


def test_resolution_cuts_the_spectrum():
    atoms = some_atoms()
    sharp = Projector(atoms, BOX, PIXEL, 20.0)
    soft = Projector(atoms, BOX, PIXEL, 20.0, resolution_angstrom=12.0)
    k = np.hypot(np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX)[None, :]) / PIXEL
    a, b = (p.image_fourier(np.eye(3)) for p in (sharp, soft))
    assert np.allclose(b[k < 0.88 / 12], a[k < 0.88 / 12])
    assert np.all(b[k > 1.12 / 12] == 0)


@pytest.mark.parametrize("output_pixel", [3.0, 4.0])
def test_voxels_project_as_the_atoms_they_came_from(output_pixel):
    atoms, pose = some_atoms(), euler_to_matrix(33.0, 72.0, 140.0)
    density = Projector(atoms, BOX, 3.0, 400.0).map()
    again = Projector(voxels(density, 3.0, output_pixel), BOX, output_pixel).image(pose)
    expected = Projector(atoms, BOX, output_pixel, 400.0).image(pose)
    # The grey scale of a map is a density, that of a model scattering per pixel of its own.
    expected = expected * (3.0 / output_pixel) ** 3
    assert np.abs(again - expected).max() < 5e-3 * expected.max()
