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
import scipy.fft
from jaxtyping import Array, Complex, Complex64, Float, Float32, Float64, Int

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.imaging.slices import OVERSAMPLING, FourierVolume, half_shape


def working_box(max_shell: int) -> int:
    """An even box whose oversampled transform serves slices up to ``max_shell``.

    The smallest without a prime factor above 5: Fourier transforms of others are slower.
    """
    return 2 * int(scipy.fft.next_fast_len(max_shell + 1, real=True))  # pyright: ignore


def gridding_correction(n: int) -> Float32[np.ndarray, "n n n"]:
    """Separable sinc² of trilinear interpolation on a grid oversampled twofold.

    Interpolating a transform with a tent multiplies the map by the tent's transform; dividing the
    map by it beforehand (or afterwards, for the adjoint) undoes this.
    """
    x, y, z = _gridding_profiles(n)
    return x * y * z


def _gridding_profiles(n: int) -> list[Float32[np.ndarray, "_ _ _"]]:
    """The gridding correction along each axis; their product is that of the volume."""
    x = (np.arange(n) - n // 2) / (OVERSAMPLING * n)
    profile = (np.sinc(x) ** 2).astype(np.float32)
    return [np.expand_dims(profile, axes) for axes in ((1, 2), (0, 2), (0, 1))]


def _corrected(map_: Float[Array, "n n n"]) -> Float[Array, "n n n"]:
    """A map over its gridding correction, axis by axis: a program holds no constant of its size."""
    for profile in _gridding_profiles(map_.shape[0]):
        map_ = map_ / profile
    return map_


def _centring(indices: Int[np.ndarray, " k"]) -> Complex64[np.ndarray, " k"]:
    """i^k: moves the origin from element 0 to ``n // 2`` of an axis padded from n to 2n."""
    return np.array([1, 1j, -1, -1j], np.complex64)[indices % 4]


@partial(jax.jit, static_argnames=("radius", "image_box"))
def fourier_volume(
    maps: Float[AnyArray, "channels n n n"], *, radius: int, image_box: int
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
    padded = OVERSAMPLING * n
    index = np.arange(-radius, radius + 1)
    phase = _centring(index)
    scale = np.float32((image_box / n) ** 3 / image_box)

    def planes(one):
        # Axis by axis, each padded only when its turn comes: half the work of a padded 3-D FFT.
        part = jnp.fft.rfft(_corrected(one), n=padded, axis=2)[..., : radius + 1]
        part = part * (_centring(index[radius:]) * scale)[None, None, :]
        return jnp.fft.fft(part, n=padded, axis=1)[:, index % padded] * phase[None, :, None]

    transformed = jax.vmap(planes)(maps)

    def place(y, values):
        # Row by row, all channels at once: the volume is the largest array of an iteration. There
        # must be only one of it, and every channel written by itself would go through all of it.
        row = jax.lax.dynamic_index_in_dim(transformed, y, axis=2, keepdims=False)
        row = jnp.fft.fft(row, n=padded, axis=1)[:, index % padded] * phase[None, :, None]
        row = jnp.concatenate([row.real, row.imag]).transpose(1, 2, 0)
        return jax.lax.dynamic_update_slice(values, row[:, None], (0, y, 0, 0))

    empty = jnp.zeros((*half_shape(radius), 2 * maps.shape[0]), maps.dtype)
    values = jax.lax.fori_loop(0, len(index), place, empty)
    return FourierVolume(values.reshape(-1, values.shape[-1]), radius)


def map_from_half_transform(
    transform: Complex[AnyArray, "z y x"], *, box: int, image_box: int
) -> Float[Array, "n n n"]:
    """The real map of an oversampled half transform: the inverse of :func:`fourier_volume`.

    Args:
        transform: half transform on the grid of its radius (z, y centred).
        box: working box ``n`` of the map, at least the radius.
        image_box: as in :func:`fourier_volume`.
    """
    transform = jnp.asarray(transform)
    radius = transform.shape[2] - 1
    padded = OVERSAMPLING * box
    if transform.shape != half_shape(radius) or radius > box:
        raise ValueError(f"transform of shape {transform.shape} does not fit a map of box {box}")
    # At radius == box the planes ±radius alias onto one: leave them out.
    keep = min(radius, box - 1)
    index = np.arange(-keep, keep + 1)
    inner = slice(radius - keep, radius + keep + 1)
    phase = _centring(-index)

    def inverse(part, axis):
        """Transform back along one axis and crop the padding at once."""
        shape = list(part.shape)
        shape[axis] = padded
        where = [slice(None)] * 3
        where[axis] = index % padded
        full = jnp.zeros(shape, part.dtype).at[tuple(where)].set(part)
        return jax.lax.slice_in_dim(jnp.fft.ifft(full, axis=axis), 0, box, axis=axis)

    part = transform[inner, inner, : keep + 1] * phase[:, None, None] * phase[None, :, None]
    part = inverse(inverse(part, 0), 1) * _centring(-index[keep:])[None, None, :]
    real = jnp.fft.irfft(part, n=padded, axis=2)[..., :box]
    scale = image_box / (image_box / box) ** 3
    return _corrected(real) * np.float32(scale)


def half_grid_frequencies(radius: int) -> Float64[np.ndarray, "z y x"]:
    """Length (in unpadded Fourier pixels) of every wavevector of the oversampled half grid."""
    z, y, x = (np.arange(s) for s in half_shape(radius))
    r2 = (z - radius)[:, None, None] ** 2 + (y - radius)[None, :, None] ** 2 + x[None, None, :] ** 2
    return np.sqrt(r2) / OVERSAMPLING


def half_grid_shells(radius: int) -> Int[np.ndarray, "z y x"]:
    """Shell of every voxel of the oversampled half grid."""
    return np.rint(half_grid_frequencies(radius)).astype(np.int32)


def resample_map(map_: Float[AnyArray, "n n n"], box: int) -> Float32[AnyArray, "m m m"]:
    """Fourier crop or pad a map to another even box over the same physical extent.

    Values keep their scale: a constant stays that constant.
    """
    n = map_.shape[0]
    if not on_host(map_):
        return resampled(map_, box).astype(jnp.float32)
    if n == box:
        return np.asarray(map_, np.float32)
    half = min(n, box) // 2
    # Symmetric about the origin: the unpaired Nyquist plane is dropped.
    k = np.arange(-half + 1, half)
    spectrum = np.asarray(scipy.fft.rfftn(np.asarray(map_, np.float32), workers=-1))
    kept = spectrum[k[:, None] % n, k[None, :] % n, :half]
    # Each grid has its centre at its own N // 2, which for even boxes is the factor (−1)^k in both.
    result = np.zeros((box, box, box // 2 + 1), np.complex64)
    result[k[:, None] % box, k[None, :] % box, :half] = kept
    real = np.asarray(scipy.fft.irfftn(result, s=(box,) * 3, workers=-1))
    return (real * (box / n) ** 3).astype(np.float32)


@partial(jax.jit, static_argnames="box")
def resampled(map_: Float[AnyArray, "n n n"], box: int) -> Float[Array, "m m m"]:
    """:func:`resample_map` in JAX, in the map's own precision."""
    map_ = jnp.asarray(map_)
    n = map_.shape[0]
    if n == box:
        return map_
    half = min(n, box) // 2
    k = np.arange(-half + 1, half)
    kept = jnp.fft.rfftn(map_)[(k % n)[:, None], (k % n)[None, :], :half]
    empty = jnp.zeros((box, box, box // 2 + 1), kept.dtype)
    spectrum = empty.at[(k % box)[:, None], (k % box)[None, :], :half].set(kept)
    return jnp.fft.irfftn(spectrum, s=(box,) * 3) * (box / n) ** 3


def rebox_map(map_: Float[AnyArray, "n n n"], box: int) -> Float32[np.ndarray, "m m m"]:
    """Crop a map to another box about its centre, or surround it with zeros; pixels stay.

    Centres are at ``n // 2`` before and after (RELION's ``relion_image_handler --new_box``).

    Args:
        map_: [z, y, x], any even or odd box.
        box: in voxels.
    """
    n = map_.shape[0]
    if n == box:
        return np.asarray(map_, np.float32)
    map_, inner = np.asarray(map_), min(n, box)
    here, there = (slice(m // 2 - inner // 2, m // 2 - inner // 2 + inner) for m in (n, box))
    result = np.zeros((box,) * 3, np.float32)
    result[there, there, there] = map_[here, here, here]
    return result
