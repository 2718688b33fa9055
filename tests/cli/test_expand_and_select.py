"""`jaxrelax expand` and `jaxrelax select`: what they write, and what they refuse."""

import os

import numpy as np
import pytest

from jaxrelax.geometry import point_group, register_mates
from jaxrelax.io import ImageReader, read_particles, write_cs, write_star

STATE = np.array([1, 2, 1, 3] * 10)
SURE = np.linspace(0.5, 1.0, 40)
JUNK = np.where(np.arange(40) % 7 == 0, 0.8, 0.1)
CS = "metadata/cryosparc_P12_J24_001_particles.cs"


def columns(n=40):
    return {
        "jrxStateProbability": SURE[:n],
        "jrxRegister": np.arange(n) % 4 + 1,
        "jrxRegisterProbability": SURE[::-1][:n].copy(),
        "jrxJunkProbability": JUNK[:n],
    }


@pytest.fixture
def finished(data, tmp_path):
    """An output folder of a run with three states, away from its images."""
    folder = tmp_path / "out"
    folder.mkdir()
    particles = read_particles(data.particles)
    classified = particles.with_updates(class_number=STATE, extra_columns=columns())
    write_star(classified, folder / "particles.star")
    return folder


def test_expand(run, data, tmp_path):
    out = tmp_path / "expanded.star"
    words = ("expand", data.particles, "--symmetry", "C4", "--out", out)
    status, told, err = run(*words)
    assert (status, err) == (0, "")
    assert "40 particles at 4 poses each, 160 rows" in told
    before, written = read_particles(data.particles), read_particles(out)
    mates = register_mates(before.rotations, point_group("C4").operators)
    np.testing.assert_allclose(written.rotations, mates.reshape(-1, 3, 3), atol=1e-7)
    parents = written.column("jrxParent").astype(int) - 1
    np.testing.assert_array_equal(parents, np.repeat(np.arange(40), 4))
    # Images open from where the file lies, the same for all copies.
    images = ImageReader(written).read(np.arange(160))
    np.testing.assert_array_equal(images, ImageReader(before).read(parents))
    assert run(*words)[0] == 2
    assert run(*words, "--overwrite")[0] == 0
    status, _, err = run("expand", out, "--symmetry", "C4", "--out", tmp_path / "twice.star")
    assert status == 2
    assert "expanded already" in err
    assert sorted(os.listdir(tmp_path)) == ["expanded.star"]


