"""The contrast transfer function, in RELION's sign, at arbitrary spatial frequencies.

Source: RELION 3.1 to 5 (behaviour, not code); the physics is Rohou & Grigorieff,
J. Struct. Biol. 192 (2015) 216, with amplitude contrast as a phase.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelax.arrays import AnyArray, on_device

ANGSTROM_PER_MM = 1e7


class CTFParameters(eqx.Module):
    """Optics of a batch of images; every field has the shape of the batch (or is a scalar).

    Units: ångström, degrees, kilovolt, millimetre, as in RELION STAR files.
    """

    defocus_u_angstrom: Float[AnyArray, "*batch"]
    defocus_v_angstrom: Float[AnyArray, "*batch"]
    defocus_angle_deg: Float[AnyArray, "*batch"]
    phase_shift_deg: Float[AnyArray, "*batch"]
    bfactor_angstrom2: Float[AnyArray, "*batch"]
    voltage_kv: Float[AnyArray, "*batch"]
    spherical_aberration_mm: Float[AnyArray, "*batch"]
    amplitude_contrast: Float[AnyArray, "*batch"]
    scale: Float[AnyArray, "*batch"] | None = None  # a factor of the whole CTF; None is 1


def electron_wavelength_angstrom(voltage_kv: Float[AnyArray, "*batch"]) -> Float[Array, "*batch"]:
    """Relativistic electron wavelength in Å for an accelerating voltage in kV."""
    volts = 1e3 * jnp.asarray(voltage_kv)
    return 12.2643247 / jnp.sqrt(volts * (1.0 + 0.978466e-6 * volts))


def ctf(
    parameters: CTFParameters,
    frequencies: Float[AnyArray, "freq 2"],
    even_phase: Float[AnyArray, " freq"] | None = None,
) -> Float[Array, "*batch freq"]:
    """CTF values of a batch at shared spatial frequencies.

    Args:
        parameters: optics, each field with the shape of the batch.
        frequencies: (x, y) spatial frequencies in 1/Å.
        even_phase: symmetric aberrations at these frequencies, in radians
            (:meth:`jaxrelax.geometry.Aberrations.even_phase`).

    Returns:
        ``scale · sin(πλΔf k² − ½πCsλ³k⁴ + φ + atan(Q0/√(1−Q0²)) − even) · exp(−Bk²/4)``, which is
        ``+Q0`` at k = 0 (RELION's sign: protein white, under-focus positive).
    """
    parameters, frequencies, even_phase = on_device((parameters, frequencies, even_phase))

    def column(x):
        return jnp.asarray(x)[..., None]

    wavelength = column(electron_wavelength_angstrom(parameters.voltage_kv))
    kx, ky = frequencies[:, 0], frequencies[:, 1]
    batch_axes = tuple(range(jnp.ndim(parameters.defocus_u_angstrom)))
    kx, ky = jnp.expand_dims(kx, batch_axes), jnp.expand_dims(ky, batch_axes)
    k2 = kx**2 + ky**2

    # Δf(θ) k² without the angle of k: cos 2(θ−α) k² = (kx²−ky²) cos 2α + 2 kx ky sin 2α,
    # which is smooth (and so differentiable) at k = 0.
    mean = 0.5 * (parameters.defocus_u_angstrom + parameters.defocus_v_angstrom)
    half_difference = 0.5 * (parameters.defocus_u_angstrom - parameters.defocus_v_angstrom)
    two_alpha = 2.0 * jnp.deg2rad(parameters.defocus_angle_deg)
    defocus_k2 = column(mean) * k2 + column(half_difference * jnp.cos(two_alpha)) * (kx**2 - ky**2)
    defocus_k2 = defocus_k2 + column(half_difference * jnp.sin(two_alpha)) * (2.0 * kx * ky)

    cs = column(parameters.spherical_aberration_mm) * ANGSTROM_PER_MM
    q0 = parameters.amplitude_contrast
    phase = (
        jnp.pi * wavelength * defocus_k2
        - 0.5 * jnp.pi * cs * wavelength**3 * k2**2
        + column(jnp.deg2rad(parameters.phase_shift_deg))
        + column(jnp.arctan(q0 / jnp.sqrt(1.0 - q0**2)))
    )
    if even_phase is not None:
        phase = phase - jnp.expand_dims(jnp.asarray(even_phase), batch_axes)
    values = jnp.sin(phase) * jnp.exp(-0.25 * column(parameters.bfactor_angstrom2) * k2)
    return values if parameters.scale is None else values * column(parameters.scale)
