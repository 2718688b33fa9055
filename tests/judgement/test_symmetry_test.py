"""Which symmetry do the images know of: plan, choice of conjugates, and known truths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from jaxrelax.geometry import point_group, subgroup, subgroup_indices, subgroups
from jaxrelax.judgement import symmetry_test
from jaxrelax.judgement.held_out_test import supported
from jaxrelax.judgement.subgroup_classes import (
    Split,
    candidate_subgroups,
    group_correlation,
    most_preserved,
)
from jaxrelax.judgement.symmetry_test import scores
from jaxrelax.reconstruction import soft_sphere, symmetrise
from jaxrelax.refinement import MaxIterations, Registers, Relax, SubgroupTest, prepare, refine
from tests.refinement.conftest import TINY, DataSet


def relaxed(folder, **changes):
    # Five iterations leave registers sought for.
    data = DataSet(folder, **(TINY | changes))
    return refine(
        data.star, data.reference, relax=Relax("C4"), mode=Registers(), until=MaxIterations(5),
        ini_high=20.0, subgroups="all",
    ).evidence  # fmt: skip


def names(group, kept="C1"):
    group = point_group(group)
    return [c.name for c in candidate_subgroups(group, subgroup(group, kept))]


def test_what_is_tested():
    assert names("C4") == ["C4", "C2"]
    assert names("C4", "C2") == ["C4"]
    assert names("D7") == ["D7", "C7", "C2"]
    assert names("T", "C3") == ["T"]
    d4 = names("D4")
    assert len(set(d4)) == len(d4) == 7
    assert [n for n in d4 if n.startswith("C2 on (0 0 1)")]


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["C6", "D2", "D4", "T"]), st.randoms(use_true_random=False))
def test_candidates_contain_what_is_kept(name, random):
    group = point_group(name)
    kept = random.choice([h for _, h in subgroups(group) if h.order < group.order])
    inside = set(subgroup_indices(group, kept))
    candidates = candidate_subgroups(group, kept)
    orders = [c.order for c in candidates]
    assert orders == sorted(orders, reverse=True)
    assert candidates[0].order == group.order
    for candidate in candidates:
        assert len({c.order for c in candidate.conjugates}) == 1
        assert all(inside < set(subgroup_indices(group, c)) for c in candidate.conjugates)


def test_the_conjugate_that_keeps_most_is_chosen():
    group = point_group("D3")
    rng = np.random.default_rng(0)
    # Smooth, and inside the sphere: nothing is lost when it is turned.
    map_ = (soft_sphere(16, 3.0, 3.0) * rng.standard_normal((16, 16, 16))).astype(np.float32)
    map_ = gaussian_filter(map_, 1.0, mode="wrap")
    two_folds = next(c for c in candidate_subgroups(group, point_group("C1")) if c.name == "C2")
    wanted = two_folds.conjugates[2]
    map_ = symmetrise(map_, wanted) + 0.3 * map_
    map_ = map_ - symmetrise(map_, group)
    correlation = group_correlation(map_, group)
    assert most_preserved(two_folds, correlation, group) is wanted
    # The mean over a subgroup is the power of its average.
    power = np.sum(symmetrise(map_, wanted).astype(float) ** 2)
    mean = correlation[subgroup_indices(group, wanted)].mean()
    assert mean == pytest.approx(power, rel=0.02)


@pytest.mark.slow
def test_more_images_than_slices_fit_score_alike(tmp_path, monkeypatch):
    data = DataSet(tmp_path, **TINY)
    setup = prepare(data.star, data.reference, relax=Relax("C4"), mode=Registers(), ini_high=20.0)
    problem, state = setup.problem, setup.state
    rng = np.random.default_rng(0)
    base = np.asarray(state.maps.symmetric[0])
    tested = 0.3 * base.std() * rng.standard_normal(base.shape).astype(np.float32)
    tested *= problem.particle.sphere(len(base))
    maps = [Split(base, None, tested)] * 2
    shell = problem.shells.accumulated(state.score_shell, grow=False)
    common = (problem.execution, problem.particle, state.conditions(), maps, 6)
    once = scores(*common, seed=0, max_shell=shell)
    monkeypatch.setattr(symmetry_test, "MOST_SLICE_BYTES", 0)
    anew = scores(*common, seed=0, max_shell=shell)
    for a, b in zip(once, anew, strict=True):
        assert np.all(b.foreign.std(axis=1) > 0.01)  # otherwise any orientation would do
        np.testing.assert_allclose(a.foreign, b.foreign, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(a.own, b.own, rtol=1e-3, atol=1e-3)


def row(name, order, p):
    return SubgroupTest(name, np.broadcast_to(np.eye(3), (order, 3, 3)), 0.0, p, np.log10(p), 0.0)


def test_the_largest_symmetry_that_is_not_rejected():
    rows = [row("D4", 8, 1e-5), row("C4", 4, 0.3), row("D2", 4, 0.6), row("C2", 2, 0.9)]
    assert supported(rows, "C1", True) == "D2"
    assert supported(rows[:1], "C1", False) is None
    assert supported(rows[:1], "C1", True) == "C1"
    assert supported([row("D4", 8, 0.02)], "C1", False) == "D4"


def test_a_c2_particle_among_those_of_c4(tmp_path):
    """Partners at opposite sites: C4 is wrong, C2 is right."""
    evidence = relaxed(tmp_path, occupancy="1010", seed=5)
    assert [r.name for r in evidence.subgroups] == ["C4", "C2"]
    assert evidence.found
    assert evidence.p_value < 1e-6
    assert evidence.supported == "C2"
    assert evidence.subgroups[1].p_value > 0.01
    assert evidence.nats_per_particle > 0.1
    assert evidence.nats_per_particle == pytest.approx(evidence.log_gain.mean())
    assert "C2" in evidence.sentence()


def test_a_c4_particle(tmp_path):
    evidence = relaxed(tmp_path, occupancy="all", seed=6)
    assert not evidence.found
    assert evidence.supported == "C4"
    assert evidence.tested
    assert abs(evidence.nats_per_particle) < 0.05
    assert len(evidence.subgroups) == 2
