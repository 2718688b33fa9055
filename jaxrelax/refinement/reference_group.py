"""Refuse a reference that does not have the group that is said, or has it on other axes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from jaxrelax.geometry import PointGroup
from jaxrelax.imaging import resample_map
from jaxrelax.io import InputError
from jaxrelax.reconstruction import (
    AxisAlignment,
    Fit,
    GroupFits,
    Verdict,
    misaligned_axes,
    moved,
    symmetry_correlation,
)

LOG = logging.getLogger("jaxrelax")

# Copies that are looked at have this edge at most.
FINEST_BOX = 96
# By how much aligning must raise the correlation with copies, for axes that are elsewhere.
RAISED = 0.2
# Ends the warning of a group that was forced.
FORCED = "Going on all the same, as --force-group says."
GO_ON = "--force-group (force_group=True) goes on with what you say"


def require_group(
    map_: Float32[np.ndarray, "n n n"],
    group: PointGroup,
    name: str,
    *,
    relaxed: bool = True,
    force: bool = False,
    elsewhere: Callable[[AxisAlignment, float], str] | None = None,
) -> None:
    """Look whether a map has a group, and has it on the axes of the box.

    Args:
        map_: the reference.
        group: what is said to be its symmetry, or that of what a partner broke.
        name: of the map, for messages.
        relaxed: registers of this group are to be inferred. Where it is only imposed, a reference
            need not have it, as long as it does not have it elsewhere.
        force: warn where it would be refused.
        elsewhere: words for where the axes are, from their alignment and the edge of its voxels in
            those of the map, and what to do about it; None: of a map about the centre of its box.

    Raises:
        InputError: the axes are elsewhere, with the rotation and shift that would align the map;
            or the map has another group, which is named.
    """
    if group.order == 1 or not np.any(map_):
        return
    n = len(map_)
    small = resample_map(map_, FINEST_BOX) if n > FINEST_BOX else np.asarray(map_, np.float32)
    verdict = GroupFits(np.asarray(small)).judge(group)
    say = _off_centre(group) if elsewhere is None else elsewhere
    problem = _problem(small, group, verdict, n / len(small), relaxed, say)
    if problem is not None:
        if not force:
            raise InputError(f"{name}: {problem}; {GO_ON}")
        note = f"{name}: {problem}. {FORCED}"
    elif relaxed and verdict.better is not None and not _suits(verdict):
        pair = _pair(small, verdict.better, verdict.asked, "and only roughly")
        note = (
            f"{name}: this map has {pair}. If {group.name} is not what it was refined in, relax "
            f"{verdict.better.group.name}."
        )
    else:
        return
    LOG.warning("%s", note)


def _problem(
    map_,
    group: PointGroup,
    verdict: Verdict,
    voxel: float,
    relaxed: bool,
    say: Callable[[AxisAlignment, float], str],
) -> str | None:
    """What is wrong with the map, in words, or None."""
    asked, better = verdict.asked, verdict.better
    # A group of the same size that fits exactly is the same on other axes, or another one.
    elsewhere = better is not None and better.group.order >= group.order and _exact(better)
    if not (elsewhere and verdict.refused):
        off = misaligned_axes(map_, group, everywhere=not _suits(verdict))
        if off is not None and _brings_it_home(map_, group, off, verdict):
            return say(off, voxel)
    if not verdict.refused or not relaxed:
        return None
    if better is None:
        return (
            f"this map does not have {group.name} ({symmetry_correlation(map_, group):.3f}): what "
            f"is not alike at every angle correlates {asked.copies:.2f} with its rotated copies, "
            "and turns by any angle give 0. No other group fits on the axes of the box either; "
            "check the symmetry that the map was refined in"
        )
    text = f"this map has {_pair(map_, better, asked, 'not')}"
    if better.group.order == group.order and better.group.name[0] == group.name[0]:
        return (
            f"{text}: the same symmetry on other axes. Relax {better.group.name}, or align map and "
            f"poses to {group.name} first (`jaxrelax align`) and refine once in that frame"
        )
    return f"{text}. Relax {better.group.name}"


def _off_centre(group: PointGroup) -> Callable[[AxisAlignment, float], str]:
    def say(off: AxisAlignment, voxel: float) -> str:
        return (
            f"the axes of {group.name} are off by {off.angle_deg:.1f}° and "
            f"{off.shift_px * voxel:.1f} px (correlation with its symmetrised self "
            f"{off.correlation:.3f}, {off.aligned_correlation:.3f} after alignment); align map "
            "and poses to the symmetry first (`jaxrelax align`, or relion_align_symmetry "
            f"--sym {group.name}), refine once in that frame, and relax then"
        )

    return say


def _brings_it_home(map_, group: PointGroup, off: AxisAlignment, before: Verdict) -> bool:
    """Whether the group fits the aligned map, as `jaxrelax align` will ask."""
    after = GroupFits(moved(map_, off.rotation, off.centre_px)).judge(group, aligned=True)
    if after.refused:
        return False
    return not before.refused or after.asked.copies > before.asked.copies + RAISED


def _pair(map_, has: Fit, asked: Fit, word: str) -> str:
    """``C4 (1.000), not C5 (0.902)``, and what of that is not trivial."""
    return (
        f"{has.group.name} ({symmetry_correlation(map_, has.group):.3f}), {word} "
        f"{asked.group.name} ({symmetry_correlation(map_, asked.group):.3f}; without what is alike "
        f"at every angle {has.copies:.2f} and {asked.copies:.2f})"
    )


def _exact(fit: Fit) -> bool:
    return fit.copies > 0.9


def _suits(verdict: Verdict) -> bool:
    """Whether the group fits as well as others, so that nothing is to be said or looked for."""
    return verdict.better is None and not verdict.refused
