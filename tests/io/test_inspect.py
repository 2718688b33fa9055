"""What `inspect` says about good and bad files."""

import mrcfile
import numpy as np
import pytest

from jaxrelax.io import InputError, format_inspection, inspect_file, write_map


def test_good_particles_have_nothing_to_refuse(particle_set):
    particle_set.write_stack()
    found = inspect_file(particle_set.write())
    rows = dict(found.rows)
    assert found.kind == "RELION particles (3.1 or newer)"
    assert rows["particles"] == "6"
    assert "3 particles, box 16 px, 1.5 Å/px, 300 kV" in rows["optics group opticsGroup1"]
    assert rows["half-sets"] == "1: 3, 2: 3"
    assert rows["classes"] == "none"
    assert rows["image files"] == "1 of 1 found"
    assert rows["helical segments"] == "of 4 tubes (rlnHelicalTubeID)"
    assert found.refusals == ()
    assert found.warnings == ()
    assert "Nothing here that a refinement would refuse" in format_inspection(found)


def test_all_faults_of_a_table_are_listed_together(particle_set):
    stack = particle_set.write_stack(pixel_size_angstrom=1.6)
    stack.write_bytes(stack.read_bytes()[:-4])
    del particle_set.columns["rlnDefocusU"]
    particle_set.columns["rlnBeamTiltX"] = ["0.3"] * 6
    found = inspect_file(particle_set.write())
    text = format_inspection(found)
    for fault in ("truncated", "no column rlnDefocusU"):
        assert sum(fault in refusal for refusal in found.refusals) == 1, text


def test_aberrations_are_told_as_what_they_do(particle_set):
    particle_set.write_stack()
    assert dict(inspect_file(particle_set.write()).rows)["aberrations"] == "none"
    particle_set.columns["rlnBeamTiltX"] = ["0.3"] * 3 + ["0.0"] * 3
    particle_set.columns["rlnMagMat00"] = ["1.02"] * 3 + ["1.0"] * 3
    particle_set.columns["rlnCtfScalefactor"] = ["0.5"] + ["1.0"] * 5
    found = inspect_file(particle_set.write())
    assert found.refusals == ()
    rows = dict(found.rows)
    # 2π Cs λ² β k³ at Nyquist.
    assert rows["aberrations of opticsGroup1"] == (
        "antisymmetric phase up to 0.731 rad at 3 Å; magnification anisotropic by 2 %"
    )
    assert "aberrations of opticsGroup2" not in rows
    assert rows["CTF scale"] == "0.5 to 1"


def test_pixel_size_mismatch_is_a_warning(particle_set):
    particle_set.write_stack(pixel_size_angstrom=1.6)
    found = inspect_file(particle_set.write())
    assert found.refusals == ()
    assert "(1.6 Å, table 1.5 Å)" in found.warnings[0]
    assert len(found.warnings) == 1


def test_poses_that_are_missing_or_unset_are_told(particle_set):
    particle_set.write_stack()
    particle_set.columns["rlnAnglePsi"][0] = "-999"
    found = inspect_file(particle_set.write())
    assert dict(found.rows)["poses"] == "some unset (psi -999)"
    assert "row 1: rlnAnglePsi is -999" in found.refusals[0]
    del particle_set.columns["rlnAnglePsi"]
    assert dict(inspect_file(particle_set.write()).rows)["poses"] == "no (rlnAnglePsi missing)"


def test_every_shared_file_can_be_inspected(shared_data):
    paths = [p for p in shared_data.rglob("*") if p.suffix in (".star", ".cs", ".mrc", ".mrcs")]
    paths = [p for p in paths if p.stat().st_size > 100]  # no stand-ins for stacks elsewhere
    kinds = {inspect_file(path).kind for path in paths}
    assert {"map", "image stack", "cryoSPARC particles"} < kinds


def test_maps_that_a_refinement_would_refuse(tmp_path):
    path = tmp_path / "a.mrc"
    write_map(path, np.ones((7, 7, 7)), 1.0)
    assert "the box of 7 voxels is odd" in inspect_file(path).refusals[0]
    write_map(path, np.ones((6, 8, 10)), 1.0)
    found = inspect_file(path)
    assert found.kind == "map"
    assert "10 x 8 x 6 voxels is not a cube" in found.refusals[0]
    write_map(path, np.zeros((8, 8, 8)), 1.0)
    assert "there is nothing in this map" in inspect_file(path).refusals[0]


def test_sections_of_another_number_than_their_size_are_images_whatever_the_name(tmp_path):
    path = tmp_path / "J12_particles.mrc"
    write_map(path, np.ones((6, 8, 8)), 1.0)  # cryoSPARC writes the header of a map, too
    found = inspect_file(path)
    assert (found.kind, dict(found.rows)["images"], found.refusals) == ("image stack", "6", ())


def test_other_files_are_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        inspect_file(tmp_path / "none.star")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"not a .star, .cs or MRC file"):
        inspect_file(tmp_path / "a.txt")
    (tmp_path / "job.star").write_text("data_job\n\n_rlnJobType 3\n")
    found = inspect_file(tmp_path / "job.star")
    assert found.kind == "STAR file without particles"
    assert found.refusals


@pytest.mark.parametrize(("name", "warned"), [("map.mrc", True), ("stack.mrcs", False)])
def test_what_may_be_meant_for_a_map_and_is_no_cube(tmp_path, name, warned):
    """Square sections of another number are taken for images, whatever they are meant for."""
    with mrcfile.new(tmp_path / name) as file:
        file.set_data(np.random.default_rng(0).normal(size=(12, 16, 16)).astype(np.float32))
        file.voxel_size = 2.0
    found = inspect_file(tmp_path / name)
    assert (found.kind, found.refusals) == ("image stack", ())
    assert [one for one in found.warnings if "16 x 16 x 12 voxels is not a cube" in one] == (
        list(found.warnings) if warned else []
    )
    assert bool(found.warnings) == warned
