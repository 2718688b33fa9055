"""Noise models: the power of the noise at every Fourier pixel of an image.

A noise model is a frozen component; its learned part is the spectrum, an array
``power[optics_group, shell]`` = E|X|² of the unitary transform (twice the variance per real
component). RELION's ``rlnSigma2Noise`` is ``power / (2 N²)``.
"""

from __future__ import annotations

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from jaxrelax.arrays import AnyArray
from jaxrelax.imaging.half_spectrum import HalfSpectrum


class NoiseModel(eqx.Module):
    """How the noise spectrum starts and how it follows the residuals."""

    from_images: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def update(
        self,
        power: Float64[np.ndarray, "groups shells"],
        residual: Float64[np.ndarray, "groups shells"],
        count: Float64[np.ndarray, "groups shells"],
    ) -> Float64[np.ndarray, "groups shells"]:
        """New spectrum from the summed expected residual power and the number of pixels in it."""


class RadialNoise(NoiseModel):
    """One spectrum per optics group, a value per shell.

    Attributes:
        from_images: estimate it from the image background before the first iteration; otherwise
            start from white noise of unit variance (images normalised to background 1).
        fixed: keep the starting spectrum.
    """

    from_images: bool = True
    fixed: bool = False

    def update(
        self,
        power: Float64[np.ndarray, "groups shells"],
        residual: Float64[np.ndarray, "groups shells"],
        count: Float64[np.ndarray, "groups shells"],
    ) -> Float64[np.ndarray, "groups shells"]:
        """Mean residual power where pixels were seen; the old spectrum elsewhere."""
        if self.fixed:
            return power
        return np.where(count > 0, residual / np.maximum(count, 1.0), power)


def white_spectrum(n_groups: int, n_shells: int) -> Float64[np.ndarray, "groups shells"]:
    """Spectrum of white noise of unit variance per image pixel."""
    return np.ones((n_groups, n_shells))


def pixel_weights(
    power: Float[AnyArray, " shells"],
    packing: HalfSpectrum,
    shells: Int[AnyArray, " freq"],
    max_shell: Int[AnyArray, ""] | int,
) -> Float[Array, " freq"]:
    """Multiplicity ÷ noise power for each packed pixel, zero beyond ``max_shell``.

    ``−½ Σ weight·|residual|²`` over the packed pixels is the Gaussian log-likelihood of the whole
    image, up to a constant that depends on the power: see
    :func:`jaxrelax.inference.log_normaliser` where that is to be learned.
    """
    weights = jnp.asarray(packing.multiplicity) / jnp.asarray(power)[jnp.asarray(shells)]
    return jnp.where(jnp.asarray(shells) <= max_shell, weights, 0.0)
