"""The Gaussian log-likelihood of images given slices, per hypothesis (register or class).

Maps enter as channels of one Fourier volume; hypothesis j is channel j at the image's pose. What
tells hypotheses apart leaves out the constant that depends on the noise alone: all log-evidences of
this package do. To learn the noise it must be there (:func:`log_normaliser`).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32, Int32

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    Parts,
    in_stages,
    shift_phases,
    slice_stages,
)


def centred_data(
    batch: ImageBatch, origins_px: Float[AnyArray, "batch 2"], geometry: ImageGeometry
) -> Complex[Array, "batch freq"]:
    """Images shifted by ``+origin`` so that their particle sits on the box centre."""
    return jnp.asarray(batch.data) * shift_phases(origins_px, geometry.packing)


def shell_indicator(
    shells: Int32[np.ndarray, " freq"], n_shells: int
) -> Float32[np.ndarray, "f s"]:
    """One-hot matrix that sums packed pixels into shells (a matrix product beats a scatter)."""
    indicator = np.zeros((len(shells), n_shells), np.float32)
    inside = shells < n_shells
    indicator[np.flatnonzero(inside), shells[inside]] = 1.0
    return indicator


def residual_power(
    power: Float[Array, "batch channels freq"], geometry: ImageGeometry, n_shells: int
) -> Float[Array, "batch channels shells"]:
    """Summed |residual|² with multiplicity, per shell of the map's grid."""
    indicator = shell_indicator(geometry.slice_shell, n_shells)
    indicator = jnp.asarray(indicator * geometry.packing.multiplicity[:, None])
    return jnp.einsum("bjf,fs->bjs", power, indicator)


def log_likelihood(
    volume: FourierVolume,
    batch: ImageBatch,
    geometry: ImageGeometry,
    rotations: Float[AnyArray, "batch 3 3"],
    origins_px: Float[AnyArray, "batch 2"],
) -> tuple[Float[Array, "batch channels"], Float[Array, "batch channels freq"]]:
    """−½ Σ weight |y − c P V_j|² for every channel j, and |y − c P V_j|² itself.

    For comparing hypotheses under one noise spectrum. It has no maximum in the spectrum: to learn
    that take :func:`log_density`.

    Args:
        volume: hypotheses as channels.
        batch: packed images; ``weights`` decide the band.
        geometry: packing and slice frequencies of the images.
        rotations: A of each image.
        origins_px: RELION origins in image pixels.
    """
    batch, origins_px = on_device((batch, origins_px))
    blocks, stages = slice_stages(volume, rotations, geometry.slice_wavevectors)
    data = centred_data(batch, origins_px, geometry)
    images = [blocks.split(each) for each in (data.real, data.imag, batch.ctf)]

    def squared_residual(block, slices: list[Parts]):
        real, imaginary, ctf = (blocks.of_points(each, block)[:, None] for each in images)
        (model,) = slices
        return (real - ctf * model.real) ** 2 + (imaginary - ctf * model.imaginary) ** 2

    power = blocks.joined(in_stages((*stages, squared_residual), blocks.count))
    return -0.5 * jnp.einsum("bjf,f->bj", power, batch.weights), power


def log_normaliser(batch: ImageBatch, geometry: ImageGeometry) -> Float[Array, ""]:
    """What log-evidences leave out: the logarithm of the noise density's normalisation.

    −½ Σ m log 2πσ² over the scored pixels (``weights`` = m/σ² above 0), m being the multiplicity
    and σ² the power, E|X|² of the unitary transform. A pixel that stands for its conjugate too is
    two real numbers of variance σ²/2, −log πσ² as a density of real and imaginary part; as the
    transform of the whole plane is unitary, the sum as it stands is that of the density of the
    image itself, of what it has in the band.

    Add it to a log-likelihood or a log-evidence of the same batch
    (:func:`jaxrelax.inference.gain_over_mixture`, ``PosePosterior.log_evidence``) wherever noise
    spectra are compared or learned; it is the same for every image of the batch.
    """
    weights = jnp.asarray(batch.weights)
    multiplicity = jnp.asarray(geometry.packing.multiplicity, weights.dtype)
    scored = weights > 0
    precision = jnp.where(scored, weights, multiplicity) / multiplicity
    log_power = jnp.where(scored, np.log(2.0 * np.pi) - jnp.log(precision), 0.0)
    return -0.5 * jnp.sum(multiplicity * log_power)


def log_density(
    volume: FourierVolume,
    batch: ImageBatch,
    geometry: ImageGeometry,
    rotations: Float[AnyArray, "batch 3 3"],
    origins_px: Float[AnyArray, "batch 2"],
) -> Float[Array, "batch channels"]:
    """Normalised log-density of the images given every channel: log p(y | A, t, V_j, σ²).

    :func:`log_likelihood` plus :func:`log_normaliser`. With ``weights`` from
    :func:`jaxrelax.imaging.pixel_weights` it can be differentiated by the noise spectrum, and is
    greatest where that is the mean residual power of each shell; over several registers
    :func:`jaxrelax.inference.gain_over_mixture` of it is the marginal likelihood.

    Arguments as for :func:`log_likelihood`.
    """
    scores, _ = log_likelihood(volume, batch, geometry, rotations, origins_px)
    return scores + log_normaliser(batch, geometry)
