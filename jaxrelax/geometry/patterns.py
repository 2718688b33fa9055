"""Occupancy patterns: which of the |G| equivalent sites of a symmetric body carry a partner.

A partner on a general position has one site for each operator. Let P be the density of the partner
at the site of the identity and B that of the symmetric body; the partner at the site of g is then
``g P``, with ``(g P)(x) = P(g⁻¹ x)`` (:func:`jaxrelax.reconstruction.rotate_map`), and a subset S
of the sites has the map

    V_S = B + Σ_{g in S} g P.

An operator h moves the site of g to that of ``h g``: ``h V_S = V_{hS}``. Subsets that are moved
onto each other are one pattern, seen in different registers. The stabiliser H of S, the operators
with ``hS = S``, is the symmetry of V_S, so the registers of a pattern are the right cosets of H
(:func:`right_cosets`): register r, the map V_S at the pose ``A rᵀ``, shows the sites ``r⁻¹ S`` in
the frame of the pose A. The number of patterns is Burnside's (Cn: binary necklaces).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from jaxrelax.arrays import AnyArray

from .groups import PointGroup
from .rotations import rotation_angle
from .subgroups import type_name

MAX_SITES = 12  # 2^12 subsets

NUMBERS = (
    *("none", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Subsets of the sites that the group moves onto each other.

    Attributes:
        name: for people: ``"two adjacent"``; for groups other than Cn the digits.
        sites: (order,) the representative S, in the order of the operators of G: of all subsets of
            the pattern the one whose digits come last in the alphabet, so that the site of the
            identity is occupied if any is.
        stabiliser: the operators with ``hS = S``; named by its type.
        multiplicity: number of subsets, |G| / |stabiliser|; that of the registers.
    """

    name: str
    sites: Bool[np.ndarray, " order"]
    stabiliser: PointGroup
    multiplicity: int

    @property
    def digits(self) -> str:
        """The representative, one digit a site: ``"1100"``."""
        return "".join("01"[int(site)] for site in self.sites)

    @property
    def n_partners(self) -> int:
        """Number of occupied sites."""
        return int(self.sites.sum())


@dataclass(frozen=True, eq=False)
class OccupancyPatterns:
    """All patterns of a group, by the number of partners and then by falling digits.

    Attributes:
        group: G.
        patterns: none first, all last.
        pattern_of: (2^order,) index of the pattern of every subset; a subset is the binary number
            of its digits.
        placement: (2^order,) index in G of an operator t, the lowest, with ``t S`` = the subset.
    """

    group: PointGroup
    patterns: tuple[Pattern, ...]
    pattern_of: Int[np.ndarray, " subsets"]
    placement: Int[np.ndarray, " subsets"]

    def __len__(self) -> int:
        return len(self.patterns)

    @property
    def names(self) -> list[str]:
        """Of the patterns."""
        return [pattern.name for pattern in self.patterns]

    @property
    def multiplicity(self) -> Int[np.ndarray, " patterns"]:
        """Subsets of every pattern."""
        return np.array([pattern.multiplicity for pattern in self.patterns])

    @property
    def n_partners(self) -> Int[np.ndarray, " patterns"]:
        """Occupied sites of every pattern."""
        return np.array([pattern.n_partners for pattern in self.patterns])

    def find(
        self, sites: Bool[AnyArray, "*batch order"]
    ) -> tuple[Int[np.ndarray, "*batch"], Int[np.ndarray, "*batch"]]:
        """Pattern of every subset, and index in G of a t with ``t S`` = the subset.

        With sites occupied as seen from the pose A, the pattern's representative is seen at the
        pose ``A t``: ``V_{tS}`` at A is ``V_S`` at ``A t``.
        """
        codes = _codes(np.asarray(sites))
        return np.asarray(self.pattern_of[codes]), np.asarray(self.placement[codes])

    def binomial(self, occupancy: float) -> Float64[np.ndarray, " patterns"]:
        """Probability of every pattern where each site is occupied on its own.

        multiplicity · p^k (1 − p)^(n − k) for k partners on n sites.

        Raises:
            ValueError: the occupancy is not between 0 and 1.
        """
        if not 0.0 <= occupancy <= 1.0:
            raise ValueError(f"an occupancy lies between 0 and 1, got {occupancy:g}")
        k, n = self.n_partners, self.group.order
        return self.multiplicity * occupancy**k * (1.0 - occupancy) ** (n - k)

    def mean_occupancy(self, counts: Float[AnyArray, " patterns"]) -> float:
        """Partners per site of these numbers of particles.

        The most likely occupancy of independent sites; for expected numbers the one that EM would
        take next.

        Raises:
            ValueError: not one number for each pattern, a negative one, or nothing but zeros.
        """
        counts = np.asarray(counts, np.float64)
        if counts.shape != (len(self),) or not np.all(counts >= 0) or not counts.sum() > 0:
            raise ValueError(
                f"{len(self)} numbers of particles are needed, none negative and not all zero"
            )
        return float(counts @ self.n_partners / (self.group.order * counts.sum()))


