"""What slices of a map hold, on average over orientations."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.reconstruction.fsc import cross_power, shell_counts, spectrum


def slice_power(
    map_: Float32[AnyArray, "b b b"], image_box: int, n_shells: int
) -> Float64[np.ndarray, " shells"]:
    """E|P V|² per shell at random orientations: what slices of the map hold; zero beyond its box.

    Args:
        map_: on a working box.
        image_box: box of the images.
        n_shells: length of the result.
    """
    n = len(map_)
    transform = spectrum(np.asarray(map_))
    mean = cross_power(transform, transform, n) / np.maximum(shell_counts(n), 1.0)
    power = np.zeros(n_shells)
    kept = min(n_shells, n // 2)
    power[:kept] = mean[:kept] * ((image_box / n) ** 3 / image_box) ** 2
    return power
