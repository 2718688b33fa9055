"""Masks over some of the equivalent sites of a group, brought to all of them."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Float32

from jaxrelax.geometry import PointGroup, is_axis_aligned_permutation
from jaxrelax.reconstruction.ball import left_coset_representatives
from jaxrelax.reconstruction.rotate import rotate_map

# A mask may be off the axis, or drawn on a grid that does not have the symmetry, by so much.
SLACK_PX = 2
# Of a mask that reaches further under an operator than it does itself.
HIDDEN = 0.2


def over_all_sites(
    mask: Float32[np.ndarray, "n n n"], group: PointGroup
) -> Float32[np.ndarray, "n n n"]:
    """The largest value that any turned copy of a mask has: full strength at every site.

    An average would have 1/|G| at each site of a mask over one. Copies that do not permute the
    axes are interpolated linearly, so that values stay between those of the mask.

    Args:
        mask: 0 … 1, about the centre ``n // 2``.
        group: G.
    """
    exact = np.array([is_axis_aligned_permutation(g) for g in group.operators])
    largest = np.max([rotate_map(mask, g) for g in group.operators[exact]], axis=0)
    # g = r p with p among the exact ones, whose maximum is taken already.
    copies = [
        _interpolated(largest, group.operators[index])
        for index in left_coset_representatives(group, exact)
        if not exact[index]
    ]
    return np.max([largest, *copies], axis=0).astype(np.float32)


def hides_sites(
    mask: Float32[np.ndarray, "n n n"], everywhere: Float32[np.ndarray, "n n n"]
) -> bool:
    """Whether turned copies reach where a mask, widened by two voxels, does not.

    Args:
        mask: 0 … 1.
        everywhere: its :func:`over_all_sites`.
    """
    wider = scipy.ndimage.grey_dilation(mask, size=(2 * SLACK_PX + 1,) * 3)
    return bool(np.any(everywhere - wider > HIDDEN))


def _interpolated(
    mask: Float32[np.ndarray, "n n n"], rotation: Float[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "n n n"]:
    """(gV)(r) = V(g⁻¹ r), zero beyond the box."""
    # Rotations are of (x, y, z), arrays are [z, y, x].
    source = np.asarray(rotation, np.float64)[::-1, ::-1].T
    centre = np.full(3, len(mask) // 2, np.float64)
    # Homogeneous: output coordinates to those of the mask.
    motion = np.eye(4)
    motion[:3, :3] = source
    motion[:3, 3] = centre - source @ centre
    return scipy.ndimage.affine_transform(mask, motion, order=1, mode="constant")
