"""Which group a map has: wrong ones are refused, those that a partner broke are not."""

import numpy as np
import pytest

from jaxrelax.geometry import operator_classes, point_group, rotvec_to_matrix
from jaxrelax.reconstruction import Fit, GroupFits, SelfRotation, align_axes, fits_beside, moved
from jaxrelax.reconstruction.group_fit import LEAST_TURNS

from .blobs import gaussians, sampled

N = 40


def assembly(name, partners: int | tuple[int, ...] = 0, turn=None, seed=5, weight=1.0):
    """A symmetric map, with partners on the first sites or those that are named."""
    operators = point_group(name).operators
    centres, weights = gaussians(seed, reach=9.0)
    points = [np.concatenate([centres @ g.T for g in operators])]
    partner = np.array([11.0, 3.0, 4.0]) + gaussians(seed=8, reach=3.0)[0]
    sites = range(partners) if isinstance(partners, int) else partners
    points += [partner @ operators[site].T for site in sites]
    heavy = np.full(len(sites) * len(partner), weight)
    weights = np.concatenate([np.tile(weights, len(operators)), heavy])
    turn = np.eye(3) if turn is None else turn
    return sampled(np.concatenate(points) @ turn, weights, N)


def about_z(degrees):
    return rotvec_to_matrix(np.deg2rad(degrees) * np.array([0.0, 0.0, 1.0]))


def test_operators_are_classed_by_what_they_generate():
    sizes = {name: sorted(map(len, operator_classes(point_group(name)))) for name in ("C5", "C6")}
    assert sizes == {"C5": [4], "C6": [1, 2, 2]}
    assert sorted(map(len, operator_classes(point_group("D4")))) == [1, 2, 2, 2]
    assert sorted(map(len, operator_classes(point_group("I")))) == [15, 20, 24]


def test_what_is_alike_at_every_angle_is_left_out():
    rotation = SelfRotation(assembly("C4"), np.array([0.0, 0.0, 1.0]))
    turns = [about_z(angle) for angle in range(0, 360, 5)]
    found = rotation.correlations(np.array(turns))
    assert found[::18] == pytest.approx(1.0, abs=0.02)
    assert abs(found.mean()) < 0.01
    assert rotation.correlations(np.array(turns[1:2])) == pytest.approx(found[-1:])
    centres, weights = np.zeros((1, 3)), np.ones(1)
    assert SelfRotation(sampled(centres, weights, N)).share < 1e-3


@pytest.mark.parametrize(
    ("has", "said"),
    [("C4", "C5"), ("C4", "C8"), ("C4", "T"), ("C2", "C4"), ("I1", "I2"), ("D3", "D6"), ("T", "O")],
)
def test_a_wrong_group_is_refused_and_the_right_one_named(has, said):
    map_ = assembly(has)
    rng = np.random.default_rng(3)
    map_ = map_ + 0.3 * map_.std() * rng.standard_normal(map_.shape).astype(np.float32)
    verdict = GroupFits(map_).judge(point_group(said))
    assert verdict.refused
    assert verdict.better is not None
    assert verdict.better.group.name == has


@pytest.mark.parametrize(
    ("name", "partners"),
    [("C4", 0), ("D3", 0), ("T", 0), ("I1", 0), ("C2", 1), ("C4", 1), ("D2", 1)],
)
def test_a_group_that_the_map_has_or_had_passes(name, partners):
    fits = GroupFits(assembly(name, partners))
    assert not fits.judge(point_group(name)).refused
    if partners == 0:
        assert fits.fit(point_group(name)).copies > 0.95


def test_a_group_above_a_broken_one_passes_and_a_subgroup_too():
    """Two opposite sites of four leave a C2, by which C4 is not taken for wrong."""
    verdict = GroupFits(assembly("C4", (0, 2), weight=3.0)).judge(point_group("C4"))
    assert not verdict.refused
    assert verdict.better is not None
    assert verdict.better.group.name == "C2"
    assert 0.0 < verdict.asked.turns < LEAST_TURNS
    assert not GroupFits(assembly("C4")).judge(point_group("C2")).refused


def test_a_group_may_have_been_broken_to_its_subgroups_only():
    asked, other = (Fit(point_group(g), 0.9, c, 1.0) for g, c in (("C4", 0.05), ("C2", 1.0)))
    assert fits_beside(asked, other, broken=True)
    assert not fits_beside(asked, other)
    assert not fits_beside(asked._replace(turns=-0.02), other, broken=True)
    assert not fits_beside(asked._replace(turns=0.5), other, broken=True, aligned=True)
    # Across the main axis the limit is the same.
    assert not fits_beside(asked._replace(turns=1.0, flips=0.2), other, broken=True)


@pytest.mark.parametrize("map_", ["ball", "rod"])
def test_what_is_round_fits_every_group_of_its_axis(map_):
    z = np.linspace(-8, 8, 9 if map_ == "rod" else 1)
    points = np.stack([0 * z, 0 * z, z if map_ == "rod" else 0 * z], axis=1)
    fits = GroupFits(sampled(points, np.ones(len(points)), N, sigma=2.5))
    for name in ("C3", "C4", "D5") if map_ == "rod" else ("C4", "D3", "T", "I"):
        assert not fits.judge(point_group(name)).refused


def test_every_map_has_c1():
    with pytest.raises(ValueError, match="C1"):
        GroupFits(assembly("C4")).fit(point_group("C1"))


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        pytest.param("D3", about_z(90), marks=pytest.mark.slow),
        ("C4", rotvec_to_matrix(np.deg2rad(70) * np.array([0.8, -0.6, 0.0]))),
    ],
)
def test_another_setting_and_far_axes_are_found(name, turn):
    group, map_ = point_group(name), assembly(name, turn=turn)
    assert GroupFits(map_).fit(group).copies < 0.5
    found = align_axes(map_, group)
    assert found.aligned_correlation > 0.995
    assert found.angle_deg > 20
    assert GroupFits(moved(map_, found.rotation, found.centre_px)).fit(group).copies > 0.9
