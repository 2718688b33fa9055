"""Central slices of an oversampled Fourier volume by trilinear interpolation, and their adjoint.

The volume is a half transform (kx ≥ 0) with the origin in the middle of z and y, stored as rows of
``2 × channels`` floats: all real parts, then all imaginary parts. Channels (register copies, or
classes) share one index computation and one contiguous read. What is fast on CPU was measured
(``experiments/benchmarks/kernels.py``): windows of two voxels along x, rows of floats rather than
complex numbers, scatter rows padded to four floats. The slice theorem and trilinear gridding with
twofold oversampling are as in RELION (Scheres, J. Struct. Biol. 180 (2012) 519).
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
    rotations: Float[Array, "batch 3 3"], wavevectors: Float32[np.ndarray | Array, "freq 2"]
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


def _columns(radius: int):
    """The four (y, z) corners of a cell and the voxel offset of each; x pairs are contiguous."""
    _, ny, nx = half_shape(radius)
    for dz in (0, 1):
        for dy in (0, 1):
            yield dy, dz, (dz * ny + dy) * nx


def _gather_columns(volume: FourierVolume, base):
    """For each (y, z) corner the two neighbours along x, read as one contiguous window."""
    row = volume.values.shape[1]
    flat = volume.values.reshape(-1)
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=(base.ndim,), collapsed_slice_dims=(), start_index_map=(0,)
    )
    windows = [
        jax.lax.gather(
            flat, ((base + offset) * row)[..., None], numbers, slice_sizes=(2 * row,),
            mode="promise_in_bounds",
        )
        for _, _, offset in _columns(volume.radius)
    ]  # fmt: skip
    return [(w[..., :row], w[..., row:]) for w in windows]


def _parts(pairs, sign):
    """(batch, freq, pairs) rows as real and imaginary parts, frequency last."""
    # Materialised once: a consumer that reads the two halves would otherwise gather twice.
    turned = jax.lax.optimization_barrier(jnp.swapaxes(pairs, 1, 2))
    channels = turned.shape[1] // 2
    return turned[:, :channels], turned[:, channels:] * sign[:, None, :]


def extract_parts(
    volume: FourierVolume,
    rotations: Float[Array, "batch 3 3"],
    wavevectors: Float32[np.ndarray | Array, "freq 2"],
) -> tuple[Float[Array, "batch channels freq"], Float[Array, "batch channels freq"]]:
    """Real and imaginary parts of the slices of every channel at shared poses.

    Arguments as for :func:`extract_slices`. Real arithmetic on separate parts is several times
    faster on CPU than interleaved complex numbers.
    """
    base, fractions, sign = _cells(slice_coordinates(rotations, wavevectors), volume.radius)
    fx, fy, fz = (fractions[..., axis, None] for axis in range(3))
    low, high = jnp.zeros(()), jnp.zeros(())
    for (dy, dz, _), (x0, x1) in zip(
        _columns(volume.radius), _gather_columns(volume, base), strict=True
    ):
        weight = (fy if dy else 1.0 - fy) * (fz if dz else 1.0 - fz)
        low, high = low + weight * x0, high + weight * x1
    return _parts(low + fx * (high - low), sign)


def extract_slices(
    volume: FourierVolume,
    rotations: Float[Array, "batch 3 3"],
    wavevectors: Float32[np.ndarray, "freq 2"],
) -> Complex[Array, "batch channels freq"]:
    """Slices of every channel at shared poses. Differentiable in volume and rotations.

    Args:
        volume: oversampled volume; its radius must exceed ``2·max|k| + 1``.
        rotations: A, volume to image coordinates.
        wavevectors: (kx, ky) in image Fourier pixels of the (unpadded) map box.
    """
    return jax.lax.complex(*extract_parts(volume, rotations, wavevectors))


def extract_parts_and_tangents(
    volume: FourierVolume,
    rotations: Float[Array, "batch 3 3"],
    wavevectors: Float32[np.ndarray, "freq 2"],
) -> tuple[
    tuple[Float[Array, "batch channels freq"], Float[Array, "batch channels freq"]],
    list[tuple[Float[Array, "batch channels freq"], Float[Array, "batch channels freq"]]],
]:
    """Slices and their derivative with respect to a small rotation, from the same eight voxels.

    The rotation is ``A → exp([δ]×) A`` with δ in radians in the image frame, so slice pixel k moves
    to ``2 Aᵀ (k − δ × k)``.

    Returns:
        (real, imaginary) parts of the slices, and of ∂/∂δx, ∂/∂δy, ∂/∂δz.
    """
    base, fractions, sign = _cells(slice_coordinates(rotations, wavevectors), volume.radius)
    # Without the barrier XLA gathers the corners again for each of the four outputs.
    corners = jax.lax.optimization_barrier(_gather_columns(volume, base))
    fx, fy, fz = (fractions[..., axis, None] for axis in range(3))
    dx = [x1 - x0 for x0, x1 in corners]
    along_x = [x0 + fx * d for (x0, _), d in zip(corners, dx, strict=True)]
    dy = [along_x[1] - along_x[0], along_x[3] - along_x[2]]
    along_y = [along_x[0] + fy * dy[0], along_x[2] + fy * dy[1]]
    gradient_z = along_y[1] - along_y[0]
    value = along_y[0] + fz * gradient_z
    gradient_y = dy[0] + fz * (dy[1] - dy[0])
    dx_low = dx[0] + fy * (dx[1] - dx[0])
    dx_high = dx[2] + fy * (dx[3] - dx[2])
    gradient_x = dx_low + fz * (dx_high - dx_low)

    # The gradient of a folded point is that of F(−q); `sign` on the wavevectors turns it back,
    # `sign` on the imaginary part conjugates. Rows of A dotted with it give it in image axes.
    value, *gradient = (_parts(a, sign) for a in (value, gradient_x, gradient_y, gradient_z))
    kx, ky = (
        OVERSAMPLING * jnp.asarray(wavevectors[:, i])[None, None, :] * sign[:, None, :]
        for i in range(2)
    )

    def tangents(part):
        gx, gy, gz = (
            sum(rotations[:, row, axis, None, None] * gradient[axis][part] for axis in range(3))
            for row in range(3)
        )
        # −(δ × k) = (δz ky, −δz kx, δy kx − δx ky)
        return -ky * gz, kx * gz, ky * gx - kx * gy

    return value, list(zip(tangents(0), tangents(1), strict=True))


def insert_slices(
    accumulator: Float[Array, "voxels 4"],
    radius: int,
    rotations: Float[Array, "batch 3 3"],
    wavevectors: Float32[np.ndarray, "freq 2"],
    values: Complex[Array, "batch freq"],
    weights: Float[Array, "batch freq"],
) -> Float[Array, "voxels 4"]:
    """Add slices to an accumulator: the adjoint of :func:`extract_slices` for one channel.

    Args:
        accumulator: rows of (real, imaginary, weight, unused) on the half grid of ``radius``; the
            fourth column aligns the rows, which more than doubles the speed on CPU. Call
            :func:`fold_friedel` once before use: points on the plane x = 0 have their mates there.
        radius: of the half grid.
        rotations: A, volume to image coordinates.
        wavevectors: (kx, ky) in image Fourier pixels of the (unpadded) map box.
        values: numerator terms, e.g. ``w c y/σ²``.
        weights: denominator terms, e.g. ``w c²/σ²``.
    """
    base, fractions, sign = _cells(slice_coordinates(rotations, wavevectors), radius)
    fx, fy, fz = (fractions[..., axis, None] for axis in range(3))
    rows = jnp.stack([values.real, values.imag * sign, weights, jnp.zeros_like(weights)], axis=-1)
    window = jnp.concatenate([rows * (1.0 - fx), rows * fx], axis=-1)
    numbers = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(base.ndim,), inserted_window_dims=(), scatter_dims_to_operand_dims=(0,)
    )
    row = accumulator.shape[1]
    flat = accumulator.reshape(-1)
    for dy, dz, offset in _columns(radius):
        weight = (fy if dy else 1.0 - fy) * (fz if dz else 1.0 - fz)
        flat = jax.lax.scatter_add(
            flat, ((base + offset) * row)[..., None], weight * window, numbers,
            mode="promise_in_bounds",
        )  # fmt: skip
    return flat.reshape(accumulator.shape)


def fold_friedel(
    accumulator: Float[np.ndarray, "voxels columns"], radius: int
) -> Float[np.ndarray, "voxels columns"]:
    """A copy whose plane x = 0 is Hermitian: each voxel's Friedel mate is added to it.

    Slices are inserted on the side x ≥ 0 only; in the plane x = 0 a voxel and its mate describe the
    same number, and trilinear corners from either side land on one of them.
    """
    nz, ny, nx = half_shape(radius)
    folded = np.array(accumulator, order="C")
    plane = folded.reshape(nz, ny, nx, -1)[:, :, 0]
    conjugate = np.array([1.0, -1.0, 1.0, 1.0], folded.dtype)[: plane.shape[-1]]
    plane += plane[::-1, ::-1] * conjugate
    return folded
