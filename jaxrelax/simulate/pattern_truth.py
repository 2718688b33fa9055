"""Which occupancy pattern every particle has, in which register, and the maps of the patterns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxrelax.geometry import OccupancyPatterns, occupancy_patterns, right_cosets
from jaxrelax.io.errors import InputError
from jaxrelax.simulate.atoms import BODY
from jaxrelax.simulate.specimen import Specimen
from jaxrelax.simulate.truth import Truth


@dataclass(frozen=True)
class PatternTruth:
    """Patterns of all particles.

    Attributes:
        patterns: of the group; their sites go by operators, not in the order of the specimen.
        states: number of the pattern from 1; 0 for junk.
        registers: from 1, of the cosets of the pattern's stabiliser; 0 for junk. The
            representative is seen at the mate ``A rᵀ`` of the consensus pose A, but for its error.
        placements: index t of the operator that takes the representative to the sites of the true
            pose, in which it is seen at ``A t``; 0 for junk.
        site_operators: index of the operator of every site of the specimen.
    """

    patterns: OccupancyPatterns
    states: Int[np.ndarray, " n"]
    registers: Int[np.ndarray, " n"]
    placements: Int[np.ndarray, " n"]
    site_operators: Int[np.ndarray, " sites"]

    def report(self) -> list[dict[str, Any]]:
        """Of every pattern its name, its sites by operator, and how many particles have it."""
        counts = np.bincount(self.states, minlength=len(self.patterns) + 1)[1:]
        return [
            {"class": k + 1, "name": each.name, "sites": each.digits, "n_particles": int(count)}
            for k, (each, count) in enumerate(zip(self.patterns.patterns, counts, strict=True))
        ]

    def maps(self, specimen: Specimen) -> Iterator[Float[np.ndarray, "box box box"]]:
        """The map of every pattern's representative, not yet on the grey scale of the images."""
        sites = specimen.atoms.sites
        body = specimen.projector.map((sites == BODY).astype(np.float64))
        partners = {
            int(g): specimen.projector.map((sites == k).astype(np.float64))
            for k, g in enumerate(self.site_operators)
        }
        for pattern in self.patterns.patterns:
            there = [partners[int(g)] for g in np.flatnonzero(pattern.sites)]
            yield np.stack([body, *there]).sum(axis=0, dtype=np.float32)


def pattern_truth(specimen: Specimen, truth: Truth) -> PatternTruth | None:
    """The patterns, where sites are occupied at random and each operator has one.

    Raises:
        InputError: subsets were given with their shares, but the specimen has no such patterns.
    """
    occupancy, group, operators = specimen.occupancy, specimen.group, specimen.site_operators
    if not occupancy.is_random:
        return None
    try:
        if operators is None:
            raise ValueError(
                f"{len(occupancy.probabilities)} sites, which are not those that the "
                f"{group.order} operators of {group.name} take one of them to"
            )
        patterns = occupancy_patterns(group)
    except ValueError as error:
        if occupancy.subsets is None:
            return None
        raise InputError(f"occupancy: no patterns to give shares to: {error}") from None
    sites = np.zeros(truth.carried.shape, bool)
    sites[:, operators] = truth.carried
    states, placements = patterns.find(sites)
    # With the representative at A_true t and A_true = A gᵀ, its pose is A (t⁻¹ g)ᵀ.
    elements = group.multiplication_table[group.inverse[placements], truth.registers]
    cosets = np.stack(
        [right_cosets(group, each.stabiliser).coset_table for each in patterns.patterns]
    )
    there = ~truth.junk
    return PatternTruth(
        patterns=patterns,
        states=np.where(there, states + 1, 0),
        registers=np.where(there, cosets[states, elements] + 1, 0),
        placements=np.where(there, placements, 0),
        site_operators=operators,
    )