@lru_cache(maxsize=16)
def occupancy_patterns(group: PointGroup) -> OccupancyPatterns:
    """The orbits of the subsets of |G| sites under G.

    C4 has six: none, one, two adjacent, two opposite (stabiliser C2), three, four.

    Raises:
        ValueError: the group has more than 12 operators, so more than 4096 subsets.
    """
    n = group.order
    if n > MAX_SITES:
        raise ValueError(
            f"{group.name} has {n} operators and so 2^{n} subsets of sites; occupancy patterns are "
            f"listed for groups of at most {MAX_SITES} operators (2^{MAX_SITES} subsets). Relax to "
            "a smaller group."
        )
    subsets = (np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1 > 0
    moved = np.empty((n, 2**n), np.int64)
    for h in range(n):
        images = np.empty_like(subsets)
        images[:, group.multiplication_table[h]] = subsets  # the site of g goes to that of h g
        moved[h] = _codes(images)
    first = moved.max(axis=0)  # the representative, as a number
    found = np.unique(first)
    found = found[np.lexsort((-found, subsets[found].sum(axis=1)))]
    number = np.zeros(2**n, np.int64)
    number[found] = np.arange(len(found))
    ring = _ring(group)
    stabilisers: dict[tuple[int, ...], PointGroup] = {}
    patterns = []
    for code in found:
        members = np.flatnonzero(moved[:, code] == code)
        key = tuple(members.tolist())
        if key not in stabilisers:
            kind = type_name(group.element_orders[members])
            stabilisers[key] = PointGroup(kind, group.operators[members])
        patterns.append(
            Pattern(_name(subsets[code], ring), subsets[code], stabilisers[key], n // len(members))
        )
    pattern_of = number[first]
    # t S is the subset: t runs over the rows of the column of S.
    placement = np.argmax(moved[:, first] == np.arange(2**n)[None], axis=0)
    for array in (subsets, pattern_of, placement):
        array.setflags(write=False)
    return OccupancyPatterns(group, tuple(patterns), pattern_of, placement)


def _codes(sites: Bool[np.ndarray, "*batch order"]) -> Int[np.ndarray, "*batch"]:
    """The binary numbers of digits, the first digit the highest."""
    return np.asarray(sites @ (1 << np.arange(sites.shape[-1])[::-1]))


def _ring(group: PointGroup) -> Int[np.ndarray, " order"] | None:
    """Operators of a cyclic group in the order of their angles; None for other groups."""
    n = group.order
    generators = np.flatnonzero(group.element_orders == n)
    if not len(generators):
        return None
    step = generators[np.argmin(rotation_angle(group.operators[generators]))]
    ring = [0]
    for _ in range(n - 1):
        ring.append(int(group.multiplication_table[step, ring[-1]]))
    return np.array(ring)


def _name(sites: Bool[np.ndarray, " order"], ring: Int[np.ndarray, " order"] | None) -> str:
    """What people call a pattern."""
    if ring is None:
        return "".join("01"[int(site)] for site in sites)
    n, k, around = len(ring), int(sites.sum()), sites[ring]
    name = NUMBERS[k]
    if k < 2 or n - k < 2:
        return name
    # In one block there is one place where an occupied site follows an empty one.
    if np.sum(around & ~np.roll(around, 1)) == 1:
        return f"{name} adjacent"
    if k == 2 and 2 * np.diff(np.flatnonzero(around))[0] == n:
        return f"{name} opposite"
    return f"{name} {''.join('01'[int(site)] for site in sites)}"
