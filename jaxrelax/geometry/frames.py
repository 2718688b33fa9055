"""Frames of a part: another centre and other axes, and what poses are in them.

What turns about a point, or has its symmetry about an axis somewhere in the map, is refined in a
frame of its own, in which that point is the centre of the box and that axis is z. There it is like
any other particle; nothing else knows where in the map it sits.

A point r of the map is at ``F (r − c)`` in the frame. The view of the map at the pose A is that of
the frame at ``A Fᵀ``, and its centre is seen where c is. A rotation g of the frame is
``r → R r + t`` of the map, with ``R = Fᵀ g F`` and ``t = c − R c``: mates move origins, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from jaxrelax.arrays import AnyArray

from .recentring import recentred_origins
from .rotations import rotvec_to_matrix

Z = np.array([0.0, 0.0, 1.0])


class Frame(NamedTuple):
    """Where a part has its centre and its axes.

    Attributes:
        axes: F; its rows are the axes x, y, z of the frame.
        centre_angstrom: c, (x, y, z) from the centre of the map's box.
    """

    axes: Float64[np.ndarray, "3 3"]
    centre_angstrom: Float64[np.ndarray, "3"]

    @property
    def is_turned(self) -> bool:
        """Whether its axes are not those of the map."""
        return not np.array_equal(self.axes, np.eye(3))

    @property
    def off_axis_angstrom(self) -> float:
        """How far its z axis passes from the centre of the map's box."""
        return float(np.linalg.norm((self.axes @ self.centre_angstrom)[:2]))

    def poses(
        self,
        rotations: Float[AnyArray, "n 3 3"],
        origins_angstrom: Float[AnyArray, "n 2"],
        magnifications: Float[AnyArray, "n 2 2"] | None = None,
    ) -> tuple[Float64[np.ndarray, "n 3 3"], Float64[np.ndarray, "n 2"]]:
        """Poses of the frame at these poses of the map.

        Args:
            rotations, origins_angstrom: A and RELION's origins.
            magnifications: as of :func:`recentred_origins`.
        """
        rotations = np.asarray(rotations, np.float64)
        origins = recentred_origins(
            origins_angstrom, rotations, self.centre_angstrom, magnifications
        )
        return rotations @ self.axes.T, origins

    def poses_of_map(
        self,
        rotations: Float[AnyArray, "n 3 3"],
        origins_angstrom: Float[AnyArray, "n 2"],
        magnifications: Float[AnyArray, "n 2 2"] | None = None,
    ) -> tuple[Float64[np.ndarray, "n 3 3"], Float64[np.ndarray, "n 2"]]:
        """Poses of the map at these poses of the frame; undoes :meth:`poses`."""
        rotations = np.asarray(rotations, np.float64) @ self.axes
        back = recentred_origins(origins_angstrom, rotations, -self.centre_angstrom, magnifications)
        return rotations, back

    def operators_of_map(
        self, operators: Float[AnyArray, "m 3 3"]
    ) -> tuple[Float64[np.ndarray, "m 3 3"], Float64[np.ndarray, "m 3"]]:
        """R and t (Å) of rotations of the frame: ``r → R r + t`` in the map."""
        turned = self.axes.T @ np.asarray(operators, np.float64) @ self.axes
        return turned, self.centre_angstrom - turned @ self.centre_angstrom

    def point(self, point_angstrom: Float[AnyArray, "3"]) -> Float64[np.ndarray, "3"]:
        """Where a point of the map is in the frame."""
        return self.axes @ (np.asarray(point_angstrom, np.float64) - self.centre_angstrom)

    def point_of_map(self, point_angstrom: Float[AnyArray, "3"]) -> Float64[np.ndarray, "3"]:
        """Where a point of the frame is in the map."""
        return self.axes.T @ np.asarray(point_angstrom, np.float64) + self.centre_angstrom


def frame_along(
    centre_angstrom: Float[AnyArray, "3"], direction: Float[AnyArray, "3"] = Z
) -> Frame:
    """The frame of a centre whose z axis has a direction, by the smallest turn.

    Raises:
        ValueError: no centre or no direction.
    """
    centre = np.asarray(centre_angstrom, np.float64)
    along = np.asarray(direction, np.float64)
    length = float(np.linalg.norm(along))
    if not (np.all(np.isfinite(centre)) and np.isfinite(length) and length > 0):
        raise ValueError(
            "a frame has a centre of three finite numbers and a direction that is not zero; got "
            f"{centre.tolist()} and {along.tolist()}"
        )
    along = along / length
    across = np.cross(along, Z)
    sine, cosine = float(np.linalg.norm(across)), float(along[2])
    if sine < 1e-9:
        axes = np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    else:
        axes = rotvec_to_matrix(across / sine * np.arctan2(sine, cosine))
    return Frame(axes, centre)
