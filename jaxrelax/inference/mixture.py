"""What an image may show: the particle in one of its registers, symmetric, or no particle at all.

The registers are |G|/|H| hypotheses of one state. Beside them stand the *symmetric state* (no
partner, or all of them: an image that fits the symmetrised map better than any register) and
*junk*: pure noise, or an object of the particle's power but unknown form, in equal parts.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging import ImageBatch, ImageGeometry

# By which states are apart in derivatives at most: the square of its exponential is a float.
MOST_NATS = 40.0


class Mixture(eqx.Module):
    """How frequent the states are, and what junk may look like.

    Attributes:
        symmetric_fraction: of the particles, those in the symmetric state.
        junk_fraction: of the images, those that show no particle.
        object_power: E|P V|² per shell of the map's grid at random orientations; what an unknown
            object of the particle's power shows before the CTF.
    """

    symmetric_fraction: Float[AnyArray, ""]
    junk_fraction: Float[AnyArray, ""]
    object_power: Float[AnyArray, " shells"]


class Belief(eqx.Module):
    """Posterior of a batch.

    Attributes:
        registers: given that the image shows the particle; the symmetric state is spread evenly
            over all registers, so that such an image feeds them all.
        symmetric: probability of the symmetric state, given that it shows the particle.
        junk: probability that it shows none.
    """

    registers: Float[Array, "batch registers"]
    symmetric: Float[Array, " batch"]
    junk: Float[Array, " batch"]


def junk_evidence(
    batch: ImageBatch, geometry: ImageGeometry, mixture: Mixture
) -> Float[Array, " batch"]:
    """Log-evidence of an image without the particle, on the scale of ``log_likelihood``.

    Equal parts of noise, −½ Σ w|y|², and of an object with Gaussian Fourier coefficients of
    variance φ: the noise is then σ² + c²φ, whose log-determinant stays (half the multiplicity
    times log(1 + c²φ/σ²) per pixel).
    """
    batch, mixture = on_device((batch, mixture))
    multiplicity = jnp.asarray(geometry.packing.multiplicity)
    power = jnp.real(batch.data) ** 2 + jnp.imag(batch.data) ** 2
    noise = -0.5 * jnp.einsum("bf,f->b", power, batch.weights)
    shells = jnp.minimum(jnp.asarray(geometry.slice_shell), mixture.object_power.shape[0] - 1)
    ratio = batch.ctf**2 * (mixture.object_power[shells] * batch.weights / multiplicity)[None, :]
    thing = -0.5 * jnp.sum(
        power * batch.weights[None, :] / (1.0 + ratio) + multiplicity[None, :] * jnp.log1p(ratio),
        axis=-1,
    )
    return jnp.logaddexp(noise, thing) - jnp.log(2.0)


def mixture_posterior(
    registers: Float[AnyArray, "batch registers"],
    symmetric: Float[AnyArray, " batch"],
    junk: Float[AnyArray, " batch"],
    mixture: Mixture,
) -> Belief:
    """Posterior over registers, the symmetric state and junk from their log-evidences.

    A fraction of zero switches its state off exactly, and a fraction of one all others.
    Differentiable in everything: in a fraction that is 0 or 1 from within.
    """
    fractions = (mixture.symmetric_fraction, mixture.junk_fraction)
    return _belief(*on_device((registers, symmetric, junk, *fractions)))


@jax.custom_jvp
def _belief(registers, symmetric, junk, symmetric_fraction, junk_fraction) -> Belief:
    n = registers.shape[-1]
    one = registers + jnp.log1p(-symmetric_fraction) - jnp.log(n)
    both = jnp.concatenate([one, (symmetric + jnp.log(symmetric_fraction))[:, None]], axis=-1)
    belief = jax.nn.softmax(both, axis=-1)
    particle = jax.nn.logsumexp(both, axis=-1) + jnp.log1p(-junk_fraction)
    return Belief(
        registers=belief[:, :n] + belief[:, n:] / n,
        symmetric=belief[:, n],
        junk=jax.nn.sigmoid(junk + jnp.log(junk_fraction) - particle),
    )


@_belief.defjvp
def _belief_jvp(values, changes):
    """The derivative of `_odds_belief`; logarithms of fractions have none at 0 and 1."""
    return _belief(*values), jax.jvp(_odds_belief, values, changes)[1]


def _odds_belief(registers, symmetric, junk, symmetric_fraction, junk_fraction) -> Belief:
    """The same as `_belief`, rational in the fractions; less exact where odds are extreme."""
    n = registers.shape[-1]
    among = jax.nn.softmax(registers, axis=-1)
    one = jax.nn.logsumexp(registers, axis=-1) - jnp.log(n)
    shown, particle = _of_two(one, symmetric, symmetric_fraction)
    return Belief(
        registers=among * (1.0 - shown)[:, None] + shown[:, None] / n,
        symmetric=shown,
        junk=_of_two(particle, junk, junk_fraction)[0],
    )


def _of_two(one, other, fraction):
    """Posterior of the other of two states, and the evidence of both, of its prior fraction."""
    ahead = other - one
    behind = ahead < 0
    less = jnp.exp(jnp.maximum(jnp.where(behind, ahead, -ahead), -MOST_NATS))
    first = jnp.where(behind, 1.0, less) * (1.0 - fraction)
    second = jnp.where(behind, less, 1.0) * fraction
    return second / (first + second), jnp.where(behind, one, other) + jnp.log(first + second)
