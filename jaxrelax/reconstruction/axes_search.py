"""Orientations in which a map may have a group: all of them are looked at, coarsely.

A locked self-rotation function (Tong & Rossmann, Acta Cryst. A46 (1990) 783): how well a coarse map
agrees with itself turned by the angles of the group is tabulated over directions of the axis, once
for each angle; an orientation of the group is then a few looks into the table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Float64
from scipy.spatial import KDTree

from jaxrelax.geometry import (
    PointGroup,
    healpix_directions,
    matrix_to_rotvec,
    operator_classes,
    poses_of_directions,
    rotation_angle,
    rotvec_to_matrix,
)
from jaxrelax.reconstruction.masks import otsu_threshold
from jaxrelax.reconstruction.self_rotation import SelfRotation, coarse_copy

BOX = 20
# HEALPix orders: of the axes that are tabulated (3.7°), and of the orientations that are looked up.
TABLE_ORDER, GRID_ORDER = 4, 3
TURNS_ABOUT = 48
# Orientations nearer to each other than this, up to the group, climb to the same place.
DISTINCT_DEG = 12.0
CANDIDATES = 6
# Voxels of the coarse copy by which the centre of mass is off before it is tried as the centre.
OFF_CENTRE_PX = 0.7


class Orientation(NamedTuple):
    """A motion ``x → rotation (x − centre)`` from which aligning a map may begin."""

    rotation: Float64[np.ndarray, "3 3"]
    centre_px: Float64[np.ndarray, "3"]


def possible_orientations(
    map_: Float[np.ndarray, "n n n"], group: PointGroup, count: int = CANDIDATES
) -> list[Orientation]:
    """Orientations in which a map has a group best, of all on a grid of 7°.

    Every setting of the group is among those that are looked at. The axes go through the centre of
    the box, or through the centre of mass where that is elsewhere.

    Args:
        map_: the map.
        group: a group of more than the identity.
        count: how many, at most, for each centre.
    """
    coarse, voxel = coarse_copy(map_, BOX)
    centres = [np.zeros(3)]
    heavy = np.clip(coarse - otsu_threshold(coarse.ravel()), 0.0, None)
    if heavy.any():
        mass = np.array(scipy.ndimage.center_of_mass(heavy))[::-1] - len(coarse) // 2
        if np.linalg.norm(mass) > OFF_CENTRE_PX:
            centres.append(mass)
    rotations = _grid(group)
    found = []
    for centre in centres:
        shifted = scipy.ndimage.shift(coarse, -centre[::-1], order=3) if centre.any() else coarse
        scores = _scores(SelfRotation(shifted), group, rotations)
        for index in _peaks(scores, rotations, group, count):
            found.append(Orientation(rotations[index], centre * voxel))
    return found


def _scores(copies: SelfRotation, group: PointGroup, rotations) -> Float64[np.ndarray, " m"]:
    """Mean over classes of how well the map agrees with its copies, in each orientation."""
    directions = healpix_directions(TABLE_ORDER)
    directions = directions[directions[:, 2] > -1e-9]
    tree = KDTree(directions)
    tables: dict[float, np.ndarray] = {}
    total = np.zeros(len(rotations))
    classes = operator_classes(group)
    for members in classes:
        rotvecs = matrix_to_rotvec(group.operators[members])
        angles = np.linalg.norm(rotvecs, axis=1)
        # One generator of each cyclic subgroup is enough: the one of the smallest turn.
        angle = float(angles.min())
        axes = _lines(rotvecs[np.isclose(angles, angle)] / angle)
        key = round(angle, 6)
        if key not in tables:
            tables[key] = copies.correlations(rotvec_to_matrix(angle * directions))
        # The map turned by Q has the operator g where the map has Qᵀ g Q, about the axis Qᵀ a.
        seen = np.einsum("mji,aj->mai", rotations, axes)
        seen = np.where(seen[..., 2:] < 0.0, -seen, seen)
        _, nearest = tree.query(seen.reshape(-1, 3))
        total += tables[key][nearest].reshape(seen.shape[:2]).mean(axis=1)
    return total / len(classes)


def _lines(axes):
    """Each of these directions once, whatever its sign."""
    kept: list[np.ndarray] = []
    for axis in axes:
        if not any(abs(abs(axis @ other) - 1.0) < 1e-6 for other in kept):
            kept.append(axis)
    return np.array(kept)


def _grid(group: PointGroup) -> Float64[np.ndarray, "m 3 3"]:
    """Rotations of a grid, of those that the group makes equal the smallest."""
    rotvecs = matrix_to_rotvec(group.operators[1:])
    axes = _lines(rotvecs / np.linalg.norm(rotvecs, axis=1, keepdims=True))
    directions = healpix_directions(GRID_ORDER)
    if len(axes) == 1:
        # Only where the axis is matters: the smallest turn that brings it there.
        directions = directions[directions @ axes[0] > -1e-9]
        return np.stack([_bringing(direction, axes[0]) for direction in directions])
    about = 2.0 * np.pi * np.arange(TURNS_ABOUT) / TURNS_ABOUT
    spins = rotvec_to_matrix(about[:, None] * np.array([0.0, 0.0, 1.0]))
    rotations = (spins[:, None] @ poses_of_directions(directions)[None]).reshape(-1, 3, 3)
    # trace(g Q) = 1 + 2 cos(angle).
    traces = rotations.reshape(-1, 9) @ group.operators.reshape(-1, 9).T
    return rotations[traces[:, 0] >= traces.max(axis=1) - 1e-9]


def _bringing(direction, axis) -> Float64[np.ndarray, "3 3"]:
    """The smallest rotation that takes one direction to another."""
    across = np.cross(direction, axis)
    sine, cosine = np.linalg.norm(across), float(direction @ axis)
    if sine < 1e-9:
        return np.eye(3)
    return rotvec_to_matrix(across / sine * np.arctan2(sine, cosine))


def _peaks(scores, rotations, group: PointGroup, count: int) -> list[int]:
    """Indices of the best orientations that lie apart."""
    kept: list[int] = []
    for index in np.argsort(-scores)[: 50 * count]:
        mates = rotations[index].T @ group.operators
        near = [
            np.rad2deg(rotation_angle(mates @ rotations[other]).min()) < DISTINCT_DEG
            for other in kept
        ]
        if not any(near):
            kept.append(int(index))
        if len(kept) == count:
            break
    return kept
