"""Runs that are killed, at any moment, and resumed end as if nothing had happened."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxrelax.io import read_map
from tests.refinement.conftest import TINY, DataSet

# The command line, killed in place of the n-th renaming of a file in the output folder: the file
# is then whole under its temporary name, what came before it has its place.
KILLED_WHILE_WRITING = """
import os, signal, sys
from jaxrelax.cli import main
left, folder, rename = int(sys.argv[1]), sys.argv[2], os.replace
def replace(source, target):
    global left
    if str(target).startswith(folder):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
sys.exit(main(sys.argv[3:]))
"""
NEVER = 0
ITERATIONS = 3
RELAXED = ("--relax", "C4", "--ini-high", "20", "--subgroups", "none")
GLOBAL = ("--mode", "homogeneous", "--coarsest-order", "1")
ROUNDS = 5
# Asymmetry is sought; its strength is calibrated, with and without poses; poses are searched
# globally, and then the symmetry is relaxed.
MODES = {
    "seek": (*RELAXED, "--start", "symmetric"),
    "settle": (*RELAXED, "--start", "poses"),
    "registers": (*RELAXED, "--start", "poses", "--mode", "registers"),
    "homogeneous": (*GLOBAL, "--symmetry", "C4"),
    "two stages": (*GLOBAL, *RELAXED),
}


class Runs:
    """One refinement in processes of its own; programs are compiled once for all of them."""

    def __init__(self, data: DataSet, folder: Path, mode: str):
        self.data, self.folder, self.mode = data, folder, mode
        self.environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(self, out: Path, *, resume: bool = False, killed_at: int = NEVER):
        """The process of the refinement into a folder."""
        command = [
            *(sys.executable, "-c", KILLED_WHILE_WRITING, str(killed_at), str(out)),
            *("refine", str(self.data.star), "--reference", str(self.data.reference)),
            *(*MODES[self.mode], "--max-iterations", str(ITERATIONS), "--out", str(out)),
        ]
        if resume:
            command.append("--resume")
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def whole(self) -> tuple[Path, float]:
        """The folder of a run that nobody killed, and how many seconds it took."""
        began = time.monotonic()
        process = self.start(self.folder / "whole")
        _, err = process.communicate()
        assert process.returncode == 0, err
        return self.folder / "whole", time.monotonic() - began


def killed(process, after: float | None = None) -> bool:
    """Whether the process died of SIGKILL, sent after so many seconds unless it kills itself."""
    try:
        _, err = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode != 0


def assert_same(out: Path, whole: Path) -> None:
    """Every file that a run writes is there, with the same content, and nothing else."""
    names = [sorted(str(p.relative_to(f)) for p in f.rglob("*")) for f in (out, whole)]
    assert names[0] == names[1]
    assert (out / "particles.star").read_bytes() == (whole / "particles.star").read_bytes()
    if (whole / "registers.npz").is_file():
        with np.load(out / "registers.npz") as one, np.load(whole / "registers.npz") as other:
            assert set(one) == set(other)
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
    for name in ("map", "half1", "half2", "mask"):
        maps = [read_map(folder / f"{name}.mrc")[0] for folder in (out, whole)]
        np.testing.assert_array_equal(*maps)
    one, other = (without_seconds(folder / "history.csv") for folder in (out, whole))
    assert one == other
    assert len(one) >= ITERATIONS


def without_seconds(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return DataSet(tmp_path_factory.mktemp("tiny"), **TINY | {"n_images": 120})


def test_a_run_killed_twice_gives_the_same_result(data, tmp_path):
    runs = Runs(data, tmp_path, "registers")
    whole, _ = runs.whole()
    out = tmp_path / "out"
    # Two files per iteration. The arrays of the second are in place, its header is not.
    assert killed(runs.start(out, killed_at=4))
    assert (out / "checkpoint" / "state_002.npz").exists()
    assert list((out / "checkpoint").glob(".*"))
    # Two more iterations, then among the results.
    assert killed(runs.start(out, resume=True, killed_at=8))
    assert (out / "particles.star").exists()
    assert not (out / "result.json").exists()
    assert not killed(runs.start(out, resume=True))
    assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["seek", "settle", "homogeneous", "two stages"])
def test_runs_killed_at_random_moments_give_the_same_result(data, tmp_path, mode):
    rng = np.random.default_rng(list(MODES).index(mode))
    runs = Runs(data, tmp_path, mode)
    whole, _ = runs.whole()
    # The first one also waited for compilations.
    began = time.monotonic()
    assert not killed(runs.start(tmp_path / "again"))
    seconds = time.monotonic() - began
    assert_same(tmp_path / "again", whole)
    renamed = 2 * len(without_seconds(whole / "history.csv")) + len(list(whole.glob("*.*"))) - 1

    def hit(out: Path, resume: bool) -> bool:
        """Kill a run somewhere, unless it has less to do than that."""
        if rng.random() < 0.5:
            process = runs.start(out, resume=resume)
            return killed(process, after=rng.uniform(0.05, 0.95) * seconds)
        return killed(runs.start(out, resume=resume, killed_at=int(rng.integers(1, renamed + 1))))

    kills = []
    for number in range(ROUNDS):
        out = tmp_path / f"out{number}"
        kills.append(int(hit(out, resume=False)))
        # The second one falls into what is left to do, if it is not over before.
        if hit(out, resume=True):
            kills[-1] += 1
            assert not killed(runs.start(out, resume=True))
        assert_same(out, whole)
    print(mode, kills)
    assert sum(kills) >= ROUNDS
