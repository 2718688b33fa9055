"""A refinement that starts from no poses: they are found, then refined."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.geometry import point_group, pose_error_mod_group
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

C4 = point_group("C4")
UNTIL = ResolutionStalled() | MaxIterations(14)


def without_poses(data):
    particles = read_particles(data.star)
    n = len(particles)
    return particles.with_updates(
        rotations=np.tile(np.eye(3), (n, 1, 1)), origins_angstrom=np.zeros((n, 2))
    )


@pytest.fixture(scope="module")
def found(four_partners):
    return refine(
        without_poses(four_partners), four_partners.reference, mode=Homogeneous(), symmetry="C4",
        ini_high=30.0, until=UNTIL,
    )  # fmt: skip


def errors(result, truth):
    return np.rad2deg(pose_error_mod_group(result.particles.rotations, truth.rotations, C4))


def test_poses_are_found_from_a_low_passed_reference(found, four_partners):
    error = errors(found, four_partners.truth)
    local = refine(
        four_partners.star, four_partners.reference, mode=Local(), symmetry="C4", until=UNTIL
    )
    assert np.mean(error > 15.0) < 0.1
    assert np.median(error) < 1.15 * np.median(errors(local, four_partners.truth))
    assert found.resolution_angstrom < 1.1 * local.resolution_angstrom


def test_the_search_is_global_first_and_local_at_the_end(found):
    globally = [row["searched_globally"] for row in found.history]
    assert globally[0] == 1.0
    assert globally[-1] == 0.0
    assert globally == sorted(globally, reverse=True)


def test_modes_that_start_from_poses_refuse_particles_without(four_partners):
    particles = read_particles(four_partners.star)
    lost = dataclasses.replace(particles, has_poses=False)
    with pytest.raises(InputError, match="Homogeneous finds poses itself"):
        prepare(lost, four_partners.reference, mode=Local(), symmetry="C4")


def test_relaxation_asks_for_a_symmetric_refinement_first(four_partners):
    with pytest.raises(InputError, match="refine with symmetry='C4' first"):
        prepare(
            without_poses(four_partners), four_partners.reference, mode=Homogeneous(),
            relax=Relax("C4"),
        )  # fmt: skip


def test_the_scale_of_the_reference_does_not_matter(four_partners):
    values, pixel = read_map(four_partners.reference)
    setups = [
        prepare(
            without_poses(four_partners), Map(factor * values, pixel), mode=Homogeneous(),
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
