"""A refinement that starts from no poses: they are found, then refined."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.geometry import (
    point_group,
    pose_error_mod_group,
    project_to_so3,
    register_agreement,
    rotation_angle,
)
from jaxrelax.io import InputError, OutputFolder, read_map, read_particles
from jaxrelax.refinement import (
    Homogeneous,
    Local,
    Map,
    MaxIterations,
    Relax,
    ResolutionStalled,
    pose_schedule,
    prepare,
    refine,
    step,
)
from jaxrelax.refinement.stages import done, following
from tests.refinement.conftest import TINY, DataSet
from tests.refinement.made_up import NOTHING, history_of

C4 = point_group("C4")
UNTIL = ResolutionStalled() | MaxIterations(12)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A symmetric particle whose consensus poses are off, in a box of 32 px."""
    changes = TINY | {"pose_error_deg": 4.0, "shift_error_angstrom": 1.0, "snr": 0.3}
    return DataSet(tmp_path_factory.mktemp("small"), occupancy="all", **changes)


def without_poses(data):
    particles = read_particles(data.star)
    n = len(particles)
    return particles.with_updates(
        rotations=np.tile(np.eye(3), (n, 1, 1)), origins_angstrom=np.zeros((n, 2))
    )


@pytest.fixture(scope="module")
def found(small):
    return refine(
        without_poses(small), small.reference, mode=Homogeneous(), symmetry="C4",
        ini_high=30.0, until=UNTIL,
    )  # fmt: skip


def errors(result, truth):
    """Degrees, modulo the group, after the turn that relates the frames.

    Nothing but the reference holds a map from turning about its axis.
    """
    estimated, true = result.particles.rotations, truth.rotations
    turns = np.stack([estimated.mT @ true @ g for g in C4.operators])
    nearest = np.trace(turns, axis1=-2, axis2=-1).argmax(axis=0)
    frame = project_to_so3(turns[nearest, np.arange(len(true))].mean(axis=0))
    assert np.rad2deg(rotation_angle(frame)) < 5.0
    return np.rad2deg(pose_error_mod_group(estimated @ frame, true, C4))


@pytest.mark.slow
def test_poses_are_found_from_a_low_passed_reference(found, small):
    error = errors(found, small.truth)
    # In the band that the half-maps support. The consensus is a measurement of its own.
    local = refine(
        small.star, small.reference, mode=Local(), symmetry="C4", ini_high=20.0, until=UNTIL
    )
    assert np.mean(error > 15.0) < 0.03
    assert np.median(error) < 1.5 * np.median(errors(local, small.truth))
    assert found.resolution_angstrom < 1.1 * local.resolution_angstrom


@pytest.mark.slow
def test_the_prior_of_origins_is_learned_from_where_particles_were(small):
    setup = prepare(
        without_poses(small), small.reference, mode=Homogeneous(), symmetry="C4", ini_high=20.0
    )
    state = setup.state
    for _ in range(3):
        state, info = step(setup.problem, state)
    found = np.sqrt(np.mean(state.poses.origins_angstrom**2))
    true = np.sqrt(np.mean(small.truth.origins_angstrom**2))
    assert state.poses.sigma_offset_angstrom == info.sigma_shift_angstrom
    assert state.poses.sigma_offset_angstrom == pytest.approx(found, rel=0.1)
    assert state.poses.sigma_offset_angstrom == pytest.approx(true, rel=0.15)
    # The width of the local search's prior is another thing.
    assert state.poses.sigma_shift_angstrom == Homogeneous().local.sigma_shift_angstrom


