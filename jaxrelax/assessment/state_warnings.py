"""What a careful reader should know of the states of a classification."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxrelax.assessment.state_shares import (
    expected_state_accuracy,
    operators_of,
    state_shares,
)
from jaxrelax.assessment.views import STRONG, view_contrast
from jaxrelax.assessment.words import percent
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction import resolution_shell, rotated_maps
from jaxrelax.refinement.result import Result, StateMap

THRESHOLD = 0.143
FEW_IMAGES, SMALL_FRACTION = 20, 0.01  # less is an empty state
ALIKE = 0.9  # agreement of what two states have of their own
CERTAINTY_ABOVE_CHANCE = 0.1
# Standard errors by which a Fourier shell correlation must exceed zero.
SIGMAS = 3.0
# Of the box in which states are compared: coarse, as that of what tells them apart mostly is.
LARGEST_BOX = 48


def empty_states(result: Result) -> list[int]:
    """Numbers, from 1, of states for which next to nothing was found."""
    return [
        share.number
        for share in state_shares(result)
        if share.fraction < SMALL_FRACTION or share.particles < FEW_IMAGES
    ]


def unsupported_states(result: Result) -> list[int]:
    """Numbers, from 1, of states with images that have nothing of their own in both half-sets."""
    empty = empty_states(result)
    return [
        number
        for number, one in enumerate(result.states, start=1)
        if number not in empty
        and "own" in one.fsc
        and not agrees(one.fsc["own"], len(operators_of(one)))
    ]


def agrees(curve: Float64[np.ndarray, " shells"], order: int) -> bool:
    """Whether a Fourier shell correlation is anywhere above 0.143 and above chance.

    Args:
        curve: from shell 0, which says nothing.
        order: of the symmetry that the maps have; it leaves as many times fewer coefficients.
    """
    shells = np.arange(1, len(curve))
    independent = 2.0 * np.pi * shells**2 / order
    return bool(np.any(curve[1:] > np.maximum(THRESHOLD, SIGMAS / np.sqrt(independent))))


def of_kept(one: StateMap) -> int:
    """Order of what a state imposes."""
    return max(1, len(operators_of(one)) // one.registers)


def state_doubt(result: Result) -> str:
    """What speaks against states, in short, for the headline; empty if nothing does."""
    if result.patterns is not None:
        return ""
    empty, unsupported = empty_states(result), unsupported_states(result)
    said = [
        f"{_classes(numbers)} {what}"
        for numbers, what in ((empty, "empty"), (unsupported, "not supported by both half-sets"))
        if numbers
    ]
    if result.states_apart is not None:
        said += [
            f"held-out images do not tell {_named(one)} apart"
            for one in result.states_apart.groups
            if len(one) > 1
        ]
    return f" But {' and '.join(said)}: see the warnings." if said else ""


def state_warnings(result: Result) -> list[str]:
    """Warnings about states; none without states."""
    if not result.states:
        return []
    if result.patterns is not None:
        return [*_of_partner(result), *_of_views(result), *_of_certainty(result)]
    return [
        *_of_emptiness(result),
        *_of_support(result),
        *_of_likeness(result),
        *_of_views(result),
        *_of_certainty(result),
        *_of_copies(result),
    ]


def _of_partner(result: Result) -> list[str]:
    """Of occupancy patterns, of which some may well be empty, or be the mean of all."""
    curves = [(one, one.fsc["asymmetric"]) for one in result.states if "asymmetric" in one.fsc]
    if any(agrees(curve, of_kept(one)) for one, curve in curves):
        return []
    return [
        "The asymmetric parts of the half-maps correlate in no pattern above 0.143: there is no "
        "partner that both half-sets know of, and populations of patterns mean nothing."
    ]


def _of_emptiness(result: Result) -> list[str]:
    notes, empty = [], empty_states(result)
    for share in state_shares(result):
        if share.number not in empty:
            continue
        if share.particles:
            found = (
                f"nearly empty ({percent(share.fraction)}, {share.particles:,} "
                f"image{'s' if share.particles > 1 else ''}): next to nothing was found for it"
            )
        else:
            found = "empty: nothing was found for it"
        notes.append(f"Class {share.number} ({share.name}) is {found}. Run with fewer states.")
    return notes


def _of_copies(result: Result) -> list[str]:
    """Of sub-particles that were judged each for itself."""
    copies = result.copies
    if copies is None or copies.exclusive is not None or not any(copies.several):
        return []
    return [copies.sentence()]


def _of_support(result: Result) -> list[str]:
    notes = [
        f"The half-sets agree on nothing that class {number} ({result.states[number - 1].name}) "
        "has of its own: it is not supported. What its map has beside the mean is noise; run "
        "with fewer states."
        for number in unsupported_states(result)
    ]
    if result.states_apart is not None and not result.states_apart.supported:
        notes.append(f"{result.states_apart.sentence()} Take them for one state: run with fewer.")
    for number, one in enumerate(result.states, start=1):
        curve = one.fsc.get("asymmetric")
        if curve is None or number in empty_states(result) or agrees(curve, of_kept(one)):
            continue
        notes.append(
            f"The asymmetric parts of the half-maps of class {number} ({one.name}) correlate "
            "nowhere above 0.143: its registers mean nothing, and its map is symmetric."
        )
    return notes


def _of_likeness(result: Result) -> list[str]:
    doubtful = {*empty_states(result), *unsupported_states(result)}
    numbers = [k for k in range(1, len(result.states) + 1) if k not in doubtful]
    notes = []
    support = result.support
    for one, other in combinations(numbers, 2):
        if support is not None and support.supported and set(support.classes) == {one, other}:
            continue  # they differ by little, and held-out images see it
        likeness = state_likeness(result, one - 1, other - 1)
        if likeness > ALIKE:
            notes.append(
                f"Classes {one} and {other} are alike: what they have beside the mean of all "
                f"states agrees by {likeness:.2f} (1: the same). They may be one state; run with "
                "fewer states."
            )
    return notes


def _of_views(result: Result) -> list[str]:
    few = set(empty_states(result))
    return [
        f"Class {number} ({one.name}) is seen from other sides than the other states (Cramér's V "
        f"of tilts {contrast:.2f}): it may be a view, not a state. Compare the viewing directions, "
        "and its map with the others in the directions that it lacks."
        for number, (one, contrast) in enumerate(
            zip(result.states, view_contrast(result), strict=True), start=1
        )
        if contrast > STRONG and number not in few
    ]


def _of_certainty(result: Result) -> list[str]:
    certainty, chance = expected_state_accuracy(result), 1.0 / len(result.states)
    notes = []
    if certainty < chance + CERTAINTY_ABOVE_CHANCE:
        notes.append(
            f"States can hardly be told apart in single images: the most probable one has a "
            f"probability of {certainty:.2f} on average (chance: {chance:.2f}). Do not select "
            "particles by class."
        )
    if result.history and result.history[-1].get("settled", 1.0) == 0.0:
        notes.append(
            "The run was stopped before states and poses had settled. Continue with more "
            "iterations."
        )
    return notes


def state_likeness(result: Result, one: int, other: int) -> float:
    """Agreement of what two states (counted from 0) have beside the mean of all.

    2⟨a, b⟩ / (|a|² + |b|²) of the differences a, b to the mean, which also tells apart states that
    differ from it alike but not as much. It is the largest over the registers of a state that has
    any, in the band in which half-sets agree on both.
    """
    states = [result.states[one], result.states[other]]
    first, second = (_own_part(result, state, states) for state in states)
    powers = np.vdot(first, first) + np.vdot(second, second)
    smaller = 2.0 * np.sqrt(np.vdot(first, first) * np.vdot(second, second))
    # Registers cannot make more of it than this.
    if powers <= 0.0 or smaller <= ALIKE * powers:
        return float(2.0 * np.vdot(first, second) / powers) if powers > 0.0 else 0.0
    relaxed = [state for state in states if state.registers > 1]
    operators = operators_of(relaxed[0]) if relaxed else np.eye(3)[None]
    return float(2.0 * max(np.vdot(first, b) for b in rotated_maps(second, operators)) / powers)


def _own_part(
    result: Result, state: StateMap, compared: list[StateMap]
) -> Float32[np.ndarray, "m m m"]:
    """Difference of a state's map to the mean, in the band of both, on a coarse grid."""
    mask = np.maximum(compared[0].mask, compared[1].mask)
    own: Float[np.ndarray, "n n n"] = (state.map - result.map) * mask
    bands = [resolution_shell(one.fsc["own"]) for one in compared if "own" in one.fsc]
    last = min(bands, default=LARGEST_BOX)
    edge = result.map.shape[0] * result.pixel_size_angstrom
    box = 2 * (1 + round(last * edge / result.shell_edge_angstrom))
    box = int(np.clip(box, 8, min(LARGEST_BOX, len(mask))))
    return np.asarray(resample_map(own.astype(np.float32), box))


def _classes(numbers: Sequence[int]) -> str:
    return f"{_named(numbers)} {'is' if len(numbers) == 1 else 'are'}"


def _named(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"class {numbers[0]}"
    return f"classes {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
