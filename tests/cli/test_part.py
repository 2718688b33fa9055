"""`jaxrelax refine --mask`: what of a part is refused, and with what words."""

import shutil

import numpy as np
import pytest


@pytest.fixture
def files(data, tmp_path):
    """Simulated particles with their poses, maps, and a mask."""
    for path in data.folder.iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(data.reference, tmp_path / "mask.mrc")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mask", "mask.mrc", "--mode", "homogeneous"], "poses of the whole particle"),
        (["--axis-at", "1", "2", "3"], "nothing is relaxed or imposed"),
        (["--rest-symmetry", "C5"], "can act only with --mask"),
        (["--mask", "nothing.mrc"], "nothing.mrc"),
        (["--rotation-extent-deg", "70"], "rotation_extent_deg is 70"),
        (["--axis-along", "0", "0", "0", "--relax", "C4"], "not all zero"),
    ],
)
def test_refused(run, files, monkeypatch, options, words):
    monkeypatch.chdir(files)
    given = ["refine", "truth.star", "--reference", "truth_map.mrc", "--out", "refused", *options]
    status, _, err = run(*given)
    assert status != 0
    assert words in err
    assert not (files / "refused").exists()


def test_another_axis_is_refused_with_the_right_one(run, files, monkeypatch):
    """The C4 body about another axis: what is said is where its own is."""
    monkeypatch.chdir(files)
    status, _, err = run(
        "refine", "truth.star", "--reference", "reference.mrc", "--relax", "C4",
        "--axis-at", "16", "-8", "0", "--out", "refused",
    )  # fmt: skip
    assert status != 0
    assert "is about another axis: off by" in err
    words = err.split("another axis")[1]
    at = err.split("--axis-at ")[1].split()[:3]
    along = err.split("--axis-along ")[1].split()[:3]
    np.testing.assert_allclose(np.array(at, float)[:2], 0.0, atol=1.0)
    np.testing.assert_allclose(
        np.abs(np.array([x.rstrip(";.") for x in along], float)[2]), 1, atol=0.01
    )
    # A file of operators with translations says the same axis.
    at_16 = [np.diag([s, s, 1.0]) for s in (1, -1)]
    at_16 += [np.array([[0.0, s, 0.0], [-s, 0.0, 0.0], [0.0, 0.0, 1.0]]) for s in (1, -1)]
    point = np.array([16.0, -8.0, 0.0])
    rows = [np.column_stack([g, point - g @ point]).ravel() for g in at_16]
    (files / "operators.txt").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    given = ("refine", "truth.star", "--reference", "reference.mrc", "--relax", "operators.txt")
    status, _, err = run(*given, "--out", "refused")
    assert status != 0
    assert err.split("another axis")[1] == words
    # And cannot be said where nothing can be elsewhere.
    status, _, err = run(
        "reconstruct", "truth.star", "--symmetry", "operators.txt", "--out", "n.mrc"
    )
    assert status != 0
    assert "about 16.0 -8.0 0.0 Å from the centre" in err
