"""How much of a batch is worked on at once, and in what stages: temporaries that fit the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrelax.arrays import AnyArray

# About a core's cache, or enough to fill an accelerator. With `in_stages` the cache holds what
# blocks read and leave behind.
CHUNK_BYTES = {"cpu": 3 * 2**20, "accelerator": 2**29}
# Of a core's cache, what the widest stage of a block may take: the others and what is gathered need
# room too. Measured with `experiments/benchmarks/kernels.py`: half or twice as much hardly matters.
BLOCK_BYTES = 2**17
MOST_POINTS = 2048


def on_cpu() -> bool:
    """Whether programs run on processors with caches, not on an accelerator."""
    return jax.default_backend() == "cpu"


def fitting(bytes_each: int) -> int:
    """How many items with temporaries of so many bytes are worked on at once; at least 1."""
    return max(CHUNK_BYTES["cpu" if on_cpu() else "accelerator"] // bytes_each, 1)


def equal_part(n: int, most: int) -> int:
    """The largest divisor of ``n`` that is at most ``most``."""
    return next(size for size in range(min(most, n), 0, -1) if n % size == 0)


def in_stages(stages: tuple[Callable[[Int[AnyArray, ""], Any], Any], ...], count: int) -> Any:
    """Take items 0 … count − 1 through ``stages``, each called with the item and what came before.

    XLA on the CPU merges a computation into each of those that use it: it is done again for each,
    and data that are in the wrong order are read in the wrong order again. What a loop carries from
    one turn to the next has to be written down, though. So in one turn every stage works on another
    item, one behind that of the stage before, and what lies between them stays in the cache. A
    single item goes through the stages without a loop; so does everything on an accelerator, where
    :class:`Blocks` makes one item of it.

    Args:
        stages: ``stage(item, value)``; the value is what the stage before returned for the item,
            and None for the first. The first turns give stages zeros for values; what they make of
            them is not used.
        count: of items; at least 1.

    Returns:
        Results of the last stage, stacked along a new leading axis.
    """
    if count == 1:
        value = None
        for stage in stages:
            value = stage(jnp.int32(0), value)
        return jax.tree.map(lambda x: x[None], value)

    shapes: list[Any] = [None]
    for stage in stages:
        shapes.append(jax.eval_shape(stage, jnp.int32(0), shapes[-1]))
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[:-1])

    def turn(carried, now):
        made = [
            stage(jnp.clip(now - behind, 0, count - 1), value)
            for behind, (stage, value) in enumerate(zip(stages, carried, strict=True))
        ]
        return [None, *made[:-1]], made[-1]

    late = len(stages) - 1
    _, out = jax.lax.scan(turn, empty, jnp.arange(count + late, dtype=jnp.int32))
    return jax.tree.map(lambda x: x[late:], out)


@dataclass(frozen=True)
class Blocks:
    """Images and their Fourier pixels cut into equal blocks for :func:`in_stages`.

    A block has some images whole, or a part of one.

    Attributes:
        n_images, n_points: of all.
        images, points: of a block.
    """

    n_images: int
    n_points: int
    images: int
    points: int

    @classmethod
    def of(cls, n_images: int, n_points: int, bytes_per_point: int) -> Blocks:
        """Blocks whose widest stage fits the cache; everything at once on an accelerator."""
        if not on_cpu():
            return cls(n_images, n_points, n_images, n_points)
        most = min(max(BLOCK_BYTES // bytes_per_point, 1), MOST_POINTS)
        if n_points <= most:
            return cls(n_images, n_points, equal_part(n_images, most // n_points), n_points)
        return cls(n_images, n_points, 1, -(-n_points // -(-n_points // most)))

    @property
    def parts(self) -> int:
        """Blocks that an image is cut into."""
        return -(-self.n_points // self.points)

    @property
    def count(self) -> int:
        """Of blocks."""
        return self.n_images // self.images * self.parts

    def split(self, values: AnyArray) -> Array:
        """Cut the last axis, the points, into parts, (…, parts, points); zero beyond the last."""
        missing = self.parts * self.points - self.n_points
        padded = jnp.pad(jnp.asarray(values), [(0, 0)] * (values.ndim - 1) + [(0, missing)])
        return padded.reshape(*values.shape[:-1], self.parts, self.points)

    def part(self, values: AnyArray, block: Int[Array, ""]) -> Array:
        """Of (parts, …): what belongs to a block."""
        return jnp.asarray(values)[block % self.parts]

    def of_images(self, values: AnyArray, block: Int[Array, ""]) -> Array:
        """Of (n_images, …): the images of a block."""
        by_block = jnp.asarray(values).reshape(-1, self.images, *values.shape[1:])
        return by_block[block // self.parts]

    def of_points(self, values: AnyArray, block: Int[Array, ""]) -> Array:
        """Of (n_images, parts, points): the images and points of a block."""
        # One index, not one of the image and one of the part: XLA's fusion emitters (jaxlib 0.10.2
        # on a CPU) take wrong ones where three arrays are cut in two steps.
        by_block = jnp.asarray(values).reshape(self.count, self.images, self.points)
        return by_block[block]

    def total(self, values: Array) -> Array:
        """Sums of every block's images, (count, images, …), as sums of whole images."""
        rest = values.shape[2:]
        by_part = values.reshape(-1, self.parts, self.images, *rest)
        return by_part.sum(axis=1).reshape(self.n_images, *rest)

    def joined(self, values: Array) -> Array:
        """Blocks of values at points, (count, images, …, points), as (n_images, …, n_points)."""
        rest = values.shape[2:-1]
        by_part = values.reshape(-1, self.parts, self.images, *rest, self.points)
        whole = jnp.moveaxis(by_part, 1, -2)
        return whole.reshape(self.n_images, *rest, -1)[..., : self.n_points]
