"""CTF: RELION's sign and formula against a plain float64 evaluation; gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.imaging import CTFParameters, ctf

FIELDS = dict(
    defocus_u_angstrom=[15000.0, 22000.0],
    defocus_v_angstrom=[14000.0, 21500.0],
    defocus_angle_deg=[30.0, -70.0],
    phase_shift_deg=[0.0, 90.0],
    bfactor_angstrom2=[0.0, 60.0],
    voltage_kv=[300.0, 200.0],
    spherical_aberration_mm=[2.7, 2.0],
    amplitude_contrast=[0.1, 0.07],
)


def parameters(dtype=jnp.float32):
    return CTFParameters(**{k: jnp.asarray(v, dtype) for k, v in FIELDS.items()})


def reference(row, k):
    u, v, angle, phase, b, kv, cs, q0 = (FIELDS[name][row] for name in FIELDS)
    volts = kv * 1e3
    wavelength = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    k2 = (k**2).sum(1)
    theta = np.arctan2(k[:, 1], k[:, 0])
    df = 0.5 * (u + v) + 0.5 * (u - v) * np.cos(2 * (theta - np.deg2rad(angle)))
    chi = np.pi * wavelength * df * k2 - 0.5 * np.pi * cs * 1e7 * wavelength**3 * k2**2
    chi += np.deg2rad(phase) + np.arctan(q0 / np.sqrt(1 - q0**2))
    return np.sin(chi) * np.exp(-b * k2 / 4)


def test_matches_the_textbook_formula():
    k = np.random.default_rng(0).uniform(-0.15, 0.15, (200, 2))
    values = ctf(parameters(), jnp.asarray(k, jnp.float32))
    for row in range(2):
        np.testing.assert_allclose(values[row], reference(row, k), atol=2e-4)


def test_is_plus_amplitude_contrast_at_the_origin():
    values = ctf(parameters(), jnp.zeros((1, 2)))
    # Row 1 has a phase plate of 90°: cos(asin(q0)) instead of q0.
    np.testing.assert_allclose(values[:, 0], [0.1, np.sqrt(1 - 0.07**2)], atol=1e-6)


@pytest.mark.parametrize("field", ["defocus_u_angstrom", "defocus_angle_deg", "phase_shift_deg"])
def test_gradient_matches_finite_differences(field):
    k = jnp.asarray(np.random.default_rng(1).uniform(-0.1, 0.1, (50, 2)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(2).standard_normal((2, 50)), jnp.float32)

    def total(values):
        changed = {name: jnp.asarray(v, values.dtype) for name, v in FIELDS.items()}
        changed[field] = values
        return jnp.sum(
            weights.astype(values.dtype) * ctf(CTFParameters(**changed), k.astype(values.dtype))
        )

    with jax.enable_x64(True):
        x = jnp.asarray(FIELDS[field], jnp.float64)
        gradient = jax.grad(total)(x)
        step = 1e-3 * np.abs(x).max()
        for row in range(2):
            e = jnp.zeros(2).at[row].set(step)
            numeric = (total(x + e) - total(x - e)) / (2 * step)
            np.testing.assert_allclose(gradient[row], numeric, rtol=1e-3, atol=1e-9)
    assert jax.grad(total)(jnp.asarray(FIELDS[field], jnp.float32)).shape == (2,)
