"""`jaxrelax test-symmetry`: the table, the file, and what is refused."""

import dataclasses
import json

import pytest

from jaxrelax.refinement import Local, MaxIterations, Registers, Relax


@pytest.fixture
def fake(fake_refine, monkeypatch):
    monkeypatch.setattr("jaxrelax.cli.test_symmetry.refine", fake_refine)
    return fake_refine


@pytest.fixture
def words(data):
    return [
        *("test-symmetry", str(data.particles), "--reference", str(data.reference)),
        *("--symmetry", "C4"),
    ]


def test_the_table_is_printed(fake, run, words):
    status, out, err = run(*words, "--quiet")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["symmetry", "C4", "C2"]
    assert "< 10⁻³" in lines[1]
    assert "rejected" in lines[1]
    assert "largest symmetry that they do not contradict is C2" in lines[3]
    assert fake.asked["subgroups"] == "all"
    assert fake.asked["relax"] == Relax("C4")
    # Errors of held poses look like asymmetry: they are refined unless somebody asks otherwise.
    assert fake.asked["mode"] == Local()


def test_poses_are_held_on_request(fake, run, words):
    assert run(*words, "--poses", "fixed")[0] == 0
    assert fake.asked["mode"] == Registers()


def test_a_claim_that_the_maps_contradict_is_not_left_alone(fake, run, words):
    fake.result = dataclasses.replace(fake.result, difference=0.0 * fake.result.difference)
    status, out, err = run(*words)
    assert status == 0
    assert "This is contradicted: the difference map is nil" in out.splitlines()[-1]
    assert "difference map is nil" in err


def test_options_arrive(fake, run, words, tmp_path):
    status, *_ = run(
        *words, "--to", "C2", "--sigma-rotation-deg", 1.5, "--cross-fit", 3,
        "--register-max-resolution", 12, "--start", "poses", "--ini-high", 20, "--seed", 4,
        "--max-iterations", 7, "--prior", "plain", "--no-junk",
    )  # fmt: skip
    assert status == 0
    assert fake.asked["mode"] == Local(sigma_rotation_deg=1.5)
    relax = Relax(
        "C4", to="C2", cross_fit=3, max_resolution=12.0, start="poses", prior="plain", junk=False
    )
    assert fake.asked["relax"] == relax
    assert (fake.asked["ini_high"], fake.asked["seed"]) == (20.0, 4)
    assert fake.asked["until"].second == MaxIterations(7)
    assert "out" not in fake.asked


def test_the_file_is_written(fake, run, words, tmp_path):
    out = tmp_path / "out"
    assert run(*words, "--out", out)[0] == 0
    content = json.loads((out / "symmetry_test.json").read_text())
    assert content["supported_symmetry"] == "C2"
    assert [row["symmetry"] for row in content["subgroups"]] == ["C4", "C2"]
    assert content["subgroups"][0]["log10_p"] == pytest.approx(-350.2)
    assert (out / "report.html").is_file()
    status, _, err = run(*words, "--out", out)
    assert status == 2
    assert "--overwrite" in err
    assert run(*words, "--out", out, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--poses", "fixed", "--sigma-rotation-deg", "1"), "can act only with --poses local"),
        (("--overwrite",), "can act only with --out"),
        (("--max-iterations", "0"), "at least 1"),
        (("--cross-fit", "0"), "cross_fit"),
        (("--prior", "plain", "--optimism", "2"), "cannot act with --prior plain"),
        (("--passthrough", "a.cs"), "belongs to .cs files"),
        (("--cache-gib", "-1"), "cannot be negative"),
    ],
)
def test_refused(fake, run, words, more, message):
    status, _, err = run(*words, *more)
    assert status == 2
    assert message in err
    assert fake.asked == {}


def test_an_unknown_group_is_refused(run, words):
    words[-1] = "Q9"
    status, _, err = run(*words)
    assert status == 2
    assert "Q9" in err
