"""What contradicts itself in what is asked, or cannot be refined whatever the reference."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int8

from jaxrelax.io import ImageReader, InputError, Particles, Units, find_units
from jaxrelax.reconstruction import MapPrior
from jaxrelax.refinement.classification import Classification, OccupancyPatterns
from jaxrelax.refinement.modes import Mode
from jaxrelax.refinement.poses import require_poses
from jaxrelax.refinement.relax import Relax
from jaxrelax.refinement.splits import half_sets


def with_references(mode: Mode, count: int) -> Mode:
    """The mode, started from so many references.

    Raises:
        InputError: there are several, and not one for every state.
    """
    if count == 1:
        if isinstance(mode, Classification) and mode.start == "references":
            raise InputError('start="references" needs a reference for every state, and got one')
        return mode
    if not isinstance(mode, Classification) or isinstance(mode, OccupancyPatterns):
        raise InputError(
            f"{count} references, and mode {type(mode).__name__} starts from one; several are "
            "those of the states of a classification"
        )
    if mode.start not in ("auto", "references"):
        raise InputError(f'start="{mode.start}" begins from one reference, and got {count}')
    if len(mode.states) != count:
        raise InputError(
            f"{count} references for {len(mode.states)} states ({', '.join(mode.states)}); give "
            "one for every state, in their order, or one for all"
        )
    return dataclasses.replace(mode, start="references")


def check_particles(
    particles: Particles, mode: Mode, seed: int = 0, *, tested: bool = False
) -> tuple[Units, Int8[np.ndarray, " particles"]]:
    """Refuse what cannot be refined whatever the reference: poses, half-sets, headers of stacks.

    `prepare` calls it first, and ``jaxrelax inspect``.

    Args:
        particles: the table.
        mode: of the refinement.
        seed: of half-sets that are drawn.
        tested: whether there are registers to infer, and a symmetry to test.

    Returns:
        What of the table shares noise, and the half-sets.

    Raises:
        InputError: names the table, and the row where there is one.
    """
    require_poses(particles, mode)
    units = find_units(particles)
    half_set = half_sets(particles, units, seed, tested=tested)
    with ImageReader(particles) as reader:
        reader.validate()
    return units, half_set


def require_consistent(
    mode: Mode, relax: Relax | None, map_prior: MapPrior | None, symmetry: str
) -> None:
    """Refuse what contradicts itself before anything is read.

    Raises:
        InputError: says which settings.
    """
    if relax is not None and symmetry.upper() != "C1":
        raise InputError(
            f"symmetry {symmetry} with relaxation: leave it out; what a relaxation keeps is said "
            "with --to (Relax(to=...))"
        )
    if relax is not None and not mode.needs_poses:
        _require_start(relax, mode)
    if relax is not None and relax.inner_iterations > 0 and mode.holds_poses:
        raise InputError(
            f"inner iterations lie between searches of poses, and mode {type(mode).__name__} holds "
            "them; leave --inner-iterations (Relax.inner_iterations) at 0"
        )
    if map_prior is not None and relax is not None and relax.prior != "isotypic":
        raise InputError(
            f'two map priors: Relax(prior="{relax.prior}") and {type(map_prior).__name__}; leave '
            "one of them out"
        )


def symmetry_of_consensus(symmetry: str, consensus: str, relax: Relax | None) -> str:
    """The symmetry of what comes before the states, if nothing of it is relaxed.

    Raises:
        InputError: another one was asked for.
    """
    if symmetry.upper() not in ("C1", consensus.upper()):
        raise InputError(
            f"symmetry {symmetry}, but all states together stand for {consensus}; every state says "
            "its own"
        )
    return consensus if relax is None else "C1"


def _require_start(relax: Relax, mode: Mode) -> None:
    """Refuse to start from what a search without poses does not have.

    Raises:
        InputError: registers of poses that are still to be found, or an asymmetric reference that
            a symmetric stage has long left.
    """
    if relax.start == "poses":
        raise InputError(
            "a relaxation that starts from poses takes the registers of the input poses, and mode "
            f"{type(mode).__name__} finds poses anew; use --mode local (Local())"
        )
    if relax.start == "reference" and mode.relaxed is not None:
        raise InputError(
            "a relaxation that starts from the reference follows a symmetric stage that the "
            "reference's asymmetry does not outlive; relax from the start with --relax-from start "
            '(Homogeneous(relax_from="start"))'
        )
