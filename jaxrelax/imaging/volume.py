"""Maps to oversampled Fourier volumes and back: padding, gridding correction, unitary scale.

A *map* is a real (n, n, n) array indexed [z, y, x] with its centre at ``n // 2``; its box edge in
ångström equals that of the images, but it may be sampled more coarsely (the *working box* of a
band-limited refinement). Images are sums over z of the map sampled like the image, transformed
unitarily (÷ image box); the volume is scaled so that its slices are those transforms.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32, Int

from jaxrelax.imaging.slices import OVERSAMPLING, FourierVolume, half_shape


def working_box(max_shell: int) -> int:
    """Smallest even box whose oversampled transform serves slices up to ``max_shell``."""
    return 2 * (max_shell + 1)


def gridding_correction(n: int) -> Float32[np.ndarray, "n n n"]:
    """Separable sinc² of trilinear interpolation on a grid oversampled twofold.

    Interpolating a transform with a tent multiplies the map by the tent's transform; dividing the
    map by it beforehand (or afterwards, for the adjoint) undoes this.
    """
    x = (np.arange(n) - n // 2) / (OVERSAMPLING * n)
    profile = np.sinc(x) ** 2
    return (profile[:, None, None] * profile[None, :, None] * profile[None, None, :]).astype(
        np.float32
    )


def _signs(shape: tuple[int, ...], radius: int) -> Float32[np.ndarray, "z y x"]:
    """(−1)^(kx+ky+kz) on the half grid: moves the origin to the middle of the padded box."""
    z, y, x = (np.arange(s) for s in shape)
    parity = (z[:, None, None] - radius) + (y[None, :, None] - radius) + x[None, None, :]
    return (1.0 - 2.0 * (parity % 2)).astype(np.float32)


@partial(jax.jit, static_argnames=("radius", "image_box"))
def fourier_volume(
    maps: Float[Array, "channels n n n"], *, radius: int, image_box: int
) -> FourierVolume:
    """Oversampled, gridding-corrected transform of one or more maps, channels interleaved.

    Args:
        maps: real maps; ``n`` even and at least ``radius`` (see :func:`working_box`).
        radius: of the volume, in oversampled pixels (:func:`jaxrelax.imaging.volume_radius`).
        image_box: box of the images that the slices are compared with.
    """
    n = maps.shape[-1]
    if n % 2 or radius > n:
        raise ValueError(f"a map of box {n} cannot serve a volume of radius {radius}")
    shape = half_shape(radius)
    padded = OVERSAMPLING * n
    pad = (padded - n) // 2
    scale = (image_box / n) ** 3 / image_box
    index = jnp.arange(-radius, radius + 1) % padded
    signs = _signs(shape, radius) * np.float32(scale)

    def transform(one):
        spectrum = jnp.fft.rfftn(jnp.pad(one / gridding_correction(n), pad))
        return spectrum[index][:, index][:, :, : radius + 1] * signs

    # One map at a time: the padded transform is the largest temporary of an iteration.
    spectra = jax.lax.map(transform, maps).reshape(maps.shape[0], -1)
    return FourierVolume(jnp.concatenate([spectra.real.T, spectra.imag.T], axis=1), radius)


def map_from_half_transform(
    transform: Complex[Array, "z y x"], *, box: int, image_box: int
) -> Float[Array, "n n n"]:
    """The real map of an oversampled half transform: the inverse of :func:`fourier_volume`.

    Args:
        transform: half transform on the grid of its radius (z, y centred).
        box: working box ``n`` of the map, at least the radius.
        image_box: as in :func:`fourier_volume`.
    """
    radius = transform.shape[2] - 1
    padded = OVERSAMPLING * box
    if transform.shape != half_shape(radius) or radius > box:
        raise ValueError(f"transform of shape {transform.shape} does not fit a map of box {box}")
    # At radius == box the planes ±radius alias onto one: keep each once.
    keep = min(radius, box - 1)
    index = jnp.arange(-keep, keep + 1) % padded
    inner = slice(radius - keep, radius + keep + 1)
    values = transform * _signs(transform.shape, radius)
    half = jnp.zeros((padded, padded, box + 1), transform.dtype)
    half = half.at[index[:, None], index[None, :], : keep + 1].set(values[inner, inner, : keep + 1])
    real = jnp.fft.irfftn(half, s=(padded,) * 3)
    start = (padded - box) // 2
    window = slice(start, start + box)
    scale = image_box / (image_box / box) ** 3
    return real[window, window, window] / gridding_correction(box) * np.float32(scale)


def half_grid_shells(radius: int) -> Int[np.ndarray, "z y x"]:
    """Shell (in unpadded Fourier pixels) of every voxel of the oversampled half grid."""
    z, y, x = (np.arange(s) for s in half_shape(radius))
    r2 = (z - radius)[:, None, None] ** 2 + (y - radius)[None, :, None] ** 2 + x[None, None, :] ** 2
    return np.rint(np.sqrt(r2) / OVERSAMPLING).astype(np.int32)


def resample_map(map_: Float[np.ndarray, "n n n"], box: int) -> Float32[np.ndarray, "m m m"]:
    """Fourier crop or pad a map to another even box over the same physical extent.

    Values keep their scale: a constant stays that constant.
    """
    n = map_.shape[0]
    spectrum = np.fft.fftshift(np.fft.fftn(np.asarray(map_, np.float64)))
    m = min(n, box)
    # Symmetric about the origin: the unpaired Nyquist plane is dropped.
    source = slice(n // 2 - m // 2 + 1, n // 2 + m // 2)
    target = slice(box // 2 - m // 2 + 1, box // 2 + m // 2)
    if n == box:
        return np.asarray(map_, np.float32)
    # Both grids place the centre at their own index N // 2, so centre phases must move along.
    result = np.zeros((box,) * 3, complex)
    result[(target,) * 3] = spectrum[(source,) * 3]

    def phase(size, k):
        return np.exp(2j * np.pi * k * (size // 2) / size)

    k = np.arange(-(m // 2) + 1, m // 2)
    move = phase(n, k) / phase(box, k)
    block = result[(target,) * 3]
    block *= move[:, None, None] * move[None, :, None] * move[None, None, :]
    real = np.fft.ifftn(np.fft.ifftshift(result)).real
    return (real * (box / n) ** 3).astype(np.float32)
