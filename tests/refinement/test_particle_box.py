"""Refinements in the box of the particle."""

import numpy as np
import pytest

from jaxrelax.io import read_map
from jaxrelax.reconstruction import particle_box
from jaxrelax.refinement import MaxIterations, Registers, Relax, prepare, refine


@pytest.fixture(scope="module")
def narrow(one_partner):
    """A refinement in a box narrower than the images."""
    return refine(
        one_partner.star, one_partner.reference, mode=Registers(), relax=Relax("C4"),
        until=MaxIterations(1), particle_diameter=170.0,
    )  # fmt: skip


def test_maps_come_back_on_the_box_of_the_images(narrow, one_partner):
    reference, pixel = read_map(one_partner.reference)
    box = particle_box(len(reference), pixel, 170.0)
    assert box < len(reference)
    assert narrow.shell_edge_angstrom == pytest.approx(box * pixel)
    for map_ in (narrow.map, *narrow.half_maps, narrow.mask, narrow.difference):
        assert map_.shape == reference.shape
        ring = len(reference) // 2 - box // 2
        assert not map_[:ring].any()
        assert not map_[..., ring + box :].any()
    for curve in narrow.fsc.values():
        assert len(curve) == box // 2 + 1
    # In place and of one scale.
    centre = slice(len(reference) // 2 - 12, len(reference) // 2 + 12)
    ours, given_ = narrow.map_symmetrised[(centre,) * 3], reference[(centre,) * 3]
    assert np.corrcoef(ours.ravel(), given_.ravel())[0, 1] > 0.8


def test_half_maps_end_smoothly(narrow, one_partner):
    box = round(narrow.shell_edge_angstrom / narrow.pixel_size_angstrom)
    ring = len(narrow.map) // 2 - box // 2
    for map_ in narrow.half_maps:
        last, middle = map_[ring + 1], map_[len(map_) // 2]
        assert np.std(last[ring:-ring, ring:-ring]) < 0.1 * np.std(middle[ring:-ring, ring:-ring])


def test_the_diameter_decides_the_box(one_partner):
    boxes = [
        prepare(one_partner.star, one_partner.reference, particle_diameter=d).problem.shells.box
        for d in (120.0, 170.0, 250.0)
    ]
    assert boxes == sorted(boxes)
    assert boxes[0] < boxes[-1] == 56
