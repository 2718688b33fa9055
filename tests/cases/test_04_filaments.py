"""Overlapping segments of tubes are no independent evidence: exactly C4."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.io import InputError, find_units, read_particles
from jaxrelax.refinement import MaxIterations, Registers, Relax, refine
from jaxrelax.refinement.splits import half_sets


@pytest.mark.parametrize(
    "name", [pytest.param("seg.star", marks=pytest.mark.slow), "seg_bytube.star"]
)
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


def test_a_single_tube_is_called_one(case):
    path = case("13") / "seg.star"
    one = path.with_name("one.star")
    lines = path.read_text().splitlines()
    # Without micrographs a tube is one of its stack.
    rows = [" ".join([*line.split()[:-1], "1"]) if "@" in line else line for line in lines]
    one.write_text("\n".join(rows).replace("_rlnMicrographName", "_rlnOther") + "\n")
    particles = read_particles(one)
    with pytest.raises(InputError, match="segments of only 0 tubes"):
        half_sets(particles, find_units(particles), 0)


def test_optics_groups_of_few_images_are_no_tubes(case):
    path = case("base") / "particles.star"
    particles = read_particles(path)
    particles = dataclasses.replace(
        particles, optics=particles.optics * 150, optics_group=np.arange(300, dtype=np.int32) // 2
    )
    with pytest.raises(InputError, match="no optics group has 3 images in a half-set"):
        half_sets(particles, find_units(particles), 0, tested=True)
