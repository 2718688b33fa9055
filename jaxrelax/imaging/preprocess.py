"""Image preprocessing: background normalisation, soft circles, radial power."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from jaxrelax.arrays import AnyArray
from jaxrelax.imaging.half_spectrum import HalfSpectrum, pack

# A normal deviation over its median absolute deviation, and pixels enough to estimate it to 4 %.
MEDIAN_DEVIATION, MEDIAN_PIXELS = 1.4826, 512
# Of the box: what lies further out is background of every particle that a refinement takes.
OUTERMOST = 0.47
# Of all pixels: so many at least show the particle where there is hardly any noise.
PARTICLE_SHARE = 0.02


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
    """Bring each image to mean 0, slope 0 and standard deviation 1 outside the particle circle.

    RELION's normalisation (``relion_preprocess --norm --bg_radius``): a plane is fitted to the
    background and taken from the whole image, which is then divided by what is left of the
    background's deviation.
    """
    given = jnp.asarray(images)
    outside = (radii_px(given.shape[-1]) > particle_radius_px).astype(np.float32)[None]
    count = outside.sum()
    # The mean first and by itself: raw images have one that is far larger than what varies.
    mean = jnp.sum(given * outside, axis=(1, 2), keepdims=True) / count
    centred = given - mean
    plane, fit = _plane(outside[0] > 0)
    level = centred - jnp.einsum("byx,yxk,kvu->bvu", centred, fit, plane)
    variance = jnp.sum(outside * level**2, axis=(1, 2), keepdims=True) / count
    return level / jnp.sqrt(variance)


def _plane(
    outside: Bool[np.ndarray, "y x"],
) -> tuple[Float32[np.ndarray, "3 y x"], Float32[np.ndarray, "y x 3"]]:
    """1, x and y on every pixel, and what finds their coefficients in some of the pixels."""
    x = np.linspace(-1.0, 1.0, len(outside))
    plane = np.stack([np.ones(outside.shape), *np.meshgrid(x, x)])
    fit = np.zeros((*outside.shape, 3))
    fit[outside] = np.linalg.pinv(plane[:, outside]).astype(np.float64)
    return plane.astype(np.float32), fit.astype(np.float32)


class BackgroundStatistics(NamedTuple):
    """What images show outside the particle's circle, and how far their pixels lie from it."""

    mean: Float[Array, " batch"]
    deviation: Float[Array, " batch"]
    peak: Float[Array, " batch"]  # largest distance of any pixel from the mean, in deviations
    spread: Float[Array, " batch"]  # largest less smallest pixel; NaN if one is not finite
    corner_spread: Float[Array, " batch"]  # the same of what lies outside the inscribed circle
    usual_peak: Float[Array, " batch"]  # distance that 2 % of the pixels exceed, in deviations


def background_statistics(
    images: Float[AnyArray, "batch y x"], particle_radius_px: float
) -> BackgroundStatistics:
    """Mean and standard deviation outside the particle circle, and the most extreme pixel.

    The deviation that the extreme is measured by is that of the median (1.48 times the median
    absolute deviation of some of the outermost pixels), which a pixel that is far off does not
    change; nor does the particle's radius.
    """
    images = jnp.asarray(images)
    flat = images.reshape(len(images), -1)
    radii = radii_px(images.shape[-1]).ravel()
    outside = np.flatnonzero(radii > particle_radius_px)
    corners = flat[:, np.flatnonzero(radii > images.shape[-1] // 2)]
    outermost = np.flatnonzero(radii > OUTERMOST * images.shape[-1])
    some = flat[:, outermost[:: -(-len(outermost) // MEDIAN_PIXELS)]]
    # Whatever all pixels have in common goes first: squares of raw values lose what varies.
    centre = jnp.median(some, axis=1, keepdims=True)
    robust = MEDIAN_DEVIATION * jnp.median(jnp.abs(some - centre), axis=1)
    away = flat - centre
    mean = jnp.mean(away[:, outside], axis=1)
    deviation = jnp.std(away[:, outside], axis=1)
    furthest = jnp.max(jnp.abs(away), axis=1)
    # Where half of the background has one value (counts of few electrons) the median is blind.
    measure = jnp.where(robust > 0, robust, deviation)
    measure = jnp.where(measure > 0, measure, 1.0)
    stride = max(1, flat.shape[1] // MEDIAN_PIXELS) | 1  # odd, so that all columns are met
    usual = jnp.quantile(jnp.abs(away[:, ::stride]), 1.0 - PARTICLE_SHARE, axis=1)
    return BackgroundStatistics(
        mean=mean + centre[:, 0],
        deviation=deviation,
        peak=furthest / measure,
        # Not by themselves: the largest of some numbers and NaN is a number on a processor.
        spread=jnp.where(
            jnp.all(jnp.isfinite(flat), axis=1),
            jnp.max(flat, axis=1) - jnp.min(flat, axis=1),
            jnp.nan,
        ),
        corner_spread=jnp.max(corners, axis=1) - jnp.min(corners, axis=1),
        usual_peak=usual / measure,
    )


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
