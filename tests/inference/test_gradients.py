"""Derivatives of the likelihood and of the marginal evidence against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import exp_so3, random_rotations
from jaxrelax.imaging import (
    CTFParameters,
    ImageBatch,
    ctf,
    fourier_volume,
    half_spectrum,
    image_geometry,
    pixel_weights,
    volume_radius,
)
from jaxrelax.inference import log_density

from .conftest import BOX, N_SHELLS, SHELL, two_registers

N_IMAGES = 4
PIXEL_ANGSTROM = 3.0


def parameters():
    """What the likelihood is differentiated by."""
    rng = np.random.default_rng(8)
    return {
        "map": jnp.asarray(two_registers(), jnp.float64),
        "rotation": jnp.asarray(0.01 * rng.standard_normal((N_IMAGES, 3))),
        "shift": jnp.asarray(rng.uniform(-1, 1, (N_IMAGES, 2))),
        "defocus": jnp.asarray(rng.uniform(1e4, 2e4, N_IMAGES)),
        "noise": jnp.asarray(rng.uniform(50.0, 100.0, N_SHELLS)),
    }


def scores(values):
    """Log-density of every image and register, as a function of everything it depends on."""
    rng = np.random.default_rng(9)
    packing = half_spectrum(BOX, SHELL)
    geometry = image_geometry(packing, PIXEL_ANGSTROM, BOX, PIXEL_ANGSTROM)
    poses = jnp.asarray(random_rotations(N_IMAGES, rng))
    data = rng.standard_normal((2, N_IMAGES, packing.n_pixels))
    volume = fourier_volume(values["map"], radius=volume_radius(SHELL), image_box=BOX)
    defocus, same = values["defocus"], jnp.ones(N_IMAGES)
    optics = CTFParameters(
        defocus_u_angstrom=defocus + 500.0,
        defocus_v_angstrom=defocus - 500.0,
        defocus_angle_deg=30.0 * same,
        phase_shift_deg=0.0 * same,
        bfactor_angstrom2=0.0 * same,
        voltage_kv=300.0 * same,
        spherical_aberration_mm=2.7 * same,
        amplitude_contrast=0.1 * same,
    )
    batch = ImageBatch(
        data=jnp.asarray(10.0 * (data[0] + 1j * data[1])),
        ctf=ctf(optics, jnp.asarray(geometry.frequencies)),
        weights=pixel_weights(values["noise"], packing, geometry.slice_shell, SHELL),
        valid=jnp.ones(N_IMAGES, bool),
    )
    rotations = exp_so3(values["rotation"]) @ poses
    return log_density(volume, batch, geometry, rotations, values["shift"])


def total(values):
    return jnp.sum(scores(values))


def marginal(values):
    return jnp.sum(jax.nn.logsumexp(scores(values), axis=1))


STEPS = {"map": 1e-5, "rotation": 1e-7, "shift": 1e-5, "defocus": 1e-1, "noise": 1e-4}


@pytest.fixture(scope="module", params=[total, marginal], ids=["total", "marginal"])
def derivative(request):
    """The compiled function, its arguments and its gradient."""
    with jax.enable_x64(True):
        values = parameters()
        function = jax.jit(request.param)
        return function, values, jax.jit(jax.grad(request.param))(values)


@pytest.mark.parametrize("name", STEPS)
def test_gradient_equals_finite_differences(derivative, name):
    function, values, gradient = derivative
    with jax.enable_x64(True):
        rng = np.random.default_rng(10)
        for _ in range(3):
            direction = jnp.asarray(rng.standard_normal(values[name].shape))
            step = STEPS[name]
            ahead, behind = (
                function({**values, name: values[name] + sign * step * direction})
                for sign in (1, -1)
            )
            expected = float(jnp.vdot(gradient[name], direction))
            assert np.isfinite(expected)
            assert expected == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-4)


def test_registers_share_the_marginal(derivative):
    # Were one register certain, the marginal would only repeat the test of one term.
    with jax.enable_x64(True):
        posterior = jax.nn.softmax(jax.jit(scores)(derivative[1]), axis=1)
        assert np.asarray(posterior).min(axis=1).max() > 0.05
