"""Item 6: a report does not claim flatly what it contradicts itself."""

import pytest

from jaxrelax.assessment.contradictions import crowded_register
from jaxrelax.assessment.findings import headline, warnings
from jaxrelax.geometry import point_group
from jaxrelax.io import read_map
from jaxrelax.reconstruction import isotypic_parts, symmetrise
from jaxrelax.refinement import Map, MaxIterations, Registers, Relax, refine


@pytest.fixture
def base(shared_data):
    folder = shared_data / "cases" / "base"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def relaxed(folder, table, group, iterations, reference=None):
    return refine(
        folder / table, folder / "reference.mrc" if reference is None else reference,
        mode=Registers(), relax=Relax(group), until=MaxIterations(iterations), subgroups="none",
        ini_high=20.0, max_alignment_resolution=18.0,
    )  # fmt: skip


@pytest.mark.slow
def test_poses_that_had_told_registers_apart_are_a_condition(base):
    """As from a refinement in C1: right, but only of such poses."""
    result = relaxed(base, "truth.star", "C4", 6)
    assert crowded_register(result) > 0.8
    assert "if the input poses told registers apart already" in headline(result)
    assert any("a refinement in C1" in note for note in warnings(result))


@pytest.mark.slow
def test_a_wrong_group(base):
    """C4 images relaxed as if they were C5, from a map that was made C5: no check can refuse it.

    The asymmetric FSC falls short in the first shell, 250 Å, and is 0.8 to 0.9 from 62 to 28 Å:
    the difference map had 0.013 of the map's amplitude, and the prediction was chance.
    """
    map_, pixel = read_map(base / "reference.mrc")
    made = Map(symmetrise(map_, point_group("C5")), pixel)
    result = relaxed(base, "particles.star", "C5", 20, made)
    assert crowded_register(result) > 0.8
    assert any("the map does not have C5" in note for note in warnings(result))
    curve = result.fsc["asymmetric"]
    assert curve[1] < 0.143 < 0.5 < curve[4:10].min()
    parts = isotypic_parts(result.map, point_group("C5"), point_group("C1"))
    assert (parts.asymmetric**2).sum() > 0.05 * (parts.symmetric**2).sum()
    assert result.discriminability.resolvable
