"""Image preprocessing: background normalisation, soft circles, radial power."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from jaxrelax.arrays import AnyArray
from jaxrelax.imaging.half_spectrum import HalfSpectrum, pack


def radii_px(box: int) -> Float32[np.ndarray, "y x"]:
    """Distance of every pixel from the image centre ``box // 2``, in pixels."""
    x = np.arange(box) - box // 2
    return np.hypot(x[:, None], x[None, :]).astype(np.float32)


def soft_circle(box: int, radius_px: float, edge_px: float = 5.0) -> Float32[np.ndarray, "y x"]:
    """1 inside ``radius_px``, a raised cosine over ``edge_px``, 0 outside."""
    t = np.clip((radii_px(box) - radius_px) / edge_px, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * t)).astype(np.float32)


def normalise_background(
    images: Float[AnyArray, "batch y x"], particle_radius_px: float
) -> Float[Array, "batch y x"]:
    """Shift and scale each image to mean 0 and standard deviation 1 outside the particle circle.

    RELION's normalisation (``relion_preprocess --norm --bg_radius``), without the ramp.
    """
    images = jnp.asarray(images)
    outside = (radii_px(images.shape[-1]) > particle_radius_px).astype(np.float32)[None]
    count = outside.sum()
    mean = jnp.sum(images * outside, axis=(1, 2), keepdims=True) / count
    variance = jnp.sum(outside * (images - mean) ** 2, axis=(1, 2), keepdims=True) / count
    return (images - mean) / jnp.sqrt(variance)


def background_power(
    images: Float[AnyArray, "batch y x"], packing: HalfSpectrum, particle_radius_px: float
) -> Float[Array, "batch freq"]:
    """Noise power |X|² per Fourier pixel estimated from the region outside the particle circle.

    The image is multiplied by a soft window that removes the particle; dividing by the mean square
    of the window makes the power that of a full image of the same noise. Estimating from the
    background keeps the particle's own signal, which at low frequency exceeds the noise, out.
    """
    window = 1.0 - soft_circle(packing.box, particle_radius_px)
    spectrum = pack(jnp.asarray(images) * window[None], packing)
    return jnp.abs(spectrum) ** 2 / np.mean(window**2)
