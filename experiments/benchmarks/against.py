"""Wall time and peak memory of a refinement beside those of an earlier commit.

    python experiments/benchmarks/against.py COMMIT PARTICLES REFERENCE [--rounds 2]
        [--truth TRUTH [--kept C1]] [--warm] [-- --relax C4 ...]

``jaxrelax refine PARTICLES --reference REFERENCE`` and what stands after ``--`` runs by the
command line, in turns with the package of COMMIT (side A) and with that of this checkout as it
lies there, changes that are not committed included (side B): A B A B for two rounds. The package
of COMMIT comes from a temporary git worktree, which is removed at the end; the checkout stays as it
is. Both sides use this interpreter and its installed dependencies, so that a commit that needs
others cannot be compared. Every run has a process and an empty output folder of its own.

Compiled programs: by default every run starts with an empty cache of its own, so that it compiles
everything, as the first run after an installation does. With ``--warm`` each side has a cache for
itself, which an additional first run fills that does not count. Never do the sides share one, nor
use that of the user: the side with more programs of the other's in it would win.

Wall time is that from the start of the process to its end, imports and output included; peak
memory the largest resident set that the kernel saw of it (``ru_maxrss`` of this one child). Ratios
are those of the medians, B over A. With a table of the truth registers and posteriors are judged,
too.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from jaxrelax.assessment import register_accuracy
from jaxrelax.io import read_particles

HERE = Path(__file__).resolve().parents[2]
SHORTEST_COMPILATION_KEPT = "0.1"  # s, as the command line keeps them


@dataclass(frozen=True)
class Run:
    """What one refinement cost, and what came out."""

    seconds: float
    processor_seconds: float
    peak_gib: float
    iterations: int
    compile_seconds: float
    mean_max_posterior: float
    accuracy: float
    calibration_error: float

    def row(self, name: str) -> str:
        """A line of the table."""
        return (
            f"| {name} | {self.seconds:.1f} | {self.processor_seconds:.1f} "
            f"| {self.compile_seconds:.1f} | {self.peak_gib:.3f} | {self.iterations} "
            f"| {self.mean_max_posterior:.4f} | {self.accuracy:.4f} "
            f"| {self.calibration_error:.4f} |"
        )


HEAD = (
    "| side | wall, s | processors, s | compiling, s | peak, GiB | iterations "
    "| mean max posterior | register accuracy | ECE |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@contextlib.contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The tree of a commit in a worktree inside a folder, while this is open."""
    git = ["git", "-C", str(HERE)]
    place = folder / "commit"
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(place), commit], check=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(place)], check=True)


def environment(package: Path, programs: Path) -> dict[str, str]:
    """Variables with which a child imports the package of one tree and has one cache.

    Raises:
        SystemExit: it would import another package, or the tree cannot be imported.
    """
    variables = os.environ | {
        "PYTHONPATH": str(package),
        "PYTHONSAFEPATH": "1",  # not the package of the current folder
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": SHORTEST_COMPILATION_KEPT,
    }
    found = subprocess.run(
        [sys.executable, "-c", "import jaxrelax; print(jaxrelax.__file__)"],
        env=variables, capture_output=True, text=True,
    )  # fmt: skip
    if found.returncode:
        raise SystemExit(f"{package} cannot be imported:\n{found.stderr}")
    if not Path(found.stdout.strip()).is_relative_to(package):
        raise SystemExit(f"{found.stdout.strip()} would be imported instead of {package}")
    return variables


def refined(variables: dict[str, str], out: Path, asked: argparse.Namespace) -> Run:
    """Refine in a process of its own.

    Raises:
        SystemExit: the refinement failed.
    """
    command = [sys.executable, "-m", "jaxrelax.cli", "refine", str(asked.particles)]
    command += ["--reference", str(asked.reference), "--out", str(out), *asked.options]
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        # Not through subprocess's own wait: it does not say what the child used. The child's peak
        # begins with that of this process when it is started, which is far less than its own.
        child = subprocess.Popen(command, env=variables, stdout=said, stderr=said)
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            child.wait()
            raise
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{said.read()}")
    return Run(
        seconds,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * (1 if sys.platform == "darwin" else 2**10) / 2**30,
        *outcome(out, asked),
    )


def outcome(out: Path, asked: argparse.Namespace) -> tuple[int, float, float, float, float]:
    """Iterations, seconds of compilation, mean max posterior, register accuracy and ECE.

    NaN for what this refinement does not have.
    """
    with (out / "history.csv").open() as file:
        iterations = len(list(csv.DictReader(file)))
    compiling = json.loads((out / "result.json").read_text()).get("compile_seconds", np.nan)
    found = read_particles(out / "particles.star")
    posterior = found.column("jrxRegisterProbability")
    mean = np.nan if posterior is None else float(np.mean([float(p) for p in posterior]))
    if asked.truth is None or asked.group is None:
        return iterations, compiling, mean, np.nan, np.nan
    judged = register_accuracy(found, read_particles(asked.truth), asked.group, asked.kept)
    error = np.nan if judged.calibration is None else judged.calibration.expected_error
    return iterations, compiling, mean, judged.accuracy, error


def arguments() -> argparse.Namespace:
    """What was asked; ``options`` is what stands after ``--``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("particles", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--truth", type=Path, help="table with the true poses")
    parser.add_argument("--kept", default="C1", help="symmetry that the true map has")
    parser.add_argument("--warm", action="store_true", help="programs are compiled before")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    asked = parser.parse_args(words[:end])
    asked.options = words[end + 1 :]
    if asked.rounds < 1:
        parser.error("--rounds must be at least 1")
    group = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    group.add_argument("--relax")
    asked.group = group.parse_known_args(asked.options)[0].relax
    return asked


def main() -> None:
    """Run both sides in turns; print a table and the ratios."""
    asked = arguments()
    runs: dict[str, list[Run]] = {"A": [], "B": []}
    with (
        tempfile.TemporaryDirectory() as name,
        checked_out(asked.commit, Path(name)) as commit,
    ):
        folder = Path(name)
        print(f"A: {asked.commit}; B: {HERE}\n\n{HEAD}", flush=True)
        for number in range(-1 if asked.warm else 0, asked.rounds):
            for side, package in (("A", commit), ("B", HERE)):
                cache = f"programs_{side}" if asked.warm else f"programs_{side}{number}"
                variables = environment(package, folder / cache)
                run = refined(variables, folder / f"out_{side}{number}", asked)
                if number >= 0:
                    runs[side].append(run)
                    print(run.row(side), flush=True)

    def ratio(of: str) -> float:
        middle = {side: median(getattr(run, of) for run in some) for side, some in runs.items()}
        return middle["B"] / middle["A"]

    print(
        f"\nB/A: wall time {ratio('seconds'):.3f}, processors {ratio('processor_seconds'):.3f}, "
        f"peak memory {ratio('peak_gib'):.3f}"
    )


if __name__ == "__main__":
    main()
