"""Devices and processes share the images; who shares them with whom does not matter."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrelax.engine import Workers, available_workers
from jaxrelax.geometry import point_group, register_agreement
from jaxrelax.io import InputError, OutputFolder
from jaxrelax.refinement import Local, MaxIterations, Registers, Relax, prepare, refine, step
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.maximisation import of_map
from tests.refinement.conftest import TINY, DataSet

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 2
# What registers differ by when sums are added in another order: poses are held, so that no image
# can choose another step.
CLOSE = dict(rtol=1e-3, atol=2e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two optics groups; one has an odd number of images in some folds."""
    changes = TINY | dict(group="C2", n_images=130, n_optics_groups=2)
    return DataSet(tmp_path_factory.mktemp("shared"), **changes)


def refined(data, **options):
    return refine(
        data.star, data.reference, relax=Relax("C2"), mode=Registers(),
        until=MaxIterations(ITERATIONS), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(data):
    result = refined(data)
    groups = point_group("C2"), point_group("C1")
    # What is compared is a refinement that finds something.
    assert register_agreement(result.poses, data.truth.rotations, *groups).fraction > 0.8
    return result


def assert_same(found, alone):
    """Registers, poses, maps and the test of a run, from a result or its arrays."""
    np.testing.assert_allclose(found["registers"], alone.registers, **CLOSE)
    certain = np.abs(alone.registers[:, 0] - 0.5) > 0.01
    assert certain.mean() > 0.9
    np.testing.assert_allclose(found["poses"][certain], alone.poses[certain], atol=1e-6)
    np.testing.assert_allclose(found["map"], alone.map, atol=2e-3 * np.abs(alone.map).max())
    assert alone.evidence is not None
    np.testing.assert_allclose(found["log_gain"], alone.evidence.log_gain, atol=0.02)


def arrays(result):
    return {
        "registers": result.registers,
        "poses": result.poses,
        "map": result.map,
        "log_gain": result.evidence.log_gain,
    }


# --- several devices ---


def test_one_device_by_default_on_cpus(alone):
    assert len(jax.local_devices()) > 1
    assert len(available_workers().devices) == 1
    assert alone.settings["devices"] == "1 × cpu"
    assert len(available_workers("all").devices) == len(jax.local_devices())


@pytest.mark.parametrize("devices", [0, 64])
def test_devices_that_are_not_there_are_refused(data, devices):
    with pytest.raises(InputError, match=f"devices: .*{devices}"):
        prepare(data.star, data.reference, devices=devices)


def test_two_devices(data, alone):
    found = refined(data, devices=2)
    assert found.settings["devices"] == "2 × cpu"
    assert_same(arrays(found), alone)


@pytest.mark.slow
def test_two_devices_search_poses_alike(data):
    """From one state: after several iterations an image may have taken another step."""
    options = dict(relax=Relax("C2"), mode=Local())
    one = prepare(data.star, data.reference, **options)
    state, _ = step(one.problem, one.state)
    shell = one.problem.shells.accumulated(state.score_shell, grow=False)
    two = prepare(data.star, data.reference, devices=2, **options)
    first, second = (expectation(setup.problem, state, shell) for setup in (one, two))
    same = np.abs(first.rotations - second.rotations).max(axis=(1, 2)) < 1e-4
    assert same.mean() > 0.97
    np.testing.assert_allclose(first.registers[same], second.registers[same], **CLOSE)
    np.testing.assert_allclose(first.residual, second.residual, rtol=1e-3)
    np.testing.assert_allclose(first.count, second.count, rtol=1e-5)
    agree = [
        np.abs(a.values - b.values).max() < 1e-3 * np.abs(a.values).max()
        for halves in zip(of_map(first.sums, 0), of_map(second.sums, 0), strict=True)
        for a, b in zip(*halves, strict=True)
    ]
    # A fold with an image that took another step is another sum.
    assert np.sum(agree) >= len(agree) - np.sum(~same)


# --- several processes ---

WORKER = """
import sys
import jax
import numpy as np

star, reference, out, devices, iterations, *process = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", int(devices))
if process:
    jax.distributed.initialize(process[0], int(process[1]), int(process[2]))
from jaxrelax.io import ImageReader
from jaxrelax.refinement import Callback, MaxIterations, Registers, Relax, image_statistics, refine

read, read_rows = [], ImageReader.read
ImageReader.read = lambda self, rows, **kw: read.append(rows) or read_rows(self, rows, **kw)
problems, begun, looked, measured = [], [], [], image_statistics.measured

def look(*given):
    found = measured(*given)
    looked.append(len(read))
    return found

image_statistics.measured = look

class Keep(Callback):
    def on_start(self, problem, state):
        problems.append(problem)
        begun.append(len(read))

result = refine(
    star, reference, relax=Relax("C2"), mode=Registers(), normalise="no", cache_gib=0.0,
    until=MaxIterations(int(iterations)), devices=int(devices), callbacks=[Keep()],
)
workers = problems[0].execution.workers
summed = workers.total((np.full(3, 1.0 + workers.index), 0.1, np.ones(5, np.float32)))
assert isinstance(summed[1], float), summed
np.savez(
    out, registers=result.registers, poses=result.poses, map=result.map,
    log_gain=result.evidence.log_gain, read=np.concatenate(read[begun[0]:]),
    looked_at=np.concatenate(read[:looked[0]]), own=problems[0].execution.own,
    double=summed[0], single=summed[2], scalar=summed[1],
    agreed=workers.agreed(["from process", workers.index])[1],
)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """That of the processes: without the devices of the tests, and with programs kept."""
    kept = str(tmp_path_factory.mktemp("programs"))
    changed = {
        "XLA_FLAGS": "",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", kept),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "OMP_NUM_THREADS": "1",
    }
    return os.environ | changed


@pytest.fixture
def start(environment):
    """Start Python with arguments; what still runs at the end of the test is killed."""
    running = []

    def start_(*words):
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        return process

    yield start_
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.slow
def test_four_devices(data, alone, start, tmp_path):
    worker = start("-c", WORKER, data.star, data.reference, tmp_path / "four.npz", 4, ITERATIONS)
    _, errors = worker.communicate(timeout=300)
    assert worker.returncode == 0, errors
    assert_same(np.load(tmp_path / "four.npz"), alone)


def test_two_processes(data, alone, start, tmp_path):
    address = free_address()
    files = [tmp_path / f"{i}.npz" for i in range(2)]
    workers = [
        start("-c", WORKER, data.star, data.reference, file, 1, ITERATIONS, address, 2, i)
        for i, file in enumerate(files)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    found = [np.load(file) for file in files]
    for one in found:
        assert_same(one, alone)
        np.testing.assert_array_equal(one["double"], [3.0, 3.0, 3.0])
        assert one["scalar"] == 0.2
        np.testing.assert_array_equal(one["single"], np.full(5, 2.0, np.float32))
        assert one["agreed"] == 0
        # Each reads its own images, all of them, and nothing else.
        np.testing.assert_array_equal(np.unique(one["read"]), np.flatnonzero(one["own"]))
    # Before there are half-sets and folds, each looks at an equal part of the table.
    looked_at = np.concatenate([one["looked_at"] for one in found])
    np.testing.assert_array_equal(np.sort(looked_at), np.arange(len(found[0]["own"])))
    assert not (found[0]["own"] & found[1]["own"]).any()
    assert (found[0]["own"] | found[1]["own"]).all()
    assert abs(int(found[0]["own"].sum()) - int(found[1]["own"].sum())) <= 10
    for name in ("registers", "log_gain"):
        np.testing.assert_array_equal(found[0][name], found[1][name])


@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_lost_process_ends_the_run_and_leaves_a_checkpoint(data, alone, start, tmp_path, lost):
    folder, address = tmp_path / "out", free_address()
    workers = [
        start(
            "-m", "jaxrelax.cli", "refine", data.star, "--reference", data.reference,
            "--relax", "C2", "--mode", "registers", "--out", folder, "--max-iterations", 1000,
            "--coordinator", address, "--processes", 2, "--process-id", i,
        )
        for i in range(2)
    ]  # fmt: skip
    header = folder / "checkpoint" / "checkpoint.json"
    deadline = time.monotonic() + 200
    while not header.is_file() and time.monotonic() < deadline:
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    workers[lost].send_signal(signal.SIGKILL)
    left = workers[1 - lost]
    _, errors = left.communicate(timeout=60)
    # 3 where it was waiting for the other, SIGABRT where JAX ended it as it worked.
    assert left.returncode in (3, -signal.SIGABRT), errors
    said = [line for line in errors.splitlines() if line.startswith("jaxrelax: ")]
    assert len(said) == 1, errors
    assert "was lost" in said[0]
    assert "--resume" in said[0]

    if lost == 1:
        # One process goes on from where two were.
        resumed = refined(data, out=OutputFolder(folder), resume=True)
        assert len(resumed.history) >= ITERATIONS
        if len(resumed.history) == ITERATIONS:
            assert_same(arrays(resumed), alone)


def test_both_find_the_same_fault(data, start, tmp_path):
    address = free_address()
    workers = [
        start(
            "-m", "jaxrelax.cli", "refine", data.star, "--reference", tmp_path / "no.mrc",
            "--out", tmp_path / "out", "--coordinator", address, "--processes", 2,
            "--process-id", i,
        )
        for i in range(2)
    ]  # fmt: skip
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 2, errors
        assert "no.mrc: no such file" in errors
    assert not (tmp_path / "out").exists()


def test_shares_are_equal_and_complete(data):
    problem = prepare(data.star, data.reference, relax=Relax("C2")).problem
    own = []
    for index in range(3):
        problem.execution.workers = Workers(problem.execution.workers.devices, index, 3)
        del problem.execution.__dict__["own"]
        own.append(problem.execution.own)
    assert (np.sum(own, axis=0) == 1).all()
    for half in (1, 2):
        for fold in range(5):
            for _, rows in problem.data.batches(half, fold):
                sizes = [len(rows[mine[rows]]) for mine in own]
                assert max(sizes) - min(sizes) <= 1
    assert max(mine.sum() for mine in own) - min(mine.sum() for mine in own) <= 4
