"""What the sweeps share: small phantoms with known truth, the ways to refine them, a CSV of rows.

All phantoms have a symmetric body of 200 kDa and one partner, on boxes of 40 pixels of 7.5 Å: as
after binning, so that an SNR of 0.3 here is about 0.03 at 2.6 Å per pixel.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrelax.assessment import consensus_error
from jaxrelax.assessment.figures import BLUE, GREEN, INK, ORANGE, SKY
from jaxrelax.geometry import nearest_operator, parse_group
from jaxrelax.io import Particles, read_map, read_particles
from jaxrelax.refinement import Local, Mode, Registers, Relax, Result, refine
from jaxrelax.simulate import Simulation, simulate

BODY_KDA = 200.0
BOX = 40
PIXEL_ANGSTROM = 7.5
INI_HIGH_ANGSTROM = 24.0
SHIFT_ERROR_ANGSTROM_PER_DEG = 0.5  # error of the origins that goes with that of the poses

METHODS = ("truth_start", "ours", "field")
LABELS = {
    "oracle": "true map, true poses",
    "oracle_consensus": "true map, consensus poses",
    "truth_start": "from the true registers",
    "ours": "from the symmetric map",
    "field": "the field's way",
}
COLOURS = dict(zip(LABELS, (INK, SKY, GREEN, BLUE, ORANGE), strict=True))


@dataclass(frozen=True)
class Point:
    """One simulated data set but for its seed; the mass is that of the partner over the body."""

    group: str
    mass_percent: float
    snr: float
    images: int
    junk_percent: float = 0.0
    junk_kind: str = "noise"
    pose_error_deg: float = 0.0
    occupancy: str = "one"

    def simulation(self, seed: int) -> Simulation:
        """The options that make it; another seed also gives another object."""
        return Simulation(
            n_images=self.images,
            box=BOX,
            pixel_size_angstrom=PIXEL_ANGSTROM,
            group=self.group,
            protomer_kda=BODY_KDA / parse_group(self.group).order,
            partner_kda=BODY_KDA * self.mass_percent / 100.0,
            occupancy=self.occupancy,
            phantom_seed=seed,
            snr=self.snr,
            pose_error_deg=self.pose_error_deg,
            shift_error_angstrom=SHIFT_ERROR_ANGSTROM_PER_DEG * self.pose_error_deg,
            max_shift_angstrom=PIXEL_ANGSTROM,
            junk_fraction=self.junk_percent / 100.0,
            junk_kind=self.junk_kind,
            seed=seed,
        )


@dataclass(frozen=True)
class DataSet:
    """A simulated folder."""

    folder: Path
    point: Point
    seed: int

    @cached_property
    def consensus(self) -> Particles:
        """Particles as a symmetric refinement leaves them."""
        return read_particles(self.folder / "particles.star")

    @cached_property
    def truth(self) -> Particles:
        """The same with true poses."""
        return read_particles(self.folder / "truth.star")

    @cached_property
    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """The true map, and it symmetrised."""
        return tuple(read_map(self.folder / f"{n}.mrc")[0] for n in ("truth_map", "reference"))

    @cached_property
    def mode(self) -> Mode:
        """Exact poses are held; others are refined, with the prior that their errors have."""
        if self.point.pose_error_deg == 0:
            return Registers()
        rotation, shift = consensus_error(self.consensus, self.truth, self.point.group)
        return Local(sigma_rotation_deg=rotation, sigma_shift_angstrom=shift)

    def true_start(self) -> Particles:
        """Consensus poses at the register mate nearest to the true pose."""
        operators = parse_group(self.point.group).operators
        poses = self.consensus.rotations
        mate, _ = nearest_operator(self.truth.rotations.mT @ poses, operators)
        return self.consensus.with_updates(rotations=poses @ operators[mate].mT)

    def refine(self, method: str, callbacks=()) -> Result:
        """Refine by one of `METHODS`, from the symmetrised true map."""
        particles = self.true_start() if method == "truth_start" else self.consensus
        return refine(
            particles, self.folder / "reference.mrc", mode=self.mode,
            relax=relaxation(method, self.point.group), ini_high=INI_HIGH_ANGSTROM,
            seed=self.seed, callbacks=callbacks,
        )  # fmt: skip


def relaxation(method: str, group: str) -> Relax:
    """The field's way: images scored by maps that hold them, one FSC for the whole map, no junk."""
    if method == "field":
        return Relax(group, cross_fit=1, prior="plain", optimism=0.0, junk=False)
    return Relax(group, start="poses" if method == "truth_start" else "symmetric")


@contextmanager
def data_set(point: Point, seed: int) -> Iterator[DataSet]:
    """Simulate into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        simulate("phantom", folder, point.simulation(seed))
        yield DataSet(Path(folder), point, seed)


class Rows:
    """A CSV that grows by one row at a time and knows which keys it has."""

    def __init__(self, path: Path, keys: tuple[str, ...], columns: tuple[str, ...]):
        self.path, self.keys, self.columns = path, keys, keys + columns
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with path.open("w", newline="") as file:
                csv.writer(file).writerow(self.columns)
        elif tuple(pd.read_csv(path, nrows=0).columns) != self.columns:
            raise SystemExit(f"{path} was made by another version of this script; move it away")
        self._found = {self._key(row): row for row in self.table().to_dict("records")}

    def table(self) -> pd.DataFrame:
        """All rows."""
        return pd.read_csv(self.path)

    def get(self, key: dict) -> dict | None:
        """The row with this key, if it was made."""
        return self._found.get(self._key(key))

    def append(self, row: dict) -> None:
        """Write a row now, so that nothing is lost when the sweep is stopped."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)
        self._found[self._key(row)] = row

    def _key(self, row: dict) -> tuple:
        values = [row[name] for name in self.keys]
        return tuple(v if isinstance(v, str) else float(v) for v in values)
