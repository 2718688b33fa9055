"""The command line: refine, simulate, reconstruct, align, inspect, demo."""

from jaxrelax.cli.commands import main

__all__ = ["main"]
