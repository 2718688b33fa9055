"""Overlapping segments of tubes are no independent evidence: exactly C4."""

import numpy as np
import pytest

from jaxrelax.refinement import MaxIterations, Registers, Relax, refine


@pytest.mark.parametrize("name", ["seg.star", "seg_bytube.star"])
def test_segments_of_a_tube_stay_together(case, name):
    result = refine(
        case("13") / name, case("base4") / "reference.mrc", relax=Relax("C4"), mode=Registers(),
        until=MaxIterations(3), ini_high=25.0, subgroups="none",
    )  # fmt: skip
    assert not result.evidence.found, result.evidence.sentence()
    tube = result.particles.column("rlnHelicalTubeID").astype(int)
    half = result.particles.half_set
    assert all(len(np.unique(half[tube == one])) == 1 for one in np.unique(tube))
    assert np.bincount(half)[1:].min() == 300
