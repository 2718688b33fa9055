"""`jaxrelax subparticles`: what it writes and says, and what it refuses."""

import os

import numpy as np
import pytest

from jaxrelax.io import ImageReader, read_particles

AT = ("--at", "30", "-20", "10.5")


def test_a_table_that_names_the_parents(run, data, tmp_path):
    out = tmp_path / "sub.star"
    words = ("subparticles", data.particles, "--symmetry", "C4", *AT, "--out", out)
    status, told, err = run(*words)
    assert (status, err) == (0, "")
    assert "4 sites of C4, in general position" in told
    assert "160 sub-particles of 40 particles" in told
    before, written = read_particles(data.particles), read_particles(out)
    rows = np.repeat(np.arange(40), 4)
    np.testing.assert_array_equal(written.half_set, before.half_set[rows])
    images = ImageReader(written).read(np.arange(160))
    np.testing.assert_array_equal(images, ImageReader(before).read(rows))
    assert run(*words)[0] == 2
    assert run(*words, "--overwrite")[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["sub.star"]


def test_windows(run, data, tmp_path, monkeypatch):
    """Names are relative to where the command runs, as RELION wants them."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("Sub")
    words = ("subparticles", data.particles, "--symmetry", "C4", *AT, "--box", "16")
    status, told, err = run(*words, "--out", "Sub/w.star")
    assert (status, err) == (0, "")
    assert sorted(os.listdir("Sub")) == ["w.mrcs", "w.star"]
    written = read_particles("Sub/w.star")
    assert written.column("rlnImageName")[0] == "000001@Sub/w.mrcs"
    partial = [line for line in told.splitlines() if "windows reach beyond" in line]
    assert len(partial) <= 1
    assert ImageReader(written).read(np.arange(160)).shape == (160, 16, 16)
    assert run("inspect", "Sub/w.star", "--normalise", "yes")[0] == 0
    # On an axis there is one; further out windows are cut short, and can be left out.
    status, told, _ = run(
        *words[:4], "--at", "0", "0", "20", "--box", "16", "--out", "Sub/axis.star"
    )
    assert status == 0
    assert "1 site of C4: 4 operators leave 0.00 0.00 20.00 where it is" in told
    far = (*words[:4], "--at", "80", "0", "0", "--box", "16", "--out", "Sub/far.star")
    told = run(*far)[1]
    assert "are filled with the background" in told
    n = len(read_particles("Sub/far.star"))
    told = run(*far, "--leave-out-partial", "--overwrite")[1]
    assert "and are left out" in told
    assert 0 < len(read_particles("Sub/far.star")) < n


REFUSED = [
    (("--symmetry", "Q4", *AT, "--out", "a.star"), "Q4"),
    (("--symmetry", "C4", "--at", "900", "0", "0", "--out", "a.star"), "and the images reach 112"),
    (("--symmetry", "C4", *AT, "--out", "a.cs"), "written as .star"),
    (("--symmetry", "C4", *AT, "--out", "no/a.star"), "no: no such folder"),
    (("--symmetry", "C4", *AT, "--out", "a.star", "--box", "17"), "--box 17"),
    (("--symmetry", "C4", *AT, "--out", "a.star", "--box", "64"), "images of 32 pixels"),
    (("--symmetry", "C4", *AT, "--out", "a.star", "--leave-out-partial"), "only with --box"),
    (("--symmetry", "C4", *AT, "--out", "a.star", "--passthrough", "b.cs"), "belongs to .cs files"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_it_refuses(run, data, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("subparticles", data.particles, *words)
    assert status == 2
    assert message in err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_it_writes_over_nothing(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mrcs").write_bytes(b"mine")
    words = ("--symmetry", "C4", *AT, "--box", "16", "--out", "a.star")
    status, _, err = run("subparticles", data.particles, *words)
    assert status == 2
    assert "a.mrcs: is there already" in err
    assert (tmp_path / "a.mrcs").read_bytes() == b"mine"
    # Nor over the images that are cut, even if it may.
    folder = data.particles.parent
    stack = next(folder.glob("*.mrcs"))
    before = stack.read_bytes()
    words = (*words[:-1], folder / f"{stack.stem}.star", "--overwrite")
    status, _, err = run("subparticles", data.truth, *words)
    assert status == 2
    assert "over the images" in err or "is the input" in err
    assert stack.read_bytes() == before


def test_without_a_table_there_is_no_stack(run, data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxrelax.cli.subparticles.write_table", full)
    words = ("--symmetry", "C4", *AT, "--box", "16", "--out", "a.star")
    with pytest.raises(OSError, match="no space"):
        run("subparticles", data.particles, *words)
    assert list(tmp_path.iterdir()) == []
