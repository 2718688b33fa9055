"""Which sites of the group carry the partner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from jaxrelax.io.errors import InputError

SHARES_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Occupancy:
    """Probability of a partner at each site; 0 and 1 only for a fixed pattern.

    Where the sites know of each other ``subsets`` are all that occur, and ``shares`` how often;
    ``probabilities`` are then the means.
    """

    probabilities: Float[np.ndarray, " sites"]
    subsets: Bool[np.ndarray, "subsets sites"] | None = None
    shares: Float[np.ndarray, " subsets"] | None = None

    @property
    def is_random(self) -> bool:
        """Whether particles differ, or have their pattern given by a share."""
        return self.subsets is not None or bool(np.any(self.probabilities % 1.0))

    def draw(self, n: int, rng: np.random.Generator) -> Bool[np.ndarray, "n sites"]:
        """Occupied sites of ``n`` particles; without subsets, each site on its own."""
        if self.subsets is not None:
            return self.subsets[rng.choice(len(self.subsets), n, p=self.shares)]
        return rng.random((n, len(self.probabilities))) < self.probabilities


def parse_occupancy(text: str, n_sites: int) -> Occupancy:
    """An occupancy from ``"one"``, ``"all"``, digits such as ``"1010"``, ``"0.5"`` or shares.

    Shares are ``"0000:0.25,1010:0.75"``: digits of subsets, each with its part of the particles.

    Raises:
        InputError: the text is none of these, has another number of digits than sites, or shares
            do not add up to 1.
    """
    if ":" in text:
        return _shared(text, n_sites)
    if text == "one":
        return Occupancy((np.arange(n_sites) == 0).astype(np.float64))
    if text == "all":
        return Occupancy(np.ones(n_sites))
    if text and set(text) <= {"0", "1"}:
        return Occupancy(_sites(text, n_sites).astype(np.float64))
    try:
        probability = float(text) if "." in text else np.nan
    except ValueError:
        probability = np.nan
    if not 0.0 <= probability <= 1.0:
        raise InputError(
            f"occupancy '{text}' is not understood: give 'one', 'all', {n_sites} digits 0 or 1, "
            "a probability such as '0.5', or digits with shares such as "
            f"'{'0' * n_sites}:0.5,{'1' * n_sites}:0.5'."
        )
    return Occupancy(np.full(n_sites, probability))


def _sites(digits: str, n_sites: int) -> Bool[np.ndarray, " sites"]:
    if len(digits) != n_sites:
        raise InputError(
            f"occupancy '{digits}' has {len(digits)} digits; there are {n_sites} sites."
        )
    return np.array([digit == "1" for digit in digits])


def _shared(text: str, n_sites: int) -> Occupancy:
    subsets, shares = [], []
    for part in text.split(","):
        digits, _, share = (piece.strip() for piece in part.partition(":"))
        try:
            shares.append(float(share))
        except ValueError:
            shares.append(np.nan)
        if not digits or set(digits) - {"0", "1"} or not 0.0 <= shares[-1] <= 1.0:
            raise InputError(
                f"occupancy '{text}': '{part.strip()}' is no subset with its share, such as "
                f"'{'1' * n_sites}:0.25'."
            )
        subsets.append(_sites(digits, n_sites))
    if abs(sum(shares) - 1.0) > SHARES_TOLERANCE:
        raise InputError(f"occupancy '{text}': the shares add up to {sum(shares):.6g}, not to 1.")
    share = np.array(shares) / sum(shares)
    return Occupancy(share @ np.array(subsets, np.float64), np.array(subsets), share)
