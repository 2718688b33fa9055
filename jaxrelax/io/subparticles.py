"""Sub-particles: a site of a symmetric particle in each of its copies, as particles of their own.

Windows around the sites are another matter: `jaxrelax.io.windows`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup, Sites, equivalent_sites, view_sites
from jaxrelax.io.cryosparc import CryosparcDocument
from jaxrelax.io.errors import InputError
from jaxrelax.io.expansion import require_single, with_own_uids
from jaxrelax.io.moved import HeightSign, height_sign, with_defoci
from jaxrelax.io.particles import Document, Particles
from jaxrelax.io.relion_tables import StarDocument
from jaxrelax.io.units import COPY, HEIGHT, PARENT

logger = logging.getLogger("jaxrelax")

# What is said of the centre of the whole particle, and would be taken for that of its part.
_PRIORS = (
    *("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior"),
    *("rlnOriginXPrior", "rlnOriginYPrior", "rlnOriginXPriorAngst", "rlnOriginYPriorAngst"),
)
_ALIGNED_2D = "alignments2D/"


def sub_particles(
    particles: Particles,
    group: PointGroup,
    position_angstrom: Float[AnyArray, "3"] | Sequence[float],
    *,
    defocus_by_height: HeightSign = "minus",
) -> Particles:
    """One row for every site of every particle, with the site as the centre.

    The sites are the distinct mates ``gᵀ p`` of the position p. That of g is seen at the pose
    ``A gᵀ``, in which all sites have the orientation that the one at p has in the map, and the
    origin is the one that brings it to the centre: the rows are particles of the density around p.
    They name the images of their parents, so origins are as large as the site is far out. Sites
    that lie outside of their image are left out, with a warning.

    A site that is z higher along the third axis of the image than the centre of the particle has
    the defocus of the particle less z: so it is where z goes towards the source, which is how
    RELION takes its images when it corrects the curvature of the Ewald sphere. Images that
    somebody mirrored have the other sign, as there (``--reverse_curvature``; Zivanov et al.,
    eLife 7 (2018) e42166).

    New columns are ``jrxParent`` (the row of the input file) and ``jrxCopy`` (the operator of G),
    both from 1, and ``jrxHeight``, z in Å. In a ``.cs`` file they are ``jrx/parent``, ``jrx/copy``
    and ``jrx/height``; all rows have uids of their own there, and ``sym_expand/src_uid`` is that of
    the parent. Half-sets are the parents'. Priors of angles and origins, and 2D alignments, are
    left out.

    Args:
        particles: with poses.
        group: G, with axes where the map has them; C1 for the one site that is given.
        position_angstrom: p, (x, y, z) in Å from the centre of the box, in the frame of the map.
        defocus_by_height: ``"minus"``, ``"plus"`` where images were mirrored, or ``"none"`` to keep
            the defocus of the parent.

    Raises:
        InputError: there are no poses, the table holds copies already, mates of the position are
            neither one site nor several, it lies outside of the images, or the defocus is to be
            changed of images that were multiplied by their CTF or its sign.
        ValueError: no such sign.
    """
    if not particles.has_poses:
        raise InputError(f"{particles.source}: no poses, so sites cannot be found in the images.")
    require_single(particles)
    sign = height_sign(particles, defocus_by_height)
    try:
        sites = equivalent_sites(group, position_angstrom)
    except ValueError as error:
        raise InputError(f"--at: {error}") from error
    rotations, places, heights = _views(particles, group, sites)
    n, count = heights.shape
    rows, copies = np.repeat(np.arange(n), count), np.tile(sites.operators, n)
    places, heights = places.reshape(-1, 2), heights.reshape(-1)
    half = np.array([0.5 * group.box * group.pixel_size_angstrom for group in particles.optics])
    away = float(np.linalg.norm(sites.position))
    inside = np.all(np.abs(places) < half[particles.optics_group[rows], None], axis=1)
    if away > half.max() or not inside.any():
        raise InputError(
            f"{particles.source}: the position {' '.join(f'{x:g}' for x in sites.position)} is "
            f"{away:.0f} Å from the centre, and the images reach {half.max():.0f} Å. --at is in Å "
            "from the centre of the box."
        )
    if not inside.all():
        logger.warning(
            "%s: %d of %d sites lie outside of the image of their particle and are left out",
            particles.source, int(np.sum(~inside)), len(inside),
        )  # fmt: skip
    rows, copies, heights = rows[inside], copies[inside], heights[inside]
    made = particles.select(rows).with_updates(
        rotations=rotations.reshape(-1, 3, 3)[inside],
        origins_angstrom=-places[inside],
        extra_columns={
            PARENT: particles.rows_of_file()[rows] + 1,
            COPY: copies + 1,
            HEIGHT: np.round(heights, 4),
        },
    )
    made = replace(made, document=_document(made.document, copies))
    return with_defoci(made, sign * heights) if sign else made


def _views(particles: Particles, group: PointGroup, sites: Sites):
    """Poses, places and heights of all sites, by optics group."""
    shape = (len(particles), len(sites.operators))
    rotations, places = np.empty((*shape, 3, 3)), np.empty((*shape, 2))
    heights: Float64[np.ndarray, "particles sites"] = np.empty(shape)
    for number, optics in enumerate(particles.optics):
        of = particles.optics_group == number
        rotations[of], places[of], heights[of] = view_sites(
            particles.rotations[of], particles.origins_angstrom[of], group, sites,
            optics.aberrations,
        )  # fmt: skip
    return rotations, places, heights


def _document(document: Document, copies: Int[np.ndarray, " rows"]) -> Document:
    """The tables without what is said of the whole particle's centre."""
    if isinstance(document, CryosparcDocument):
        names = document.records.dtype.names or ()
        kept = [name for name in names if not name.startswith(_ALIGNED_2D)]
        records = document.records[kept].copy()
        return CryosparcDocument(with_own_uids(records, copies, first_is_parent=False))
    assert isinstance(document, StarDocument)
    return document.with_particles(document.particles.without(*_PRIORS))
