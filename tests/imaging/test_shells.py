"""Shells of a map: resolutions, rungs, and what is accumulated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.imaging import MARGIN, Shells, volume_radius, working_box


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


@given(last=st.integers(2, 300), shell=st.integers(0, 310))
def test_a_rung_is_the_first_at_or_beyond_a_shell(last, shell):
    shells = bare(last)
    rung = shells.rung(shell)
    assert rung in shells.rungs
    assert rung == min([r for r in shells.rungs if r >= shell], default=last)


@given(
    box=st.integers(4, 200).map(lambda half: 2 * half), pixel=st.floats(0.5, 8.0),
    resolution=st.floats(1.0, 500.0), share=st.floats(0.1, 1.0),
)  # fmt: skip
def test_shells_and_resolutions(box, pixel, resolution, share):
    shells = Shells(box, pixel, max(int(share * (box // 2 - 1)), 1))
    assert shells.count == len(np.fft.rfftfreq(box))
    assert shells.edge_angstrom == pytest.approx(box * pixel)
    shell = shells.at(resolution)
    assert 1 <= shell <= shells.last
    # The last one at or below that resolution, unless it is one of the ends.
    if 1 < shell < shells.last:
        assert shells.resolution(shell) >= resolution * (1 - 1e-9)
        assert shells.resolution(shell + 1) < resolution * (1 + 1e-9)
    # A shell is found again by its resolution, up to rounding.
    assert shells.at(shells.resolution(shell) * (1 - 1e-9)) == shell
    assert shells.resolution(0) == shells.resolution(1)
    assert shells.last_scored == shells.last
    limited = Shells(box, pixel, shells.last, finest_scored_angstrom=resolution)
    assert limited.last_scored == shell


def test_what_is_accumulated_goes_beyond_the_band_and_further_where_it_grows():
    shells = bare(100)
    assert shells.rung(20) == 20
    assert shells.accumulated(20, grow=False) == 20 + MARGIN
    assert shells.accumulated(20, grow=True) == shells.rung(25) + MARGIN > 25
    assert shells.whole(shells.accumulated(20, grow=False)) == 20
    # At the end there is nothing beyond.
    assert shells.accumulated(100, grow=True) == 100
