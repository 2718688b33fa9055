"""Slices against analytic projections and float64 NumPy; adjoint; tangents; channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from jaxrelax.imaging import (
    extract_parts_and_derivatives,
    extract_slices,
    fold_friedel,
    fourier_volume,
    half_grid_shells,
    half_shape,
    half_spectrum,
    image_geometry,
    insert_slices,
    map_from_half_transform,
    pack,
    rebox_map,
    resample_map,
    volume_radius,
    working_box,
)

BOX, SHELL = 32, 12
RADIUS = volume_radius(SHELL)


@pytest.fixture(scope="module")
def rotations():
    return Rotation.random(6, rng=np.random.default_rng(3)).as_matrix().astype(np.float32)


def gaussians(n, scale=1.0):
    """Positions (x, y, z) and weights of blobs; their map sampled on an n-box."""
    rng = np.random.default_rng(5)
    centres = rng.uniform(-5, 5, (12, 3))
    weights = rng.uniform(0.5, 1.5, 12)
    sigma = 1.6
    x = (np.arange(n) - n // 2) * scale
    blob = [np.exp(-((x[None] - c[:, None]) ** 2) / (2 * sigma**2)) for c in centres.T]
    return centres, weights, sigma, np.einsum("p,pz,py,px->zyx", weights, *blob[::-1])


def test_slices_are_the_transforms_of_analytic_projections(rotations):
    centres, weights, sigma, map_ = gaussians(BOX)
    volume = fourier_volume(jnp.asarray(map_[None], jnp.float32), radius=RADIUS, image_box=BOX)
    packing = half_spectrum(BOX, SHELL)
    slices = extract_slices(volume, jnp.asarray(rotations), packing.wavevectors_px)[:, 0]
    x = np.arange(BOX) - BOX // 2
    for rotation, estimate in zip(rotations, slices, strict=True):
        xy = (centres @ rotation.T)[:, :2]
        px, py = (np.exp(-((x[None] - c[:, None]) ** 2) / (2 * sigma**2)) for c in xy.T)
        image = np.einsum("p,py,px->yx", weights, py, px) * sigma * np.sqrt(2 * np.pi)
        truth = pack(jnp.asarray(image[None], jnp.float32), packing)[0]
        error = np.linalg.norm(estimate - truth) / np.linalg.norm(truth)
        assert error < 0.02


@pytest.mark.parametrize("map_box", [22, 24, 40])
def test_a_map_in_a_box_of_its_own_has_the_same_slices(rotations, map_box):
    """Blobs reach 10 px from the centre: beyond that the map may be cropped, or surrounded."""
    _, _, _, map_ = gaussians(BOX)
    packing = half_spectrum(BOX, SHELL)
    whole = fourier_volume(jnp.asarray(map_[None], jnp.float32), radius=RADIUS, image_box=BOX)
    expected = extract_slices(whole, jnp.asarray(rotations), packing.wavevectors_px)
    geometry = image_geometry(packing, 3.0, map_box, 3.0)
    shell = int(geometry.slice_shell.max())
    own = resample_map(rebox_map(map_, map_box), working_box(shell))
    volume = fourier_volume(jnp.asarray(own[None]), radius=volume_radius(shell), image_box=map_box)
    found = extract_slices(volume, jnp.asarray(rotations), geometry.slice_wavevectors)
    found = found * geometry.amplitude
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


@given(st.integers(4, 20), st.integers(4, 20))
def test_reboxing_keeps_the_centre_and_what_fits(half, other):
    rng = np.random.default_rng(half)
    n, m = 2 * half, 2 * other
    map_ = rng.normal(size=(n, n, n)).astype(np.float32)
    boxed = rebox_map(map_, m)
    assert boxed.shape == (m, m, m)
    assert boxed[m // 2, m // 2, m // 2] == map_[n // 2, n // 2, n // 2]
    small = min(n, m)
    np.testing.assert_array_equal(rebox_map(boxed, small), rebox_map(map_, small))
    kept = float(np.abs(boxed, dtype=np.float64).sum())
    assert kept == pytest.approx(float(np.abs(rebox_map(map_, small), dtype=np.float64).sum()))


def test_interpolation_matches_a_float64_reference(rotations):
    rng = np.random.default_rng(1)
    values = rng.standard_normal((int(np.prod(half_shape(RADIUS))), 2)).astype(np.float32)
    volume = fourier_volume(jnp.zeros((1, 26, 26, 26)), radius=RADIUS, image_box=BOX)
    volume = type(volume)(jnp.asarray(values), RADIUS)
    packing = half_spectrum(BOX, SHELL)
    got = extract_slices(volume, jnp.asarray(rotations), packing.wavevectors_px)[:, 0]

    grid = (values[:, 0] + 1j * values[:, 1].astype(np.float64)).reshape(half_shape(RADIUS))
    k3 = np.concatenate([packing.wavevectors_px, np.zeros((packing.n_pixels, 1))], axis=1)
    for row, rotation in enumerate(rotations):
        q = 2 * k3.astype(np.float64) @ rotation.astype(np.float64)
        flip = q[:, 0] < 0
        q[flip] *= -1
        low = np.floor(q).astype(int)
        f = q - low
        total = np.zeros(len(q), complex)
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(corner, f, 1 - f), axis=1)
            i = low + corner
            total += weight * grid[i[:, 2] + RADIUS, i[:, 1] + RADIUS, i[:, 0]]
        expected = np.where(flip, total.conj(), total)
        # Float32 coordinates decide the cell: compare away from cell faces.
        inside = ((f > 1e-3) & (f < 1 - 1e-3)).all(axis=1)
        np.testing.assert_allclose(got[row][inside], expected[inside], atol=2e-4)


def test_insertion_is_the_exact_adjoint(rotations):
    rng = np.random.default_rng(2)
    packing = half_spectrum(BOX, SHELL)
    voxels = int(np.prod(half_shape(RADIUS)))
    volume_values = rng.standard_normal((voxels, 2)).astype(np.float32)
    y = rng.standard_normal((2, len(rotations), packing.n_pixels)).astype(np.float32)
    data = jnp.asarray(y[0] + 1j * y[1])
    from jaxrelax.imaging import FourierVolume

    volume = FourierVolume(jnp.asarray(volume_values), RADIUS)
    forward = extract_slices(volume, jnp.asarray(rotations), packing.wavevectors_px)[:, 0]
    accumulator = insert_slices(
        jnp.zeros((voxels, 4)), RADIUS, jnp.asarray(rotations), packing.wavevectors_px,
        data, jnp.zeros(data.shape),
    )  # fmt: skip
    left = np.vdot(np.asarray(forward, complex), np.asarray(data, complex)).real
    right = np.vdot(volume_values.astype(float), np.asarray(accumulator[:, :2], float))
    scale = np.linalg.norm(forward) * np.linalg.norm(data)
    assert abs(left - right) / scale < 1e-5


def test_whole_chain_from_map_to_slices_is_adjoint_to_back_projection(rotations):
    """⟨P V, y⟩ over the full plane = ⟨V, Pᵀ y⟩ with the fold and gridding correction included."""
    rng = np.random.default_rng(4)
    n = working_box(SHELL)
    packing = half_spectrum(BOX, SHELL)
    map_ = jnp.asarray(rng.standard_normal((n, n, n)), jnp.float32)
    y = rng.standard_normal((2, len(rotations), packing.n_pixels)).astype(np.float32)
    y[1, :, packing.flat_index == 0] = 0.0  # the origin of a real image is real
    data = jnp.asarray(y[0] + 1j * y[1])

    def project(m):
        volume = fourier_volume(m[None], radius=RADIUS, image_box=BOX)
        return extract_slices(volume, jnp.asarray(rotations), packing.wavevectors_px)[:, 0]

    forward = project(map_)
    left = np.sum(
        packing.multiplicity * np.real(np.conj(np.asarray(forward)) * np.asarray(data)), dtype=float
    )
    half_weights = jnp.asarray(packing.multiplicity / 2)[None]
    accumulator = insert_slices(
        jnp.zeros((int(np.prod(half_shape(RADIUS))), 4)), RADIUS, jnp.asarray(rotations),
        packing.wavevectors_px, data * half_weights, jnp.zeros(data.shape),
    )  # fmt: skip
    folded = fold_friedel(np.asarray(accumulator), RADIUS)
    grid = jnp.asarray(folded[:, 0] + 1j * folded[:, 1]).reshape(half_shape(RADIUS))
    # map_from_half_transform inverts the unitary scale; its adjoint multiplies by it instead.
    back = map_from_half_transform(grid, box=n, image_box=BOX)
    scale = (BOX / n) ** 3 / BOX
    back = np.asarray(back, float) * scale**2 * (2 * n) ** 3
    right = np.vdot(np.asarray(map_, float), back)
    assert abs(left - right) / (np.linalg.norm(forward) * np.linalg.norm(data)) < 1e-5


def test_tangents_are_the_derivative_of_the_slices(rotations):
    _, _, _, map_ = gaussians(BOX)
    volume = fourier_volume(jnp.asarray(map_[None], jnp.float32), radius=RADIUS, image_box=BOX)
    packing = half_spectrum(BOX, SHELL)
    found = extract_parts_and_derivatives(volume, jnp.asarray(rotations), packing.wavevectors_px)
    value, tilted, turned = (np.asarray(re) + 1j * np.asarray(im) for re, im in found)
    kx, ky = packing.wavevectors_px.T
    tangents = np.stack([-ky * tilted, kx * tilted, turned], axis=1)
    np.testing.assert_allclose(
        value, extract_slices(volume, jnp.asarray(rotations), packing.wavevectors_px), atol=1e-5
    )
    with jax.enable_x64(True):
        volume64 = type(volume)(volume.values.astype(jnp.float64), RADIUS)
        step = 1e-5
        for axis in range(3):
            delta = np.zeros(3)
            delta[axis] = step
            plus, minus = (
                Rotation.from_rotvec(s * delta).as_matrix() @ rotations.astype(float)
                for s in (1, -1)
            )
            numeric = (
                extract_slices(volume64, jnp.asarray(plus), packing.wavevectors_px)
                - extract_slices(volume64, jnp.asarray(minus), packing.wavevectors_px)
            ) / (2 * step)
            difference = np.abs(numeric - tangents[:, axis])
            # Points within a step of a cell face see a kink: the median and most points must agree.
            assert np.quantile(difference, 0.99) < 1e-3 * np.abs(tangents).max()


def test_channels_equal_separate_volumes(rotations):
    rng = np.random.default_rng(7)
    maps = jnp.asarray(rng.standard_normal((3, 26, 26, 26)), jnp.float32)
    packing = half_spectrum(BOX, SHELL)

    def slices(maps):
        # In double precision: blocks, and so the rounding of coordinates, depend on the channels.
        volume = fourier_volume(maps, radius=RADIUS, image_box=BOX)
        with jax.enable_x64(True):
            volume = type(volume)(volume.values.astype(jnp.float64), RADIUS)
            return extract_slices(
                volume, jnp.asarray(rotations.astype(float)), packing.wavevectors_px
            )

    together = slices(maps)
    for channel in range(3):
        alone = slices(maps[channel : channel + 1])
        np.testing.assert_allclose(together[:, channel], alone[:, 0], atol=1e-5)


def test_transform_and_inverse_round_trip():
    _, _, _, map_ = gaussians(26)
    volume = fourier_volume(jnp.asarray(map_[None], jnp.float32), radius=26, image_box=BOX)
    grid = (volume.values[:, 0] + 1j * volume.values[:, 1]).reshape(half_shape(26))
    back = map_from_half_transform(grid, box=26, image_box=BOX)
    # The inverse divides by the gridding correction once more (it undoes insertion, not padding).
    from jaxrelax.imaging import gridding_correction

    back = back * gridding_correction(26) ** 2
    np.testing.assert_allclose(back, map_, atol=2e-4 * np.abs(map_).max())


def test_resampling_keeps_values_and_centre():
    _, _, _, fine = gaussians(64, scale=0.5)
    _, _, _, coarse = gaussians(32, scale=1.0)
    np.testing.assert_allclose(resample_map(fine, 32), coarse, atol=2e-3)
    np.testing.assert_allclose(resample_map(coarse, 64), fine, atol=2e-3)


def test_shells_of_the_half_grid():
    shells = half_grid_shells(4)
    assert shells.shape == half_shape(4)
    assert shells[4, 4, 0] == 0
    assert shells[4, 4, 4] == 2


def test_gradient_of_a_score_with_respect_to_map_and_rotation(rotations):
    from jaxrelax.geometry import exp_so3

    packing = half_spectrum(BOX, 6)
    radius = volume_radius(6)
    rng = np.random.default_rng(9)
    n = working_box(6)
    with jax.enable_x64(True):
        map_ = jnp.asarray(rng.standard_normal((n, n, n)))
        target = jnp.asarray(rng.standard_normal((6, packing.n_pixels)))

        def score(m, delta):
            volume = fourier_volume(m[None], radius=radius, image_box=BOX)
            turned = exp_so3(delta) @ jnp.asarray(rotations, jnp.float64)
            slices = extract_slices(volume, turned, packing.wavevectors_px)[:, 0]
            return jnp.sum(jnp.abs(slices - target) ** 2)

        delta = jnp.asarray(rng.standard_normal((6, 3)) * 0.01)
        gradient_map, gradient_delta = jax.grad(score, argnums=(0, 1))(map_, delta)
        direction = jnp.asarray(rng.standard_normal(map_.shape))
        numeric = (
            score(map_ + 1e-4 * direction, delta) - score(map_ - 1e-4 * direction, delta)
        ) / 2e-4
        np.testing.assert_allclose(jnp.vdot(gradient_map, direction), numeric, rtol=1e-4)
        turn = jnp.asarray(rng.standard_normal(delta.shape))
        numeric = (score(map_, delta + 1e-7 * turn) - score(map_, delta - 1e-7 * turn)) / 2e-7
        np.testing.assert_allclose(jnp.vdot(gradient_delta, turn), numeric, rtol=2e-2)
