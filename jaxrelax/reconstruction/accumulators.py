"""Sufficient statistics of a reconstruction: weighted sums of back-projected images.

For map V, each image contributes  num += w Pᵀ[c y/σ²]  and  den += w Pᵀ[c²/σ²]  at every pose it
may have, on the oversampled half grid. They are additive, so half-sets are sums over folds and
leaving a fold out is a subtraction.
"""

from __future__ import annotations

from functools import lru_cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Int64

from jaxrelax.arrays import AnyArray, on_device, on_host
from jaxrelax.imaging import (
    ImageBatch,
    ImageGeometry,
    fold_friedel,
    half_grid_shells,
    half_shape,
    insert_slices,
    shift_phases,
    volume_radius,
)
from jaxrelax.imaging.chunks import equal_part, fitting, on_cpu
from jaxrelax.imaging.slices import OVERSAMPLING

# Temporaries of the insertion, for each pixel of each candidate.
POINT_BYTES = 64


class Accumulator(eqx.Module):
    """Rows of (real numerator, imaginary numerator, weight) on the half grid of ``radius``.

    While images are inserted a fourth, unused column aligns the rows; :func:`completed` drops it.
    """

    values: Float[AnyArray, "voxels columns"]
    radius: int = eqx.field(static=True)

    def __add__(self, other: Accumulator) -> Accumulator:
        return Accumulator(self.values + other.values, self.radius)

    def __sub__(self, other: Accumulator) -> Accumulator:
        return Accumulator(self.values - other.values, self.radius)


def empty_accumulator(radius: int) -> Accumulator:
    """An accumulator with nothing in it."""
    shape = (int(np.prod(half_shape(radius))), 4)
    if on_host():
        # Not ``jnp.zeros``: that compiles for every size.
        return Accumulator(jax.device_put(np.zeros(shape, np.float32)), radius)
    return Accumulator(jnp.zeros(shape, jnp.float32), radius)


class Candidates(eqx.Module):
    """Weighted poses to back-project: which image of the batch, at which pose, how much of it."""

    row: Int[AnyArray, " kept"]
    rotations: Float[AnyArray, "kept 3 3"]
    origins_px: Float[AnyArray, "kept 2"]
    weight: Float[AnyArray, " kept"]


def accumulate(
    accumulator: Accumulator,
    batch: ImageBatch,
    geometry: ImageGeometry,
    candidates: Candidates,
) -> Accumulator:
    """Add a batch at the candidates' poses. ``batch.weights`` decide the band and the noise.

    Candidates are gone through in chunks, so that memory does not depend on their number. On CPU
    one by one: temporaries stay in the cache, and XLA copies what is scattered from two axes.
    """
    accumulator, batch, candidates = on_device((accumulator, batch, candidates))
    size = equal_part(len(candidates.row), at_once(geometry))
    chunks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), candidates)

    def add(sums, chunk):
        return accumulated(sums, batch, geometry, chunk), None

    return jax.lax.scan(add, accumulator, chunks)[0]


def at_once(geometry: ImageGeometry) -> int:
    """Most candidates of images of a geometry that are inserted together."""
    return 1 if on_cpu() else fitting(POINT_BYTES * geometry.packing.n_pixels)


def accumulated(
    accumulator: Accumulator, batch: ImageBatch, geometry: ImageGeometry, candidates: Candidates
) -> Accumulator:
    """A batch added at all candidates at once."""
    row = candidates.row
    # Half the multiplicity: a pixel and its mate are each inserted once (the origin counts half).
    scale = candidates.weight[:, None] * (0.5 * batch.weights)[None, :]
    ctf = batch.ctf[row]
    data = batch.data[row] * shift_phases(candidates.origins_px, geometry.packing)
    values = insert_slices(
        jnp.asarray(accumulator.values), accumulator.radius, candidates.rotations,
        geometry.slice_wavevectors,
        scale * ctf * data, scale * ctf**2,
    )  # fmt: skip
    return Accumulator(values, accumulator.radius)


def completed(accumulator: Accumulator) -> Accumulator:
    """The accumulator with the plane x = 0 made Hermitian; call once, after all insertions.

    On a processor without a program, which would be compiled for every band.
    """
    if not on_host(accumulator):
        return Accumulator(_folded(accumulator), accumulator.radius)
    values = np.asarray(accumulator.values)[:, :3]
    return Accumulator(fold_friedel(values, accumulator.radius), accumulator.radius)


@jax.jit
def _folded(accumulator: Accumulator) -> Float[Array, "voxels 3"]:
    values = jnp.asarray(accumulator.values)[:, :3].reshape(*half_shape(accumulator.radius), 3)
    plane = values[:, :, 0]
    mates = plane[::-1, ::-1] * jnp.array([[[1.0, -1.0, 1.0]]], values.dtype)
    return values.at[:, :, 0].add(mates).reshape(-1, 3)


