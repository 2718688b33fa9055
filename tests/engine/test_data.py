"""The table of a refinement: who is scored with whom, and who reads what."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxrelax.engine import Data
from jaxrelax.io import every_row, read_particles
from tests.refinement.conftest import TINY, DataSet

N = 120


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    """Two optics groups."""
    changes = TINY | {"n_images": N, "n_optics_groups": 2}
    return read_particles(DataSet(tmp_path_factory.mktemp("table"), **changes).star)


def table(particles, folds=3, cross_fitted=True):
    rng = np.random.default_rng(0)
    half = rng.integers(1, 3, N).astype(np.int8)
    return Data(particles, half, rng.integers(folds, size=N), every_row(N), cross_fitted)


def test_batches_are_every_row_once_by_half_set_fold_and_group(particles):
    data, seen = table(particles), []
    for half in (1, 2):
        for fold in range(data.n_folds):
            for group, rows in data.batches(half, fold):
                assert (data.half_set[rows] == half).all()
                assert (data.fold[rows] == fold).all()
                assert (particles.optics_group[rows] == group).all()
                seen.append(rows)
        whole = np.concatenate([rows for _, rows in data.batches(half, None)])
        np.testing.assert_array_equal(np.sort(whole), np.flatnonzero(data.half_set == half))
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(N))
    assert len(np.unique(data.groupings)) == len(seen)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_processes_share_every_grouping(particles, count):
    data = table(particles)
    own = [data.share_of(index, count) for index in range(count)]
    assert (np.sum(own, axis=0) == 1).all()
    for grouping in np.unique(data.groupings):
        sizes = [np.sum(mine & (data.groupings == grouping)) for mine in own]
        assert max(sizes) - min(sizes) <= 1


def test_how_much_of_a_half_set_scores(particles):
    assert table(particles, folds=3).kept_share == pytest.approx(2 / 3)
    assert table(particles, folds=3, cross_fitted=False).kept_share == 1.0
    # At least two folds, so that a half-set can be judged from within.
    assert table(particles, folds=1).n_folds == 2


def test_undivided_images_are_one_fold_of_one_half_set(particles):
    data = Data.undivided(particles)
    assert len(data) == N
    assert np.sum([len(rows) for _, rows in data.batches(1, 0)]) == N
    assert data.batches(2, None) == []
    assert not data.cross_fitted


@pytest.mark.parametrize(
    ("box", "pixel", "stretch", "wanted"),
    [
        (64, 2.0, 1.0, 31),  # that of the images, without Nyquist
        (48, 2.0, 1.0, 23),  # a smaller box of the same pixels
        (64, 1.0, 1.0, 15),  # finer pixels know no more: half the edge, half the shells
        (64, 2.0, 0.9, 27),  # images that are magnified less in one direction
    ],
)
def test_the_last_shell_is_one_that_all_images_hold(box, pixel, stretch, wanted):
    optics = [
        SimpleNamespace(
            box=64, pixel_size_angstrom=2.0, aberrations=SimpleNamespace(stretches=(1.0, s))
        )
        for s in (1.0, stretch)
    ]
    data = object.__new__(Data)
    object.__setattr__(data, "particles", SimpleNamespace(optics=optics))
    assert data.last_shell(box, pixel) == wanted
