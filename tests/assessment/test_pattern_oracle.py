"""The best that can be done for occupancy patterns, on small phantoms."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from jaxrelax.assessment import oracle_patterns
from jaxrelax.geometry import occupancy_patterns, point_group
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.simulate import Simulation, simulate
from jaxrelax.simulate.images import Microscope
from jaxrelax.simulate.specimen import load_specimen
from jaxrelax.simulate.truth import draw_truth

SMALL = Simulation(
    n_images=400,
    box=40,
    pixel_size_angstrom=6.0,
    protomer_kda=8.0,
    partner_kda=10.0,
    max_shift_angstrom=8.0,
    occupancy="0000:0.1,0001:0.1,0110:0.2,0101:0.3,1101:0.1,1111:0.2",
    snr=0.2,
    noise_colour=0.0,
)


def column(result, name):
    return np.array([int(value) for value in read_particles(result.truth).column(name)])


def loaded(result):
    truth = read_particles(result.truth)
    return truth, [read_map(path)[0] for path in result.pattern_maps]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return simulate("phantom", tmp_path_factory.mktemp("shares"), SMALL)


@pytest.fixture(scope="module")
def oracle(data):
    truth, maps = loaded(data)
    return oracle_patterns(truth, maps, group="C4")


def by_atoms(result, power):
    """Posterior of the patterns in NumPy: atoms projected for all 16 subsets; no slices, registers.

    Subsets of one pattern are alike beforehand, and all of them together are the pattern.
    """
    config = SMALL
    specimen = load_specimen("phantom", config)
    drawn = draw_truth(
        config, specimen.group, specimen.occupancy, np.random.default_rng([config.seed, 0])
    )
    scope = Microscope(specimen, drawn, config, specimen.radius_angstrom())
    raw = (result.folder / "particles.mrcs").read_bytes()[1024:]
    box = config.box
    seen = np.fft.rfft2(np.frombuffer(raw, np.float32).reshape(-1, box, box).astype(float))
    kx, ky = np.arange(box // 2 + 1)[None], np.fft.fftfreq(box, 1 / box)[:, None]
    shell = np.rint(np.hypot(kx, ky)).astype(int)
    scored = (shell > 0) & (shell <= box // 2 - 1) & (kx < box // 2) & (np.abs(ky) < box // 2)
    weights = np.where(scored, np.where(kx == 0, 1.0, 2.0), 0.0)
    weights = weights / np.append(power, np.ones(box))[shell] / box**2
    patterns = occupancy_patterns(specimen.group)
    subsets = np.array(list(product([False, True], repeat=4)))
    pattern, _ = patterns.find(subsets)
    shares = np.bincount(column(result, "rlnClassNumber") - 1, minlength=6) / config.n_images
    evidence = np.empty((config.n_images, len(subsets)))
    for j, subset in enumerate(subsets):
        drawn.occupied[:] = subset
        for first in range(0, config.n_images, 20):
            rows = np.arange(first, first + 20)
            left = seen[rows] - np.fft.rfft2(scope.signals(rows))
            evidence[rows, j] = -0.5 * np.sum(weights * np.abs(left) ** 2, axis=(1, 2))
    joint = evidence + np.log(np.maximum(shares, 1e-300) / patterns.multiplicity)[pattern]
    joint = np.exp(joint - joint.max(axis=1, keepdims=True))
    joint /= joint.sum(axis=1, keepdims=True)
    return np.stack([joint[:, pattern == k].sum(axis=1) for k in range(6)], axis=1)


def test_posterior_against_atoms(data, oracle):
    found, exact = oracle, by_atoms(data, oracle.noise_power)
    # Slices are interpolated, to a per cent or two.
    assert np.abs(found.states - exact).mean() < 0.004
    assert np.abs(found.states - exact).max() < 0.12
    state = column(data, "rlnClassNumber") - 1
    assert found.accuracy == pytest.approx(np.mean(exact.argmax(axis=1) == state), abs=0.01)


def test_accuracy_is_what_the_posterior_says(oracle):
    found = oracle
    assert 0.6 < found.accuracy < 0.995
    assert found.accuracy == pytest.approx(found.mean_max_posterior, abs=0.04)
    assert found.calibration.expected_error < 0.06
    assert found.register_accuracy > 0.9
    np.testing.assert_allclose(found.states.sum(axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(found.states.mean(axis=0), found.fractions, atol=0.04)
    np.testing.assert_allclose(found.confusion.sum(axis=1), 1.0)
    # The noise was of variance one before the images were normalised.
    np.testing.assert_allclose(found.noise_power[4:], 1.0, atol=0.06)


def test_every_frame_is_as_good(data, oracle):
    """Poses of the symmetry-related frames: other registers, the same patterns."""
    truth, maps = loaded(data)
    operators = point_group("C4").operators
    turn = operators[np.random.default_rng(0).integers(0, 4, len(truth))]
    mates = truth.with_updates(rotations=truth.rotations @ turn.mT)
    other = oracle_patterns(truth, maps, group="C4", poses=mates)
    assert np.abs(other.states - oracle.states).mean() < 0.003
    assert other.accuracy == pytest.approx(oracle.accuracy, abs=0.01)
    assert other.register_accuracy == pytest.approx(oracle.register_accuracy, abs=0.01)


@pytest.mark.slow
def test_consensus_poses_are_worse_and_junk_is_left_out(tmp_path):
    config = replace(
        SMALL, occupancy="0.4", group="D2", pose_error_deg=8.0, shift_error_angstrom=6.0,
        junk_fraction=0.25, n_images=240,
    )  # fmt: skip
    result = simulate("phantom", tmp_path, config)
    truth, maps = loaded(result)
    true = oracle_patterns(truth, maps, group="D2")
    assert len(true.judged) == 180
    consensus = oracle_patterns(truth, maps, group="D2", poses=read_particles(result.particles))
    assert true.accuracy > consensus.accuracy + 0.02
    assert true.register_accuracy > 0.9


def test_without_signal_the_shares_remain(tmp_path):
    result = simulate("phantom", tmp_path, replace(SMALL, snr=1e-5, n_images=100))
    truth, maps = loaded(result)
    found = oracle_patterns(truth, maps, group="C4")
    np.testing.assert_allclose(found.states.mean(axis=0), found.fractions, atol=0.02)


def test_refusals(data):
    truth, maps = loaded(data)
    with pytest.raises(InputError, match="6 patterns; 5 maps"):
        oracle_patterns(truth, maps[:5], group="C4")
    with pytest.raises(InputError, match="no column rlnClassNumber"):
        oracle_patterns(read_particles(data.particles), maps, group="C4")
    with pytest.raises(InputError, match="must be 1 to 3"):
        oracle_patterns(truth, maps[:3], group="C2")
    with pytest.raises(InputError, match="at most 12"):
        oracle_patterns(truth, maps, group="D7")
    with pytest.raises(InputError, match="rows"):
        oracle_patterns(truth, maps, group="C4", poses=truth.select(np.arange(5)))
    assert len(occupancy_patterns(point_group("C4"))) == len(maps)
