"""The command line: ``jaxrelax COMMAND …``; :mod:`jaxrelax.cli.commands` lists them."""

from __future__ import annotations

from collections.abc import Sequence

from jaxrelax.cli import interrupts

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; see :func:`jaxrelax.cli.commands.main`."""
    with interrupts.handled():  # from before the first import that takes time
        from jaxrelax.cli.commands import main as run

        return run(argv)
