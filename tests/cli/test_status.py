"""`jaxrelax status`: what the files of a folder say of its run."""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.cli.run_folder import read_run_folder
from jaxrelax.cli.status import WIDTH, described, duration
from jaxrelax.io import OutputFolder
from jaxrelax.refinement.checkpoint import save_checkpoint
from tests.refinement.made_up import NOTHING, history_of, made_up_state

STARTED = (
    "2026-01-02 03:04:05,678 INFO jaxrelax refine 'my particles.star' --reference ref.mrc --out "
    "run --relax C4 --until 'RegistersSettled & AsymmetryStalled' --overwrite\n"
)
ITERATION = "2026-01-02 03:04:15,678 INFO iteration 2: 7.40 Å, scored to 8.12 Å" + 90 * " more"
STOPPED = "2026-01-02 03:05:15,678 ERROR stopped by Ctrl-C\n"


@pytest.fixture
def folder(tmp_path):
    """A run after two iterations, one of them of an earlier stage."""
    infos = [replace(NOTHING, iteration=k, seconds=float(30 * k)) for k in (1, 2)]
    before = history_of([replace(infos[0], relaxed=False, searched_globally=True)])
    state = made_up_state(history=infos[1:], history_before=before)
    path = tmp_path / "run"
    save_checkpoint(OutputFolder.create(path), state, {"seed": 1})
    (path / "log.txt").write_text(STARTED + ITERATION + "\n")
    return path


def finished(folder, **content):
    known = {"resolution_angstrom": 6.5, "n_iterations": 2, "evidence": {"found": True}}
    (folder / "result.json").write_text(json.dumps(known | content))


def aged(folder, seconds):
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_a_run_that_is_under_way(folder, run):
    found = read_run_folder(folder)
    assert (found.status, found.iterations, found.stage) == ("running", 2, "relaxation")
    assert found.slowest_seconds == 60.0
    status, out, err = run("status", folder)
    assert (status, err) == (0, "")
    assert f"{folder}: running, or killed just now: last written" in out
    assert "2 iterations done (relaxation)" in out
    assert "last: iteration 2: 7.40 Å, scored to 8.12 Å more" in out
    last = next(line for line in out.splitlines() if "last:" in line)
    assert len(last) <= WIDTH
    assert last.endswith(" …")
    assert "wait; if it was killed: jaxrelax refine" in out


def test_how_it_goes_on_is_what_a_shell_takes(folder):
    again = shlex.split(read_run_folder(folder).again)
    assert again[:3] == ["jaxrelax", "refine", "my particles.star"]
    assert "RegistersSettled & AsymmetryStalled" in again
    assert again[-1] == "--resume"
    assert "--overwrite" not in again
    with (folder / "log.txt").open("a") as log:  # it has been resumed before
        log.write(STARTED.replace("--overwrite", "--resume"))
    assert shlex.split(read_run_folder(folder).again).count("--resume") == 1


def test_the_log_of_a_command_is_taken_by_a_shell(fake_refine, run, data, tmp_path):
    """The command as it is logged by `refine` comes back word by word."""
    out = tmp_path / "an output folder"
    words = [*("refine", str(data.particles), "--reference", str(data.reference))]
    words += ["--out", str(out), "--relax", "C4", "--until", "PosesSettled | MaxIterations(3)"]
    assert run(*words, "--no-junk")[0] == 0
    (out / "result.json").unlink()
    again = shlex.split(read_run_folder(out).again)
    assert set(again) == {"jaxrelax", *words, "--no-junk", "--resume"}


@pytest.mark.parametrize(("silent", "status"), [(500, "running"), (700, "killed")])
def test_a_run_that_has_been_silent(folder, silent, status):
    """Ten of its longest iterations are ten minutes."""
    aged(folder, silent)
    found = read_run_folder(folder)
    assert found.status == status
    text = described(found, time.time())
    assert ("killed, most likely: nothing was written for 12 min" in text) == (silent == 700)


def test_a_slow_run_may_be_silent_for_longer(tmp_path):
    state = made_up_state(history=[replace(NOTHING, seconds=1000.0)])
    save_checkpoint(OutputFolder.create(tmp_path), state, {})
    aged(tmp_path, 9000)
    assert read_run_folder(tmp_path).status == "running"
    aged(tmp_path, 11000)
    found = read_run_folder(tmp_path)
    assert found.status == "killed"
    # Nobody logged what it was asked: it was called from Python.
    assert found.command is None
    assert "resume=True" in described(found, time.time())


def test_a_run_that_was_stopped(folder):
    with (folder / "log.txt").open("a") as log:
        log.write(STOPPED)
    aged(folder, 7200)
    found = read_run_folder(folder)
    text = described(found, time.time())
    assert found.status == "stopped"
    assert "stopped 2.0 h ago, 2 iterations done" in text
    assert "last: stopped by Ctrl-C" in text
    # What is resumed is no longer stopped.
    with (folder / "log.txt").open("a") as log:
        log.write(STARTED)
    assert read_run_folder(folder).status == "running"


def test_a_run_that_is_finished(folder, run):
    finished(folder)
    (folder / "report.html").touch()
    assert read_run_folder(folder).status == "finished"
    status, out, _ = run("status", folder)
    assert status == 0
    assert "2 iterations done, 6.50 Å, asymmetry found" in out
    assert f"next: read {folder / 'report.html'}" in out
    assert "--resume" not in out
    finished(folder, evidence=None, states=[{}, {}, {}])
    assert "6.50 Å, 3 states" in run("status", folder)[1]


def test_a_finished_run_that_goes_on(folder):
    """Its result is older than its checkpoint."""
    finished(folder)
    os.utime(folder / "result.json", (1.0, 1.0))
    assert read_run_folder(folder).status == "running"


def test_classes_have_a_stage_of_their_own(tmp_path):
    state = made_up_state(history=[NOTHING, replace(NOTHING, fractions=(0.4, 0.6))])
    save_checkpoint(OutputFolder.create(tmp_path), state, {})
    assert read_run_folder(tmp_path).stage == "states"


def test_arrays_that_have_just_been_replaced(folder):
    """The header is read, then the arrays that it names are gone."""
    for path in (folder / "checkpoint").glob("*.npz"):
        path.unlink()
    found = read_run_folder(folder)
    assert (found.status, found.iterations, found.stage) == ("running", 0, "")


def test_folders_without_a_run(folder, run, tmp_path):
    (tmp_path / "empty").mkdir()
    status, out, err = run("status", tmp_path / "empty", folder, tmp_path / "nowhere")
    assert status == 1
    assert str(folder) in out
    assert f"{tmp_path / 'empty'}: holds no run." in err
    assert f"{tmp_path / 'nowhere'}: there is no such folder." in err
    assert run("status")[0] == 2
    status, _, err = run("status", folder, "--folder", "x")
    assert status == 2
    assert "--folder" in err


def test_it_does_not_wait_for_jax(folder):
    """And what it reads of checkpoints is what is written there."""
    asked = (
        "import sys; from jaxrelax.cli import main; status = main(sys.argv[1:]); "
        "print(status, 'jax' in sys.modules)"
    )
    words = [sys.executable, "-c", asked, "status", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (7200, "2.0 h"), (3 * 86400, "3.0 days")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_the_history_that_is_read_is_that_of_the_state(folder):
    with np.load(next((folder / "checkpoint").glob("*.npz"))) as stored:
        assert stored[".history.columns['seconds']"].tolist() == [60.0]
