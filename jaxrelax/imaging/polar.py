"""Images on rings: polar samples of packed spectra, and their angular Fourier coefficients.

Rotating an image in its plane multiplies its angular coefficients by a phase, so that all in-plane
rotations of a comparison cost one Fourier sum (Joyeux & Penczek, Ultramicroscopy 92 (2002) 33;
Barnett et al., J. Comput. Phys. 336 (2017) 110).

A sum over packed Cartesian pixels of conj(z)·P becomes one over rings: P between the rings is what
a windowed sinc makes of its polar samples, so the samples of z are the *adjoint* of that
interpolation. The sinc passes what lies within 0.4 box edges of the centre and stops what lies
beyond 0.6: P must fit the former; what z holds elsewhere does not matter.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32, Float64, Int

from jaxrelax.geometry import Aberrations
from jaxrelax.imaging.half_spectrum import NO_ABERRATIONS, HalfSpectrum

KERNEL_HALF_WIDTH = 6.0  # pixels
KERNEL_BETA = 5.1  # Kaiser window: ripple 0.2 %
# Rings beyond the band: what the sinc of pixels at its edge reaches, in the main.
RINGS_BEYOND = 2
# Angular frequencies beyond π r D/N, where those of an object of diameter D fall to nothing.
ANGULAR_MARGIN = 4
# Distance of the rings on which |P|² is taken: its transform is twice as wide as that of P.
POWER_SPACING = 0.5
# Angular frequencies of the CTF's square and of ring powers; all even. Astigmatism needs a few.
POWER_ORDERS = (0, 2, 4)


class PolarGrid(eqx.Module):
    """Rings r = 0 … last, half a turn of samples on each; angular orders, even ones first.

    Real images have F(r, θ + π) = conj F(r, θ), so half a turn and orders m ≥ 0 hold everything.
    """

    wavevectors_px: Float32[np.ndarray | Array, "rings angles 2"]  # cycles per box
    multiplicity: Float32[np.ndarray | Array, " freq"]  # of the packed pixels
    area: Float32[np.ndarray | Array, " rings"]  # of the plane that belongs to a ring, in pixels
    plus: Float32[np.ndarray | Array, "samples freq"]  # real parts: h(s − k) + h(s + k)
    minus: Float32[np.ndarray | Array, "samples freq"]  # imaginary parts
    even: Float32[np.ndarray | Array, "angles twice_even"]  # cosines, then sines
    odd: Float32[np.ndarray | Array, "angles twice_odd"]
    power_wavevectors_px: Float32[np.ndarray | Array, "fine_rings angles 2"]
    power_rings: Float32[np.ndarray | Array, "freq fine_rings"]
    power_waves: Complex[np.ndarray | Array, "freq powers"]
    # Where images shift as these samples do; None: at the same.
    image_wavevectors_px: Float32[np.ndarray | Array, "rings angles 2"] | None
    box: int = eqx.field(static=True)

    @property
    def n_rings(self) -> int:
        """Rings, the centre included."""
        return len(self.area)

    @property
    def n_angles(self) -> int:
        """Samples on half a turn."""
        return self.wavevectors_px.shape[1]

    @property
    def even_orders(self) -> Int[np.ndarray, " even"]:
        """Even angular orders, in the order of the coefficients."""
        return 2 * np.arange(self.even.shape[1] // 2)

    @property
    def odd_orders(self) -> Int[np.ndarray, " odd"]:
        """Odd angular orders."""
        return 2 * np.arange(self.odd.shape[1] // 2) + 1


def windowed_sinc(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """sinc(x) under a Kaiser window."""
    inside = np.clip(1.0 - (x / KERNEL_HALF_WIDTH) ** 2, 0.0, None)
    window = np.i0(KERNEL_BETA * np.sqrt(inside)) / np.i0(KERNEL_BETA)
    return np.sinc(x) * window * (np.abs(x) < KERNEL_HALF_WIDTH)


def polar_grid(
    packing: HalfSpectrum,
    diameter_px: float,
    last_ring: int,
    aberrations: Aberrations = NO_ABERRATIONS,
) -> PolarGrid:
    """Rings for comparing packed images with projections of an object.

    Where the magnification is anisotropic, the rings are those of the specimen: a pixel k of the
    image lies at M k between them, and a turn of the specimen still moves samples along rings.

    Args:
        packing: of the images; its band is what counts.
        diameter_px: of the object, in image pixels.
        last_ring: the outermost ring; a few beyond the band (``RINGS_BEYOND``) serve its edge.
        aberrations: their magnification matrix is M.

    Raises:
        ValueError: the object does not fit the part of the box that the interpolation passes.
    """
    n = packing.box
    if diameter_px > 0.8 * n:
        raise ValueError(
            f"an object of {diameter_px:.0f} pixels in a box of {n} is too wide for comparison on "
            "rings (at most 0.8 of the box)"
        )
    top = int(np.ceil(np.pi * last_ring * diameter_px / n)) + ANGULAR_MARGIN
    k = packing.wavevectors_px.astype(np.float64) @ aberrations.matrix.T
    ring = np.hypot(*k.T)
    reach = band_reach(packing, aberrations)
    # The orders of z go further than those that are kept, to 2π r · 0.6; they must not alias.
    angles = int(np.ceil((top + 1.2 * np.pi * reach) / 2)) + 1
    theta = np.pi * np.arange(angles) / angles
    radius = np.arange(last_ring + 1.0)
    circle = np.stack([np.cos(theta), np.sin(theta)], axis=-1)
    samples = radius[:, None, None] * circle[None]
    flat = samples.reshape(-1, 2)
    # Wavevectors are integers: the kernel along an axis has few different columns. Not so when
    # they are stretched.
    places = [np.unique(np.concatenate([x, -x]), return_inverse=True) for x in k.T]
    along = [windowed_sinc(flat[:, axis, None] - places[axis][0]) for axis in range(2)]

    def kernel(sign):
        half = slice(len(k)) if sign > 0 else slice(len(k), None)
        columns = [inverse[half] for _, inverse in places]
        return along[0][:, columns[0]] * along[1][:, columns[1]]

    here, there = kernel(1.0), kernel(-1.0) * (packing.multiplicity - 1.0)[None]
    area = 2.0 * np.pi * radius
    area[0] = 2.0 * np.pi / 12.0  # Euler–Maclaurin: the first correction of the trapezoidal rule
    fine = np.arange(0.0, reach + 1.0, POWER_SPACING)
    tent = np.clip(1.0 - np.abs(ring[:, None] - fine[None]) / POWER_SPACING, 0.0, None)
    wave = np.exp(-1j * np.arctan2(k[:, 1], k[:, 0])[:, None] * np.array(POWER_ORDERS)[None])

    def waves(orders):
        angle = theta[:, None] * orders[None]
        return np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / angles

    return PolarGrid(
        wavevectors_px=samples.astype(np.float32),
        multiplicity=packing.multiplicity,
        area=area.astype(np.float32),
        plus=(here + there).astype(np.float32),
        minus=(here - there).astype(np.float32),
        even=waves(np.arange(0, top + 1, 2)).astype(np.float32),
        odd=waves(np.arange(1, top + 1, 2)).astype(np.float32),
        power_wavevectors_px=(fine[:, None, None] * circle[None]).astype(np.float32),
        power_rings=(tent * packing.multiplicity[:, None]).astype(np.float32),
        power_waves=wave.astype(np.complex64),
        image_wavevectors_px=(
            (samples @ np.linalg.inv(aberrations.matrix).T).astype(np.float32)
            if aberrations.is_stretched
            else None
        ),
        box=n,
    )


def band_reach(packing: HalfSpectrum, aberrations: Aberrations = NO_ABERRATIONS) -> int:
    """The outermost ring of the specimen on which there are pixels."""
    if not aberrations.is_stretched:
        return packing.max_shell
    stretched = packing.wavevectors_px @ aberrations.matrix.T
    return int(np.rint(np.hypot(*stretched.T).max(initial=0.0)))


def polar_samples(
    packed: Complex[Array, "batch freq"], grid: PolarGrid
) -> tuple[Float[Array, "batch rings angles"], Float[Array, "batch rings angles"]]:
    """Real and imaginary parts on the rings: the adjoint of interpolation between the rings."""
    shape = (len(packed), grid.n_rings, grid.n_angles)
    return (
        (packed.real @ grid.plus.T).reshape(shape),
        (packed.imag @ grid.minus.T).reshape(shape),
    )


def shifted(
    samples: tuple[Float[Array, "batch rings angles"], Float[Array, "batch rings angles"]],
    shifts_px: Float[Array, "shifts 2"],
    grid: PolarGrid,
) -> tuple[Float[Array, "batch shifts rings angles"], Float[Array, "batch shifts rings angles"]]:
    """Polar samples of images shifted by every ``+t`` pixels."""
    k = grid.wavevectors_px if grid.image_wavevectors_px is None else grid.image_wavevectors_px
    phase = jnp.einsum("rax,tx->tra", k, shifts_px) * (-2.0 * np.pi / grid.box)
    cosine, sine = jnp.cos(phase)[None], jnp.sin(phase)[None]
    real, imaginary = samples[0][:, None], samples[1][:, None]
    return real * cosine - imaginary * sine, real * sine + imaginary * cosine


class AngularCoefficients(eqx.Module):
    """c_m(r) of F(r, θ) = Σ_m c_m e^{imθ}, m ≥ 0; orders first: they are matrices of a product."""

    even_real: Float[Array, "even *images rings"]
    even_imaginary: Float[Array, "even *images rings"]
    odd_real: Float[Array, "odd *images rings"]
    odd_imaginary: Float[Array, "odd *images rings"]


def angular_coefficients(
    samples: tuple[Float[Array, "*images rings angles"], Float[Array, "*images rings angles"]],
    grid: PolarGrid,
) -> AngularCoefficients:
    """Angular Fourier coefficients of polar samples.

    Over the half turn that is kept, even orders come from the real parts and odd orders from the
    imaginary parts alone.
    """
    even = jnp.einsum("...ra,am->m...r", samples[0], grid.even)
    odd = jnp.einsum("...ra,am->m...r", samples[1], grid.odd)
    n_even, n_odd = len(grid.even_orders), len(grid.odd_orders)
    return AngularCoefficients(even[:n_even], -even[n_even:], odd[n_odd:], odd[:n_odd])
