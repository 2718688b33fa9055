"""The stages of a relaxed refinement and the stopping criteria, on made-up histories."""

import numpy as np
import pytest

from jaxrelax.refinement import MaxIterations, RegistersSettled, ResolutionStalled
from jaxrelax.refinement.schedule import next_stage, standstill


class Fake:
    def __init__(self, rows):
        self.history = tuple(rows)
        self.iteration = len(rows)


def rows(curve, signal=0.0, widened=0.0):
    return tuple(
        {"asymmetric_fsc": f, "asymmetric_signal": signal, "widened": widened} for f in curve
    )


def test_a_rising_curve_is_no_standstill():
    assert not standstill(list(0.01 * 1.3 ** np.arange(12)))


def test_a_flat_curve_is_a_standstill_only_after_some_iterations():
    assert not standstill([0.0] * 5)
    assert standstill([0.0] * 6)


def test_without_signal_the_band_is_widened_before_giving_up():
    stage, optimism = next_stage("seek", 3.0, rows([0.0] * 8))
    assert (stage, optimism) == ("widen", 3.0)
    stage, optimism = next_stage("widen", 3.0, rows([0.0] * 8, widened=1.0))
    assert stage == "withdraw"
    assert optimism < 3.0


def test_with_a_clear_signal_optimism_is_withdrawn_at_once():
    stage, optimism = next_stage("seek", 3.0, rows([0.3] * 8, signal=20.0))
    assert stage == "withdraw"
    assert optimism == pytest.approx(1.2)


def test_withdrawal_ends_at_exactly_zero():
    stage, optimism = "withdraw", 3.0
    for _ in range(10):
        stage, optimism = next_stage(stage, optimism, rows([0.3]))
    assert (stage, optimism) == ("settle", 0.0)


def criterion_rows(resolutions, posteriors, optimism=0.0):
    return Fake(
        [
            {"resolution_angstrom": r, "mean_max_posterior": p, "optimism": optimism}
            for r, p in zip(resolutions, posteriors, strict=True)
        ]
    )


def test_resolution_must_stand_still_without_optimism():
    still = criterion_rows([8.0, 8.0, 8.0], [0.5] * 3)
    assert "8.00" in ResolutionStalled().reason(still)
    assert ResolutionStalled().reason(criterion_rows([8.0] * 3, [0.5] * 3, optimism=3.0)) is None
    assert ResolutionStalled().reason(criterion_rows([9.0, 8.5, 8.0], [0.5] * 3)) is None


def test_registers_must_settle():
    assert RegistersSettled().reason(criterion_rows([8.0] * 3, [0.97, 0.971, 0.972]))
    assert RegistersSettled().reason(criterion_rows([8.0] * 3, [0.9, 0.95, 0.97])) is None


def test_criteria_combine():
    still = criterion_rows([8.0, 8.0, 8.0], [0.9, 0.95, 0.97])
    assert (ResolutionStalled() & RegistersSettled()).reason(still) is None
    assert (ResolutionStalled() | RegistersSettled()).reason(still)
    assert (RegistersSettled() | MaxIterations(3)).reason(still) == "3 iterations done"
