"""Rotations: Euler angles, rotation vectors, the exponential map, angles between orientations.

Conventions (the only ones in the package): vectors are (x, y, z); a pose ``A`` takes volume to
image coordinates, ``(x, y)_image = (A r)[:2]``; rotation vectors are in radians, Euler angles in
degrees. All functions but `exp_so3` are host-side NumPy in float64.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from jaxrelax.arrays import AnyArray

# Below this sin(tilt) the viewing direction is the z axis to 1e-10 rad, and rot is only noise.
_GIMBAL_SINE = 1e-10

# sin(√t)/√t = Σ (−t)^k / (2k+1)!; eight terms are exact to float64 for t < 0.5.
_SINC_COEFFICIENTS = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8))
_SINC_SERIES_BELOW = 0.5


def _matrices(matrix: ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape[-2:] != (3, 3):
        raise ValueError(f"{what} must have shape (..., 3, 3); got {array.shape}.")
    return array


def euler_to_matrix(
    rot_deg: ArrayLike | float, tilt_deg: ArrayLike | float, psi_deg: ArrayLike | float
) -> Float64[np.ndarray, "*batch 3 3"]:
    """Pose matrices ``A`` from RELION's Euler angles.

    Args:
        rot_deg: ``rlnAngleRot`` in degrees; the three angles broadcast against each other.
        tilt_deg: ``rlnAngleTilt`` in degrees.
        psi_deg: ``rlnAnglePsi`` in degrees.

    Returns:
        ``A = (Rz(rot) Ry(tilt) Rz(psi))ᵀ``: RELION's ``Euler_angles2matrix``, equal to SciPy's
        intrinsic ``"ZYZ"`` matrix transposed. A slice of the volume's transform lies at
        ``Aᵀ (kx, ky, 0)``.

    Raises:
        ValueError: if the three shapes do not broadcast.
    """
    angles = (np.deg2rad(np.asarray(a, dtype=np.float64)) for a in (rot_deg, tilt_deg, psi_deg))
    rot, tilt, psi = np.broadcast_arrays(*angles)
    cr, ct, cp = np.cos(rot), np.cos(tilt), np.cos(psi)
    sr, st, sp = np.sin(rot), np.sin(tilt), np.sin(psi)
    rows = [
        [cp * ct * cr - sp * sr, cp * ct * sr + sp * cr, -cp * st],
        [-sp * ct * cr - cp * sr, -sp * ct * sr + cp * cr, sp * st],
        [st * cr, st * sr, ct],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_euler(
    matrix: Float[AnyArray, "*batch 3 3"],
) -> tuple[
    Float64[np.ndarray, "*batch"], Float64[np.ndarray, "*batch"], Float64[np.ndarray, "*batch"]
]:
    """RELION's Euler angles of pose matrices ``A``: the inverse of `euler_to_matrix`.

    Returns:
        ``(rot, tilt, psi)`` in degrees; tilt in [0, 180], rot and psi in (-180, 180]. Where the
        view is along z (tilt 0 or 180) only a combination of rot and psi is defined and
        ``rot = 0``, as in RELION.

    Raises:
        ValueError: if the last two axes are not 3×3.
    """
    a = _matrices(matrix, "a pose matrix")
    sine = np.hypot(a[..., 2, 0], a[..., 2, 1])
    gimbal = sine < _GIMBAL_SINE
    rot = np.where(gimbal, 0.0, np.arctan2(a[..., 2, 1], a[..., 2, 0]))
    tilt = np.arctan2(np.where(gimbal, 0.0, sine), a[..., 2, 2])
    # psi from what remains after undoing rot, not from the third column: the error in rot that a
    # small sin(tilt) makes is then taken up by psi, and the matrix is still reproduced.
    cr, sr = np.cos(rot), np.sin(rot)
    psi = np.arctan2(cr * a[..., 0, 1] - sr * a[..., 0, 0], cr * a[..., 1, 1] - sr * a[..., 1, 0])

    def degrees(angle: np.ndarray | np.floating) -> np.ndarray:
        value = np.rad2deg(angle)
        return np.asarray(np.where(value <= -180.0, value + 360.0, value) + 0.0)

    return degrees(rot), degrees(tilt), degrees(psi)


def rotvec_to_matrix(rotvec: Float[AnyArray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rotation matrices ``exp([v]×)`` of rotation vectors (axis times angle, radians).

    Raises:
        ValueError: if the last axis does not have length 3.
    """
    v = np.asarray(rotvec, dtype=np.float64)
    if v.shape[-1:] != (3,):
        raise ValueError(f"a rotation vector must have shape (..., 3); got {v.shape}.")
    return Rotation.from_rotvec(v.reshape(-1, 3)).as_matrix().reshape(*v.shape, 3)


