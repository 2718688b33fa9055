"""So many more iterations after a criterion is satisfied."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.io import InputError
from jaxrelax.refinement import (
    Criterion,
    FinalPasses,
    MaxIterations,
    PosesSettled,
    RegistersSettled,
    prepare,
    replay,
)
from jaxrelax.refinement.lines import most_iterations

from .made_up import NOTHING, history_of, made_up_state

POSTERIORS = [0.25, 0.26, 0.5, 0.9, 0.95, 0.951, 0.952, 0.952, 0.6, 0.7, 0.8, 0.9]
HISTORY = tuple(
    dataclasses.replace(NOTHING, iteration=i, mean_max_posterior=p, settled=i >= 4)
    for i, p in enumerate(POSTERIORS, start=1)
)


def test_it_stops_so_many_later_whatever_happened_since():
    first = replay(HISTORY, RegistersSettled())
    later = replay(HISTORY, FinalPasses(RegistersSettled(), 3))
    assert first is not None
    assert later is not None
    assert later.iteration == first.iteration + 3
    assert later.reason == f"{first.reason}; and 3 more iterations"


def test_in_a_run_it_is_asked_of_the_same_state():
    until = FinalPasses(RegistersSettled(), 2)
    stops = [
        count
        for count in range(1, len(HISTORY) + 1)
        if until.reason(made_up_state(history_of(HISTORY[:count])))
    ]
    assert stops[0] == 9


def test_what_looks_at_more_than_the_history_sees_it_as_it_is():
    class Half(Criterion):
        def reason(self, state):
            return f"{float(state.maps.fsc[0]):g} at {int(state.iteration)}"

    state = made_up_state(history_of(HISTORY))
    assert FinalPasses(Half(), 4).reason(state) == "1 at 8; and 4 more iterations"


def test_a_limit_is_not_moved():
    until = FinalPasses(RegistersSettled(tolerance=1e-9) | MaxIterations(6), 5)
    stop = replay(HISTORY, until)
    assert stop is not None
    assert (stop.iteration, stop.reason) == (6, "6 iterations done")
    assert most_iterations(until) == 6


def test_it_is_an_argument_of_a_refinement(one_partner):
    setup = prepare(one_partner.star, one_partner.reference, relax="C4", final_passes=2)
    assert isinstance(setup.until, FinalPasses)
    assert setup.until.passes == 2
    with pytest.raises(InputError, match="final_passes is a whole number, 0 or above, not -1"):
        prepare(one_partner.star, one_partner.reference, relax="C4", final_passes=-1)


def test_poses_may_be_judged_by_most_of_them():
    history = tuple(
        dataclasses.replace(
            NOTHING, iteration=i, settled=True, rotation_change_deg=0.01,
            shift_change_angstrom=0.01, rotation_change_95_deg=2.0 if i < 4 else 0.05,
            shift_change_95_angstrom=0.05,
        )
        for i in range(1, 8)
    )  # fmt: skip
    by_half, by_most = (replay(history, PosesSettled(trimmed=t)) for t in (False, True))
    assert by_half is not None
    assert by_most is not None
    assert (by_half.iteration, by_most.iteration) == (2, 5)
    assert "95 % of the poses" in by_most.reason
    assert np.isfinite(by_most.info.rotation_change_95_deg)
