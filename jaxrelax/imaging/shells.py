"""Shells of a map's grid: which are used, scored and accumulated, and their resolution.

Shell limits come from a ladder, so that a whole run compiles a bounded number of programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# A rung is about a fifth above the one before.
LADDER = (6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 57, 68, 80, 96, 114, 136, 160, 192, 228,
          272, 320, 384)  # fmt: skip
# Rungs nearer to each other than this cost a program and save nothing.
LADDER_STEP = 1.08
# Accumulated beyond the scored band, so that the FSC can show whether there is more.
HEADROOM = 1.25
# Of Nyquist: beyond it slices are interpolated worst, and folds would be accumulated at full size.
SCORED_SHARE = 0.9
# Shells beyond the band over which maps fall smoothly to nothing.
MARGIN = 2


@dataclass(frozen=True)
class Shells:
    """The shells of a map's box.

    Attributes:
        box: of the map, in pixels.
        pixel_size_angstrom: of the map.
        last: the last shell that is ever used.
        finest_scored_angstrom: images are scored by frequencies up to this; None: no limit.
    """

    box: int
    pixel_size_angstrom: float
    last: int
    finest_scored_angstrom: float | None = None

    @property
    def count(self) -> int:
        """Shells 0 … Nyquist of the map."""
        return self.box // 2 + 1

    @property
    def edge_angstrom(self) -> float:
        """Edge of the map's box in Å."""
        return self.box * self.pixel_size_angstrom

    def resolution(self, shell: int) -> float:
        """Resolution of a shell in Å."""
        return self.edge_angstrom / max(shell, 1)

    def resolved(self, shell: int) -> float:
        """Resolution of the last shell that is resolved, in Å; 0 where that is none."""
        return self.resolution(shell) if shell >= 1 else 0.0

    def at(self, resolution_angstrom: float) -> int:
        """Last shell at or below a resolution, between 1 and the last one used."""
        return int(np.clip(self.edge_angstrom / resolution_angstrom, 1, self.last))

    @property
    def last_scored(self) -> int:
        """The last shell that may score images."""
        if self.finest_scored_angstrom is None:
            return self.last
        return self.at(self.finest_scored_angstrom)

    @cached_property
    def rungs(self) -> list[int]:
        """The ladder up to the last shell used; what is accumulated ends at the last but one.

        Maps of what was accumulated then serve whatever they may score.
        """
        ceiling = max(int(SCORED_SHARE * self.last), 1)
        below = [r for r in LADDER if LADDER_STEP * r <= ceiling]
        return sorted({*below, ceiling, self.last})

    def rung(self, shell: int | float) -> int:
        """The ladder's first rung at or beyond ``shell``; the last shell used at most."""
        return next((r for r in self.rungs if shell <= r), self.last)

    def accumulated(self, score_shell: int, grow: bool) -> int:
        """Last shell to accumulate when images are scored up to ``score_shell``."""
        rung = self.rung(score_shell)
        if grow:
            rung = max(rung, min(self.rung(HEADROOM * rung), self.rungs[-2]))
        return min(rung + MARGIN, self.last)

    def whole(self, accumulated: int) -> int:
        """Last shell of a map that is not in the margin, where it falls to nothing."""
        return accumulated - MARGIN
