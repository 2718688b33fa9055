"""What a result says in plain words: headline, key figures, and what to be careful about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxrelax.assessment.contradictions import (
    LARGE_GAP,
    contradictions,
    crowded_register,
    crowded_text,
    doubt,
)
from jaxrelax.assessment.state_shares import (
    expected_state_accuracy,
    state_shares,
)
from jaxrelax.assessment.state_warnings import state_doubt, state_warnings
from jaxrelax.assessment.words import percent, relaxation_setting
from jaxrelax.reconstruction import resolution_shell
from jaxrelax.refinement.result import Result

THRESHOLD = 0.143
TIGHT_MASK = 0.2  # correlation of phase-randomised maps at the resolution that is reported
NO_REGISTERS = 0.005  # above chance: a posterior that says nothing


class KeyFigure(NamedTuple):
    """A number worth reading first."""

    label: str
    value: str
    note: str


def relaxation_name(result: Result) -> str:
    """``C4 → C1``, or the number of registers where the settings do not tell.

    With states: how many.
    """
    if result.states:
        return f"{len(result.states)} states"
    group = relaxation_setting(result, "group")
    if group is not None:
        return f"{group} → {relaxation_setting(result, 'to') or 'C1'}"
    return f"{len(result.operators)} registers" if len(result.operators) > 1 else "none"


def headline(result: Result) -> str:
    """The answer in one or two sentences."""
    if result.evidence is None:
        return consequence(result)
    return f"{result.evidence.sentence()} {consequence(result)}"


def consequence(result: Result) -> str:
    """What the answer means for the use of the result."""
    if result.states:
        shares = [f"{share.name} {percent(share.fraction)}" for share in state_shares(result)]
        return (
            f"{len(shares)} states: {', '.join(shares)}; the most probable state is expected to be "
            f"right for {percent(expected_state_accuracy(result))} of the particles."
            f"{state_doubt(result)}"
        )
    if result.evidence is None:
        of_what = "" if result.part is None else " inside the mask"
        text = (
            f"Refined to {result.resolution_angstrom:.2f} Å{of_what} without symmetry relaxation."
        )
        return text if result.part is None else f"{text} {result.part.sentence()}."
    if not result.evidence.found:
        return "Use the symmetrised map; the registers mean nothing."
    share = percent(result.evidence.expected_accuracy)
    chance = percent(1.0 / len(result.operators))
    if contradictions(result):
        return (
            f"The posterior takes the most probable register for right in {share} of the particles "
            f"(chance: {chance}). {doubt(result)}"
        )
    text = (
        "The most probable register is expected to be right for "
        f"{share} of the particles (chance: {chance})"
    )
    if (crowd := crowded_register(result)) is not None:
        text += (
            ", if the input poses told registers apart already: one register holds "
            f"{percent(crowd)} of them (see the warnings)"
        )
    return text + "."


def key_figures(result: Result) -> list[KeyFigure]:
    """Numbers below the answers of the first screen."""
    figures = []
    if result.evidence is not None:
        figures.append(
            KeyFigure(
                "Held-out gain",
                f"{result.evidence.nats_per_particle:.3g}",
                "nats per particle, by which the asymmetric map of the other half-set explains it",
            )
        )
    columns = result.particles.extra_columns
    if "jrxJunkProbability" in columns:
        note = "of the images show no particle"
        if "jrxSymmetricProbability" in columns:
            symmetric = float(np.mean(columns["jrxSymmetricProbability"]))
            note += f"; {percent(symmetric)} of the particles symmetric"
        junk = percent(float(np.mean(columns["jrxJunkProbability"])))
        figures.append(KeyFigure("Junk", junk, note))
    halves = np.bincount(result.particles.half_set, minlength=3)
    figures += [
        KeyFigure(
            "Particles", f"{len(result.particles):,}", f"half-sets {halves[1]:,} + {halves[2]:,}"
        ),
        KeyFigure("Iterations", f"{len(result.history)}", duration(result.seconds)),
    ]
    return figures


def warnings(result: Result) -> list[str]:
    """What a careful reader should know before using the maps, besides the notes of the run."""
    notes = _map_warnings(result) + state_warnings(result)
    if result.evidence is None:
        return notes
    notes += [one.text for one in contradictions(result) if one.text not in result.notes]
    if (crowd := crowded_register(result)) is not None:
        notes.append(crowded_text(result, crowd))
    evidence, chance = result.evidence, 1.0 / len(result.operators)
    largest = float(result.registers.max(axis=1).mean())
    if not evidence.found and largest > chance + LARGE_GAP:
        notes.append(
            f"The posterior is not uniform (mean maximum {largest:.2f}, uniform {chance:.2f}) "
            "although no asymmetry was found in held-out images: the registers follow noise. "
            "Do not use them."
        )
    if evidence.found and largest < chance + NO_REGISTERS:
        notes.append(
            f"Asymmetry was found, but the posterior is uniform (mean maximum {largest:.2f}): the "
            "likelihood sees no gain in the asymmetric map, and the test, which does not depend "
            "on the noise model, does. The noise spectrum may be too high (do not keep it fixed), "
            "or the asymmetry too weak to tell registers apart."
        )
    if evidence.found and evidence.half_set_agreement < evidence.expected_accuracy - LARGE_GAP:
        notes.append(
            f"Only {percent(evidence.half_set_agreement)} of the particles have the same register "
            f"under both half-maps, fewer than the posterior expects to be right "
            f"({percent(evidence.expected_accuracy)}): it is over-confident."
        )
    asymmetric = result.fsc.get("asymmetric")
    if evidence.found and asymmetric is not None and np.max(asymmetric[1:], initial=0) < THRESHOLD:
        notes.append(
            "The asymmetric parts of the half-maps correlate nowhere above 0.143. Registers can "
            "be told apart, but the density that does so is not resolved."
        )
    if result.history and result.history[-1].get("settled", 1.0) == 0.0:
        notes.append(
            "The run was stopped while asymmetry was still being sought: neither the strength of "
            "the asymmetric part nor the posteriors have settled. Continue with more iterations."
        )
    return notes


def _map_warnings(result: Result) -> list[str]:
    notes = []
    nyquist = 2.0 * result.pixel_size_angstrom
    if result.resolution_angstrom < 1.03 * nyquist:
        notes.append(
            f"The FSC stays above 0.143 up to Nyquist ({nyquist:.2f} Å): the images are sampled "
            "too coarsely for this resolution, or the half-sets are not independent."
        )
    random, corrected = result.fsc.get("random"), result.fsc.get("corrected")
    if random is not None and corrected is not None:
        shell = resolution_shell(corrected)
        if random[min(shell, len(random) - 1)] > TIGHT_MASK:
            notes.append(
                "Phase-randomised half-maps still correlate at the reported resolution "
                f"({random[min(shell, len(random) - 1)]:.2f}): the mask is tight or sharp. Use a "
                "wider, softer one."
            )
    return notes


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
