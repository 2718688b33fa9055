"""The Gaussian log-likelihood of images given slices, per hypothesis (register or class).

Maps enter as channels of one Fourier volume; hypothesis j is channel j at the image's pose. All
log-likelihoods drop the constant that depends on the noise alone.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32, Int32

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
    batch: ImageBatch, origins_px: Float[Array, "batch 2"], geometry: ImageGeometry
) -> Complex[Array, "batch freq"]:
    """Images shifted by ``+origin`` so that their particle sits on the box centre."""
    return batch.data * shift_phases(origins_px, geometry.packing)


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
    rotations: Float[Array, "batch 3 3"],
    origins_px: Float[Array, "batch 2"],
) -> tuple[Float[Array, "batch channels"], Float[Array, "batch channels freq"]]:
    """−½ Σ weight |y − c P V_j|² for every channel j, and |y − c P V_j|² itself.

    Args:
        volume: hypotheses as channels.
        batch: packed images; ``weights`` decide the band.
        geometry: packing and slice frequencies of the images.
        rotations: A of each image.
        origins_px: RELION origins in image pixels.
    """
    blocks, stages = slice_stages(volume, rotations, geometry.slice_wavevectors)
    data = centred_data(batch, origins_px, geometry)
    images = [blocks.split(each) for each in (data.real, data.imag, batch.ctf)]

    def squared_residual(block, slices: list[Parts]):
        real, imaginary, ctf = (blocks.of_points(each, block)[:, None] for each in images)
        (model,) = slices
        return (real - ctf * model.real) ** 2 + (imaginary - ctf * model.imaginary) ** 2

    power = blocks.joined(in_stages((*stages, squared_residual), blocks.count))
    return -0.5 * jnp.einsum("bjf,f->bj", power, batch.weights), power
