"""The stages of a relaxed refinement and the stopping criteria, on made-up histories."""

import numpy as np
import pytest

from jaxrelax.refinement import MaxIterations, RegistersSettled, ResolutionStalled, State
from jaxrelax.refinement.schedule import next_stage, standstill


def state_with(history):
    """A state that has nothing but a history."""
    nothing, map_ = np.zeros(2), np.zeros((1, 2, 2, 2), np.float32)
    return State(
        iteration=len(history), score_shell=1, rotations=np.eye(3)[None],
        origins_angstrom=np.zeros((1, 2)), registers=np.ones((1, 1), np.float32),
        log_gain=np.zeros(1, np.float32), noise_power=np.ones((1, 2)), sigma_rotation_deg=1.0,
        sigma_shift_angstrom=1.0, symmetric=map_, asymmetric=map_, fsc=nothing,
        fsc_symmetric=nothing, fsc_asymmetric=nothing, optimism=0.0, stage="settle",
        growing=False, alignment=0,
        history=tuple(history),
    )  # fmt: skip


def rows(curve, signal=0.0, widened=0.0):
    return tuple(
        {"asymmetric_fsc": f, "asymmetric_signal": signal, "widened": widened} for f in curve
    )


def test_a_rising_curve_is_no_standstill():
    assert not standstill([0.01 * 1.3**i for i in range(12)])


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
    return state_with(
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


def test_only_a_fixed_number_is_a_limit_while_seeking():
    still = criterion_rows([8.0, 8.0, 8.0], [0.97, 0.97, 0.97])
    assert RegistersSettled().limit(still) is None
    assert (RegistersSettled() | MaxIterations(3)).limit(still) == "3 iterations done"
    assert (RegistersSettled() & MaxIterations(3)).limit(still) is None
