"""Columns of RELION STAR files that change the images and that jaxrelax does not apply."""

from __future__ import annotations

from jaxrelax.io.particles import Refusal
from jaxrelax.io.star import StarTable

_SUBTOMOGRAM = ("rlnCtfImage", "rlnTomoVisibleFrames")


def find(particles: StarTable, optics: StarTable | None) -> list[Refusal]:
    """What a file asks for and the imaging model does not do, one refusal per column."""
    tables = [particles] if optics is None else [particles, optics]
    found: dict[str, Refusal] = {}
    for table in tables:
        for label, values in table.columns(["rlnImageDimensionality", *_SUBTOMOGRAM]).items():
            if label in _SUBTOMOGRAM or any(_number(value) != 2.0 for value in set(values)):
                found[label] = Refusal(
                    label,
                    "these are subtomograms, not images",
                    "Give a STAR file of two-dimensional particles.",
                )
    return list(found.values())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
