"""White and black images told apart by comparisons with the reference: by sums, or one by one."""

import numpy as np
import pytest

from jaxrelax.refinement.contrast import black_units, populations, radially_averaged


def drawn(seen, shares, n=2000, seed=0):
    """Comparisons of white, black and foreign images, and which are black."""
    rng = np.random.default_rng(seed)
    norm = seen * rng.uniform(0.8, 1.2, n)
    kind = rng.choice(3, n, p=shares)
    t = np.array([1.0, -1.0, 0.0])[kind] * norm + rng.standard_normal(n)
    foreign = kind == 2
    t[foreign] += norm[foreign] * rng.standard_normal(foreign.sum())
    return t, norm, kind == 1


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.1, 0.8, 0.1), (0.9, 0.05, 0.05)])
def test_populations_that_stand_apart(shares):
    t, norm, black = drawn(6.0, shares)
    found = populations(t, norm)
    assert found.mixed
    np.testing.assert_allclose(found.shares, [*shares], atol=0.04)
    # Foreign images may fall anywhere.
    assert np.mean((found.black > 0.5) != black) < 0.03
    assert found.apart == pytest.approx(6.0, rel=0.15)


@pytest.mark.parametrize("seen", [0.3, 1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("foreign", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_no_black_images_where_there_are_none(seen, foreign, seed):
    t, norm, _ = drawn(seen, (1 - foreign, 0.0, foreign), seed=seed)
    # Scales differ between images, and poses are more or less wrong.
    t *= np.random.default_rng(seed).uniform(0.6, 1.3, len(t))
    assert not populations(t, norm).mixed


def test_foreign_images_far_off_on_either_side_are_not_black():
    t, norm, _ = drawn(4.0, (0.9, 0.0, 0.1))
    t[:100] = 30.0 * np.random.default_rng(1).standard_normal(100)
    found = populations(t, norm)
    assert found.shares[1] < 0.02


@pytest.mark.parametrize("seen", [0.5, 2.0, 8.0])
def test_units_are_judged_by_their_sums(seen):
    t, norm, _ = drawn(seen, (1.0, 0.0, 0.0))
    unit = np.arange(len(t)) % 5
    assert not black_units(t, norm, unit).any()
    t[unit == 2] *= -1
    assert black_units(t, norm, unit).tolist() == [False, False, True, False, False]
    assert black_units(-t, norm, unit).tolist() == [True, True, False, True, True]


def test_units_of_noise_are_not_black():
    t, norm, _ = drawn(3.0, (1.0, 0.0, 0.0))
    unit = np.arange(len(t)) % 5
    t[unit == 2] = np.random.default_rng(2).standard_normal((unit == 2).sum()) - 0.5
    assert not black_units(t, norm, unit).any()


def test_the_radial_average_has_the_mass_of_the_map():
    x = np.arange(24) - 12
    r2 = (x[:, None, None] - 3) ** 2 + x[:, None] ** 2 + (x + 2) ** 2
    map_ = np.exp(-r2 / 8).astype(np.float32)
    average = radially_averaged(map_)
    np.testing.assert_allclose(average.sum(), map_.sum(), rtol=1e-5)
    np.testing.assert_allclose(average[1:, 1:, 1:], average[:0:-1, :0:-1, :0:-1], rtol=1e-6)
    np.testing.assert_allclose(average, average.transpose(2, 0, 1), rtol=1e-6)
