"""`jaxrelax subtract`: what it writes, what it takes back, and what it refuses."""

import json
import os

import numpy as np
import pytest

from jaxrelax.geometry import point_group
from jaxrelax.io import ImageReader, read_map, read_particles, write_map, write_star
from jaxrelax.io.mrc_header import read_header
from tests.refinement.blobs import PART, Blobs, Group

FILES = ["particles_subtracted.star", "subtracted.mrcs", "subtraction.json"]


@pytest.fixture(scope="module")
def blobs():
    return Blobs([Group(box=32, pixel=3.6, n=8)])


@pytest.fixture
def project(blobs, tmp_path, monkeypatch):
    """A project folder with table, stack, map and mask, and the command run in it."""
    blobs.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = ("--map", "map.mrc", "--keep", "keep.mrc", "--out", "sub")


def test_subtract_and_revert(run, project):
    status, told, err = run("subtract", "particles.star", *WORDS)
    assert (status, err) == (0, "")
    assert "scale of the map: 0.99" in told or "scale of the map: 1.00" in told
    assert sorted(os.listdir("sub")) == FILES
    content = json.loads((project / "sub/subtraction.json").read_text())
    assert content["scale"]["overall"] == pytest.approx(1.0, abs=0.01)
    table = read_particles("sub/particles_subtracted.star")
    assert list(table.column("rlnImageName")[:2]) == [
        "000001@sub/subtracted.mrcs", "000002@sub/subtracted.mrcs",
    ]  # fmt: skip
    before, left = (
        ImageReader(p).read(np.arange(8)) for p in (read_particles("particles.star"), table)
    )
    assert np.sum(left**2) < 0.5 * np.sum(before**2)
    words = ("subtract", "--revert", "sub/particles_subtracted.star", "--out", "back.star")
    status, told, err = run(*words)
    assert (status, err) == (0, "")
    assert (project / "back.star").read_bytes() == (project / "particles.star").read_bytes()
    assert run(*words)[0] == 2
    assert run(*words, "--overwrite")[0] == 0


def test_scale_centre_box_and_type_are_as_said(run, project):
    words = ("--scale", "0.5", "--recentre", "--fulcrum", *map(str, PART), "--box", "24")
    status, told, err = run("subtract", "particles.star", *WORDS, *words, "--dtype", "float16")
    assert (status, err) == (0, "")
    assert "centre moved to 24.0 -15.0 18.0 Å" in told
    content = json.loads((project / "sub/subtraction.json").read_text())
    assert content["scale"]["factors"] == [0.5]
    assert content["scale"]["correlation"] is None
    header = read_header("sub/subtracted.mrcs")
    assert (header.shape, header.dtype.itemsize) == ((8, 24, 24), 2)
    before, after = (
        read_particles("particles.star"),
        read_particles("sub/particles_subtracted.star"),
    )
    assert np.any(after.defocus_u_angstrom != before.defocus_u_angstrom)
    words = (*words, "--defocus-by-height", "none", "--overwrite")
    assert run("subtract", "particles.star", *WORDS, *words)[0] == 0
    after = read_particles("sub/particles_subtracted.star")
    np.testing.assert_array_equal(after.defocus_u_angstrom, before.defocus_u_angstrom)


def relaxed(project, blobs, posterior):
    """The table as a relaxed run writes it, with its registers beside it."""
    operators = point_group("C4").operators
    best = posterior.argmax(axis=1)
    particles = read_particles(project / "particles.star")
    columns = {"jrxRegister": best + 1, "jrxRegisterProbability": posterior.max(axis=1)}
    (project / "out").mkdir()
    table = particles.with_updates(
        rotations=blobs.rotations @ operators[best].transpose(0, 2, 1), extra_columns=columns
    )
    write_star(table, project / "out/particles.star")
    np.savez(project / "out/registers.npz", posterior=posterior, operators=operators)


def test_registers_beside_a_relaxed_table_are_taken(run, project, blobs):
    posterior = np.random.default_rng(0).dirichlet([0.3] * 4, 8)
    relaxed(project, blobs, posterior)
    words = ("subtract", "out/particles.star", *WORDS, "--scale", "1")
    status, told, _ = run(*words)
    assert status == 0
    assert "the mean over 4 registers" in told
    mean = ImageReader(read_particles("sub/particles_subtracted.star")).read(np.arange(8))
    assert run(*words, "--table-poses", "--overwrite")[0] == 0
    single = ImageReader(read_particles("sub/particles_subtracted.star")).read(np.arange(8))
    assert np.all(np.abs(mean - single).max(axis=(1, 2)) > 0.01)
    # By name, from elsewhere.
    os.rename("out/registers.npz", "elsewhere.npz")
    status, _, err = run(*words, "--overwrite")
    assert status == 2
    assert "comes from a relaxed run" in err
    assert run(*words, "--registers", "elsewhere.npz", "--overwrite")[0] == 0
    named = ImageReader(read_particles("sub/particles_subtracted.star")).read(np.arange(8))
    np.testing.assert_array_equal(named, mean)


