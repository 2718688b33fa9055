"""Tables that point to other images, and the way back."""

import numpy as np
import pytest

from jaxrelax.geometry import matrix_to_euler, random_rotations
from jaxrelax.io import ImageReader, InputError, read_particles, write_cs, write_stack, write_star
from jaxrelax.io.image_root import image_roots
from jaxrelax.io.moved import Moved
from jaxrelax.io.original_images import original_images, write_original
from jaxrelax.io.other_images import NewImages, stack_name, with_other_images
from jaxrelax.io.reading import load_particles
from tests.io.conftest import parse_star
from tests.io.test_writing import STAR_FILES

CS = "metadata/cryosparc_P12_J24_001_particles.cs"
CENTRE = np.array([10.0, -20.0, 15.0])


def other(particles, folder, box=8, **kind):
    """The particles with images of another stack, written there."""
    folder.mkdir(exist_ok=True)
    n = len(particles)
    images = np.arange(n, dtype=np.float32)[:, None, None] * np.ones((1, box, box), np.float32)
    write_stack(folder / "new.mrcs", images, 1.5)
    stack = (folder / "new.mrcs").resolve()
    new = NewImages((stack,), (stack_name(stack, particles),), np.zeros(n, int), np.arange(n))
    moved = kind.pop("moved", Moved())
    return with_other_images(particles, new, moved, folder=folder, **{"as_star": True, **kind})


def write_both_ways(particles, folder, back, **kind):
    table = other(particles, folder, **kind)
    roots = [*image_roots(table), *image_roots(particles)]
    write_star(table, folder / "new.star", roots)
    write_original(original_images(load_particles(folder / "new.star", require_ctf=False)), back)
    return table


def test_the_way_back_is_the_file_itself(particle_set, tmp_path):
    particle_set.write_stack()
    # White space is not kept: as jaxrelax writes tables.
    write_star(read_particles(particle_set.write()), particle_set.folder / "in.star", [])
    source = particle_set.folder / "in.star"
    source.write_text(source.read_text().replace("  ", " "))
    particles = read_particles(source)
    write_both_ways(particles, particle_set.folder / "sub", particle_set.folder / "back.star")
    assert (particle_set.folder / "back.star").read_bytes() == source.read_bytes()
    new = read_particles(particle_set.folder / "sub/new.star")
    assert new.column("rlnImageName")[2] == "000003@sub/new.mrcs"
    assert new.column("rlnImageOriginalName")[2] == particles.column("rlnImageName")[2]
    found = ImageReader(new).read(np.arange(6))
    np.testing.assert_array_equal(found[:, 0, 0], np.arange(6))
    # Elsewhere, the way back says where images are.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_original(original_images(new), elsewhere / "back.star")
    images = ImageReader(read_particles(elsewhere / "back.star")).read(np.arange(6))
    np.testing.assert_array_equal(images, particle_set.images)


@pytest.mark.parametrize("name", STAR_FILES)
def test_every_value_of_every_block_comes_back(shared_data, tmp_path, name):
    particles = load_particles(shared_data / name, require_ctf=False)
    write_both_ways(particles, tmp_path / "sub", tmp_path / "back.star")
    assert parse_star(tmp_path / "back.star") == parse_star(shared_data / name)


def test_names_that_were_original_before_come_back(particle_set, tmp_path):
    particle_set.columns["rlnImageOriginalName"] = [f"{i + 1}@raw.mrcs" for i in range(6)]
    source = particle_set.write()
    write_both_ways(read_particles(source), tmp_path / "sub", tmp_path / "back.star")
    assert parse_star(tmp_path / "back.star") == parse_star(source)


