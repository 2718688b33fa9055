"""Contrasts of states: the combinations of their maps that differ most for their noise.

States need not differ in ways of their own: with one copy of a domain, four and none, they differ
by how much of it there is, and of the contrasts between three maps one is nothing but noise. A
gain for each map by itself keeps that noise, since each of the maps has signal. So maps are
combined such that the noise of the combinations is equal and not correlated, and their signals are
not correlated either: principal components for correlated noise (minimum noise fraction; Green et
al., IEEE Trans. Geosci. Remote Sens. 26 (1988) 65). With two states there is one contrast, their
difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.reconstruction.fsc import cross_power, shell_counts, spectrum

# Of the largest variance of noise of any combination: less is one that no image went into.
LEAST_NOISE = 1e-6


class Contrasts(NamedTuple):
    """Contrasts of maps that add up to nothing, those with most signal first.

    Attributes:
        of_maps: contrast i is Σ_k of_maps[i, k] E_k.
        to_maps: E_k = Σ_i to_maps[k, i] × contrast i.
    """

    of_maps: Float[AnyArray, "contrasts maps"]
    to_maps: Float[AnyArray, "maps contrasts"]


def contrasts(
    first: Sequence[Float32[AnyArray, "n n n"]],
    second: Sequence[Float32[AnyArray, "n n n"]],
    n_shells: int,
) -> Contrasts:
    """Contrasts of the maps of all states, from the half-maps' covariance and their differences.

    Shells count by what they know of the power of the signal, s/(1 + s)² with s the ratio of
    signal to noise of all maps together.

    Args:
        first, second: half-maps of every state without what all share, masked: Σ_k π_k E_k = 0
            with the same π in both.
        n_shells: so many tell states apart.
    """
    maps, n = len(first), len(first[0])
    if maps == 1:
        return Contrasts(np.zeros((0, 1)), np.zeros((1, 0)))
    halves = [[spectrum(map_) for map_ in half] for half in (first, second)]
    one, other, between = (
        np.array([[cross_power(a, b, n)[:n_shells] for b in halves[j]] for a in halves[i]])
        for i, j in ((0, 0), (1, 1), (0, 1))
    )
    signal = 0.5 * (between + between.transpose(1, 0, 2))
    noise = 0.5 * (one + other) - signal
    total = np.einsum("kks->s", noise)
    seen = (np.arange(n_shells) > 0) & (total > 0)
    relative = np.divide(noise, total, out=np.zeros_like(noise), where=seen)
    ratio = np.divide(
        np.maximum(np.einsum("kks->s", signal), 0.0), total, out=np.zeros(n_shells), where=seen
    )
    weight = shell_counts(n)[:n_shells] / (1.0 + ratio) ** 2
    # Where nothing is seen any shell tells what noise is like.
    variances, axes = np.linalg.eigh((relative * weight * (ratio + 1e-6)).sum(axis=2))
    # One combination, that of the populations, is nothing at all.
    variances, axes = variances[1:], axes[:, 1:]
    scales = np.sqrt(np.maximum(variances, max(LEAST_NOISE * variances[-1], 1e-30)))
    whitening = (axes / scales).T
    weighted = np.divide(signal, total, out=np.zeros_like(signal), where=seen) * weight
    power = whitening @ weighted.sum(axis=2) @ whitening.T
    turn = np.linalg.eigh(power)[1][:, ::-1]
    of_maps, to_maps = turn.T @ whitening, (axes * scales) @ turn
    return Contrasts(of_maps, to_maps)


def combined(
    weights: Float[AnyArray, "out in"],
    maps: Sequence[Float32[AnyArray, "n n n"]],
    like: Float32[AnyArray, "n n n"] | None = None,
) -> list[Float32[AnyArray, "n n n"]]:
    """Σ_k w_ik V_k for every i; without maps zeros in the shape of ``like``."""
    if not maps:
        return [0.0 * like for _ in weights] if like is not None else []
    if on_host(weights, *maps):
        weights = np.asarray(weights, np.float32)
        return list(np.einsum("ik,kzyx->izyx", weights, np.stack(maps)))
    weights = jnp.asarray(weights, jnp.float32)
    return list(jnp.einsum("ik,kzyx->izyx", weights, jnp.stack(maps)))