def test_expand_a_cs_file(run, shared_data, tmp_path):
    for out in (tmp_path / "out.cs", tmp_path / "out.star"):
        assert run("expand", shared_data / CS, "--symmetry", "C2", "--out", out)[0] == 0
        assert len(read_particles(out)) == 2 * 2019


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--symmetry", "C1", "--out", "a.star"), "C1 has one operator"),
        (("--symmetry", "Q4", "--out", "a.star"), "Q4"),
        (("--symmetry", "C4", "--out", "a.cs"), "written as .star"),
        (("--symmetry", "C4", "--out", "no/a.star"), "no: no such folder"),
        (("--symmetry", "C4", "--out", "a.star", "--passthrough", "b.cs"), "belongs to .cs files"),
        (("--symmetry", "C4", "--out", "a.star", "--image-root", "no"), "no: no such folder"),
    ],
)
def test_expand_refuses(run, data, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("expand", data.particles, *words)
    assert (status, out) == (2, "")
    assert message in err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_select_a_state(run, data, finished, tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    out = place / "sel.star"
    words = ("select", finished, "--state", "1", "--min-probability", "0.7", "--out", out)
    status, told, err = run(*words)
    assert (status, err) == (0, "")
    rows = np.flatnonzero((STATE == 1) & (JUNK < 0.5) & (SURE * (1 - JUNK) >= 0.7))
    assert f"{len(rows)} of 40 particles" in told
    assert 0 < len(rows) < np.sum(STATE == 1)
    before, written = read_particles(finished / "particles.star"), read_particles(out)
    for label in before.document.particles.labels:
        np.testing.assert_array_equal(written.column(label), before.column(label)[rows], label)
    images = ImageReader(written).read(np.arange(len(rows)))
    np.testing.assert_array_equal(images, ImageReader(read_particles(data.particles)).read(rows))
    assert run(*words)[0] == 2
    assert run(*words, "--overwrite")[0] == 0


def test_select_several_states_and_a_register(run, finished, tmp_path):
    out = tmp_path / "two.star"
    words = ("--max-junk", "1", "--out", out)
    assert run("select", finished, "--state", "1", "--state", "3", *words)[0] == 0
    assert len(read_particles(out)) == 30
    out.unlink()
    assert run("select", finished, "--state", "1", "--register", "3", *words)[0] == 0
    written = read_particles(out)
    assert set(written.column("jrxRegister")) == {"3"}
    assert len(written) == 10


def test_select_from_a_cs_file(run, shared_data, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    particles = read_particles(shared_data / CS).select(np.arange(40))
    classified = particles.with_updates(class_number=STATE, extra_columns=columns())
    write_star(classified, folder / "particles.star")
    write_cs(classified, folder / "particles.cs")
    for name in ("a.cs", "a.star"):
        assert run("select", folder, "--state", "3", "--out", tmp_path / name)[0] == 0
    records = np.load(tmp_path / "a.cs")
    rows = np.flatnonzero((STATE == 3) & (JUNK < 0.5))
    np.testing.assert_array_equal(records["uid"], particles.column("uid")[rows])
    np.testing.assert_array_equal(records["alignments3D/class"], 2)
    assert len(read_particles(tmp_path / "a.star")) == len(rows)
    # cryoSPARC imports the group, which nothing is written over either.
    group = (tmp_path / "a.csg").read_text()
    assert f"metafile: '>a.cs'\n    num_items: {len(rows)}\n" in group
    (tmp_path / "a.cs").unlink()
    status, _, err = run("select", folder, "--state", "3", "--out", tmp_path / "a.cs")
    assert status == 2
    assert "a.csg: is there already" in err
    assert (tmp_path / "a.csg").read_text() == group
    assert not (tmp_path / "a.cs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say which particles"),
        (("--state", "4"), "those that have particles are 1 (20), 2 (10), 3 (10)"),
        (("--state", "1", "--min-probability", "1"), "none is likely enough"),
        (("--state", "1", "--min-probability", "90"), "--min-probability is 90"),
        (("--state", "1", "--max-junk", "-1"), "--max-junk is -1"),
        (("--register", "1"), "Say of which one"),
        (("--state", "1", "--out", "out/particles.star", "--overwrite"), "is the input"),
        (("--state", "1", "--out", "a.cs"), "has no particles.cs"),
        (("--state", "1", "--out", "a.txt"), "written as .star"),
    ],
)
def test_select_refuses(run, finished, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    before = (finished / "particles.star").read_bytes()
    words = words if "--out" in words else (*words, "--out", "sel.star")
    status, out, err = run("select", "out", *words)
    assert (status, out) == (2, "")
    assert message in err.replace("\n", " ")
    assert os.listdir(tmp_path) == ["out"]
    assert (finished / "particles.star").read_bytes() == before


def test_select_from_what_has_no_states(run, data, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_star(read_particles(data.particles), finished / "particles.star")
    status, _, err = run("select", "out", "--state", "1", "--out", "sel.star")
    assert status == 2
    assert "no column jrxStateProbability" in err.replace("\n", " ")
    (finished / "particles.star").unlink()
    status, _, err = run("select", "out", "--state", "1", "--out", "sel.star")
    assert status == 2
    assert "has no particles.star" in err.replace("\n", " ")
    status, _, err = run("select", "nowhere", "--state", "1", "--out", "sel.star")
    assert status == 2
    assert "nowhere: no such folder" in err.replace("\n", " ")
    assert os.listdir(tmp_path) == ["out"]
