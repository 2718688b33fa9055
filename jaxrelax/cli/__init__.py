"""The command line: refine, simulate, test-symmetry, reconstruct, align, inspect, demo."""

from jaxrelax.cli.commands import main

__all__ = ["main"]
