"""From posteriors to sums without leaving the device: what is significant is found and inserted.

How many poses of a batch are worth inserting is known only to the device that scored them. Here
they are packed into a list of fixed length, of which a loop goes through as much as is filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging import ImageBatch, ImageGeometry
from jaxrelax.imaging.chunks import equal_part
from jaxrelax.reconstruction.accumulators import (
    Accumulator,
    Candidates,
    accumulated,
    at_once,
)


class Significant(NamedTuple):
    """Hypotheses of a batch that hold most of each image's posterior, one after another.

    Attributes:
        index: into the flattened (batch, hypotheses); by image, the likeliest first. Beyond
            ``count`` there is nothing meant.
        weight: of each, renormalised to its image's total; zero beyond ``count``.
        count: how many there are.
    """

    index: Int32[Array, " every"]
    weight: Float[Array, " every"]
    count: Int32[Array, ""]


def deposit(
    accumulator: Accumulator,
    batch: ImageBatch,
    geometry: ImageGeometry,
    rotations: Float[AnyArray, "batch placed places 3 3"],
    origins_px: Float[AnyArray, "batch placed places 2"],
    weights: Float[AnyArray, "batch placed places"],
    operators: Float[AnyArray, "places 3 3"],
    mass: float = 0.999,
) -> Accumulator:
    """Add a batch to the sums, each image at the poses that hold ``mass`` of its posterior.

    The sums are those of :func:`jaxrelax.inference.significant` and :func:`accumulate`, in the
    same order, but for the rounding of weights; to be used under ``jit`` with the accumulator
    donated, and inside ``jax.shard_map`` on each device's own images.

    Args:
        accumulator: of the band's radius.
        batch: images; its ``weights`` decide the band and the noise.
        geometry: of the images.
        rotations, origins_px: poses A at which an image may go into the map, for each place.
        weights: of the poses; zeros, as of padding, are never inserted.
        operators: r of every place (``Hypotheses.place_operators``), which goes in at ``A rᵀ``.
        mass: share of each image's weight that is kept; the rest is spread over what is kept.
    """
    accumulator, batch, rotations, origins_px = on_device(
        (accumulator, batch, rotations, origins_px)
    )
    at = (rotations, origins_px, operators)
    return _inserted(accumulator, batch, geometry, significant_first(weights, mass), at)


def deposit_in_maps(
    accumulators: Sequence[Accumulator],
    batch: ImageBatch,
    geometry: ImageGeometry,
    rotations: Float[AnyArray, "batch placed places 3 3"],
    origins_px: Float[AnyArray, "batch placed places 2"],
    weights: Float[AnyArray, "batch placed places"],
    operators: Float[AnyArray, "places 3 3"],
    maps: Int[np.ndarray, " places"],
    mass: float = 0.999,
) -> tuple[Accumulator, ...]:
    """:func:`deposit` where places belong to several maps, of which each has sums of its own.

    What is significant is decided for all maps together: an image that surely shows one of them is
    not inserted into the others.

    Args:
        accumulators: of every map.
        batch, geometry, rotations, origins_px, weights, operators, mass: see :func:`deposit`.
        maps: which map each place is in.
    """
    if len(accumulators) == 1:
        done = deposit(
            accumulators[0], batch, geometry, rotations, origins_px, weights, operators, mass
        )
        return (done,)
    accumulators, batch, rotations, origins_px = on_device(
        (tuple(accumulators), batch, rotations, origins_px)
    )
    kept, at = significant_first(weights, mass), (rotations, origins_px, operators)
    of_kept = jnp.asarray(maps)[kept.index % len(maps)]
    return tuple(
        _inserted(one, batch, geometry, _of_map(kept, of_kept == number), at)
        for number, one in enumerate(accumulators)
    )


def _of_map(kept: Significant, belongs) -> Significant:
    """Those that belong to a map, in the same order."""
    numbers = jnp.arange(len(kept.index), dtype=jnp.int32)
    belongs &= numbers < kept.count
    count = belongs.sum(dtype=jnp.int32)
    first = jnp.flatnonzero(belongs, size=len(numbers), fill_value=0)
    weight = jnp.where(numbers < count, kept.weight[first], 0.0)
    return Significant(kept.index[first], weight, count)


def _inserted(
    accumulator: Accumulator, batch: ImageBatch, geometry: ImageGeometry, kept: Significant, at
) -> Accumulator:
    """A batch added at what is kept of the hypotheses: poses and operators of places."""
    rotations, origins_px, operators = at
    n, placed, places = rotations.shape[:3]
    mates = jnp.swapaxes(jnp.asarray(operators, rotations.dtype), 1, 2)
    hypotheses = placed * places
    rotations, origins_px = rotations.reshape(-1, 3, 3), origins_px.reshape(-1, 2)
    size = equal_part(n, at_once(geometry))

    def more(carried):
        return carried[1] < kept.count

    def add(carried):
        sums, begin = carried
        index = jax.lax.dynamic_slice_in_dim(kept.index, begin, size)
        candidates = Candidates(
            row=index // hypotheses,
            # An accelerator would otherwise multiply with ten bits.
            rotations=jnp.matmul(
                rotations[index], mates[index % places], precision=jax.lax.Precision.HIGHEST
            ),
            origins_px=origins_px[index],
            weight=jax.lax.dynamic_slice_in_dim(kept.weight, begin, size),
        )
        return accumulated(sums, batch, geometry, candidates), begin + size

    return jax.lax.while_loop(more, add, (accumulator, jnp.int32(0)))[0]


def significant_first(
    weights: Float[AnyArray, "batch *hypotheses"], mass: float = 0.999
) -> Significant:
    """:func:`jaxrelax.inference.significant` as a pure function, its result of fixed length.

    A hypothesis is kept if those from it on, the likeliest first, hold more than ``1 − mass`` of
    the total. These are summed from the least likely up, so that what single precision rounds is
    1e-7 of that remainder: the choice is that of double precision, unless a remainder is equal to
    ``1 − mass`` up to about 1e-10 of the total.
    """
    weights = jnp.asarray(weights)
    flat = weights.reshape(len(weights), -1)
    numbers = jnp.arange(flat.size, dtype=jnp.int32).reshape(flat.shape)
    negative, order = jax.lax.sort((-flat, numbers), dimension=1, num_keys=1, is_stable=True)
    ranked = -negative
    remaining = jax.lax.cumsum(ranked, axis=1, reverse=True)
    keep = (remaining > (1.0 - mass) * remaining[:, :1]) & (ranked > 0)
    dropped = jnp.sum(jnp.where(keep, 0.0, ranked), axis=1, keepdims=True)
    held = jnp.sum(jnp.where(keep, ranked, 0.0), axis=1, keepdims=True)
    scaled = ranked * (1.0 + dropped / jnp.maximum(held, 1e-30))
    count = keep.sum(dtype=jnp.int32)
    first = jnp.flatnonzero(keep, size=keep.size, fill_value=0)
    filled = jnp.arange(keep.size, dtype=jnp.int32) < count
    weight = jnp.where(filled, scaled.reshape(-1)[first], 0.0)
    return Significant(order.reshape(-1)[first], weight, count)
