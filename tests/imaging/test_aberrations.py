"""Aberrations in images: against plain float64 sums over points, adjoint, gradients, rings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import Aberrations, exp_so3, random_rotations
from jaxrelax.imaging import (
    CTFParameters,
    ImageBatch,
    batch_ctf,
    extract_slices,
    fourier_volume,
    half_spectrum,
    image_geometry,
    insert_slices,
    pack,
    shift_phases,
    volume_radius,
    without_odd_phase,
)
from jaxrelax.imaging.ctf import ctf
from jaxrelax.imaging.polar import (
    RINGS_BEYOND,
    angular_coefficients,
    polar_grid,
    polar_samples,
    shifted,
)
from jaxrelax.inference import GaussNewton, PosePrior, Poses, log_likelihood
from jaxrelax.inference.gauss_newton import normal_equations
from jaxrelax.inference.orientation_grid import grid_scores, in_plane_angles, references

BOX, PIXEL, SHELL = 48, 2.0, 15
ABERRATIONS = Aberrations(
    odd=(0.5, -2.0, 30.0, 20.0, -25.0, 40.0),
    even=(0.1, 3.0, -2.0, 4.0, 150.0, 90.0, 120.0, -80.0, 200.0),
    magnification=(1.03, 0.012, 0.008, 0.985),
)
M = ABERRATIONS.matrix
SIGMA = 1.6  # px, of the blobs


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(3)
    return rng.uniform(-7.0, 7.0, (12, 3)), rng.uniform(0.5, 1.5, 12)


@pytest.fixture(scope="module")
def volume(blobs):
    centres, weights = blobs
    x = np.arange(BOX) - BOX // 2
    blob = [np.exp(-((x[None] - c[:, None]) ** 2) / (2 * SIGMA**2)) for c in centres.T]
    map_ = np.einsum("p,pz,py,px->zyx", weights, *blob[::-1]).astype(np.float32)
    return fourier_volume(jnp.asarray(map_[None]), radius=volume_radius(SHELL + 4), image_box=BOX)


@pytest.fixture(scope="module")
def geometry():
    packing = half_spectrum(BOX, SHELL, aberrations=ABERRATIONS)
    return image_geometry(packing, PIXEL, BOX, PIXEL, ABERRATIONS)


def exact_views(blobs, rotations, k_px):
    """Transforms of the blobs at specimen frequencies, by hand in float64."""
    centres, weights = blobs
    xy = np.einsum("bij,pj->bpi", rotations.astype(np.float64)[:, :2], centres)
    wave = np.exp(-2j * np.pi / BOX * np.einsum("bpi,fi->bpf", xy, k_px))
    gauss = (2 * np.pi * SIGMA**2) ** 1.5 * np.exp(
        -2 * (np.pi * SIGMA / BOX) ** 2 * (k_px**2).sum(1)
    )
    return np.einsum("p,bpf->bf", weights, wave) * gauss / BOX


def optics(dtype=jnp.float32, **changes):
    values = dict(
        defocus_u_angstrom=[9000.0, 12000.0], defocus_v_angstrom=[8000.0, 12500.0],
        defocus_angle_deg=[20.0, 70.0], phase_shift_deg=[0.0, 30.0],
        bfactor_angstrom2=[0.0, 20.0], voltage_kv=[300.0, 300.0],
        spherical_aberration_mm=[2.7, 2.7], amplitude_contrast=[0.1, 0.07], **changes,
    )  # fmt: skip
    return CTFParameters(**{name: jnp.asarray(value, dtype) for name, value in values.items()})


def exact_ctf(row, k, even):
    o = {
        name: np.asarray(value, np.float64)[row]
        for name, value in vars(optics()).items()
        if value is not None
    }
    volts = o["voltage_kv"] * 1e3
    wavelength = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    k2, theta = (k**2).sum(1), np.arctan2(k[:, 1], k[:, 0])
    mean = 0.5 * (o["defocus_u_angstrom"] + o["defocus_v_angstrom"])
    half = 0.5 * (o["defocus_u_angstrom"] - o["defocus_v_angstrom"])
    defocus = mean + half * np.cos(2 * (theta - np.deg2rad(o["defocus_angle_deg"])))
    chi = np.pi * wavelength * defocus * k2
    chi -= 0.5 * np.pi * o["spherical_aberration_mm"] * 1e7 * wavelength**3 * k2**2
    chi += np.deg2rad(o["phase_shift_deg"]) + np.arcsin(o["amplitude_contrast"])
    return np.sin(chi - even) * np.exp(-0.25 * o["bfactor_angstrom2"] * k2)


def test_slices_ctf_and_phase_are_taken_where_the_specimen_is(blobs, volume, geometry):
    rotations = random_rotations(2, np.random.default_rng(1))
    stretched = geometry.packing.wavevectors_px.astype(np.float64) @ M.T
    views = extract_slices(volume, jnp.asarray(rotations, jnp.float32), geometry.slice_wavevectors)
    views = np.asarray(views)[:, 0, 1:]  # interpolation is worst at the origin
    away = {
        name: np.linalg.norm(views - exact_views(blobs, rotations, k)[:, 1:])
        for name, k in (("M k", stretched), ("k", geometry.packing.wavevectors_px))
    }
    assert away["M k"] < 0.02 * np.linalg.norm(views)
    assert away["M k"] < 0.2 * away["k"]
    k = stretched / (BOX * PIXEL)
    values = batch_ctf(optics(), geometry, phase_flipped=False)
    for row in range(2):
        expected = exact_ctf(row, k, ABERRATIONS.even_phase(k))
        np.testing.assert_allclose(values[row], expected, atol=2e-4)
    data = np.exp(1j * ABERRATIONS.odd_phase(k))[None].astype(np.complex64)
    np.testing.assert_allclose(without_odd_phase(jnp.asarray(data), geometry), 1.0, atol=1e-5)


def test_bands_are_those_of_the_specimen(geometry):
    lengths = np.hypot(*(geometry.packing.wavevectors_px.astype(np.float64) @ M.T).T)
    assert np.rint(lengths).max() == SHELL
    np.testing.assert_array_equal(geometry.slice_shell, np.rint(lengths))
    # Half of an ellipse of this area.
    assert len(lengths) == pytest.approx(
        0.5 * np.pi * (SHELL + 0.5) ** 2 / np.linalg.det(M), rel=0.02
    )
    inner = half_spectrum(BOX, SHELL, 9, ABERRATIONS)
    again = half_spectrum(BOX, 9, aberrations=ABERRATIONS)
    np.testing.assert_array_equal(inner.inner().wavevectors_px, again.wavevectors_px)


def test_without_aberrations_everything_is_as_it_was():
    plain = image_geometry(half_spectrum(BOX, SHELL), PIXEL, BOX, PIXEL)
    assert plain.even_phase is None
    assert plain.odd_phase is None
    data = jnp.ones((1, 3), jnp.complex64)
    assert without_odd_phase(data, plain) is data


def test_insertion_is_the_adjoint_of_the_aberrated_slice(volume, geometry):
    rng = np.random.default_rng(5)
    rotations = jnp.asarray(random_rotations(3, rng), jnp.float32)
    k = geometry.slice_wavevectors
    forward = extract_slices(volume, rotations, k)[:, 0]
    images = jnp.asarray(
        (rng.standard_normal((2, *forward.shape)) * [[[1.0]], [[1j]]]).sum(0), jnp.complex64
    )
    sums = insert_slices(
        jnp.zeros((len(volume.values), 4)), volume.radius, rotations, k, images,
        jnp.zeros(images.shape),
    )  # fmt: skip
    left = jnp.sum(forward.real * images.real + forward.imag * images.imag)
    right = jnp.sum(sums[:, :2] * volume.values)
    assert left == pytest.approx(float(right), rel=1e-4)


def test_images_made_by_hand_leave_no_residual(blobs, volume, geometry):
    rng = np.random.default_rng(6)
    rotations = random_rotations(4, rng)
    shifts = rng.uniform(-2, 2, (4, 2)).astype(np.float32)
    k = geometry.packing.wavevectors_px.astype(np.float64) @ M.T / (BOX * PIXEL)
    clean = one_batch(blobs, geometry, rotations, -shifts)
    seen = clean.data * jnp.asarray(np.exp(1j * ABERRATIONS.odd_phase(k)), jnp.complex64)[None]
    poses = jnp.asarray(rotations, jnp.float32)

    def left(data):
        """Part of the power that the model does not explain; the origin is interpolated worst."""
        weights = clean.weights.at[0].set(0.0)
        batch = ImageBatch(data, clean.ctf, weights, clean.valid)
        score = log_likelihood(volume, batch, geometry, poses, jnp.asarray(shifts))[0][:, 0]
        return float((-2.0 * score / jnp.sum(weights[None] * jnp.abs(data) ** 2, axis=1)).max())

    assert left(without_odd_phase(seen, geometry)) < 2e-3
    assert left(seen) > 0.05


@pytest.mark.parametrize("field", ["defocus_u_angstrom", "amplitude_contrast", "scale"])
def test_gradients_with_symmetric_terms_and_scale(field, geometry):
    with jax.enable_x64(True):
        k = jnp.asarray(geometry.frequencies, jnp.float64)
        even = jnp.asarray(ABERRATIONS.even_phase(geometry.frequencies))
        weights = jnp.asarray(np.random.default_rng(2).standard_normal((2, len(k))))
        start = jnp.asarray({"scale": [1.2, 0.7]}.get(field, getattr(optics(), field)), jnp.float64)

        def total(values, even):
            given = {**vars(optics(jnp.float64, scale=[1.0, 1.0])), field: values}
            return jnp.sum(weights * ctf(CTFParameters(**given), k, even))

        gradient = jax.grad(total)(start, even)
        step = 1e-4 * float(jnp.abs(start).max())
        for row in range(2):
            e = jnp.zeros(2).at[row].set(step)
            numeric = (total(start + e, even) - total(start - e, even)) / (2 * step)
            np.testing.assert_allclose(gradient[row], numeric, rtol=1e-4, atol=1e-8)
        by_phase = jax.grad(total, argnums=1)(start, even)
        e = jnp.zeros(len(k)).at[7].set(1e-5)
        numeric = (total(start, even + e) - total(start, even - e)) / 2e-5
        np.testing.assert_allclose(by_phase[7], numeric, rtol=1e-5)


def test_scale_multiplies_the_ctf(geometry):
    plain = batch_ctf(optics(), geometry, False)
    scaled = batch_ctf(optics(scale=[0.5, 2.0]), geometry, False)
    np.testing.assert_allclose(scaled, plain * jnp.asarray([[0.5], [2.0]]), rtol=1e-6)


def one_batch(blobs, geometry, rotations, shifts):
    """Exact images of the blobs, shifted by +shift, without the antisymmetric phase."""
    stretched = geometry.packing.wavevectors_px.astype(np.float64) @ M.T
    n = len(rotations)
    values = np.asarray(batch_ctf(optics(), geometry, False))[np.arange(n) % 2]
    seen = exact_views(blobs, rotations, stretched) * values
    seen = seen * np.asarray(shift_phases(jnp.asarray(shifts), geometry.packing))
    power = np.mean(np.abs(seen) ** 2)
    weights = jnp.asarray(geometry.packing.multiplicity / (0.1 * power), jnp.float32)
    return ImageBatch(
        jnp.asarray(seen, jnp.complex64), jnp.asarray(values), weights, jnp.ones(n, bool)
    )


def test_normal_equations_are_the_derivatives_of_the_misfit(blobs, volume, geometry):
    """Rotations turn the specimen, shifts move the image: at M k and at k."""
    rng = np.random.default_rng(8)
    rotations = random_rotations(2, rng)
    batch = one_batch(blobs, geometry, rotations, np.zeros((2, 2), np.float32))
    turned = exp_so3(jnp.asarray(rng.normal(0, 0.02, (2, 3)), jnp.float32)) @ jnp.asarray(
        rotations, jnp.float32
    )
    origins = jnp.asarray(rng.normal(0, 0.3, (2, 2)), jnp.float32)
    prior = PosePrior(jnp.float32(0.02), jnp.float32(0.5))
    found = normal_equations(volume, batch, geometry, turned, origins, prior, SHELL + 4)
    scales = np.asarray(prior.scales())

    def misfit(offset):
        step = jnp.asarray(offset * scales, jnp.float32)
        moved = exp_so3(step[None, :3]) @ turned
        score = log_likelihood(volume, batch, geometry, moved, origins + step[None, 3:])
        return -2.0 * np.asarray(score[0][:, 0], np.float64)

    h = 0.05
    for axis in range(5):
        e = np.eye(5)[axis] * h
        slope = (misfit(e) - misfit(-e)) / (2 * h)
        # d/dv ½|r − T v|² = −Tᵀ r
        np.testing.assert_allclose(
            -np.asarray(found.gradient)[:, 0, axis], 0.5 * slope,
            rtol=0.05, atol=0.02 * np.abs(np.asarray(found.gradient)).max(),
        )  # fmt: skip


def test_the_search_finds_pose_and_shift_again(blobs, volume, geometry):
    rng = np.random.default_rng(9)
    rotations = random_rotations(4, rng)
    shifts = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
    batch = one_batch(blobs, geometry, rotations, -shifts)
    start = exp_so3(jnp.asarray(rng.normal(0, 0.02, (4, 3)), jnp.float32)) @ jnp.asarray(
        rotations, jnp.float32
    )
    origin = jnp.zeros((4, 2), jnp.float32)
    poses = Poses(start, origin, start, origin)
    prior = PosePrior(jnp.float32(0.1), jnp.float32(2.0))
    found = GaussNewton(n_steps=6, n_draws=0)(volume, batch, geometry, poses, prior, SHELL + 4)
    np.testing.assert_allclose(found.origins_px[:, 0], shifts, atol=0.03)
    np.testing.assert_allclose(found.rotations[:, 0], rotations, atol=0.01)


def test_rings_see_what_the_cartesian_sum_sees(blobs, volume):
    """Every in-plane angle and shift of a few directions, against sums over pixels in float64."""
    shell, quarter = 9, 4
    packing = half_spectrum(BOX, shell, aberrations=ABERRATIONS)
    seen = image_geometry(packing, PIXEL, BOX, PIXEL, ABERRATIONS)
    rng = np.random.default_rng(4)
    batch = one_batch(blobs, seen, random_rotations(2, rng), np.zeros((2, 2), np.float32))
    directions = random_rotations(3, rng)
    shifts = np.array([[0.0, 0.0], [1.5, 0.0], [0.5, -1.0]], np.float32)
    grid = polar_grid(packing, 30.0, shell + RINGS_BEYOND, ABERRATIONS)
    refs = references(volume, jnp.asarray(directions, jnp.float32), grid)
    scores = grid_scores(
        batch, refs, grid, jnp.asarray(shifts), jnp.zeros(len(shifts)), quarter
    ).unfolded()
    z = np.asarray(batch.data * batch.ctf * batch.weights[None], np.complex128)
    g = np.asarray(batch.ctf**2 * batch.weights[None], np.float64)
    stretched = packing.wavevectors_px.astype(np.float64) @ M.T
    expected = np.empty(scores.shape)
    for a, psi in enumerate(in_plane_angles(quarter)):
        c, s = np.cos(psi), np.sin(psi)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
        views = exact_views(blobs, turn @ directions, stretched)
        for t, shift in enumerate(shifts):
            phase = np.exp(-2j * np.pi / BOX * packing.wavevectors_px @ shift)
            cross = np.einsum("bf,df->bd", (z * phase).conj(), views).real
            expected[a, :, t] = cross - 0.5 * g @ (np.abs(views) ** 2).T
    spread = expected.std()
    np.testing.assert_allclose(scores, expected, atol=0.05 * spread)
    # Rings of the image, not of the specimen, would see something else.
    wrong = polar_grid(half_spectrum(BOX, shell), 30.0, shell + RINGS_BEYOND)
    assert wrong.image_wavevectors_px is None
    moved = shifted(polar_samples(batch.data, grid), jnp.asarray(shifts), grid)
    assert angular_coefficients(moved, grid).even_real.shape[1:3] == (2, len(shifts))


def test_packed_images_of_a_stretched_band():
    packing = half_spectrum(BOX, SHELL, aberrations=ABERRATIONS)
    images = np.random.default_rng(0).standard_normal((1, BOX, BOX)).astype(np.float32)
    packed = np.asarray(pack(jnp.asarray(images), packing))[0]
    n = np.arange(BOX) - BOX // 2
    for place in (0, 5, 100, packing.n_pixels - 1):
        kx, ky = packing.wavevectors_px[place]
        wave = np.exp(-2j * np.pi / BOX * (kx * n[None, :] + ky * n[:, None]))
        assert packed[place] == pytest.approx((images[0] * wave).sum() / BOX, abs=1e-3)
