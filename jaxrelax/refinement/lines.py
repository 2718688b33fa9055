"""An iteration in words: a line for a terminal, and all of it for the log."""

from __future__ import annotations

from jaxrelax.refinement.course import Course
from jaxrelax.refinement.criteria import Both, Criterion, Either, FinalPasses, MaxIterations
from jaxrelax.refinement.history import StepInfo

# What a phase of a course is called while it lasts; others go by their name.
DOING = {
    "seek": "seeking",
    "widen": "widening",
    "amplify": "amplifying",
    "settle": "settling",
}
SHOWN = 5  # states whose share fits into a line


def details(info: StepInfo, course: Course) -> str:
    """Everything that is watched, for the log."""
    text = (
        f"iteration {info.iteration}: {info.resolution_angstrom:.2f} Å, scored to "
        f"{info.score_resolution_angstrom:.2f} Å"
    )
    if info.relaxed:
        text += (
            f", mean max posterior {info.mean_max_posterior:.3f}, asymmetric FSC "
            f"{info.asymmetric_fsc:.3f} ({info.asymmetric_signal:.1f} s.e.), registers changed "
            f"{100 * info.register_change:.1f} %"
        )
        if info.asymmetric_resolution_angstrom > 0:
            text += f", asymmetric part to {info.asymmetric_resolution_angstrom:.1f} Å"
        phase = course.phases[info.phase]
        text += f", {phase}" if phase else ""
    if info.fractions:
        shares = " ".join(f"{100 * one:.1f}" for one in info.fractions)
        text += f", states {shares} %, changed {100 * info.state_change:.1f} %"
    if info.searched_globally:
        text += f", all orientations ({100 * info.pose_jumps:.1f} % found another pose)"
    return text + f" ({info.seconds:.1f} s)"


def in_short(info: StepInfo, course: Course, until: Criterion) -> str:
    """What a user wants to see of it, in less than 80 characters.

    Args:
        info: of the iteration.
        course: whose phase it belongs to.
        until: says after how many iterations the stage ends at the latest.
    """
    most = most_iterations(until)
    words = [f"it {info.iteration}" + (f"/≤{most}" if most is not None else "")]
    phase = course.phases[info.phase]
    if info.searched_globally:
        words.append("searching")
    elif phase and not info.fractions:
        words.append(DOING.get(phase, phase))
    words.append(f"whole {info.resolution_angstrom:.1f} Å")
    if info.fractions:
        shares = [f"{100 * one:.0f}" for one in info.fractions]
        shares = shares if len(shares) <= SHOWN else [*shares[: SHOWN - 1], "…"]
        words.append(f"states {' '.join(shares)} %")
        words.append(f"sure {100 * info.state_certainty:.0f} %")
        words.append(f"moved {100 * info.state_change:.0f} %")
    elif info.relaxed:
        partner = info.asymmetric_resolution_angstrom
        words.append(f"partner {partner:.0f} Å" if partner > 0 else "partner –")
        words.append(f"sure {100 * info.mean_max_posterior:.0f} %")
        words.append(f"moved {100 * info.register_change:.0f} %")
    elif info.searched_globally:
        words.append(f"moved {100 * info.pose_jumps:.0f} %")
    words.append(f"{info.seconds:.0f} s" if info.seconds >= 9.95 else f"{info.seconds:.1f} s")
    return "  ".join(words)


def most_iterations(until: Criterion) -> int | None:
    """After how many iterations a criterion stops whatever happens; None: after no fixed number."""
    if isinstance(until, MaxIterations):
        return until.iterations
    if isinstance(until, FinalPasses):
        return most_iterations(until.criterion)
    if isinstance(until, Either | Both):
        limits = [most_iterations(one) for one in (until.first, until.second)]
        known = [one for one in limits if one is not None]
        if isinstance(until, Either):
            return min(known, default=None)
        return max(known) if len(known) == len(limits) else None
    return None
