"""Windows cut from images at whole pixels: nothing is interpolated."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int


def cut_windows(
    images: Float[np.ndarray, "n y x"], offsets_px: Int[np.ndarray, "n 2"], box: int
) -> Float32[np.ndarray, "n b b"]:
    """Square windows whose centre (``box // 2``) is the image's centre moved by an offset.

    Where a window reaches beyond its image it has the mean of the image's outermost pixels, which
    is 0 for images whose background has been normalised.

    Args:
        images: [y, x], even.
        offsets_px: (x, y) of every window.
        box: of the windows, even.
    """
    n = images.shape[1]
    windows = np.empty((len(images), box, box), np.float32)
    for image, (dx, dy), window in zip(images, offsets_px.tolist(), windows, strict=True):
        (y, there_y), (x, there_x) = (_overlap(n, box, d) for d in (dy, dx))
        inside = image[y, x]
        if inside.shape != window.shape:
            window[:] = _edge_mean(image)
        window[there_y, there_x] = inside
    return windows


def reaches_beyond(
    image_boxes: Int[np.ndarray, " n"], box: int, offsets_px: Int[np.ndarray, "n 2"]
) -> Bool[np.ndarray, " n"]:
    """Which windows hold pixels that are not in their images.

    Args:
        image_boxes: of every image.
        box, offsets_px: as for :func:`cut_windows`.
    """
    first = image_boxes[:, None] // 2 - box // 2 + offsets_px
    return np.any((first < 0) | (first + box > image_boxes[:, None]), axis=1)


def _overlap(n: int, box: int, offset: int) -> tuple[slice, slice]:
    """Along one axis: the part of the image that is in the window, and where it is there."""
    first = n // 2 - box // 2 + offset
    low, high = min(max(first, 0), n), max(min(first + box, n), 0)
    high = max(low, high)
    return slice(low, high), slice(low - first, high - first)


def _edge_mean(image: Float[np.ndarray, "y x"]) -> np.ndarray:
    edge = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    return edge.mean(dtype=np.float64)
