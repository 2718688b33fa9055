"""The E-step of a batch: from images and a volume of hypotheses to posteriors and statistics.

Pure functions of arrays, to be used under ``jit``, ``vmap`` and ``grad``. The loop of a refinement
calls the same ones, batch by batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry
from jaxrelax.inference.latents import Model
from jaxrelax.inference.likelihood import log_normaliser
from jaxrelax.inference.pose_search import (
    FixedPoses,
    PosePosterior,
    PosePrior,
    Poses,
    PoseSearch,
    require_posterior,
)


class Posterior(eqx.Module):
    """What is known of the images of a batch.

    Attributes:
        log_evidence: of every row of the table with the pose integrated out, without priors.
        rows: probability of every row given that the image shows a particle; adds up to 1.
        places: of every place where the image may go into a map, on the same condition.
        outside: probability of what stands outside the table, by the latent's name.
        log_marginal: log of everything together, priors included.
    """

    log_evidence: Float[AnyArray, "batch rows"]
    rows: Float[Array, "batch rows"]
    places: Float[Array, "batch places"]
    outside: Mapping[str, Float[Array, " batch"]]
    log_marginal: Float[Array, " batch"]

    @property
    def shows_particle(self) -> Float[Array, " batch"]:
        """Probability that an image shows the particle."""
        return 1.0 - sum(self.outside.values(), start=jnp.zeros_like(self.log_marginal))


class Stats(eqx.Module):
    """Sums over a batch that noise, pose prior and latents learn from; they add.

    Attributes:
        residual: expected |y − c P V|² with multiplicity, per shell of the map's grid.
        rotation, shift: sums of squared offsets from the prior's centre, in units of its
            variance; over three axes and over two.
        counted: images, each by the probability that it shows the particle.
        latents: of every latent, by its name.
    """

    residual: Float[Array, " shells"]
    rotation: Float[Array, ""]
    shift: Float[Array, ""]
    counted: Float[Array, ""]
    latents: Mapping[str, Any]


def over_modes(log_evidence: Float[AnyArray, "batch modes rows"]) -> Float[Array, "batch rows"]:
    """Evidence of equally likely modes together."""
    log_evidence = jnp.asarray(log_evidence)
    return jax.nn.logsumexp(log_evidence, axis=1) - jnp.log(log_evidence.shape[1])


def infer(
    model: Model,
    params: Mapping[str, Any],
    log_evidence: Float[AnyArray, "batch rows"],
    batch: ImageBatch,
    geometry: ImageGeometry,
    image_prior: Float[AnyArray, "batch rows"] | None = None,
) -> Posterior:
    """Posterior over the table and what is outside, from the evidence of every row.

    Args:
        model, params: latents and their parameters.
        log_evidence: with the pose integrated out or held, on the scale of ``log_likelihood``.
        batch, geometry: the images, for what has no map.
        image_prior: what is known of every image besides, added to the log-prior of every row.
    """
    params, log_evidence, batch, image_prior = on_device((params, log_evidence, batch, image_prior))
    # Prior by prior: the evidence is large, and rounds whatever is added to it.
    joint, impossible = log_evidence, jnp.asarray(False)
    for latent in model.latents:
        prior = latent.log_prior(params[latent.name], model.table)
        # Where no image shows a particle, what it would show is told by all else: not 0 / 0.
        excluded = jnp.max(prior) == -jnp.inf
        joint = joint + jnp.where(excluded, 0.0, prior)[None]
        impossible |= excluded
    if image_prior is not None:
        joint = joint + image_prior
    particle = jnp.where(impossible, -jnp.inf, jax.nn.logsumexp(joint, axis=-1))
    outside = model.outside(params, batch, geometry)
    everything = particle
    for evidence in outside.values():
        everything = jnp.logaddexp(everything, evidence)
    rows = jax.nn.softmax(joint, axis=-1)
    return Posterior(
        log_evidence=log_evidence,
        rows=rows,
        places=model.table.over_places(rows),
        outside={name: jnp.exp(one - everything) for name, one in outside.items()},
        log_marginal=everything,
    )


def statistics(
    model: Model, posterior: Posterior, found: PosePosterior, batch: ImageBatch
) -> Stats:
    """What noise, pose prior and latents learn from a batch.

    Args:
        model: latents.
        posterior: from :func:`infer`.
        found: of the search, (batch, modes, rows).
        batch: the images; padding counts nothing.
    """
    found, batch = on_device((found, batch))
    table, valid = model.table, batch.valid.astype(posterior.places.dtype)
    counted = valid * posterior.shows_particle
    at_places = found_at_places(model, found)
    modes = jax.nn.softmax(at_places.log_evidence, axis=1)
    shares = (posterior.places * counted[:, None])[:, None] * modes
    second = at_places.offset**2 + jnp.diagonal(at_places.covariance, axis1=-2, axis2=-1)
    second = jnp.einsum("bmj,bmja->a", shares, second)
    return Stats(
        residual=jnp.einsum("bmj,bmjs->s", shares, at_places.residual_power),
        rotation=jnp.sum(second[:3]),
        shift=jnp.sum(second[3:]),
        counted=jnp.sum(counted),
        latents={
            one.name: one.statistics(
                table,
                posterior.rows * posterior.shows_particle[:, None],
                posterior.outside.get(one.name),
                valid,
            )
            for one in model.latents
        },
    )


def found_at_places(model: Model, found: PosePosterior) -> PosePosterior:
    """What a search found of every row, (batch, modes, rows, …), at the table's places."""
    rows = model.table.place_rows
    # A slice where it can be one: what is gathered is copied.
    if np.array_equal(rows, np.arange(len(rows))):
        return jax.tree.map(lambda x: x[:, :, : len(rows)], found)
    return jax.tree.map(lambda x: x[:, :, rows], found)


