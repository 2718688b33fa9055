"""`jaxrelax refine --noise`: which noise model the options make."""

from pathlib import Path

import pytest

from jaxrelax.cli.refine import Command
from jaxrelax.imaging import RadialNoise, SmoothNoise
from jaxrelax.io import InputError


def noise_of(**options):
    command = Command(Path("p.star"), Path("m.mrc"), Path("out"), relax="C4", **options)
    return command.components()[2]


def test_the_noise_model_follows_the_options():
    assert noise_of() == RadialNoise()
    assert noise_of(noise="from-images", fixed_noise=True) == RadialNoise(fixed=True)
    assert noise_of(noise="white") == RadialNoise(from_images=False)
    assert noise_of(noise="smooth") == SmoothNoise()


def test_smooth_noise_cannot_be_fixed():
    with pytest.raises(InputError, match="--fixed-noise: cannot act with --noise smooth"):
        noise_of(noise="smooth", fixed_noise=True)
