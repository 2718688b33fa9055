"""Whether poses are there, and show the particle from more than one side."""

from __future__ import annotations

import numpy as np

from jaxrelax.io import InputError, Particles
from jaxrelax.refinement.modes import Mode

NARROWEST_VIEWS_DEG = 1.0  # root mean square around their common axis


def require_poses(particles: Particles, mode: Mode) -> None:
    """Refuse a table whose poses cannot make a map.

    Raises:
        InputError: no particles; no poses although the mode starts from them; or all views are
            along one axis, as in tables without a refinement and in those of 2D classes.
    """
    if len(particles) == 0:
        raise InputError(f"{particles.source}: no particles")
    if not mode.needs_poses:
        return
    if not particles.has_poses:
        raise InputError(
            f"{particles.source}: no poses, and mode {type(mode).__name__} starts from them; "
            "Homogeneous finds poses itself"
        )
    spread = view_spread_deg(particles.rotations)
    if spread < NARROWEST_VIEWS_DEG:
        raise InputError(
            f"{particles.source}: all poses look along the same axis (within {spread:.2g}°), so "
            "that there is no third dimension. Give the table of a 3D refinement (not of 2D "
            "classes), or let --mode homogeneous find the poses."
        )


def view_spread_deg(rotations: np.ndarray) -> float:
    """Root-mean-square angle between views and the axis that fits them best; up to 54.7° (all
    directions alike).

    Args:
        rotations: (particles, 3, 3), volume to image coordinates; a view and its opposite are one.
    """
    views = np.asarray(rotations, np.float64)[:, 2]
    # Around the axis and not from its eigenvalue, which cannot tell small angles from rounding.
    axis = np.linalg.eigh(views.T @ views)[1][:, -1]
    aside = views - (views @ axis)[:, None] * axis
    sine = float(np.sqrt(np.mean(np.sum(aside**2, axis=1))))
    return float(np.rad2deg(np.arcsin(min(sine, 1.0))))
