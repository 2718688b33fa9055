"""What the files of an output folder say of its run: how far it has come, and how it goes on.

Nothing of the package is imported: who asks has not the time.
"""

from __future__ import annotations

import json
import shlex
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

STOPPED = "stopped"  # first word of the last line of a log, after its level, where a run failed
# A run that has been silent for so long, and for so many of its longest iterations, is taken for
# dead. The final passes are the longest silence: they take some iterations' time at full band.
SILENT_SECONDS, SILENT_ITERATIONS = 600.0, 10.0

Status = Literal["finished", "stopped", "running", "killed"]


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder shows it.

    Attributes:
        path: the folder.
        status: ``"running"`` may also be killed a short time ago.
        iterations: that are kept in the checkpoint, or were done.
        stage: in words; empty where nothing is known of it.
        last: the last line of the log, without time and level; empty without a log.
        written: when something was written last, in seconds since the epoch.
        slowest_seconds: of its iterations.
        command: as it was given, in words; None where no log has it.
        result: content of ``result.json`` of a finished run.
    """

    path: Path
    status: Status
    iterations: int
    stage: str
    last: str
    written: float
    slowest_seconds: float
    command: tuple[str, ...] | None
    result: dict[str, Any] | None

    @property
    def again(self) -> str | None:
        """The command that goes on with it."""
        if self.command is None:
            return None
        words = [word for word in self.command if word not in ("--overwrite", "--resume")]
        return shlex.join([*words, "--resume"])


def read_run_folder(path: Path, now: float | None = None) -> RunFolder | None:
    """What a folder says of its run; None if it holds none.

    Args:
        path: the folder.
        now: seconds since the epoch; the time by default.
    """
    header, log, result = (
        path / name for name in ("checkpoint/checkpoint.json", "log.txt", "result.json")
    )
    there = [one for one in (header, log, result) if one.is_file()]
    if not there:
        return None
    now = time.time() if now is None else now
    lines = _lines(log)
    arrays = _arrays(header)
    written = max(one.stat().st_mtime for one in there)
    slowest = max((float(np.max(s)) for s in _both(arrays, "seconds") if s.size), default=0.0)
    status: Status = "running"
    # A finished run that was resumed has a result, and checkpoints that are younger.
    if result.is_file() and _time(result) >= _time(header):
        status = "finished"
    elif lines and lines[-1].startswith(f"ERROR {STOPPED}"):
        status = "stopped"
    elif now - written > max(SILENT_SECONDS, SILENT_ITERATIONS * slowest):
        status = "killed"
    content = _json(result) if status == "finished" else None
    done = sum(len(one) for one in _both(arrays, "iteration"))
    if content is not None:
        done = int(content.get("n_iterations") or done)
    return RunFolder(
        path, status, done, _stage(arrays), _last(lines, arrays), written, slowest,
        _command(lines), content,
    )  # fmt: skip


def _time(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _lines(log: Path) -> list[str]:
    """Records of a log without their time: ``INFO iteration 3: …``."""
    if not log.is_file():
        return []
    text = log.read_text(encoding="utf-8", errors="replace")
    parts = [line.split(" ", 2) for line in text.splitlines()]
    # Further lines of a record have no time.
    return [part[2] for part in parts if len(part) == 3 and part[0][:4].isdigit()]


def _arrays(header: Path) -> dict[str, np.ndarray]:
    """What the checkpoint keeps of the history, by its path in the state."""
    name = _json(header).get("arrays")
    if not isinstance(name, str):
        return {}
    try:
        with np.load(header.parent.parent / name) as stored:
            return {key: stored[key] for key in stored.files if key.startswith(".history")}
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}  # another one has just taken its place, or it is damaged


def _both(arrays: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """A column of the history of earlier stages, and of this one."""
    keys = (f".{history}.columns['{name}']" for history in ("history_before", "history"))
    return [arrays[key] for key in keys if key in arrays]


def _latest(arrays: dict[str, np.ndarray], name: str) -> Any:
    """The last entry of a column; None if there is none."""
    filled = [one for one in _both(arrays, name) if len(one)]
    return filled[-1][-1] if filled else None


def _stage(arrays: dict[str, np.ndarray]) -> str:
    """What the last iteration belonged to, as the glossary calls it."""
    relaxed, fractions = _latest(arrays, "relaxed"), _latest(arrays, "fractions")
    if relaxed is None:
        return ""
    if fractions is not None and np.isfinite(fractions).any():
        name = "states"
    else:
        name = "relaxation" if relaxed else "consensus"
    return name + (", searching all orientations" if _latest(arrays, "searched_globally") else "")


def _last(lines: list[str], arrays: dict[str, np.ndarray]) -> str:
    if lines:
        return lines[-1].partition(" ")[2]
    resolution = _latest(arrays, "resolution_angstrom")
    return "" if resolution is None else f"resolution {resolution:.2f} Å"


def _command(lines: list[str]) -> tuple[str, ...] | None:
    for line in reversed(lines):
        if line.startswith("INFO jaxrelax refine "):
            try:
                return tuple(shlex.split(line.partition(" ")[2]))
            except ValueError:  # an odd quotation mark of an older log
                return None
    return None
