"""Central slices of an oversampled Fourier volume by trilinear interpolation, and their adjoint.

The volume is a half transform (kx ≥ 0) with the origin in the middle of z and y, stored as rows of
``2 × channels`` floats: all real parts, then all imaginary parts. Channels (register copies, or
classes) share one index computation and one contiguous read. What is fast on CPU was measured
(``experiments/benchmarks/kernels.py``): windows of two voxels along x, rows of floats rather than
complex numbers, summed as rows and transposed after that (see :func:`jaxrelax.imaging.in_stages`),
scatter rows padded to four floats. The slice theorem and
trilinear gridding with twofold oversampling are as in RELION (Scheres, J. Struct. Biol. 180 (2012)
519).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Complex, Float, Float32, Int

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging.chunks import Blocks, in_stages

OVERSAMPLING = 2
# Of the eight corners of a point, for each channel: the widest stage of an extraction.
POINT_BYTES = 4 * 16


class FourierVolume(eqx.Module):
    """Oversampled half transform; ``values[(z·ny + y)·nx + x]`` with z, y centred at ``radius``.

    ``radius`` is the half width in oversampled pixels: slices may reach ``radius − 2``.
    """

    values: Float[AnyArray, "voxels pairs"]
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


def _cells(rotations: Float[AnyArray, "*batch 3 3"], wavevectors, radius: int):
    """Where slice pixels lie: lower-corner flat index, fractions (x, y, z) and Friedel sign.

    A pixel k sits at ``2 Aᵀ (kx, ky, 0)`` in oversampled voxels. Points with x < 0 are read at
    their Friedel mate: the imaginary part changes sign.
    """
    _, ny, nx = half_shape(radius)
    kx, ky = (k[None] for k in wavevectors)
    # Not a matrix product: two terms are too few for one to be fast.
    point = [
        OVERSAMPLING * (rotations[..., 0, axis, None] * kx + rotations[..., 1, axis, None] * ky)
        for axis in range(3)
    ]
    sign = jnp.where(point[0] < 0, -1.0, 1.0).astype(point[0].dtype)
    folded = [x * sign for x in point]
    corner = [jnp.floor(x) for x in folded]
    fractions = tuple(x - low for x, low in zip(folded, corner, strict=True))
    x, y, z = (low.astype(jnp.int32) for low in corner)
    return ((z + radius) * ny + (y + radius)) * nx + x, fractions, sign


def _columns(radius: int):
    """The four (y, z) corners of a cell and the voxel offset of each; x pairs are contiguous."""
    _, ny, nx = half_shape(radius)
    for dz in (0, 1):
        for dy in (0, 1):
            yield dy, dz, (dz * ny + dy) * nx


def _windows(volume: FourierVolume, base: Int[Array, "images points"]):
    """For each (y, z) corner the two neighbours along x of every channel, as contiguous rows."""
    row = volume.values.shape[1]
    flat = volume.values.reshape(-1)
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=(base.ndim,), collapsed_slice_dims=(), start_index_map=(0,)
    )
    return [
        jax.lax.gather(
            flat, ((base + offset) * row)[..., None], numbers, slice_sizes=(2 * row,),
            mode="promise_in_bounds",
        )
        for _, _, offset in _columns(volume.radius)
    ]  # fmt: skip


def _planes(rows):
    """(images, points, pairs) rows as (images, pairs, points), in memory too.

    Without the constraint XLA keeps the rows and reads them with a stride.
    """
    turned = jnp.swapaxes(rows, 1, 2)
    return with_layout_constraint(turned, Layout(tuple(range(turned.ndim))))


def _corner_weights(fractions, slopes=None):
    """Weights of the eight corners in the order of :func:`_windows`, each (images, points).

    Args:
        fractions: of the points in their cells.
        slopes: what the derivatives along the three axes are multiplied by; the weights are those
            of the value if there are none.
    """
    along = [(1.0 - f, f) for f in fractions]
    weights = []
    for dy, dz, _ in _columns(0):
        for dx in (0, 1):
            ends = (dx, dy, dz)
            x, y, z = (part[end] for part, end in zip(along, ends, strict=True))
            if slopes is None:
                weights.append(x * y * z)
            else:
                pairs = zip(slopes, ends, strict=True)
                sx, sy, sz = (slope if end else -slope for slope, end in pairs)
                weights.append(sx * y * z + sy * x * z + sz * x * y)
    return weights


def _weighted(weights, corners) -> Float[Array, "images points pairs"]:
    total = weights[0][..., None] * corners[0]
    for weight, corner in zip(weights[1:], corners[1:], strict=True):
        total = total + weight[..., None] * corner
    return total


class Parts(NamedTuple):
    """Real and imaginary parts of slices, or of their derivatives."""

    real: Float[Array, "images channels points"]
    imaginary: Float[Array, "images channels points"]


def slice_stages(
    volume: FourierVolume,
    rotations: Float[AnyArray, "images 3 3"],
    wavevectors: Float32[AnyArray, "points 2"],
    derivatives: bool = False,
) -> tuple[Blocks, tuple[Callable, ...]]:
    """Stages of :func:`in_stages` that make the slices of every channel at shared poses.

    What a point costs by itself, its place and the weights of the eight voxels around it, is paid
    once for all channels.

    Args:
        derivatives: with respect to a small rotation too.

    Returns:
        Blocks of images and points, and the stages. The last of them returns a list of
        :class:`Parts`: the slices, or all that :func:`extract_parts_and_derivatives` does. Other
        arguments as for :func:`extract_slices`.
    """
    volume, rotations = on_device((volume, rotations))
    blocks = Blocks.of(len(rotations), len(wavevectors), POINT_BYTES * volume.channels)
    parts = jnp.swapaxes(blocks.split(jnp.asarray(wavevectors).T), 0, 1)

    def points(block):
        return blocks.of_images(rotations, block), blocks.part(parts, block)

    def place(block, _):
        return _cells(*points(block), volume.radius)

    def read(block, cells):
        base, fractions, sign = cells
        weights = [_corner_weights(fractions)]
        if derivatives:
            # The gradient of a folded point is that of F(−q): `sign` turns it back, and on the
            # imaginary part it conjugates. Rows of A dotted with it give it in image axes.
            turns, (kx, ky) = points(block)
            out = OVERSAMPLING * sign
            x, y, z = ([turns[:, row, axis, None] for axis in range(3)] for row in range(3))
            in_plane = [ky[None] * a - kx[None] * b for a, b in zip(x, y, strict=True)]
            weights += [
                _corner_weights(fractions, [out * slope for slope in slopes])
                for slopes in (z, in_plane)
            ]
        return _windows(volume, base), weights, sign

    def combine(_, found):
        windows, weights, sign = found
        row = volume.values.shape[1]
        corners = [end for some in windows for end in (some[..., :row], some[..., row:])]
        return [_weighted(each, corners) for each in weights], sign

    def transpose(_, found):
        sums, sign = found
        half = volume.channels
        planes = [_planes(some) for some in sums]
        return [Parts(x[:, :half], x[:, half:] * sign[:, None]) for x in planes]

    return blocks, (place, read, combine, transpose)


def _extracted(volume, rotations, wavevectors, derivatives: bool) -> list[Parts]:
    blocks, stages = slice_stages(volume, rotations, wavevectors, derivatives)
    return jax.tree.map(blocks.joined, in_stages(stages, blocks.count))


def extract_parts(
    volume: FourierVolume,
    rotations: Float[AnyArray, "batch 3 3"],
    wavevectors: Float32[AnyArray, "freq 2"],
) -> tuple[Float[Array, "batch channels freq"], Float[Array, "batch channels freq"]]:
    """Real and imaginary parts of the slices of every channel at shared poses.

    Arguments as for :func:`extract_slices`. Real arithmetic on separate parts is several times
    faster on CPU than interleaved complex numbers.
    """
    (value,) = _extracted(volume, rotations, wavevectors, derivatives=False)
    return value.real, value.imaginary


def extract_slices(
    volume: FourierVolume,
    rotations: Float[AnyArray, "batch 3 3"],
    wavevectors: Float32[AnyArray, "freq 2"],
) -> Complex[Array, "batch channels freq"]:
    """Slices of every channel at shared poses. Differentiable in volume and rotations.

    Args:
        volume: oversampled volume; its radius must exceed ``2·max|k| + 1``.
        rotations: A, volume to image coordinates.
        wavevectors: (kx, ky) in image Fourier pixels of the (unpadded) map box.
    """
    return jax.lax.complex(*extract_parts(volume, rotations, wavevectors))


def extract_parts_and_derivatives(
    volume: FourierVolume,
    rotations: Float[AnyArray, "batch 3 3"],
    wavevectors: Float32[AnyArray, "freq 2"],
) -> tuple[Parts, Parts, Parts]:
    """Slices, and how they change with a small rotation, from the same eight voxels.

    The rotation is ``A → exp([δ]×) A`` with δ in radians in the image frame: slice pixel k moves to
    ``2 Aᵀ (k − δ × k)``, out of the plane by δy kx − δx ky.

    Returns:
        The slices, (batch, channels, freq); their derivative *out of the plane*, ``tilted``: ∂/∂δx
        is −ky and ∂/∂δy is kx times it, per radian, with (kx, ky) from ``wavevectors``; and ∂/∂δz
        per radian, ``turned``. Arguments as for :func:`extract_slices`.
    """
    value, tilted, turned = _extracted(volume, rotations, wavevectors, derivatives=True)
    return value, tilted, turned


def insert_slices(
    accumulator: Float[AnyArray, "voxels 4"],
    radius: int,
    rotations: Float[AnyArray, "batch 3 3"],
    wavevectors: Float32[AnyArray, "freq 2"],
    values: Complex[AnyArray, "batch freq"],
    weights: Float[AnyArray, "batch freq"],
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
    accumulator, rotations = jnp.asarray(accumulator), jnp.asarray(rotations)
    values, weights = jnp.asarray(values), jnp.asarray(weights)
    base, fractions, sign = _cells(rotations, jnp.asarray(wavevectors).T, radius)
    fx, fy, fz = (fraction[..., None] for fraction in fractions)
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
    accumulator: Float[AnyArray, "voxels columns"], radius: int
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
