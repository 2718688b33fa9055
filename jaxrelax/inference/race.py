"""Many peaks of many images climbed at once; those that fall behind are left where they are.

Of the local maxima that a grid proposes, most turn out hopeless within a step: what an expansion
predicts of a peak's evidence is nearly right before the peak is reached. So after every expansion
an image goes on only from starts that are within some nats of its best one. What remains, of all
images of a chunk together, is expanded in blocks of as many as the chunk has images: their number
depends on the images, their shape does not.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry
from jaxrelax.inference.gauss_newton import Climb, GaussNewton
from jaxrelax.inference.pose_search import PosePrior, Poses

Starts = tuple[Float[Array, "starts batch 3 3"], Float[Array, "starts batch 2"]]


def race(
    climber: GaussNewton,
    volume: FourierVolume,
    batch: ImageBatch,
    geometry: ImageGeometry,
    starts: Starts,
    running: Bool[Array, "starts batch"],
    prior: PosePrior,
    log_prior: Callable[[Float[Array, "starts batch 2"]], Float[Array, "starts batch"]],
    behind_nats: float | Float[Array, ""],
    n_shells: int,
) -> tuple[Climb, Bool[Array, "starts batch"]]:
    """Climb from several starts of every image, each under a prior of its own around it.

    Args:
        climber: takes its number of steps.
        volume, batch, geometry: what is compared, and in which band.
        starts: rotations, and origins in px.
        running: which of them to climb from.
        prior: around each start.
        log_prior: of origins in px; it counts beside the images.
        behind_nats: a start whose log-evidence is so far below the best of its image is given up.
        n_shells: of the residual power.

    Returns:
        all climbs with the starts as leading axis, and which of them are still running: of every
        image at least the best, unless its likelihood is not a number.
    """

    def expanded(_, state):
        climbs, running = state
        climbs = _expanded(climber, volume, batch, geometry, climbs, running, prior, n_shells)
        worth = jax.nn.logsumexp(climbs.log_evidence, axis=-1) + log_prior(climbs.best[1])
        worth = jnp.where(running, worth, -jnp.inf)
        return climbs, running & (worth >= worth.max(axis=0, keepdims=True) - behind_nats)

    climbs = jax.vmap(
        lambda rotations, origins: climber.begin(
            Poses(rotations, origins, rotations, origins), volume.channels, n_shells
        )
    )(*starts)
    return jax.lax.fori_loop(0, climber.n_steps + 1, expanded, (climbs, running))


def _expanded(
    climber: GaussNewton,
    volume: FourierVolume,
    batch: ImageBatch,
    geometry: ImageGeometry,
    climbs: Climb,
    running: Bool[Array, "starts batch"],
    prior: PosePrior,
    n_shells: int,
) -> Climb:
    """One more expansion of those that are running."""
    images = running.shape[1]
    chosen = running.reshape(-1)
    order = jnp.argsort(~chosen, stable=True)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), climbs)

    def block(i, flat):
        places = jax.lax.dynamic_slice(order, (i * images,), (images,))
        image = places % images
        data = ImageBatch(batch.data[image], batch.ctf[image], batch.weights, batch.valid[image])
        old = jax.tree.map(lambda x: x[places], flat)
        new = climber.advance(old, volume, data, geometry, prior, n_shells)
        # The last block is filled up with some that are not running: they stay as they are.
        unless = chosen[places]

        def written(x, new, old):
            keep = unless.reshape((-1,) + (1,) * (new.ndim - 1))
            return x.at[places].set(jnp.where(keep, new, old))

        return jax.tree.map(written, flat, new, old)

    blocks = -(-jnp.sum(chosen) // images)
    flat = jax.lax.fori_loop(0, blocks, block, flat)
    return jax.tree.map(lambda x, old: x.reshape(old.shape), flat, climbs)
