"""Where states start: directions in which images differ, and clusters along them."""

import itertools

import numpy as np
import pytest

from jaxrelax.io import read_particles
from jaxrelax.refinement import Classification, MaxIterations, Registers, prepare, step
from jaxrelax.refinement.loop import of_states
from jaxrelax.refinement.stages import following
from jaxrelax.refinement.start import starting_weights
from jaxrelax.refinement.state_directions import _weights, clusters
from jaxrelax.simulate import Simulation, simulate


@pytest.mark.parametrize("count", [2, 3, 6])
def test_weights_follow_coordinates(count):
    rng = np.random.default_rng(count)
    # Short enough that no weight would be below 0.
    unit = rng.uniform(-0.5, 0.5, (50, count - 1))
    weights = _weights(unit)
    assert weights.sum(axis=1) == pytest.approx(1.0)
    assert _weights(np.zeros_like(unit)) == pytest.approx(1.0 / count)
    # A linear map of all coordinates, none of which is lost or counts more than another.
    centred = weights - 1.0 / count
    across = centred.T @ unit @ np.linalg.inv(unit.T @ unit)
    np.testing.assert_allclose(unit @ across.T, centred, atol=1e-6)
    lengths = np.linalg.svd(across, compute_uv=False)
    assert lengths == pytest.approx(lengths[0])


@pytest.fixture(scope="module")
def two_sites(tmp_path_factory):
    """Sites that are occupied independently of each other: four states, and two directions."""
    folder = tmp_path_factory.mktemp("sites")
    simulate(
        "phantom", folder / "set",
        Simulation(
            n_images=400, box=32, pixel_size_angstrom=9.0, group="C2", snr=0.3, occupancy="0.5",
            protomer_kda=60.0, partner_kda=60.0, seed=3, pose_error_deg=0.0,
            shift_error_angstrom=0.0, max_shift_angstrom=0.0,
        ),
    )  # fmt: skip
    return folder / "set"


def test_images_begin_near_their_states(two_sites):
    """In each half-set, under names of its own; and what follows does not lose them."""
    sites = np.asarray(read_particles(two_sites / "truth.star").column("jrxOccupiedSites"))
    true = np.unique(sites, return_inverse=True)[1]
    mode = Classification(("C1",) * 4, poses=Registers(), start="directions")
    setup = prepare(
        two_sites / "truth.star", two_sites / "reference.mrc", mode=mode, until=MaxIterations(2)
    )
    ended = step(setup.problem, setup.state)[0]
    trial = following(setup, ended)
    problem, state = trial.problem, trial.state

    def right(places, half):
        rows = problem.data.half_set == half
        found = of_states(problem, places).argmax(axis=1)[rows]
        return max(
            np.mean(np.array(names)[found] == true[rows])
            for names in itertools.permutations(range(4))
        )

    weights = starting_weights(problem, state)
    assert weights is not None
    assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    for half in (1, 2):
        assert right(weights, half) > 0.85
    for _ in range(3):
        state = step(problem, state)[0]
    for half in (1, 2):
        assert right(state.beliefs.registers, half) > 0.8
    # Both half-sets give one state one number.
    found = of_states(problem, state.beliefs.registers).argmax(axis=1)
    assert (
        max(np.mean(np.array(names)[found] == true) for names in itertools.permutations(range(4)))
        > 0.8
    )


class Made:
    """What clusters look at of a problem."""

    class data:
        half_set = np.repeat([1, 2], 60)

    class execution:
        class workers:
            agreed = staticmethod(lambda values: values)

    of_maps = (None,) * 3


def test_clusters_without_coordinates_are_random():
    """Junk has none, and a half-set may have none at all; three states begin all the same."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    true = np.tile([0, 1, 2], 40)
    coordinates = centres[true] + 0.1 * rng.standard_normal((120, 2))
    coordinates[:12] = np.nan
    labels = clusters(Made, coordinates, 0)
    first = slice(12, 60)
    for k in range(3):  # one label for each
        assert len(set(labels[first][true[first] == k])) == 1
    assert len(set(labels[first])) == 3
    assert len(set(labels[:12])) > 1
    np.testing.assert_array_equal(labels, clusters(Made, coordinates, 0))
    coordinates[60:] = 0.0
    assert set(clusters(Made, coordinates, 0)[60:]) == {0, 1, 2}
    coordinates[60:] = np.nan
    assert set(clusters(Made, coordinates, 0)[60:]) == {0, 1, 2}
