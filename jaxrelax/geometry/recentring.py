"""What moving the origin of a map means for poses: origins of images, and heights.

Vectors are in Å from the centre of the box; A takes volume to image coordinates, and a particle
sits at −origin in its image. Where the magnification is anisotropic, images show the transform of
the specimen at M k, and so what is at u in the specimen's plane at Mᵀ u.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64


def recentred_origins(
    origins_angstrom: Float[np.ndarray, "n 2"],
    rotations: Float[np.ndarray, "n 3 3"],
    centre_angstrom: Float[np.ndarray, "3"],
    magnifications: Float[np.ndarray, "n 2 2"] | None = None,
) -> Float64[np.ndarray, "n 2"]:
    """Origins of the same images for a map whose centre is moved to a point of the present one.

    The point is seen at −origin + Mᵀ (A c) in the image, and there the new centre sits; as
    ``relion_star_handler --center`` has it. The way back is the same with −c.

    Args:
        origins_angstrom: RELION's origins (x, y).
        rotations: A.
        centre_angstrom: c, the point (x, y, z).
        magnifications: M of every image; None where it is the identity.
    """
    centre, poses = np.asarray(centre_angstrom, np.float64), np.asarray(rotations, np.float64)
    seen = (poses @ centre)[:, :2]
    if magnifications is not None:
        seen = np.einsum("nij,ni->nj", np.asarray(magnifications, np.float64), seen)
    return np.asarray(origins_angstrom, np.float64) - seen


def heights_angstrom(
    rotations: Float[np.ndarray, "n 3 3"], point_angstrom: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, " n"]:
    """How much nearer to the electron source a point is than the particle's centre: (A r)_z.

    Its underfocus is smaller by as much, as in localised reconstruction (Ilca et al., Nat. Commun.
    6 (2015) 8843). No projection shows which way z points: for a map of the right hand it is as
    said here if micrographs show the specimen as seen from the source.
    """
    return np.asarray(rotations, np.float64)[:, 2] @ np.asarray(point_angstrom, np.float64)
