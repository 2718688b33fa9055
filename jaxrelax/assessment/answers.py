"""The first screen of a report: what everybody asks of a result first, each with one answer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrelax.assessment.contradictions import contradictions, crowded_register
from jaxrelax.assessment.state_shares import (
    SURE,
    expected_state_accuracy,
    shown,
    state_shares,
    sure_fraction,
)
from jaxrelax.assessment.words import percent
from jaxrelax.refinement.result import PartMotion, Result


class Answer(NamedTuple):
    """A question, its answer in a few words, and what these rest on.

    Attributes:
        question: as a user asks it.
        value: the answer.
        notes: what it rests on, a line each.
        doubtful: something in the result speaks against it.
    """

    question: str
    value: str
    notes: tuple[str, ...]
    doubtful: bool = False


def answers(result: Result) -> list[Answer]:
    """Is it real, how sure is it, how well is it resolved, what do I open."""
    real = [] if result.evidence is None and result.support is None else [_real(result)]
    sure = [] if result.evidence is None and not result.states else [_sure(result)]
    moves = [] if result.part is None else [_moves(result.part)]
    return [*real, *sure, _resolved(result), *moves, _file(result)]


def two_resolutions(result: Result) -> str:
    """``10.9 Å (asymmetric part 17 Å)``; with states of the mean map alone.

    One number is not enough: the symmetric part has the images of all registers behind every
    voxel and decides the first; what was looked for is the second.
    """
    whole = f"{result.resolution_angstrom:.2f} Å"
    if result.evidence is None or not result.evidence.found:
        return whole
    return f"{whole} (asymmetric part {asymmetric_resolution(result)})"


def asymmetric_resolution(result: Result) -> str:
    """In words; half-sets may agree on nothing that breaks the symmetry."""
    part = result.asymmetric_resolution_angstrom
    return f"{part:.1f} Å" if part > 0 else "not resolved"


def _real(result: Result) -> Answer:
    if result.states:
        return _states_are_real(result)
    evidence = result.evidence
    assert evidence is not None
    group = evidence.subgroups[0].name
    if not evidence.found:
        return Answer(
            "Is the asymmetry real?",
            "none found",
            (evidence.p_statement(), f"held-out images do not contradict {group}"),
        )
    against = contradictions(result)
    notes = [f"{evidence.p_statement()}: held-out images contradict {group}"]
    if evidence.supported is not None:
        kept = "kept, not tested" if evidence.kept_untested else "not contradicted"
        notes.append(f"largest symmetry {kept}: {evidence.supported}")
    notes += [f"but {one.brief}" for one in against]
    return Answer("Is the asymmetry real?", "doubtful" if against else "yes", tuple(notes),
                  bool(against))  # fmt: skip


def _states_are_real(result: Result) -> Answer:
    apart, support = result.states_apart, result.support
    assert apart is not None
    assert support is not None
    first, second = support.classes
    further = apart.how_many()
    return Answer(
        "Are the states real?",
        "yes" if apart.supported else "not supported",
        (
            f"held-out images tell classes {first} and {second}, the most alike, apart by "
            f"{support.z_score:+.1f} σ",
            *([] if further is None else [further]),
        ),
        not apart.supported,
    )


def _sure(result: Result) -> Answer:
    if result.states:
        names = ", ".join(percent(one.fraction) for one in state_shares(result))
        return Answer(
            "How sure are the states?",
            percent(expected_state_accuracy(result)),
            (
                f"of the most probable states are expected to be right; {len(result.states)} "
                f"states: {names}",
                f"{percent(sure_fraction(result))} of the particles have a state above {SURE:g}",
            ),
        )
    evidence, chance = result.evidence, 1.0 / len(result.operators)
    assert evidence is not None
    if not evidence.found:
        return Answer(
            "How sure are the registers?",
            "not at all",
            ("without asymmetry registers mean nothing",),
        )
    largest = result.registers.max(axis=1)[shown(result)]
    crowd = crowded_register(result)
    notes = [f"of the best registers are expected to be right (chance {percent(chance)})"]
    if len(largest):
        notes.append(
            f"{percent(float(np.mean(largest > SURE)))} of the particles are above {SURE:g}"
        )
    notes.append(f"{percent(evidence.half_set_agreement)} the same under either half-map")
    if crowd is not None:
        notes.append(f"but one register holds {percent(crowd)}")
    against = contradictions(result)
    value = percent(evidence.expected_accuracy)
    if against:
        notes[0] = f"the posterior takes {value} of the best registers for right, but "
        notes[0] += " and ".join(one.brief for one in against)
        value = "contradicted"
    return Answer(
        "How sure are the registers?", value, tuple(notes), bool(against) or crowd is not None
    )


def _resolved(result: Result) -> Answer:
    value = f"{result.resolution_angstrom:.2f} Å"
    if result.states:
        own = ", ".join(
            f"{one.resolution_angstrom:.1f}" + (f" / {part:.0f}" if part > 0 else " / –")
            for one in result.states
            for part in (one.own_resolution_angstrom,)
        )
        return Answer(
            "How well is it resolved?",
            value,
            ("the mean map", f"classes, whole / of their own: {own} Å"),
        )
    if result.part is not None and result.evidence is None:
        return Answer("How well is it resolved?", value, ("inside the mask, FSC at 0.143",))
    if result.evidence is None:
        return Answer("How well is it resolved?", value, ("corrected FSC at 0.143",))
    if not result.evidence.found:
        return Answer("How well is it resolved?", value, ("the whole map, FSC at 0.143",))
    part = asymmetric_resolution(result)
    return Answer(
        "How well is it resolved?",
        f"{value} / {part}",
        ("the whole map / what breaks the symmetry, FSC at 0.143",),
    )


def _moves(part: PartMotion) -> Answer:
    by_axis = ", ".join(f"{angle:.1f}°" for angle in part.turn_by_axis_deg)
    return Answer(
        "How does the part move?",
        f"{part.turn_deg:.1f}°, {part.shift_angstrom:.1f} Å",
        (
            "root mean square against the rest, noise of the poses included",
            f"about x, y and z: {by_axis}",
        ),
    )


def _file(result: Result) -> Answer:
    if result.states:
        return Answer(
            "Which file do I open?",
            "map_classNN.mrc",
            ("map.mrc is the mean of the states; view.cxc opens all of them in ChimeraX",),
        )
    if result.evidence is not None and not result.evidence.found:
        return Answer(
            "Which file do I open?",
            "map_symmetrised.mrc",
            ("map.mrc is the same without the symmetry imposed, and shows noise",),
        )
    notes = ("half1.mrc and half2.mrc for sharpening, with mask.mrc",)
    if result.part is not None:
        notes = ("the part in its place; map_composite.mrc has the rest around it", *notes)
    if result.evidence is not None:
        notes = ("view.cxc opens it in ChimeraX, with what breaks the symmetry in colour", *notes)
    return Answer("Which file do I open?", "map.mrc", notes)
