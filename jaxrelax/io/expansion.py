"""Symmetry expansion: every particle once at each of its symmetry-related poses.

Copies of one image share its noise. jaxrelax itself has no need of such a table; it is made for
programs that tell registers apart by classifying copies.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int, UInt32, UInt64

from jaxrelax.geometry import PointGroup, register_mates
from jaxrelax.io.copies import expansion
from jaxrelax.io.cryosparc import CryosparcDocument
from jaxrelax.io.cryosparc_records import append_fields
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import Particles
from jaxrelax.io.units import COPY, PARENT, find_units, written_column

_UID, _SOURCE_UID, _INDEX = "uid", "sym_expand/src_uid", "sym_expand/idx"


def expand_symmetry(particles: Particles, group: PointGroup) -> Particles:
    """The particles |G| times each, at the poses ``A gᵀ`` of all g in G.

    What ``relion_particle_symmetry_expand`` does: the copies of a particle follow one another and
    differ in their angles alone; half-sets and origins are the same. The first copy is the
    particle itself. Two new columns say where a row comes from: ``jrxParent``, the row of the
    input file, and ``jrxCopy``, the operator of G, both from 1. In a ``.cs`` file they are
    ``jrx/parent`` and ``jrx/copy``; further copies have uids of their own there, and
    ``sym_expand/src_uid`` and ``sym_expand/idx`` as cryoSPARC's expansion has them.

    Args:
        particles: with poses.
        group: G, with axes where the map has them.

    Raises:
        InputError: there are no poses, G is C1, or the table is symmetry-expanded already.
    """
    if not particles.has_poses:
        raise InputError(f"{particles.source}: no poses, so there is nothing to expand.")
    if group.order == 1:
        raise InputError("C1 has one operator and expands nothing. Name the symmetry of the map.")
    require_single(particles)
    n, order = len(particles), group.order
    rows = np.repeat(np.arange(n), order)
    copies = np.tile(np.arange(order), n)
    poses = register_mates(particles.rotations, group.operators)
    expanded = particles.select(rows).with_updates(
        rotations=poses.reshape(n * order, 3, 3),
        extra_columns={PARENT: particles.rows_of_file()[rows] + 1, COPY: copies + 1},
    )
    document = expanded.document
    if isinstance(document, CryosparcDocument):
        records = with_own_uids(document.records, copies)
        expanded = replace(expanded, document=CryosparcDocument(records))
    return expanded


def require_single(particles: Particles) -> None:
    """Refuse tables that hold copies of particles already: they would come out several times.

    Raises:
        InputError: the table has them.
    """
    why = None
    if written_column(particles, PARENT) is not None:
        why = f"it has a column {PARENT}"
    else:
        units = find_units(particles)
        if np.bincount(units.picture).min() > 1 and (order := expansion(particles, units)):
            why = f"{order} poses an image"
    if why is not None:
        raise InputError(
            f"{particles.source}: is symmetry-expanded already ({why}). Give the table that it was "
            "made from."
        )


def with_own_uids(
    records: np.ndarray, copies: Int[np.ndarray, " rows"], *, first_is_parent: bool = True
) -> np.ndarray:
    """The records with uids that no two copies share, and those of their parents.

    Args:
        records: of a ``.cs`` file, with the uids of the parents.
        copies: number of the copy, from 0.
        first_is_parent: whether copy 0 is the parent itself, and keeps its uid.
    """
    if _UID not in (records.dtype.names or ()):
        return records
    parents = records[_UID].astype(np.uint64)
    records = _with_fields(records, parents, copies.astype(np.uint32))
    pairs = np.stack([parents, copies.astype(np.uint64)], axis=1)
    distinct = len(np.unique(pairs, axis=0))
    numbers = copies if first_is_parent else copies + 1
    own, salt = parents, 0
    # Once, but for two equal of 2⁶⁴.
    while salt == 0 or len(np.unique(own)) < distinct:
        own = np.where(numbers == 0, parents, _mixed(parents, numbers + salt))
        salt += int(numbers.max()) + 1
    records[_UID] = own
    return records


def _with_fields(
    records: np.ndarray, parents: UInt64[np.ndarray, " rows"], index: UInt32[np.ndarray, " rows"]
) -> np.ndarray:
    # Fields of that name are of a particle that is a copy of nothing: they say nothing.
    names = [name for name in records.dtype.names or () if name not in (_SOURCE_UID, _INDEX)]
    return append_fields(records[names], {_SOURCE_UID: parents, _INDEX: index})


def _mixed(
    seeds: UInt64[np.ndarray, " rows"], numbers: Int[np.ndarray, " rows"]
) -> UInt64[np.ndarray, " rows"]:
    """The ``numbers``-th output of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) from each seed."""
    z = seeds + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
