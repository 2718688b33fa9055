"""Where the symmetry axes of a map are, and the rotation and shift that bring them home."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.optimize
from jaxtyping import Float, Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup, matrix_to_rotvec, rotvec_to_matrix
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction.axes_search import possible_orientations
from jaxrelax.reconstruction.group_fit import GroupFits
from jaxrelax.reconstruction.masks import soft_sphere
from jaxrelax.reconstruction.rotate import inside_sphere, rotate_map, symmetrise

# The map is searched on copies of these boxes, one after the other: the first has a wide basin.
SEARCH_BOXES = (20, 40)
# Beyond these a map is refused; below, the consensus poses cannot tell the difference.
ANGLE_TOLERANCE_DEG = 1.5
SHIFT_TOLERANCE_PX = 0.4
# Part of a map's asymmetric power that aligning must explain to count as misalignment. A partner on
# one site pulls the best axes off the true ones (1 to 2° if it is as heavy as all the rest), but
# explains less than 0.05 by that; an axis a pixel off explains 0.1 to 1 (box 40, Gaussians).
EXPLAINED_FRACTION = 0.1
# Correlation with copies (`GroupFits`) with which the nearest orientation is not doubted; by how
# much another must exceed it; and up to which others are as good as the best.
FITS_WELL, FITS_BETTER, FITS_ALIKE = 0.65, 0.2, 0.05
# Correlation per voxel of the search box, and per step; the non-uniform FFT allows no less. Where
# rounding hides the way down, few evaluations are spent on finding that out.
TOLERANCES = {"gtol": 2e-4, "ftol": 1e-6, "maxls": 8}


class AxisAlignment(NamedTuple):
    """Rigid motion ``x → rotation (x − centre)`` that aligns a map with its group's axes.

    Turning about an axis that all operators share, and moving along it, change nothing: the motion
    has neither.
    """

    rotation: Float64[np.ndarray, "3 3"]
    centre_px: Float64[np.ndarray, "3"]  # (x, y, z) of the map's symmetry centre
    angle_deg: float
    shift_px: float
    correlation: float
    aligned_correlation: float

    @property
    def explained_fraction(self) -> float:
        """Part of the map's asymmetric power that is gone when it is aligned."""
        before, after = 1.0 - self.correlation**2, 1.0 - self.aligned_correlation**2
        return (before - after) / max(before, 1e-12)


def symmetry_correlation(map_: Float[AnyArray, "n n n"], group: PointGroup) -> float:
    """Correlation of a (spherically masked) map with its symmetrised self; 1 if symmetric."""
    map_ = np.asarray(map_ * _particle_sphere(map_.shape[0]), np.float32)
    average = np.asarray(symmetrise(map_, group))
    return float(np.sqrt(max(np.vdot(average, map_) / max(np.vdot(map_, map_), 1e-30), 0.0)))


def moved(
    map_: Float32[AnyArray, "n n n"],
    rotation: Float[AnyArray, "3 3"],
    centre_px: Float[AnyArray, "3"],
) -> Float32[np.ndarray, "n n n"]:
    """The map with ``centre_px`` (x, y, z from the box centre) moved there, then rotated."""
    map_ = np.asarray(map_)
    spectrum = scipy.ndimage.fourier_shift(
        np.asarray(scipy.fft.rfftn(map_)), -np.asarray(centre_px)[::-1], n=len(map_), axis=-1
    )
    shifted = np.asarray(scipy.fft.irfftn(spectrum, s=map_.shape))
    return np.asarray(rotate_map(shifted.astype(np.float32), rotation))


