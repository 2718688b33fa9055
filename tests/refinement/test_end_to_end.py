"""The whole loop on images with known truth: registers, controls, resuming, compilations."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest

from jaxrelax.geometry import point_group, pose_error_mod_group, register_agreement
from jaxrelax.io import InputError, OutputFolder, read_particles
from jaxrelax.reconstruction import LocalGains, LocalPrior, unregularised_map
from jaxrelax.refinement import (
    Callback,
    Criterion,
    Local,
    MaxIterations,
    Registers,
    Relax,
    done,
    iterate,
    prepare,
    refine,
    step,
)
from jaxrelax.refinement.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from jaxrelax.refinement.course import HELD_NATS, Stage
from jaxrelax.refinement.maximisation import total
from jaxrelax.refinement.tree_files import filled, outlined

C4, C1 = point_group("C4"), point_group("C1")


def accuracy(result, truth):
    return register_agreement(result.particles.rotations, truth.rotations, C4, C1).fraction


@pytest.fixture(scope="module")
def relaxed(one_partner):
    return refine(one_partner.star, one_partner.reference, relax=Relax("C4"))


def test_registers_are_found_from_the_symmetric_map(relaxed, one_partner):
    assert accuracy(relaxed, one_partner.truth) > 0.95
    assert relaxed.evidence.found
    assert relaxed.evidence.p_value < 1e-6


def test_both_half_sets_end_in_one_frame(relaxed, one_partner):
    truth, poses = one_partner.truth, relaxed.particles
    per_half = [
        register_agreement(
            poses.rotations[poses.half_set == half], truth.rotations[poses.half_set == half], C4, C1
        )
        for half in (1, 2)
    ]
    assert per_half[0].index == per_half[1].index
    # One half-set judged by a map of the other's 120 images alone: 0.84 to 0.90 over seeds.
    assert relaxed.evidence.half_set_agreement > 0.75


def test_posterior_is_as_sure_as_it_is_right(relaxed, one_partner):
    sure = relaxed.registers.max(axis=1).mean()
    assert abs(sure - accuracy(relaxed, one_partner.truth)) < 0.05
    np.testing.assert_allclose(relaxed.registers.sum(axis=1), 1.0, atol=1e-5)


def test_poses_improve_on_the_consensus(relaxed, one_partner):
    before = pose_error_mod_group(
        read_particles(one_partner.star).rotations, one_partner.truth.rotations, C4
    )
    after = pose_error_mod_group(relaxed.particles.rotations, one_partner.truth.rotations, C4)
    assert np.median(after) < np.median(before)


def test_difference_map_is_the_partner(relaxed):
    assert relaxed.difference.std() > 0.1 * relaxed.map.std()
    np.testing.assert_allclose(relaxed.difference, relaxed.map - relaxed.map_symmetrised, atol=1e-6)
    first, *others = relaxed.in_sigma.regions
    assert relaxed.in_sigma.agrees
    assert first.sign == 1
    assert -1 in {one.sign for one in others if one.site == first.site}
    symmetric = relaxed.map_symmetrised
    quarter_turn = np.rot90(symmetric, axes=(1, 2))
    # About pixel N // 2 of an even box a quarter turn leaves the first row or column behind.
    np.testing.assert_allclose(
        np.roll(quarter_turn, 1, axis=1)[:, 1:, 1:], symmetric[:, 1:, 1:],
        atol=1e-4 * np.abs(symmetric).max(),
    )  # fmt: skip


def test_a_symmetric_particle_stays_symmetric(four_partners):
    result = refine(four_partners.star, four_partners.reference, relax=Relax("C4"))
    assert not result.evidence.found
    assert "No asymmetry" in result.evidence.sentence()
    assert result.in_sigma.regions == ()
    assert result.registers.max(axis=1).mean() < 0.27
    expected = result.evidence.expected_accuracy
    assert expected == pytest.approx(result.registers.max(axis=1).mean(), abs=1e-6)
    last = result.history[-1]
    assert last["settled"] == 1.0
    # What the maps say about registers is next to nothing.
    assert last["register_nats"] < 0.5 * HELD_NATS


@pytest.mark.slow
def test_resuming_gives_the_same_result(one_partner, tmp_path):
    options = dict(relax=Relax("C4"), mode=Registers(), until=MaxIterations(4))
    whole = refine(one_partner.star, one_partner.reference, **options)

    class Killed(Exception):
        pass

    class Kill(Callback):
        def on_step(self, problem, state, info):
            if info.iteration == 2:
                raise Killed

    folder = OutputFolder.create(tmp_path / "out")
    with pytest.raises(Killed):
        refine(one_partner.star, one_partner.reference, out=folder, callbacks=[Kill()], **options)
    resumed = refine(one_partner.star, one_partner.reference, out=folder, resume=True, **options)
    np.testing.assert_array_equal(resumed.registers, whole.registers)
    np.testing.assert_array_equal(resumed.map, whole.map)
    for name, column in whole.particles.extra_columns.items():
        np.testing.assert_array_equal(resumed.particles.extra_columns[name], column)
    timeless = [[row | {"seconds": 0.0} for row in r.history] for r in (whole, resumed)]
    assert timeless[0] == timeless[1]
    assert len(resumed.history) == 4


def test_a_checkpoint_holds_the_whole_state(one_partner, tmp_path):
    state, _ = stepped(one_partner, Relax("C4"), 2)
    assert [len(folds) for folds in state.maps.sums.values] == [5, 5]
    folder = OutputFolder.create(tmp_path / "out")
    save_checkpoint(folder, state, {"seed": 0})
    again = load_checkpoint(folder, {"seed": 0})
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for (path, value), stored in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(again), strict=True
    ):
        name = jax.tree_util.keystr(path)
        assert type(stored) is type(value) is np.ndarray, name
        np.testing.assert_array_equal(stored, value, err_msg=name)
        assert stored.dtype == value.dtype, name
    header = folder / "checkpoint" / "checkpoint.json"
    older = header.read_text().replace(f'"format": {FORMAT}', '"format": 1')
    assert older != header.read_text()
    header.write_text(older)
    with pytest.raises(InputError, match=rf"checkpoint format 1, this version reads {FORMAT}"):
        load_checkpoint(folder, {"seed": 0})


def test_resuming_with_other_settings_is_refused(one_partner, tmp_path):
    folder = OutputFolder.create(tmp_path / "out")
    options = dict(mode=Registers(), until=MaxIterations(1), out=folder)
    refine(one_partner.star, one_partner.reference, relax=Relax("C4"), **options)
    with pytest.raises(InputError, match=r"relax was .* and is now"):
        refine(
            one_partner.star, one_partner.reference, relax=Relax("C4", to="C2"), resume=True,
            **options,
        )  # fmt: skip


def test_compilations_are_bounded(one_partner):
    compiled = []

    def listener(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        setup = prepare(one_partner.star, one_partner.reference, relax=Relax("C4"))
        state = setup.state
        counts = []
        for _ in range(4):
            state, _ = step(setup.problem, state)
            counts.append(len(compiled))
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    # Within a band nothing compiles again after the first two iterations.
    assert counts[3] == counts[2]


def test_a_run_says_what_it_compiled(relaxed):
    assert relaxed.compiled_programs > 0
    assert 0.0 < relaxed.compile_seconds < relaxed.seconds


@pytest.mark.parametrize("n_pixels", [30, 300, 3000, 30_000])
def test_hardly_any_of_a_batch_is_padding(one_partner, n_pixels):
    problem = prepare(one_partner.star, one_partner.reference, relax=Relax("C4")).problem
    batch, chunk = problem.execution.batch_size(n_pixels), problem.execution.chunk_size(n_pixels)
    assert batch % chunk == 0
    largest = max(
        len(rows)
        for half in (1, 2)
        for fold in range(5)
        for _, rows in problem.data.batches(half, fold)
    )
    parts = -(-largest // batch)
    assert parts * batch - largest < 32 * parts


def stepped(data, relax, iterations):
    setup = prepare(data.star, data.reference, mode=Registers(), relax=relax)
    state = setup.state
    for _ in range(iterations):
        state, info = step(setup.problem, state)
    return state, info


@pytest.mark.slow
def test_hard_registers_give_an_image_to_one_register(one_partner):
    # The first accumulation is that of the random start in both.
    soft, hard = (stepped(one_partner, Relax("C4", register=r), 1)[0] for r in ("soft", "hard"))
    sums = (soft.maps.sums.values, hard.maps.sums.values)
    for one, other in zip(*map(jax.tree.leaves, sums), strict=True):
        np.testing.assert_array_equal(one, other)
    # A quarter of an image in each of four registers, or all of it in one. The sums say it: how
    # much of their asymmetric part scores images depends on gains and mask.
    asymmetric = []
    for register in ("soft", "hard"):
        setup = prepare(
            one_partner.star, one_partner.reference, mode=Registers(),
            relax=Relax("C4", register=register),
        )  # fmt: skip
        problem, state = setup.problem, setup.state
        for _ in range(2):
            state, _ = step(problem, state)
        particle = problem.particle
        map_ = unregularised_map(total(state.maps.sums.by_half()[0]).maps[0], particle)
        part = particle.split(map_ * particle.sphere(len(map_))).asymmetric
        asymmetric.append(np.mean(part**2))
    assert asymmetric[1] > 1.1 * asymmetric[0]


@pytest.mark.slow
def test_images_think_more_of_maps_that_contain_them(four_partners):
    """Of noise, that is, for there is nothing else; images without part in a map gain little."""
    (_, held_out), (_, own) = (
        stepped(four_partners, Relax("C4", cross_fit=folds), 3) for folds in (5, 1)
    )
    assert own.held_out_gain > 0.0
    assert held_out.held_out_gain < 0.5 * own.held_out_gain


@pytest.mark.slow
def test_while_seeking_the_strength_is_held(one_partner):
    state, info = stepped(one_partner, Relax("C4"), 3)
    assert state.maps.strength.held_nats == HELD_NATS
    assert info.register_nats == pytest.approx(HELD_NATS, rel=0.5)
    plain, plain_info = stepped(one_partner, Relax("C4", prior="plain"), 3)
    assert plain.maps.strength.held_nats is None
    assert plain_info.register_nats > 2.0 * HELD_NATS


@pytest.mark.parametrize("relaxed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_gains_that_vary_in_space(one_partner, relaxed):
    """Learned by the loop, and kept by a checkpoint as they are."""
    asked = {"symmetry": "C4", "map_prior": LocalPrior()}
    if relaxed:
        asked = {"relax": Relax("C4", prior="local", start="poses")}
    setup = prepare(one_partner.star, one_partner.reference, **asked)
    state = setup.state
    for _ in range(2):
        state, info = step(setup.problem, state)
    (learned,) = state.maps.sums.prior
    assert isinstance(learned, LocalGains)
    assert np.ptp(learned.ratio) > 0.1
    assert bool(learned.gain.any()) == relaxed
    assert (info.asymmetric_power > 0.0) == relaxed
    assert eqx.tree_equal(filled(*outlined(learned)), learned)


def test_a_step_reports_its_time(one_partner):
    state, info = stepped(one_partner, Relax("C4"), 2)
    assert [one.seconds > 0.0 for one in state.history] == [True, True]
    assert state.history[-1] == info


def test_poses_are_held_between_two_searches(one_partner):
    setup = prepare(one_partner.star, one_partner.reference, relax=Relax("C4", inner_iterations=1))
    state, rotations = setup.state, []
    for _ in range(4):
        state, _ = step(setup.problem, state)
        rotations.append(state.poses.rotations)
    held = [info.held_poses for info in state.history]
    # At most one in a row, and only while registers move.
    due = [info.register_change > 0.01 for info in state.history]
    assert held == [False] + [due[i] and not held[i] for i in range(3)]
    assert sum(held) > 0
    widths = [info.sigma_rotation_deg for info in state.history]
    for i in range(1, 4):
        moved = np.abs(rotations[i] - rotations[i - 1]).max()
        assert moved < 1e-6 if held[i] else moved > 1e-3
        if held[i]:  # the width of the prior is not learned from poses that did not move
            assert widths[i] == widths[i - 1]


@pytest.mark.slow
def test_images_are_scored_as_far_as_they_may_be(one_partner):
    setup = prepare(
        one_partner.star, one_partner.reference, symmetry="C4", ini_high=40.0,
        max_alignment_resolution=20.0,
    )  # fmt: skip
    state = setup.state
    for _ in range(3):
        state, info = step(setup.problem, state)
        assert info.score_resolution_angstrom >= 20.0
    assert state.score_shell == setup.problem.shells.at(20.0)


def test_keeping_a_subgroup_has_fewer_registers(one_partner):
    setup = prepare(one_partner.star, one_partner.reference, relax=Relax("C4", to="C2"))
    assert setup.problem.particle.n_registers == 2
    state, _ = step(setup.problem, setup.state)
    assert state.beliefs.registers.shape[1] == 2
    total = sum(state.maps.parts()[0])
    turned = np.roll(total[:, ::-1, ::-1], (1, 1), (1, 2))
    np.testing.assert_allclose(total, turned, atol=1e-5 * np.abs(total).max())


def test_without_relaxation_the_map_keeps_its_symmetry(one_partner):
    result = refine(one_partner.star, one_partner.reference, symmetry="C4", until=MaxIterations(1))
    assert result.evidence is None
    assert np.abs(result.difference).max() < 1e-4 * np.abs(result.map).max()


def test_optics_groups_have_their_own_noise(two_groups):
    setup = prepare(two_groups.star, two_groups.reference, relax=Relax("C4"), mode=Registers())
    state, _ = step(setup.problem, setup.state)
    assert state.noise_power.shape[0] == 2
    band = slice(2, state.score_shell)
    assert not np.allclose(state.noise_power[0, band], state.noise_power[1, band], rtol=0.02)


def test_iterate_yields_state_and_info(one_partner):
    seen = [
        (state.iteration, info.iteration)
        for state, info in iterate(
            one_partner.star, one_partner.reference, relax="C4", mode=Registers(),
            until=MaxIterations(2),
        )
    ]  # fmt: skip
    assert seen == [(1, 1), (2, 2)]


def test_no_criterion_stops_while_asymmetry_is_sought(one_partner):
    setup = prepare(one_partner.star, one_partner.reference, relax="C4")
    always = dataclasses.replace(setup, until=_Always())
    assert done(always, setup.state) is None
    settles = np.asarray(int(Stage.SETTLE))
    settled = eqx.tree_at(lambda state: state.course.stage, setup.state, settles)
    assert done(always, settled) == "because"


class _Always(Criterion):
    def reason(self, state):
        return "because"


def test_prior_width_of_zero_is_refused():
    with pytest.raises(ValueError, match="Registers"):
        Local(sigma_rotation_deg=0.0)
