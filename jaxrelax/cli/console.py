"""What a run shows and keeps: messages, progress bars, and ``log.txt`` in the output folder."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxrelax.cli.output_pipe import to_nowhere
from jaxrelax.cli.run_folder import STOPPED
from jaxrelax.io import InputError
from jaxrelax.refinement.callbacks import Callback
from jaxrelax.refinement.history import StepInfo
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State

LOGGER = logging.getLogger("jaxrelax")
SILENT = logging.CRITICAL + 1
# Passes over all images after the loop: in the scored band for what is judged, and up to Nyquist
# for the maps.
BANDED_AND_WHOLE = 2
MOST_BUFFERED = 10_000  # records; there are a few before the folder is made


class RunConsole:
    """Messages of the logger "jaxrelax" on the terminal and in a file, while a command runs.

    Informative messages go to standard output, unless ``quiet``; warnings to standard error. The
    file takes everything, also what was said before it was opened.

    Args:
        quiet: only warnings and errors are shown.
        silent: nothing is shown, because another process of the run shows it.
    """

    def __init__(self, quiet: bool = False, silent: bool = False):
        self.quiet = quiet = quiet or silent
        self.console = _Console(highlight=False, markup=False, soft_wrap=True)
        self.show_bars = self.console.is_terminal and not quiet
        self._screen = _Screen(self.console, quiet)
        if silent:
            self._screen.setLevel(SILENT)
        self._buffer = logging.handlers.MemoryHandler(MOST_BUFFERED, flushLevel=100)
        self._buffer.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._file: logging.FileHandler | None = None
        self._level = logging.NOTSET

    def __enter__(self) -> RunConsole:
        once = _Once()
        self._screen.addFilter(once)
        self._buffer.addFilter(once)
        self._level = LOGGER.level
        LOGGER.setLevel(logging.INFO)
        LOGGER.addHandler(self._screen)
        LOGGER.addHandler(self._buffer)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._file is not None:
            # On the screen the command's caller says it.
            LOGGER.removeHandler(self._screen)
            LOGGER.error("%s", _end_of_run(error))
        for handler in (self._screen, self._buffer):
            LOGGER.removeHandler(handler)
        if self._file is not None:
            self._buffer.close()
            self._file.close()
        LOGGER.setLevel(self._level)

    def open_log(self, path: Path) -> None:
        """Write what has been said so far, and everything from now on, to a file (appending)."""
        # Names in tables may hold bytes that are no UTF-8.
        self._file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        self._file.setFormatter(self._buffer.formatter)
        self._buffer.setTarget(self._file)
        self._buffer.flush()
        self._buffer.flushLevel = logging.NOTSET  # pass everything on at once

    def log_only(self, text: str) -> None:
        """Put text into the file, not on the screen."""
        LOGGER.removeHandler(self._screen)
        LOGGER.info("%s", text)
        LOGGER.addHandler(self._screen)

    def say(self, text: str) -> None:
        """Show text on standard output, unless quiet."""
        if not self.quiet:
            self.console.print(text)


def _end_of_run(error: BaseException) -> str:
    """The last line of a log; ``jaxrelax status`` looks for its first words."""
    if isinstance(error, KeyboardInterrupt):
        return f"{STOPPED} by Ctrl-C"
    if isinstance(error, InputError):
        return f"{STOPPED}: {error}"
    return f"{STOPPED} by {type(error).__name__}: {error}"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """A run goes on when nobody reads what it says any more; the log has everything."""
        to_nowhere()


class _Once(logging.Filter):
    """Lets a warning pass the first time only: several steps look at the same files."""

    def __init__(self):
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record says something new; to all handlers that share the filter alike."""
        if record.levelno < logging.WARNING:
            return True
        if "is_new" not in vars(record):
            text = record.getMessage()
            vars(record)["is_new"] = text not in self._said
            self._said.add(text)
        return vars(record)["is_new"]


class _Screen(logging.Handler):
    def __init__(self, console: Console, quiet: bool):
        super().__init__(logging.WARNING if quiet else logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = getattr(record, "in_short", None) or record.getMessage()
        if record.levelno < logging.WARNING:
            self.console.print(text)
        elif self.console.is_terminal:
            # The console that draws the bars puts text above them.
            self.console.print(f"warning: {text}", style="yellow")
        else:
            print(f"warning: {text}", file=sys.stderr)


class ProgressBars(Callback):
    """A bar per iteration with the time left; nothing where there is no terminal.

    Args:
        run: where to draw.
    """

    def __init__(self, run: RunConsole):
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images,"),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=run.console,
            transient=True,
            disable=not run.show_bars,
        )
        self._images, self._passes = 0, BANDED_AND_WHOLE

    def on_start(self, problem: Problem, state: State) -> None:
        """Start the bar of the first iteration."""
        self._images = int(problem.execution.own.sum())
        self._passes = _final_passes(problem)
        self.bar.start()
        self._task = self.bar.add_task(_name(state.iterations_done + 1), total=self._images)

    def on_batch(self, images: int) -> None:
        """Move on."""
        self.bar.advance(self._task, images)

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """Start the bar of the next iteration."""
        # Another problem after every stage.
        self._passes = _final_passes(problem)
        self.bar.reset(self._task, description=_name(state.iterations_done + 1))

    def on_finish(self, reason: str) -> None:
        """Start the bar of the final passes."""
        self.bar.reset(self._task, description="final passes", total=self._passes * self._images)

    def stop(self) -> None:
        """Take the bar away."""
        self.bar.stop()


def _final_passes(problem: Problem) -> int:
    """How often all images are gone through when the loop has stopped.

    Those of a classification are also scored by the maps of the other half-set, and once more with
    two states taken for one.
    """
    return BANDED_AND_WHOLE + (2 if len(problem.of_maps) > 1 else 0)


def _name(iteration: int) -> str:
    return f"iteration {iteration}"
