"""Populations of occupancy patterns from soft posteriors, and whether binding is cooperative.

The fractions φ of a mixture (patterns, and junk) have the log-likelihood Σ_i log Σ_k φ_k L_ik. As
the argument of the logarithm is linear in φ, its curvature is −Σ_i s_i s_i' exactly, with the
scores s_ik = L_ik / Σ_l φ_l L_il = (posterior of k) / φ_k. The inverse of that within Σφ = 1 is the
covariance: observed information and the sandwich of the scores are the same here. It is larger
than that of a multinomial by what the posteriors leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64

from jaxrelax.assessment.independence import IndependenceTest, wald_test
from jaxrelax.geometry import OccupancyPatterns

MOST_PASSES = 20_000  # of EM; each costs one product with the table of posteriors
CONVERGED = 1e-9  # largest change of a fraction in a pass
# Of the images: a fraction below is zero as far as anybody can tell, and has no standard error.
NOTHING = 1e-3
SMALLEST_TOLD_P = 1e-100
ROUNDING = 1e-3  # of posteriors in single precision


@dataclass(frozen=True, eq=False)
class Populations:
    """How frequent every pattern is.

    Errors are those of finding the fractions from these images given the maps; that the maps were
    learned from them too is not in it.

    Attributes:
        patterns: of the group.
        populations: fraction of every pattern among the particles; 1 together.
        standard_errors: of the populations; NaN where the population is zero, at the border of
            what is possible.
        covariance: of the populations, with zeros where they are zero.
        n_particles: images that show a particle, expected.
        occupancy: partners per site.
        occupancy_error: its standard error.
        independent: populations of the best binomial: sites occupied independently.
        test: of independence. A small p-value means that the sites know of each other: that
            binding is cooperative, or that some patterns exclude each other.
    """

    patterns: OccupancyPatterns
    populations: Float64[np.ndarray, " patterns"]
    standard_errors: Float64[np.ndarray, " patterns"]
    covariance: Float64[np.ndarray, "patterns patterns"]
    n_particles: float
    occupancy: float
    occupancy_error: float
    independent: Float64[np.ndarray, " patterns"]
    test: IndependenceTest

    def summary(self) -> str:
        """A table for people."""
        width = max(len("pattern"), *(len(name) for name in self.patterns.names))
        lines = [f"{'pattern':{width}}  population  ± s.e.   independent"]
        rows = zip(
            self.patterns.names, self.populations, self.standard_errors, self.independent,
            strict=True,
        )  # fmt: skip
        for name, population, error, independent in rows:
            lines.append(f"{name:{width}}  {population:10.4f}  {error:6.4f}  {independent:12.4f}")
        lines.append(f"occupancy of a site {self.occupancy:.4f} ± {self.occupancy_error:.4f}")
        if self.test.degrees:
            p = self.test.p_value
            told = f"p = {p:.3g}" if p > SMALLEST_TOLD_P else f"p < {SMALLEST_TOLD_P:g}"
            lines.append(
                f"independent sites: χ² {self.test.statistic:.1f} with {self.test.degrees} degrees "
                f"of freedom, {told}"
            )
        else:
            lines.append("independent sites: nothing to test")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, for JSON; what is not known is None."""
        rows = zip(
            self.patterns.patterns, self.populations, self.standard_errors, self.independent,
            strict=True,
        )  # fmt: skip
        return {
            "patterns": [
                {
                    "name": pattern.name,
                    "sites": pattern.digits,
                    "stabiliser": pattern.stabiliser.name,
                    "multiplicity": pattern.multiplicity,
                    "population": float(population),
                    "standard_error": _number(error),
                    "independent": float(independent),
                }
                for pattern, population, error, independent in rows
            ],
            "particles": self.n_particles,
            "occupancy": self.occupancy,
            "occupancy_error": self.occupancy_error,
            "independence": {
                "chi_squared": self.test.statistic,
                "degrees_of_freedom": self.test.degrees,
                "p_value": _number(self.test.p_value),
            },
        }


