"""Projections as images record them: the model of the likelihood, with nothing undone.

The likelihood takes from images what does not matter to it: the antisymmetric phase, a
multiplication by the CTF. To take something away from images themselves the model needs them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging.batch import ImageGeometry, batch_ctf
from jaxrelax.imaging.ctf import CTFParameters
from jaxrelax.imaging.half_spectrum import shift_phases
from jaxrelax.imaging.slices import FourierVolume, extract_parts


def mean_slices(
    volume: FourierVolume,
    rotations: Float[AnyArray, "batch poses 3 3"],
    weights: Float[AnyArray, "batch poses"],
    wavevectors: Float32[AnyArray, "freq 2"],
) -> Complex[Array, "batch freq"]:
    """Weighted sums of slices of a map: Σ_j w_j P(A_j). One pose at a time is in memory.

    Args:
        volume: of one map.
        rotations: A_j of every image.
        weights: w_j; those of a posterior make it the posterior mean of the projection.
        wavevectors: as for :func:`jaxrelax.imaging.extract_slices`.
    """
    rotations, weights = on_device((rotations, weights))

    def add(total, one):
        turns, weight = one
        real, imaginary = extract_parts(volume, turns, wavevectors)
        weight = weight[:, None]
        return (total[0] + weight * real[:, 0], total[1] + weight * imaginary[:, 0]), None

    empty = jnp.zeros((rotations.shape[0], len(wavevectors)), volume.values.dtype)
    poses = (jnp.swapaxes(rotations, 0, 1), jnp.swapaxes(weights, 0, 1))
    (real, imaginary), _ = jax.lax.scan(add, (empty, empty), poses)
    return jax.lax.complex(real, imaginary)


def recorded(
    slices: Complex[AnyArray, "batch freq"],
    parameters: CTFParameters,
    geometry: ImageGeometry,
    origins_px: Float[AnyArray, "batch 2"],
    *,
    phase_flipped: bool = False,
    ctf_premultiplied: bool = False,
) -> Complex[Array, "batch freq"]:
    """Packed transforms (:func:`jaxrelax.imaging.pack`) of images that show these slices.

    Args:
        slices: at ``geometry.slice_wavevectors``, of a map on the grey scale of the images.
        parameters: optics of every image.
        geometry: of the images, with their aberrations.
        origins_px: RELION's origins in image pixels; particles sit at −origin.
        phase_flipped: the images were multiplied by the sign of their CTF.
        ctf_premultiplied: they were multiplied by their CTF.
    """
    values = batch_ctf(parameters, geometry, phase_flipped)
    if ctf_premultiplied:
        # The amplitude of a group of another box is that of the image, and there only once.
        values = values**2 / geometry.amplitude
    model = jnp.asarray(slices) * values * shift_phases(-jnp.asarray(origins_px), geometry.packing)
    if geometry.odd_phase is None:
        return model
    phase = np.exp(1j * geometry.odd_phase.astype(np.float64)).astype(np.complex64)
    return model * jnp.asarray(phase)[None]
