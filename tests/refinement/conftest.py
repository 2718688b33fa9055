"""Small simulated data sets: one partner on a C4 ring, and the same ring with all four."""

from pathlib import Path

import numpy as np
import pytest
import starfile

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


@pytest.fixture(scope="session")
def mixture(tmp_path_factory):
    """A phantom whose every second particle has one partner, and the others none."""
    folder = tmp_path_factory.mktemp("mixture")
    simulate(
        "phantom", folder,
        Simulation(
            n_images=240, box=40, pixel_size_angstrom=7.0, snr=0.3, group="C4",
            protomer_kda=40.0, partner_kda=60.0, occupancy="1000:0.5,0000:0.5", seed=3,
        ),
    )  # fmt: skip
    truth = starfile.read(folder / "truth.star")["particles"]
    # Patterns are numbered by their number of partners: 1 is none, 2 is one.
    true = np.where(np.asarray(truth["rlnClassNumber"]).astype(int) == 1, 1, 0)
    return folder, true
