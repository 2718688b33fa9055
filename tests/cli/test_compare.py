"""`jaxrelax compare`: the tables, the file, and what is refused."""

import csv
import dataclasses

import pytest

from jaxrelax.assessment import save
from jaxrelax.io import OutputFolder
from tests.assessment.conftest import make_result, make_states


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A relaxation that found something, one that did not, a classification; of the same images."""
    place = tmp_path_factory.mktemp("runs")
    found = make_result(place / "found_data")
    runs = {
        "a-folder-with-quite-a-long-name": found,
        "control": make_result(place / "control_data", found=False),
        "states": make_states(found),
        "plain": dataclasses.replace(found, settings={"symmetry": "C4"}, evidence=None),
    }
    for name, result in runs.items():
        save(result, OutputFolder.create(place / name))
    return [place / name for name in runs]


def test_runs_side_by_side(run, folders):
    status, out, err = run("compare", *folders)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) < 100
    header, one, control, states, plain = lines[:5]
    assert header.split()[:5] == ["run", "group", "images", "whole", "part"]
    assert one.startswith(" 1  …")
    assert all(word in one for word in ("-name", "C4→C1", "60", "9.60", "found 40.0", "83 s"))
    assert "no 0.2" in control
    assert "3 states" in states
    assert plain.split()[2:5] == ["C4", "60", "9.60"]
    assert "against run 1" in out
    against = lines[lines.index("The same images, against run 1:") + 2 :]
    assert [line.split()[0] for line in against] == ["2", "3", "4"]
    assert "48" in against[0]


def test_numbers_as_a_file(run, folders, tmp_path):
    path = tmp_path / "runs.csv"
    status, out, _ = run("compare", *folders[:3], "--csv", path)
    assert status == 0
    assert str(path) in out
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["run"] for row in rows] == [str(folder) for folder in folders[:3]]
    assert [row["asymmetry_found"] for row in rows] == ["True", "False", ""]
    assert [row["states"] for row in rows] == ["", "", "3"]
    assert rows[0]["shared_images"] == ""
    assert int(rows[1]["shared_images"]) == 48
    assert float(rows[1]["pose_difference_deg"]) < 1e-3
    assert 0.0 <= float(rows[1]["same_register"]) <= 1.0
    assert rows[2]["adjusted_rand"] == ""  # the first has no states
    assert run("compare", folders[0], "--csv", path)[0] == 2
    assert run("compare", folders[0], "--csv", path, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name the output folders of finished runs"),
        (("nowhere",), "nowhere: no such folder"),
        (("--overwrite",), "name the output folders"),
    ],
)
def test_what_is_refused(run, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("compare", *words)
    assert (status, out) == (2, "")
    assert said in err


def test_options_that_cannot_act(run, folders, tmp_path):
    status, _, err = run("compare", folders[0], "--overwrite")
    assert status == 2
    assert "--overwrite: can act only with --csv" in err
    status, _, err = run("compare", folders[0], "--csv", tmp_path / "nowhere" / "runs.csv")
    assert status == 2
    assert "no such folder" in err
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    path = tmp_path / "runs.csv"
    status, _, err = run("compare", folders[0], unfinished, "--csv", path)
    assert status == 2
    assert "jaxrelax status" in err
    assert not path.exists()
