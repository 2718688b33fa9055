"""Courses on made-up iterations: stages, optimism, orders, bands."""

import dataclasses

import equinox as eqx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.imaging import Shells
from jaxrelax.reconstruction import Belief
from jaxrelax.refinement import Band, Orders, SeekAmplifySettle, Seen, Straight, followed
from jaxrelax.refinement.course import (
    CLEAR_SIGNAL,
    FEWEST_CLEAR,
    FEWEST_SEEKING,
    HELD_NATS,
    STRONG_SIGNAL,
    WIDENED,
    Stage,
    next_stage,
    standstill,
    withdrawn,
)
from tests.refinement.made_up import NOTHING


def seen(curve=0.0, signal=0.0, fsc=None, accumulated=9):
    """What a course sees of an iteration."""
    info = dataclasses.replace(NOTHING, asymmetric_fsc=curve, asymmetric_signal=signal)
    fsc = agreeing(7) if fsc is None else fsc
    return Seen(info, fsc[: accumulated + 1], accumulated, SHELLS)


def at_stage(course, stage):
    """State of a course in a stage that has just begun."""
    return eqx.tree_at(lambda s: s.stage, course.init(7), np.asarray(int(stage)))


def followed_stages(curve, signal=0.0):
    """Stages that a course comes to, iteration by iteration."""
    course = SeekAmplifySettle()
    state, stages = course.init(7), []
    for value in curve:
        state = course.next(state, seen(value, signal))
        stages.append(Stage(course.phase(state)))
    return stages


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
    held = [0.0] * FEWEST_SEEKING
    assert next_stage(Stage.SEEK, held[:-1], clear=False) == Stage.SEEK
    assert next_stage(Stage.SEEK, held, clear=False) == Stage.WIDEN
    assert next_stage(Stage.WIDEN, held[:-1], clear=False) == Stage.WIDEN
    assert next_stage(Stage.WIDEN, held, clear=False) == Stage.SETTLE


def test_only_iterations_of_the_wider_band_count():
    stages = followed_stages([0.0] * (2 * FEWEST_SEEKING))
    assert stages == [Stage.SEEK] * (FEWEST_SEEKING - 1) + [Stage.WIDEN] * FEWEST_SEEKING + [
        Stage.SETTLE
    ]


@pytest.mark.parametrize("stage", [Stage.SEEK, Stage.WIDEN])
def test_what_was_found_is_amplified_before_it_settles(stage):
    assert next_stage(stage, [0.3] * FEWEST_SEEKING, clear=True) == Stage.AMPLIFY
    amplified = [0.4] * FEWEST_CLEAR
    assert next_stage(Stage.AMPLIFY, amplified[:-1], clear=True) == Stage.AMPLIFY
    assert next_stage(Stage.AMPLIFY, amplified, clear=True) == Stage.SETTLE
    # It settles, too, if it comes to nothing.
    assert next_stage(Stage.AMPLIFY, [0.0] * FEWEST_SEEKING, clear=False) == Stage.SETTLE


def test_a_clear_signal_is_amplified_at_once():
    def after(curve, signal):
        return followed_stages(curve, signal)[-1]

    assert after([0.3] * FEWEST_CLEAR, CLEAR_SIGNAL + 1.0) == Stage.AMPLIFY
    assert after([0.3] * FEWEST_CLEAR, CLEAR_SIGNAL - 1.0) == Stage.SEEK
    rising = [0.1 * i for i in range(FEWEST_CLEAR)]
    assert after(rising, CLEAR_SIGNAL + 1.0) == Stage.SEEK


def test_what_was_amplified_is_counted_anew():
    stages = followed_stages([0.3] * (2 * FEWEST_CLEAR), CLEAR_SIGNAL + 1.0)
    assert stages == [Stage.SEEK] * (FEWEST_CLEAR - 1) + [Stage.AMPLIFY] * FEWEST_CLEAR + [
        Stage.SETTLE
    ]


@pytest.mark.parametrize("clear", [False, True])
def test_nothing_is_sought_again_once_settled(clear):
    assert next_stage(Stage.SETTLE, [0.1 * i for i in range(8)], clear) == Stage.SETTLE
    assert next_stage(Stage.SETTLE, [0.3] * FEWEST_SEEKING, clear) == Stage.SETTLE


def test_optimism_is_withdrawn_while_the_signal_is_strong():
    strong = STRONG_SIGNAL + 1.0
    course = SeekAmplifySettle(6.0)
    for stage in (Stage.SEEK, Stage.WIDEN, Stage.AMPLIFY):
        after = course.next(at_stage(course, stage), seen(signal=strong))
        assert after.stage == stage
        assert course.orders(after).belief.optimism == 6.0
    values = [6.0]
    for _ in range(10):
        values.append(withdrawn(6.0, values[-1], strong))
    assert values[1] < 6.0
    assert sorted(values, reverse=True) == values
    assert values[-1] == 0.0