def populations(
    patterns: OccupancyPatterns,
    posteriors: Float[np.ndarray, "images patterns"],
    shows_particle: Float[np.ndarray, " images"] | None = None,
    prior: Float[np.ndarray, " patterns"] | None = None,
) -> Populations:
    """Most likely populations, their standard errors, and the test of independence.

    Args:
        patterns: of the group, one for each column.
        posteriors: of the patterns, given that the image shows a particle; registers and poses
            summed over.
        shows_particle: probability that an image does, 1 − junk; 1 by default. The fraction of
            junk that it was made under is taken to be its mean.
        prior: populations that the posteriors were made under, all above 0; by default their own
            weighted mean, as after convergence. From them the fractions are fitted again.

    Raises:
        ValueError: shapes that do not fit, what is no posterior, no particles, or a prior of 0.
    """
    rows, fractions = _joint(patterns, posteriors, shows_particle, prior)
    fractions, scores = _fitted(rows, fractions)
    covariance = _covariance(fractions, scores)
    particle = 1.0 - fractions[-1]
    found = fractions[:-1] / fractions[:-1].sum()
    # From fractions of images to those of particles: π_k = φ_k / (1 − φ_junk).
    slope = np.concatenate([np.eye(len(found)), found[:, None]], axis=1) / particle
    covariance = slope @ covariance @ slope.T
    deviation = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    n_particles = float(particle * len(rows))
    per_site = patterns.n_partners / patterns.group.order
    test = wald_test(patterns, found, covariance, n_particles)
    return Populations(
        patterns=patterns,
        populations=found,
        standard_errors=np.where(_there(fractions, len(rows))[:-1], deviation, np.nan),
        covariance=covariance,
        n_particles=n_particles,
        occupancy=test.occupancy,
        occupancy_error=float(np.sqrt(per_site @ covariance @ per_site)),
        independent=patterns.binomial(test.occupancy),
        test=test,
    )


def _joint(
    patterns, posteriors, shows_particle, prior
) -> tuple[Float64[np.ndarray, "images states"], Float64[np.ndarray, " states"]]:
    """Posterior over patterns and junk, and the fractions that it was made under."""
    rows = np.asarray(posteriors, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(patterns) or not len(rows):
        raise ValueError(
            f"posteriors of {len(patterns)} patterns for one image or more are needed, got "
            f"{rows.shape}"
        )
    weights = np.ones(len(rows)) if shows_particle is None else np.asarray(shows_particle)
    if weights.shape != (len(rows),) or not np.all((weights >= 0) & (weights <= 1 + ROUNDING)):
        raise ValueError("shows_particle: one probability for each image is needed")
    if not np.all(rows >= 0) or not np.allclose(rows.sum(axis=1), 1.0, atol=ROUNDING):
        raise ValueError("posteriors must not be negative, and add up to 1 for every image")
    if not weights.sum() > 0:
        raise ValueError("no image shows a particle")
    weights = np.minimum(weights.astype(np.float64), 1.0)
    rows = rows / rows.sum(axis=1, keepdims=True) * weights[:, None]
    rows = np.concatenate([rows, 1.0 - weights[:, None]], axis=1)
    fractions = rows.mean(axis=0)
    if prior is not None:
        prior = np.asarray(prior, np.float64)
        if prior.shape != (len(patterns),) or not np.all(prior > 0):
            raise ValueError(f"prior: {len(patterns)} populations above 0 are needed")
        fractions[:-1] = (1.0 - fractions[-1]) * prior / prior.sum()
    return rows, fractions


def _there(fractions, n: int):
    return fractions * n > NOTHING


def _fitted(rows, fractions) -> tuple[Float64[np.ndarray, " states"], Any]:
    """Most likely fractions by EM, and the scores at them; states that are zero stay so."""
    ratios = rows / np.where(fractions > 0, fractions, 1.0)  # L_ik, up to a factor for each image
    start = rows.mean(axis=0)
    current = start
    for _ in range(MOST_PASSES):
        after = current * np.mean(ratios / (ratios @ current)[:, None], axis=0)
        change = np.abs(after - current).max()
        current = after
        if change < CONVERGED:
            break
    current = np.where(_there(current, len(rows)), current, 0.0)
    current = current / current.sum()
    return current, ratios / (ratios @ current)[:, None]


def _covariance(fractions, scores) -> Float64[np.ndarray, "states states"]:
    """Inverse of the information Σ s s' within fractions that add up to 1."""
    there = np.flatnonzero(fractions > 0)
    within = scipy.linalg.null_space(np.ones((1, len(there))))
    directions = scores[:, there] @ within
    information = directions.T @ directions
    covariance = np.zeros((len(fractions), len(fractions)))
    inverse = scipy.linalg.pinvh(information)
    covariance[np.ix_(there, there)] = within @ inverse @ within.T
    return covariance


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
