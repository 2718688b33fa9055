"""States: what is asked for, and the loop with several maps on images with known truth."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.assessment import save
from jaxrelax.assessment.states import state_accuracy
from jaxrelax.engine.streams import prepared_batches
from jaxrelax.io import InputError, OutputFolder, read_map, read_particles
from jaxrelax.refinement import (
    Callback,
    Classification,
    Local,
    MaxIterations,
    OccupancyPatterns,
    Registers,
    Relax,
    iterate,
    prepare,
    refine,
    step,
)
from jaxrelax.refinement.checkpoint import save_checkpoint
from jaxrelax.refinement.expectation import Expectation
from jaxrelax.refinement.held_out_states import StatesApart, StateSupport, alike, most_alike
from jaxrelax.refinement.loop import exchange_states, of_states
from jaxrelax.refinement.stages import following
from jaxrelax.refinement.strength import OCCAM_NATS


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"states": ("C4",)}, "at least two states"),
        ({"states": ("C4", "C4"), "start": "splits"}, "given once"),
        ({"states": ("C4", "C4"), "start": "given"}, "start is one of"),
        ({"states": ("C4", "C4"), "poses": "everywhere"}, "poses are"),
        ({"states": ("C4", "C4"), "max_resolution": -1.0}, "above 0"),
        ({"states": ("C4",), "start": "splits", "most": 1}, "at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        Classification(**fields)


@pytest.mark.parametrize(
    ("states", "relax", "match"),
    [
        (("C4:C3", "C4"), None, "state 'C4:C3'"),
        (("C4", "C3"), None, "no subgroup of C4"),
        (("X4", "C4"), None, "state 'X4'"),
        (("C4:", "C4"), None, "write GROUP"),
        (("C4", "C4"), Relax("C4"), "no state is relaxed"),
        (("C4:C1", "C4"), Relax("C3"), "relaxing C3"),
    ],
)
def test_groups_that_do_not_go_together_are_named(states, relax, match):
    with pytest.raises(InputError, match=match):
        Classification(states).consensus(relax)


def test_the_consensus_has_the_largest_group_and_keeps_the_least():
    relax, symmetry = Classification(("D4:C2", "C4", "D4")).consensus(Relax("D4", junk=False))
    assert (relax.group, relax.to, relax.junk, symmetry) == ("D4", "C2", False, "D4")
    assert Classification(("C4", "C4")).consensus(None) == (None, "C4")
    assert Classification(("C4:C1", "C4", "C4")).starts_from() == "occupancy"
    assert Classification(("C4:C1", "C4:C1")).starts_from() == "directions"


def test_maps_of_their_own_may_have_any_groups():
    """Nothing is relaxed: what stands for all of them together has no symmetry."""
    mode = Classification(("C4", "C3"), start="references")
    assert mode.consensus(None, references=True) == (None, "C1")
    with pytest.raises(InputError, match="Give a reference for every state"):
        mode.consensus(None)
    nested = Classification(("D4", "C4", "C1"))
    assert nested.consensus(None, references=True) == (None, "D4")
    with pytest.raises(InputError, match="no subgroup of C4"):
        Classification(("C4:C1", "C3")).consensus(None, references=True)


def test_registers_are_not_searched_twice():
    """Where poses are unknown and another state lacks the group that is relaxed."""
    states = ("C4:C2", "C1")
    with pytest.raises(InputError, match=r"'C4:C2' \(class 1\).*Write C2 for it"):
        Classification(states, poses="global").consensus(None, references=True)
    relax, symmetry = Classification(states).consensus(None, references=True)
    assert (relax.group, relax.to, symmetry) == ("C4", "C2", "C4")
    relax, _ = Classification(("C4:C1", "D4"), poses="global").consensus(None, references=True)
    assert relax.group == "D4"


def test_groups_of_states_may_be_in_files(tmp_path):
    """The consensus keeps the file, which says where its axes are."""
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turns = [np.linalg.matrix_power(quarter, k) for k in range(4)]

    def written(name, at):
        rows = [np.column_stack([g, np.array(at) - g @ np.array(at)]).ravel() for g in turns]
        (tmp_path / name).write_text("\n".join(" ".join(map(str, row)) for row in rows))
        return str(tmp_path / name)

    here, there = written("here.txt", (30.0, -12.0, 0.0)), written("there.txt", (30.0, 0.0, 0.0))
    relax, symmetry = Classification((f"{here}:C1", here)).consensus(None)
    assert (relax.group, relax.to, symmetry) == (here, "C1", here)
    assert Classification((f"{here}:C1", here)).consensus(Relax(here))[1] == here
    assert OccupancyPatterns(here).patterns.group.centre_angstrom == pytest.approx((30, -12, 0))
    with pytest.raises(InputError, match=r"axes pass 12\.0 Å beside those of .*here\.txt"):
        Classification((f"{here}:C1", there)).consensus(None)


class Kept(Callback):
    def __init__(self):
        self.ends = []

    def on_step(self, problem, state, info):
        self.ends.append((problem, state, info))


@pytest.fixture(scope="module")
def classified(mixture, tmp_path_factory):
    folder, out = mixture[0], tmp_path_factory.mktemp("out")
    kept = Kept()
    result = refine(
        folder / "particles.star", folder / "reference.mrc", callbacks=[kept],
        mode=Classification(("C4:C1", "C4")), until=MaxIterations(16), out=OutputFolder(out),
    )  # fmt: skip
    save(result, OutputFolder(out))
    return result, out, kept.ends


def test_states_and_registers_are_found(classified, mixture):
    result, true = classified[0], mixture[1]
    found = np.asarray(result.particles.extra_columns["rlnClassNumber"]) - 1
    right = state_accuracy(found, true, n_states=2, posterior=result.state_posterior, matched=False)
    assert right.accuracy > 0.9
    assert abs(result.states[0].fraction - 0.5) < 0.08
    assert result.state_posterior.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    assert abs(result.state_posterior.max(axis=1).mean() - right.accuracy) < 0.06


def test_every_state_has_its_files(classified):
    result, out, _ = classified
    for number, one in enumerate(result.states, start=1):
        for name in ("map", "half1", "half2", "mask"):
            assert (out / f"{name}_class{number:02d}.mrc").is_file()
        rows = read_particles(out / f"particles_class{number:02d}.star")
        assert len(rows) == one.count
        sigma, _ = read_map(out / f"difference_sigma_class{number:02d}.mrc")
        assert np.array_equal(sigma, one.in_sigma.sigma)
        local, _ = read_map(out / f"local_resolution_class{number:02d}.mrc")
        assert np.array_equal(local, one.local_resolution)
        # As fine as the whole map of the state, or coarser, at the higher threshold.
        inside = local[one.mask > 0.5]
        assert inside.min() > 0.8 * one.resolution_angstrom
        # The partner, which one state has and the other has not.
        assert {region.sign for region in one.in_sigma.regions[:1]} == {1 if number == 1 else -1}
    with np.load(out / "registers.npz") as arrays:
        assert arrays["posterior"].shape == (len(result.particles), 5)
        assert arrays["state"].tolist() == [1, 1, 1, 1, 2]
        assert len(arrays["operators"]) == 5
    header = (out / "history.csv").read_text().splitlines()[0]
    assert "fraction_class02" in header


@pytest.mark.slow
def test_a_run_that_was_killed_among_states_goes_on(classified, mixture, tmp_path):
    """From the checkpoint of an iteration of the second stage."""
    folder, ends = mixture[0], classified[2]
    state = next(state for problem, state, _ in ends if len(problem.of_maps) == 2)
    setup = prepare(
        folder / "particles.star", folder / "reference.mrc",
        mode=Classification(("C4:C1", "C4")), until=MaxIterations(16),
    )  # fmt: skip
    again = OutputFolder(tmp_path)
    save_checkpoint(again, state, setup.identity)
    resumed = refine(
        folder / "particles.star", folder / "reference.mrc", out=again, resume=True,
        mode=Classification(("C4:C1", "C4")), until=MaxIterations(16),
    )  # fmt: skip
    np.testing.assert_allclose(resumed.registers, classified[0].registers, atol=1e-4)


def test_the_origin_says_nothing_of_states(classified):
    weights = {}
    for problem, state, _ in (classified[2][0], classified[2][-1]):
        execution, shell = problem.execution, state.score_shell
        geometry = execution.geometry(0, problem.shells.rung(shell), problem.shells.rung(shell))
        rows = np.arange(4)
        batch = next(
            prepared_batches(execution, 0, rows, geometry, state.noise_power[0], shell, 32)
        )
        origin = ~np.any(geometry.slice_wavevectors, axis=1)
        assert origin.sum() == 1
        weights[len(problem.of_maps)] = float(np.asarray(batch.scored.weights)[origin][0])
        assert np.asarray(batch.images.weights)[origin] > 0  # it goes into the maps
    assert weights[1] > 0
    assert weights[2] == 0


def test_states_of_half_set_2_take_the_numbers_of_half_set_1(classified):
    problem, state, _ = classified[2][-1]
    assert most_alike(problem, state.maps.parts(), ((0,), (1,)), max_shell=8, score_shell=6) == (
        0,
        1,
    )
    found = object.__new__(Expectation)
    found.registers = np.array(state.beliefs.registers)
    found.sums = [list(folds) for folds in state.maps.sums.by_half()]
    before, sums = of_states(problem, found.registers), [list(folds) for folds in found.sums]
    second = problem.data.half_set == 2
    exchange_states(problem, found, [0, 1])
    np.testing.assert_array_equal(of_states(problem, found.registers), before)
    exchange_states(problem, found, [1, 0])
    # The table's first four places are then those of the other state, its register first.
    np.testing.assert_allclose(found.registers[second, 0], before[second, 1])
    np.testing.assert_array_equal(found.registers[~second], state.beliefs.registers[~second])
    for then, now in zip(sums[1], found.sums[1], strict=True):
        np.testing.assert_array_equal(now.maps[0].values, then.maps[1].values)
    assert found.sums[0] == sums[0]


def test_two_empty_states_may_be_the_most_alike(classified):
    problem, state, _ = classified[2][-1]
    maps = state.maps.parts()
    merged = alike(problem, maps, np.zeros(2), (0, 1), max_shell=8, score_shell=6)
    mean = 0.5 * (maps[0].symmetric + maps[1].symmetric)
    np.testing.assert_allclose(merged[1].symmetric, mean, atol=1e-6 * np.abs(mean).max())


def test_rounding_supports_nothing():
    assert StateSupport((1, 2), 0.1, 4.0, 40.0).supported
    assert not StateSupport((1, 2), 1e-5, 4.5, 0.002).supported
    assert not StateSupport((1, 2), 0.1, 2.0, 40.0).supported


@given(
    totals=st.lists(st.floats(-200.0, 200.0), min_size=1, max_size=2),
    seed=st.integers(0, 2**32 - 1),
)
def test_posteriors_are_averaged_over_which_states_are_one(totals, seed):
    rng, place_maps = np.random.default_rng(seed), np.array([0, 0, 0, 1, 2, 2])
    places = rng.dirichlet(np.full(6, 0.3), size=20)
    shares = rng.dirichlet(np.ones(3))
    partitions = (((0, 2), (1,)), ((0, 1, 2),))[: len(totals)]
    tests = tuple(StateSupport((1, 3), 0.0, 0.0, total) for total in totals)
    found = StatesApart(tests, partitions).averaged(places, place_maps, shares)
    # One model after the other: is each as probable as its odds say, and what follows from it?
    log = np.concatenate([[0.0], np.cumsum([OCCAM_NATS - 0.5 * total for total in totals])])
    weights = np.exp(log) / np.exp(log).sum()
    sums = np.stack([places[:, place_maps == k].sum(axis=1) for k in range(3)], axis=1)
    expected = weights[0] * sums
    together = sums[:, 0] + sums[:, 2]
    for k in (0, 2):
        expected[:, k] += weights[1] * together * shares[k] / (shares[0] + shares[2])
    expected[:, 1] += weights[1] * sums[:, 1]
    if len(totals) == 2:
        expected += weights[2] * shares
    np.testing.assert_allclose(found, (expected / sums)[:, place_maps] * places, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


def test_states_that_nothing_tells_apart_keep_a_posterior_in_sum():
    """Also where one of them has none of it."""
    apart = StatesApart((StateSupport((1, 2), -1.0, -9.0, -900.0),), (((0, 1),),))
    places = np.array([[0.0, 0.0, 1.0], [0.2, 0.6, 0.2]])
    found = apart.averaged(places, np.array([0, 0, 1]), np.array([0.4, 0.6]))
    np.testing.assert_allclose(found, [[0.2, 0.2, 0.6], [0.1, 0.3, 0.6]], rtol=1e-6)
    assert apart.groups == ((1, 2),)


@pytest.mark.slow
def test_two_alike_are_told_apart_only_if_held_out_images_say_so(mixture):
    """Forced into two states of one symmetry, a single kind of particle is called one."""
    folder, true = mixture
    particles = read_particles(folder / "particles.star").select(np.flatnonzero(true == 1))
    result = refine(
        particles, folder / "reference.mrc", mode=Classification(("C4", "C4"), poses="held"),
        until=MaxIterations(4),
    )  # fmt: skip
    assert result.support is not None
    assert not result.support.supported
    assert "do not support" in result.support.sentence()
    # Nobody knows which of them an image shows.
    assert result.state_posterior.max(axis=1).mean() < 0.75
    assert result.states_apart.groups == ((1, 2),)


@pytest.mark.slow
def test_what_differs_is_supported_from_a_random_start(mixture):
    folder, true = mixture
    both = refine(
        folder / "particles.star", folder / "reference.mrc",
        mode=Classification(("C4", "C4"), poses=Registers()), until=MaxIterations(20),
    )  # fmt: skip
    assert both.support.supported
    found = np.asarray(both.particles.extra_columns["rlnClassNumber"]) - 1
    assert state_accuracy(found, true, n_states=2).accuracy > 0.7


@pytest.mark.slow
def test_as_many_states_as_there_are(mixture):
    folder, true = mixture
    result = refine(
        folder / "particles.star", folder / "reference.mrc", until=MaxIterations(16),
        mode=Classification(("C4:C1",), start="splits", most=3, poses=Local()),
    )  # fmt: skip
    assert [one.registers for one in result.states] == [4, 1]
    found = np.asarray(result.particles.extra_columns["rlnClassNumber"]) - 1
    assert state_accuracy(found, true, n_states=2).accuracy > 0.9
    last = list(
        iterate(
            folder / "particles.star", folder / "reference.mrc", until=MaxIterations(2),
            mode=Classification(("C4", "C4")),
        )
    )[-1]  # fmt: skip
    assert len(last[1].fractions) == 2


def test_a_setup_has_its_stages(mixture):
    folder = mixture[0]
    setup = prepare(
        folder / "particles.star", folder / "reference.mrc", mode=Classification(("C4:C1", "C4"))
    )
    assert len(setup.following) == 1
    with pytest.raises(ValueError, match="no stage follows"):
        following(dataclasses.replace(setup, following=()), setup.state)
    state = step(setup.problem, setup.state)[0]
    states = following(setup, state)
    assert [one.n_registers for one in states.problem.of_maps] == [4, 1]
    assert int(states.state.stage) == 1
    assert len(states.state.history_before) == 1
