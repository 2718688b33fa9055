"""Images that can no longer be read in the middle of a run: one message, and a way to go on."""

import os
import shutil

import pytest

from jaxrelax.cli.console import ProgressBars


@pytest.fixture
def copied(data, tmp_path):
    """A data set of this test's own."""
    return shutil.copytree(data.particles.parent, tmp_path / "data")


def test_a_truncated_stack_ends_the_run_and_resuming_completes_it(
    run, copied, tmp_path, monkeypatch
):
    stack, out = copied / "particles.mrcs", tmp_path / "out"
    whole = stack.read_bytes()

    def truncate(self, problem, state, info):
        os.truncate(stack, len(whole) // 2)

    words = (
        "refine", copied / "particles.star", "--reference", copied / "reference.mrc",
        "--relax", "C4", "--mode", "registers", "--subgroups", "none", "--ini-high", "25",
        "--max-iterations", "2", "--out", out,
    )  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(ProgressBars, "on_step", truncate)
        status, _, err = run(*words)
    assert status == 2
    (line,) = [line for line in err.splitlines() if "can no longer be read" in line]
    assert line.startswith(f"jaxrelax: {stack}: image ")
    assert "(row " in line
    assert "has become shorter. Restore the file. Then go on with --resume" in line
    assert f"; 1 iterations are kept in {out}." in line
    assert "Traceback" not in err
    assert "can no longer be read" in (out / "log.txt").read_text()
    stack.write_bytes(whole)
    assert run(*words, "--resume")[0] == 0
    log = (out / "log.txt").read_text()
    assert log.count("iteration 1:") == 1
    assert log.count("iteration 2:") == 1
    assert (out / "result.json").is_file()
