"""Two pieces of work in two threads: when they begin, and how they stop."""

import threading

import numpy as np
import pytest

from jaxrelax.engine import side_by_side as module
from jaxrelax.engine.side_by_side import both
from jaxrelax.imaging.chunks import on_cpu
from jaxrelax.judgement.subgroup_classes import Split
from jaxrelax.judgement.symmetry_test import scores
from jaxrelax.refinement import Local, Relax, prepare, strength
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.strength import cross_scores
from tests.refinement.conftest import TINY, DataSet

PATIENCE_S = 20.0


def test_the_second_begins_when_the_first_says_so():
    begun, said = threading.Event(), []

    def first(side):
        assert not begun.wait(0.1)
        side.go_on()
        assert begun.wait(PATIENCE_S)
        side.call(said.append, "first")

    def second(side):
        begun.set()
        side.call(said.append, "second")

    both(first, second)
    assert sorted(said) == ["first", "second"]


def test_the_second_begins_at_the_latest_when_the_first_has_ended():
    done = []
    both(lambda _: None, lambda _: done.append(threading.current_thread()))
    assert done != [threading.main_thread()]


def test_alone_they_run_one_after_the_other_in_this_thread():
    done = []
    for_each = [lambda _, i=i: done.append((i, threading.current_thread())) for i in range(2)]
    both(*for_each, alone=True)
    assert done == [(0, threading.main_thread()), (1, threading.main_thread())]


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_raises_the_other_stops(failing):
    begun, stopped = threading.Event(), []

    def fails(side):
        side.go_on()
        assert begun.wait(PATIENCE_S)
        raise OSError("a disk is gone")

    def works(side):
        side.go_on()
        begun.set()
        for _ in range(int(100 * PATIENCE_S)):
            if side.stopped:
                stopped.append(True)
                return
            threading.Event().wait(0.01)

    with pytest.raises(OSError, match="a disk is gone"):
        both(*((fails, works) if failing == 0 else (works, fails)))
    assert stopped == [True]


def test_the_second_does_not_begin_where_the_first_failed():
    begun = []

    def fails(_):
        raise OSError("a disk is gone")

    with pytest.raises(OSError, match="a disk is gone"):
        both(fails, lambda _: begun.append(True))
    assert begun == []


def test_half_sets_side_by_side_find_what_they_find_one_after_the_other(tmp_path, monkeypatch):
    data = DataSet(tmp_path, **TINY)
    setup = prepare(data.star, data.reference, mode=Local(), relax=Relax("C4"))
    shell = setup.problem.shells.accumulated(setup.state.score_shell, grow=False)
    monkeypatch.setattr(module, "_cores", lambda: 2)
    threads = set()

    def counted(images):
        threads.add(threading.current_thread())
        counted.images += images

    counted.images = 0
    together = expectation(setup.problem, setup.state, shell, on_batch=counted)
    assert counted.images == len(setup.problem.data.particles)
    assert len(threads) == 2
    monkeypatch.setattr(module, "SIDE_BY_SIDE_BYTES", 0)
    apart = expectation(setup.problem, setup.state, shell)
    for name in ("rotations", "origins_angstrom", "registers", "residual", "nats", "counted"):
        np.testing.assert_array_equal(getattr(together, name), getattr(apart, name), err_msg=name)
    for one, other in zip(together.sums, apart.sums, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.maps[0].values, b.maps[0].values)


def test_one_core_has_one_volume_at_a_time(tmp_path, monkeypatch):
    data = DataSet(tmp_path, **TINY)
    setup = prepare(data.star, data.reference, mode=Local(), relax=Relax("C4"))
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(module, "_cores", lambda cores=cores: cores)
        found.append(module.one_by_one(setup.problem.execution, setup.state.score_shell))
    assert found == [on_cpu(), False]


@pytest.mark.parametrize("images", [2000, 50])
def test_scores_under_the_other_half_set_do_not_depend_on_threads(tmp_path, monkeypatch, images):
    monkeypatch.setattr(strength, "MOST_IMAGES", images)
    monkeypatch.setattr(module, "_cores", lambda: 2)
    data = DataSet(tmp_path, **TINY)
    setup = prepare(
        data.star, data.folder / "truth_map.mrc", mode=Local(), relax=Relax("C4", start="reference")
    )  # fmt: skip
    problem, state = setup.problem, setup.state
    maps = 2 * state.maps.parts()[:1]
    shell = problem.shells.rung(state.score_shell)
    splits = [Split(m.symmetric, None, m.asymmetric) for m in maps]
    crossed, tested = [], []
    for most in (2**30, 0):
        monkeypatch.setattr(module, "SIDE_BY_SIDE_BYTES", most)
        crossed.append(cross_scores(problem, state, maps, 1.0, max_shell=shell))
        tested.append(
            scores(
                problem.execution, problem.particle, state.conditions(), splits, 4,
                seed=problem.plan.seed, max_shell=shell + 2,
            )
        )  # fmt: skip
    for one, other in zip(*crossed, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.ptp(crossed[0].registers, axis=1).max() > 0.1
    assert len(crossed[0].rows) == min(240, 2 * images)
    for together, apart in zip(*tested, strict=True):
        assert together.half == apart.half
        for name in ("rows", "own", "foreign", "best", "information"):
            np.testing.assert_array_equal(getattr(together, name), getattr(apart, name))
        assert np.count_nonzero(together.information) == len(together.rows)
