"""What poses differ by, and from what."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxrelax.geometry import point_group, random_rotations, rotvec_to_matrix
from jaxrelax.refinement.pose_changes import pose_changes, weighted_quantile

N = 40
C4 = point_group("C4")


def about(axis, degrees):
    return rotvec_to_matrix(np.deg2rad(degrees) * np.asarray(axis, float))


@pytest.fixture
def case():
    """Poses that turned by 2° about the view since the last iteration, and 5° since the start."""
    rng = np.random.default_rng(0)
    start = random_rotations(N, rng)
    before = about([0, 0, 1], 3.0) @ start
    after = about([0, 0, 1], 5.0) @ start
    origins = rng.normal(size=(N, 2))
    posterior = np.tile([0.7, 0.1, 0.1, 0.1], (N, 1))
    problem = SimpleNamespace(
        plan=SimpleNamespace(table=SimpleNamespace(place_operators=C4.operators)),
        common_group=C4,
    )
    state = SimpleNamespace(
        poses=SimpleNamespace(
            rotations=before, centre_rotations=start, origins_angstrom=origins,
            centre_origins_angstrom=origins - np.array([3.0, 0.0]),
        ),
        beliefs=SimpleNamespace(registers=posterior),
    )  # fmt: skip
    found = SimpleNamespace(
        rotations=after, origins_angstrom=origins + np.array([0.0, 1.5]),
        registers=posterior.copy(), junk=np.zeros(N),
    )  # fmt: skip
    return problem, state, found


def test_each_question_has_its_own_answer(case):
    changes = pose_changes(*case)
    assert changes["rotation_change_deg"] == pytest.approx(2.0)
    assert changes["rotation_change_95_deg"] == pytest.approx(2.0)
    assert changes["shift_change_angstrom"] == pytest.approx(1.5)
    assert changes["start_rotation_deg"] == pytest.approx(5.0)
    assert changes["start_shift_angstrom"] == pytest.approx(np.hypot(3.0, 1.5))
    # All in the register of their pose: relaxation changes nothing.
    assert changes["relaxed_rotation_deg"] == pytest.approx(0.0, abs=1e-5)
    assert changes["full_rotation_change_deg"] == pytest.approx(2.0)
    assert changes["start_full_rotation_deg"] == pytest.approx(5.0)


def test_registers_move_full_poses_alone(case):
    problem, state, found = case
    found.registers[: N // 4] = np.array([0.1, 0.7, 0.1, 0.1])  # a quarter turns by 90°
    changes = pose_changes(problem, state, found)
    assert changes["rotation_change_deg"] == pytest.approx(2.0)
    assert changes["relaxed_rotation_deg"] == pytest.approx(90.0 / 4)
    assert 20.0 < changes["full_rotation_change_deg"] < 25.0
    # The start is compared modulo the group.
    found.rotations = found.rotations @ C4.operators[2]
    assert pose_changes(problem, state, found)["start_rotation_deg"] == pytest.approx(5.0)


def test_junk_does_not_count_among_the_95_percent(case):
    problem, state, found = case
    found.rotations[:8] = about([1, 0, 0], 120.0) @ found.rotations[:8]
    assert pose_changes(problem, state, found)["rotation_change_95_deg"] > 90.0
    found.junk = np.where(np.arange(N) < 8, 1.0, 0.0)
    assert pose_changes(problem, state, found)["rotation_change_95_deg"] == pytest.approx(2.0)


def test_weighted_quantile():
    values, weights = np.array([3.0, 1.0, 2.0, 9.0]), np.array([1.0, 1.0, 1.0, 0.0])
    assert weighted_quantile(values, weights, 0.5) == 2.0
    assert weighted_quantile(values, weights, 1.0) == 3.0
    assert weighted_quantile(values, 0 * weights, 0.5) == 0.0
    rng = np.random.default_rng(1)
    many = rng.normal(size=2001)
    expected = np.quantile(many, 0.95, method="inverted_cdf")
    assert weighted_quantile(many, np.ones(2001), 0.95) == expected
