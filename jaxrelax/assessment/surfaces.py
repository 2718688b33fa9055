"""Shaded views of maps: orthographic rays, the first crossing of a level, one light.

Everything is an array until it is a picture, so no display and no renderer is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Float32
from matplotlib.colors import to_rgb

from jaxrelax.imaging import resample_map

# Voxels along the edge of what is shown. A picture has as many pixels.
FINEST, COARSEST = 200, 120
# Of the viewer: x to the right, y up, z towards the eye.
LIGHT = np.array([-0.35, 0.5, 0.79])
TOWARDS_EYE = np.array([0.0, 0.0, 1.0])
AMBIENT, SHINE = 0.42, 0.14
# What lies behind is paler by so much at the far side.
HAZE = 0.35
# Smooths normals, not the surface.
NORMALS_PX = 1.0
# Rows, columns and depth of a picture as axes of an array [z, y, x], and which of them run against
# it: rows go down, and depth away from the eye. Handed as in the right-handed frame of the map.
VIEWS = {
    "x": ((0, 1, 2), (True, False, True)),
    "y": ((0, 2, 1), (True, True, True)),
    "z": ((1, 2, 0), (True, False, True)),
}


class Field(NamedTuple):
    """A map on the grid of a picture, and the same smoothed, for normals."""

    map: Float32[np.ndarray, "m m m"]
    smooth: Float32[np.ndarray, "m m m"]


class Surface(NamedTuple):
    """What rays meet first.

    Attributes:
        depth: in voxels from the side of the eye; infinite where they meet nothing.
        shade: brightness, 0 to 1.
        shine: of the highlight, 0 to 1.
    """

    depth: Float[np.ndarray, "rows columns"]
    shade: Float[np.ndarray, "rows columns"]
    shine: Float[np.ndarray, "rows columns"]

    @property
    def hit(self) -> Bool[np.ndarray, "rows columns"]:
        """Where they meet anything."""
        return np.isfinite(self.depth)


def on_picture_grid(map_: Float32[np.ndarray, "n n n"]) -> Field:
    """The map on a grid of as many voxels as a picture has pixels, through Fourier space."""
    n = map_.shape[0]
    size = int(np.clip(3 * n, COARSEST, FINEST))
    fine = np.asarray(resample_map(np.asarray(map_, np.float32), size), np.float32)
    return Field(fine, scipy.ndimage.gaussian_filter(fine, NORMALS_PX))


def without_dust(
    map_: Float32[np.ndarray, "n n n"], level: float, smallest_voxels: float
) -> Float32[np.ndarray, "n n n"]:
    """The map with what stands above a level in smaller pieces pressed below it."""
    labels = np.zeros(map_.shape, np.int32)
    scipy.ndimage.label(map_ >= level, output=labels)  # type: ignore[arg-type]
    dust = np.bincount(labels.ravel()) < smallest_voxels
    dust[0] = False
    return np.where(dust[labels], np.float32(level - abs(level)), map_)


def seen_along(
    map_: Float32[np.ndarray, "n n n"], axis: str
) -> Float32[np.ndarray, "rows columns depth"]:
    """The map with rows, columns and depth of the view from the positive end of an axis."""
    order, flipped = VIEWS[axis]
    turned = np.transpose(map_, order)
    return turned[tuple(slice(None, None, -1 if each else 1) for each in flipped)]


def surface(field: Field, level: float, axis: str) -> Surface:
    """Where each ray first crosses a level from below, between voxels, and how it is lit there.

    A ray that starts above the level meets the side of the box.

    Args:
        field: of :func:`on_picture_grid`.
        level: density of the surface.
        axis: from the positive end of which it is seen.
    """
    map_, smooth = (seen_along(each, axis) for each in field)
    rows, columns, _ = map_.shape
    above = map_ >= level
    hit = above.any(axis=2)
    r, c = np.nonzero(hit)
    second = above.argmax(axis=2)[r, c]
    first = np.maximum(second - 1, 0)
    high, low = map_[r, c, second].astype(np.float64), map_[r, c, first].astype(np.float64)
    step = np.divide(level - low, high - low, out=np.zeros_like(high), where=high > low)
    step = np.where(second > first, np.clip(step, 0.0, 1.0), 1.0)

    def slope(at, axis: int):
        place, last = [r, c, at], map_.shape[axis] - 1
        ahead, behind = list(place), list(place)
        ahead[axis] = np.minimum(place[axis] + 1, last)
        behind[axis] = np.maximum(place[axis] - 1, 0)
        return smooth[tuple(ahead)].astype(np.float64) - smooth[tuple(behind)]

    gradient = np.stack([(1 - step) * slope(first, a) + step * slope(second, a) for a in range(3)])
    # Density falls outwards. Rows count downwards, depth away from the eye.
    normal = np.stack([-gradient[1], gradient[0], gradient[2]])
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-30)
    light = LIGHT / np.linalg.norm(LIGHT)
    halfway = light + TOWARDS_EYE
    halfway /= np.linalg.norm(halfway)
    deep = np.full((rows, columns), np.inf)
    shade, shine = np.zeros((rows, columns)), np.zeros((rows, columns))
    deep[r, c] = first + step * (second - first)
    lit = AMBIENT + (1.0 - AMBIENT) * np.clip(light @ normal, 0.0, 1.0)
    shade[r, c] = lit
    shine[r, c] = SHINE * np.clip(halfway @ normal, 0.0, 1.0) ** 24
    return Surface(deep, shade, shine)


def painted(one: Surface, colour: str, depth: int) -> Float[np.ndarray, "rows columns 3"]:
    """A surface in a colour, paler towards the far side; white where there is none."""
    base = np.array(to_rgb(colour))
    picture = one.shade[..., None] * base + one.shine[..., None]
    far = HAZE * np.clip(np.where(one.hit, one.depth, 0.0) / depth, 0.0, 1.0)[..., None]
    picture = np.clip((1.0 - far) * picture + far, 0.0, 1.0)
    return np.where(one.hit[..., None], picture, 1.0)


def overlaid(
    body: tuple[Surface, Float[np.ndarray, "rows columns 3"]],
    inner: list[tuple[Surface, Float[np.ndarray, "rows columns 3"]]],
    veil: float,
) -> Float[np.ndarray, "rows columns 3"]:
    """Opaque surfaces in and around a body that hides what lies behind it by a share ``veil``."""
    picture, depth = np.ones_like(body[1]), np.full(body[0].depth.shape, np.inf)
    for one, painting in inner:
        nearer = one.depth < depth
        picture = np.where(nearer[..., None], painting, picture)
        depth = np.minimum(depth, one.depth)
    nothing = ~np.isfinite(depth)
    before = body[0].hit & (body[0].depth < depth)
    cover = np.where(before, np.where(nothing, 1.0, veil), 0.0)[..., None]
    return (1.0 - cover) * picture + cover * body[1]
