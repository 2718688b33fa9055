"""What the images say of every state of a classification: how many show it, and how surely."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from jaxrelax.assessment.words import percent
from jaxrelax.geometry import UnknownGroupError, parse_group
from jaxrelax.refinement.result import Result, StateMap

# From this probability on an image is left out of the particles of a state.
LIKELY_JUNK = 0.5
SURE = 0.9  # probability of a state from which on a particle is called sure


class StateShare(NamedTuple):
    """A state in figures.

    Attributes:
        number: of its class, from 1.
        name: its symmetry in words.
        fraction: of the images that show the particle, by their posterior.
        particles: images that show it most probably, less junk.
        sure: fraction of these whose state has a probability above 0.9; NaN without any.
        mean_probability: of the state in these; NaN without any.
        resolution_angstrom: corrected FSC at 0.143.
    """

    number: int
    name: str
    fraction: float
    particles: int
    sure: float
    mean_probability: float
    resolution_angstrom: float

    @property
    def title(self) -> str:
        """``class 1, C4 relaxed to C1``."""
        return f"class {self.number}, {self.name}"

    def sentence(self) -> str:
        """``class 1, C4 relaxed to C1: 48 %, 1,050 particles (76 % of them sure), 7.56 Å``."""
        sure = f" ({percent(self.sure)} of them sure)" if self.particles else ""
        return (
            f"{self.title}: {percent(self.fraction)}, {self.particles:,} particles{sure}, "
            f"{self.resolution_angstrom:.2f} Å"
        )

    @property
    def files(self) -> list[str]:
        """What to open in the output folder."""
        names = [f"map_class{self.number:02d}.mrc"]
        return [*names, f"particles_class{self.number:02d}.star"] if self.particles else names


def junk_probability(result: Result) -> Float64[np.ndarray, " particles"]:
    """That an image shows no particle; zero where it was not inferred."""
    columns = result.particles.extra_columns
    nothing = np.zeros(len(result.particles))
    return np.asarray(columns.get("jrxJunkProbability", nothing), np.float64)


def shown(result: Result) -> Bool[np.ndarray, " particles"]:
    """Images that show the particle rather than junk."""
    return junk_probability(result) < LIKELY_JUNK


def in_state(result: Result, number: int) -> Bool[np.ndarray, " particles"]:
    """Images that show a state (counted from 0) most probably, less junk."""
    return shown(result) & (result.particles.extra_columns["rlnClassNumber"] == number + 1)


def expected_state_accuracy(result: Result) -> float:
    """Of the most probable state, over images that show the particle."""
    weights = np.maximum(1.0 - junk_probability(result), 1e-9)
    return float(np.average(result.state_posterior.max(axis=1), weights=weights))


def sure_fraction(result: Result) -> float:
    """Of the images that show the particle, those whose most probable state is above 0.9."""
    largest = result.state_posterior.max(axis=1)[shown(result)]
    return float(np.mean(largest > SURE)) if len(largest) else 0.0


def state_shares(result: Result) -> list[StateShare]:
    """All states in figures, class by class; empty without states."""
    if not result.states:
        return []
    shares, posterior = [], result.state_posterior
    for number, one in enumerate(result.states):
        of_mine = posterior[in_state(result, number), number]
        some = len(of_mine) > 0
        shares.append(
            StateShare(
                number + 1,
                one.name,
                one.fraction,
                len(of_mine),
                float(np.mean(of_mine > SURE)) if some else np.nan,
                float(np.mean(of_mine, dtype=np.float64)) if some else np.nan,
                one.resolution_angstrom,
            )
        )
    return shares


def registers_of_state(result: Result, number: int) -> Float[np.ndarray, "particles registers"]:
    """Posterior over the registers of a state (counted from 0), times that of the state."""
    counts = [one.registers for one in result.states]
    first = sum(counts[:number])
    return result.registers[:, first : first + counts[number]]


def register_occupancy(result: Result, number: int) -> Float64[np.ndarray, " registers"]:
    """Share of every register among the images that show a state (counted from 0)."""
    weights = 1.0 - junk_probability(result)
    occupancy = weights @ registers_of_state(result, number)
    return occupancy / max(occupancy.sum(), 1e-30)


def operators_of(state: StateMap) -> Float64[np.ndarray, "operators 3 3"]:
    """Those of the group whose registers a state has; the identity alone of unknown names."""
    try:
        group = parse_group(state.group, placed=True)
    except UnknownGroupError:
        return np.eye(3)[None]
    return group.operators
