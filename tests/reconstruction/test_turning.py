"""Turning maps in JAX: the same as the non-uniform FFT, with gradients, for accelerators too."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import exp_so3, point_group, random_rotations
from jaxrelax.reconstruction import (
    average_over,
    rotate_map,
    rotated_maps,
    soft_sphere,
    symmetrise,
    turn_map,
    turned_maps,
)
from jaxrelax.reconstruction.hypothesis_volume import _turned
from jaxrelax.reconstruction.rotate import inside_sphere

from .blobs import blobs

N = 32
turned = jax.jit(turn_map)


def noise(seed, n=N):
    return np.random.default_rng(seed).standard_normal((n, n, n)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_map_of_the_non_uniform_transform(seed):
    map_ = blobs(N) + noise(seed) * blobs(N).max() / 10.0
    rotation = random_rotations(1, np.random.default_rng(seed))[0].astype(np.float32)
    difference = np.asarray(turned(map_, rotation)) - rotate_map(map_, rotation)
    # FINUFFT is asked for 1e-5 of the largest value.
    assert np.abs(difference).max() < 1e-5 * np.abs(map_).max()


@pytest.mark.parametrize("name", ["C1", "C3", "D2", "T"])
def test_averages_over_groups_are_those_of_symmetrise(name):
    group, map_ = point_group(name), blobs(N)
    found = jax.jit(lambda volume: average_over(volume, group))(map_)
    assert np.abs(np.asarray(found) - symmetrise(map_, group)).max() < 1e-5 * map_.max()


def test_turning_back_is_the_adjoint():
    first, second = (inside_sphere(noise(seed)) for seed in (1, 2))
    rotation = random_rotations(1, np.random.default_rng(3))[0].astype(np.float32)
    pushed, pulled = jax.vjp(lambda m: turn_map(m, rotation), first)
    (back,) = pulled(jnp.asarray(second))
    assert float(jnp.vdot(pushed, second)) == pytest.approx(float(jnp.vdot(first, back)), rel=1e-4)
    # On maps that fall off inside the box the adjoint is the inverse turn.
    map_ = blobs(N)
    (back,) = jax.vjp(lambda m: turn_map(m, rotation), map_)[1](jnp.asarray(map_))
    assert np.abs(np.asarray(back) - rotate_map(map_, rotation.T)).max() < 1e-3 * map_.max()


@pytest.mark.parametrize("name", ["C3", "D2", "T"])
def test_the_gradient_of_the_asymmetric_power_is_the_asymmetric_part(name):
    group, map_ = point_group(name), inside_sphere(blobs(N))
    sphere = soft_sphere(N, 0.4 * N, 3.0)

    @jax.jit
    def asymmetric_power(volume):
        volume = volume * sphere
        return 0.5 * jnp.sum((volume - average_over(volume, group)) ** 2)

    gradient = np.asarray(jax.grad(asymmetric_power)(map_))
    expected = (map_ * sphere - symmetrise(map_ * sphere, group)) * sphere
    assert np.abs(gradient - expected).max() < 1e-3 * map_.max()


def test_the_gradient_by_the_rotation_is_that_of_finite_differences():
    with jax.enable_x64(True):
        map_, other = (jnp.asarray(blobs(16), jnp.float64), jnp.asarray(noise(5, 16), jnp.float64))
        start = jnp.asarray(random_rotations(1, np.random.default_rng(6))[0])

        @jax.jit
        def overlap(vector):
            return jnp.vdot(turn_map(map_, exp_so3(vector) @ start), other)

        gradient, step = jax.grad(overlap)(jnp.zeros(3)), 1e-5
        for axis in range(3):
            nudge = step * jnp.eye(3)[axis]
            slope = (overlap(nudge) - overlap(-nudge)) / (2 * step)
            assert float(gradient[axis]) == pytest.approx(float(slope), rel=1e-5)


def test_many_rotations_at_once():
    map_ = blobs(16)
    rotations = random_rotations(3, np.random.default_rng(7)).astype(np.float32)
    together = jax.vmap(turn_map, in_axes=(None, 0))(map_, rotations)
    for one, rotation in zip(together, rotations, strict=True):
        assert np.abs(np.asarray(one) - np.asarray(turned(map_, rotation))).max() < 1e-6


def test_it_lowers_for_accelerators_without_the_host():
    shape = jax.ShapeDtypeStruct((N, N, N), jnp.float32)
    turn = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    exported = jax.export.export(turned, platforms=["cuda"])(shape, turn)
    assert "callback" not in exported.mlir_module()


def test_several_turns_are_those_of_rotated_maps():
    map_ = blobs(N)
    others = random_rotations(2, np.random.default_rng(4))
    for rotations in (others, others[:0]):
        found = turned_maps(map_, rotations)
        assert found.shape == (len(rotations), N, N, N)
        for one, expected in zip(found, rotated_maps(map_, rotations), strict=True):
            assert np.abs(np.asarray(one) - expected).max() < 1e-5 * map_.max()


def test_in_a_volume_turns_that_permute_the_axes_are_exact():
    map_ = jnp.asarray(blobs(N))
    axes = point_group("D2").operators[:2]
    others = random_rotations(2, np.random.default_rng(4))
    for rotations in (np.stack([axes[1], others[0], axes[0], others[1]]), axes, axes[:0]):
        found = _turned(map_, rotations)
        for one, expected in zip(found, rotated_maps(blobs(N), rotations), strict=True):
            assert np.abs(np.asarray(one) - expected).max() < 1e-5 * map_.max()
