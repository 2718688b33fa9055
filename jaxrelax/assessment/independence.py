"""Whether equivalent sites are occupied independently: populations of patterns against a binomial.

The binomial law is a curve m(p) among the populations. What departs from it is looked at in the
directions C that are orthogonal to the curve at the best p and to the sum of all populations, so
that what p takes up does not count: C'(π̂ − m) has mean 0 and covariance C' V C under independence,
whatever consistent estimate of p was taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.stats
from jaxtyping import Float, Float64

from jaxrelax.geometry import OccupancyPatterns

# Patterns are pooled until so many particles are expected: with fewer no count is near normal.
LEAST_EXPECTED = 5.0


@dataclass(frozen=True)
class IndependenceTest:
    """Populations against those of independent sites.

    Attributes:
        statistic: chi-squared with ``degrees`` degrees of freedom under independence.
        degrees: number of compared patterns (or pools of rare ones) less two; with 0 there is
            nothing to test.
        p_value: of a statistic as large; NaN without degrees of freedom.
        occupancy: p of the binomial compared with.
        design_effect: by how much the variances of the populations, in the directions tested,
            exceed those of counts of particles whose patterns are known.
    """

    statistic: float
    degrees: int
    p_value: float
    occupancy: float
    design_effect: float


def wald_test(
    patterns: OccupancyPatterns,
    populations: Float[np.ndarray, " patterns"],
    covariance: Float[np.ndarray, "patterns patterns"],
    n_particles: float,
) -> IndependenceTest:
    """(π̂ − m)' C (C' V C)⁻¹ C' (π̂ − m), with the covariance V of the populations.

    Args:
        patterns: of the group.
        populations: π̂, adding up to 1.
        covariance: V, of the populations.
        n_particles: how many particles they stand for; decides which patterns are too rare.
    """
    occupancy = patterns.mean_occupancy(populations)
    pools, tested = _directions(patterns, occupancy, n_particles)
    degrees = tested.shape[1]
    if degrees == 0:
        return IndependenceTest(0.0, 0, float("nan"), occupancy, float("nan"))
    expected = patterns.binomial(occupancy)
    apart = tested.T @ pools @ (populations - expected)
    # Where nothing is seen of a pattern the covariance is silent; as many as are expected vary.
    unseen = np.where(populations == 0, expected / n_particles, 0.0)
    covariance = covariance + np.diag(unseen)
    variance = tested.T @ pools @ covariance @ pools.T @ tested
    statistic = float(apart @ scipy.linalg.solve(variance, apart, assume_a="sym"))
    return IndependenceTest(
        statistic, degrees, float(scipy.stats.chi2.sf(statistic, degrees)), occupancy,
        _design_effect(variance, tested, pools @ expected, n_particles),
    )  # fmt: skip


def likelihood_ratio_test(
    patterns: OccupancyPatterns,
    counts: Float[np.ndarray, " patterns"],
    covariance: Float[np.ndarray, "patterns patterns"] | None = None,
) -> IndependenceTest:
    """G² = 2 Σ c log(c / e) of numbers of particles against the best binomial.

    Sums of posteriors are no counts: they scatter more than those of particles whose patterns are
    known, and G² as it stands would reject too often. With the covariance of the populations it is
    divided by the design effect, the mean over the tested directions of the variance that there is
    over that of counts (first-order correction of Rao & Scott, Ann. Stat. 12 (1984) 46); without,
    the counts are taken for those of known patterns, fractions or not.

    Args:
        patterns: of the group.
        counts: particles of every pattern, certain or expected.
        covariance: of the populations ``counts / counts.sum()``.

    Raises:
        ValueError: as :meth:`jaxrelax.geometry.OccupancyPatterns.mean_occupancy`.
    """
    counts = np.asarray(counts, np.float64)
    occupancy, total = patterns.mean_occupancy(counts), float(counts.sum())
    pools, tested = _directions(patterns, occupancy, total)
    degrees = tested.shape[1]
    if degrees == 0:
        return IndependenceTest(0.0, 0, float("nan"), occupancy, float("nan"))
    seen, expected = pools @ counts, pools @ patterns.binomial(occupancy)
    some = seen > 0
    statistic = float(2.0 * np.sum(seen[some] * np.log(seen[some] / (total * expected[some]))))
    effect = 1.0
    if covariance is not None:
        variance = tested.T @ pools @ covariance @ pools.T @ tested
        effect = _design_effect(variance, tested, expected, total)
    statistic = max(statistic, 0.0) / effect
    p_value = float(scipy.stats.chi2.sf(statistic, degrees))
    return IndependenceTest(statistic, degrees, p_value, occupancy, effect)


def _design_effect(
    variance: Float[np.ndarray, "tested tested"],
    tested: Float[np.ndarray, "pools tested"],
    expected: Float[np.ndarray, " pools"],
    n_particles: float,
) -> float:
    """Mean eigenvalue of the variance relative to that of counts with these populations."""
    counted = tested.T @ (np.diag(expected) - np.outer(expected, expected)) @ tested / n_particles
    return float(np.trace(scipy.linalg.solve(counted, variance, assume_a="pos")) / len(counted))


def _directions(
    patterns: OccupancyPatterns, occupancy: float, n_particles: float
) -> tuple[Float64[np.ndarray, "pools patterns"], Float64[np.ndarray, "pools tested"]]:
    """Which patterns are taken together, and an orthonormal basis of what is tested of the pools.

    Rare patterns join, the rarest first, until every pool has enough expected particles; which
    ones is decided by the expectation alone.
    """
    expected = n_particles * patterns.binomial(occupancy)
    pools, pool, held = [], np.zeros(len(patterns)), 0.0
    for number in np.argsort(expected, kind="stable"):
        pool[number] = 1.0
        held += expected[number]
        if held >= LEAST_EXPECTED:
            pools.append(pool)
            pool, held = np.zeros(len(patterns)), 0.0
    if pool.any() and pools:
        pools[-1] = pools[-1] + pool
    elif pool.any():
        pools.append(pool)
    matrix = np.array(pools)
    # m'(p) = m (k/p − (n − k)/(1 − p)); its length does not matter.
    k, n = patterns.n_partners, patterns.group.order
    along = patterns.binomial(occupancy) * (k - n * occupancy)
    taken_up = np.stack([np.ones(len(matrix)), matrix @ along])
    return matrix, scipy.linalg.null_space(taken_up)
