"""Which sites of the group carry the partner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from jaxrelax.io.errors import InputError


@dataclass(frozen=True)
class Occupancy:
    """Probability of a partner at each site; 0 and 1 only for a fixed pattern."""

    probabilities: Float[np.ndarray, " sites"]

    def draw(self, n: int, rng: np.random.Generator) -> Bool[np.ndarray, "n sites"]:
        """Occupied sites of ``n`` particles, each site on its own."""
        return rng.random((n, len(self.probabilities))) < self.probabilities


def parse_occupancy(text: str, n_sites: int) -> Occupancy:
    """An occupancy from ``"one"``, ``"all"``, digits such as ``"1010"`` or ``"0.5"``.

    Raises:
        InputError: the text is none of these, or has another number of digits than sites.
    """
    if text == "one":
        return Occupancy((np.arange(n_sites) == 0).astype(np.float64))
    if text == "all":
        return Occupancy(np.ones(n_sites))
    if text and set(text) <= {"0", "1"}:
        if len(text) != n_sites:
            raise InputError(
                f"occupancy '{text}' has {len(text)} digits; there are {n_sites} sites."
            )
        return Occupancy(np.array([float(digit) for digit in text]))
    try:
        probability = float(text) if "." in text else np.nan
    except ValueError:
        probability = np.nan
    if not 0.0 <= probability <= 1.0:
        raise InputError(
            f"occupancy '{text}' is not understood: give 'one', 'all', {n_sites} digits 0 or 1, "
            "or a probability such as '0.5'."
        )
    return Occupancy(np.full(n_sites, probability))
