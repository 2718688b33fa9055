"""Chains of one kind, and the rigid motions that take one onto another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gemmi
import numpy as np
from jaxtyping import Float

from jaxrelax.geometry import project_to_so3

# Two chains are of one kind if this part of the shorter one's residues agrees in number and name.
SAME_KIND = 0.9
TRACE_ATOMS = ("CA", "P")


@dataclass(frozen=True)
class Trace:
    """One chain as its Cα (or phosphorus) atoms, by residue number and name."""

    name: str
    residues: dict[tuple[str, str], np.ndarray]

    def common(self, other: Trace) -> list[tuple[str, str]]:
        """Residues that both chains have."""
        return [key for key in self.residues if key in other.residues]

    def points(self, keys: Sequence[tuple[str, str]] | None = None) -> Float[np.ndarray, "n 3"]:
        """Positions in Å of these residues, or of all."""
        keys = list(self.residues) if keys is None else keys
        return np.array([self.residues[key] for key in keys]).reshape(-1, 3)


def traces(model: gemmi.Model) -> list[Trace]:
    """The polymer chains of a model that have at least ten trace atoms."""
    found = []
    for chain in model:
        residues = {}
        for residue in chain:
            for name in TRACE_ATOMS:
                atom = residue.find_atom(name, "*")
                # Calcium ions are called CA too.
                if atom is not None and atom.element.name in ("C", "P"):
                    residues[(str(residue.seqid), residue.name)] = np.array(atom.pos.tolist())
                    break
        if len(residues) >= 10:
            found.append(Trace(chain.name, residues))
    return found


def kinds_of_chains(chains: Sequence[Trace]) -> list[list[Trace]]:
    """Chains sorted into lists of the same sequence, in order of first appearance."""
    kinds: list[list[Trace]] = []
    for chain in chains:
        for kind in kinds:
            shorter = min(len(chain.residues), len(kind[0].residues))
            if len(chain.common(kind[0])) >= SAME_KIND * shorter:
                kind.append(chain)
                break
        else:
            kinds.append([chain])
    return kinds


def superpose(
    fixed: Float[np.ndarray, "n 3"], moving: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Rotation R and translation t that bring ``R moving + t`` nearest to ``fixed`` (Kabsch)."""
    a, b = fixed.mean(axis=0), moving.mean(axis=0)
    rotation = project_to_so3((fixed - a).T @ (moving - b))
    return rotation, a - rotation @ b


def superpose_cores(
    fixed: Float[np.ndarray, "n 3"], moving: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """`superpose` on the half of the points that agree best, so that domains may have moved.

    A chain in another conformation shares a rigid core with its mates; the core is found from
    the best of several starts (contiguous sixths of the chain), each refined to a fixed point.
    """
    n = len(fixed)
    best, best_error = superpose(fixed, moving), np.inf
    starts = [np.arange(n), *np.array_split(np.arange(n), 6)]
    for chosen in starts:
        for _ in range(10):
            rotation, shift = superpose(fixed[chosen], moving[chosen])
            squares = np.sum((moving @ rotation.T + shift - fixed) ** 2, axis=1)
            kept = np.argsort(squares, kind="stable")[: max(3, n // 2)]
            if np.array_equal(np.sort(kept), np.sort(chosen)):
                break
            chosen = kept
        error = float(np.mean(np.sort(squares)[: max(3, n // 2)]))
        # Identical chains agree everywhere; all starts are then equally good and the first stays.
        if error < 0.9 * best_error:
            best, best_error = (rotation, shift), error
    return best


def self_motions(kinds: Sequence[Sequence[Trace]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Motions (R, t) that take the first chain of each kind onto the others of its kind."""
    motions = []
    for kind in kinds:
        for other in kind[1:]:
            keys = kind[0].common(other)
            motions.append(superpose_cores(other.points(keys), kind[0].points(keys)))
    return motions
