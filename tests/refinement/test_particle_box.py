"""The box of the particle, and the rungs of its shells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.imaging import Shells, volume_radius, working_box
from jaxrelax.io import read_map
from jaxrelax.reconstruction import particle_box
from jaxrelax.refinement import Local, MaxIterations, Relax, prepare, refine


@given(half=st.integers(8, 400), pixel=st.floats(0.3, 8.0), share=st.floats(0.05, 1.0))
def test_the_box_holds_the_sphere_and_is_never_wider_than_the_images(half, pixel, share):
    image_box = 2 * half
    diameter = share * image_box * pixel
    box = particle_box(image_box, pixel, diameter)
    assert box % 2 == 0
    assert box <= image_box
    edge = max(10.0, 3.0 * pixel)
    if box < image_box:
        assert box * pixel >= max(diameter + 2 * edge, 1.1 * diameter) - 1e-6
    wider = particle_box(image_box, pixel, min(1.1 * diameter, image_box * pixel))
    assert wider >= box


def bare(last: int) -> Shells:
    """Shells of a box that just holds them."""
    return Shells(2 * last + 2, 1.0, last)


@given(last=st.integers(7, 400), share=st.floats(0.0, 1.0), grow=st.booleans())
def test_maps_of_what_is_accumulated_serve_whatever_they_may_score(last, share, grow):
    shells = bare(last)
    score = max(1, round(share * last))
    accumulated = shells.accumulated(score, grow)
    assert score <= shells.rung(score) <= accumulated <= last
    box = working_box(accumulated)
    for following in {score, max(shells.whole(accumulated), 1)}:
        if following <= max(score, shells.whole(accumulated)):
            assert volume_radius(shells.rung(following)) <= box


def test_no_two_rungs_are_nearly_the_same():
    for last in range(12, 400):
        rungs = np.array(bare(last).rungs)
        assert rungs[-1] == last
        assert np.all(rungs[1:-1] >= 1.08 * rungs[:-2])


@pytest.fixture(scope="module")
def narrow(one_partner):
    """A refinement in a box narrower than the images."""
    return refine(
        one_partner.star, one_partner.reference, mode=Local(), relax=Relax("C4"),
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
