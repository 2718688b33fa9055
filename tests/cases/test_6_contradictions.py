"""Item 6: a report does not claim flatly what it contradicts itself."""

import pytest

from jaxrelax.assessment.contradictions import crowded_register
from jaxrelax.assessment.findings import headline, warnings
from jaxrelax.geometry import point_group
from jaxrelax.io import read_map
from jaxrelax.reconstruction import isotypic_parts, symmetrise
from jaxrelax.refinement import Map, MaxIterations, Registers, Relax, refine


@pytest.fixture(scope="module")
def wrong_group(shared_data, tmp_path_factory):
    """C4 images relaxed as if they were C5, from a map that was made C5: no check can refuse it."""
    base = shared_data / "cases" / "base"
    if not base.is_dir():
        pytest.skip(f"no {base}")
    map_, pixel = read_map(base / "reference.mrc")
    reference = Map(symmetrise(map_, point_group("C5")), pixel)
    return refine(
        base / "particles.star", reference, mode=Registers(), relax=Relax("C5"),
        until=MaxIterations(25), subgroups="none",
    )  # fmt: skip


def test_one_register_holds_most_and_the_headline_says_so(wrong_group):
    assert crowded_register(wrong_group) > 0.8
    assert "if the input poses told registers apart already" in headline(wrong_group)
    assert any("the map does not have C5" in note for note in warnings(wrong_group))


def test_the_asymmetric_part_is_not_dropped_for_one_low_shell(wrong_group):
    """The FSC falls short in the first shell, 250 Å, and is 0.8 to 0.9 from 62 to 28 Å.

    The difference map had 0.013 of the map's amplitude, and the prediction was chance.
    """
    curve = wrong_group.fsc["asymmetric"]
    assert curve[1] < 0.143 < 0.5 < curve[4:10].min()
    parts = isotypic_parts(wrong_group.map, point_group("C5"), point_group("C1"))
    power = (parts.asymmetric**2).sum() / (parts.symmetric**2).sum()
    assert power > 0.05
    assert wrong_group.discriminability.resolvable
