"""Discrete latent variables of an image as components: register, symmetric state, states, junk.

A latent brings its rows to the table of hypotheses, its log-prior, what it wants to know of a
posterior and how it learns from that; it owns its parameters. Fractions are kept as logits, so that
no gradient is NaN, not even where a state is switched off (a logit of −∞).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Float32

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging import ImageBatch, ImageGeometry
from jaxrelax.inference.hypotheses import NO_VALUE, Hypotheses, summed


def logit(fraction: float | np.floating) -> Float32[np.ndarray, ""]:
    """The logarithm of the odds, log p − log(1 − p): ∓∞ for fractions of 0 and 1."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(fraction) - np.log1p(-fraction), np.float32)


class Latent(eqx.Module):
    """A discrete latent variable."""

    name: eqx.AbstractVar[str]

    def init(self) -> Any:
        """Its parameters before anything is known; a pytree."""
        return ()

    @abc.abstractmethod
    def extend(self, table: Hypotheses) -> Hypotheses:
        """The table with the rows that this latent brings."""

    @abc.abstractmethod
    def log_prior(self, params: Any, table: Hypotheses) -> Float[Array, " rows"]:
        """Log-probability of its value in every row of the whole table."""

    def outside(
        self, params: Any, batch: ImageBatch, geometry: ImageGeometry
    ) -> Float[Array, " batch"] | None:
        """Log of prior times evidence of what stands outside the table; None if nothing does."""
        return None

    def in_view(self, params: Any, slice_power: Float[AnyArray, " shells"]) -> Any:
        """Its parameters while images are scored against a map.

        Args:
            params: as they are kept.
            slice_power: E|P V|² per shell of the map at random orientations.
        """
        return params

    def statistics(
        self, table: Hypotheses, rows: Float[Array, "batch rows"], outside, valid
    ) -> Any:
        """What it learns from: sums over the images of a batch, to be added over batches.

        Args:
            table: of the model.
            rows: posterior of every row.
            outside: posterior of what stands outside the table on this latent's account, or None.
            valid: 1 for images, 0 for padding.
        """
        return ()

    def update(self, params: Any, statistics: Any) -> Any:
        """Parameters after a pass over the images."""
        return params

    def fraction(self, params: Any) -> float | None:
        """The share of images or particles that its parameters stand for; None if there is none."""
        return None


class Register(Latent):
    """Which of the symmetry-related poses is right: all alike beforehand.

    Attributes:
        operators: r of every register, the identity first (see
            :func:`jaxrelax.geometry.right_cosets`).
    """

    operators: Float[AnyArray, "registers 3 3"]
    name: str = eqx.field(static=True, default="register", kw_only=True)

    def extend(self, table: Hypotheses) -> Hypotheses:
        """Every row in every register, but those of a symmetric part, which has none."""
        return table.product(np.asarray(self.operators, np.float64), self.name)

    def log_prior(self, params: Any, table: Hypotheses) -> Float[Array, " rows"]:
        """−log of the number of registers where there is one."""
        has = table.value(self.name) != NO_VALUE
        return jnp.asarray(np.where(has, -np.log(len(self.operators)), 0.0), jnp.float32)


class SymmetricState(Latent):
    """Whether the particle has what breaks the symmetry at all: no partner, or all of them.

    Its parameter is the logit of the fraction of particles in the symmetric state.
    """

    name: str = eqx.field(static=True, default="symmetric", kw_only=True)

    def init(self) -> Float32[np.ndarray, ""]:
        """None are symmetric."""
        return logit(0.0)

    def extend(self, table: Hypotheses) -> Hypotheses:
        """A row for the symmetric part of each map; it feeds all of its registers."""
        return table.with_symmetrised(self.name)

    def log_prior(self, params: Float[AnyArray, ""], table: Hypotheses) -> Float[Array, " rows"]:
        """Log of the fraction, or of its complement."""
        is_symmetric = jnp.asarray(table.value(self.name) == 1)
        return jnp.where(is_symmetric, jax.nn.log_sigmoid(params), jax.nn.log_sigmoid(-params))

    def statistics(
        self, table: Hypotheses, rows: Float[Array, "batch rows"], outside, valid
    ) -> Any:
        """Expected symmetric particles, and others."""
        is_symmetric = table.value(self.name) == 1
        counted = jnp.sum(rows * valid[:, None], axis=0)
        return jnp.sum(counted[is_symmetric]), jnp.sum(counted[~is_symmetric])

    def update(self, params: Float[AnyArray, ""], statistics: Any) -> Float[AnyArray, ""]:
        """Logit of the expected share."""
        # Not a difference from all: rounding may make that less than nothing.
        symmetric, others = statistics
        return jnp.log(symmetric) - jnp.log(others)

    def fraction(self, params: Float[AnyArray, ""]) -> float:
        """Of symmetric particles."""
        return _share(params)


