"""A refinement that starts from no poses: they are found, then refined."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.geometry import (
    point_group,
    pose_error_mod_group,
    project_to_so3,
    rotation_angle,
)
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.refinement import (
    Homogeneous,
    Local,
    Map,
    MaxIterations,
    Relax,
    ResolutionStalled,
    prepare,
    refine,
)
from tests.refinement.conftest import TINY, DataSet

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


def test_poses_are_found_from_a_low_passed_reference(found, small):
    error = errors(found, small.truth)
    # In the band that the half-maps support. The consensus is a measurement of its own.
    local = refine(
        small.star, small.reference, mode=Local(), symmetry="C4", ini_high=20.0, until=UNTIL
    )
    assert np.mean(error > 15.0) < 0.03
    assert np.median(error) < 1.5 * np.median(errors(local, small.truth))
    assert found.resolution_angstrom < 1.1 * local.resolution_angstrom


def test_the_search_is_global_first_and_local_at_the_end(found):
    globally = [row["searched_globally"] for row in found.history]
    assert globally[0] == 1.0
    assert globally[-1] == 0.0
    assert globally == sorted(globally, reverse=True)


def test_modes_that_start_from_poses_refuse_particles_without(small):
    particles = read_particles(small.star)
    lost = dataclasses.replace(particles, has_poses=False)
    with pytest.raises(InputError, match="Homogeneous finds poses itself"):
        prepare(lost, small.reference, mode=Local(), symmetry="C4")


def test_relaxation_asks_for_a_symmetric_refinement_first(small):
    with pytest.raises(InputError, match="refine with symmetry='C4' first"):
        prepare(
            without_poses(small), small.reference, mode=Homogeneous(),
            relax=Relax("C4"),
        )  # fmt: skip


def test_the_scale_of_the_reference_does_not_matter(small):
    values, pixel = read_map(small.reference)
    setups = [
        prepare(
            without_poses(small), Map(factor * values, pixel), mode=Homogeneous(),
            symmetry="C4", ini_high=30.0,
        )
        for factor in (1.0, 50.0)
    ]  # fmt: skip
    first, second = (np.abs(setup.state.symmetric).max() for setup in setups)
    assert 0.5 < second / first < 2.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"coarsest_order": 3, "finest_order": 2}, "the coarsest comes first"),
        ({"n_modes": 9}, "not more than there are"),
    ],
)
def test_settings_that_make_no_search_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Homogeneous(**wrong)