def e_step(
    model: Model,
    params: Mapping[str, Any],
    search: PoseSearch,
    target: Any,
    batch: ImageBatch,
    geometry: ImageGeometry,
    poses: Poses,
    prior: PosePrior,
    n_shells: int,
    image_prior: Float[AnyArray, "batch rows"] | None = None,
) -> tuple[Posterior, PosePosterior, Stats]:
    """Posterior, poses and statistics of a batch.

    Args:
        model, params: what is unknown besides the pose (``model.init()`` to begin with).
        search: how poses are searched or held.
        target: ``search.prepare(volume, geometry)``; the volume has a channel for each row of
            ``model.table``.
        batch, geometry: images in the scored band.
        poses: current ones and the consensus.
        prior: around the consensus.
        n_shells: of the residual power.
        image_prior: see :func:`infer`.

    Returns:
        The posterior, the poses of every mode and row, and what is learned from.

    Raises:
        TypeError: the search returned something else than a `PosePosterior`.
        ValueError: a field of it has not a value for every image and row.
    """
    found = search(target, batch, geometry, poses, prior, n_shells)
    require_posterior(search, found, len(batch.data), len(model.table), n_shells)
    found = split_modes(search, found)
    log_evidence = over_modes(found.log_evidence)
    posterior = infer(model, params, log_evidence, batch, geometry, image_prior)
    return posterior, found, statistics(model, posterior, found, batch)


def split_modes(search: PoseSearch, found: PosePosterior) -> PosePosterior:
    """What a search returned, (batch, modes · rows, …), as (batch, modes, rows, …)."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0], search.modes, -1, *x.shape[2:]), found)


def log_marginal(
    model: Model,
    params: Mapping[str, Any],
    volume: FourierVolume,
    batch: ImageBatch,
    geometry: ImageGeometry,
    poses: Poses,
    *,
    search: PoseSearch = FixedPoses(),  # noqa: B008  (immutable)
    prior: PosePrior | None = None,
) -> Float[Array, " batch"]:
    """Log-density of every image with all discrete latents summed over; normalised.

    Differentiable in whatever the arguments were made of: map, pose, shift, defocus, noise (through
    the weights of the batch) and fractions. The density is that of the real and imaginary parts of
    the packed pixels, scaled so that they are orthonormal coordinates of the image in the band:
    −½ Σ multiplicity · log(2π σ²) is in it, so that noise can be learned by ascent.

    Args:
        model, params: what is unknown besides the pose.
        volume: a channel for each row of ``model.table``.
        batch, geometry: images; pixels of weight zero are left out.
        poses: of the images.
        search: poses are held by default, and integrated over by a local search.
        prior: of the poses, for a search that has one.
    """
    if prior is None:
        prior = PosePrior(jnp.ones(()), jnp.ones(()))
    n_shells = int(geometry.slice_shell.max()) + 1
    target = search.prepare(volume, geometry)
    found = search(target, batch, geometry, poses, prior, n_shells)
    require_posterior(search, found, len(batch.data), len(model.table), n_shells)
    found = split_modes(search, found)
    posterior = infer(model, params, over_modes(found.log_evidence), batch, geometry)
    return posterior.log_marginal + log_normaliser(batch, geometry)
