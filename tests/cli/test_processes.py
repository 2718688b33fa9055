"""Options of devices and processes, and how a process ends."""

import os
import subprocess
import sys

import jax
import pytest

from jaxrelax.cli import processes
from jaxrelax.cli.option_groups import WorkerOptions
from jaxrelax.cli.processes import Guard
from jaxrelax.io import InputError
from jaxrelax.refinement import WorkerLost


@pytest.fixture
def words(data, tmp_path):
    return [
        *("refine", data.particles, "--reference", data.reference),
        *("--relax", "C4", "--out", tmp_path / "out"),
    ]


@pytest.mark.parametrize(("given", "asked"), [("2", 2), ("all", "all")])
def test_devices_arrive(fake_refine, run, words, given, asked):
    status, *_ = run(*words, "--devices", given)
    assert status == 0
    assert fake_refine.asked["devices"] == asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "at least 1"),
        ({"processes": 2}, "--processes: can act only with --coordinator"),
        ({"process_id": 0}, "--process-id: can act only with --coordinator"),
        ({"coordinator": "node1:7800", "distributed": True}, "one of the two"),
        ({"coordinator": "node1"}, "host:port"),
        ({"coordinator": "node1:7800", "processes": 2}, "--process-id"),
        ({"coordinator": "node1:7800", "processes": 2, "process_id": 2}, "from 0 to"),
    ],
)
def test_options_that_cannot_act_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        WorkerOptions(**options).check()


def test_the_others_are_met_as_was_asked(monkeypatch):
    met = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *place: met.append(place))
    try:
        assert WorkerOptions().join()
        assert met == []
        assert WorkerOptions(distributed=True).join()
        assert WorkerOptions(coordinator="node1:7800", processes=2, process_id=1).join()
    finally:
        processes.guard.release()
    assert met == [(None, None, None), ("node1:7800", 2, 1)]


def test_without_a_launcher_distributed_is_refused(monkeypatch, capfd):
    def nobody(*place):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nobody)
    try:
        with pytest.raises(InputError, match="neither SLURM"):
            WorkerOptions(distributed=True).join()
    finally:
        processes.guard.release()
    assert capfd.readouterr().err == ""


def test_a_lost_process_has_a_status_of_its_own(fake_refine, run, words):
    def lose():
        raise WorkerLost("another of the 2 processes of this run was lost")

    fake_refine.during = lose
    status, _, err = run(*words)
    assert status == 3
    assert err == "jaxrelax: another of the 2 processes of this run was lost.\n"


@pytest.mark.parametrize("last", ["os.abort()", "guard.release()"])
def test_the_guard_speaks_for_a_process_that_cannot(last):
    assert Guard().release() is None  # nothing to release
    code = f"import os\nfrom jaxrelax.cli.processes import guard\nguard.watch('ended')\n{last}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert done.stderr == ("ended\n" if "abort" in last else "")
