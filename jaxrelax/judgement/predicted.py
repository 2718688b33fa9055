"""How well registers can be told apart: what a prediction says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

# Above chance: below it an image (or a data set) is said not to tell registers apart.
NOTICEABLE = 0.05
VIEW_BINS_DEG = (0.0, 30.0, 60.0, 90.0)


@dataclass(frozen=True)
class Discriminability:
    """How well the registers of every particle can be told apart, before it is looked at.

    Attributes:
        squared_distance: d², mean squared distance between the views of two registers, in noise
            standard deviations. With two half-maps an unbiased estimate: it scatters about 0 where
            there is nothing.
        expected_accuracy: probability that the most probable register is the right one.
        chance: 1/registers.
        resolution_angstrom: limit of the frequencies used.
        view_deg: angle between the line of sight and the z axis of the map, 0 to 90.
        pose_uncertain: whether the pose was taken as known to its prior only.
    """

    squared_distance: Float64[np.ndarray, " n"]
    expected_accuracy: Float64[np.ndarray, " n"]
    chance: float
    resolution_angstrom: float
    view_deg: Float64[np.ndarray, " n"]
    pose_uncertain: bool

    @property
    def nats(self) -> Float64[np.ndarray, " n"]:
        """½ d²: expected log-likelihood ratio of the right over another register, per particle."""
        return 0.5 * self.squared_distance

    @property
    def mean_accuracy(self) -> float:
        """Expected fraction of the particles in the right register."""
        return float(self.expected_accuracy.mean())

    @property
    def blind(self) -> Bool[np.ndarray, " n"]:
        """Particles whose register cannot be told: expected accuracy within 0.05 of chance."""
        return self.expected_accuracy < self.chance + NOTICEABLE

    @property
    def resolvable(self) -> bool:
        """Whether the mean accuracy is above chance by 0.05 or more."""
        return self.mean_accuracy >= self.chance + NOTICEABLE

    def columns(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Columns for a table: ``jrxDiscriminability`` (nats) and ``jrxExpectedAccuracy``."""
        return {
            "jrxDiscriminability": self.nats,
            "jrxExpectedAccuracy": self.expected_accuracy,
        }

    def sentence(self) -> str:
        """One or two sentences for people."""
        numbers = (
            f"the expected register accuracy is {self.mean_accuracy:.3f} where chance is "
            f"{self.chance:.3f} ({self.nats.mean():.3g} nats per particle, frequencies up to "
            f"{self.resolution_angstrom:.1f} Å)"
        )
        if not self.resolvable:
            return f"These data cannot resolve the register: {numbers}."
        text = numbers[0].upper() + numbers[1:] + "."
        if self.blind.any():
            text += (
                f" {100 * self.blind.mean():.0f} % of the particles are blind: below "
                f"{self.chance + NOTICEABLE:.3f}."
            )
        return text

    def summary(self) -> str:
        """The sentence, and accuracy by direction of view."""
        lines = [
            self.sentence(),
            f"Poses: {'known to their prior' if self.pose_uncertain else 'exact'}; the map: true.",
            "view from z    particles    accuracy    blind",
        ]
        bins = np.digitize(self.view_deg, VIEW_BINS_DEG[1:-1])
        for number, (low, high) in enumerate(itertools.pairwise(VIEW_BINS_DEG)):
            inside = bins == number
            if inside.any():
                accuracy, blind = self.expected_accuracy[inside], self.blind[inside]
                lines.append(
                    f"{low:3.0f}° to {high:2.0f}°   {inside.sum():9,d}    "
                    f"{accuracy.mean():8.3f}   {blind.mean():5.0%}"
                )
        return "\n".join(lines)
