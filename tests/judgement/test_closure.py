"""Verdicts on several symmetries follow the logic of subgroups."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import point_group, subgroup
from jaxrelax.judgement.closure import closed, containment
from jaxrelax.judgement.held_out_test import supported
from jaxrelax.judgement.subgroup_classes import candidate_subgroups
from jaxrelax.refinement import SubgroupTest


@lru_cache
def classes(name, kept="C1"):
    """Candidates, and which are contained in which."""
    group = point_group(name)
    candidates = candidate_subgroups(group, subgroup(group, kept))
    return candidates, containment(candidates, group)


def judged(name, p, kept="C1"):
    candidates, contained = classes(name, kept)
    rows = [
        SubgroupTest(c.name, c.conjugates[0].operators, 0.0, p[c.name], np.log10(p[c.name]), 0.0)
        for c in candidates
    ]
    return closed(rows, contained)


def test_what_has_c4_has_c2():
    c4, c2 = judged("C4", {"C4": 0.014, "C2": 0.0028})
    assert (c4.rejected, c2.rejected) == (False, False)
    assert (c4.implied_by, c2.implied_by) == (None, "C4")
    assert c2.verdict() == "implied by C4"
    assert c2.p_value == 0.0028  # what the files hold is the test itself
    c4, c2 = judged("C4", {"C4": 1e-9, "C2": 0.0028})
    assert c4.rejected
    assert c2.rejected
    assert c2.verdict() == "rejected"


def test_what_is_no_subgroup_is_left_alone():
    rows = judged("D7", {"D7": 1e-9, "C7": 0.4, "C2": 1e-9})
    assert [row.verdict() for row in rows] == ["rejected", "not contradicted", "rejected"]
    assert supported(rows, "C1", True) == "C7"


def test_only_the_first_rows_are_there_if_others_were_not_asked_for():
    row = SubgroupTest("D7", point_group("D7").operators, 9.0, 1e-9, -9.0, 1.0)
    assert closed([row], classes("D7")[1]) == [row]


def test_which_class_contains_which():
    candidates, contained = classes("D4")
    inside = {
        (small.name, large.name)
        for i, small in enumerate(candidates)
        for j, large in enumerate(candidates)
        if contained[i, j]
    }
    assert ("C4", "D4") in inside
    assert ("C2 on (0 0 1)", "C4") in inside
    # The 2-folds of the plane are not in C4, and those on the axes in one of the two D2 only.
    assert not any(large == "C4" and small != "C2 on (0 0 1)" for small, large in inside)
    for name in (c.name for c in candidates if c.order == 2 and c.name != "C2 on (0 0 1)"):
        assert len([large for small, large in inside if small == name]) == 2  # a D2, and D4


@pytest.mark.parametrize(("name", "kept"), [("D4", "C1"), ("O", "C1"), ("D6", "C2"), ("O", "C3")])
@given(seed=st.integers(0, 2**32 - 1))
def test_verdicts_are_closed(name, kept, seed):
    rng = np.random.default_rng(seed)
    candidates, contained = classes(name, kept)
    names = [c.name for c in candidates]
    p = dict(zip(names, (10.0 ** rng.uniform(-4, 0, len(names))).tolist(), strict=True))
    rows = judged(name, p, kept)
    for i, row in enumerate(rows):
        # A particle with a symmetry has its subgroups.
        assert not row.rejected or all(rows[j].rejected for j in np.flatnonzero(contained[i]))
        assert not row.rejected or p[row.name] < 0.01
        assert row.rejected or row.implied_by or p[row.name] >= 0.01


def test_the_true_symmetry_decides_how_often_anything_true_is_rejected():
    """D4 particles: of all seven tests at once, hardly more than one in a hundred errs."""
    rng = np.random.default_rng(0)
    names = [c.name for c in classes("D4")[0]]
    errors = 0
    for _ in range(300):
        rows = judged("D4", dict(zip(names, rng.uniform(0, 1, len(names)).tolist(), strict=True)))
        errors += any(row.rejected for row in rows)
    assert errors <= 9  # 3 expected; without closure 20
