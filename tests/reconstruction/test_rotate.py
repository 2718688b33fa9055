"""Rotating and symmetrising about voxel ``n // 2``, without errors that look like asymmetry."""

import numpy as np
import pytest

from jaxrelax.geometry import point_group, random_rotations, rotvec_to_matrix, subgroup
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction import (
    apply_gain,
    isotypic_parts,
    rotate_map,
    soft_sphere,
    symmetrise,
)
from jaxrelax.reconstruction.fsc import cross_power, spectrum
from jaxrelax.reconstruction.rotate import inside_sphere

from .blobs import blobs, gaussians, sampled

N = 32
GROUPS = ["C3", "C4", "D2", "D7", "T", "O", "I"]


def relative(error, map_):
    return np.linalg.norm(error) / np.linalg.norm(map_)


@pytest.mark.parametrize("seed", range(5))
def test_a_rotated_map_is_that_of_the_rotated_points(seed):
    centres, weights = gaussians()
    rotation = random_rotations(1, np.random.default_rng(seed))[0]
    expected = sampled(centres @ rotation.T, weights, N)
    found = rotate_map(sampled(centres, weights, N), rotation)
    assert np.abs(found - expected).max() < 1e-4 * expected.max()


@pytest.mark.parametrize("element", range(24))
def test_permutations_move_voxels_without_touching_their_values(element):
    rotation = point_group("O").operators[element]
    map_ = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    found = rotate_map(map_, rotation)
    # (gV)(r) = V(g⁻¹ r), in coordinates (x, y, z) from voxel n // 2.
    for zyx in np.ndindex(8, 8, 8):
        r = np.array(zyx[::-1]) - 4
        x, y, z = (np.rint(rotation.T @ r).astype(int) + 4) % 8
        assert found[zyx] == map_[z, y, x]


def test_both_ways_of_rotating_agree():
    map_ = blobs(N)
    for rotation in point_group("O").operators[1:6]:
        # A hair off the permutation, the Fourier path is taken.
        nearly = rotvec_to_matrix(np.array([0.0, 0.0, 1e-7])) @ rotation
        assert relative(rotate_map(map_, nearly) - rotate_map(map_, rotation), map_) < 1e-4


def test_rotations_compose():
    map_ = blobs(N)
    g, h = random_rotations(2, np.random.default_rng(4))
    assert relative(rotate_map(rotate_map(map_, h), g) - rotate_map(map_, g @ h), map_) < 1e-4


@pytest.mark.parametrize("name", GROUPS)
def test_a_symmetrised_map_is_invariant_and_stays_itself(name):
    group, map_ = point_group(name), blobs(N)
    symmetric = symmetrise(map_, group)
    assert relative(symmetric - map_, map_) > 0.1
    assert relative(symmetrise(symmetric, group) - symmetric, symmetric) < 1e-4
    for operator in group.operators[1 :: max(1, group.order // 6)]:
        assert relative(rotate_map(symmetric, operator) - symmetric, symmetric) < 1e-4


@pytest.mark.parametrize("name", GROUPS)
def test_symmetrising_is_the_mean_over_the_group(name):
    group = point_group(name)
    centres, weights = gaussians(number=4)
    copies = np.concatenate([centres @ g.T for g in group.operators])
    expected = sampled(copies, np.tile(weights, group.order) / group.order, N)
    found = symmetrise(sampled(centres, weights, N), group)
    assert np.abs(found - expected).max() < 1e-4 * expected.max()


@pytest.mark.parametrize(
    ("name", "kept"), [("C3", "C1"), ("C4", "C1"), ("C4", "C2"), ("D7", "C7"), ("T", "C1")]
)
def test_isotypic_parts_are_orthogonal_and_sum_to_the_map(name, kept):
    group, held, map_ = point_group(name), point_group(kept), blobs(N)
    parts = isotypic_parts(map_, group, held)
    whole = inside_sphere(map_) if kept == "C1" else symmetrise(inside_sphere(map_), held)
    np.testing.assert_allclose(parts.symmetric + parts.asymmetric, whole, atol=1e-6)
    lengths = np.linalg.norm(parts.symmetric) * np.linalg.norm(parts.asymmetric)
    assert abs(np.vdot(parts.symmetric, parts.asymmetric)) < 1e-4 * lengths
    # The rest has no symmetric part left, and is no small thing.
    assert relative(symmetrise(parts.asymmetric, group), map_) < 1e-4
    assert relative(parts.asymmetric, map_) > 0.1


@pytest.mark.parametrize("name", ["C3", "C4", "D7", "T"])
def test_an_axis_half_a_pixel_off_the_centre_shows_as_asymmetry(name):
    """The centre is voxel ``n // 2``; the other convention would make false register evidence."""
    group = point_group(name)
    centres, weights = gaussians(number=4)
    copies = np.concatenate([centres @ g.T for g in group.operators])
    weights = np.tile(weights, group.order)

    def asymmetric_power(offset):
        map_ = sampled(copies + offset, weights, N)
        rest = isotypic_parts(map_, group, point_group("C1")).asymmetric
        return np.sum(rest**2) / np.sum(map_**2)

    assert asymmetric_power(0.0) < 1e-8
    assert asymmetric_power(-0.5) > 5e-3  # the centre of the box at (n − 1)/2


RELAXED = [("C3", "C1"), ("D7", "C1"), ("D7", "C7"), ("D6", "C2"), ("C4", "C1"), ("I", "C2")]


@pytest.mark.parametrize(("name", "kept"), RELAXED)
def test_a_symmetric_map_has_no_asymmetric_part(name, kept):
    """Up to the rim: what rotations drop there must not be left over in one of the terms."""
    group = point_group(name)
    centres, weights = gaussians(number=4, reach=4.0)
    copies = np.concatenate([centres @ g.T for g in group.operators])
    # As half-maps are: the same power up to a sharp sphere in Fourier space, inside a soft one. The
    # sphere is cut in a larger box, where grid lines are twice as dense.
    weights = np.tile(weights, group.order)
    fine = sampled(copies, weights, 4 * N, scale=0.5, sigma=0.7)
    large = apply_gain(resample_map(fine, 2 * N), np.ones(N - 1))
    map_ = large[(slice(N // 2, -N // 2),) * 3] * soft_sphere(N, 0.35 * N, 4.0)
    held = subgroup(group, kept) if kept != "C1" else point_group("C1")
    rest = spectrum(isotypic_parts(map_, group, held).asymmetric)
    whole = spectrum(map_)
    power = cross_power(whole, whole, N)
    share = cross_power(rest, rest, N) / power
    assert power[N // 2 - 1] > 0.01 * power[5]
    assert share.max() < 0.01
