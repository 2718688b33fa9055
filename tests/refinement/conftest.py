"""Small simulated data sets: one partner on a C4 ring, and the same ring with all four."""

from pathlib import Path

import pytest

from jaxrelax.io import read_particles
from jaxrelax.simulate import Simulation, simulate

SMALL = dict(
    n_images=240,
    box=56,
    pixel_size_angstrom=4.5,
    group="C4",
    protomer_kda=30.0,
    partner_kda=45.0,
    snr=0.15,
    pose_error_deg=4.0,
    shift_error_angstrom=1.0,
    max_shift_angstrom=10.0,
    seed=3,
)
# Shifts and blobs small enough for a box of 32 px; poses are exact.
TINY = dict(
    box=32, pixel_size_angstrom=7.0, n_images=240, protomer_kda=20.0, partner_kda=40.0, snr=0.15,
    pose_error_deg=0.0, shift_error_angstrom=0.0, max_shift_angstrom=5.0,
)  # fmt: skip


class DataSet:
    """A simulated folder with its tables read."""

    def __init__(self, folder: Path, **changes):
        simulate("phantom", folder, Simulation(**(SMALL | changes)))
        self.folder = folder
        self.star = folder / "particles.star"
        self.reference = folder / "reference.mrc"
        self.truth = read_particles(folder / "truth.star")


@pytest.fixture(scope="session")
def one_partner(tmp_path_factory) -> DataSet:
    return DataSet(tmp_path_factory.mktemp("one_partner"))


@pytest.fixture(scope="session")
def four_partners(tmp_path_factory) -> DataSet:
    return DataSet(tmp_path_factory.mktemp("four_partners"), occupancy="all")


@pytest.fixture(scope="session")
def two_groups(tmp_path_factory) -> DataSet:
    return DataSet(tmp_path_factory.mktemp("two_groups"), n_optics_groups=2, n_images=120)
