"""The noise spectrum of the next iteration, of whatever noise model."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from jaxrelax.imaging import NoiseModel
from jaxrelax.io import InputError


def next_spectrum(
    noise: NoiseModel,
    power: Float64[np.ndarray, "groups shells"],
    residual: Float64[np.ndarray, "groups shells"],
    count: Float64[np.ndarray, "groups shells"],
) -> Float64[np.ndarray, "groups shells"]:
    """What the noise model makes of the residuals; arguments as of :meth:`NoiseModel.update`.

    Raises:
        InputError: that is no spectrum for every optics group: another shape, or values that no
            power has. Images would be weighted by it in the next iteration.
    """
    updated = noise.update(power, residual, count)
    method = f"{type(noise).__name__}.update"
    try:
        # A missing return would be taken for NaN.
        spectrum = None if updated is None else np.asarray(updated, np.float64)
    except (TypeError, ValueError):
        spectrum = None
    if spectrum is None or spectrum.shape != power.shape:
        what = type(updated).__name__ if spectrum is None else f"an array of shape {spectrum.shape}"
        raise InputError(
            f"{method} returned {what}; a noise model returns an array of noise power, optics "
            f"groups by shells: {power.shape}"
        )
    wrong = np.argwhere(~(np.isfinite(spectrum) & (spectrum >= 0)))
    if len(wrong):
        group, shell = wrong[0]
        raise InputError(
            f"{method} returned a noise power of {spectrum[group, shell]:g} in shell {shell} of "
            f"optics group {group + 1}; it is finite and not negative"
        )
    return spectrum
