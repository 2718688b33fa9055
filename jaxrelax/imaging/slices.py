"""Central slices of an oversampled Fourier volume by trilinear interpolation, and their adjoint.

The volume is a half transform (kx ≥ 0) with the origin in the middle of z and y, stored as rows of
``2 × channels`` floats: all real parts, then all imaginary parts. Channels (register copies, or
classes) share one index computation and one contiguous read; rows of floats are measurably faster
than complex gathers on CPU. The slice theorem and trilinear gridding with twofold oversampling are
as in RELION (Scheres, J. Struct. Biol. 180 (2012) 519).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32

OVERSAMPLING = 2


class FourierVolume(eqx.Module):
    """Oversampled half transform; ``values[(z·ny + y)·nx + x]`` with z, y centred at ``radius``.

    ``radius`` is the half width in oversampled pixels: slices may reach ``radius − 2``.
    """

    values: Float[Array, "voxels pairs"]
    radius: int = eqx.field(static=True)

    @property
    def channels(self) -> int:
        """Number of maps interleaved."""
        return self.values.shape[1] // 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)."""
        return half_shape(self.radius)


def half_shape(radius: int) -> tuple[int, int, int]:
    """Shape (nz, ny, nx) of a half transform of this radius."""
    return 2 * radius + 1, 2 * radius + 1, radius + 1


def volume_radius(max_shell: int) -> int:
    """Radius in oversampled pixels of a volume that serves slices up to ``max_shell``."""
    # round(|k|) ≤ max_shell reaches max_shell + ½; one more voxel for the upper corner.
    return OVERSAMPLING * (max_shell + 1)


def slice_coordinates(
    rotations: Float[Array, "batch 3 3"], wavevectors: Float32[np.ndarray, "freq 2"]
) -> Float[Array, "batch freq 3"]:
    """Oversampled volume coordinates (x, y, z) of slice pixels: ``2 Aᵀ (kx, ky, 0)``."""
    return OVERSAMPLING * jnp.einsum("bij,fi->bfj", rotations[:, :2, :], jnp.asarray(wavevectors))


def _cells(coordinates: Float[Array, "batch freq 3"], radius: int):
    """Lower-corner flat index, fractions and Friedel sign of each point.

    Points with x < 0 are read at their Friedel mate: the imaginary part changes sign.
    """
    _, ny, nx = half_shape(radius)
    sign = jnp.where(coordinates[..., :1] < 0, -1.0, 1.0).astype(coordinates.dtype)
    folded = coordinates * sign
    corner = jnp.floor(folded)
    fractions = folded - corner
    corner = corner.astype(jnp.int32)
    base = ((corner[..., 2] + radius) * ny + (corner[..., 1] + radius)) * nx + corner[..., 0]
    return base, fractions, sign[..., 0]


def _corner_offsets(radius: int):
    _, ny, nx = half_shape(radius)
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                yield (dx, dy, dz), (dz * ny + dy) * nx + dx


def _corner_weight(fractions, corner):
    weight = 1.0
    for axis, upper in enumerate(corner):
        f = fractions[..., axis]
        weight = weight * (f if upper else 1.0 - f)
    return weight


def _to_complex(pairs, sign):
    channels = pairs.shape[-1] // 2
    return jax.lax.complex(pairs[..., :channels], pairs[..., channels:] * sign[..., None])


def extract_slices(
    volume: FourierVolume,
    rotations: Float[Array, "batch 3 3"],
    wavevectors: Float32[np.ndarray, "freq 2"],
) -> Complex[Array, "batch freq channels"]:
    """Slices of every channel at shared poses. Differentiable in volume and rotations.

    Args:
        volume: oversampled volume; its radius must exceed ``2·max|k| + 1``.
        rotations: A, volume to image coordinates.
        wavevectors: (kx, ky) in image Fourier pixels of the (unpadded) map box.
    """
    base, fractions, sign = _cells(slice_coordinates(rotations, wavevectors), volume.radius)
    pairs = None
    for corner, offset in _corner_offsets(volume.radius):
        rows = volume.values.at[base + offset].get(mode="promise_in_bounds")
        term = _corner_weight(fractions, corner)[..., None] * rows
        pairs = term if pairs is None else pairs + term
    return _to_complex(pairs, sign)


