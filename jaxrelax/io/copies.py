"""Rows of one image whose poses are the same, or the same up to an operator of a group."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int

from jaxrelax.io.particles import Particles
from jaxrelax.io.units import HEIGHT, Units, find_units, written_column

# Poses of one image that are nearer than this are estimates of the same pose: copies of an
# expanded table that were refined each by itself differ by a few degrees, and mates of the
# largest groups by 36. Poses that have nothing to do with each other are so near in four of a
# thousand pairs for C4.
NEAR_DEG, NEAR_ANGSTROM = 15.0, 10.0
_EXPANSION_INDEX = "sym_expand/idx"
# Pairs of rows and operators that are compared at once.
_BLOCK = 2**20


def leaders(
    particles: Particles,
    units: Units,
    operators: Float64[np.ndarray, "order 3 3"] | None,
) -> Int[np.ndarray, " rows"]:
    """For every row the row that stands for it: the first of its image with the same pose.

    Poses are the same if an operator g takes one to the other, A' = A gᵀ, to within 15°, and the
    origins differ by no more than 10 Å. Rows that no other is like stand for themselves. In
    tables of cryoSPARC the parent of an expansion comes first.

    Args:
        particles: the table.
        units: from :func:`find_units`.
        operators: of the group; None where poses do not count and only origins are compared.
    """
    n = len(particles)
    found = np.arange(n)
    many = np.bincount(units.picture)[units.picture] > 1
    left = np.flatnonzero(many)
    place = particles.column(_EXPANSION_INDEX)
    if place is not None:
        left = left[np.argsort(np.asarray(place)[left], kind="stable")]
    while len(left):
        # The first row left of every image leads; what is like it is done.
        pictures, first = np.unique(units.picture[left], return_index=True)
        leading = left[first][np.searchsorted(pictures, units.picture[left])]
        same = left == leading
        near = np.linalg.norm(
            particles.origins_angstrom[left] - particles.origins_angstrom[leading], axis=1
        )
        same |= (near <= NEAR_ANGSTROM) & related(
            particles.rotations[left], particles.rotations[leading], operators
        )
        found[left[same]] = leading[same]
        left = left[~same]
    return found


def related(
    poses: Float64[np.ndarray, "rows 3 3"],
    others: Float64[np.ndarray, "rows 3 3"],
    operators: Float64[np.ndarray, "order 3 3"] | None,
) -> Bool[np.ndarray, " rows"]:
    """Whether pairs of poses are within 15° of each other, up to an operator g: A' = A gᵀ."""
    if operators is None:
        return np.ones(len(poses), bool)
    enough = 1.0 + 2.0 * np.cos(np.deg2rad(NEAR_DEG))
    flat = operators.reshape(len(operators), 9).T
    found = np.zeros(len(poses), bool)
    step = max(1, _BLOCK // len(operators))
    for start in range(0, len(poses), step):
        part = slice(start, start + step)
        # A'ᵀ A is g where A' = A gᵀ; its trace with g is 1 + 2 cos of what is left.
        relative = poses[part].transpose(0, 2, 1) @ others[part]
        found[part] = (relative.reshape(-1, 9) @ flat).max(axis=1, initial=-1.0) >= enough
    return found


def expansion(particles: Particles, units: Units) -> int:
    """How many poses a symmetry-expanded table has for each image; 0 if it is none.

    The image with most rows tells the operators; the table is expanded if they relate the rows of
    all images, and poses do differ.
    """
    most = np.bincount(units.picture)
    if not particles.has_poses or most.max() < 2:
        return 0
    rows = np.flatnonzero(units.picture == most.argmax())
    operators = particles.rotations[rows].transpose(0, 2, 1) @ particles.rotations[rows[0]]
    operators = np.concatenate([operators, operators.transpose(0, 2, 1)])
    same = leaders(particles, units, np.eye(3)[None])
    together = leaders(particles, units, operators)
    distinct = len(np.unique(same[rows]))
    one_each = len(np.unique(together)) == len(np.unique(units.picture))
    return distinct if one_each and distinct > 1 else 0


def expanded(particles: Particles, units: Units) -> str:
    """What makes rows of a table show the same, in brackets; nothing where nobody can tell."""
    if written_column(particles, HEIGHT) is not None:
        return " (sub-particles, each at its own origin)"
    order = expansion(particles, units)
    return f" (symmetry-expanded, {order} poses an image)" if order else ""


def describe_units(particles: Particles) -> list[tuple[str, str]]:
    """What of a table shares noise, as labels and values for people; nothing if nothing does."""
    units, said = find_units(particles), []
    copied = units.copied
    images = len(np.unique(units.source))
    if copied.any():
        text = f"{int(copied.sum())} rows show what others show; {images} images in all"
        said.append(("copies", text + expanded(particles, units)))
    if units.window is not None:
        said.append(("sub-particles", f"{len(units)} windows of {images} images"))
    if units.tube_column is not None:
        tubes = len(np.unique(units.unit))
        said.append(("helical segments", f"of {tubes} tubes ({units.tube_column})"))
    return said