class ShellSums(eqx.Module):
    """A completed accumulator as it is kept: the voxels up to a shell.

    The corners of the grid beyond the last shell are never used; without them folds take half the
    memory. On a processor they are NumPy's, on an accelerator or in a program they stay there.
    """

    values: Float32[AnyArray, "kept 3"]
    max_shell: int = eqx.field(static=True)

    @classmethod
    def of(cls, accumulator: Accumulator, max_shell: int) -> ShellSums:
        """Keep a completed accumulator up to a shell that its radius serves."""
        if not on_host(accumulator):
            return cls(_voxels_kept(accumulator, max_shell), max_shell)
        kept = _kept(max_shell, accumulator.radius)
        return cls(np.asarray(accumulator.values)[kept], max_shell)

    def accumulator(self) -> Accumulator:
        """The accumulator on the grid that serves the last shell, zero beyond it."""
        radius = volume_radius(self.max_shell)
        if not on_host(self.values):
            return Accumulator(_on_grid(self.values, self.max_shell, radius), radius)
        values = np.zeros((int(np.prod(half_shape(radius))), 3), np.float32)
        values[_kept(self.max_shell, radius)] = self.values
        return Accumulator(jax.device_put(values), radius)

    def resized(self, max_shell: int) -> ShellSums:
        """Up to another shell; nothing is known beyond the last one."""
        if max_shell == self.max_shell:
            return self
        if max_shell < self.max_shell:
            return ShellSums.of(self.accumulator(), max_shell)
        radius = volume_radius(max_shell)
        if not on_host(self.values):
            grid = _on_grid(self.values, self.max_shell, radius)
            return ShellSums.of(Accumulator(grid, radius), max_shell)
        grid = np.zeros((int(np.prod(half_shape(radius))), 3), np.float32)
        grid[_kept(self.max_shell, radius)] = self.values
        return ShellSums(grid[_kept(max_shell, radius)], max_shell)

    def __add__(self, other: ShellSums) -> ShellSums:
        return ShellSums(self.values + other.values, self.max_shell)

    def __sub__(self, other: ShellSums) -> ShellSums:
        return ShellSums(self.values - other.values, self.max_shell)


class MapSums(eqx.Module):
    """Sums of every map that images may show, over the same images and up to the same shell."""

    maps: tuple[ShellSums, ...]

    @property
    def max_shell(self) -> int:
        """Last shell of all."""
        return self.maps[0].max_shell

    def resized(self, max_shell: int) -> MapSums:
        """All up to another shell."""
        return MapSums(tuple(one.resized(max_shell) for one in self.maps))

    def __add__(self, other: MapSums) -> MapSums:
        return MapSums(tuple(a + b for a, b in zip(self.maps, other.maps, strict=True)))

    def __sub__(self, other: MapSums) -> MapSums:
        return MapSums(tuple(a - b for a, b in zip(self.maps, other.maps, strict=True)))


def completed_sums(accumulator: Accumulator, max_shell: int) -> ShellSums:
    """``ShellSums.of(completed(accumulator), max_shell)``, without a copy of the whole grid.

    Args:
        accumulator: with all insertions, of a radius that serves the shell.
        max_shell: last shell that is kept.
    """
    if not on_host(accumulator):
        return ShellSums.of(completed(accumulator), max_shell)
    shape = half_shape(accumulator.radius)
    values, kept = np.asarray(accumulator.values), _kept(max_shell, accumulator.radius)
    chosen = values[kept, :3]
    plane = np.ascontiguousarray(values.reshape(*shape, -1)[:, :, 0, :3])
    plane = plane + plane[::-1, ::-1] * np.array([1.0, -1.0, 1.0], np.float32)
    on_plane = kept % shape[2] == 0
    chosen[on_plane] = plane.reshape(-1, 3)[kept[on_plane] // shape[2]]
    return ShellSums(chosen, max_shell)


@lru_cache(maxsize=8)
def _kept(max_shell: int, radius: int) -> Int64[np.ndarray, " kept"]:
    """Flat indices of the voxels up to a shell on the half grid of a radius, in one fixed order."""
    return np.flatnonzero(half_grid_shells(radius).reshape(-1) <= max_shell)


@partial(jax.jit, static_argnames="max_shell")
def _voxels_kept(accumulator: Accumulator, max_shell: int):
    return jnp.asarray(accumulator.values)[_traced_kept(max_shell, accumulator.radius)]


@partial(jax.jit, static_argnames=("max_shell", "radius"))
def _on_grid(values, max_shell: int, radius: int):
    empty = jnp.zeros((int(np.prod(half_shape(radius))), 3), jnp.float32)
    return empty.at[_traced_kept(max_shell, radius)].set(values, unique_indices=True)


def _traced_kept(max_shell: int, radius: int) -> Int[Array, " kept"]:
    """:func:`_kept` made inside of a program."""
    inside = traced_grid_shells(radius).reshape(-1) <= max_shell
    return jnp.flatnonzero(inside, size=len(_kept(max_shell, radius)))


def traced_grid_shells(radius: int) -> Int32[Array, "z y x"]:
    """:func:`jaxrelax.imaging.half_grid_shells` made inside of a program.

    As a constant of a program it would be copied many times while that is compiled.
    """
    z, y, x = (jnp.arange(size, dtype=jnp.int32) for size in half_shape(radius))
    z, y = (z - radius)[:, None, None] ** 2, (y - radius)[None, :, None] ** 2
    squared = z + y + x[None, None, :] ** 2
    shell = jnp.rint(jnp.sqrt(squared.astype(jnp.float32)) / OVERSAMPLING).astype(jnp.int32)
    # A square root need not be rounded rightly; halfway between two shells is the even one.
    even = shell % 2 == 0
    half = OVERSAMPLING // 2
    lower, upper = (OVERSAMPLING * shell - half) ** 2, (OVERSAMPLING * shell + half) ** 2
    below = (shell > 0) & ((squared < lower) | ((squared == lower) & ~even))
    above = (squared > upper) | ((squared == upper) & ~even)
    return shell - below.astype(jnp.int32) + above.astype(jnp.int32)
