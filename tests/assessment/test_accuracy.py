"""Registers against the truth: the frame is free, the registers are not."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment import (
    brier_score,
    calibration,
    consensus_error,
    matching_rows,
    oracle_registers,
    register_accuracy,
)
from jaxrelax.assessment.accuracy import true_registers
from jaxrelax.geometry import (
    parse_group,
    point_group,
    right_cosets,
    rotvec_to_matrix,
    subgroup,
)
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.refinement.modes import Local
from jaxrelax.simulate import Simulation, simulate
from tests.assessment.conftest import write_particles

C4 = parse_group("C4")


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return read_particles(write_particles(tmp_path_factory.mktemp("truth") / "t.star", n=80))


def posed(particles, registers, error_deg=1.0, seed=1):
    """The particles in given elements of C4, with small errors of pose and origin."""
    rng = np.random.default_rng(seed)
    n = len(particles)
    errors = rotvec_to_matrix(np.deg2rad(error_deg) * rng.standard_normal((n, 3)))
    return particles.with_updates(
        rotations=errors @ particles.rotations @ C4.operators[registers],
        origins_angstrom=particles.origins_angstrom + np.array([3.0, 4.0]),
    )


def test_a_turned_volume_is_as_good(truth):
    judged = register_accuracy(posed(truth, np.full(80, 3)), truth, "C4")
    assert judged.accuracy == 1.0
    assert judged.half_accuracy == (1.0, 1.0)
    assert judged.same_frame
    assert judged.operator_index == 3
    assert judged.chance == 0.25
    assert judged.mean_max_posterior is None
    assert judged.shift_error_angstrom == pytest.approx(5.0)
    assert 0.5 < judged.pose_error_deg < 3.0
    assert "same frame" in judged.summary()


def test_half_sets_in_different_frames_are_told(truth):
    registers = np.where(truth.half_set == 1, 0, 2)
    judged = register_accuracy(posed(truth, registers), truth, "C4")
    assert judged.accuracy == 0.5
    assert judged.half_accuracy == (1.0, 1.0)
    assert not judged.same_frame
    assert "DIFFERENT" in judged.summary()


def test_a_known_fraction_of_wrong_registers(truth):
    registers = np.zeros(80, int)
    registers[:20] = 1 + np.arange(20) % 3
    judged = register_accuracy(posed(truth, registers), truth, C4)
    assert judged.accuracy == 0.75


def test_registers_within_the_kept_subgroup_are_right(truth):
    registers = np.tile([0, 2], 40)  # two-fold turns, which C2 keeps
    judged = register_accuracy(posed(truth, registers), truth, "C4", "C2")
    assert judged.accuracy == 1.0
    assert judged.chance == 0.5


def test_rows_are_matched_by_image(truth):
    shuffled = truth.select(np.random.default_rng(0).permutation(80)[:50])
    assert register_accuracy(posed(shuffled, np.zeros(50, int)), truth, "C4").accuracy == 1.0
    with pytest.raises(InputError, match=r"30 of the 80 images"):
        matching_rows(truth, shuffled)
    with pytest.raises(InputError, match="several rows"):
        matching_rows(truth, truth.select(np.zeros(3, int)))


def test_junk_has_no_register(truth, tmp_path):
    text = (tmp_path / "t.star", truth.source.read_text())
    lines = text[1].replace("_rlnOther #12", "_rlnOther #12\n_jrxJunk #13").splitlines()
    lines = [x + f" {int(x.startswith('00000'))}" if "@" in x else x for x in lines]
    text[0].write_text("\n".join(lines) + "\n")
    marked = read_particles(text[0])
    registers = np.zeros(80, int)
    registers[:9] = 1  # rows 000001 to 000009
    judged = register_accuracy(posed(marked, registers), marked, "C4")
    assert judged.accuracy == 1.0
    assert (judged.n_judged, judged.n_left_out) == (71, 9)


def test_result_gives_posterior_and_brier(result):
    """The synthetic result's poses with register 1 undone are the truth for register 0."""
    best = result.best_register
    base = result.particles.rotations @ C4.operators[best]
    truth = replace(result.particles, rotations=base @ C4.operators[best].transpose(0, 2, 1))
    judged = register_accuracy(result, truth, "C4")
    assert judged.accuracy == 1.0
    assert judged.mean_max_posterior == pytest.approx(result.registers.max(axis=1).mean())
    one_hot = np.eye(4)[best]
    expected = np.mean(np.sum((result.registers - one_hot) ** 2, axis=1))
    assert judged.calibration is not None
    assert judged.calibration.brier == pytest.approx(expected)
    # From the table alone the largest probability is known, the rest is not.
    table = register_accuracy(result.particles, truth, "C4")
    assert table.mean_max_posterior == pytest.approx(judged.mean_max_posterior)
    assert table.calibration is not None
    assert table.calibration.brier is None


