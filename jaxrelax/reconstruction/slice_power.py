"""What slices of a map hold, on average over orientations."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray, traced
from jaxrelax.reconstruction.fsc import cross_power, shell_counts, spectrum


def slice_power(
    map_: Float32[AnyArray, "b b b"], image_box: int, n_shells: int
) -> Float[AnyArray, " shells"]:
    """E|P V|² per shell at random orientations: what slices of the map hold; zero beyond its box.

    Args:
        map_: on a working box.
        image_box: box of the images.
        n_shells: length of the result.
    """
    n, kept = len(map_), min(n_shells, len(map_) // 2)
    map_ = map_ if traced(map_) else np.asarray(map_)
    transform = spectrum(map_)
    mean = cross_power(transform, transform, n) / np.maximum(shell_counts(n), 1.0)
    power = mean[:kept] * ((image_box / n) ** 3 / image_box) ** 2
    xp = jnp if traced(map_) else np
    return xp.pad(power, (0, n_shells - kept))
