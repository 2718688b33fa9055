"""A batch of images as the numerical core sees it."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Float32, Int, Int32

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging.ctf import CTFParameters, ctf
from jaxrelax.imaging.half_spectrum import HalfSpectrum

# Below this CTF amplitude a pre-multiplied pixel holds no usable signal.
SMALLEST_PREMULTIPLIED_CTF = 0.02


class ImageGeometry(eqx.Module):
    """How images of one optics group sit on the Fourier grid of the map.

    Boxes and pixel sizes may differ between groups; the map's grid is the reference.
    """

    packing: HalfSpectrum
    slice_wavevectors: Float32[np.ndarray, "freq 2"]  # in Fourier pixels of the map box
    slice_shell: Int32[np.ndarray, " freq"]  # shell on the map's grid
    frequencies: Float32[np.ndarray, "freq 2"]  # 1/Å
    amplitude: float = eqx.field(static=True)  # unitary image transform over that of the map's box

    @property
    def n_inner(self) -> int:
        """Pixels of the inner (scored) band; they come first."""
        return self.packing.n_inner

    @property
    def scale(self) -> float:
        """Fourier pixels of the map per Fourier pixel of the images: the ratio of box edges."""
        widest = int(np.argmax(self.packing.wavevectors_px[:, 0]))
        return float(self.slice_wavevectors[widest, 0] / self.packing.wavevectors_px[widest, 0])

    @property
    def pixel_size_angstrom(self) -> float:
        """Of the images."""
        widest = int(np.argmax(self.packing.wavevectors_px[:, 0]))
        per_box = self.packing.wavevectors_px[widest, 0] / self.packing.box
        return float(per_box / self.frequencies[widest, 0])

    def inner(self) -> ImageGeometry:
        """The same for the inner band alone."""
        return self.select(slice(self.n_inner))

    def select(self, rows: slice | Int[np.ndarray, " some"]) -> ImageGeometry:
        """The same for some of the pixels, all of them its inner band."""
        return ImageGeometry(
            self.packing.select(rows), self.slice_wavevectors[rows], self.slice_shell[rows],
            self.frequencies[rows], self.amplitude,
        )  # fmt: skip


def image_geometry(
    packing: HalfSpectrum, pixel_size_angstrom: float, map_box: int, map_pixel_size_angstrom: float
) -> ImageGeometry:
    """Geometry of a group of images relative to a map of another (or the same) sampling."""
    ratio = (map_box * map_pixel_size_angstrom) / (packing.box * pixel_size_angstrom)
    wavevectors = packing.wavevectors_px * np.float32(ratio)
    # At one electron dose, images normalised to unit background noise carry the signal in
    # proportion to their pixel size; over the pixel area and the unitary factor 1/N this leaves
    # the ratio of box edges.
    amplitude = ratio
    return ImageGeometry(
        packing=packing,
        slice_wavevectors=wavevectors.astype(np.float32),
        slice_shell=np.rint(np.hypot(wavevectors[:, 0], wavevectors[:, 1])).astype(np.int32),
        frequencies=packing.frequencies(pixel_size_angstrom),
        amplitude=float(amplitude),
    )


class ImageBatch(eqx.Module):
    """Packed images of one optics group with their CTFs and pixel weights.

    ``data`` is centred on the box centre, not yet on the particle.
    """

    data: Complex[AnyArray, "batch freq"]
    ctf: Float[AnyArray, "batch freq"]  # times the amplitude factor of the geometry
    weights: Float[AnyArray, " freq"]  # multiplicity / noise power, zero outside the scored band
    valid: Bool[AnyArray, " batch"]  # False for padding rows


def batch_ctf(
    parameters: CTFParameters, geometry: ImageGeometry, phase_flipped: bool
) -> Float[Array, "batch freq"]:
    """CTF of a batch on the packed pixels; its absolute value for phase-flipped images."""
    values = ctf(parameters, jnp.asarray(geometry.frequencies))
    return (jnp.abs(values) if phase_flipped else values) * geometry.amplitude


def undo_premultiplication(
    data: Complex[AnyArray, "batch freq"], ctf_values: Float[AnyArray, "batch freq"]
) -> tuple[Complex[Array, "batch freq"], Float[Array, "batch freq"]]:
    """Images that were multiplied by their CTF, divided by it again where it is not tiny.

    The likelihood of c·y under noise c²σ² is that of y under σ²; where the CTF vanishes the pixel
    says nothing, so both data and CTF are set to zero there.
    """
    data, ctf_values = on_device((data, ctf_values))
    usable = jnp.abs(ctf_values) > SMALLEST_PREMULTIPLIED_CTF
    safe = jnp.where(usable, ctf_values, 1.0)
    return jnp.where(usable, data / safe, 0.0), jnp.where(usable, ctf_values, 0.0)
