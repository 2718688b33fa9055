"""The container of everything that scatters: atoms of a model, beads of a phantom, voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

BODY = -1
"""Value of ``Atoms.sites`` for what obeys the whole group."""

DELETED = -2
"""Value of ``Atoms.sites`` for what only the fully symmetric particles carry."""


@dataclass(frozen=True)
class FormFactors:
    """Scattering of each kind of point as a sum of Gaussians: ``f(k) = Σ a exp(−b k²/4)``.

    ``k`` is the spatial frequency in 1/Å (so ``k/2 = sinθ/λ``), ``b`` is in Å².
    """

    a: Float[np.ndarray, "kinds terms"]
    b: Float[np.ndarray, "kinds terms"]

    def at(self, k: Float[np.ndarray, "freq"]) -> Float[np.ndarray, "kinds freq"]:
        """Form factors at spatial frequencies ``k`` in 1/Å."""
        decay = np.exp(-0.25 * self.b[:, :, None] * k[None, None, :] ** 2)
        return np.einsum("kt,ktf->kf", self.a, decay)


@dataclass(frozen=True)
class Atoms:
    """Scattering points about the origin, through which all axes of the group pass.

    ``positions_angstrom`` are (x, y, z); ``weights`` multiply the form factor (occupancies, or the
    values of voxels); ``kinds`` index ``form_factors``; ``sites`` say to which site of the group
    an atom belongs (0, 1, …), or that it is part of the symmetric ``BODY``, or ``DELETED``.
    Nothing is known beyond ``band_limit`` (1/Å), which is finite for voxels only. ``chains`` are
    the names of the chains, where the source is a model.
    """

    positions_angstrom: Float[np.ndarray, "atoms 3"]
    weights: Float[np.ndarray, "atoms"]
    kinds: Int[np.ndarray, "atoms"]
    masses_dalton: Float[np.ndarray, "atoms"]
    sites: Int[np.ndarray, "atoms"]
    form_factors: FormFactors
    band_limit: float = float("inf")
    chains: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def where(self, mask: Bool[np.ndarray, "atoms"]) -> Atoms:
        """The atoms for which ``mask`` is true."""
        return replace(
            self,
            positions_angstrom=self.positions_angstrom[mask],
            weights=self.weights[mask],
            kinds=self.kinds[mask],
            masses_dalton=self.masses_dalton[mask],
            sites=self.sites[mask],
            chains=None if self.chains is None else self.chains[mask],
        )

    def rotated(self, matrix: Float[np.ndarray, "3 3"]) -> Atoms:
        """The atoms moved by ``r → matrix r``."""
        return replace(self, positions_angstrom=self.positions_angstrom @ matrix.T)

    def scattering(self) -> Float[np.ndarray, "atoms"]:
        """Scattering of each atom in the forward direction, ``f(0)``."""
        return self.weights * self.form_factors.a.sum(axis=1)[self.kinds]

    def mass_kda(self) -> float:
        """Total mass in kDa (0 for voxels, whose mass nobody knows)."""
        return float(np.sum(self.masses_dalton)) / 1000.0

    def radius_angstrom(self) -> float:
        """Distance of the outermost atom from the origin."""
        return float(np.sqrt(np.max(np.sum(self.positions_angstrom**2, axis=1))))


def present(atoms: Atoms, occupied: Bool[np.ndarray, "sites"]) -> Bool[np.ndarray, "atoms"]:
    """Which atoms are there when the partners sit on the ``occupied`` sites."""
    carried = np.append(occupied, [False, True])  # indices −2 and −1: DELETED, BODY
    return carried[atoms.sites]
