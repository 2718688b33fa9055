"""Where the symmetry axes of a map are, and the rotation and shift that bring them home."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.optimize
from jaxtyping import Float, Float32, Float64

from jaxrelax.geometry import PointGroup, rotvec_to_matrix
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction.masks import soft_sphere
from jaxrelax.reconstruction.rotate import rotate_map, symmetrise

COARSE_BOX = 40
# Beyond these a map is refused; below, the consensus poses cannot tell the difference.
ANGLE_TOLERANCE_DEG = 1.5
SHIFT_TOLERANCE_PX = 0.4
# A symmetric map correlates with its symmetrised self at least this well: no search then.
GOOD_CORRELATION = 0.98


class AxisAlignment(NamedTuple):
    """Rigid motion ``x → rotation (x − centre)`` that aligns a map with its group's axes."""

    rotation: Float64[np.ndarray, "3 3"]
    shift_px: float
    centre_px: Float64[np.ndarray, "3"]  # (x, y, z) of the map's symmetry centre
    angle_deg: float
    correlation: float
    aligned_correlation: float


def symmetry_correlation(map_: Float[np.ndarray, "n n n"], group: PointGroup) -> float:
    """Correlation of a (spherically masked) map with its symmetrised self; 1 if symmetric."""
    n = map_.shape[0]
    inside = soft_sphere(n, 0.45 * n, 0.03 * n)
    map_ = np.asarray(map_ * inside, np.float32)
    average = symmetrise(map_, group)
    return float(np.sqrt(max(np.vdot(average, map_) / max(np.vdot(map_, map_), 1e-30), 0.0)))


def moved(
    map_: Float32[np.ndarray, "n n n"],
    rotation: Float[np.ndarray, "3 3"],
    centre_px: Float[np.ndarray, "3"],
) -> Float32[np.ndarray, "n n n"]:
    """The map with ``centre_px`` (x, y, z from the box centre) moved there, then rotated."""
    shifted = np.fft.irfftn(
        scipy.ndimage.fourier_shift(
            np.fft.rfftn(map_), -np.asarray(centre_px)[::-1], n=map_.shape[0], axis=-1
        ),
        s=map_.shape,
    )
    return rotate_map(shifted.astype(np.float32), rotation)


def align_axes(map_: Float32[np.ndarray, "n n n"], group: PointGroup) -> AxisAlignment:
    """Rotation and shift that maximise the map's correlation with its symmetrised self.

    A local search (Powell) from the map as it is, on a coarse copy: axes a few tens of degrees off
    are found, a map in another setting of its group need not be.
    """
    n = map_.shape[0]
    box = min(COARSE_BOX, n)
    coarse = resample_map(map_, box)

    def loss(x):
        rotation = rotvec_to_matrix(np.deg2rad(10.0 * x[:3]))
        return -symmetry_correlation(moved(coarse, rotation, x[3:]), group)

    before = -loss(np.zeros(6))
    found = scipy.optimize.minimize(
        loss, np.zeros(6), method="Powell", options={"xtol": 0.01, "ftol": 1e-5, "maxfev": 1500}
    )
    angle = 10.0 * found.x[:3]
    centre = found.x[3:] * n / box
    rotation = rotvec_to_matrix(np.deg2rad(angle))
    # Turning about an axis that all operators share, or moving along it, changes nothing.
    axes = [op_axis for op in group.operators[1:] if (op_axis := _axis(op)) is not None]
    angle, shift = (_without_shared_axis(v, axes) for v in (angle, centre))
    return AxisAlignment(
        rotation, float(np.linalg.norm(shift)), centre, float(np.linalg.norm(angle)),
        before, -float(found.fun),
    )  # fmt: skip


def misaligned_axes(map_: Float32[np.ndarray, "n n n"], group: PointGroup) -> AxisAlignment | None:
    """The alignment a map needs, or None if its axes are within tolerance."""
    if (
        symmetry_correlation(resample_map(map_, min(COARSE_BOX, len(map_))), group)
        > GOOD_CORRELATION
    ):
        return None
    found = align_axes(map_, group)
    if found.angle_deg < ANGLE_TOLERANCE_DEG and found.shift_px < SHIFT_TOLERANCE_PX:
        return None
    # A map without that symmetry has no axes to align: gaining nothing is not misalignment.
    if found.aligned_correlation < found.correlation + 0.02:
        return None
    return found


def _axis(operator):
    values, vectors = np.linalg.eig(operator)
    nearest = int(np.argmin(np.abs(values - 1.0)))
    return np.real(vectors[:, nearest])


def _without_shared_axis(vector, axes):
    first = axes[0]
    if all(abs(abs(np.dot(first, axis)) - 1.0) < 1e-6 for axis in axes):
        return vector - np.dot(vector, first) * first
    return vector
