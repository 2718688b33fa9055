"""Small particle sets on disk, made from a template so that a test can spoil one thing."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from jaxrelax.io import write_stack

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
opticsGroup1 1 300.000000 2.700000 0.100000 1.500000 16 2
opticsGroup2 2 200.000000 2.000000 0.070000 1.500000 16 2

"""


@dataclass
class ParticleSet:
    """A folder with ``stack.mrcs`` and a STAR file that a test may change before writing."""

    folder: Path
    images: np.ndarray
    optics: str = OPTICS
    columns: dict[str, list[str]] = field(default_factory=dict)

    def write(self) -> Path:
        path = self.folder / "particles.star"
        labels = "".join(f"_{name} #{i}\n" for i, name in enumerate(self.columns, 1))
        rows = "".join("  ".join(row) + "\n" for row in zip(*self.columns.values(), strict=True))
        path.write_text(self.optics + "data_particles\n\nloop_\n" + labels + rows)
        return path

    def write_stack(self, name: str = "stack.mrcs", **options) -> Path:
        write_stack(self.folder / name, self.images, **{"pixel_size_angstrom": 1.5, **options})
        return self.folder / name


@pytest.fixture
def particle_set(tmp_path) -> ParticleSet:
    n = 6
    rng = np.random.default_rng(3)
    folder = tmp_path / "project"
    folder.mkdir()
    columns = {
        "rlnImageName": [f"{i + 1:06d}@stack.mrcs" for i in range(n)],
        "rlnMicrographName": [f"mic{i // 2}.mrc" for i in range(n)],
        "rlnOpticsGroup": ["1", "1", "1", "2", "2", "2"],
        "rlnDefocusU": [f"{u:.6f}" for u in rng.uniform(1e4, 2e4, n)],
        "rlnDefocusV": [f"{v:.6f}" for v in rng.uniform(1e4, 2e4, n)],
        "rlnDefocusAngle": [f"{a:.6f}" for a in rng.uniform(0, 180, n)],
        "rlnAngleRot": [f"{a:.6f}" for a in rng.uniform(-180, 180, n)],
        "rlnAngleTilt": [f"{a:.6f}" for a in rng.uniform(0, 180, n)],
        "rlnAnglePsi": [f"{a:.6f}" for a in rng.uniform(-180, 180, n)],
        "rlnOriginXAngst": [f"{x:.6f}" for x in rng.uniform(-5, 5, n)],
        "rlnOriginYAngst": [f"{x:.6f}" for x in rng.uniform(-5, 5, n)],
        "rlnRandomSubset": ["1", "2", "1", "2", "1", "2"],
        "rlnHelicalTubeID": ["4", "4", "4", "5", "5", "5"],
        "rlnLogLikeliContribution": ["1.421115e+05"] * n,
    }
    made = ParticleSet(folder, rng.standard_normal((n, 16, 16)).astype(np.float32))
    made.columns = columns
    return made


def parse_star(path: Path) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Blocks of a STAR file by a second, simpler parser: name to (labels, rows of text)."""
    blocks: dict[str, tuple[list[str], list[list[str]]]] = {}
    labels: list[str] = []
    rows: list[list[str]] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if not words or words[0].startswith("#") or words[0] == "loop_":
            continue
        if words[0].startswith("data_"):
            labels, rows = [], []
            blocks[words[0][len("data_") :]] = (labels, rows)
        elif words[0].startswith("_"):
            labels.append(words[0][1:])
        else:
            rows.append(words)
    return blocks
