"""Results of cryoSPARC's particles go back as groups of files that are there."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment import next_steps, save
from jaxrelax.io import OutputFolder, read_map, read_particles
from tests.assessment.conftest import PIXEL, N, make_result, make_states

yaml = pytest.importorskip("yaml", reason="PyYAML comes with the docs extra")


@pytest.fixture
def cryosparc_particles(shared_data):
    source = shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs"
    return lambda n: read_particles(source).select(np.arange(n))


def with_particles(result, particles):
    """The result, of other particles."""
    ours = result.particles
    return replace(
        result,
        particles=particles.with_updates(
            rotations=ours.rotations,
            half_set=ours.half_set,
            class_number=ours.class_number,
            extra_columns=ours.extra_columns,
        ),
    )


def groups_of(folder):
    return {path.name: yaml.safe_load(path.read_text()) for path in folder.glob("*.csg")}


def test_groups_of_a_result(cryosparc_particles, tmp_path):
    result = with_particles(make_result(tmp_path / "in"), cryosparc_particles(60))
    folder = OutputFolder.create(tmp_path / "out")
    save(result, folder)
    groups = groups_of(folder.path)
    assert set(groups) == {"particles.csg", "volume.csg", "mask.csg"}
    assert groups["particles.csg"]["results"]["blob"]["num_items"] == 60
    # What a local refinement needs is there: half-sets and both half-maps.
    records = np.load(folder / "particles.cs")
    assert np.array_equal(records["alignments3D/split"] + 1, result.particles.half_set)
    assert {"map", "map_half_A", "map_half_B"} == set(groups["volume.csg"]["results"])
    # The next steps name them.
    named = " ".join(line for step in next_steps(result) for line in step.commands)
    assert all(f"out/{name}" in named for name in groups)
    # --overwrite takes them away again.
    assert {path.name for path in folder.results()} == {p.name for p in folder.path.iterdir()}


def test_files_of_groups_are_there(cryosparc_particles, tmp_path):
    result = with_particles(make_result(tmp_path / "in"), cryosparc_particles(60))
    folder = OutputFolder.create(tmp_path / "out")
    save(result, folder)
    for name in ("volume", "mask"):
        row = np.load(folder / f"{name}.cs")
        for field in row.dtype.names:
            if field.endswith("/path"):
                slot = field.removesuffix("/path")
                map_, pixel = read_map(folder / row[field][0].decode().removeprefix(">"))
                assert map_.shape == tuple(row[f"{slot}/shape"][0]) == (N, N, N)
                assert pixel == pytest.approx(float(row[f"{slot}/psize_A"][0])) == PIXEL


def test_every_state_has_groups_of_its_own(cryosparc_particles, tmp_path):
    result = make_states(
        with_particles(make_result(tmp_path / "in", 400), cryosparc_particles(400))
    )
    folder = OutputFolder.create(tmp_path / "out")
    save(result, folder)
    groups = groups_of(folder.path)
    for number in (1, 2, 3):
        group = groups[f"particles_class{number:02d}.csg"]
        records = np.load(folder / f"particles_class{number:02d}.cs")
        assert group["results"]["ctf"]["metafile"] == f">particles_class{number:02d}.cs"
        assert group["results"]["ctf"]["num_items"] == len(records) > 0
        assert np.all(records["alignments3D/class"] == number - 1)
        row = np.load(folder / f"volume_class{number:02d}.cs")
        assert row["map_half_B/path"][0] == f">half2_class{number:02d}.mrc".encode()
    assert len(groups) == 12
    assert {path.name for path in folder.results()} == {p.name for p in folder.path.iterdir()}


def test_particles_from_elsewhere_have_none(tmp_path):
    folder = OutputFolder.create(tmp_path / "out")
    save(make_result(tmp_path / "in"), folder)
    assert not [path for path in folder.path.iterdir() if path.suffix in (".cs", ".csg")]