@pytest.mark.parametrize("followed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_resuming_a_global_search_gives_the_same_result(small, tmp_path, monkeypatch, followed):
    if followed:
        monkeypatch.setattr(pose_schedule, "SOME_JUMPS", 1.0)
    particles = without_poses(small).select(np.arange(80))
    options = dict(mode=Homogeneous(coarsest_order=1), symmetry="C4", ini_high=30.0)
    until = MaxIterations(2)
    whole = refine(particles, small.reference, until=until, **options)
    folder = OutputFolder.create(tmp_path / "out")
    refine(particles, small.reference, until=MaxIterations(1), out=folder, **options)
    resumed = refine(particles, small.reference, until=until, out=folder, resume=True, **options)
    searched = [row["searched_globally"] for row in resumed.history]
    assert searched == [1.0, 0.0 if followed else 1.0]
    np.testing.assert_array_equal(resumed.poses, whole.poses)
    np.testing.assert_array_equal(
        resumed.particles.origins_angstrom, whole.particles.origins_angstrom
    )
    np.testing.assert_array_equal(resumed.map, whole.map)


@pytest.mark.slow
def test_orientations_are_searched_first_and_followed_at_the_end(found):
    globally = [row["searched_globally"] for row in found.history]
    settled = [row["poses_settled"] for row in found.history]
    assert globally[:2] == [1.0, 1.0]
    assert settled[0] == 0.0
    assert settled[-1] == 1.0
    assert settled == sorted(settled)
    # What has settled is not looked for any more.
    assert all(not (g and s) for g, s in zip(globally, settled, strict=True))


def test_modes_that_start_from_poses_refuse_particles_without(small):
    particles = read_particles(small.star)
    lost = dataclasses.replace(particles, has_poses=False)
    with pytest.raises(InputError, match="Homogeneous finds poses itself"):
        prepare(lost, small.reference, mode=Local(), symmetry="C4")


@pytest.fixture(scope="module")
def asymmetric(tmp_path_factory):
    """One partner on a ring of four, poses off."""
    changes = TINY | {"pose_error_deg": 4.0, "shift_error_angstrom": 1.0, "snr": 0.3}
    return DataSet(tmp_path_factory.mktemp("asymmetric"), **changes)


@pytest.mark.parametrize("relax_from", ["local", pytest.param("start", marks=pytest.mark.slow)])
def test_registers_are_found_from_no_poses(asymmetric, relax_from):
    result = refine(
        without_poses(asymmetric), asymmetric.reference, mode=Homogeneous(relax_from=relax_from),
        relax=Relax("C4", junk=False), ini_high=25.0, until=UNTIL, subgroups="none",
    )  # fmt: skip
    found = register_agreement(
        result.particles.rotations, asymmetric.truth.rotations, C4, point_group("C1")
    )
    assert found.fraction > 0.9
    assert result.evidence.found
    error = errors(result, asymmetric.truth)
    assert np.mean(error > 15.0) < 0.03
    assert np.median(error) < 4.0
    stages = [(row["relaxed"], row["searched_globally"]) for row in result.history]
    if relax_from == "start":
        assert all(relaxed for relaxed, _ in stages)
    else:
        # The symmetry is imposed while poses are searched, and relaxed afterwards.
        assert stages[0] == (0.0, 1.0)
        assert stages[-1] == (1.0, 0.0)
        relaxing = [relaxed for relaxed, _ in stages]
        assert relaxing == sorted(relaxing)
        assert not any(relaxed and globally for relaxed, globally in stages)
    assert [row["iteration"] for row in result.history] == list(range(1, len(stages) + 1))


@pytest.mark.parametrize(
    ("start", "relax_from", "said"),
    [("poses", "start", "finds poses anew"), ("reference", "local", "relax from the start")],
)
def test_relaxation_cannot_start_from_what_there_is_not(asymmetric, start, relax_from, said):
    with pytest.raises(InputError, match=said):
        prepare(
            without_poses(asymmetric), asymmetric.reference, relax=Relax("C4", start=start),
            mode=Homogeneous(relax_from=relax_from),
        )  # fmt: skip


def test_a_symmetric_stage_can_go_on_to_its_end(asymmetric):
    """With ``relax_from="end"`` poses are followed for a while before the relaxed iterations."""
    setup = prepare(
        without_poses(asymmetric), asymmetric.reference, mode=Homogeneous(relax_from="end"),
        relax=Relax("C4"), until=MaxIterations(3),
    )  # fmt: skip
    assert setup.problem.particle.n_registers == 1
    searched = dataclasses.replace(NOTHING, mean_fsc=0.2, searched_globally=True)
    followed = dataclasses.replace(NOTHING, mean_fsc=0.2, settled=True, poses_settled=True)
    history = history_of([searched] * 3 + [followed] * 2)
    state = setup.state.replace(iteration=np.asarray(2), history=history)
    assert done(setup, state) is None
    assert done(setup, state.replace(iteration=np.asarray(3))) == "3 iterations done"
    follows = following(setup, state)
    assert follows.problem.particle.n_registers == 4
    assert follows.following == ()
    assert follows.state.iterations_done == len(history)


def test_the_scale_of_the_reference_does_not_matter(small):
    values, pixel = read_map(small.reference)
    setups = [
        prepare(
            without_poses(small), Map(factor * values, pixel), mode=Homogeneous(),
            symmetry="C4", ini_high=30.0,
        )
        for factor in (1.0, 50.0)
    ]  # fmt: skip
    first, second = (np.abs(setup.state.maps.symmetric).max() for setup in setups)
    assert 0.5 < second / first < 2.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"coarsest_order": 3, "finest_order": 2}, "the coarsest comes first"),
        ({"n_modes": 9}, "not more than there are"),
        ({"relax_from": "middle"}, "relax_from is"),
        ({"tilt_range_deg": (80.0, 85.0)}, "must hold a step of the grid"),
    ],
)
def test_settings_that_make_no_search_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Homogeneous(**wrong)
