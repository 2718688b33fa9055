"""Half-sets and folds of whole units: rows that share noise are never on both sides."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Float, Int, Int8

from jaxrelax.io import InputError, Particles, Units

LOG = logging.getLogger("jaxrelax")

SMALLEST_HALF_SET = 10
# Units of a half-set: two for two folds, and three for an orientation to be exchanged with others.
FEWEST_UNITS, FEWEST_TESTED_UNITS = 2, 3


def half_sets(
    particles: Particles, units: Units, seed: int, *, tested: bool = False
) -> Int8[np.ndarray, " rows"]:
    """The half-sets of the input, or random ones where it has none; units are kept whole.

    Units that the input splits are put into one half-set, with a warning.

    Args:
        particles, units: the table.
        seed: of the draw.
        tested: whether there are registers to infer, and a symmetry to test.

    Raises:
        InputError: some rows have a half-set and others not, or a half-set has too few images or
            units.
    """
    given = particles.half_set
    rng = np.random.default_rng((seed, 5))
    if (given == 0).all():
        if units.single:
            given = (rng.permutation(len(given)) % 2 + 1).astype(np.int8)
        else:
            given = (1 + _balanced(units.unit, units.weight, np.zeros(2), rng)).astype(np.int8)
    elif (given == 0).any():
        raise InputError(
            f"{particles.source}: rlnRandomSubset is set in some rows and not in row "
            f"{int(np.flatnonzero(given == 0)[0]) + 1}; remove the column to have half-sets drawn"
        )
    elif not units.single:
        given = whole_half_sets(particles, units, rng)
    require_enough(particles, units, given, tested)
    return given


def whole_half_sets(
    particles: Particles, units: Units, rng: np.random.Generator
) -> Int8[np.ndarray, " rows"]:
    """The half-sets of the input, where it splits no unit; elsewhere drawn, with a warning."""
    given = particles.half_set.copy()
    count = np.bincount(units.unit)
    ones = np.bincount(units.unit, weights=given == 1)
    split = ((ones > 0) & (ones < count))[units.unit]
    if split.any():
        held = np.bincount(given[~split], weights=units.weight[~split], minlength=3)[1:]
        held = held.astype(float)  # of nothing counts are integers
        given[split] = 1 + _balanced(units.unit[split], units.weight[split], held, rng)
        what = "images that are in several rows"
        if units.tube_column is not None:
            what = f"tubes ({units.tube_column})"
        LOG.warning(
            "%s: the half-sets of the table split %d %s (%s); each was put into one half-set, "
            "because what shares noise cannot judge each other",
            particles.source, len(np.unique(units.unit[split])), what, particles.some_rows(split),
        )  # fmt: skip
    return given


def folds(
    units: Units, half_set: Int8[np.ndarray, " rows"], count: int, seed: int
) -> Int[np.ndarray, " rows"]:
    """A fold for every row, the same for all rows of a unit; balanced where units are large.

    Args:
        units: of the rows.
        half_set: 1 or 2.
        count: folds asked for, at least two; there are no more than a half-set has units.
        seed: of the draw.
    """
    rng = np.random.default_rng((seed, 0))
    if units.single:
        return rng.integers(count, size=len(units))
    fewest = min(len(np.unique(units.unit[half_set == half])) for half in (1, 2))
    if fewest < count:
        LOG.warning("a half-set has only %d units: %d folds instead of %d", fewest, fewest, count)
        count = max(fewest, FEWEST_UNITS)
    fold = np.zeros(len(units), int)
    for half in (1, 2):
        rows = half_set == half
        fold[rows] = _balanced(units.unit[rows], units.weight[rows], np.zeros(count), rng)
    return fold


def _balanced(
    unit: Int[np.ndarray, " rows"],
    weight: Float[np.ndarray, " rows"],
    held: Float[np.ndarray, " parts"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " rows"]:
    """Units in random order, the largest first, each to the part that holds least so far."""
    _, of_row = np.unique(unit, return_inverse=True)
    of_row = of_row.reshape(-1)
    # Thirds add up to one here.
    sizes = np.round(np.bincount(of_row, weights=weight), 3)
    held = np.round(held, 3)
    order = rng.permutation(len(sizes))
    part = np.empty(len(sizes), int)
    for number in order[np.argsort(-sizes[order], kind="stable")]:
        least = np.flatnonzero(held == held.min())
        part[number] = least[rng.integers(len(least))] if len(least) > 1 else least[0]
        held[part[number]] = np.round(held[part[number]] + sizes[number], 3)
    return part[of_row]


def require_enough(
    particles: Particles, units: Units, half_set: Int8[np.ndarray, " rows"], tested: bool
) -> None:
    """Refuse half-sets of too few images, or of too few tubes.

    Args:
        particles, units, half_set: the table.
        tested: whether there are registers to infer, and a symmetry to test.

    Raises:
        InputError: names the table, and how many are needed.
    """
    halves = [half_set == half for half in (1, 2)]
    smallest = min(len(np.unique(units.source[half])) for half in halves)
    # Only within an optics group can orientations be exchanged.
    group = particles.optics_group if tested else np.zeros(len(units), int)
    fewest = min(
        max(len(np.unique(units.unit[half & (group == g)])) for g in np.unique(group))
        for half in halves
    )
    needed = FEWEST_TESTED_UNITS if tested else FEWEST_UNITS
    if fewest < needed and units.tube_column is not None:
        raise InputError(
            f"{particles.source}: a half-set has segments of only {fewest} tubes "
            f"({units.tube_column}), and whole tubes are kept together because their segments "
            f"overlap; at least {needed} are needed. Give more tubes, or remove the column if the "
            "segments do not overlap."
        )
    if smallest < SMALLEST_HALF_SET:
        raise InputError(
            f"{particles.source}: a half-set of {smallest} images is too small to refine; at "
            f"least {SMALLEST_HALF_SET} are needed"
        )
    if fewest < needed:
        raise InputError(
            f"{particles.source}: no optics group has {needed} images in a half-set, and only "
            "images of one group can be exchanged in the test. Join groups of the same optics."
        )