class States(Latent):
    """Which of several maps an image shows, each with latents of its own.

    Its parameters are the logits of the fractions (softmax), and those of the latents of every
    state.

    Attributes:
        states: of every state its latents, in the order in which they extend its table.
    """

    states: tuple[tuple[Latent, ...], ...]
    name: str = eqx.field(static=True, default="state", kw_only=True)

    def __check_init__(self):
        beside = [one.name for one in sum(self.states, ()) if type(one).outside != Latent.outside]
        if beside:
            raise ValueError(
                f"latent {beside[0]!r} stands outside the table, and so beside the states: give "
                "it to the model"
            )

    def init(self) -> tuple[Float32[np.ndarray, " states"], tuple[Any, ...]]:
        """All states alike."""
        nested = tuple(tuple(one.init() for one in latents) for latents in self.states)
        return np.zeros(len(self.states), np.float32), nested

    def extend(self, table: Hypotheses) -> Hypotheses:
        """The tables of the states, one after another.

        Raises:
            ValueError: another latent came before; states come first, and have what else there is.
        """
        if len(table) > 1 or table.values:
            raise ValueError(
                "states come first: give what else is unknown as latents of each state"
            )
        return summed([_extended(latents) for latents in self.states], self.name)

    def log_prior(self, params: Any, table: Hypotheses) -> Float[Array, " rows"]:
        """Log of the fraction of the row's state, and what the state's latents say of the row."""
        logits, nested = params
        fractions = jax.nn.log_softmax(logits)
        priors = [
            fractions[k] + _log_prior(latents, nested[k], _extended(latents))
            for k, latents in enumerate(self.states)
        ]
        if sum(map(len, priors)) < len(table):
            raise ValueError(
                "a latent after the states adds rows; give it as one of each state's latents"
            )
        return jnp.concatenate(priors)

    def in_view(self, params: Any, slice_power: Float[AnyArray, " shells"]) -> Any:
        """The same for the latents of every state."""
        nested = tuple(
            tuple(one.in_view(p, slice_power) for one, p in zip(latents, own, strict=True))
            for latents, own in zip(self.states, params[1], strict=True)
        )
        return params[0], nested

    def statistics(
        self, table: Hypotheses, rows: Float[Array, "batch rows"], outside, valid
    ) -> Any:
        """Expected particles of every state, and the statistics of the states' latents."""
        state = table.value(self.name)
        counts, nested = [], []
        for k, latents in enumerate(self.states):
            mine, own = rows[:, state == k], _extended(latents)
            counts.append(jnp.sum(mine * valid[:, None]))
            nested.append(tuple(one.statistics(own, mine, None, valid) for one in latents))
        return jnp.stack(counts), tuple(nested)

    def update(self, params: Any, statistics: Any) -> Any:
        """Logs of the expected numbers."""
        counts, nested = statistics
        below = tuple(
            tuple(one.update(p, s) for one, p, s in zip(latents, *pair, strict=True))
            for latents, *pair in zip(self.states, params[1], nested, strict=True)
        )
        return jnp.log(counts), below


class JunkParameters(NamedTuple):
    """How frequent junk is, and what it may look like.

    Attributes:
        logit: of the fraction of images that show no particle.
        object_power: E|P V|² per shell of the map's grid at random orientations; what an unknown
            object of the particle's power shows before the CTF.
    """

    logit: Float[AnyArray, ""]
    object_power: Float[AnyArray, " shells"]


class Junk(Latent):
    """Whether an image shows the particle at all; junk stands outside the table.

    Attributes:
        n_shells: of the map's grid.
        starting: fraction of junk before any was looked for: after the first pass.
        smallest: fraction that is always left, or it could not grow again.
    """

    n_shells: int = eqx.field(static=True)
    starting: float = eqx.field(static=True, default=0.02)
    smallest: float = eqx.field(static=True, default=1e-4)
    name: str = eqx.field(static=True, default="junk", kw_only=True)

    def init(self) -> JunkParameters:
        """There is none, and nothing is known of what it shows."""
        return JunkParameters(logit(0.0), np.zeros(self.n_shells, np.float32))

    def extend(self, table: Hypotheses) -> Hypotheses:
        """It has no map, and so no row."""
        return table

    def log_prior(self, params: JunkParameters, table: Hypotheses) -> Float[Array, " rows"]:
        """Log-probability that an image shows the particle, the same in every row."""
        return jnp.broadcast_to(jax.nn.log_sigmoid(-params.logit), (len(table),))

    def outside(
        self, params: JunkParameters, batch: ImageBatch, geometry: ImageGeometry
    ) -> Float[Array, " batch"]:
        """Log of the fraction times :func:`junk_evidence`."""
        return jax.nn.log_sigmoid(params.logit) + junk_evidence(
            batch, geometry, params.object_power
        )

    def statistics(
        self, table: Hypotheses, rows: Float[Array, "batch rows"], outside, valid
    ) -> Any:
        """Expected junk, and images."""
        return jnp.sum(outside * valid), jnp.sum(valid)

    def in_view(
        self, params: JunkParameters, slice_power: Float[AnyArray, " shells"]
    ) -> JunkParameters:
        """An unknown object is as strong as the map."""
        return params._replace(object_power=slice_power)

    def update(self, params: JunkParameters, statistics: Any) -> JunkParameters:
        """Logit of the expected share, within limits; at first of what junk is begun with."""
        junk, images = statistics
        share = jnp.clip(junk / images, self.smallest, 1.0 - self.smallest)
        share = jnp.where(jnp.isneginf(params.logit), self.starting, share)
        return params._replace(logit=jnp.log(share) - jnp.log1p(-share))

    def fraction(self, params: JunkParameters) -> float:
        """Of images that show no particle."""
        return _share(params.logit)


