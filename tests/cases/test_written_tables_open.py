"""A table that we write leads to its images from where it lies, and RELION reads it."""

import shutil
import subprocess

import numpy as np
import pytest

from jaxrelax.io import ImageReader, read_particles, write_cs, write_star
from jaxrelax.io.image_root import noted

# RELION takes "data_" in a comment for the head of a block.
DATA = "data_particles"


@pytest.fixture
def project(case, tmp_path):
    """The guide's layout: images and table in one folder, results in another."""
    case("base").rename(tmp_path / DATA)
    (tmp_path / "out").mkdir()
    return tmp_path


def test_written_beside_the_data(project):
    source = read_particles(project / DATA / "particles.star")
    write_star(source, project / "out" / "particles.star")
    found = read_particles(project / "out" / "particles.star")
    assert found.stack_paths == source.stack_paths
    ImageReader(found).validate()
    assert found.column("rlnImageName").tolist() == source.column("rlnImageName").tolist()


def test_project_moved_or_table_moved(project, tmp_path_factory):
    write_star(read_particles(project / DATA / "particles.star"), project / "out" / "a.star")
    far = tmp_path_factory.mktemp("far")
    shutil.copyfile(project / "out" / "a.star", far / "a.star")
    ImageReader(read_particles(far / "a.star")).validate()
    project.rename(far / "moved")
    moved = read_particles(far / "moved" / "out" / "a.star")
    assert moved.stack_paths[0].is_relative_to(far / "moved")
    ImageReader(moved).validate()


def test_note_goes_before_a_stack_of_the_same_name_above(project):
    source = read_particles(project / DATA / "particles.star")
    write_star(source, project / "out" / "a.star")
    (project / "particles.mrcs").write_bytes(b"another stack")
    assert read_particles(project / "out" / "a.star").stack_paths == source.stack_paths


def test_written_again_and_again_notes_once(project):
    path = project / "out" / "a.star"
    write_star(read_particles(project / DATA / "particles.star"), path)
    for _ in range(2):
        write_star(read_particles(path), path)
    document = read_particles(path).document
    assert document.noted_roots() == [f"../{DATA}", str(project / DATA)]
    assert "# version 30001" in path.read_text()
    assert not [line for line in path.read_text().split("\n") if "#" in line and "data_" in line]
    assert noted("# version 30001") == []


def test_working_directory_is_searched(project, monkeypatch):
    shutil.copyfile(project / DATA / "particles.star", project / "out" / "bare.star")
    assert not read_particles(project / "out" / "bare.star").stack_paths[0].exists()
    monkeypatch.chdir(project / DATA)
    ImageReader(read_particles(project / "out" / "bare.star")).validate()


def test_cs_notes_the_folder_in_a_field(project, shared_data):
    records = np.load(shared_data / "cases" / "11" / "J9_particles_expanded.cs")[:20]
    records["blob/path"] = b"particles.mrcs"
    with open(project / DATA / "a.cs", "wb") as handle:
        np.save(handle, records)
    source = read_particles(project / DATA / "a.cs")
    write_cs(source, project / DATA / "same.cs")  # leads there by itself
    assert np.load(project / DATA / "same.cs").dtype == records.dtype
    write_cs(source, project / "out" / "b.cs")
    write_cs(read_particles(project / "out" / "b.cs"), project / "out" / "c.cs")
    assert read_particles(project / "out" / "c.cs").stack_paths == source.stack_paths


def test_relion_reads_it_from_the_project_folder(project):
    if shutil.which("relion_reconstruct") is None:
        pytest.skip("not on PATH: relion_reconstruct (Debian: apt install relion)")
    write_star(read_particles(project / DATA / "particles.star"), project / "out" / "a.star")
    words = "relion_reconstruct --i ../out/a.star --o ../out/a.mrc --ctf --maxres 30"
    subprocess.run(words.split(), cwd=project / DATA, check=True, capture_output=True, timeout=60)
    assert (project / "out" / "a.mrc").stat().st_size == 1024 + 4 * 64**3
