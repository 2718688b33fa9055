"""Impossible values are refused with their row, before anything else is done."""

import pytest

from jaxrelax.io import InputError, read_particles


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("10/some3.star", r"row.* rlnRandomSubset is 3; half-sets are 1 and 2"),
        ("10/frac.star", r"row.* rlnRandomSubset is 1\.5; half-sets are 1 and 2"),
        ("19/ac10.star", r"row.* rlnAmplitudeContrast is 10; .* fraction from 0 to 1"),
    ],
)
def test_impossible_values_are_refused(case, name, message):
    number, file = name.split("/")
    with pytest.raises(InputError, match=message):
        read_particles(case(number) / file)