def _share(logit: Float[AnyArray, ""]) -> float:
    return float(scipy.special.expit(np.asarray(logit, np.float64)))


def junk_evidence(
    batch: ImageBatch, geometry: ImageGeometry, object_power: Float[AnyArray, " shells"]
) -> Float[Array, " batch"]:
    """Log-evidence of an image without the particle, on the scale of ``log_likelihood``.

    Equal parts of noise, −½ Σ w|y|², and of an object with Gaussian Fourier coefficients of
    variance φ: the noise is then σ² + c²φ, whose log-determinant stays (half the multiplicity
    times log(1 + c²φ/σ²) per pixel).

    Args:
        batch: images.
        geometry: of their band.
        object_power: φ, see :class:`JunkParameters`.
    """
    batch, object_power = on_device((batch, object_power))
    multiplicity = jnp.asarray(geometry.packing.multiplicity)
    power = jnp.real(batch.data) ** 2 + jnp.imag(batch.data) ** 2
    noise = -0.5 * jnp.einsum("bf,f->b", power, batch.weights)
    shells = jnp.minimum(jnp.asarray(geometry.slice_shell), object_power.shape[0] - 1)
    ratio = batch.ctf**2 * (object_power[shells] * batch.weights / multiplicity)[None, :]
    thing = -0.5 * jnp.sum(
        power * batch.weights[None, :] / (1.0 + ratio) + multiplicity[None, :] * jnp.log1p(ratio),
        axis=-1,
    )
    return jnp.logaddexp(noise, thing) - jnp.log(2.0)


class Model(eqx.Module):
    """What is unknown of an image: latents, in the order in which they extend the table."""

    latents: tuple[Latent, ...] = ()

    def __check_init__(self):
        names = [latent.name for latent in self.latents]
        if len(set(names)) < len(names):
            raise ValueError(f"two latents of one name: {', '.join(names)}")

    @property
    def table(self) -> Hypotheses:
        """All hypotheses, one for each channel of the volume."""
        return _extended(self.latents)

    def init(self) -> dict[str, Any]:
        """Parameters of every latent, by its name."""
        return {latent.name: latent.init() for latent in self.latents}

    def log_prior(self, params: Mapping[str, Any]) -> Float[Array, " rows"]:
        """Log-probability of every row; what is outside the table has the rest."""
        return _log_prior(self.latents, [params[one.name] for one in self.latents], self.table)

    def outside(
        self, params: Mapping[str, Any], batch: ImageBatch, geometry: ImageGeometry
    ) -> dict[str, Float[Array, " batch"]]:
        """Log of prior times evidence of what is outside the table, by the latent's name."""
        found = {one.name: one.outside(params[one.name], batch, geometry) for one in self.latents}
        return {name: evidence for name, evidence in found.items() if evidence is not None}

    def in_view(
        self, params: Mapping[str, Any], slice_power: Float[AnyArray, " shells"]
    ) -> dict[str, Any]:
        """Parameters of every latent while images are scored against a map."""
        return {one.name: one.in_view(params[one.name], slice_power) for one in self.latents}

    def update(self, params: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of every latent after a pass, from its statistics."""
        return {
            one.name: one.update(params[one.name], statistics[one.name]) for one in self.latents
        }

    def fractions(self, params: Mapping[str, Any]) -> dict[str, float]:
        """What people want to read of the parameters, by the latent's name."""
        found = {one.name: one.fraction(params[one.name]) for one in self.latents}
        return {name: fraction for name, fraction in found.items() if fraction is not None}


def _extended(latents: tuple[Latent, ...]) -> Hypotheses:
    table = Hypotheses.single()
    for one in latents:
        table = one.extend(table)
    return table


def _log_prior(latents: Sequence[Latent], params: Sequence[Any], table: Hypotheses):
    total = jnp.zeros(len(table), jnp.float32)
    for one, own in zip(latents, params, strict=True):
        total = total + one.log_prior(own, table)
    return total