@pytest.mark.parametrize(("name", "kept"), [("C4", "C1"), ("D3", "C3"), ("O", "C4")])
def test_true_registers_of_poses_in_any_register(name, kept):
    group = point_group(name)
    part = point_group("C1") if kept == "C1" else subgroup(group, kept)
    cosets = right_cosets(group, part)
    rng = np.random.default_rng(2)
    n, m = 40, len(cosets.representatives)
    poses = rotvec_to_matrix(rng.standard_normal((n, 3)))
    where, assigned = rng.integers(m, size=(2, n))
    true = poses @ cosets.representatives[where].transpose(0, 2, 1)
    given = poses @ cosets.representatives[assigned].transpose(0, 2, 1)
    found = true_registers(given, assigned, true, group, part)
    assert found is not None
    assert np.array_equal(found, where)


def test_calibration_of_an_honest_and_a_boastful_posterior():
    rng = np.random.default_rng(0)
    largest = rng.uniform(0.25, 1.0, 40_000)
    honest = calibration(largest, rng.random(40_000) < largest)
    assert honest.expected_error < 0.01
    assert honest.count.sum() == 40_000
    assert np.isnan(honest.confidence[0])
    assert calibration(largest, rng.random(40_000) < 0.25).expected_error > 0.3
    assert brier_score(np.eye(4)[[0, 1]], np.array([0, 1])) == 0.0
    assert brier_score(np.eye(4)[[0, 1]], np.array([1, 0])) == 2.0
    with pytest.raises(ValueError, match="outside 0 to 1"):
        calibration(np.array([1.2]), np.array([True]))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    config = Simulation(
        n_images=120, box=32, pixel_size_angstrom=7.0, protomer_kda=15.0, partner_kda=30.0,
        snr=0.1, dtype="float32",
    )  # fmt: skip
    return simulate("phantom", tmp_path_factory.mktemp("simulated"), config)


def test_oracle_is_calibrated_and_above_chance(simulated):
    truth, consensus = read_particles(simulated.truth), read_particles(simulated.particles)
    map_, pixel = read_map(simulated.truth_map)
    best = oracle_registers(truth, map_, pixel_size_angstrom=pixel, group="C4")
    assert best.accuracy > 0.6
    assert best.mean_max_posterior == pytest.approx(best.accuracy, abs=0.12)
    coarse = oracle_registers(
        truth, map_, pixel_size_angstrom=pixel, group="C4", max_resolution_angstrom=40.0
    )
    assert coarse.mean_max_posterior < best.mean_max_posterior
    assert coarse.resolution_angstrom >= 40.0
    # At poses with errors, in a register drawn at random, the true register is still found.
    rotation, shift = consensus_error(consensus, truth, "C4")
    away = oracle_registers(
        truth, map_, pixel_size_angstrom=pixel, group="C4", poses=consensus,
        mode=Local(sigma_rotation_deg=rotation, sigma_shift_angstrom=shift),
    )  # fmt: skip
    assert away.accuracy > best.accuracy - 0.12


def test_oracle_of_a_symmetric_map_cannot_tell(simulated):
    truth = read_particles(simulated.truth)
    map_, pixel = read_map(simulated.reference)
    blind = oracle_registers(truth, map_, pixel_size_angstrom=pixel, group="C4")
    assert blind.mean_max_posterior == pytest.approx(0.25, abs=0.01)