def test_half_the_optimism_stays_where_the_signal_is_weak():
    weak = STRONG_SIGNAL - 1.0
    values = [6.0]
    for _ in range(5):
        values.append(withdrawn(6.0, values[-1], weak))
    assert values[1] < 6.0
    assert values[-1] == 3.0
    # Back as soon as the signal is weak again, wherever it was.
    assert withdrawn(6.0, 0.0, weak) == 3.0


@pytest.mark.parametrize("course", [SeekAmplifySettle(6.0), Straight(6.0)])
def test_optimism_is_withdrawn_by_the_course(course):
    """From what it last was, in every iteration that settles."""
    state = at_stage(course, Stage.SETTLE) if isinstance(course, SeekAmplifySettle) else None
    state = course.init(7) if state is None else state
    wanted = 6.0
    for signal in (STRONG_SIGNAL + 1.0, STRONG_SIGNAL + 1.0, STRONG_SIGNAL - 1.0):
        state = course.next(state, seen(signal=signal))
        wanted = withdrawn(6.0, wanted, signal)
        assert course.orders(state).belief.optimism == pytest.approx(wanted)


@pytest.mark.parametrize("stage", list(Stage))
def test_what_is_ordered_in_every_stage(stage):
    course = SeekAmplifySettle()
    state = at_stage(course, stage)
    orders = course.orders(state)
    seeking, settles = stage in (Stage.SEEK, Stage.WIDEN), stage == Stage.SETTLE
    assert orders.held_nats == (HELD_NATS if seeking else None)
    assert orders.seeks == seeking
    assert orders.calibrates == orders.stands == course.may_stop(state) == settles
    assert orders.belief.full == (stage == Stage.AMPLIFY)
    assert orders.belief.by_component == settles
    assert orders.belief.faint == (not settles)
    assert course.phases[course.phase(state)] == stage.name.lower()


def test_a_straight_course_does_all_from_the_beginning():
    course = Straight(2.0)
    state = course.init(7)
    assert course.may_stop(state)
    assert course.orders(state) == Orders(Belief(2.0), None, True, False, True)
    assert course.phases[course.phase(state)] == ""
    assert bool(state.band.growing)
    assert not bool(SeekAmplifySettle().init(7).band.growing)


SHELLS = Shells(box=96, pixel_size_angstrom=2.0, last=47)


def agreeing(reach, last=47):
    """An FSC of 1 up to a shell, and 0 beyond it."""
    return np.where(np.arange(last + 1) <= reach, 1.0, 0.0)


@given(
    first=st.integers(3, 20), now=st.integers(3, 40), reach=st.integers(1, 47),
    growing=st.booleans(), widest=st.sampled_from([None, WIDENED]),
    finest=st.sampled_from([None, 6.0]),
)  # fmt: skip
def test_the_band_follows_the_half_maps(first, now, reach, growing, widest, finest):
    shells = Shells(box=96, pixel_size_angstrom=2.0, last=47, finest_scored_angstrom=finest)
    first, now = min(first, shells.last_scored), min(max(first, now), shells.last_scored)
    accumulated = shells.accumulated(now, growing)
    band = Band(np.asarray(now), np.asarray(growing), np.asarray(first))
    curve = agreeing(reach)[: accumulated + 1]
    found = followed(band, Seen(NOTHING, curve, accumulated, shells), widest)
    seen_reach = min(reach, accumulated)
    most = shells.last_scored if widest is None else int(widest * first)
    whole = min(max(accumulated - 2, first), shells.last_scored)
    assert found.first == first
    # Never beyond what agrees, what was accumulated or what may be scored; never below the first
    # band, as far as it was seen.
    assert found.score_shell == max(min(seen_reach, most, whole), min(first, whole))
    assert bool(found.growing) == (min(seen_reach, most) >= whole < shells.last_scored)


def test_the_band_is_held_while_asymmetry_is_sought():
    course = SeekAmplifySettle()
    after = course.next(course.init(7), seen(fsc=agreeing(40), accumulated=12))
    assert after.band.score_shell == 7
    assert not bool(after.band.growing)
    straight = Straight()
    assert (
        straight.next(straight.init(7), seen(fsc=agreeing(40), accumulated=12)).band.score_shell
        == 10
    )


def test_the_band_is_widened_by_a_factor_only():
    course = SeekAmplifySettle()
    for stage in (Stage.WIDEN, Stage.AMPLIFY):
        state = at_stage(course, stage)
        for _ in range(4):
            state = course.next(state, seen(fsc=agreeing(40), accumulated=44))
            assert state.stage == stage
        assert state.band.score_shell == int(WIDENED * 7)
