"""What moving the origin of a map means for poses: origins of images, and heights.

Vectors are in Å from the centre of the box; A takes volume to image coordinates, and a particle
sits at −origin in its image. Where the magnification is anisotropic, images show the transform of
the specimen at M k, and so what is at u in the specimen's plane at Mᵀ u.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from jaxrelax.arrays import AnyArray


def recentred_origins(
    origins_angstrom: Float[AnyArray, "*views 2"],
    rotations: Float[AnyArray, "*views 3 3"],
    centre_angstrom: Float[AnyArray, "3"],
    magnifications: Float[AnyArray, "*views 2 2"] | None = None,
) -> Float64[np.ndarray, "*views 2"]:
    """Origins of the same images for a map whose centre is moved to a point of the present one.

    The point is seen at −origin + Mᵀ (A c) in the image, and there the new centre sits; as
    ``relion_star_handler --center`` has it. The way back is the same with −c.

    Args:
        origins_angstrom: RELION's origins (x, y) in Å. Leading axes broadcast against those of
            the rotations and of the magnifications.
        rotations: A.
        centre_angstrom: c, the point (x, y, z).
        magnifications: M; None where it is the identity.
    """
    centre, poses = np.asarray(centre_angstrom, np.float64), np.asarray(rotations, np.float64)
    seen = (poses @ centre)[..., :2]
    if magnifications is not None:
        seen = np.einsum("...ij,...i->...j", np.asarray(magnifications, np.float64), seen)
    return np.asarray(origins_angstrom, np.float64) - seen


def heights_angstrom(
    rotations: Float[AnyArray, "*views 3 3"], point_angstrom: Float[AnyArray, "3"]
) -> Float64[np.ndarray, "*views"]:
    """How much nearer to the electron source a point is than the particle's centre: (A r)_z, in Å.

    Its underfocus is smaller by as much, as in localised reconstruction (Ilca et al., Nat. Commun.
    6 (2015) 8843). No projection shows which way z points: for a map of the right hand it is as
    said here if micrographs show the specimen as seen from the source.
    """
    return np.asarray(rotations, np.float64)[..., 2, :] @ np.asarray(point_angstrom, np.float64)
