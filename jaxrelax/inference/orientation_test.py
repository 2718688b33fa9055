"""Does an image know the orientation of a part of the map? Scores at its own and foreign poses.

The map is a *base* that is taken for granted and an *added* part that is to be tested. What the
base leaves of an image is noise if the added part is not there, and noise does not know how the
particle was oriented: the residual fits a slice of the added part at its own orientation no better
than at the orientation of another image. Comparing the two needs no noise level, no covariance and
no Gaussian noise (:func:`permutation_test`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Array, Float, Int

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry, extract_parts
from jaxrelax.inference.likelihood import centred_data

DRAWS = 9_999
# Below this the share of draws is made of a few: the Gaussian tail takes over.
SMALLEST_COUNTED_P = 1e-3
# Images drawn for at once: bounds the memory of the draws.
_BLOCK = 64


class OrientationScores(eqx.Module):
    """What the added part says about a batch, in nats.

    ``own`` and ``foreign`` are log likelihood ratios of base and added part together over the
    base alone, the hypotheses averaged over; ``information`` is the mean over hypotheses of the
    weighted power of the added part's slice at the own orientation.
    """

    own: Float[Array, " batch"]
    foreign: Float[Array, "batch others"]
    log_evidence: Float[Array, "batch registers"]  # of base and added part, at the own orientation
    information: Float[Array, " batch"]


class ForeignSlices(eqx.Module):
    """Slices of the added part at orientations that many images are given, made once for all.

    Attributes:
        parts: real and imaginary parts of the slices of every channel.
        index: for each image of a batch the slices that it is given.
    """

    parts: tuple[Float[AnyArray, "seen registers freq"], Float[AnyArray, "seen registers freq"]]
    index: Int[AnyArray, "batch others"]


def orientation_scores(
    base: FourierVolume,
    added: FourierVolume,
    batch: ImageBatch,
    geometry: ImageGeometry,
    rotations: Float[AnyArray, "batch 3 3"],
    origins_px: Float[AnyArray, "batch 2"],
    others: Float[AnyArray, "batch others 3 3"] | ForeignSlices,
) -> OrientationScores:
    """Score the added part at each image's own orientation and at others.

    Residual and CTF stay the image's own; only the slice of the added part is taken elsewhere:

        r_j = X − c P_A B_j,   ℓ_j = −½ Σ w |r_j|²
        s(A') = log Σ_j exp(ℓ_j + Σ w Re(r_j* c P_A' D_j) − ½ Σ w |c P_A' D_j|²) − log Σ_j exp ℓ_j

    Args:
        base: B, one channel per register, or a single one that is common to all registers.
        added: D, one channel per register.
        batch: packed images; ``weights`` decide the band.
        geometry: packing and slice frequencies of the images.
        rotations: A of each image.
        origins_px: RELION origins in image pixels.
        others: foreign orientations A' of each image, or the slices there.

    Raises:
        ValueError: the base has several channels, but not one for each of the added part.
    """
    if base.channels not in (1, added.channels):
        raise ValueError(
            f"a base of {base.channels} channels cannot carry {added.channels} added parts"
        )
    base, added, batch, others = on_device((base, added, batch, others))
    rotations, origins_px = on_device((rotations, origins_px))
    real, imaginary = extract_parts(base, rotations, geometry.slice_wavevectors)
    data = centred_data(batch, origins_px, geometry)[:, None]
    ctf = batch.ctf[:, None]
    residual = (data.real - ctf * real, data.imag - ctf * imaginary)
    log_base = -0.5 * jnp.einsum("bjf,f->bj", residual[0] ** 2 + residual[1] ** 2, batch.weights)
    log_base = jnp.broadcast_to(log_base, (log_base.shape[0], added.channels))
    weighted = tuple(batch.weights[None, None] * ctf * part for part in residual)
    power = batch.weights[None] * batch.ctf**2

    def change(slices):
        fit = sum(
            jnp.sum(part * slice_, axis=-1) for part, slice_ in zip(weighted, slices, strict=True)
        )
        squares = slices[0] ** 2 + slices[1] ** 2
        return fit, jnp.einsum("bjf,bf->bj", squares, power)

    def slices_at(rotations: Float[AnyArray, "batch 3 3"]):
        return extract_parts(added, rotations, geometry.slice_wavevectors)

    def score(other):
        if isinstance(others, ForeignSlices):
            slices = tuple(part[other] for part in others.parts)
        else:
            slices = slices_at(other)
        fit, squared = change(slices)
        return _gain(log_base, fit - 0.5 * squared)

    fit, squared = change(slices_at(rotations))
    difference = fit - 0.5 * squared
    given = others.index if isinstance(others, ForeignSlices) else others
    return OrientationScores(
        own=_gain(log_base, difference),
        # One foreign orientation at a time: the slices of one fill the memory meant for a batch.
        foreign=jax.lax.map(score, jnp.swapaxes(given, 0, 1)).T,
        log_evidence=log_base + difference,
        information=jnp.mean(squared, axis=-1),
    )


def _gain(
    log_base: Float[Array, "batch registers"], difference: Float[Array, "batch registers"]
) -> Float[Array, " batch"]:
    """Log Σ exp(base + difference) − log Σ exp(base), exact for small differences too."""
    weights = jax.nn.softmax(log_base, axis=-1)
    small = jnp.max(jnp.abs(difference), axis=-1) < 0.5
    safe = jnp.where(small[:, None], difference, 0.0)
    near = jnp.log1p(jnp.sum(weights * jnp.expm1(safe), axis=-1))
    far = jax.nn.logsumexp(log_base + difference, axis=-1) - jax.nn.logsumexp(log_base, axis=-1)
    return jnp.where(small, near, far)


class PermutationTest(NamedTuple):
    """A sum of scores against the sums that foreign orientations give.

    Attributes:
        excess: sum of the own scores less its mean under the null.
        deviation: standard deviation of the null.
        log10_p: logarithm of the one-sided p-value.
    """

    excess: float
    deviation: float
    log10_p: float

    @property
    def p(self) -> float:
        """The p-value; 0.0 where it is too small for a float."""
        return 10.0**self.log10_p


def permutation_test(
    own: Float[AnyArray, " n"],
    foreign: Float[AnyArray, "n others"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> PermutationTest:
    """Whether images score better at their own orientation than at those of others.

    The null distribution of the sum is drawn by recombination: every image takes one of its
    foreign scores at random. Its centre rests on finitely many foreign scores, so deviations from
    it are widened by √(1 + 1/others). p is (1 + draws that reach the sum)/(draws + 1) where that
    is at least 0.001, and the tail of a Gaussian with that mean and deviation beyond.

    Args:
        own: score of every image at its own orientation.
        foreign: scores at others' orientations.
        rng: source of the draws.
        draws: how many sums are drawn.

    Raises:
        ValueError: fewer than two foreign scores per image.
    """
    n, others = foreign.shape
    if others < 2:
        raise ValueError(f"{others} foreign scores per image; a spread needs at least 2")
    values = np.asarray(foreign, np.float64)
    means = values.mean(axis=1)
    # An unbiased variance; the draws below scatter by the biased one and are stretched to it.
    deviation = float(np.sqrt(np.sum(values.var(axis=1, ddof=1)) * (1.0 + 1.0 / others)))
    excess = float(np.sum(np.asarray(own, np.float64) - means))
    if deviation == 0.0:
        return PermutationTest(excess, 0.0, 0.0)
    centred = values - means[:, None]
    sums = np.zeros(draws)
    for start in range(0, n, _BLOCK):
        block = centred[start : start + _BLOCK]
        chosen = rng.integers(others, size=(len(block), draws), dtype=np.uint16)
        sums += np.take_along_axis(block, chosen, axis=1).sum(axis=0)
    sums *= np.sqrt(others / (others - 1.0) * (1.0 + 1.0 / others))
    p = (1.0 + float(np.sum(sums >= excess))) / (draws + 1.0)
    log10_p = np.log10(p)
    if p < SMALLEST_COUNTED_P:
        tail = scipy.stats.norm.logsf(excess / deviation) / np.log(10.0)
        log10_p = min(tail, np.log10(SMALLEST_COUNTED_P))
    return PermutationTest(excess, deviation, float(log10_p))


def combined_log10_p(tests: Sequence[PermutationTest]) -> float:
    """Logarithm of the p-value of several tests together, by the Cauchy combination.

    The mean of tan π(½ − p) has a Cauchy distribution, in its tail whatever the correlation of
    the tests (Liu & Xie, J. Am. Stat. Assoc. 115 (2020) 393). Where p is tiny this is the
    harmonic mean of the p-values.

    Args:
        tests: at least one.
    """
    logs = np.array([test.log10_p for test in tests])
    if logs.min() < -8.0:
        harmonic = scipy.special.logsumexp(-logs * np.log(10.0)) / np.log(10.0)
        return float(np.log10(len(logs)) - harmonic)
    # Just below one: a p-value of exactly one has no finite place under the Cauchy density.
    p = np.minimum(10.0**logs, 1.0 - 1.0 / (DRAWS + 1))
    statistic = np.mean(np.tan(np.pi * (0.5 - p)))
    return float(np.log10(scipy.stats.cauchy.sf(statistic)))


def derangements(n: int, count: int, rng: np.random.Generator) -> Int[np.ndarray, "n count"]:
    """Permutations of ``n`` things without fixed points, different from each other everywhere.

    They are cyclic shifts of one random order: column m maps i to ``result[i, m]`` ≠ i, and no
    two columns map i to the same. There are n − 1 of them, so fewer than ``count`` come back for
    small ``n``; none for a single thing.
    """
    order = rng.permutation(n)
    steps = 1 + rng.permutation(max(n - 1, 0))[:count]
    place = np.empty(n, int)
    place[order] = np.arange(n)
    return order[(place[:, None] + steps[None, :]) % max(n, 1)]