def extract_slices_and_tangents(
    volume: FourierVolume,
    rotations: Float[Array, "batch 3 3"],
    wavevectors: Float32[np.ndarray, "freq 2"],
) -> tuple[Complex[Array, "batch freq channels"], Complex[Array, "batch 3 freq channels"]]:
    """Slices and their derivative with respect to a small rotation, from the same eight voxels.

    The rotation is ``A → exp([δ]×) A`` with δ in radians in the image frame, so slice pixel k moves
    to ``2 Aᵀ (k − δ × k)``.

    Returns:
        the slices, and ∂/∂δx, ∂/∂δy, ∂/∂δz.
    """
    base, fractions, sign = _cells(slice_coordinates(rotations, wavevectors), volume.radius)
    corners = [
        volume.values.at[base + offset].get(mode="promise_in_bounds")
        for _, offset in _corner_offsets(volume.radius)
    ]
    # Without the barrier XLA gathers the corners again for each of the four outputs.
    corners = jax.lax.optimization_barrier(corners)
    fx, fy, fz = (fractions[..., axis, None] for axis in range(3))
    dx = [corners[2 * i + 1] - corners[2 * i] for i in range(4)]
    along_x = [corners[2 * i] + fx * dx[i] for i in range(4)]
    dy = [along_x[1] - along_x[0], along_x[3] - along_x[2]]
    along_y = [along_x[0] + fy * dy[0], along_x[2] + fy * dy[1]]
    dz = along_y[1] - along_y[0]
    value = along_y[0] + fz * dz
    gradient_y = dy[0] + fz * (dy[1] - dy[0])
    dx_low = dx[0] + fy * (dx[1] - dx[0])
    dx_high = dx[2] + fy * (dx[3] - dx[2])
    gradient_x = dx_low + fz * (dx_high - dx_low)

    # Rows of A dotted with the gradient give it in image axes; both f(−q) = conj f(q) and the
    # folded coordinate change sign with x < 0, so the gradient of the folded value carries `sign`.
    gradient = (gradient_x, gradient_y, dz)
    in_image = [
        sum(rotations[:, row, axis, None, None] * gradient[axis] for axis in range(3))
        for row in range(3)
    ]
    kx = jnp.asarray(OVERSAMPLING * wavevectors[:, 0])[None, :] * sign
    ky = jnp.asarray(OVERSAMPLING * wavevectors[:, 1])[None, :] * sign
    kx, ky = kx[..., None], ky[..., None]
    gx, gy, gz = in_image
    # −(δ × k) = (δz ky, −δz kx, δy kx − δx ky)
    tangents = (-ky * gz, kx * gz, ky * gx - kx * gy)
    tangents = jnp.stack([_to_complex(t, sign) for t in tangents], axis=1)
    return _to_complex(value, sign), tangents


def insert_slices(
    accumulator: Float[Array, "voxels parts"],
    radius: int,
    rotations: Float[Array, "batch 3 3"],
    wavevectors: Float32[np.ndarray, "freq 2"],
    values: Complex[Array, "batch freq"],
    weights: Float[Array, "batch freq"],
) -> Float[Array, "voxels parts"]:
    """Add slices to an accumulator: the adjoint of :func:`extract_slices` for one channel.

    Args:
        accumulator: rows of (real, imaginary, weight) on the half grid of ``radius``. Call
            :func:`fold_friedel` once before use: points on the plane x = 0 have their mates there.
        values: numerator terms, e.g. ``w c y/σ²``.
        weights: denominator terms, e.g. ``w c²/σ²``.
    """
    base, fractions, sign = _cells(slice_coordinates(rotations, wavevectors), radius)
    rows = jnp.stack([values.real, values.imag * sign, weights], axis=-1)
    for corner, offset in _corner_offsets(radius):
        term = _corner_weight(fractions, corner)[..., None] * rows
        accumulator = accumulator.at[base + offset].add(term, mode="promise_in_bounds")
    return accumulator


def fold_friedel(
    accumulator: Float[Array, "voxels parts"], radius: int
) -> Float[Array, "voxels parts"]:
    """Make the plane x = 0 Hermitian by adding each voxel's Friedel mate to it.

    Slices are inserted on the side x ≥ 0 only; in the plane x = 0 a voxel and its mate describe the
    same number, and trilinear corners from either side land on one of them.
    """
    nz, ny, nx = half_shape(radius)
    grid = accumulator.reshape(nz, ny, nx, -1)
    plane = grid[:, :, 0]
    conjugate = jnp.asarray([1.0, -1.0, 1.0], accumulator.dtype)
    mate = plane[::-1, ::-1] * conjugate[None, None]
    return grid.at[:, :, 0].set(plane + mate).reshape(accumulator.shape)