def matrix_to_rotvec(matrix: Float[AnyArray, "*batch 3 3"]) -> Float64[np.ndarray, "*batch 3"]:
    """Rotation vectors in radians (length in [0, π]) of rotation matrices.

    At an angle of exactly π both signs of the axis are right; which one is returned is undefined.

    Raises:
        ValueError: if the last two axes are not 3×3.
    """
    r = _matrices(matrix, "a rotation matrix")
    return Rotation.from_matrix(r.reshape(-1, 3, 3)).as_rotvec().reshape(r.shape[:-1])


def cryosparc_pose_to_matrix(
    pose: Float[AnyArray, "*batch 3"],
) -> Float64[np.ndarray, "*batch 3 3"]:
    """Pose matrices ``A = exp(v)ᵀ`` of cryoSPARC's ``alignments3D/pose`` rotation vectors."""
    return np.ascontiguousarray(rotvec_to_matrix(pose).mT)


def matrix_to_cryosparc_pose(
    matrix: Float[AnyArray, "*batch 3 3"],
) -> Float64[np.ndarray, "*batch 3"]:
    """Rotation vectors for cryoSPARC's ``alignments3D/pose``: the inverse map."""
    return matrix_to_rotvec(_matrices(matrix, "a pose matrix").mT)


def _sinc_of_square(t: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """``sin(√t)/√t``, smooth in t at 0."""
    small = t < _SINC_SERIES_BELOW
    series = jnp.zeros_like(t)
    for coefficient in reversed(_SINC_COEFFICIENTS):
        series = series * t + coefficient
    # The branch not taken must have finite derivatives too, or they turn the gradient into NaN.
    root = jnp.sqrt(jnp.where(small, 1.0, t))
    return jnp.where(small, series, jnp.sin(root) / root)


def exp_so3(rotvec: Float[AnyArray, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of rotation vectors, differentiable everywhere (jax.numpy).

    Args:
        rotvec: rotation vectors in radians, any float dtype.

    Returns:
        ``exp([v]×)`` by Rodrigues' formula, in the dtype of ``rotvec``. The coefficients are
        written as smooth functions of ``|v|²`` without cancellation, so that values, gradients
        and second derivatives are finite and accurate in float32, at ``v = 0`` too.
    """
    v = jnp.asarray(rotvec)
    t = jnp.sum(v * v, axis=-1)
    a = _sinc_of_square(t)
    b = 0.5 * _sinc_of_square(0.25 * t) ** 2  # (1 − cos θ)/θ² without the difference
    c = 1.0 - b * t
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    rows = [
        [c + b * x * x, b * x * y - a * z, b * x * z + a * y],
        [b * x * y + a * z, c + b * y * y, b * y * z - a * x],
        [b * x * z - a * y, b * y * z + a * x, c + b * z * z],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_angle(matrix: Float[AnyArray, "*batch 3 3"]) -> Float64[np.ndarray, "*batch"]:
    """Geodesic angle of rotations from the identity, in radians in [0, π].

    From sine and cosine together, so it is accurate near 0 and near π, where the arc cosine of
    the trace loses half of the digits. The angle between poses is ``rotation_angle(A @ B.mT)``.

    Raises:
        ValueError: if the last two axes are not 3×3.
    """
    r = _matrices(matrix, "a rotation matrix")
    skew = np.stack(
        [
            r[..., 2, 1] - r[..., 1, 2],
            r[..., 0, 2] - r[..., 2, 0],
            r[..., 1, 0] - r[..., 0, 1],
        ],
        axis=-1,
    )
    twice_sine = np.linalg.norm(skew, axis=-1)
    twice_cosine = np.trace(r, axis1=-2, axis2=-1) - 1.0
    return np.asarray(np.arctan2(twice_sine, twice_cosine))


def random_rotations(n: int, rng: np.random.Generator) -> Float64[np.ndarray, "n 3 3"]:
    """``n`` rotations, uniform on SO(3) (normalised Gaussian quaternions)."""
    return Rotation.from_quat(rng.standard_normal((n, 4))).as_matrix()


def project_to_so3(matrix: Float[AnyArray, "*batch 3 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """The rotation nearest to each matrix in the Frobenius norm (by SVD; Kabsch 1976).

    Raises:
        ValueError: if the last two axes are not 3×3.
    """
    u, _, vt = np.linalg.svd(_matrices(matrix, "a matrix"))
    # Flip the least significant axis where the nearest orthogonal matrix is a reflection.
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


def is_axis_aligned_permutation(matrix: Float[AnyArray, "3 3"], tolerance: float = 1e-9) -> bool:
    """Whether a rotation only permutes and flips the axes (a signed permutation matrix).

    Such an operator maps voxels of a cubic grid onto voxels, without interpolation.

    Args:
        matrix: one 3×3 matrix.
        tolerance: largest deviation of an entry from 0, 1 or -1.
    """
    r = _matrices(matrix, "a rotation matrix")
    rounded = np.rint(r)
    one_per_line = np.array_equal(rounded @ rounded.T, np.eye(3))
    return bool(one_per_line and np.max(np.abs(r - rounded)) <= tolerance)