@pytest.mark.parametrize("refined", [False, True], ids=["as_written", "refined"])
def test_centre_window_and_defocus_are_taken_back_at_the_poses_of_the_table(
    particle_set, tmp_path, refined
):
    particle_set.write_stack()
    particles = read_particles(particle_set.write())
    moved = Moved.to(particles, CENTRE, defocus_by_height="minus", box=8)
    folder = tmp_path / "sub"
    write_star(other(particles, folder, moved=moved), folder / "new.star")
    new = read_particles(folder / "new.star")
    assert {group.box for group in new.optics} == {8}
    shift = 1.5 * moved.windows_px - (particles.rotations @ CENTRE)[:, :2]
    np.testing.assert_allclose(new.origins_angstrom, particles.origins_angstrom + shift, atol=1e-5)
    heights = particles.rotations[:, 2] @ CENTRE
    np.testing.assert_allclose(
        new.defocus_u_angstrom, particles.defocus_u_angstrom - heights, atol=1e-3
    )
    expected = particles.origins_angstrom
    if refined:
        rotations = random_rotations(6, np.random.default_rng(2))
        write_star(new.with_updates(rotations=rotations), folder / "new.star", image_roots(new))
        new = read_particles(folder / "new.star")
        expected = new.origins_angstrom - 1.5 * moved.windows_px + (rotations @ CENTRE)[:, :2]
    write_original(original_images(new), tmp_path / "back.star")
    back = read_particles(tmp_path / "back.star", image_root=particle_set.folder)
    np.testing.assert_allclose(back.origins_angstrom, expected, atol=1e-5)
    np.testing.assert_allclose(back.defocus_u_angstrom, particles.defocus_u_angstrom, atol=1e-3)
    assert {group.box for group in back.optics} == {16}
    assert not [x for x in back.document.particles.labels if x.startswith("jrx")]
    if not refined:
        angles = np.array(matrix_to_euler(back.rotations))
        np.testing.assert_allclose(angles, matrix_to_euler(particles.rotations), atol=1e-9)


def test_cryosparc_files_go_and_come_back(shared_data, tmp_path):
    particles = read_particles(shared_data / CS)
    moved = Moved.to(particles, CENTRE, defocus_by_height="minus", box=8)
    folder = tmp_path / "sub"
    write_cs(other(particles, folder, moved=moved, as_star=False), folder / "new.cs")
    write_star(other(particles, folder, moved=moved), folder / "new.star")
    records, before = np.load(folder / "new.cs"), particles.document.records
    assert set(records["blob/path"]) == {b">new.mrcs"}
    np.testing.assert_array_equal(records["blob/shape"], 8)
    np.testing.assert_array_equal(records["jrx/original_path"], before["blob/path"])
    heights = particles.rotations[:, 2] @ CENTRE
    np.testing.assert_allclose(records["ctf/df1_A"], before["ctf/df1_A"] - heights, atol=2e-3)
    for kind in ("cs", "star"):
        new = read_particles(folder / f"new.{kind}")
        assert new.optics[0].box == 8
        found = ImageReader(new).read(np.arange(5))[:, 0, 0]
        np.testing.assert_array_equal(found, np.arange(5) * particles.image_sign[:5])
    write_original(original_images(read_particles(folder / "new.cs")), tmp_path / "back.cs")
    back = np.load(tmp_path / "back.cs")
    assert back.dtype.names == before.dtype.names
    for name in before.dtype.names:
        if name in ("alignments3D/shift", "ctf/df1_A", "ctf/df2_A"):
            np.testing.assert_allclose(back[name], before[name], atol=2e-3)
        else:
            np.testing.assert_array_equal(back[name], before[name], name)


def test_what_cannot_be_reverted_is_refused(particle_set, tmp_path):
    particles = read_particles(particle_set.write())
    with pytest.raises(InputError, match="no column rlnImageOriginalName"):
        original_images(particles)
    moved = Moved.to(particles, CENTRE, defocus_by_height="none", box=None)
    write_star(other(particles, tmp_path / "sub", moved=moved), tmp_path / "sub/new.star")
    new = read_particles(tmp_path / "sub/new.star")
    both = new.with_updates(extra_columns={"jrxCentreX": np.arange(6.0)})
    write_star(both, tmp_path / "joined.star")
    with pytest.raises(InputError, match="several subtractions were joined"):
        original_images(read_particles(tmp_path / "joined.star"))
    text = (tmp_path / "sub/new.star").read_text().replace("_jrxCentreZ", "_jrxOther")
    (tmp_path / "part.star").write_text(text)
    with pytest.raises(InputError, match="no column jrxCentreZ"):
        original_images(read_particles(tmp_path / "part.star"))
    (tmp_path / "flat.star").write_text(
        text.replace("_jrxOther", "_jrxCentreZ").replace("_rlnAngle", "_x")
    )
    with pytest.raises(InputError, match="without poses it cannot be moved back"):
        original_images(load_particles(tmp_path / "flat.star", require_poses=False))
