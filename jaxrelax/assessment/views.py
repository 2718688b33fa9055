"""From where every state is seen: one that is seen from one side only may be a view, not a state.

Directions are compared modulo the largest group of the states, for a symmetric state says nothing
of the register in which a particle stood.
"""

from __future__ import annotations

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float64

from jaxrelax.assessment.state_shares import in_state, operators_of, shown
from jaxrelax.refinement.result import Result

BINS = 8  # of tilts, with equally many images in each
STRONG = 0.3  # of Cramér's V: states differ much in their views
CHANCE = 1e-3  # p-value above which a difference is not believed
MOST_IMAGES = 50_000  # of a state; more do not show in a picture


def group_operators(result: Result) -> Float64[np.ndarray, "operators 3 3"]:
    """Operators of the largest group that a state has."""
    return max((operators_of(one) for one in result.states), key=len)


def directions(
    result: Result, chosen: Bool[np.ndarray, " particles"]
) -> Float64[np.ndarray, "chosen 3"]:
    """Directions in the map from which images look at it: the third rows of their poses."""
    rows = np.flatnonzero(chosen)
    return np.asarray(result.poses[rows[:: max(1, -(-len(rows) // MOST_IMAGES))], 2], np.float64)


def mates(
    directions: Float64[np.ndarray, "n 3"], operators: Float64[np.ndarray, "m 3 3"]
) -> Float64[np.ndarray, "mates 3"]:
    """Directions turned by every operator: all from which a symmetric map looks the same."""
    return np.einsum("mij,nj->mni", operators, directions).reshape(-1, 3)


def height(
    directions: Float64[np.ndarray, "n 3"], operators: Float64[np.ndarray, "m 3 3"]
) -> Float64[np.ndarray, " n"]:
    """Cosine of the angle to z, or to the nearest axis that the group makes of it."""
    return (directions @ operators[:, 2].T).max(axis=1)


def view_contrast(result: Result) -> list[float]:
    """Cramér's V of every state against all others over bins of tilt; NaN without images.

    0: seen from everywhere alike; 1: the view tells the state. Corrected for the number of images
    (Bergsma, J. Korean Stat. Soc. 42 (2013) 323), and 0 where the χ² test sees chance.
    """
    operators, every = group_operators(result), shown(result)
    tilts = height(np.asarray(result.poses[:, 2], np.float64), operators)
    if every.sum() < 2 * BINS:
        return [np.nan] * len(result.states)
    edges = np.unique(np.quantile(tilts[every], np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, tilts, side="right")
    contrast = []
    for number in range(len(result.states)):
        mine = in_state(result, number)
        counted = [
            np.bincount(bins[rows], minlength=len(edges) + 1) for rows in (mine, every & ~mine)
        ]
        contrast.append(cramers_v(np.stack(counted)))
    return contrast


def cramers_v(counts) -> float:
    """Bias-corrected Cramér's V of a table of two rows; NaN where one is empty."""
    table = np.asarray(counts, np.float64)
    table = table[:, table.sum(axis=0) > 0]
    n, columns = table.sum(), table.shape[1]
    if columns < 2 or not table.any(axis=1).all():
        return np.nan
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    statistic = float(np.sum((table - expected) ** 2 / expected))
    if scipy.stats.chi2.sf(statistic, columns - 1) > CHANCE:
        return 0.0
    excess = max(0.0, statistic / n - (columns - 1) / (n - 1))
    # With two rows the smaller of both corrected dimensions, less one, is that of the rows.
    return float(min(1.0, np.sqrt(excess / (1.0 - 1.0 / (n - 1)))))
