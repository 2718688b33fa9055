"""When optimism about the asymmetric part is withdrawn.

At the symmetric saddle nothing that a pose- or register-based criterion watches moves, while the
asymmetric FSC grows by a factor per iteration underneath. Optimism stays while that curve rises
and is then annealed, so that the posterior ends calibrated.
"""

from __future__ import annotations

from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State

FEWEST_SEEKING = 8  # iterations before a standstill counts
WINDOW = 3
SMALLEST_RISE = 0.02  # of the mean asymmetric FSC over the window
ANNEALING_FACTOR = 0.4
NEGLIGIBLE = 0.05


def next_optimism(
    problem: Problem, state: State, history: tuple[dict[str, float], ...]
) -> tuple[float, bool]:
    """Optimism of the next iteration, and whether it is being withdrawn."""
    if problem.relax is None or state.optimism == 0.0:
        return state.optimism, state.annealing
    annealing = state.annealing
    if not annealing and len(history) >= FEWEST_SEEKING:
        curve = [row["asymmetric_fsc"] for row in history]
        annealing = max(curve[-WINDOW:]) - max(curve[:-WINDOW]) < SMALLEST_RISE
    if not annealing:
        return state.optimism, False
    lower = state.optimism * ANNEALING_FACTOR
    return (lower if lower > NEGLIGIBLE else 0.0), True
