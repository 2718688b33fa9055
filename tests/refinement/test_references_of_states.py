"""States that start from maps of their own: what is refused, and what they find."""

import numpy as np
import pandas as pd
import pytest
import starfile

from jaxrelax.assessment.states import state_accuracy
from jaxrelax.geometry import point_group, pose_error_mod_group
from jaxrelax.io import InputError, read_map, read_particles, write_map
from jaxrelax.refinement import (
    Classification,
    Homogeneous,
    MaxIterations,
    Registers,
    prepare,
    refine,
    step,
)
from jaxrelax.refinement.stages import following
from jaxrelax.simulate import Simulation, simulate


def references_of(mixture):
    """True maps: of the pattern with one partner, and with none."""
    return [mixture[0] / f"truth_map_{number:02d}.mrc" for number in (2, 1)]


MODE = Classification(("C4:C1", "C4"), poses=Registers())


def refused(mixture, references, mode, match):
    with pytest.raises(InputError, match=match):
        prepare(mixture[0] / "particles.star", references, mode=mode)


def test_one_for_every_state(mixture):
    references = references_of(mixture)
    refused(mixture, [*references, references[0]], MODE, "3 references for 2 states")
    refused(mixture, references, None, "mode Local starts from one")
    random = Classification(("C4:C1", "C4"), start="random")
    refused(mixture, references, random, 'start="random" begins from one reference')
    given = Classification(("C4:C1", "C4"), start="references")
    refused(mixture, references[0], given, "needs a reference for every state, and got one")


def test_states_that_would_stay_alike(mixture):
    symmetric = references_of(mixture)[1]
    refused(mixture, [symmetric, symmetric], Classification(("C4", "C4")), "would stay alike")
    refused(mixture, [symmetric, symmetric], MODE, "class 1 is relaxed from C4, and this reference")


def test_a_reference_without_the_symmetry_of_its_state(mixture, tmp_path):
    one, none = references_of(mixture)
    values, pixel = read_map(none)
    write_map(tmp_path / "aside.mrc", np.roll(values, 6, axis=2), pixel)
    refused(mixture, [one, tmp_path / "aside.mrc"], MODE, "aside.mrc")


def test_a_map_on_another_scale_is_brought_to_that_of_the_images(mixture, tmp_path):
    one, none = references_of(mixture)
    values, pixel = read_map(none)
    write_map(tmp_path / "faint.mrc", 1e-3 * values, pixel)
    setup = prepare(mixture[0] / "particles.star", [one, tmp_path / "faint.mrc"], mode=MODE)
    usual = prepare(mixture[0] / "particles.star", [one, none], mode=MODE)
    found, expected = (np.std(one.state.maps.symmetric[1]) for one in (setup, usual))
    assert 0.6 < found / expected < 1.6
    assert not setup.following
    assert setup.identity["reference"] != usual.identity["reference"]


def test_states_and_registers_follow_their_references(mixture):
    (folder, true), references = mixture, references_of(mixture)
    result = refine(
        folder / "particles.star", references, mode=MODE, until=MaxIterations(5)
    )  # fmt: skip
    found = np.asarray(result.particles.extra_columns["rlnClassNumber"]) - 1
    assert np.array_equal(result.particles.class_number, found + 1)
    assert state_accuracy(found, true, n_states=2, matched=False).accuracy > 0.9
    assert result.either_half.sum() <= len(true)
    assert np.trace(result.either_half) > 0.85 * result.either_half.sum()


@pytest.mark.parametrize("poses", ["local", "global"])
def test_noise_of_the_mean_is_faded_where_it_decides_poses(mixture, poses):
    mode = Classification(MODE.states, poses=poses)
    setup = prepare(mixture[0] / "particles.star", references_of(mixture), mode=mode)
    assert setup.problem.plan.prior.unfaded == (poses == "local")


@pytest.mark.slow
def test_poses_and_states_from_nothing(mixture):
    (folder, true), references = mixture, references_of(mixture)
    mode = Classification(("C4:C1", "C4"), poses=Homogeneous(finest_order=2))
    particles = read_particles(folder / "particles.star")
    n = len(particles)
    particles = particles.with_updates(
        rotations=np.tile(np.eye(3), (n, 1, 1)), origins_angstrom=np.zeros((n, 2))
    )
    result = refine(particles, references, mode=mode, until=MaxIterations(8))
    found = np.asarray(result.particles.extra_columns["rlnClassNumber"]) - 1
    assert state_accuracy(found, true, n_states=2, matched=False).accuracy > 0.85
    truth = read_particles(folder / "truth.star")
    errors = pose_error_mod_group(result.poses, truth.rotations, point_group("C4"))
    assert np.rad2deg(np.median(errors)) < 6.0


@pytest.mark.slow
def test_one_reference_and_no_poses(mixture):
    """A consensus from nothing, relaxed, and then states at local poses."""
    mode = Classification(("C4:C1", "C4"), poses=Homogeneous(finest_order=2))
    folder, _ = mixture
    setup = prepare(folder / "particles.star", folder / "reference.mrc", mode=mode)
    assert not setup.problem.plan.mode.needs_poses
    assert len(setup.following) == 2
    for maps in (1, 2):
        setup = following(setup, step(setup.problem, setup.state)[0])
        assert len(setup.problem.of_maps) == maps
        assert setup.problem.plan.mode.needs_poses
    state, info = step(setup.problem, setup.state)
    assert (int(state.stage), len(info.fractions)) == (2, 2)


@pytest.mark.slow
def test_particles_of_groups_that_have_nothing_in_common(tmp_path):
    """A C4 and a C3 particle in one table without poses."""
    names, tables = ("C4", "C3"), []
    for number, (group, kda) in enumerate(zip(names, (40.0, 55.0), strict=True)):
        folder = tmp_path / group
        simulate(
            "phantom", folder,
            Simulation(
                n_images=120, box=36, pixel_size_angstrom=8.0, snr=0.3, max_shift_angstrom=6.0,
                group=group, protomer_kda=kda, partner_kda=30.0, occupancy="all", seed=number,
                phantom_seed=number,
            ),
        )  # fmt: skip
        read = starfile.read(folder / "truth.star")
        optics, table = read["optics"], read["particles"]
        image = table["rlnImageName"].str.split("@", expand=True)
        tables.append(table.assign(rlnImageName=image[0] + f"@{group}/" + image[1]))
    shared = tables[0].columns.intersection(tables[1].columns)
    order = np.random.default_rng(0).permutation(240)
    truth = pd.concat([table[shared] for table in tables]).iloc[order]
    starfile.write({"optics": optics, "particles": truth}, tmp_path / "truth.star")
    poses = [name for name in shared if name.startswith(("rlnAngle", "rlnOrigin", "rlnRandom"))]
    table = truth.drop(columns=poses)
    starfile.write({"optics": optics, "particles": table}, tmp_path / "particles.star")
    mode = Classification(names, poses=Homogeneous(coarsest_order=1, finest_order=2))
    references = [tmp_path / group / "truth_map.mrc" for group in names]
    result = refine(tmp_path / "particles.star", references, mode=mode, until=MaxIterations(8))
    found, true = result.particles.class_number, np.repeat([1, 2], 120)[order]
    assert np.mean(found == true) > 0.97
    known = read_particles(tmp_path / "truth.star")
    for number, group in enumerate(names, start=1):
        rows = np.flatnonzero((found == number) & (true == number))
        errors = pose_error_mod_group(
            result.particles.rotations[rows], known.rotations[rows], point_group(group)
        )
        assert np.rad2deg(np.median(errors)) < 4.0
