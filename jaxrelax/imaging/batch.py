"""A batch of images as the numerical core sees it."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Float32, Int, Int32

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.geometry import Aberrations
from jaxrelax.imaging.ctf import CTFParameters, ctf
from jaxrelax.imaging.half_spectrum import NO_ABERRATIONS, HalfSpectrum

# Below this CTF amplitude a pre-multiplied pixel holds no usable signal.
SMALLEST_PREMULTIPLIED_CTF = 0.02


class ImageGeometry(eqx.Module):
    """How images of one optics group sit on the Fourier grid of the map.

    Boxes and pixel sizes may differ between groups; the map's grid is the reference. Slices and
    CTFs are taken at frequencies of the specimen, M k where the magnification is anisotropic;
    images are shifted at those of the image, k, which the packing has.
    """

    packing: HalfSpectrum
    slice_wavevectors: Float32[np.ndarray, "freq 2"]  # in Fourier pixels of the map box
    slice_shell: Int32[np.ndarray, " freq"]  # shell on the map's grid
    frequencies: Float32[np.ndarray, "freq 2"]  # 1/Å
    even_phase: Float32[np.ndarray, " freq"] | None  # of the CTF, in radians; None is 0
    odd_phase: Float32[np.ndarray, " freq"] | None  # of the images, in radians; None is 0
    amplitude: float = eqx.field(static=True)  # unitary image transform over that of the map's box
    pixel_size_angstrom: float = eqx.field(static=True)  # of the images
    aberrations: Aberrations = eqx.field(static=True)

    @property
    def n_inner(self) -> int:
        """Pixels of the inner (scored) band; they come first."""
        return self.packing.n_inner

    @property
    def scale(self) -> float:
        """Fourier pixels of the map per Fourier pixel of the images: the ratio of box edges."""
        return float(np.float32(self.amplitude))

    def inner(self) -> ImageGeometry:
        """The same for the inner band alone."""
        return self.select(slice(self.n_inner))

    def select(self, rows: slice | Int[np.ndarray, " some"]) -> ImageGeometry:
        """The same for some of the pixels, all of them its inner band."""
        even, odd = (
            None if phase is None else phase[rows] for phase in (self.even_phase, self.odd_phase)
        )
        return ImageGeometry(
            self.packing.select(rows), self.slice_wavevectors[rows], self.slice_shell[rows],
            self.frequencies[rows], even, odd,
            self.amplitude, self.pixel_size_angstrom, self.aberrations,
        )  # fmt: skip


def image_geometry(
    packing: HalfSpectrum,
    pixel_size_angstrom: float,
    map_box: int,
    map_pixel_size_angstrom: float,
    aberrations: Aberrations = NO_ABERRATIONS,
) -> ImageGeometry:
    """Geometry of a group of images relative to a map of another (or the same) sampling.

    Args:
        packing: of the images, made with the same aberrations.
        pixel_size_angstrom: of the images.
        map_box, map_pixel_size_angstrom: of the map.
        aberrations: of the group.
    """
    ratio = (map_box * map_pixel_size_angstrom) / (packing.box * pixel_size_angstrom)
    wavevectors = packing.wavevectors_px * np.float32(ratio)
    frequencies = packing.frequencies(pixel_size_angstrom)
    if aberrations.is_stretched:
        wavevectors, frequencies = (
            (each.astype(np.float64) @ aberrations.matrix.T).astype(np.float32)
            for each in (wavevectors, frequencies)
        )
    even = aberrations.even_phase(frequencies).astype(np.float32) if aberrations.even else None
    odd = aberrations.odd_phase(frequencies).astype(np.float32) if aberrations.odd else None
    # At one electron dose, images normalised to unit background noise carry the signal in
    # proportion to their pixel size; over the pixel area and the unitary factor 1/N this leaves
    # the ratio of box edges.
    amplitude = ratio
    return ImageGeometry(
        packing=packing,
        slice_wavevectors=wavevectors.astype(np.float32),
        slice_shell=np.rint(np.hypot(wavevectors[:, 0], wavevectors[:, 1])).astype(np.int32),
        frequencies=frequencies,
        even_phase=even,
        odd_phase=odd,
        amplitude=float(amplitude),
        pixel_size_angstrom=float(pixel_size_angstrom),
        aberrations=aberrations,
    )


class ImageBatch(eqx.Module):
    """Packed images of one optics group with their CTFs and pixel weights.

    ``data`` is centred on the box centre, not yet on the particle, and without the antisymmetric
    phase (:func:`without_odd_phase`).
    """

    data: Complex[AnyArray, "batch freq"]
    ctf: Float[AnyArray, "batch freq"]  # times the amplitude factor of the geometry
    weights: Float[AnyArray, " freq"]  # multiplicity / noise power, zero outside the scored band
    valid: Bool[AnyArray, " batch"]  # False for padding rows


def batch_ctf(
    parameters: CTFParameters, geometry: ImageGeometry, phase_flipped: bool
) -> Float[Array, "batch freq"]:
    """CTF of a batch on the packed pixels; its absolute value for phase-flipped images."""
    even = None if geometry.even_phase is None else jnp.asarray(geometry.even_phase)
    values = ctf(parameters, jnp.asarray(geometry.frequencies), even)
    return (jnp.abs(values) if phase_flipped else values) * geometry.amplitude


def without_odd_phase(
    data: Complex[AnyArray, "batch freq"], geometry: ImageGeometry
) -> Complex[Array, "batch freq"]:
    """Packed images without the antisymmetric phase that beam tilt, trefoil and the like add.

    It has modulus 1: the likelihood of an image without it is that of the image.
    """
    data = jnp.asarray(data)
    if geometry.odd_phase is None:
        return data
    phase = geometry.odd_phase.astype(np.float64)
    return data * jnp.asarray(np.exp(-1j * phase).astype(np.complex64), data.dtype)[None]


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
