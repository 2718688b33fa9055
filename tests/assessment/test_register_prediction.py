"""Predictions for whole data sets against the oracle, and the ball that stands for a partner."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.assessment import (
    consensus_error,
    oracle_registers,
    partner_ball,
    predict_registers,
)
from jaxrelax.assessment.partner import ball_radius_angstrom, solid_region
from jaxrelax.geometry import point_group
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.judgement import Discriminability
from jaxrelax.judgement.prediction import discriminability, discriminability_of_halves
from jaxrelax.reconstruction import isotypic_parts, rotate_map, symmetrise
from jaxrelax.refinement import Local, Map, Registers, prepare
from jaxrelax.simulate import Simulation, simulate

RESOLUTION = 16.0


class Data:
    def __init__(self, folder, **options):
        made = simulate("phantom", folder, Simulation(**options))
        self.particles, self.truth = read_particles(made.particles), read_particles(made.truth)
        values, pixel = read_map(made.truth_map)
        self.map, self.reference = Map(values, pixel), read_map(made.reference)[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Registers that can be told for most, with two optics groups and rather wrong poses."""
    return Data(
        tmp_path_factory.mktemp("data"), n_images=600, box=48, pixel_size_angstrom=6.0,
        protomer_kda=20.0, partner_kda=25.0, snr=0.05, n_optics_groups=2, pose_error_deg=3.0,
        shift_error_angstrom=2.0, dtype="float32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def predicted(data):
    return predict_registers(
        data.truth, data.map, "C4", mode=Registers(), max_resolution=RESOLUTION
    )


def oracle(data, **options):
    return oracle_registers(
        data.truth, data.map.values, pixel_size_angstrom=data.map.pixel_size_angstrom,
        group="C4", max_resolution_angstrom=RESOLUTION, **options,
    )  # fmt: skip


def test_prediction_comes_true_at_the_true_poses(data, predicted):
    found = oracle(data)
    assert 0.5 < found.accuracy < 0.95
    assert predicted.mean_accuracy == pytest.approx(found.accuracy, abs=0.035)
    # Free of most of the sampling error.
    assert predicted.mean_accuracy == pytest.approx(found.mean_max_posterior, abs=0.02)
    # And for those that were expected to be easy or hard.
    order = np.argsort(predicted.expected_accuracy)
    for part in np.array_split(order, 3):
        largest = found.registers[part].max(axis=1).mean()
        assert predicted.expected_accuracy[part].mean() == pytest.approx(largest, abs=0.04)


@pytest.mark.slow
def test_prediction_comes_true_at_consensus_poses(data, predicted):
    rotation, shift = consensus_error(data.particles, data.truth, "C4")
    local = Local(sigma_rotation_deg=rotation, sigma_shift_angstrom=shift)
    found = oracle(data, poses=data.particles, mode=local)
    less = predict_registers(data.particles, data.map, "C4", mode=local, max_resolution=RESOLUTION)
    assert less.mean_accuracy < predicted.mean_accuracy
    assert less.mean_accuracy == pytest.approx(found.mean_max_posterior, abs=0.03)


@pytest.fixture(scope="module")
def setup(data):
    return prepare(data.truth, data.map, mode=Registers(), relax="C4", ini_high=RESOLUTION)


def test_two_noisy_maps_predict_as_the_true_one(data, predicted, setup):
    problem, state = setup.problem, setup.state
    parts = isotypic_parts(data.map.values, problem.particle.group, problem.particle.subgroup)
    rng = np.random.default_rng(0)
    level = 3.0 * np.sqrt(np.mean(parts.asymmetric**2))
    common = dict(
        noise_power=state.noise_power, max_shell=state.score_shell, pose_prior=None, blur=False
    )
    where = problem.execution, problem.particle

    def noisy():
        noise = level * rng.standard_normal(parts.asymmetric.shape).astype(np.float32)
        both = isotypic_parts(noise, problem.particle.group, problem.particle.subgroup).asymmetric
        return (parts.asymmetric + both) * problem.particle.sphere(problem.shells.box)

    first, second = noisy(), noisy()
    own = discriminability(*where, parts.symmetric, first, **common)
    cross = discriminability(*where, parts.symmetric, first, second, **common)
    assert own.nats.mean() > 1.3 * predicted.nats.mean()
    assert cross.nats.mean() == pytest.approx(predicted.nats.mean(), rel=0.08)
    assert cross.mean_accuracy == pytest.approx(predicted.mean_accuracy, abs=0.02)
    assert own.mean_accuracy > predicted.mean_accuracy + 0.03


def test_half_maps_of_a_symmetric_particle_cannot_tell(data, setup):
    problem, state = setup.problem, setup.state
    symmetric = symmetrise(data.map.values, problem.particle.group)
    rng = np.random.default_rng(1)
    level = np.sqrt(np.mean(symmetric**2))
    halves = [
        (symmetric + level * rng.standard_normal(symmetric.shape)).astype(np.float32)
        for _ in range(2)
    ]
    where = problem.execution, problem.particle, state.conditions()
    found = discriminability_of_halves(*where, *halves, pose_prior=None)
    assert found.mean_accuracy < 0.29
    assert not found.resolvable
    assert found.sentence().startswith("These data cannot resolve the register")
    true = [(data.map.values + half - symmetric).astype(np.float32) for half in halves]
    found = discriminability_of_halves(*where, *true, pose_prior=None)
    assert found.resolvable
    # Half-maps may have come to different registers.
    true[1] = rotate_map(true[1], problem.particle.group.operators[1])
    turned = discriminability_of_halves(*where, *true, pose_prior=None)
    assert turned.mean_accuracy == pytest.approx(found.mean_accuracy, abs=0.01)


def made(accuracy, registers=4) -> Discriminability:
    accuracy = np.asarray(accuracy, float)
    return Discriminability(
        squared_distance=np.full(len(accuracy), 4.0),
        expected_accuracy=accuracy,
        chance=1.0 / registers,
        resolution_angstrom=12.0,
        view_deg=np.linspace(0.0, 90.0, len(accuracy)),
        pose_uncertain=True,
    )


def test_what_is_said():
    good = made([0.27, 0.8, 0.9, 0.95])
    assert good.resolvable
    assert good.blind.tolist() == [True, False, False, False]
    assert "0.730 where chance is 0.250" in good.sentence()
    assert "25 % of the particles are blind" in good.sentence()
    assert "2 nats" in good.sentence()
    assert "60° to 90°" in good.summary()
    assert good.columns().keys() == {"jrxDiscriminability", "jrxExpectedAccuracy"}
    bad = made([0.25, 0.26, 0.27])
    assert bad.sentence().startswith("These data cannot resolve the register: ")
    assert "blind" not in dataclasses.replace(good, expected_accuracy=good.view_deg + 1).sentence()


def ring(n=48, pixel=4.0):
    """Four solid balls of density 2 on a solvent of 0.3."""
    x = (np.arange(n) - n // 2) * pixel
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    inside = np.zeros(z.shape, bool)
    for turn in point_group("C4").operators:
        centre = turn @ np.array([30.0, 10.0, 0.0])
        inside |= (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < 22.0**2
    return (0.3 + 1.7 * inside).astype(np.float32), pixel


def test_ball_has_the_mass_and_density_of_the_reference():
    reference, pixel = ring()
    ball = partner_ball(reference, pixel, point_group("C4"), 40.0)
    solid = solid_region(reference, pixel)
    volume = ball.sum() * pixel**3 / 1.7
    assert volume == pytest.approx(1.21 * 40e3, rel=0.15)
    assert ball.max() == pytest.approx(1.7, rel=0.15)
    # Outside, touching, and off the axis.
    centre = np.array([np.sum(ball * g) for g in np.meshgrid(*[np.arange(48)] * 3, indexing="ij")])
    centre = (centre / ball.sum() - 24)[::-1] * pixel
    assert np.hypot(*centre[:2]) > 40.0
    assert ball[solid].sum() < 0.12 * ball.sum()
    twice = partner_ball(reference, pixel, point_group("C4"), 40.0, reference_mass_kda=1e3)
    half = partner_ball(reference, pixel, point_group("C4"), 40.0, reference_mass_kda=2e3)
    assert twice.sum() == pytest.approx(2.0 * half.sum(), rel=1e-4)


def test_ball_goes_where_it_is_told():
    reference, pixel = ring()
    ball = partner_ball(reference, pixel, point_group("C4"), 20.0, centre_angstrom=(40, -20, 8))
    z, y, x = np.unravel_index(np.argmax(ball), ball.shape)
    assert np.hypot(x - 34, y - 19) <= 4
    assert abs(z - 26) <= 4
    assert ball[26, 19, 34] > 0.9 * ball.max()
    with pytest.raises(InputError, match="does not fit the box"):
        partner_ball(reference, pixel, point_group("C4"), 20.0, centre_angstrom=(90, 0, 0))
    with pytest.raises(InputError, match="above 0"):
        partner_ball(reference, pixel, point_group("C4"), 0.0)
    assert ball_radius_angstrom(45.0) == pytest.approx(23.5, abs=0.1)
