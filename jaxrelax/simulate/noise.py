"""Coloured noise: real, stationary, isotropic, of variance one.

White noise is drawn in real space and filtered. Drawing Fourier coefficients instead is a trap:
with phases that are not Hermitian, or real only, the images become centro-symmetric and give
false evidence about registers.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

CORNER_ANGSTROM = 30.0
"""Where the excess of low frequencies has fallen to one half."""


def noise_amplitude(
    box: int, pixel_size_angstrom: float, colour: float
) -> Float[np.ndarray, "box half"]:
    """Amplitude spectrum of the noise on the grid of ``rfft2``, for variance one per pixel.

    ``a(k) ∝ 1 + colour / (1 + (30 Å · k)²)``: white for 0; with 1 the power at low resolution is
    four times that at high resolution, as in raw micrographs.
    """
    ky, kx = np.fft.fftfreq(box)[:, None], np.fft.rfftfreq(box)[None, :]
    k2 = (kx**2 + ky**2) / pixel_size_angstrom**2
    amplitude = 1.0 + colour / (1.0 + CORNER_ANGSTROM**2 * k2)
    # The variance of a pixel is the mean power over the *full* transform.
    multiplicity = np.full(box // 2 + 1, 2.0)
    multiplicity[[0, -1]] = 1.0
    power = np.sum(amplitude**2 * multiplicity) / box**2
    return amplitude / np.sqrt(power)


def coloured_noise(
    rng: np.random.Generator, amplitude: Float[np.ndarray, "box half"]
) -> Float[np.ndarray, "box box"]:
    """One image of noise whose power spectrum is ``amplitude²`` (per pixel, white = 1)."""
    box = amplitude.shape[0]
    white = rng.standard_normal((box, box))
    return np.fft.irfft2(np.fft.rfft2(white) * amplitude)
