"""Maps of iterations, kept small, so that the report can show asymmetry appear."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float16

from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction import IsotypicParts
from jaxrelax.refinement import (
    Callback,
    MapsOfIterations,
    Problem,
    Result,
    State,
    StepInfo,
)

MOST_SHOWN, MOST_KEPT = 12, 24
BOX = 64


class Strip(Callback):
    """Keep half-map 1 after iterations, in single planes of which the report shows a strip.

    Regularised, in its own frame, which is that of the results. Its symmetric and its asymmetric
    part are each kept as half precision in a box of 64³, for the plane that shows what is odd is
    known only at the end: 1 MiB an iteration, and at most some two dozen of them, since where there
    are more every other one is let go. Iterations in which images may show several maps are not
    kept.
    """

    def __init__(self):
        self._kept: dict[int, tuple[Float16[np.ndarray, "b b b"], ...]] = {}
        self._last, self._every, self._resumed_after = 0, 1, 0
        self._edge, self._unit = 0.0, 0.0

    def on_start(self, problem: Problem, state: State) -> None:
        """Note what a resumed run has done before."""
        self._resumed_after = state.iterations_done

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """Keep an iteration."""
        if len(problem.of_maps) > 1:
            return
        parts = state.maps.parts()[0]
        if self._unit == 0.0:
            # Half precision ends at 6 · 10⁴, and maps are on the scale of the images.
            self._unit = float(np.sqrt(np.mean(parts.symmetric.astype(np.float64) ** 2))) or 1.0
        self._edge = problem.shells.edge_angstrom
        relaxed = problem.particle.relaxed
        self._keep(info.iteration, IsotypicParts(parts.symmetric, parts.asymmetric), relaxed)

    def added_to(self, result: Result) -> Result:
        """The result with these maps; with states as it is."""
        if result.states or not self._kept:
            return result
        iterations = self._shown()
        symmetric, asymmetric = (
            np.stack([self._kept[one][part] for one in iterations]) for part in (0, 1)
        )
        maps = MapsOfIterations(
            iterations=tuple(iterations),
            symmetric=symmetric,
            asymmetric=asymmetric if len(result.operators) > 1 else None,
            edge_angstrom=self._edge,
            resumed_after=self._resumed_after,
        )
        return dataclasses.replace(result, maps_of_iterations=maps)

    def _keep(self, iteration: int, parts: IsotypicParts, relaxed: bool) -> None:
        first = min(self._kept, default=iteration)
        # The last one is always there; it goes with the next if it is none of every so many.
        if (self._last - first) % self._every:
            self._kept.pop(self._last, None)
        asymmetric = parts.asymmetric if relaxed else np.zeros((BOX,) * 3, np.float32)
        self._kept[iteration] = tuple(
            np.clip(resample_map(one, BOX) / self._unit, -6e4, 6e4).astype(np.float16)
            for one in (parts.symmetric, asymmetric)
        )
        self._last = iteration
        if len(self._kept) > MOST_KEPT:
            self._every *= 2
            for one in sorted(self._kept):
                if (one - first) % self._every and one != iteration:
                    del self._kept[one]

    def _shown(self) -> list[int]:
        """As many as are shown, evenly, the first and the last among them."""
        kept = sorted(self._kept)
        chosen = np.linspace(0, len(kept) - 1, min(len(kept), MOST_SHOWN))
        return [kept[k] for k in np.rint(chosen).astype(int)]
