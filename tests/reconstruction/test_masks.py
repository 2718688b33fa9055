"""Masks: where they are one, where they are nothing, and how much they leave."""

import numpy as np
import pytest

from jaxrelax.geometry import point_group
from jaxrelax.reconstruction import (
    density_mask,
    independent_fraction,
    particle_radius_angstrom,
    soft_sphere,
    solvent_mask,
    symmetrise,
)
from jaxrelax.reconstruction.masks import otsu_threshold

from .blobs import blobs

N = 48


def radii(n):
    x = np.arange(n) - n // 2
    return np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2)


def test_soft_sphere_is_one_inside_half_at_mid_edge_and_zero_outside():
    mask, r = soft_sphere(N, 12.0, 6.0), radii(N)
    np.testing.assert_array_equal(mask[r <= 12], 1.0)
    np.testing.assert_allclose(mask[r >= 18], 0.0, atol=1e-7)
    np.testing.assert_allclose(mask[r == 15], 0.5, atol=1e-6)
    # Centred on voxel n // 2, and falling outwards.
    along = mask[N // 2, N // 2, N // 2 :]
    assert np.all(np.diff(along) <= 0)
    np.testing.assert_array_equal(mask[N // 2, N // 2, 1 : N // 2], along[1:][::-1])


def test_a_hard_mask_leaves_its_share_of_the_box():
    mask = (radii(N) < 15).astype(np.float32)
    assert independent_fraction(mask) == pytest.approx(mask.mean())
    assert independent_fraction(np.ones((8, 8, 8))) == pytest.approx(1.0)
    assert independent_fraction(0.3 * mask) == pytest.approx(mask.mean())
    soft = soft_sphere(N, 12.0, 6.0)
    assert np.mean(soft == 1) < independent_fraction(soft) < np.mean(soft > 0)


def test_otsu_parts_two_populations():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.0, 0.3, 9000), rng.normal(4.0, 0.5, 3000)
    threshold = otsu_threshold(np.concatenate([low, high]))
    assert np.mean(low < threshold) > 0.999
    assert np.mean(high > threshold) > 0.999


def test_solvent_mask_holds_the_density_and_leaves_the_solvent():
    pixel = 3.0
    rng = np.random.default_rng(1)
    density = blobs(N) + 0.05 * rng.standard_normal((N,) * 3).astype(np.float32)
    mask = solvent_mask(density, pixel)
    assert mask.min() == 0.0
    assert mask.max() == 1.0
    clean = blobs(N)
    assert mask[clean > 0.3 * clean.max()].min() == 1.0
    assert np.sum(mask * clean) / np.sum(clean) > 0.99
    assert np.all(mask[radii(N) > 0.47 * N] < 0.01)
    assert 0.02 < mask.mean() < 0.5
    # A wider margin holds more.
    assert solvent_mask(density, pixel, extend_angstrom=16.0).sum() > mask.sum()


def test_particle_radius_is_that_of_the_density():
    ball = (radii(N) < 10).astype(np.float32)
    assert particle_radius_angstrom(ball, 2.0) == pytest.approx(20.0, abs=2.0)
    # Without solvent the box is all there is.
    full = np.random.default_rng(0).standard_normal((N,) * 3)
    assert particle_radius_angstrom(full, 2.0) == pytest.approx(0.47 * N * 2.0)


def test_density_mask_holds_body_and_weak_partner_and_leaves_the_solvent():
    group, pixel, radius = point_group("C4"), 4.0, 23.0
    rng = np.random.default_rng(2)
    x = np.arange(N) - N // 2
    centre = np.array([14.0, 0.0, 3.0])  # x, y, z: a site of its own
    squared = sum(
        (grid - c) ** 2
        for grid, c in zip(np.meshgrid(x, x, x, indexing="ij"), centre[::-1], strict=True)
    )
    body = symmetrise(blobs(N), group)
    partner = (0.3 * body.max() * np.exp(-squared / (2 * 2.0**2))).astype(np.float32)
    halves = [
        body + partner + 0.02 * body.max() * rng.standard_normal((N,) * 3).astype(np.float32)
        for _ in range(2)
    ]
    # The sphere nearly fills the box: there is no corner to learn the noise from.
    mask = density_mask(*halves, pixel, radius * pixel, group)
    assert mask[body > 0.2 * body.max()].min() == 1.0
    for g in group.operators:
        site = np.rint(g @ centre).astype(int) + N // 2
        assert mask[site[2], site[1], site[0]] == 1.0
    assert mask.mean() < 0.2
    assert np.all(mask[radii(N) > 25] < 1e-6)


def test_density_mask_finds_a_partner_that_stands_out_at_its_own_size_alone():
    """Where images are few the noise at 15 Å hides what at 30 Å is plain. 0.1 Å is no blur."""
    group, pixel = point_group("C4"), 4.0
    rng = np.random.default_rng(3)
    x = np.arange(N) - N // 2
    centre = np.array([16.0, 0.0, 3.0])
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
    body = symmetrise(blobs(N), group)
    partner = (0.5 * body.max() * np.exp(-squared / (2 * 3.0**2))).astype(np.float32)
    halves = [
        body + partner + 0.35 * body.max() * rng.standard_normal((N,) * 3).astype(np.float32)
        for _ in range(2)
    ]
    fine, both = (
        density_mask(*halves, pixel, 23.0 * pixel, group, coarse_angstrom=coarse)
        for coarse in (0.1, 30.0)
    )
    sites = [np.rint(g @ centre).astype(int) + N // 2 for g in group.operators]
    assert max(fine[site[2], site[1], site[0]] for site in sites) < 0.5
    assert min(both[site[2], site[1], site[0]] for site in sites) == 1.0
    assert both.mean() < 0.3


def test_density_mask_of_a_particle_that_fills_its_sphere():
    rng = np.random.default_rng(4)
    ball = soft_sphere(N, 18.0, 2.0)
    halves = [ball + 0.01 * rng.standard_normal((N,) * 3).astype(np.float32) for _ in range(2)]
    mask = density_mask(*halves, 4.0, 18.0 * 4.0, point_group("C2"))
    assert mask[radii(N) < 17].min() == 1.0


def test_density_mask_is_the_sphere_where_nothing_stands_out():
    nothing = np.zeros((N,) * 3, np.float32)
    mask = density_mask(nothing, nothing, 4.0, 80.0, point_group("C2"))
    np.testing.assert_array_equal(mask, soft_sphere(N, 20.0, 2.0))
