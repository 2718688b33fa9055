"""Versions of what decides numbers."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("jaxrelax", "jax", "jaxlib", "numpy", "scipy", "equinox", "finufft")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            found[name] = "unknown"
    return found
