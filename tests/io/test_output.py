"""The output folder: never a foreign file lost, never half a file."""

import errno
import json
import os

import numpy as np
import pytest

from jaxrelax.io import (
    InputError,
    OutputFolder,
    atomic_open,
    require_writable,
    write_fsc_star,
    write_map,
)
from tests.io.conftest import parse_star


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_that_is_not_empty_needs_a_decision(tmp_path):
    folder = tmp_path / "a" / "out"
    output = OutputFolder.create(folder)
    output.write_text("history.csv", "iteration\n")
    with pytest.raises(InputError, match=r"not empty.*--resume.*--overwrite"):
        OutputFolder.create(folder)
    OutputFolder.create(folder, resume=True)
    assert files(folder) == ["history.csv"]
    with pytest.raises(InputError, match="one of"):
        OutputFolder.create(folder, resume=True, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        OutputFolder.create(folder / "history.csv")


def test_where_nothing_can_be_written_is_found_before(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is a file, so .* cannot be made"):
        require_writable(tmp_path / "file" / "b")
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="you may not write there"):
            require_writable(tmp_path / "locked" / "b")


def test_overwrite_removes_results_and_nothing_else(tmp_path):
    output = OutputFolder.create(tmp_path / "out")
    mine = ["map.mrc", "half1_class02.mrc", "particles.star", "report.html"]
    mine += ["checkpoint/iteration003.json", "checkpoint/iteration003.npz", "fsc.star"]
    foreign = ["notes.txt", "my_map.mrc", "map.mrc.backup", "sub/map.mrc", "checkpoint/readme.md"]
    for name in mine + foreign:
        output.write_text(name, "x")
    OutputFolder.create(output.path, overwrite=True)
    assert files(output.path) == sorted(foreign)


def test_json_and_npz_hold_what_was_written(tmp_path):
    output = OutputFolder.create(tmp_path / "out")
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": tmp_path, "e": (1,)}
    path = output.write_json("result.json", value)
    assert json.loads(path.read_text()) == {
        "a": 0.5,
        "b": [0, 1],
        "c": None,
        "d": str(tmp_path),
        "e": [1],
    }
    path = output.write_npz("registers.npz", {"posterior": np.eye(3)})
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["posterior"], np.eye(3))


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    output = OutputFolder.create(tmp_path / "out")
    output.write_text("result.json", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: output.write_text("result.json", "new"),
        lambda: output.write_npz("result.json", {"a": np.zeros(3)}),
        lambda: write_map(output / "result.json", np.zeros((4, 4, 4)), 1.0),
        lambda: write_fsc_star(output / "result.json", {"rlnSpectralIndex": [0]}),
    ):
        with pytest.raises(InputError, match="disk is full"):
            write()
    assert files(output.path) == ["result.json"]
    assert (output / "result.json").read_text() == "old"


def test_a_folder_that_is_gone_is_an_input_error_and_other_errors_pass(tmp_path):
    with pytest.raises(InputError, match="cannot be written"), atomic_open(tmp_path / "no" / "a"):
        pass
    with pytest.raises(FileNotFoundError), atomic_open(tmp_path / "a"):
        (tmp_path / "other").read_text()
    with pytest.raises(KeyError), atomic_open(tmp_path / "a"):
        raise KeyError
    assert files(tmp_path) == []


def test_fsc_table(tmp_path):
    path = tmp_path / "fsc.star"
    table = {
        "rlnSpectralIndex": np.arange(2),
        "rlnResolution": [0.0, 0.01],
        "rlnAngstromResolution": [np.inf, 100.0],
        "rlnFourierShellCorrelationUnmaskedMaps": [1.0, 0.5],
    }
    write_fsc_star(path, table)
    labels, rows = parse_star(path)["fsc"]
    assert labels == list(table)
    assert rows == [
        ["0", "0.000000", "999.000000", "1.000000"],
        ["1", "0.010000", "100.000000", "0.500000"],
    ]
