"""Latent variables: registers, errors of the consensus, fractions, sites."""

import numpy as np
import pytest

from jaxrelax.geometry import point_group, rotation_angle
from jaxrelax.io import InputError
from jaxrelax.simulate.config import Simulation
from jaxrelax.simulate.occupancy import parse_occupancy
from jaxrelax.simulate.truth import draw_truth


def draw(n_sites=4, occupancy="one", **options):
    config = Simulation(**{"n_images": 2000, "group": "C4", **options})
    group = point_group(config.group)
    rng = np.random.default_rng(0)
    return draw_truth(config, group, parse_occupancy(occupancy, n_sites), rng), group


@pytest.mark.parametrize("group", ["C4", "D3", "O"])
def test_true_pose_is_the_mate_of_the_consensus(group):
    truth, g = draw(group=group, pose_error_deg=0.0, shift_error_angstrom=0.0)
    mates = truth.consensus_poses @ g.operators[truth.registers].mT
    assert np.allclose(mates, truth.poses, atol=1e-12)
    assert np.array_equal(truth.origins_angstrom, truth.consensus_origins_angstrom)
    counts = np.bincount(truth.registers, minlength=g.order)
    assert counts.min() > 0.5 * 2000 / g.order


def test_errors_have_the_size_asked_for():
    truth, g = draw(pose_error_deg=3.0, shift_error_angstrom=2.0)
    mates = truth.consensus_poses @ g.operators[truth.registers].mT
    angles = np.rad2deg(rotation_angle(mates @ truth.poses.mT))
    assert np.sqrt(np.mean(angles**2)) == pytest.approx(3.0, rel=0.05)
    moved = truth.consensus_origins_angstrom - truth.origins_angstrom
    assert np.sqrt(np.mean(np.sum(moved**2, axis=1))) == pytest.approx(2.0, rel=0.05)


def test_shifts_fill_a_disc():
    truth, _ = draw(max_shift_angstrom=6.0)
    length = np.linalg.norm(truth.origins_angstrom, axis=1)
    assert length.max() <= 6.0
    assert np.mean(length**2) == pytest.approx(18.0, rel=0.05)


def test_defocus_and_groups():
    truth, _ = draw(defocus_min_um=1.0, defocus_max_um=2.0, astigmatism_um=0.1, n_optics_groups=3)
    mean = 0.5e-4 * (truth.defocus_u_angstrom + truth.defocus_v_angstrom)
    difference = 1e-4 * (truth.defocus_u_angstrom - truth.defocus_v_angstrom)
    assert difference.min() >= 0
    assert 0.09 < difference.max() <= 0.1
    for g in range(3):
        mine = mean[truth.optics_group == g]
        assert len(mine) in (666, 667)
        assert 1.0 + 0.3 * g <= mine.min() < 1.02 + 0.3 * g
        assert 1.98 + 0.3 * g < mine.max() <= 2.0 + 0.3 * g


def test_fractions_are_exact_and_disjoint():
    truth, _ = draw(junk_fraction=0.1, symmetric_fraction=0.25)
    assert truth.junk.sum() == 200
    assert truth.symmetric.sum() == 500
    assert not np.any(truth.junk & truth.symmetric)
    assert set(truth.half_set.tolist()) == {1, 2}


def test_occupancies():
    assert np.array_equal(parse_occupancy("one", 3).probabilities, [1, 0, 0])
    assert np.array_equal(parse_occupancy("all", 3).probabilities, [1, 1, 1])
    assert np.array_equal(parse_occupancy("1010", 4).probabilities, [1, 0, 1, 0])
    assert np.array_equal(parse_occupancy("0.25", 2).probabilities, [0.25, 0.25])
    truth, _ = draw(occupancy="0101")
    assert np.all(truth.occupied == np.array([False, True, False, True]))
    truth, _ = draw(occupancy="0.25")
    assert np.allclose(truth.occupied.mean(axis=0), 0.25, atol=0.04)
    # Each site on its own.
    assert abs(np.corrcoef(truth.occupied[:, 0], truth.occupied[:, 1])[0, 1]) < 0.08


@pytest.mark.parametrize("text", ["", "two", "10", "10101", "1.5", "-0.5", "nan", "2"])
def test_bad_occupancies(text):
    with pytest.raises(InputError, match="occupancy"):
        parse_occupancy(text, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"n_images": 0},
        {"box": 63},
        {"box": 8},
        {"pixel_size_angstrom": 0.0},
        {"pixel_size_angstrom": float("nan")},
        {"snr": 0.0},
        {"defocus_min_um": 3.0},
        {"junk_fraction": 0.7, "symmetric_fraction": 0.5},
        {"junk_fraction": -0.1},
        {"resolution_angstrom": 3.0},
        {"junk_kind": "object"},
        {"noise_colour": -1.0},
        {"amplitude_contrast": 1.0},
        {"n_optics_groups": 0},
    ],
)
def test_bad_options(options):
    with pytest.raises(InputError, match=next(iter(options)).split("_")[0]):
        Simulation(**options)
