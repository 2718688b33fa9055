"""Images that are cut into blocks give what they give whole, in programs and outside of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import random_rotations
from jaxrelax.imaging import (
    ImageBatch,
    extract_slices,
    fourier_volume,
    half_spectrum,
    image_geometry,
    volume_radius,
    working_box,
)
from jaxrelax.imaging.slices import slice_stages
from jaxrelax.inference import PosePrior
from jaxrelax.inference.gauss_newton import normal_equations
from jaxrelax.inference.likelihood import log_likelihood


def scene(box, shell, channels, n):
    rng = np.random.default_rng(0)
    packing = half_spectrum(box, shell)
    geometry = image_geometry(packing, 3.0, box, 3.0)
    maps = rng.standard_normal((channels, *3 * (working_box(shell),))).astype(np.float32)
    volume = fourier_volume(jnp.asarray(maps), radius=volume_radius(shell), image_box=box)
    rotations = jnp.asarray(random_rotations(n, rng), jnp.float32)
    pixels = (n, packing.n_pixels)
    data = rng.standard_normal(pixels) + 1j * rng.standard_normal(pixels)
    batch = ImageBatch(
        data=jnp.asarray(data, jnp.complex64),
        ctf=jnp.asarray(rng.standard_normal(pixels), jnp.float32),
        weights=jnp.asarray(packing.multiplicity),
        valid=jnp.ones(n, bool),
    )
    return volume, batch, geometry, rotations, jnp.zeros((n, 2), jnp.float32)


@pytest.mark.parametrize("in_a_program", [False, True])
@pytest.mark.parametrize(
    ("box", "shell", "channels", "parts"),
    [
        (40, 10, 16, 2),
        pytest.param(64, 20, 4, 2, marks=pytest.mark.slow),
        pytest.param(40, 14, 16, 3, marks=pytest.mark.slow),
    ],
)
def test_every_block_has_its_own_data(box, shell, channels, parts, in_a_program):
    volume, batch, geometry, rotations, origins = scene(box, shell, channels, 6)
    assert slice_stages(volume, rotations, geometry.slice_wavevectors)[0].parts == parts
    slices = np.asarray(extract_slices(volume, rotations, geometry.slice_wavevectors))
    data, ctf = (np.asarray(x, complex)[:, None] for x in (batch.data, batch.ctf))
    expected = np.abs(data - ctf * slices) ** 2
    prior = PosePrior(jnp.ones(()), jnp.ones(()))

    def both(volume, batch, rotations, origins):
        scores, power = log_likelihood(volume, batch, geometry, rotations, origins)
        equations = normal_equations(
            volume, batch, geometry, rotations, origins, prior, box // 2 + 1
        )
        return scores, power, equations

    run = jax.jit(both) if in_a_program else both
    scores, power, equations = run(volume, batch, rotations, origins)
    largest = expected.max()
    np.testing.assert_allclose(power, expected, atol=1e-5 * largest)
    total = expected @ np.asarray(batch.weights, np.float64)
    np.testing.assert_allclose(scores, -0.5 * total, rtol=1e-4)
    np.testing.assert_allclose(equations.misfit, total, rtol=1e-4)
    # The gradient by differences: here the data of a block enter, too.
    step = 1e-3
    shifted = log_likelihood(volume, batch, geometry, rotations, origins.at[:, 0].add(step))[0]
    before = log_likelihood(volume, batch, geometry, rotations, origins.at[:, 0].add(-step))[0]
    slope = np.asarray(shifted - before) / (2 * step)
    found = np.asarray(equations.gradient)[..., 3]
    assert np.corrcoef(slope.ravel(), found.ravel())[0, 1] ** 2 > 0.99
