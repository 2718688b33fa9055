"""An iteration in a line for a terminal."""

import dataclasses

import pytest

from jaxrelax.refinement import MaxIterations, RegistersSettled, ResolutionStalled, Straight
from jaxrelax.refinement.course import SeekAmplifySettle
from jaxrelax.refinement.lines import details, in_short, most_iterations

from .made_up import NOTHING

UNTIL = (ResolutionStalled() & RegistersSettled()) | MaxIterations(50)


def of(course=None, **changes):
    info = dataclasses.replace(NOTHING, **changes)
    return in_short(info, course or SeekAmplifySettle(), UNTIL)


def test_what_a_user_wants_to_see():
    line = of(
        iteration=7, phase=2, resolution_angstrom=12.04, asymmetric_resolution_angstrom=17.2,
        mean_max_posterior=0.463, register_change=0.081, seconds=2.04,
    )  # fmt: skip
    expected = "it 7/≤50  amplifying  whole 12.0 Å  partner 17 Å  sure 46 %  moved 8 %  2.0 s"
    assert line == expected
    assert "partner –" in of()
    assert of(Straight(), relaxed=False) == "it 1/≤50  whole 20.0 Å  0.0 s"


@pytest.mark.parametrize(
    "changes",
    [
        {"fractions": (0.25, 0.25, 0.2, 0.1, 0.1, 0.05, 0.05), "state_certainty": 1.0},
        {"searched_globally": True, "relaxed": False, "pose_jumps": 1.0},
        {"searched_globally": True, "asymmetric_resolution_angstrom": 99.0},
    ],
)
def test_it_fits_a_terminal(changes):
    line = of(iteration=50, resolution_angstrom=99.9, seconds=3600.0, **changes)
    assert len(line) < 80
    info = dataclasses.replace(NOTHING, **changes)
    assert len(details(info, SeekAmplifySettle())) > 30


def test_after_how_many_iterations_it_ends():
    assert most_iterations(UNTIL) == 50
    assert most_iterations(MaxIterations(3) & MaxIterations(5)) == 5
    assert most_iterations(MaxIterations(3) & RegistersSettled()) is None
    assert most_iterations(RegistersSettled()) is None
