"""Rows of a finished run's table by their posterior: state, register, junk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from jaxrelax.io.cryosparc import cryosparc_field
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import Particles

STATE_PROBABILITY = "jrxStateProbability"
REGISTER, REGISTER_PROBABILITY = "jrxRegister", "jrxRegisterProbability"
JUNK_PROBABILITY = "jrxJunkProbability"


def select_by_posterior(
    particles: Particles,
    *,
    states: Sequence[int] = (),
    registers: Sequence[int] = (),
    min_probability: float = 0.0,
    max_junk: float = 0.5,
) -> Bool[np.ndarray, " particles"]:
    """Which particles are in one of these states, or registers, with enough certainty.

    The probability of a row is that of its best state, given that the image shows the particle,
    times that it does: ``jrxStateProbability`` × (1 − ``jrxJunkProbability``). Where registers are
    asked for, ``jrxRegisterProbability`` is a factor, too; with states it is that within the
    state. Where neither states nor registers are asked for, it is that of the best state, or of the
    best register of a table without states. Junk counts as 0 where the table does not speak of it.

    Args:
        particles: a ``particles.star`` or ``particles.cs`` that jaxrelax wrote.
        states: best states to take, from 1; any if empty.
        registers: most probable registers to take, from 1; any if empty.
        min_probability: least probability that is taken.
        max_junk: largest junk probability that is taken.

    Raises:
        InputError: neither states, registers nor a probability are given, a column is not there,
            registers are asked for in a table of several states without one state, or no row is
            left.
    """
    surest = not len(states) and not len(registers)
    if surest and min_probability <= 0.0:
        raise InputError("say which particles: with --state, --register or --min-probability.")
    chosen = np.ones(len(particles), bool)
    probability = np.ones(len(particles))
    junk = _numbers(particles, JUNK_PROBABILITY)
    of_state = _numbers(particles, STATE_PROBABILITY)
    if surest:
        probability = _of_best(particles, of_state)
    if len(states):
        if of_state is None:
            raise InputError(
                f"{particles.source}: no column {STATE_PROBABILITY}: it is not of a run with "
                "states (refine --mode classification), so --state cannot act."
            )
        chosen &= np.isin(particles.class_number, states)
        probability *= of_state
    if len(registers):
        if of_state is not None and len(states) != 1:
            raise InputError(
                f"{particles.source}: registers are those of a state. Say of which one, with one "
                "--state."
            )
        register = _numbers(particles, REGISTER)
        of_register = _numbers(particles, REGISTER_PROBABILITY)
        if register is None or of_register is None:
            raise InputError(
                f"{particles.source}: no columns {REGISTER} and {REGISTER_PROBABILITY}: it is not "
                "of a run with relaxation (refine --relax), so --register cannot act."
            )
        chosen &= np.isin(register.astype(np.int64), registers)
        probability *= of_register
    of_these = int(chosen.sum())
    if junk is not None:
        chosen &= junk <= max_junk
        probability *= 1.0 - junk
    chosen &= probability >= min_probability
    if not chosen.any():
        raise InputError(_nothing_left(particles, states, of_these))
    return chosen


def _of_best(
    particles: Particles, of_state: Float64[np.ndarray, " particles"] | None
) -> Float64[np.ndarray, " particles"]:
    """Probability of the best state, or of the best register where there are no states."""
    found = _numbers(particles, REGISTER_PROBABILITY) if of_state is None else of_state
    if found is None:
        raise InputError(
            f"{particles.source}: no column {STATE_PROBABILITY} or {REGISTER_PROBABILITY}: it is "
            "neither of a run with states nor of one with relaxation, so there is nothing to "
            "select by."
        )
    return found


def _numbers(particles: Particles, label: str) -> Float64[np.ndarray, " particles"] | None:
    """A column by its name in a STAR file, whichever kind of file the particles are from."""
    column = particles.column(label)
    if column is None:
        column = particles.column(cryosparc_field(label))
    if column is None:
        return None
    try:
        values = np.array([float(value) for value in column])
    except ValueError as error:
        raise InputError(f"{particles.source}: column {label} holds no number ({error}).") from None
    if not np.all(np.isfinite(values)):
        raise InputError(
            f"{particles.source}, {particles.some_rows(~np.isfinite(values))}: column {label} is "
            "not finite. Correct or remove these rows."
        )
    return values


def _nothing_left(particles: Particles, states: Sequence[int], of_these: int) -> str:
    if of_these:
        return (
            f"{particles.source}: {of_these} of {len(particles)} particles are of these, but none "
            "is likely enough. Lower --min-probability, or raise --max-junk."
        )
    what = "registers"
    if len(states):
        numbers, counts = np.unique(particles.class_number, return_counts=True)
        there = ", ".join(f"{k} ({n})" for k, n in zip(numbers, counts, strict=True))
        what = f"states; those that have particles are {there}"
    return f"{particles.source}: no particle is in these {what}."
