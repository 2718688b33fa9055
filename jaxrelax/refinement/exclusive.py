"""Sub-particles whose copies exclude each other: which rows have one parent, and what is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxrelax.geometry import PointGroup
from jaxrelax.io import InputError, Particles, Units
from jaxrelax.io.units import PARENT, written_column
from jaxrelax.refinement.classification import Classification


@dataclass(frozen=True, eq=False)
class Exclusive:
    """Of the copies of a parent at most one shows a state.

    Attributes:
        parent: number of every row's parent, from 0.
        state: from 0; None: that of which the images say so most clearly.
        or_none: a particle may have none; else each has one.
    """

    parent: Int[np.ndarray, " n"]
    state: int | None
    or_none: bool


@dataclass(frozen=True)
class CopiesOfParents:
    """How often states were found in several copies of one parent.

    Attributes:
        parents: that have several copies in the table.
        several: of every state, parents of which two or more copies show it most probably.
        exclusive: class, from 1, that one copy of a parent shows at most; None: nothing was asked.
    """

    parents: int
    several: tuple[int, ...]
    exclusive: int | None = None

    def sentence(self) -> str:
        """In words."""
        counts = [f"{count:,} in class {k}" for k, count in enumerate(self.several, start=1)]
        said = (
            f"Of {self.parents:,} particles with several sub-particles so many have two or more in "
            f"one class: {', '.join(counts)}."
        )
        if self.exclusive is not None:
            return f"{said} At most one of them can be in class {self.exclusive} (--exclusive)."
        return f"{said} If at most one can be in a class, say so with --exclusive."


def parents_of(particles: Particles, units: Units) -> Int[np.ndarray, " n"] | None:
    """Number of every row's parent, from 0; None where the table does not say.

    Rows have one parent if ``jrxParent`` says so and they show the same image: tables that were
    put together may use a number twice.

    Raises:
        InputError: the column holds what is no number.
    """
    column = written_column(particles, PARENT)
    if column is None:
        return None
    try:
        numbers = np.asarray(column, np.float64).astype(np.int64)
    except (ValueError, OverflowError):
        raise InputError(
            f"{particles.source}: column {PARENT} holds what is no number. It is the row of the "
            "particle from which a sub-particle was made."
        ) from None
    pairs = np.stack([units.source, numbers], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def exclusive_copies(
    mode: Classification, particles: Particles, units: Units, references: int
) -> Exclusive | None:
    """What a classification asks of copies; None if nothing.

    Args:
        mode: the classification.
        particles, units: the table.
        references: how many maps states start from.

    Raises:
        InputError: the table does not say which rows have one parent, no parent has several, or a
            state is named that nothing tells from others before the images do.
    """
    if mode.exclusive is None:
        return None
    parent = parents_of(particles, units)
    if parent is None:
        raise InputError(
            f"{particles.source}: no column {PARENT}, which says of which particle a row is a "
            "copy, and copies of one particle are what exclude each other. Make the table with "
            "jaxrelax subparticles, or leave out --exclusive."
        )
    if np.bincount(parent).max() < 2:
        raise InputError(
            f"{particles.source}: no particle has two rows by column {PARENT}, so that there is "
            "nothing to exclude. Give all copies (jaxrelax subparticles --symmetry), or leave out "
            "--exclusive."
        )
    state = None if mode.exclusive == "auto" else int(mode.exclusive) - 1
    if state is not None and references == 1 and mode.seeds_states:
        groups = mode.groups()
        alike = [k + 1 for k, pair in enumerate(groups) if _same(pair, groups[state])]
        if len(alike) > 1:
            raise InputError(
                f"class {state + 1} is to exclude itself, but classes "
                f"{', '.join(map(str, alike))} start from one map, so that their numbers "
                "mean nothing yet. Use --exclusive auto, or give each a reference of its own "
                "(--further-references)."
            )
    return Exclusive(parent, state, mode.exclusive_or_none)


def copies_in_states(
    parent: Int[np.ndarray, " n"],
    state: Int[np.ndarray, " n"],
    n_states: int,
    exclusive: int | None = None,
) -> CopiesOfParents:
    """How often several copies of one parent are in one state.

    Args:
        parent: number of every row's parent.
        state: of every row, from 0; −1 where it is in none.
        n_states: so many there are.
        exclusive: the state, from 0, that was asked to exclude itself, if any.
    """
    several = tuple(
        int(np.sum(np.bincount(parent[state == k], minlength=1) > 1)) for k in range(n_states)
    )
    named = None if exclusive is None else exclusive + 1
    return CopiesOfParents(int(np.sum(np.bincount(parent) > 1)), several, named)


def _same(one: tuple[PointGroup, PointGroup], other: tuple[PointGroup, PointGroup]) -> bool:
    return one[0] == other[0] and one[1] == other[1]
