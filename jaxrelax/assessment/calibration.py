"""Whether posteriors mean what they say: reliability table, calibration error, Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int


@dataclass(frozen=True)
class Calibration:
    """Largest posterior probabilities against how often they were right.

    Bins are of equal width between 0 and 1; empty ones have mean and accuracy NaN.

    Attributes:
        edges: limits of the bins.
        count: particles in each bin.
        confidence: mean largest posterior probability in each bin.
        accuracy: fraction of particles in each bin that are in the right register.
        expected_error: Σ count |confidence − accuracy| / n (ECE; Naeini et al., AAAI 2015).
        brier: mean squared distance between the posterior and the truth as a one-hot vector, 0 at
            best and 2 at worst (Brier, Mon. Weather Rev. 78 (1950) 1); None where only the
            largest probability is known.
    """

    edges: Float64[np.ndarray, " limits"]
    count: Int[np.ndarray, " bins"]
    confidence: Float64[np.ndarray, " bins"]
    accuracy: Float64[np.ndarray, " bins"]
    expected_error: float
    brier: float | None


def calibration(
    largest: Float[np.ndarray, " n"],
    correct: Bool[np.ndarray, " n"],
    brier: float | None = None,
    bins: int = 10,
) -> Calibration:
    """Reliability of the largest posterior probability.

    Args:
        largest: largest posterior probability of every particle.
        correct: whether the register it belongs to is the right one.
        brier: see :func:`brier_score`.
        bins: number of bins.

    Raises:
        ValueError: lengths differ, there is no particle, or a probability is not in 0 … 1.
    """
    largest, correct = np.asarray(largest, np.float64), np.asarray(correct, bool)
    if largest.shape != correct.shape or not len(largest):
        raise ValueError(
            f"{len(largest)} probabilities for {len(correct)} particles; one each is needed"
        )
    if not np.all((largest >= 0) & (largest <= 1 + 1e-5)):
        raise ValueError("a posterior probability lies outside 0 to 1")
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip((largest * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)

    def mean(values):
        sums = np.bincount(place, values, minlength=bins)
        return np.divide(sums, count, out=np.full(bins, np.nan), where=count > 0)

    confidence, accuracy = mean(largest), mean(correct.astype(np.float64))
    gap = np.nan_to_num(np.abs(confidence - accuracy))
    return Calibration(
        edges, count, confidence, accuracy, float(np.sum(count * gap) / len(largest)), brier
    )


def brier_score(posterior: Float[np.ndarray, "n registers"], true: Int[np.ndarray, " n"]) -> float:
    """Mean of Σ_j (p_j − [j is true])² over particles."""
    one_hot = np.eye(posterior.shape[1])[np.asarray(true)]
    return float(np.mean(np.sum((np.asarray(posterior, np.float64) - one_hot) ** 2, axis=1)))
