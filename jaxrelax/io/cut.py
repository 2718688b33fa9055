"""Windows cut from arrays of images at whole pixels: nothing is interpolated."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int


def cut_images(
    images: Float[np.ndarray, "n size size"], offsets_px: Int[np.ndarray, "n 2"], box: int
) -> Float32[np.ndarray, "n box box"]:
    """Square windows, the centre of each (``box // 2``) an offset from that of its image.

    Where a window reaches beyond its image it has the mean of the image's background: of what lies
    outside of the circle that the image holds.

    Args:
        images: [y, x], even; one for each window.
        offsets_px: (x, y) of every window.
        box: of the windows, even.
    """
    size = images.shape[1]
    windows = np.empty((len(images), box, box), np.float32)
    for image, (dx, dy), window in zip(images, offsets_px.tolist(), windows, strict=True):
        (y, there_y), (x, there_x) = (_overlap(size, box, d) for d in (dy, dx))
        inside = image[y, x]
        if inside.shape != window.shape:
            window[:] = image[_background(size)].mean(dtype=np.float64)
        window[there_y, there_x] = inside
    return windows


def reaches_beyond(
    sizes: Int[np.ndarray, " n"], box: int, offsets_px: Int[np.ndarray, "n 2"]
) -> Bool[np.ndarray, " n"]:
    """Which windows hold pixels that are not in their images.

    Args:
        sizes: of every image, in pixels.
        box, offsets_px: as for :func:`cut_images`.
    """
    first = sizes[:, None] // 2 - box // 2 + offsets_px
    return np.any((first < 0) | (first + box > sizes[:, None]), axis=1)


def _overlap(size: int, box: int, offset: int) -> tuple[slice, slice]:
    """Along one axis: the part of the image that is in the window, and where it is there."""
    first = size // 2 - box // 2 + offset
    low, high = min(max(first, 0), size), max(min(first + box, size), 0)
    high = max(low, high)
    return slice(low, high), slice(low - first, high - first)


def _background(size: int) -> Bool[np.ndarray, "size size"]:
    offset = np.arange(size) - size // 2
    return offset[:, None] ** 2 + offset**2 >= (size // 2) ** 2
