"""The stages of a relaxed refinement and the stopping criteria, on made-up histories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.refinement import MaxIterations, RegistersSettled, ResolutionStalled, State
from jaxrelax.refinement.schedule import (
    CLEAR_SIGNAL,
    FEWEST_CLEAR,
    FEWEST_SEEKING,
    STRONG_SIGNAL,
    global_due,
    inner_due,
    next_optimism,
    next_stage,
    poses_settled,
    standstill,
)


def state_with(history):
    """A state that has nothing but a history."""
    nothing, map_ = np.zeros(2), np.zeros((1, 2, 2, 2), np.float32)
    return State(
        iteration=len(history), score_shell=1, rotations=np.eye(3)[None],
        origins_angstrom=np.zeros((1, 2)), prior_rotations=np.eye(3)[None],
        prior_origins_angstrom=np.zeros((1, 2)), registers=np.ones((1, 1), np.float32),
        log_gain=np.zeros(1, np.float32), noise_power=np.ones((1, 2)), sigma_rotation_deg=1.0,
        sigma_shift_angstrom=1.0, sigma_offset_angstrom=5.0, symmetric=map_, asymmetric=map_,
        fsc=nothing, fsc_symmetric=nothing, fsc_asymmetric=nothing, optimism=0.0, stage="settle",
        growing=False, alignment=0,
        history=tuple(history),
    )  # fmt: skip


def rows(curve, signal=0.0, stage="seek"):
    where = {"widened": float(stage != "seek"), "amplified": float(stage == "amplify")}
    return tuple({"asymmetric_fsc": f, "asymmetric_signal": signal} | where for f in curve)


def test_registers_go_on_at_held_poses_until_they_stand_still():
    def rows(*pairs):
        return tuple({"held_poses": held, "register_change": change} for held, change in pairs)

    assert not inner_due((), 3)
    assert not inner_due(rows((0.0, 0.5)), 0)
    assert inner_due(rows((0.0, 0.5)), 3)
    assert inner_due(rows((0.0, 0.5), (1.0, 0.2), (1.0, 0.1)), 3)
    assert not inner_due(rows((0.0, 0.5), (1.0, 0.2), (1.0, 0.1), (1.0, 0.1)), 3)
    assert not inner_due(rows((0.0, 0.5), (1.0, 0.005)), 3)
    assert not inner_due(rows((0.0, 0.005)), 3)


def test_a_rising_curve_is_no_standstill():
    rising = [0.01 * 1.3**i for i in range(12)]
    assert not standstill(rising)
    assert not standstill(rising, clear=True)


@pytest.mark.parametrize(("clear", "fewest"), [(False, FEWEST_SEEKING), (True, FEWEST_CLEAR)])
def test_a_flat_curve_is_a_standstill_only_after_some_iterations(clear, fewest):
    assert not standstill([0.3] * (fewest - 1), clear)
    assert standstill([0.3] * fewest, clear)


@given(st.lists(st.floats(-0.2, 1.0), min_size=1, max_size=20))
def test_a_clear_signal_stands_still_no_later(curve):
    assert standstill(curve, clear=True) or not standstill(curve)


def test_without_signal_the_band_is_widened_before_giving_up():
    held = rows([0.0] * FEWEST_SEEKING)
    assert next_stage("seek", held[:-1]) == "seek"
    assert next_stage("seek", held) == "widen"
    # Only iterations of the wider band count.
    assert next_stage("widen", held + rows([0.0], stage="widen")) == "widen"
    assert next_stage("widen", held + rows([0.0] * FEWEST_SEEKING, stage="widen")) == "settle"


@pytest.mark.parametrize("stage", ["seek", "widen"])
def test_what_was_found_is_amplified_before_it_settles(stage):
    clear = CLEAR_SIGNAL + 1.0
    found = rows([0.3] * FEWEST_SEEKING, clear, stage)
    assert next_stage(stage, found) == "amplify"
    amplified = found + rows([0.4] * FEWEST_CLEAR, clear, "amplify")
    assert next_stage("amplify", amplified[:-1]) == "amplify"
    assert next_stage("amplify", amplified) == "settle"
    # It settles, too, if it comes to nothing.
    assert next_stage("amplify", found + rows([0.0] * FEWEST_SEEKING, 0.0, "amplify")) == "settle"


def test_a_clear_signal_is_amplified_at_once():
    assert next_stage("seek", rows([0.3] * FEWEST_CLEAR, CLEAR_SIGNAL + 1.0)) == "amplify"
    assert next_stage("seek", rows([0.3] * FEWEST_CLEAR, CLEAR_SIGNAL - 1.0)) == "seek"
    rising = rows([0.1 * i for i in range(FEWEST_CLEAR)], CLEAR_SIGNAL + 1.0)
    assert next_stage("seek", rising) == "seek"


@pytest.mark.parametrize("signal", [0.0, 50.0])
def test_nothing_is_sought_again_once_settled(signal):
    assert next_stage("settle", rows([0.1 * i for i in range(8)], signal, "settle")) == "settle"


def test_optimism_is_withdrawn_while_the_signal_is_strong():
    strong = STRONG_SIGNAL + 1.0
    for stage in ("seek", "widen", "amplify"):
        assert next_optimism(6.0, stage, 6.0, strong) == 6.0
    values = [6.0]
    for _ in range(10):
        values.append(next_optimism(6.0, "settle", values[-1], strong))
    assert values[1] < 6.0
    assert sorted(values, reverse=True) == values
    assert values[-1] == 0.0


def test_half_the_optimism_stays_where_the_signal_is_weak():
    weak = STRONG_SIGNAL - 1.0
    values = [6.0]
    for _ in range(5):
        values.append(next_optimism(6.0, "settle", values[-1], weak))
    assert values[1] < 6.0
    assert values[-1] == 3.0
    # Back as soon as the signal is weak again, wherever it was.
    assert next_optimism(6.0, "settle", 0.0, weak) == 3.0


def criterion_rows(resolutions, posteriors, settled=1.0):
    return state_with(
        [
            {
                "resolution_angstrom": r,
                "mean_fsc": 4.0 / r,
                "mean_max_posterior": p,
                "settled": settled,
            }
            for r, p in zip(resolutions, posteriors, strict=True)
        ]
    )


def test_resolution_must_stand_still_after_seeking():
    still = criterion_rows([8.0, 8.0, 8.0], [0.5] * 3)
    assert "8.00" in ResolutionStalled().reason(still)
    assert ResolutionStalled().reason(criterion_rows([8.0] * 3, [0.5] * 3, settled=0.0)) is None
    assert ResolutionStalled().reason(criterion_rows([9.0, 8.5, 8.0], [0.5] * 3)) is None


def test_half_maps_may_come_to_agree_further_at_one_resolution():
    """Where they agree to the last shell the resolution stands still from the beginning."""
    rising = criterion_rows([8.0] * 5, [0.5] * 5)
    rows = [
        {**row, "mean_fsc": fsc}
        for row, fsc in zip(rising.history, (0.60, 0.61, 0.62, 0.62, 0.621), strict=True)
    ]
    assert ResolutionStalled().reason(state_with(rows[:4])) is None
    assert ResolutionStalled().reason(state_with(rows))
    # By chance the resolution may be a shell better, and half-maps agree no better.
    jumped = (*rows[2:4], {**rows[4], "resolution_angstrom": 7.5})
    assert ResolutionStalled().reason(state_with(jumped))


def test_registers_must_settle_after_seeking():
    still = [0.97, 0.971, 0.972]
    assert RegistersSettled().reason(criterion_rows([8.0] * 3, still))
    assert RegistersSettled().reason(criterion_rows([8.0] * 3, still, settled=0.0)) is None
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


def searched(jumps, resolutions, followed=(), settled=0):
    """A history of global searches, of what followed each of them, and of settled poses."""
    rows = []
    between = {"searched_globally": 0.0, "pose_jumps": 0.9, "mean_fsc": 0.1}
    for j, r in zip(jumps, resolutions, strict=True):
        rows.append({"searched_globally": 1.0, "pose_jumps": j, "mean_fsc": 4.0 / r})
        rows += [{**between, "pose_jumps": f} for f in followed]
    return tuple(rows + [{**between, "poses_settled": 1.0}] * settled)


def test_poses_settle_when_hardly_any_image_finds_another():
    assert not poses_settled(searched([1.0, 0.0], [20.0, 20.0]))
    assert poses_settled(searched([1.0, 0.2, 0.004], [20.0, 15.0, 12.0]))
    assert not poses_settled(searched([1.0, 0.2, 0.05], [20.0, 20.0, 20.0]))


def test_poses_of_images_that_jump_for_ever_settle_with_the_resolution():
    jumps, flat = [1.0, 0.5, 0.3, 0.3, 0.3], [20.0] * 5
    assert poses_settled(searched(jumps, flat))
    assert not poses_settled(searched(jumps, [20.0, 18.0, 16.0, 14.0, 12.0]))
    assert not poses_settled(searched([1.0, 0.5, 0.3, 0.25, 0.2], flat))


def test_poses_settle_when_a_search_finds_no_more_than_following_did():
    jumps, sharper = [1.0, 0.09, 0.03], [20.0, 18.0, 16.0]
    assert poses_settled(searched(jumps, sharper, followed=(0.04, 0.03)))
    assert not poses_settled(searched(jumps, sharper, followed=(0.03, 0.02)))
    # Two searches say nothing yet.
    assert not poses_settled(searched(jumps[:2], sharper[:2], followed=(0.1, 0.1)))


def test_half_maps_that_agree_further_between_searches_agree_further():
    history = list(searched([1.0, 0.5, 0.3, 0.3, 0.3], [20.0] * 5, followed=(0.1, 0.1)))
    assert poses_settled(tuple(history))
    history[-5] = {**history[-5], "mean_fsc": 4.0 / 15.0}
    assert not poses_settled(tuple(history))


def test_settled_poses_stay_settled():
    unsettled = searched([1.0, 0.5, 0.2], [20.0, 18.0, 16.0])
    assert not poses_settled(unsettled)
    assert poses_settled(searched([1.0, 0.5, 0.2], [20.0, 18.0, 16.0], settled=1))


def test_without_global_searches_nothing_is_said_to_have_settled():
    assert not poses_settled(())
    assert not poses_settled(searched([], [], settled=5))


def test_everything_is_searched_again_and_again_and_less_often_when_few_images_jump():
    assert global_due(())
    assert global_due(searched([1.0, 0.5], [20.0, 20.0]))
    few = [1.0, 0.5, 0.09], [20.0] * 3
    assert not global_due(searched(*few))
    assert not global_due((*searched(*few), *searched([], [], settled=1)))
    assert global_due((*searched(*few), *searched([], [], settled=2)))
    # Registers and maps alone, at held poses, are no search.
    held = {"held_poses": 1.0, "searched_globally": 0.0, "pose_jumps": 0.0}
    assert not global_due((*searched(*few), *[held] * 5))
    # Many jump again: no time to follow them.
    assert global_due(searched([1.0, 0.5, 0.09, 0.2], [20.0] * 4))
