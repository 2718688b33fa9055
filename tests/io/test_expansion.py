"""Symmetry expansion: poses, parents, and what stays as it was."""

import shutil
import subprocess

import numpy as np
import pytest

from jaxrelax.geometry import nearest_operator, parse_group, point_group
from jaxrelax.io import (
    InputError,
    expand_symmetry,
    find_units,
    read_particles,
    write_cs,
    write_star,
)
from jaxrelax.io.copies import expansion

CS = "metadata/cryosparc_P12_J24_001_particles.cs"
POSE_COLUMNS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@pytest.mark.parametrize("name", ["C4", "D3", "T"])
def test_every_particle_is_at_all_of_its_mates(particle_set, name):
    particles, group = read_particles(particle_set.write()), point_group(name)
    expanded = expand_symmetry(particles, group)
    assert len(expanded) == group.order * len(particles)
    parent, copy = (expanded.extra_columns[c] - 1 for c in ("jrxParent", "jrxCopy"))
    np.testing.assert_array_equal(parent, np.repeat(np.arange(6), group.order))
    np.testing.assert_array_equal(copy, np.tile(np.arange(group.order), 6))
    for row in range(len(expanded)):
        pose = particles.rotations[parent[row]] @ group.operators[copy[row]].T
        np.testing.assert_allclose(expanded.rotations[row], pose, atol=1e-12)
    np.testing.assert_array_equal(expanded.origins_angstrom, particles.origins_angstrom[parent])
    np.testing.assert_array_equal(expanded.half_set, particles.half_set[parent])
    # What is read sees through it.
    assert expansion(expanded, find_units(expanded)) == group.order


def test_text_of_the_table_stays_but_for_the_angles_of_further_copies(particle_set, tmp_path):
    path = particle_set.write()
    write_star(expand_symmetry(read_particles(path), point_group("C4")), tmp_path / "out.star")
    before, after = read_particles(path), read_particles(tmp_path / "out.star")
    parent = after.column("jrxParent").astype(int) - 1
    first = after.column("jrxCopy").astype(int) == 1
    assert first.sum() == 6
    for label in particle_set.columns:
        same = after.column(label) == before.column(label)[parent]
        assert np.all(same[first]), label
        if label not in POSE_COLUMNS:
            assert np.all(same), label
    assert not np.any((after.column("rlnAngleRot") == before.column("rlnAngleRot")[parent])[~first])


def test_parents_are_rows_of_the_file(particle_set):
    particles = read_particles(particle_set.write()).select([4, 1])
    expanded = expand_symmetry(particles, point_group("C2"))
    np.testing.assert_array_equal(expanded.extra_columns["jrxParent"], [5, 5, 2, 2])


@pytest.mark.parametrize("name", ["C4", "D2", "D7", "T", "O", "I", "I1", "I3"])
def test_poses_are_those_that_relion_gives(particle_set, tmp_path, name):
    program = shutil.which("relion_particle_symmetry_expand")
    if program is None:
        pytest.skip("no relion_particle_symmetry_expand on PATH (Debian: apt install relion)")
    path = particle_set.write()
    theirs = path.with_name("theirs.star")
    done = subprocess.run(
        [program, "--i", path.name, "--o", theirs.name, "--sym", name],
        cwd=path.parent, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    write_star(expand_symmetry(read_particles(path), parse_group(name)), tmp_path / "ours.star")
    ours, theirs = read_particles(tmp_path / "ours.star"), read_particles(theirs)
    order = parse_group(name).order
    assert len(ours) == len(theirs) == 6 * order
    for image in range(6):
        mine, other = (
            p.rotations[[n.startswith(f"{image + 1:06d}@") for n in p.column("rlnImageName")]]
            for p in (ours, theirs)
        )
        assert len(mine) == len(other) == order
        nearest, angle = nearest_operator(other, mine)
        # One to one, to the digits that RELION writes and keeps of its operators.
        assert sorted(nearest) == list(range(order))
        assert angle.max() < 1e-4
    np.testing.assert_allclose(
        np.sort(ours.origins_angstrom[:, 0]), np.sort(theirs.origins_angstrom[:, 0]), atol=1e-4
    )


def test_copies_of_a_cs_file_have_uids_of_their_own(shared_data, tmp_path):
    particles = read_particles(shared_data / CS).select(np.arange(50))
    expanded = expand_symmetry(particles, point_group("C3"))
    write_cs(expanded, tmp_path / "out.cs")
    write_cs(expand_symmetry(particles, point_group("C3")), tmp_path / "again.cs")
    before, records = particles.document.records, np.load(tmp_path / "out.cs")
    assert (tmp_path / "out.cs").read_bytes() == (tmp_path / "again.cs").read_bytes()
    assert len(np.unique(records["uid"])) == 150
    np.testing.assert_array_equal(records["uid"][::3], before["uid"])
    np.testing.assert_array_equal(records["sym_expand/src_uid"], np.repeat(before["uid"], 3))
    np.testing.assert_array_equal(records["sym_expand/idx"], np.tile([0, 1, 2], 50))
    np.testing.assert_array_equal(records["jrx/parent"], np.repeat(np.arange(50) + 1, 3))
    np.testing.assert_array_equal(records["jrx/copy"], np.tile([1, 2, 3], 50))
    for name in set(before.dtype.names) - {"uid", "alignments3D/pose"}:
        np.testing.assert_array_equal(records[name], np.repeat(before[name], 3, axis=0))
    read = read_particles(tmp_path / "out.cs")
    np.testing.assert_allclose(read.rotations, expanded.rotations, atol=1e-6)
    # Made into a STAR file, too; uids have no place there.
    write_star(expanded, tmp_path / "out.star")
    star = read_particles(tmp_path / "out.star")
    np.testing.assert_allclose(star.rotations, expanded.rotations, atol=1e-6)
    assert star.column("jrxParent").astype(int).tolist() == records["jrx/parent"].tolist()
    assert not any("sym_expand" in label for label in star.document.particles.labels)


def test_what_cannot_be_expanded(particle_set, shared_data, tmp_path):
    particles = read_particles(particle_set.write())
    with pytest.raises(InputError, match="C1 has one operator"):
        expand_symmetry(particles, point_group("C1"))
    write_star(expand_symmetry(particles, point_group("C4")), tmp_path / "once.star")
    once = read_particles(tmp_path / "once.star")
    with pytest.raises(InputError, match=r"expanded already .*jrxParent"):
        expand_symmetry(once, point_group("C4"))
    with pytest.raises(InputError, match=r"expanded already .*jrxParent"):
        expand_symmetry(once.select([0, 5, 8]), point_group("C2"))
    # Made by another program: poses tell.
    particle_set.columns = {label: list(once.column(label)) for label in particle_set.columns}
    theirs = read_particles(particle_set.write())
    assert theirs.column("jrxParent") is None
    with pytest.raises(InputError, match=r"expanded already .4 poses an image"):
        expand_symmetry(theirs, point_group("C4"))
    for label in POSE_COLUMNS:
        particle_set.columns.pop(label)
    posed = read_particles(particle_set.write(), require_poses=False)
    with pytest.raises(InputError, match="no poses"):
        expand_symmetry(posed, point_group("C4"))
    made = read_particles(shared_data / CS).select(np.arange(5))
    write_cs(expand_symmetry(made, point_group("C2")), tmp_path / "once.cs")
    with pytest.raises(InputError, match=r"expanded already"):
        expand_symmetry(read_particles(tmp_path / "once.cs"), point_group("C2"))
