"""The command line: ``jaxrelax refine``, ``simulate``, ``reconstruct``, ``inspect``, ``demo``."""

from jaxrelax.cli.commands import main

__all__ = ["main"]
