"""Half-maps in one frame: which operator of G brings the second onto the first.

The symmetric part has one frame; the rest is known up to the operators that keep H in place. Half-
maps are matched before they are compared, averaged or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float, Float32, Int

from jaxrelax.arrays import AnyArray
from jaxrelax.imaging import MARGIN
from jaxrelax.reconstruction.fsc import cross_power, spectrum
from jaxrelax.reconstruction.isotypic import HalfAlignment, IsotypicParts, align_half_maps
from jaxrelax.reconstruction.masks import independent_fraction
from jaxrelax.reconstruction.particle import Particle
from jaxrelax.reconstruction.rotate import rotate_map


def voting_shells(particle: Particle, n_shells: int, score_shell: int) -> Bool[np.ndarray, " s"]:
    """Which shells judge the asymmetric part: the scored ones that tell registers apart.

    Args:
        particle: what is looked at.
        n_shells: of the maps; the last of them are the margin, where maps fall to nothing.
        score_shell: last shell that scores.
    """
    shells = np.arange(n_shells)
    last = min(particle.register_limit(score_shell), n_shells - 1 - MARGIN)
    return (shells > 0) & (shells <= last)


def match_halves(
    particle: Particle,
    parts: Sequence[IsotypicParts],
    mask: Float32[AnyArray, "b b b"],
    *,
    max_shell: int,
    score_shell: int,
) -> HalfAlignment:
    """Register alignment of half-map 2 onto half-map 1; the identity without relaxation.

    Args:
        particle: groups and register mask.
        parts: of the half-maps, each in its own frame.
        mask: what they were multiplied by (besides the register mask).
        max_shell: last shell of the maps.
        score_shell: last shell that scores.
    """
    if not particle.relaxed:
        nothing = np.zeros(mask.shape[0] // 2 + 1)
        return HalfAlignment(0, nothing, nothing.astype(int))
    weight = np.sqrt(particle.coefficients(mask))
    weight[: max_shell + 1] *= voting_shells(particle, max_shell + 1, score_shell)
    weight[max_shell + 1 :] = 0.0
    return align_half_maps(
        particle.region(parts[0].asymmetric),
        particle.region(parts[1].asymmetric),
        particle.group,
        particle.normaliser,
        weight,
        independent_fraction(particle.region(mask)),
    )


def match_states(
    particles: Sequence[Particle],
    halves: Sequence[Sequence[IsotypicParts]],
    shares: Float[AnyArray, " maps"],
    mask: Float32[AnyArray, "b b b"],
    *,
    max_shell: int,
    score_shell: int,
    apart: int | None = None,
) -> list[int]:
    """Which map of half-set 2 is which of half-set 1; only maps of one symmetry are exchanged.

    Half-sets find states for themselves, and number them as they like. They are matched by what
    every state has of its own: the correlation of what its symmetric part has beside the mean of
    all, plus that of the asymmetric parts in the best register.

    Args:
        particles: of every map.
        halves: parts of the maps of each half-set, in its own order and frames.
        shares: of every map, for the mean.
        mask, max_shell, score_shell: as of :func:`match_halves`.
        apart: a map that is the same in both by what it is, and is not exchanged.

    Returns:
        for every map of half-set 1 the number of its partner in half-set 2.
    """
    order = list(range(len(particles)))
    own = []
    for maps in halves:
        symmetric = np.stack([np.asarray(one.symmetric) for one in maps])
        mean = np.einsum("k,kzyx->zyx", np.asarray(shares, np.float32), symmetric)
        own.append([spectrum((one - mean) * np.asarray(mask)) for one in symmetric])
    kinds: dict[tuple, list[int]] = {}
    for number, one in enumerate(particles):
        kinds.setdefault((one.kind, number == apart), []).append(number)
    n = len(mask)
    for alike in kinds.values():
        if len(alike) == 1:
            continue
        similar = np.zeros((len(alike), len(alike)))
        for row, first in enumerate(alike):
            for column, second in enumerate(alike):
                similar[row, column] = _correlation(own[0][first], own[1][second], n, score_shell)
                if particles[first].relaxed:
                    found = match_halves(
                        particles[first], (halves[0][first], halves[1][second]), mask,
                        max_shell=max_shell, score_shell=score_shell,
                    )  # fmt: skip
                    agreement = mean_agreement(
                        particles[first], found.fsc, mask, n_shells=max_shell + 1,
                        score_shell=score_shell,
                    )  # fmt: skip
                    similar[row, column] += agreement.fsc
        rows, columns = scipy.optimize.linear_sum_assignment(-similar)
        for row, column in zip(rows, columns, strict=True):
            order[alike[row]] = alike[column]
    return order


def _correlation(first, second, n: int, last: int) -> float:
    """Of two transforms up to a shell, their origin left out."""
    shells = slice(1, last + 1)
    cross, one, other = (
        float(np.sum(cross_power(*pair, n)[shells]))
        for pair in ((first, second), (first, first), (second, second))
    )
    return cross / max(np.sqrt(one * other), 1e-30)


def onto_first(
    particle: Particle, alignment: int, second: Float32[AnyArray, "b b b"]
) -> Float32[AnyArray, "b b b"]:
    """A map of half-set 2 in the frame of half-set 1."""
    return rotate_map(second, particle.group.operators[alignment])


def each_seen_by_the_other(
    particle: Particle, alignment: int, parts: Sequence[IsotypicParts]
) -> list[IsotypicParts]:
    """For each half-set the parts of the other one, in its own frame.

    The symmetric part has one frame, the rest is turned.
    """
    turn = particle.group.operators[alignment]
    return [
        IsotypicParts(parts[1].symmetric, rotate_map(parts[1].asymmetric, turn)),
        IsotypicParts(parts[0].symmetric, rotate_map(parts[0].asymmetric, turn.T)),
    ]


def registers_onto_first(
    particle: Particle, alignment: int, registers: Float[AnyArray, "n registers"]
) -> Float[np.ndarray, "n registers"]:
    """Register posteriors of half-set 2 in the frame of half-set 1.

    With g V₂ in the frame of V₁, the pose A r_jᵀ for V₂ is A (g r_j)ᵀ for g V₂.
    """
    group, cosets = particle.group, particle.registers
    elements: list[int] = [group.index_of(r) for r in cosets.representatives]
    place: Int[np.ndarray, " registers"]
    place = cosets.coset_table[group.multiplication_table[alignment][elements]]
    registers = np.asarray(registers)
    moved = np.empty_like(registers)
    moved[:, place] = registers
    return moved


class MeanAgreement(NamedTuple):
    """FSC of the asymmetric parts over the shells that vote.

    Attributes:
        fsc: mean, each shell weighted by its inverse standard error.
        signal: the same in standard errors under pure noise.
    """

    fsc: float
    signal: float


def mean_agreement(
    particle: Particle,
    fsc_asymmetric: Float[AnyArray, " shells"],
    mask: Float32[AnyArray, "b b b"],
    *,
    n_shells: int,
    score_shell: int,
) -> MeanAgreement:
    """How far the asymmetric parts of the half-maps agree; arguments as of :func:`match_halves`."""
    counts = particle.coefficients(mask)[:n_shells]
    weight = np.sqrt(counts) * voting_shells(particle, n_shells, score_shell)
    curve = np.asarray(fsc_asymmetric, np.float64)[:n_shells]
    mean = float(np.sum(curve * weight) / np.sum(weight))
    return MeanAgreement(mean, mean * float(np.sum(weight) / np.sqrt(np.sum(weight**2 / counts))))