def align_axes(
    map_: Float32[AnyArray, "n n n"],
    group: PointGroup,
    finest_box: int = SEARCH_BOXES[-1],
    *,
    everywhere: bool = True,
) -> AxisAlignment:
    """Rotation and shift that maximise the map's correlation with its symmetrised self.

    A local search (L-BFGS) on coarse copies, from the map as it is, which finds axes some twenty
    degrees off; and where the group does not fit what it finds, from the best orientations of a
    grid over all: a map in another setting of its group stands on a saddle, where nothing local
    moves. Between orientations decides what the map has in common with its turned copies beyond
    what is alike at every angle, for a long map is round about its length; of equal ones the
    smallest motion is taken.

    Args:
        map_: the map.
        group: a group of more than the identity.
        finest_box: voxels of the last copy; correlations are of that copy.
        everywhere: whether to look at all orientations.

    Raises:
        ValueError: the group is C1, which has no axes.
    """
    if group.order == 1:
        raise ValueError("C1 has no axes to align")
    map_ = np.asarray(map_)
    n = map_.shape[0]
    boxes = sorted({min(box, finest_box, n) for box in (*SEARCH_BOXES, finest_box)})
    # All starts climb on the first copies, one goes on.
    climbed = partial(_climbed, map_, group, boxes=boxes[:2])
    motion, found, before = climbed(np.zeros(6))
    if everywhere:
        motion, found, before = _best(map_, group, climbed, _Climb(motion, found, before))
    if len(boxes) > 2:
        motion, found, before = _climbed(map_, group, motion, boxes=boxes[2:])
    rotation, shift = rotvec_to_matrix(motion[:3] / _lever(n)), motion[3:]
    return AxisAlignment(
        rotation=rotation,
        centre_px=rotation.T @ shift,
        angle_deg=float(np.rad2deg(np.linalg.norm(motion[:3]) / _lever(n))),
        shift_px=float(np.linalg.norm(shift)),
        correlation=before,
        aligned_correlation=found,
    )


class _Climb(NamedTuple):
    """Where a local search ended: motion in voxels of the map, correlations on the last copy."""

    motion: Float64[np.ndarray, "6"]
    correlation: float
    unmoved: float


def _climbed(map_, group: PointGroup, motion, *, boxes) -> _Climb:
    """The local search from a motion, on copies of these boxes one after the other."""
    n = map_.shape[0]
    for box in boxes:
        coarse = _Copy(np.asarray(resample_map(map_, box)), group)
        start = coarse.free(motion * box / n)
        # What suits the coarser copy may suit this one less than the map as it was.
        before = coarse.loss(np.zeros_like(start))[0]
        if coarse.loss(start)[0] > before:
            start = np.zeros_like(start)
        found = scipy.optimize.minimize(
            coarse.loss, start, jac=True, method="L-BFGS-B", options=TOLERANCES
        )
        motion = coarse.motion(found.x) * n / box
    return _Climb(motion, -float(found.fun), -float(before))


def _best(map_, group: PointGroup, climbed: Callable[..., _Climb], near: _Climb) -> _Climb:
    """The end of the search from the map as it is, unless the group fits others better."""
    n, coarse = len(map_), np.asarray(resample_map(map_, min(len(map_), SEARCH_BOXES[-1])))

    def fit(end: _Climb) -> float:
        rotation = rotvec_to_matrix(end.motion[:3] / _lever(n))
        centre = rotation.T @ end.motion[3:] * len(coarse) / n
        return GroupFits(moved(coarse, rotation, centre)).fit(group).copies

    first = fit(near)
    if first >= FITS_WELL:
        return near
    ends = []
    for rotation, centre in possible_orientations(map_, group):
        rotvec = matrix_to_rotvec(rotation)
        ends.append(climbed(np.concatenate([_lever(n) * rotvec, rotation @ centre])))
    fits = [fit(end) for end in ends]
    if max(fits, default=first) < first + FITS_BETTER:
        return near
    good = [end for end, value in zip(ends, fits, strict=True) if value >= max(fits) - FITS_ALIKE]
    return min(good, key=lambda end: float(np.linalg.norm(end.motion)))


def misaligned_axes(
    map_: Float32[AnyArray, "n n n"], group: PointGroup, *, everywhere: bool = False
) -> AxisAlignment | None:
    """The alignment a map needs, or None if its axes are within tolerance.

    None too for a map that alignment makes hardly more symmetric: either it has no such symmetry,
    or the offset is small beside its asymmetry. Arguments as for `align_axes`; what is found near
    the map as it is may be some compromise of a map of another group, see `GroupFits`.
    """
    found = align_axes(map_, group, everywhere=everywhere)
    if found.angle_deg < ANGLE_TOLERANCE_DEG and found.shift_px < SHIFT_TOLERANCE_PX:
        return None
    return found if found.explained_fraction > EXPLAINED_FRACTION else None


