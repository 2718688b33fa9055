"""What a run shows and logs."""

import logging

from jaxrelax.cli.console import RunConsole

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
