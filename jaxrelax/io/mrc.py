"""Maps, masks and image stacks in MRC files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from jaxrelax.io.atomic import atomic_open
from jaxrelax.io.errors import InputError
from jaxrelax.io.mrc_header import HEADER_BYTES, make_header, pixel_size_advice, read_header

# Squares of less are lost in single precision, and those of more have no number.
FAINTEST_MAP, BRIGHTEST_MAP = 1e-15, 1e15
LEAST_MASK_PEAK = 0.5


def read_map(
    path: str | os.PathLike, pixel_size_angstrom: float | None = None
) -> tuple[Float32[np.ndarray, "z y x"], float]:
    """Read a cubic map.

    Args:
        path: the MRC file.
        pixel_size_angstrom: used instead of the header's, when given.

    Returns:
        The map, indexed [z, y, x], and its pixel size in Å.

    Raises:
        InputError: the file is missing, truncated, not a cube of even size, holds NaN or
            infinities, has its axes in another order, voxels that are no cubes or a cell that is
            not rectangular, or gives no pixel size.
    """
    path = Path(path)
    header = read_header(path)
    nz, ny, nx = header.shape
    if not nz == ny == nx:
        raise InputError(
            f"{path}: {nx} x {ny} x {nz} voxels is not a cube. Pad or crop the map to a cube."
        )
    if nx % 2:
        raise InputError(
            f"{path}: the box of {nx} voxels is odd. Pad the map to an even box, with the "
            f"centre at voxel {(nx + 1) // 2} (counting from 0)."
        )
    header.require_whole()
    if header.axes != (1, 2, 3):
        raise InputError(
            f"{path}: the axes are stored in the order {header.axes}, not x, y, z (1, 2, 3). "
            "Write the map again in the standard order."
        )
    header.require_cubic_voxels(known_pixel_size=pixel_size_angstrom is not None)
    array = np.array(header.memory_map(), dtype=np.float32)
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputError(
            f"{path}: {bad} voxels are NaN or infinite. Write the map again without them."
        )
    if pixel_size_angstrom is not None:
        if not (np.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
            raise InputError(
                f"{path}: the pixel size given is {pixel_size_angstrom:g} Å, not above 0."
            )
        return array, float(pixel_size_angstrom)
    if header.pixel_size_angstrom <= 0:
        raise InputError(f"{path}: the header gives no pixel size; {pixel_size_advice(path)}")
    return array, _tidy(header.pixel_size_angstrom)


def read_reference(
    path: str | os.PathLike, pixel_size_angstrom: float | None = None
) -> tuple[Float32[np.ndarray, "z y x"], float]:
    """Read a map that images are compared with.

    Raises:
        InputError: as `read_map`, and if there is nothing in the map.
    """
    array, pixel_size = read_map(path, pixel_size_angstrom)
    require_density(array, str(path))
    return array, pixel_size


def require_density(array: np.ndarray, name: str) -> None:
    """Refuse a map in which there is nothing that could be a particle.

    Args:
        array: [z, y, x], a cube.
        name: of the map, for messages.

    Raises:
        InputError: all voxels are equal, as good as zero, or too large to be squared; or all
            density lies outside the sphere that the box holds.
    """
    low, high = float(array.min()), float(array.max())
    if low == high or max(abs(low), abs(high)) < FAINTEST_MAP:
        raise InputError(
            f"{name}: there is nothing in this map: its voxels go from {low:.3g} to {high:.3g}. "
            "Give the map of a refinement of these particles."
        )
    if max(abs(low), abs(high)) > BRIGHTEST_MAP:
        raise InputError(
            f"{name}: the voxels of this map go from {low:.3g} to {high:.3g}, beyond what single "
            "precision can square. Multiply it by a small number (relion_image_handler "
            "--multiply_constant)."
        )
    squares = (np.arange(len(array)) - len(array) // 2) ** 2
    inside = squares[:, None, None] + squares[:, None] + squares < (len(array) // 2) ** 2
    if np.ptp(array[inside]) == 0:
        raise InputError(
            f"{name}: there is nothing in this map within {len(array) // 2} voxels of its centre. "
            "Give a map with the particle in the middle of its box."
        )


def read_mask(
    path: str | os.PathLike, pixel_size_angstrom: float | None = None
) -> tuple[Float32[np.ndarray, "z y x"], float]:
    """Read a mask: a map with values from 0 to 1.

    Raises:
        InputError: as `read_map`, and if values lie outside 0 to 1 or none comes near 1.
    """
    array, pixel_size = read_map(path, pixel_size_angstrom)
    low, high = float(array.min()), float(array.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(
            f"{path}: a mask has values from 0 to 1, these go from {low:.3g} to {high:.3g}. "
            "Make a mask from this map first, for instance with relion_mask_create."
        )
    if high < LEAST_MASK_PEAK:
        raise InputError(
            f"{path}: the mask is as good as empty: no voxel is above {max(high, 0.0):.3g}, and it "
            "should be 1 inside. Make it again, for instance with relion_mask_create."
        )
    return np.clip(array, 0.0, 1.0), pixel_size


def write_map(path: str | os.PathLike, array: np.ndarray, pixel_size_angstrom: float) -> None:
    """Write a map [z, y, x] as float32 (mode 2), origin 0, with header statistics.

    The file appears under its name only when it is whole.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
        ValueError: the array is not three-dimensional, or the pixel size is not positive.
    """
    data = np.ascontiguousarray(array, dtype="<f4")
    if data.ndim != 3:
        raise ValueError(f"a map has three axes, not {data.ndim}")
    _require_positive(pixel_size_angstrom)
    statistics = (
        float(data.min()),
        float(data.max()),
        float(data.mean(dtype=np.float64)),
        float(data.std(dtype=np.float64)),
    )
    header = make_header(data.shape, data.dtype, pixel_size_angstrom, statistics, is_stack=False)
    with atomic_open(path) as handle:
        handle.write(header)
        handle.write(data.data)


def write_stack(
    path: str | os.PathLike,
    images: Iterable[np.ndarray],
    pixel_size_angstrom: float,
    dtype: type | np.dtype | str = np.float32,
) -> int:
    """Write images one after another as a stack; the whole stack is never in memory.

    Args:
        path: the stack, by custom ``.mrcs``.
        images: an array (n, y, x), or an iterable of images (y, x) or of batches (b, y, x).
        pixel_size_angstrom: of the images.
        dtype: float32 (mode 2) or float16 (mode 12).

    Returns:
        The number of images written.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
        ValueError: no images, images of different sizes, values that float16 cannot hold, or
            another dtype.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float16)):
        raise ValueError(f"stacks are written as float32 or float16, not {dtype}")
    _require_positive(pixel_size_angstrom)
    count, size = 0, None
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    with atomic_open(path) as handle:
        handle.write(bytes(HEADER_BYTES))  # its place; the statistics are known at the end
        for batch in images:
            batch = np.asarray(batch)
            batch = batch[None] if batch.ndim == 2 else batch
            size = size or batch.shape[1:]
            if batch.ndim != 3 or batch.shape[1:] != size:
                raise ValueError(f"images of shape {batch.shape[1:]} in a stack of {size}")
            if dtype == np.float16 and np.abs(batch).max(initial=0.0) > np.finfo(np.float16).max:
                raise ValueError("values too large for float16; write float32")
            written = np.ascontiguousarray(batch, dtype=dtype.newbyteorder("<"))
            handle.write(written.data)
            count += len(written)
            low = min(low, float(written.min(initial=np.inf)))
            high = max(high, float(written.max(initial=-np.inf)))
            total += float(written.sum(dtype=np.float64))
            squares += float(np.square(written, dtype=np.float64).sum())
        if not count or size is None:
            raise ValueError("a stack needs at least one image")
        pixels = count * size[0] * size[1]
        mean = total / pixels
        deviation = float(np.sqrt(max(squares / pixels - mean**2, 0.0)))
        shape = (count, int(size[0]), int(size[1]))
        statistics = (low, high, mean, deviation)
        handle.seek(0)
        handle.write(make_header(shape, dtype, pixel_size_angstrom, statistics, is_stack=True))
    return count


def _tidy(pixel_size: float) -> float:
    """The header's float32 quotient without its rounding error (2.7000003 is 2.7)."""
    return float(f"{pixel_size:.6g}")


def _require_positive(pixel_size_angstrom: float) -> None:
    if not pixel_size_angstrom > 0:
        raise ValueError(f"the pixel size must be positive, not {pixel_size_angstrom}")