class _Copy:
    """Correlation of a moved map with its symmetrised self, and how it changes with the motion.

    A motion is a rotation vector times `_lever` and a shift after the rotation, so that all six
    numbers are voxels of the copy; free are those that no common axis of the group makes void.
    """

    def __init__(self, map_: Float32[np.ndarray, "n n n"], group: PointGroup):
        # Rotated maps lose the corners of Fourier space; the map as it is must lose them too.
        self.map, self.group, self.n = np.asarray(inside_sphere(map_)), group, map_.shape[0]
        self.mask = _particle_sphere(self.n)
        self.directions = _across_shared_axis(group)

    def motion(self, free: Float[np.ndarray, " free"]) -> Float64[np.ndarray, "6"]:
        return (free.reshape(2, -1) @ self.directions).ravel()

    def free(self, motion: Float[np.ndarray, "6"]) -> Float64[np.ndarray, " free"]:
        return (motion.reshape(2, 3) @ self.directions.T).ravel()

    def loss(self, free: Float[np.ndarray, " free"]) -> tuple[float, Float64[np.ndarray, " free"]]:
        """Minus the correlation, and its gradient."""
        turn, shift = self.motion(free).reshape(2, 3)
        rotation = rotvec_to_matrix(turn / _lever(self.n))
        map_ = moved(self.map, rotation, rotation.T @ shift)
        inner = map_ * self.mask
        average = np.asarray(symmetrise(inner, self.group))
        power = max(float(np.vdot(inner, inner)), 1e-30)
        square = float(np.vdot(average, inner)) / power
        correlation = np.sqrt(max(square, 1e-12))
        # Averaging is self-adjoint: d⟨Sym V, V⟩ = 2⟨Sym V, dV⟩, and dV is the map's gradient
        # times the velocity of its points.
        weight = self.mask * (average - square * inner) / (power * correlation)
        pull = [weight * slope for slope in _slopes(map_)]
        force = np.array([p.sum(dtype=np.float64) for p in pull])
        x = np.arange(self.n) - self.n // 2
        lever = (x, x[:, None], x[:, None, None])
        moment = np.array([[np.sum(a * p, dtype=np.float64) for p in pull] for a in lever])
        torque = np.array([moment[i - 2, i - 1] - moment[i - 1, i - 2] for i in range(3)])
        torque = -(torque + np.cross(shift, force))
        gradient = np.concatenate([_turning(turn / _lever(self.n)).T @ torque, force])
        gradient[:3] /= _lever(self.n)
        return -float(correlation), -self.free(gradient)


def _lever(n: int) -> float:
    """Distance from the centre (voxels) at which rotations are measured."""
    return 0.25 * n


def _particle_sphere(n: int) -> Float32[np.ndarray, "n n n"]:
    return soft_sphere(n, 0.45 * n, 0.03 * n)


def _slopes(map_: Float32[np.ndarray, "n n n"]) -> list[np.ndarray]:
    """Derivatives of a map along x, y and z, per voxel."""
    n = map_.shape[0]
    spectrum = np.asarray(scipy.fft.rfftn(map_))
    full = 2j * np.pi * np.fft.fftfreq(n)
    half = 2j * np.pi * np.fft.rfftfreq(n)
    waves = (half, full[:, None], full[:, None, None])
    return [np.asarray(scipy.fft.irfftn(spectrum * k, s=map_.shape)) for k in waves]


def _turning(rotvec: Float[np.ndarray, "3"], step: float = 1e-5) -> Float64[np.ndarray, "3 3"]:
    """Rotation (as a vector) that follows R when its rotation vector changes, per component."""
    back = rotvec_to_matrix(rotvec).T
    further = rotvec_to_matrix(rotvec + step * np.eye(3))
    return matrix_to_rotvec(further @ back).T / step


def _across_shared_axis(group: PointGroup) -> Float64[np.ndarray, "free 3"]:
    """Orthonormal directions across the axis that all operators share; all three if none is."""
    # What every operator fixes has eigenvalue 1 of their mean, which is a projection.
    values, vectors = np.linalg.eigh(0.5 * (group.operators.mean(0) + group.operators.mean(0).T))
    return vectors[:, values < 0.5].T
