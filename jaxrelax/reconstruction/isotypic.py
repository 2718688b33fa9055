"""The isotypic prior: the symmetric part of a map and the rest, each with its own Wiener gain.

A map splits into the part that is invariant under G and the part that is not. They are orthogonal,
have different signal-to-noise ratios, and only the second tells registers apart; an FSC over the
whole map is dominated by the first and hides whether the second is signal at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Float64, Int

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.geometry import PointGroup
from jaxrelax.reconstruction.fsc import (
    cross_power,
    rfft_shells,
    shell_counts,
    spectrum,
    traced_shells,
)
from jaxrelax.reconstruction.rotate import inside_sphere, rotated_maps, symmetrise


class IsotypicParts(NamedTuple):
    """A map invariant under H as its G-symmetric part and the rest."""

    symmetric: Float32[AnyArray, "n n n"]
    asymmetric: Float32[AnyArray, "n n n"]


def isotypic_parts(
    map_: Float32[AnyArray, "n n n"], group: PointGroup, subgroup: PointGroup
) -> IsotypicParts:
    """Split Sym_H V into Sym_G V and the rest."""
    # Symmetrising drops the corners of Fourier space for some groups and not for others; a corner
    # that only one of the two terms has would look like asymmetry.
    map_ = inside_sphere(map_)
    symmetric = symmetrise(map_, group)
    kept = symmetrise(map_, subgroup) if subgroup.order > 1 else map_
    return IsotypicParts(symmetric, kept - symmetric)


class HalfAlignment(NamedTuple):
    """How the second half-map is turned onto the first, and their asymmetric correlation.

    Attributes:
        index: index in G of g; ``g V₂`` is in the frame of V₁.
        fsc: FSC of the asymmetric parts per shell, each shell with the operator that the *other*
            shells choose. Choosing by the shell itself would take the best of |G| tries and give
            noise a positive correlation.
        chosen: index in G of that operator, per shell.
    """

    index: int
    fsc: Float64[np.ndarray, " shells"]
    chosen: Int[np.ndarray, " shells"]


def align_half_maps(
    asymmetric1: Float32[AnyArray, "n n n"],
    asymmetric2: Float32[AnyArray, "n n n"],
    group: PointGroup,
    operators: list[int],
    shell_weight: Float[AnyArray, " shells"],
    independent_fraction: float = 1.0,
) -> HalfAlignment:
    """Align two asymmetric parts over ``operators`` (indices in G) and correlate them.

    A mask correlates neighbouring shells, so those within its correlation length, the cube root
    of 1/``independent_fraction``, do not vote on the operator of a shell either. With one
    neighbour left out, noise under a mask of 7 % of the box still correlated by 0.03.

    Args:
        asymmetric1, asymmetric2: asymmetric parts of the (masked) half-maps.
        group: G.
        operators: candidates: representatives of the registers that keep H in place.
        shell_weight: how much each shell's correlation counts in the choice of operator, e.g. its
            gain times its number of coefficients; zero beyond the band.
        independent_fraction: of the mask that the maps were multiplied by
            (:func:`jaxrelax.reconstruction.independent_fraction`).
    """
    asymmetric1, asymmetric2 = np.asarray(asymmetric1), np.asarray(asymmetric2)
    n = asymmetric1.shape[0]
    first, second = spectrum(asymmetric1), spectrum(asymmetric2)
    power = np.sqrt(cross_power(first, first, n) * cross_power(second, second, n))
    correlation = np.empty((len(operators), len(power)))
    for row, turned in enumerate(rotated_maps(asymmetric2, group.operators[operators])):
        cross = cross_power(first, spectrum(turned), n)
        correlation[row] = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    votes = correlation * np.asarray(shell_weight)
    total = votes.sum(axis=1)
    excluded = int(np.ceil(independent_fraction ** (-1 / 3)))
    window = np.lib.stride_tricks.sliding_window_view(
        np.pad(votes, ((0, 0), (excluded, excluded))), 2 * excluded + 1, axis=1
    ).sum(axis=2)
    chosen = np.argmax(total[:, None] - window, axis=0)
    return HalfAlignment(
        int(operators[int(np.argmax(total))]),
        correlation[chosen, np.arange(len(power))],
        np.asarray(operators)[chosen],
    )


def asymmetric_coefficients(
    n: int, independent_fraction: float, group: PointGroup, subgroup: PointGroup
) -> Float64[np.ndarray, " shells"]:
    """Effective number of independent coefficients of the asymmetric part in each shell.

    Of a shell's coefficients the mask leaves ``independent_fraction`` independent; an H-symmetric
    map has 1/|H| of them and a G-symmetric one 1/|G|, the difference belongs to the asymmetric
    part. Summed over a band, 1/√ of this number is the standard deviation of its FSC when there is
    only noise; a single shell under a mask, which averages neighbours in, scatters less.
    """
    share = 1.0 / subgroup.order - 1.0 / group.order
    return np.maximum(shell_counts(n) * independent_fraction * share, 1.0)


def apply_gain(
    map_: Float32[AnyArray, "n n n"], gain: Float[AnyArray, " shells"]
) -> Float32[AnyArray, "n n n"]:
    """Multiply every shell of a map by its gain; shells beyond the curve are dropped."""
    return next(gained_maps(map_, [gain]))


def gained_maps(
    map_: Float32[AnyArray, "n n n"],
    gains: Sequence[Float[AnyArray, " shells"]] | Float[AnyArray, "levels shells"],
) -> Iterator[Float32[AnyArray, "n n n"]]:
    """The map with each of several gains, as by :func:`apply_gain`; it is transformed once."""
    if not on_host(map_, gains):
        yield from (gained(map_, gain) for gain in gains)
        return
    n = map_.shape[0]
    shells = rfft_shells(n)[0].reshape(n, n, n // 2 + 1)
    transform = np.asarray(scipy.fft.rfftn(np.asarray(map_, np.float32), workers=-1))
    for gain in gains:
        curve = np.zeros(int(shells.max()) + 1, np.float32)
        curve[: len(gain)] = gain[: len(curve)]
        filtered = scipy.fft.irfftn(transform * curve[shells], s=map_.shape, workers=-1)
        yield np.asarray(filtered).astype(np.float32)


@jax.jit
def gained(map_, gain):
    """:func:`apply_gain` in JAX."""
    n, gain = map_.shape[0], jnp.asarray(gain, jnp.float32)
    shells = traced_shells(n)
    curve = jnp.where(shells < len(gain), gain[jnp.minimum(shells, len(gain) - 1)], 0.0)
    return jnp.fft.irfftn(jnp.fft.rfftn(jnp.asarray(map_, jnp.float32)) * curve, s=map_.shape)
