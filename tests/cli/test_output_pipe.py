"""Output that nobody reads to its end makes no traceback, whatever the command."""

import os
import subprocess
import sys

import numpy as np
import pytest

from jaxrelax.io import write_map

IMPORT = "import sys; from jaxrelax.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(("words", "status"), [(["inspect", "a.mrc"], 1), (["--help"], 0)])
def test_a_reader_that_has_gone(tmp_path, words, status):
    write_map(tmp_path / "a.mrc", np.zeros((8, 8, 8)), 1.0)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *words],
        stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == status


def test_a_run_goes_on_when_nobody_reads_its_messages(tmp_path):
    code = (
        "import logging, pathlib, sys\n"
        "from jaxrelax.cli.console import LOGGER, RunConsole\n"
        "with RunConsole() as console:\n"
        "    for _ in range(3): LOGGER.info('x' * 100_000); console.say('y')\n"
        "pathlib.Path('went_on').touch()\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    os.close(writing)
    assert (tmp_path / "went_on").exists(), done.stderr
    assert done.stderr == ""
