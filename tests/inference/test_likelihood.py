"""The log-likelihood against plain float64 NumPy over the whole Fourier plane, and its rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.imaging import ImageBatch
from jaxrelax.inference.likelihood import residual_power

from .conftest import BOX, N_SHELLS, SEARCH, SHELL, run, scores, two_registers


def full_transform(map_):
    """Centred transform of a map padded twofold, corrected for interpolation; all of it."""
    n = map_.shape[0]
    x = np.sinc((np.arange(n) - n // 2) / (2 * n)) ** 2
    corrected = map_.astype(np.float64) / (x[:, None, None] * x[None, :, None] * x)
    padded = np.pad(corrected, n // 2)
    spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(padded)))
    return spectrum * (BOX / n) ** 3 / BOX


def full_slice(spectrum, rotation, k):
    """Trilinear interpolation at ``2 Aᵀ (kx, ky, 0)``, without folding, eight corners in a loop."""
    points = 2.0 * np.concatenate([k, np.zeros((len(k), 1))], axis=1) @ rotation
    corner = np.floor(points).astype(int)
    fraction = points - corner
    total = np.zeros(len(k), complex)
    for bits in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(bits, fraction, 1.0 - fraction), axis=1)
        x, y, z = (corner + bits).T + spectrum.shape[0] // 2
        total += weight * spectrum[z, y, x]
    return total


def whole_plane():
    """Every (kx, ky) whose radius rounds to at most SHELL."""
    axis = np.arange(-SHELL - 1, SHELL + 2)
    k = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return k[np.rint(np.hypot(*k.T)) <= SHELL]


def full_plane_values(packed, packing, k):
    """Packed values at wavevectors of the whole plane: a pixel not kept is its mate's conjugate."""
    table = {tuple(q): v for q, v in zip(packing.wavevectors_px.astype(int), packed, strict=True)}
    return np.array(
        [table[q] if q in table else np.conj(table[-q[0], -q[1]]) for q in map(tuple, k)]
    )


def test_equals_a_float64_sum_over_the_whole_plane(problem):
    batch, poses, packing = problem.batch, problem.poses, problem.geometry.packing
    found, power = scores(problem.volume, batch, poses)
    k = whole_plane()
    assert len(k) == 2 * packing.n_pixels - 1
    spectra = [full_transform(m) for m in two_registers()]
    for row in range(len(found)):
        shift = np.asarray(poses.origins_px[row], float)
        image = full_plane_values(np.asarray(batch.data[row], complex), packing, k)
        image = image * np.exp(-2j * np.pi * (k @ shift) / BOX)
        contrast = full_plane_values(np.asarray(batch.ctf[row], float), packing, k)
        rotation = np.asarray(poses.rotations[row], float)
        for channel, spectrum in enumerate(spectra):
            model = contrast * full_slice(spectrum, rotation, k)
            expected = -0.5 * np.sum(np.abs(image - model) ** 2) / problem.noise_power
            assert found[row, channel] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(
        np.asarray(power) @ np.asarray(batch.weights), -2.0 * np.asarray(found), rtol=1e-5
    )


def test_pixels_of_zero_weight_say_nothing(problem):
    shell = problem.geometry.slice_shell
    inside = jnp.asarray((shell <= 5).astype(np.float32))
    weights = problem.batch.weights * inside

    def score(data):
        batch = ImageBatch(data, problem.batch.ctf, weights, problem.batch.valid)
        return scores(problem.volume, batch, problem.poses)[0]

    spoilt = problem.batch.data + 100.0 * (1.0 - inside)[None]
    np.testing.assert_array_equal(score(problem.batch.data), score(spoilt))
    assert not np.allclose(score(problem.batch.data), score(problem.batch.data + 1.0))


def test_residual_power_is_summed_with_its_mates_in_each_shell(problem):
    geometry = problem.geometry
    rng = np.random.default_rng(1)
    power = rng.random((3, 2, geometry.packing.n_pixels)).astype(np.float32)
    found = residual_power(jnp.asarray(power), geometry, N_SHELLS)
    for shell in range(N_SHELLS):
        members = geometry.slice_shell == shell
        expected = np.sum(power[..., members] * geometry.packing.multiplicity[members], axis=-1)
        np.testing.assert_allclose(found[..., shell], expected, rtol=1e-5)
    # Shells beyond the last one are left out, not piled onto it.
    np.testing.assert_allclose(residual_power(jnp.asarray(power), geometry, 4), found[..., :4])


def test_padding_rows_have_no_influence_on_the_others(problem):
    """What stands in the rows after the last image changes nothing of the images' results."""
    real = 4

    def padded(first, second, factor):
        """Four images, and two rows with whatever there was."""
        rows = np.array([0, 1, 2, 3, first, second])
        batch, poses = problem.batch, jax.tree.map(lambda x: x[rows], problem.poses)
        data = batch.data[rows] * np.where(np.arange(6) < real, 1.0, factor)[:, None]
        valid = jnp.arange(6) < real
        again = ImageBatch(data.astype(jnp.complex64), batch.ctf[rows], batch.weights, valid)
        return run(SEARCH, problem._replace(batch=again, poses=poses))

    one, other = padded(0, 0, 1.0), padded(3, 5, -7.0)
    for name in ("log_evidence", "rotations", "origins_px", "covariance", "residual_power"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(a[:real], b[:real])
        assert not np.array_equal(a[real:], b[real:])
