"""One image is one image: a table in which images are several times, and what becomes of it."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Int

from jaxrelax.geometry import PointGroup
from jaxrelax.io import InputError, Particles, Units
from jaxrelax.io.copies import expanded, leaders, related

LOG = logging.getLogger("jaxrelax")


def one_row_each(
    particles: Particles,
    units: Units,
    group: PointGroup,
    kept: PointGroup,
    *,
    poses_count: bool = True,
    registers_count: bool = False,
) -> Int[np.ndarray, " some"]:
    """Rows that stand for all: one for every image and pose, up to operators of the group.

    A symmetry-expanded table is thus collapsed to its parents, and rows that are twice in the
    table are taken once. An image has one pose at one origin, up to the group: that of most of its
    rows. At other origins there may be other particles; these stay.

    Args:
        particles, units: the table.
        group, kept: G and H.
        poses_count: whether the poses of the table are used; otherwise only origins tell rows of
            an image apart.
        registers_count: whether the registers of these poses are used.

    Raises:
        InputError: an image is at poses that the group does not relate, equally often; or registers
            count, and an image has several.
    """
    operators = group.operators if poses_count else None
    leader = leaders(particles, units, operators)
    leads = leader == np.arange(len(leader))
    if leads.all() and units.single:
        return np.arange(len(leader))
    place = leaders(particles, units, None)  # one for every image and origin
    agreeing = np.bincount(leader)[leader]
    most = np.zeros(len(leader), int)
    np.maximum.at(most, place, agreeing)
    leads &= agreeing == most[place]
    torn = (np.bincount(place, weights=leads, minlength=len(leader)) > 1)[place]
    if torn.any():
        raise InputError(
            f"{particles.source}, {particles.some_rows(torn)}: these rows show images in several "
            f"rows, at poses that {group.name} does not relate, and an image has one pose. Give "
            "one row for each image: the table before its expansion by another group, or one of "
            "two alignments."
        )
    rows = np.flatnonzero(leads)
    if len(rows) == len(leader):
        return rows
    turned = ~related(particles.rotations, particles.rotations[leader], kept.operators)
    if poses_count and registers_count and turned.any():
        raise InputError(
            f"{particles.source}, {particles.some_rows(turned)}: these images are in other rows in "
            'another register, and start="poses" takes the registers of the input. Give one row '
            "for each image, or start from the symmetrised reference."
        )
    how = "at the same poses"
    if not poses_count:
        how = "poses are not used"
    elif turned[np.isin(leader, rows)].any():
        how = f"as symmetry expansion by {group.name} makes them"
    LOG.warning(
        "%s: %d of %d rows are copies of images in other rows (%s), %s. One row of each is used, "
        "the first; the results have %d rows",
        particles.source, len(leader) - len(rows), len(leader),
        particles.some_rows(leader != np.arange(len(leader))),
        how, len(rows),
    )  # fmt: skip
    stray = ~np.isin(leader, rows)
    if stray.any():
        LOG.warning(
            "%s: %d rows (%s) are among those left out although their poses are apart from those "
            "of the other rows of their images",
            particles.source, int(stray.sum()), particles.some_rows(stray),
        )  # fmt: skip
    return rows


def say_what_shares_noise(particles: Particles, units: Units) -> None:
    """Log which rows are kept together."""
    copied = units.copied
    images = len(np.unique(units.source))
    if copied.any():
        LOG.warning(
            "%s: %d rows show what other rows show (%s)%s: %d images in all. The rows of an image "
            "share a half-set and a fold and count as one in tests",
            particles.source, int(copied.sum()), particles.some_rows(copied),
            expanded(particles, units), images,
        )  # fmt: skip
    if units.window is not None and images < len(units):
        LOG.info(
            "%s: %d sub-particles of %d images; those of an image share a half-set and a fold, "
            "and where their windows overlap the noise counts once",
            particles.source, len(units), images,
        )  # fmt: skip
    if units.tube_column is not None:
        LOG.info(
            "%s: segments of %d tubes (%s); each tube is in one half-set and fold, and counts as "
            "one in tests",
            particles.source, units.count, units.tube_column,
        )  # fmt: skip
