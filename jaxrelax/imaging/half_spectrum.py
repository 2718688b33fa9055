"""Packing: the in-band half spectrum of a real image as a flat vector of Fourier pixels.

A real N×N image is fully described by half of its Fourier plane. We keep the pixels
``{kx > 0} ∪ {kx = 0, ky ≥ 0}`` whose radius rounds to at most ``max_shell``; every pixel but the
origin then stands for itself and its conjugate (multiplicity 2). The transform is unitary
(divided by N), so white noise of variance s² per image pixel has E|X|² = s² per Fourier pixel.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32, Int, Int32

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import Aberrations

NO_ABERRATIONS = Aberrations()


class HalfSpectrum(eqx.Module):
    """Which Fourier pixels are kept, and where they sit (host-resident NumPy leaves).

    The pixels inside ``inner_shell`` come first, so a program that needs only the low-resolution
    band works on a prefix; within each part they run along rows, which keeps gathers local.
    """

    wavevectors_px: Float32[np.ndarray, "freq 2"]  # integer (kx, ky), cycles per box
    shell: Int32[np.ndarray, " freq"]  # round(|k|)
    multiplicity: Float32[np.ndarray, " freq"]  # 2, or 1 at the origin
    flat_index: Int32[np.ndarray, " freq"]  # into the (N, N//2+1) array of rfft2
    box: int = eqx.field(static=True)
    max_shell: int = eqx.field(static=True)
    n_inner: int = eqx.field(static=True)

    @property
    def n_pixels(self) -> int:
        """Number of Fourier pixels kept."""
        return len(self.shell)

    def inner(self) -> HalfSpectrum:
        """The packing of the inner band alone (a prefix of this one)."""
        return self.select(slice(self.n_inner))

    def select(self, rows: slice | Int[np.ndarray, " some"]) -> HalfSpectrum:
        """The packing of some of the pixels, all of them its inner band."""
        shell = self.shell[rows]
        return HalfSpectrum(
            self.wavevectors_px[rows], shell, self.multiplicity[rows], self.flat_index[rows],
            self.box, int(shell.max(initial=0)), len(shell),
        )  # fmt: skip

    def frequencies(self, pixel_size_angstrom: float) -> Float32[np.ndarray, "freq 2"]:
        """(x, y) spatial frequencies in 1/Å."""
        return self.wavevectors_px / np.float32(self.box * pixel_size_angstrom)


def half_spectrum(
    box: int,
    max_shell: int,
    inner_shell: int | None = None,
    aberrations: Aberrations = NO_ABERRATIONS,
) -> HalfSpectrum:
    """Packing of a ``box``×``box`` image up to ``max_shell`` (at most ``box // 2 - 1``).

    The Nyquist ring is never kept: its pixels are not unique, and CTF images disagree there. Where
    the magnification is anisotropic, the shells that bound the bands are those of the specimen,
    and the bands ellipses on the image's grid.

    Raises:
        ValueError: odd box, or shells beyond the image.
    """
    if box % 2:
        raise ValueError(f"even boxes only, got {box}; crop or pad the images by one pixel")
    if not 1 <= max_shell <= box // 2 - 1:
        raise ValueError(f"max_shell must lie in 1..{box // 2 - 1} for box {box}, got {max_shell}")
    inner_shell = max_shell if inner_shell is None else min(inner_shell, max_shell)
    kx, ky = np.meshgrid(np.arange(box // 2 + 1), np.fft.fftfreq(box, 1 / box).astype(int))
    flat = np.arange(kx.size).reshape(kx.shape)
    shell = np.rint(np.hypot(kx, ky)).astype(np.int32)
    unique = (kx > 0) | (ky >= 0)
    band = shell
    if aberrations.is_stretched:
        stretched = np.stack([kx, ky], axis=-1) @ aberrations.matrix.T
        band = np.rint(np.hypot(stretched[..., 0], stretched[..., 1])).astype(np.int32)
    keep = unique & (band <= max_shell) & (kx < box // 2) & (np.abs(ky) < box // 2)
    order = np.argsort(band[keep] > inner_shell, kind="stable")
    kx, ky, flat, shell, band = (array[keep][order] for array in (kx, ky, flat, shell, band))
    return HalfSpectrum(
        wavevectors_px=np.stack([kx, ky], axis=1).astype(np.float32),
        shell=shell,
        multiplicity=np.where((kx == 0) & (ky == 0), 1.0, 2.0).astype(np.float32),
        flat_index=flat.astype(np.int32),
        box=box,
        max_shell=int(shell.max()) if aberrations.is_stretched else max_shell,
        n_inner=int((band <= inner_shell).sum()),
    )


def pack(
    images: Float[AnyArray, "batch y x"], packing: HalfSpectrum
) -> Complex[Array, "batch freq"]:
    """Unitary Fourier transform of real images about the centre ``box // 2``, packed.

    Moving the origin to the box centre multiplies by (−1)^(kx+ky), exactly, for even boxes.
    """
    n = packing.box
    spectrum = jnp.fft.rfft2(jnp.asarray(images)) / n
    packed = spectrum.reshape(images.shape[0], -1)[:, packing.flat_index]
    return packed * centring_signs(packing)[None, :]


def unpack(
    packed: Complex[AnyArray, "batch freq"], packing: HalfSpectrum
) -> Float[Array, "batch y x"]:
    """Real images of a packed spectrum (zero outside the band): the inverse of :func:`pack`."""
    n = packing.box
    values = jnp.asarray(packed) * centring_signs(packing)[None, :]
    half = jnp.zeros((packed.shape[0], n * (n // 2 + 1)), values.dtype)
    half = half.at[:, packing.flat_index].set(values)
    # kx = 0 is its own mirror column: the half that was not kept is the conjugate of the rest.
    on_axis = (packing.wavevectors_px[:, 0] == 0) & (packing.wavevectors_px[:, 1] > 0)
    ky = packing.wavevectors_px[:, 1].astype(int)
    mirrored = ((-ky) % n)[on_axis] * (n // 2 + 1)
    half = half.at[:, mirrored].set(jnp.conj(values[:, np.flatnonzero(on_axis)]))
    return jnp.fft.irfft2(half.reshape(-1, n, n // 2 + 1), s=(n, n)) * n


def centring_signs(packing: HalfSpectrum) -> Float32[np.ndarray, " freq"]:
    """(−1)^(kx+ky): moves the origin of the transform to pixel ``box // 2``."""
    parity = packing.wavevectors_px.astype(int).sum(axis=1) % 2
    return (1.0 - 2.0 * parity).astype(np.float32)


def shift_phases(
    shifts_px: Float[AnyArray, "*batch 2"], packing: HalfSpectrum
) -> Complex[Array, "*batch freq"]:
    """exp(−2πi k·t/N): multiplies a spectrum to shift its image by ``+t`` pixels (x, y)."""
    k = jnp.asarray(packing.wavevectors_px) * (-2.0 * np.pi / packing.box)
    return jnp.exp(1j * jnp.einsum("...c,fc->...f", shifts_px, k))
