"""The course of a relaxed refinement: seek asymmetry, amplify what was found, settle.

At the symmetric saddle nothing that a pose- or register-based criterion watches moves, while the
asymmetric FSC grows by a factor per iteration underneath. Low resolution decides nearly every
register, so asymmetry is sought in the starting band, where iterations are also cheap; if nothing
rises there, once more in the band of the current resolution. While it is sought the asymmetric
part has a small, held strength: images vote in proportion, and no register locks on what the first
iterations happened to find.

Images that vote in proportion cannot tell apart registers that are nearly alike: a mixture of them
then looks settled, with a clear asymmetric FSC. So an asymmetry that is clear is amplified, to its
full strength and in all its components, until it stands still again. Cross-fitting keeps noise from
growing with it; where there is nothing but noise nothing is amplified. At last the strength is
calibrated by the other half-set's images, and the band follows the FSC.
"""

from __future__ import annotations

from typing import Literal

Stage = Literal["seek", "widen", "amplify", "settle"]

FEWEST_SEEKING = 10  # iterations before a standstill counts
FEWEST_CLEAR = 5  # the same where there is a clear signal
WINDOW = 3
RELATIVE_RISE = 1.05
ABSOLUTE_RISE = 0.005
CLEAR_SIGNAL = 5.0  # standard errors of the mean asymmetric FSC
# Above so many, the FSC of the asymmetric part is known well enough without optimism.
STRONG_SIGNAL = 20.0
WITHDRAWAL_FACTOR = 0.4
KEPT_OPTIMISM = 0.5
NEGLIGIBLE_OPTIMISM = 0.1


FEWEST_GLOBAL = 3  # global searches before they can have come to an end
FEW_JUMPS = 0.005  # of the images
FALLING = 0.9  # what the share of jumping images falls by, at least, while it falls
BETTER = 1.01  # what the mean FSC of the half-maps rises by, while they come to agree further
SOME_JUMPS = 0.1  # of the images; fewer are known well enough to be followed
FOLLOWED = 2  # iterations between two global searches then


def poses_settled(history: tuple[dict[str, float], ...]) -> bool:
    """Whether searching all orientations again and again has come to an end.

    It has when hardly any image still finds another pose, or no more of them than when the poses
    found were followed: images that show little find another one for ever. Where too many do for
    that, it has when neither their number nor the agreement of the half-maps has improved in the
    last two searches. Once it has, it has.
    """
    moving = [row for row in history if row.get("held_poses") != 1.0]
    searched = [i for i, row in enumerate(moving) if row.get("searched_globally") == 1.0]
    if len(searched) < FEWEST_GLOBAL:
        return False
    if moving[-1].get("poses_settled") == 1.0:
        return True
    jumps = [moving[i]["pose_jumps"] for i in searched[1:]]  # the first finds all
    between = [row["pose_jumps"] for row in moving[searched[-2] + 1 : searched[-1]]]
    if jumps[-1] < FEW_JUMPS or (between and jumps[-1] <= sum(between) / len(between)):
        return True
    if len(jumps) <= 2:
        return False
    agreement = [row["mean_fsc"] for row in moving]
    falling = min(jumps[-2:]) < FALLING * min(jumps[:-2])
    sharpening = max(agreement[searched[-2] :]) > BETTER * max(agreement[: searched[-2]])
    return not (falling or sharpening)


def global_due(history: tuple[dict[str, float], ...]) -> bool:
    """Whether all orientations are searched next, as long as poses have not settled.

    In every iteration while many images find another pose. When most find the same ones again
    these are followed, which costs far less, and others looked for once in a while.
    """
    moving = [row for row in history if row.get("held_poses") != 1.0]
    last = [row for row in moving if row.get("searched_globally") == 1.0][-1:]
    if not last or last[0]["pose_jumps"] > SOME_JUMPS:
        return True
    return all(row.get("searched_globally") != 1.0 for row in moving[-FOLLOWED:])


MOVING_REGISTERS = 0.01  # of the images, while it is worth while to go on at the same poses


def inner_due(history: tuple[dict[str, float], ...], at_most: int) -> bool:
    """Whether registers are inferred once more at held poses before these are searched again.

    Args:
        history: rows of the iterations so far.
        at_most: iterations between two searches of poses.
    """
    held = 0
    for row in reversed(history):
        if row["held_poses"] == 0.0:
            break
        held += 1
    return len(history) > 0 and held < at_most and history[-1]["register_change"] > MOVING_REGISTERS


def standstill(curve: list[float], clear: bool = False) -> bool:
    """Whether the mean asymmetric FSC has stopped rising."""
    if len(curve) < max(FEWEST_CLEAR if clear else FEWEST_SEEKING, WINDOW + 1):
        return False
    return max(curve[-WINDOW:]) < RELATIVE_RISE * max(curve[:-WINDOW]) + ABSOLUTE_RISE


def next_stage(stage: Stage, history: tuple[dict[str, float], ...]) -> Stage:
    """Stage of the next iteration."""
    if stage == "settle":
        return stage
    now = (stage != "seek", stage == "amplify")
    curve = [row["asymmetric_fsc"] for row in history if (row["widened"], row["amplified"]) == now]
    clear = history[-1]["asymmetric_signal"] > CLEAR_SIGNAL
    if not standstill(curve, clear):
        return stage
    if clear and stage != "amplify":
        return "amplify"
    return "widen" if stage == "seek" else "settle"


def next_optimism(full: float, stage: Stage, optimism: float, signal: float) -> float:
    """Optimism of the next iteration: withdrawn step by step once asymmetry was sought.

    Half of it stays where the signal is weak: to leave the saddle takes more than not to fall back.

    Args:
        full: what was asked for.
        stage: of the next iteration.
        optimism: of the last one.
        signal: mean asymmetric FSC in standard errors.
    """
    if stage != "settle":
        return full
    least = 0.0 if signal > STRONG_SIGNAL else KEPT_OPTIMISM * full
    optimism = max(WITHDRAWAL_FACTOR * optimism, least)
    return optimism if optimism >= NEGLIGIBLE_OPTIMISM else 0.0
