"""The images of a refinement as a table: half-sets, folds, and what of them goes together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int, Int8

from jaxrelax.io import Particles, Units, every_row


@dataclass(frozen=True, eq=False)
class Data:
    """Particles, and who may be scored with whom.

    Attributes:
        particles: the table.
        half_set: 1 or 2.
        fold: inside a half-set, from 0.
        units: what shares noise: never on two sides, and exchanged as a whole in tests.
        cross_fitted: images are scored against maps without their fold.
    """

    particles: Particles
    half_set: Int8[np.ndarray, " n"]
    fold: Int[np.ndarray, " n"]
    units: Units
    cross_fitted: bool = True

    @classmethod
    def undivided(cls, particles: Particles) -> Data:
        """All images in one half-set and fold, every one by itself."""
        n = len(particles)
        return cls(particles, np.ones(n, np.int8), np.zeros(n, int), every_row(n), False)

    def __len__(self) -> int:
        return len(self.particles)

    @cached_property
    def n_folds(self) -> int:
        """Folds of a half-set; at least two, so that it can be judged from within."""
        return max(int(self.fold.max()) + 1, 2)

    @property
    def kept_share(self) -> float:
        """Share of a half-set's images in the map that scores one of them."""
        return (self.n_folds - 1) / self.n_folds if self.cross_fitted else 1.0

    @cached_property
    def groupings(self) -> Int[np.ndarray, " n"]:
        """Number of the half-set, fold and optics group of every image."""
        keys = np.stack([self.half_set, self.fold, self.particles.optics_group], axis=1)
        return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)

    def share_of(self, index: int, count: int) -> Bool[np.ndarray, " n"]:
        """Images that one of several processes reads: an equal part of every grouping.

        Parts are consecutive in the table, so that processes read different parts of the stacks.
        """
        own = np.zeros(len(self), bool)
        for number in range(self.groupings.max() + 1):
            rows = np.flatnonzero(self.groupings == number)
            # Who has one more than others differs from group to group.
            part = (index + number) % count
            own[np.array_split(rows, count)[part]] = True
        return own

    def batches(self, half: int, fold: int | None) -> list[tuple[int, np.ndarray]]:
        """Rows of a half-set (and fold), by optics group: (group, rows)."""
        chosen = self.half_set == half
        if fold is not None:
            chosen &= self.fold == fold
        return [
            (g, rows)
            for g in range(len(self.particles.optics))
            if len(rows := np.flatnonzero(chosen & (self.particles.optics_group == g)))
        ]

    def last_shell(self, box: int, pixel_size_angstrom: float) -> int:
        """The last shell of a map that all images hold; Nyquist itself is left out."""
        edge = box * pixel_size_angstrom
        return min(
            [box // 2 - 1]
            + [
                # What the images hold in every direction.
                int(
                    (g.box // 2 - 1) * g.aberrations.stretches[1] * edge
                    / (g.box * g.pixel_size_angstrom)
                )
                for g in self.particles.optics
            ]
        )  # fmt: skip
