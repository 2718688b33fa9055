"""What a run shows and logs."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from jaxrelax.cli.console import ProgressBars, RunConsole
from jaxrelax.geometry import parse_group
from jaxrelax.reconstruction import Particle

LOG = logging.getLogger("jaxrelax")


def test_a_warning_is_shown_and_logged_once(tmp_path, capsys):
    with RunConsole() as console:
        LOG.warning("a stack of %s", "another size")
        LOG.info("again")
        LOG.warning("a stack of another size")
        console.open_log(tmp_path / "log.txt")
        LOG.warning("a stack of another size")
        LOG.info("again")
    assert capsys.readouterr().err == "warning: a stack of another size\n"
    text = (tmp_path / "log.txt").read_text()
    assert text.count("a stack of another size") == 1
    assert text.count("again") == 2


@pytest.mark.parametrize(
    ("states", "passes"), [(["C4"], 2), (["C4", "C1"], 4), (["C4", "C1", "C4"], 4)]
)
def test_the_bar_ends_with_the_final_passes(states, passes):
    """Their number is that of the passes over the images which the finish makes."""
    execution = SimpleNamespace(own=np.array([True, True, False, True]))
    groups = [parse_group(name) for name in states]
    maps = tuple(Particle(group, group, 16, 4.0, 50.0) for group in groups)
    problem = SimpleNamespace(execution=execution, of_maps=maps)
    with RunConsole(quiet=True) as console:
        bars = ProgressBars(console)
        # A run that goes on from its last iteration takes no further step.
        bars.on_start(problem, SimpleNamespace(iterations_done=7))
        bars.on_finish("done")
        (task,) = bars.bar.tasks
        assert (task.description, task.total) == ("final passes", 3 * passes)
        bars.stop()