def test_registers_of_another_table_are_refused(run, project, blobs):
    posterior = np.random.default_rng(0).dirichlet([0.3] * 4, 8)
    relaxed(project, blobs, posterior)
    operators = point_group("C4").operators
    words = ("subtract", "out/particles.star", *WORDS, "--registers", "other.npz")

    def refused(**arrays):
        np.savez("other.npz", **arrays)
        status, _, err = run(*words)
        assert status == 2
        assert not os.path.exists("sub")
        return err.replace("\n", " ")

    assert "of 7 particles" in refused(posterior=posterior[:7], operators=operators)
    assert "in another register" in refused(posterior=posterior[::-1], operators=operators)
    state = np.array([1, 1, 2, 2])
    shifts = np.array([[0.0, 0.0, 0.0], [0.0, 12.0, 0.0], [3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    moving = refused(posterior=posterior, operators=operators, operator_shifts_angstrom=shifts)
    assert "does not go through the centre" in moving
    several = refused(posterior=posterior, operators=operators, state=state)
    assert "registers of several states" in several
    assert "no arrays posterior" in refused(anything=posterior)
    assert "does not belong" in refused(posterior=posterior, operators=operators[:3])
    (project / "other.npz").write_bytes(b"no such thing")
    status, _, err = run(*words)
    assert status == 2
    assert "not the registers.npz" in err


def spoiled(project):
    """Maps that do not fit."""
    map_, pixel = read_map(project / "map.mrc")
    write_map(project / "finer.mrc", map_, 1.2 * pixel)
    mask = read_map(project / "keep.mrc")[0]
    write_map(project / "small.mrc", mask[4:-4, 4:-4, 4:-4], pixel)
    write_map(project / "all.mrc", np.ones_like(mask), pixel)
    write_map(project / "minus.mrc", -map_, pixel)
    text = (project / "particles.star").read_text()
    (project / "flat.star").write_text(text.replace("_rlnAngleRot", "_rlnOther"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--map", "finer.mrc"), "finer.mrc: box of 32 px at 4.32 Å"),
        (("--keep", "small.mrc"), "small.mrc: box of 24 px"),
        (("--keep", "all.mrc"), "nothing of the map lies outside"),
        (("--keep", "map.mrc"), "a mask has values from 0 to 1"),
        (("--map", "minus.mrc"), "check contrast"),
        (("--map", "nowhere.mrc"), "nowhere.mrc: no such file"),
        (("--scale", "0"), "--scale is 0"),
        (("--box", "15"), "--box is 15"),
        (("--fulcrum", "1", "2", "3"), "--fulcrum: can act only with --recentre"),
        (
            (
                "--defocus-by-height",
                "none",
            ),
            "can act only with --recentre",
        ),
        (("--recentre", "--fulcrum", "nan", "2", "3"), "--fulcrum: its three numbers"),
        (("--registers", "a.npz"), "a.npz: no such file"),
        (("--registers", "a.npz", "--table-poses"), "not with --table-poses"),
        (("--out", "map.mrc"), "map.mrc: is a file, not a folder"),
        (("flat.star",), "rlnAngleRot"),
        ((), "g0.mrcs"),
    ],
)
def test_subtract_refuses(run, project, words, message):
    spoiled(project)
    if not words:
        with open("g0.mrcs", "r+b") as handle:
            handle.truncate(20_000)
    there = sorted(os.listdir())
    table = "particles.star"
    if words and words[0].endswith(".star"):
        table, words = words[0], ()
    given = dict(zip(WORDS[::2], WORDS[1::2], strict=True))
    for name in ("--map", "--keep", "--out"):
        if name in words:
            given[name] = words[1]
            words = ()
    status, out, err = run("subtract", table, *(w for pair in given.items() for w in pair), *words)
    assert (status, out) == (2, "")
    assert message in err.replace("\n", " ")
    left = [name for name in sorted(os.listdir()) if name != "sub"]
    assert left == there
    assert not os.path.exists("sub") or os.listdir("sub") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "a.star"), "the table of particles, --map, --keep: missing"),
        (("particles.star", "--map", "map.mrc", "--out", "a"), "--keep: missing"),
        (("particles.star", "--revert", "b.star", "--out", "a.star"), "cannot act with --revert"),
        (("--revert", "b.star", "--scale", "2", "--out", "a.star"), "--scale: cannot act"),
        (("--revert", "particles.star", "--out", "a.star"), "no column rlnImageOriginalName"),
        (("--revert", "particles.star", "--out", "particles.star", "--overwrite"), "is the input"),
        (("--revert", "particles.star", "--out", "a.cs"), "written as .star"),
    ],
)
def test_what_does_not_go_together_is_refused(run, project, words, message):
    there = sorted(os.listdir())
    status, out, err = run("subtract", *words)
    assert (status, out) == (2, "")
    assert message in err.replace("\n", " ")
    assert sorted(os.listdir()) == there


def test_inputs_and_earlier_results_are_not_written_over(run, project):
    assert run("subtract", "particles.star", *WORDS)[0] == 0
    before = (project / "sub/subtracted.mrcs").read_bytes()
    status, _, err = run("subtract", "particles.star", *WORDS)
    assert status == 2
    assert "is there already" in err
    again = ("subtract", "sub/particles_subtracted.star", *WORDS, "--overwrite")
    status, _, err = run(*again)
    assert status == 2
    assert "is an input" in err
    assert (project / "sub/subtracted.mrcs").read_bytes() == before
    assert sorted(os.listdir("sub")) == FILES


def test_a_failure_half_way_leaves_nothing(run, project, monkeypatch):
    from jaxrelax.io import InputError
    from jaxrelax.refinement import subtracted_files

    def full(*_):
        raise InputError("the disk is full")

    monkeypatch.setattr(subtracted_files, "write_star", full)
    status, _, err = run("subtract", "particles.star", *WORDS)
    assert status == 2
    assert "the disk is full" in err
    assert os.listdir("sub") == []


def test_values_beyond_float16_are_refused(run, project):
    blobs = Blobs([Group(box=32, pixel=3.6, n=8, gain=1e6)])
    blobs.write(project)
    status, _, err = run("subtract", "particles.star", *WORDS, "--dtype", "float16")
    assert status == 2
    assert "too large for float16" in err
    assert os.listdir("sub") == []
