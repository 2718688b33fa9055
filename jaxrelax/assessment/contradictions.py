"""What a result says twice, and differently: then one of the two is wrong.

Posteriors judge themselves; the half-maps judge them from outside. Where these say that there is
nothing by which registers could be told apart, a sure posterior has sorted the images by something
else: a group that is not the map's, an axis off its place, errors of the poses, bad images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrelax.assessment.words import percent, relaxation_setting
from jaxrelax.refinement.reference_group import FORCED
from jaxrelax.refinement.result import Result

# Between probabilities that should agree.
LARGE_GAP = 0.1
# Of what the posterior claims above chance: what the half-maps must predict at least. They cannot
# know of shells in which they do not agree yet, and fall short where the asymmetry is weak.
CONFIRMED_SHARE = 1.0 / 3.0
# Amplitude of the difference map, of the symmetrised map's: less is rounding and interpolation.
NIL = 1e-3


class Contradiction(NamedTuple):
    """Two statements that cannot both be right."""

    brief: str  # what speaks against the registers, as part of a sentence
    text: str


def contradictions(result: Result) -> list[Contradiction]:
    """What speaks against the registers of a result that found asymmetry.

    Without asymmetry nothing is claimed of them.
    """
    if result.evidence is None or not result.evidence.found:
        return []
    found = [
        Contradiction("the reference does not have the group", note)
        for note in result.notes
        if note.endswith(FORCED)
    ]
    claimed, chance = result.evidence.expected_accuracy, 1.0 / len(result.operators)
    if result.discriminability is not None:
        predicted = result.discriminability.mean_accuracy
        confirmed = predicted - chance >= CONFIRMED_SHARE * (claimed - chance)
        if not confirmed and claimed - predicted > LARGE_GAP:
            found.append(
                Contradiction(
                    f"the half-maps predict {percent(predicted)}",
                    f"The posterior takes {percent(claimed)} of the registers for right, but what "
                    "the half-maps agree on predicts, with these CTFs, views and noise, "
                    f"{percent(predicted)} (chance: {percent(chance)}). Either the asymmetry is "
                    "too weak for these maps to show it, and the posterior is over-confident; or "
                    "registers are told apart by something that is not in the density: a group "
                    "that the map does not have, an axis off its place, errors of the poses, bad "
                    "images.",
                )
            )
    amplitude = _amplitude(result.difference) / max(_amplitude(result.map_symmetrised), 1e-30)
    if amplitude < NIL:
        found.append(
            Contradiction(
                "the difference map is nil",
                "Asymmetry was found, but the difference map is nil "
                f"({amplitude:.1g} of the map's amplitude): the half-maps agree on nothing that "
                "breaks the symmetry. What held-out images know of is not density; "
                "or it is too faint to be mapped.",
            )
        )
    return found


def doubt(result: Result) -> str:
    """The contradictions as a sentence; empty without any."""
    found = contradictions(result)
    if not found:
        return ""
    return (
        f"This is contradicted: {' and '.join(one.brief for one in found)}. Do not rely on "
        "registers and asymmetric density before the warnings are understood."
    )


def crowded_register(result: Result) -> float | None:
    """Share of the particles in the fullest register, where that is most; else None.

    A symmetric refinement leaves every register alike, so its poses give no reason to prefer one.
    A run that started from the registers of the input keeps them, and None is returned.
    """
    if result.evidence is None or not result.evidence.found:
        return None
    if relaxation_setting(result, "start") == "poses":
        return None
    registers = result.registers.shape[1]
    counts = np.bincount(result.best_register, minlength=registers)
    share = float(counts.max() / counts.sum())
    return share if share >= 0.5 * (1.0 + 1.0 / registers) else None


def crowded_text(result: Result, share: float) -> str:
    """What a crowded register means: two things, of which the poses' origin decides."""
    group = relaxation_setting(result, "group") or "the group"
    return (
        f"One of {len(result.operators)} registers holds {percent(share)} of the particles. That "
        "is right if the input poses told registers apart already (a refinement in C1, or an "
        f"earlier relaxation). Poses from a refinement with {group} imposed are spread over all "
        f"registers alike; if these are, the map does not have {group}, or its axis is off its "
        "place: compare with `jaxrelax align`."
    )


def _amplitude(map_) -> float:
    return float(np.sqrt(np.mean(np.asarray(map_, np.float64) ** 2)))
