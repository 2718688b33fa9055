"""How the view of a map changes with its pose."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelax.imaging import ImageGeometry
from jaxrelax.inference.pose_search import N_OFFSETS, PosePrior


def pose_tangents(
    view: tuple[Float[Array, "batch freq"], Float[Array, "batch freq"]],
    turned: list[tuple[Float[Array, "batch freq"], Float[Array, "batch freq"]]],
    factor: Float[Array, "batch freq"],
    geometry: ImageGeometry,
    prior: PosePrior,
) -> Float[Array, "batch 5 twice_freq"]:
    """Derivatives of a view per standard deviation of the prior: three rotations, two origins.

    Args:
        view: real and imaginary parts of the slice.
        turned: those of its derivatives with respect to rotations about the axes of the image.
        factor: of every pixel: CTF and weight.
        geometry: of the pixels.
        prior: of the pose.

    Returns:
        real parts, then imaginary ones.
    """
    scales = prior.scales()
    columns = [
        tuple(scales[axis] * factor * part for part in parts) for axis, parts in enumerate(turned)
    ]
    # Adding δ to the origin moves the image by +δ, as if the view moved by −δ: i k·δ × view.
    real, imaginary = (factor * part for part in view)
    k = geometry.packing.wavevectors_px * np.float32(2.0 * np.pi / geometry.packing.box)
    for axis in range(N_OFFSETS - len(turned)):
        wave = jnp.asarray(k[:, axis])[None] * scales[len(turned) + axis]
        columns.append((-wave * imaginary, wave * real))
    return jnp.stack([jnp.concatenate(column, axis=-1) for column in columns], axis=1)
