"""What was read is written again: nothing lost, nothing changed that was not updated."""

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import euler_to_matrix, random_rotations
from jaxrelax.io import InputError, read_particles, write_cs, write_star
from jaxrelax.io.cryosparc import cryosparc_field
from jaxrelax.io.reading import load_particles
from tests.io.conftest import parse_star

STAR_FILES = [
    "images/sample_particles_relion30.star",
    "images/sample_particles_relion31.star",
    "images/trpv1_small_stack.star",
    "metadata/relion5.star",
    "metadata/FinalRefinement-OriginalParticles-PfCRT.star",
    "metadata/one_loop.star",
]
OLD_ORIGINS = ("sample_particles_relion30", "PfCRT")


@pytest.mark.parametrize("name", STAR_FILES)
def test_untouched_particles_keep_every_value_of_every_block(shared_data, tmp_path, name):
    particles = load_particles(shared_data / name, require_ctf=False)
    write_star(particles, tmp_path / "out.star")
    assert parse_star(tmp_path / "out.star") == parse_star(shared_data / name)


@pytest.mark.parametrize("name", STAR_FILES[:5])
def test_updated_columns_change_and_the_others_do_not(shared_data, tmp_path, name):
    particles = load_particles(shared_data / name)
    n = len(particles)
    rotations = random_rotations(n, np.random.default_rng(0))
    origins = np.random.default_rng(1).uniform(-9, 9, (n, 2))
    updated = particles.with_updates(
        rotations=rotations,
        origins_angstrom=origins,
        half_set=1 + np.arange(n) % 2,
        class_number=np.full(n, 3),
        extra_columns={"jrxRegister": np.arange(n), "jrxRegisterEntropy": np.full(n, 0.25)},
    )
    write_star(updated, tmp_path / "out.star")
    again = load_particles(tmp_path / "out.star")
    np.testing.assert_allclose(again.rotations, rotations, atol=1e-7)
    np.testing.assert_allclose(again.origins_angstrom, origins, atol=2e-6)
    np.testing.assert_array_equal(again.half_set, 1 + np.arange(n) % 2)
    np.testing.assert_array_equal(again.class_number, 3)

    before, after = parse_star(shared_data / name), parse_star(tmp_path / "out.star")
    block = next(key for key in before if key != "optics")
    assert before.get("optics") == after.get("optics")
    labels, rows = after[block]
    assert labels[: len(before[block][0])] == before[block][0]
    assert labels[-2:] == ["jrxRegister", "jrxRegisterEntropy"]
    assert [row[-2:] for row in rows] == [[str(i), "0.25"] for i in range(n)]
    old = any(part in name for part in OLD_ORIGINS)
    assert ("rlnOriginX" in labels, "rlnOriginXAngst" in labels) == (old, not old)
    touched = {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnRandomSubset", "rlnClassNumber"}
    touched |= {"rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst"}
    for i, label in enumerate(before[block][0]):
        if label not in touched:
            assert [row[i] for row in rows] == [row[i] for row in before[block][1]], label


def test_only_the_rows_that_changed_get_new_text(particle_set, tmp_path):
    path = particle_set.write()
    particles = read_particles(path)
    origins = particles.origins_angstrom.copy()
    origins[2] = [1.0, -0.0]
    particles = particles.with_updates(origins_angstrom=origins, rotations=particles.rotations)
    write_star(particles.select([3, 2]), tmp_path / "out.star")
    lines = (tmp_path / "out.star").read_text().rstrip().splitlines()[-2:]
    assert lines[0] in path.read_text()
    assert lines[1].split()[9:11] == ["1.000000", "0.000000"]


def test_columns_that_the_file_lacks_are_added(particle_set, tmp_path):
    for label in [*(f"rlnAngle{a}" for a in ("Rot", "Tilt", "Psi")), "rlnRandomSubset"]:
        del particle_set.columns[label]
    particles = read_particles(particle_set.write(), require_poses=False)
    rotations = random_rotations(6, np.random.default_rng(0))
    new = particles.with_updates(rotations=rotations, half_set=np.array([1, 2, 1, 2, 1, 2]))
    write_star(new, tmp_path / "out.star")
    again = read_particles(tmp_path / "out.star")
    np.testing.assert_allclose(again.rotations, rotations, atol=1e-7)
    assert again.half_set.tolist() == [1, 2, 1, 2, 1, 2]


def test_extra_columns_of_an_earlier_run_are_replaced(particle_set, tmp_path):
    particle_set.columns["jrxRegister"] = ["9"] * 6
    particles = read_particles(particle_set.write())
    write_star(
        particles.with_updates(extra_columns={"jrxRegister": np.arange(6)}), tmp_path / "out.star"
    )
    column = read_particles(tmp_path / "out.star").column("jrxRegister")
    assert column is not None
    assert column.tolist() == list("012345")


@given(
    st.tuples(
        st.floats(-180, 180), st.one_of(st.floats(0, 180), st.just(0.0)), st.floats(-180, 180)
    )
)
def test_a_written_pose_is_the_same_rotation(tmp_path_factory, angles):
    folder = tmp_path_factory.mktemp("pose")
    path = folder / "a.star"
    path.write_text(
        "data_\nloop_\n_rlnImageName\n_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n_rlnVoltage\n"
        "_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnPixelSize\n_rlnAngleRot\n"
        "_rlnAngleTilt\n_rlnAnglePsi\n1@a.mrcs 1e4 1e4 0 300 2.7 0.1 1.0 0 0 0\n"
    )
    rotation = euler_to_matrix(*angles)[None]
    write_star(read_particles(path).with_updates(rotations=rotation), path)
    np.testing.assert_allclose(read_particles(path).rotations, rotation, atol=1e-7)


def test_a_cs_file_survives_and_changes_where_it_was_changed(shared_data, tmp_path):
    source = shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs"
    particles = read_particles(source)
    write_cs(particles, tmp_path / "same.cs")
    before, same = np.load(source), np.load(tmp_path / "same.cs")
    assert same.dtype == before.dtype
    assert same.tobytes() == before.tobytes()

    n = len(particles)
    rotations = particles.rotations.copy()
    rotations[:5] = random_rotations(5, np.random.default_rng(0))
    half_set = particles.half_set.copy()
    half_set[7] = 3 - half_set[7]
    updated = particles.with_updates(
        rotations=rotations,
        origins_angstrom=particles.origins_angstrom + np.array([2.95, 0.0]),
        half_set=half_set,
        extra_columns={"jrxRegisterProbability": np.linspace(0, 1, n)},
    )
    write_cs(updated, tmp_path / "out.cs")
    after, again = np.load(tmp_path / "out.cs"), read_particles(tmp_path / "out.cs")
    np.testing.assert_allclose(again.rotations, rotations, atol=1e-6)
    assert after["alignments3D/pose"][5:].tobytes() == before["alignments3D/pose"][5:].tobytes()
    shift = after["alignments3D/shift"] - before["alignments3D/shift"]
    np.testing.assert_allclose(shift, np.tile([1.0, 0.0], (n, 1)), atol=1e-5)
    changed = np.flatnonzero(after["alignments3D/split"] != before["alignments3D/split"])
    assert changed.tolist() == [7]
    np.testing.assert_allclose(after["jrx/register_probability"], np.linspace(0, 1, n))
    untouched = set(before.dtype.names) - {f"alignments3D/{f}" for f in ("pose", "shift", "split")}
    assert all(np.array_equal(after[name], before[name]) for name in untouched)


@pytest.mark.parametrize("kind", ["S", "U"])
def test_names_relative_to_a_cs_file_are_those_of_the_new_file(shared_data, tmp_path, kind):
    # As cryoSPARC exports them; the stacks lie in the folder of the exported group.
    group, out = tmp_path / "exports" / "group", tmp_path / "out"
    group.mkdir(parents=True)
    out.mkdir()
    records = np.load(shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs")[:6]
    names = [b">a.mrc", b">a.mrc", b">b.mrc", b">b.mrc", b"J1/c.mrc", b"J1/c.mrc"]
    records["blob/path"] = names
    if kind == "U":
        wider = [(n, "U9" if n == "blob/path" else records.dtype[n]) for n in records.dtype.names]
        records = records.astype(wider)
    (tmp_path / "J1").mkdir()
    stacks = [group / "a.mrc", group / "b.mrc", tmp_path / "J1" / "c.mrc"]
    for stack in stacks:
        stack.touch()
    with open(group / "particles.cs", "wb") as handle:
        np.save(handle, records)
    write_cs(read_particles(group / "particles.cs"), out / "particles.cs")
    written = np.load(out / "particles.cs")["blob/path"].astype("U").tolist()
    assert written[::2] == [">../exports/group/a.mrc", ">../exports/group/b.mrc", "J1/c.mrc"]
    found = read_particles(out / "particles.cs").stack_paths
    assert sorted(path.resolve() for path in found) == sorted(stacks)


def test_classes_are_those_of_cryosparc(shared_data, tmp_path):
    source = shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs"
    numbers = np.array([1, 2, 3, 2])
    particles = read_particles(source).select(np.arange(4))
    classified = particles.with_updates(
        class_number=numbers, extra_columns={"rlnClassNumber": numbers}
    )
    write_cs(classified, tmp_path / "classes.cs")
    records = np.load(tmp_path / "classes.cs")
    assert records["alignments3D/class"].tolist() == [0, 1, 2, 1]
    assert not [name for name in records.dtype.names if name.startswith("jrx")]
    assert read_particles(tmp_path / "classes.cs").class_number.tolist() == numbers.tolist()


def test_a_cs_file_becomes_a_star_file_with_the_same_particles(shared_data, tmp_path, caplog):
    source = shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs"
    particles = read_particles(source)
    write_star(particles, tmp_path / "out.star")
    assert "dark on light" in caplog.text
    again = read_particles(tmp_path / "out.star")
    assert again.optics == particles.optics
    np.testing.assert_allclose(again.rotations, particles.rotations, atol=1e-7)
    for name in ("origins_angstrom", "defocus_u_angstrom", "defocus_v_angstrom"):
        np.testing.assert_allclose(getattr(again, name), getattr(particles, name), atol=1e-6)
    np.testing.assert_allclose(again.defocus_angle_deg, particles.defocus_angle_deg, atol=1e-6)
    for name in ("half_set", "class_number", "image_index", "stack_index", "image_sign"):
        np.testing.assert_array_equal(getattr(again, name), getattr(particles, name))
    assert [path.name for path in again.stack_paths] == [p.name for p in particles.stack_paths]


def test_star_particles_cannot_become_a_cs_file(particle_set, tmp_path):
    with pytest.raises(InputError, match=r"did not come from a .cs file"):
        write_cs(read_particles(particle_set.write()), tmp_path / "out.cs")


def test_names_of_cryosparc_fields():
    assert cryosparc_field("jrxRegisterEntropy") == "jrx/register_entropy"
    assert cryosparc_field("mine/field") == "mine/field"


@pytest.mark.skipif(shutil.which("relion_star_printtable") is None, reason="RELION is not here")
def test_relion_reads_the_written_table(particle_set, tmp_path):
    particles = read_particles(particle_set.write())
    updated = particles.with_updates(
        rotations=random_rotations(6, np.random.default_rng(0)),
        extra_columns={"jrxRegister": np.arange(6)},
    )
    path = tmp_path / "out.star"
    write_star(updated, path)
    command = ["relion_star_printtable", str(path), "data_particles"]
    labels = ["_rlnImageName", "_rlnAngleTilt", "_rlnLogLikeliContribution"]
    done = subprocess.run([*command, *labels], capture_output=True, text=True, check=True)
    printed = [line.split() for line in done.stdout.splitlines() if "@" in line]
    columns, rows = parse_star(path)["particles"]
    wanted = [columns.index(label[1:]) for label in labels]
    for found, row in zip(printed, rows, strict=True):
        assert found[0] == row[wanted[0]]
        np.testing.assert_allclose(
            np.array(found[1:], float), [float(row[i]) for i in wanted[1:]], rtol=1e-5
        )


@pytest.mark.skipif(shutil.which("relion_stack_create") is None, reason="RELION is not here")
def test_relion_reads_the_written_file_with_its_images(particle_set):
    particle_set.write_stack()
    path = particle_set.folder / "out.star"
    particles = read_particles(particle_set.write())
    write_star(particles.with_updates(extra_columns={"jrxRegister": np.arange(6)}), path)
    done = subprocess.run(
        ["relion_stack_create", "--i", "out.star", "--o", "again"],
        cwd=particle_set.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    again = read_particles(particle_set.folder / "again.star")
    np.testing.assert_allclose(again.rotations, particles.rotations, atol=1e-6)
    np.testing.assert_allclose(again.origins_angstrom, particles.origins_angstrom, atol=1e-5)
