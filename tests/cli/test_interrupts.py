"""Ctrl-C at any moment: one line, exit status 130, no traceback."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrelax.cli import interrupts
from tests.refinement.conftest import TINY, DataSet

# The first line says that the command has the word. Of a job in the background SIGINT is ignored,
# and what it starts inherits that.
BEGUN = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxrelax.cli import main
print("begun", flush=True)
sys.exit(main())
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    place = tmp_path_factory.mktemp("interrupted")
    data = DataSet(place / "data", **TINY | {"n_images": 60})
    return [
        *("refine", str(data.star), "--reference", str(data.reference), "--relax", "C4"),
        *("--ini-high", "20", "--out", str(place / "out"), "--overwrite"),
    ]


def interrupted(words, after=None, until=None):
    """Status and both streams of a process that gets SIGINT.

    Args:
        words: of the command.
        after: seconds after it has begun.
        until: or when a line with this text was said.
    """
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": "",
        "JAX_ENABLE_COMPILATION_CACHE": "0",
    }
    with subprocess.Popen(
        [sys.executable, "-c", BEGUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = process.stdout.readline()
        time.sleep(after or 0.0)
        while until is not None and until not in said:
            said = process.stdout.readline()
            assert said, "it ended before"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "after",
    [
        0.05,
        1.0,
        *(pytest.param(late, marks=pytest.mark.slow) for late in (0.2, 0.5, 2.0, 4.0)),
    ],
)
def test_while_it_is_imported_or_compiled(words, after):
    status, _, err = interrupted(words, after)
    assert (status, len(err.splitlines())) == (130, 1), err
    assert err.startswith("jaxrelax: interrupted")


def test_while_it_refines(words):
    status, _, err = interrupted(words, until="it 1")
    assert (status, len(err.splitlines())) == (130, 1), err
    assert "The same command with --resume goes on from the last iteration." in err


def test_help_and_light_commands(words):
    for command in (["refine", "--help"], ["status", words[-2]]):
        status, _, err = interrupted(command, after=0.02)
        assert status in (0, 1, 130)  # some are that fast
        assert len(err.splitlines()) <= 1
        assert "Traceback" not in err


@pytest.fixture
def own_handler():
    """SIGINT as a fresh process has it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def ends(monkeypatch):
    """What would end the process, and what it would say."""
    said = []

    def end(status):
        said.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(os, "write", lambda stream, text: said.append(text))
    return said


def test_the_first_time_a_command_is_told_and_the_second_it_ends(own_handler, ends):
    with interrupts.handled(), interrupts.told():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert ends == []
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGINT)
    assert ends == [b"jaxrelax: interrupted again; ended at once.\n", 130]


def test_before_a_command_runs_and_after_it_the_process_ends(own_handler, ends):
    with interrupts.handled():
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGINT)
        with interrupts.told():
            pass
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGINT)
    assert ends == [b"jaxrelax: interrupted.\n", 130] * 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_others_stay(own_handler):
    """As of `nohup`, or of a program that calls `main`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.handled(), interrupts.told():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_a_thread_nothing_is_set(own_handler):
    """Where Python does not allow it."""
    seen = []

    def within():
        with interrupts.handled(), interrupts.told():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
