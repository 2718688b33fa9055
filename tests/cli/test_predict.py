"""`jaxrelax predict`: what it says and writes, and what it refuses."""

import numpy as np
import pytest

from jaxrelax.io import read_particles


def test_with_a_map(run, data, tmp_path):
    out = tmp_path / "predicted.star"
    words = ("predict", data.particles, "--relax", "C4", "--map", data.truth_map)
    words += ("--max-resolution", "16", "--out", out)
    status, told, err = run(*words)
    assert (status, err) == (0, "")
    assert "expected register accuracy" in told
    assert "view from z" in told
    written = read_particles(out)
    accuracy = written.column("jrxExpectedAccuracy").astype(float)
    nats = written.column("jrxDiscriminability").astype(float)
    assert f"{accuracy.mean():.3f}" in told
    assert np.all((accuracy >= 0.25 - 1e-5) & (accuracy <= 1.0))
    assert np.corrcoef(np.argsort(np.argsort(nats)), np.argsort(np.argsort(accuracy)))[0, 1] > 0.9
    # Everything else is as it was.
    for label in ("rlnImageName", "rlnAngleRot", "rlnDefocusU", "rlnRandomSubset"):
        np.testing.assert_array_equal(
            written.column(label), read_particles(data.particles).column(label)
        )
    assert run(*words)[0] == 2
    assert run(*words, "--overwrite")[0] == 0


def test_with_a_ball(run, data):
    words = ("predict", data.particles, "--relax", "C4", "--reference", data.reference)
    words += ("--max-resolution", "16", "--mode", "registers")
    told = {}
    for mass in ("1", "30"):
        status, told[mass], err = run(*words, "--partner-kda", mass)
        assert (status, err) == (0, "")
    assert "These data cannot resolve the register" in told["1"]
    assert "cannot resolve" not in told["30"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give one of --map"),
        (("--map", "a.mrc", "--reference", "b.mrc"), "give one of --map"),
        (("--map", "a.mrc", "--partner-kda", "3"), "--partner-kda: can act only with --reference"),
        (("--reference", "b.mrc"), "say with --partner-kda"),
        (("--reference", "DATA", "--partner-kda", "-3"), "masses must be above 0"),
        (
            ("--reference", "DATA", "--partner-kda", "30", "--partner-at", "0", "0", "100"),
            "does not fit the box",
        ),
        (("--map", "a.mrc", "--max-resolution", "0"), "must be above 0"),
        (("--map", "a.mrc", "--overwrite"), "--overwrite: can act only with --out"),
        (("--map", "a.mrc", "--out", "a.txt"), "written as .star"),
        (("--map", "a.mrc", "--out", "nowhere/a.star"), "nowhere: no such folder"),
        (("--map", "a.mrc", "--passthrough", "a.cs"), "belongs to .cs files"),
        (
            ("--map", "a.mrc", "--mode", "registers", "--sigma-rotation-deg", "1"),
            "can act only with --mode local",
        ),
        (("--map", "a.mrc", "--sigma-rotation-deg", "0"), "positive widths"),
        (("--map", "a.mrc", "--to", "C3"), "C3"),
        (("--map", "no.mrc"), "no.mrc"),
    ],
)
def test_refuses(run, data, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    words = [data.reference if word == "DATA" else word for word in words]
    status, out, err = run("predict", data.particles, "--relax", "C4", *words)
    assert (status, out) == (2, "")
    assert message in err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []
