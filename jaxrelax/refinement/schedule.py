"""The course of a relaxed refinement: seek asymmetry, widen the band, withdraw optimism, settle.

At the symmetric saddle nothing that a pose- or register-based criterion watches moves, while the
asymmetric FSC grows by a factor per iteration underneath. Low resolution decides nearly every
register, so asymmetry is sought in the starting band, where iterations are also cheap; if nothing
rises there, once more in the band of the current resolution. Then optimism is withdrawn step by
step, so that the posterior ends calibrated, while the band follows the FSC.
"""

from __future__ import annotations

from typing import Literal

Stage = Literal["seek", "widen", "withdraw", "settle"]

FEWEST_SEEKING = 6  # iterations before a standstill counts
WINDOW = 3
RELATIVE_RISE = 1.05
ABSOLUTE_RISE = 0.005
CLEAR_SIGNAL = 5.0  # standard errors of the mean asymmetric FSC
WITHDRAWAL_FACTOR = 0.4
NEGLIGIBLE_OPTIMISM = 0.1


def standstill(curve: list[float]) -> bool:
    """Whether the mean asymmetric FSC has stopped rising."""
    if len(curve) < max(FEWEST_SEEKING, WINDOW + 1):
        return False
    return max(curve[-WINDOW:]) < RELATIVE_RISE * max(curve[:-WINDOW]) + ABSOLUTE_RISE


def next_stage(
    stage: Stage, optimism: float, history: tuple[dict[str, float], ...]
) -> tuple[Stage, float]:
    """Stage and optimism of the next iteration."""
    last = history[-1]
    if stage in ("seek", "widen"):
        curve = [row["asymmetric_fsc"] for row in history if row["widened"] == (stage == "widen")]
        if not standstill(curve):
            return stage, optimism
        clear = last["asymmetric_signal"] > CLEAR_SIGNAL
        if stage == "seek" and not clear:
            return "widen", optimism
        stage = "withdraw"
    if stage == "withdraw":
        optimism *= WITHDRAWAL_FACTOR
        if optimism < NEGLIGIBLE_OPTIMISM:
            return "settle", 0.0
    return stage, optimism
