"""``jaxrelax status``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrelax.cli.run_folder import RunFolder, read_run_folder

WIDTH = 100  # of a line
NO_RUN = 1


@dataclass(frozen=True)
class Command:
    """Say how far runs have come, and how they go on, by what is in their folders."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Output folders of refinements."""

    def run(self) -> int:
        """Print some lines for every folder; 1 if one of them holds no run."""
        if not self.folders:
            print("jaxrelax: name the output folders of runs.", file=sys.stderr)
            return 2
        missing = 0
        for path in self.folders:
            found = read_run_folder(path)
            if found is None:
                missing += 1
                why = "holds no run" if path.is_dir() else "there is no such folder"
                sys.stdout.flush()
                print(f"jaxrelax: {path}: {why}.", file=sys.stderr)
            else:
                print(described(found, time.time()))
        return NO_RUN if missing else 0


def described(run: RunFolder, now: float) -> str:
    """A run in some lines: where it is, its last words, and what to do.

    Args:
        run: what is known.
        now: seconds since the epoch.
    """
    lines = [f"{run.path}: {_where(run, now)}"]
    if run.status != "finished" and run.last:
        lines.append(_cut(f"  last: {run.last}"))
    lines.append(f"  next: {_next(run)}")
    return "\n".join(lines)


def _where(run: RunFolder, now: float) -> str:
    ago = duration(max(now - run.written, 0.0))
    done = f"{run.iterations} iteration{'' if run.iterations == 1 else 's'} done"
    if run.stage and run.status != "finished":
        done += f" ({run.stage})"
    if run.result is not None:
        return f"finished {ago} ago, {done}{_found(run.result)}"
    if run.status == "stopped":
        return f"stopped {ago} ago, {done}"
    if run.status == "killed":
        return f"killed, most likely: nothing was written for {ago}; {done}"
    return f"running, or killed just now: last written {ago} ago, {done}"


def _found(result: dict) -> str:
    words = ""
    if isinstance(result.get("resolution_angstrom"), int | float):
        words += f", {result['resolution_angstrom']:.2f} Å"
    evidence = result.get("evidence")
    if isinstance(evidence, dict):
        words += f", asymmetry {'found' if evidence.get('found') else 'not found'}"
    states = result.get("states")
    return words + (f", {len(states)} states" if states else "")


def _next(run: RunFolder) -> str:
    if run.status == "finished":
        report = run.path / "report.html"
        return f"read {report if report.is_file() else run.path / 'result.json'}"
    again = run.again
    if again is None:
        again = "refine(…, out=…, resume=True) with the arguments that it was given"
    if run.status == "running":
        return f"wait; if it was killed: {again}"
    return again


def duration(seconds: float) -> str:
    """Such as ``40 s``, ``12 min``, ``3.5 h`` or ``2.1 days``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 2].rstrip() + " …"
