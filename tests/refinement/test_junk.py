"""Images that do not show the particle: counted, named, and kept out of the map."""

import jax
import numpy as np
import pytest

from jaxrelax.geometry import point_group, register_agreement
from jaxrelax.refinement import MaxIterations, Registers, Relax, prepare, refine, step

from .conftest import SMALL, TINY, DataSet

FRACTION = 0.3
# Another protein is as compact as the particle: it takes more than a few shells to tell.
DATA = {
    "noise": (TINY, 20.0),
    "object": (SMALL | dict(pose_error_deg=1.0, shift_error_angstrom=0.5), 12.0),
}


@pytest.fixture(scope="module", params=DATA)
def contaminated(request, tmp_path_factory):
    """A data set, which images are junk, and how to refine it."""
    options, ini_high = DATA[request.param]
    folder = tmp_path_factory.mktemp("junk")
    changes = dict(n_images=300, junk_fraction=FRACTION, junk_kind=request.param, seed=11)
    data = DataSet(folder, **(options | changes))
    junk = data.truth.column("jrxJunk").astype(int) == 1
    return data, junk, dict(mode=Registers(), ini_high=ini_high)


def test_junk_is_counted_and_named(contaminated):
    data, junk, options = contaminated
    result = refine(
        data.star, data.reference, relax=Relax("C4"), until=MaxIterations(8), subgroups="none",
        **options,
    )  # fmt: skip
    probability = result.particles.extra_columns["jrxJunkProbability"]
    assert result.history[-1]["junk_fraction"] == pytest.approx(FRACTION, abs=0.05)
    assert np.mean(probability) == pytest.approx(FRACTION, abs=0.05)
    assert np.mean(probability[junk]) > 0.9
    assert np.mean(probability[~junk]) < 0.05
    # Registers are found among the rest.
    found = register_agreement(
        result.particles.rotations[~junk], data.truth.rotations[~junk],
        point_group("C4"), point_group("C1"),
    )  # fmt: skip
    assert found.fraction > 0.8


@pytest.mark.slow
def test_junk_leaves_the_sums(contaminated):
    """An image counts in map and noise by the probability that it shows the particle."""
    data, _, options = contaminated
    weights = []
    for relax in (Relax("C4"), Relax("C4", junk=False)):
        setup = prepare(data.star, data.reference, relax=relax, **options)
        state = setup.state
        for _ in range(6):
            state, info = step(setup.problem, state)
        folds = jax.tree.leaves(state.maps.sums.values)
        weights.append(sum(fold[:, 2].sum(dtype=np.float64) for fold in folds))
        if not relax.junk:
            assert info.junk_fraction == 0.0
            np.testing.assert_array_equal(state.beliefs.junk, 0.0)
    assert weights[0] / weights[1] == pytest.approx(1.0 - FRACTION, abs=0.07)
