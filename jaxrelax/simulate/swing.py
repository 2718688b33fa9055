"""A part that turns about a hinge from image to image: which, about what, and what is true then."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull, KDTree, QhullError

from jaxrelax.geometry import rotation_angle, rotvec_to_matrix
from jaxrelax.io.errors import InputError
from jaxrelax.reconstruction.masks import soft_region
from jaxrelax.simulate.atoms import BODY, DELETED, Atoms
from jaxrelax.simulate.occupancy import Occupancy

# Atoms of the part are in contact if they are so much farther from the rest than the nearest one.
CONTACT_ANGSTROM = 3.0
MASK_EXTEND_ANGSTROM, MASK_EDGE_ANGSTROM = 5.0, 8.0


@dataclass(frozen=True)
class SwingingPart:
    """What turns, and the point that stays where it is.

    Attributes:
        atoms: which atoms of the specimen turn.
        hinge_angstrom: (x, y, z) from the centre of the box, in the frame of the group.
        chains: their names, where the specimen is a model.
    """

    atoms: Bool[np.ndarray, " atoms"]
    hinge_angstrom: Float[np.ndarray, "3"]
    chains: tuple[str, ...] = ()

    def turned(
        self, positions_angstrom: Float[np.ndarray, "atoms 3"], swing: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "atoms 3"]:
        """Positions with those of the part at ``h + S (r − h)``, h being the hinge."""
        moved = positions_angstrom.copy()
        from_hinge = positions_angstrom[self.atoms] - self.hinge_angstrom
        moved[self.atoms] = self.hinge_angstrom + from_hinge @ swing.T
        return moved

    def reach_angstrom(
        self, positions_angstrom: Float[np.ndarray, "atoms 3"], swings: Float[np.ndarray, "n 3 3"]
    ) -> float:
        """Farthest distance from the centre of the box that the part has in any image."""
        from_hinge = positions_angstrom[self.atoms] - self.hinge_angstrom
        with contextlib.suppress(QhullError, ValueError):  # too few or flat: all of them, then
            from_hinge = from_hinge[ConvexHull(from_hinge).vertices]
        squares = max(
            float(np.sum((self.hinge_angstrom + from_hinge @ swing.T) ** 2, axis=1).max())
            for swing in swings
        )
        return squares**0.5


def swinging_part(
    atoms: Atoms,
    occupancy: Occupancy,
    partner: Bool[np.ndarray, " atoms"],
    swing_chains: Sequence[str] = (),
    hinge_angstrom: tuple[float, float, float] | None = None,
) -> SwingingPart:
    """The part of a specimen that swings.

    Args:
        atoms: of the specimen.
        occupancy: of its sites.
        partner: atoms that break the symmetry, where there are no sites.
        swing_chains: chains of a model that swing, instead of what breaks the symmetry.
        hinge_angstrom: the hinge, instead of the one `find_hinge` finds.

    Raises:
        InputError: it cannot be told what swings, or what was named is no part.
    """
    possible = np.flatnonzero(occupancy.probabilities > 0)
    there = (atoms.sites == BODY) | np.isin(atoms.sites, possible)
    if swing_chains:
        part = _named(atoms, there, swing_chains)
    elif len(occupancy.probabilities) == 0:
        part = partner & there
        if not part.any():
            raise InputError(
                "swing_deg: every chain is repeated by the group, so it cannot be told which part "
                "swings. Name its chains (swing_chains), or delete copies of it (delete_chains)."
            )
    elif len(possible) == 1:
        part = atoms.sites == possible[0]
    else:
        raise InputError(
            f"swing_deg: {len(possible)} sites can carry a partner, and the truth has the pose of "
            "one part. Let one site be occupied (occupancy 'one')."
        )
    rest = there & ~part
    if not rest.any():
        raise InputError("swing_deg: nothing is left that does not swing.")
    if hinge_angstrom is None:
        hinge = find_hinge(atoms.positions_angstrom[part], atoms.positions_angstrom[rest])
    else:
        hinge = np.array(hinge_angstrom, np.float64)
    chains = () if atoms.chains is None else tuple(dict.fromkeys(atoms.chains[part].tolist()))
    return SwingingPart(part, hinge, chains)


def _named(
    atoms: Atoms, there: Bool[np.ndarray, " atoms"], names: Sequence[str]
) -> Bool[np.ndarray, " atoms"]:
    assert atoms.chains is not None  # refused for what is no model
    for name in names:
        mine = atoms.chains == name
        if not mine.any():
            known = ", ".join(dict.fromkeys(atoms.chains.tolist()))
            raise InputError(
                f"swing_chains names chain '{name}', which the assembly does not have. "
                f"Its chains are {known}."
            )
        if not there[mine].all():
            why = "is deleted" if (atoms.sites[mine] == DELETED).any() else "is at an empty site"
            raise InputError(f"swing_chains names chain '{name}', which {why}.")
    return np.isin(atoms.chains, list(names))


def find_hinge(
    part: Float[np.ndarray, "n 3"], rest: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "3"]:
    """Where a part touches the rest.

    The mean of the midpoints between atoms of the part and the atoms of the rest that are nearest
    to them, over those that are no more than 3 Å farther apart than the nearest pair.
    """
    distances, nearest = KDTree(rest).query(part)
    contact = distances <= distances.min() + CONTACT_ANGSTROM
    return 0.5 * (part[contact] + rest[np.asarray(nearest)[contact]]).mean(axis=0)


def draw_swings(n: int, swing_deg: float, rng: np.random.Generator) -> Float[np.ndarray, "n 3 3"]:
    """Rotations by normal rotation vectors, isotropic, whose rms angle is ``swing_deg``.

    Each of the three components has a standard deviation of ``swing_deg`` / √3.
    """
    return rotvec_to_matrix(rng.standard_normal((n, 3)) * (np.deg2rad(swing_deg) / np.sqrt(3.0)))


def part_poses(
    poses: Float[np.ndarray, "n 3 3"],
    origins_angstrom: Float[np.ndarray, "n 2"],
    swings: Float[np.ndarray, "n 3 3"],
    hinge_angstrom: Float[np.ndarray, "3"],
    magnification: Float[np.ndarray, "2 2"],
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 2"]]:
    """Pose and origin under which the part in its mean position has the image it has.

    A point r of it is at ``h + S (r − h)``, and the pose A shows that at
    ``(A S r)[:2] + (A (h − S h))[:2]``. So the pose is ``A S``; and as an image with the origin o
    shows the particle at −o, the origin is ``o − (A (h − S h))[:2]`` (what is subtracted is
    multiplied by the transposed magnification matrix, as positions in images are).
    """
    moved = hinge_angstrom - swings @ hinge_angstrom
    shown = np.einsum("nij,nj->ni", poses[:, :2], moved) @ magnification
    return poses @ swings, origins_angstrom - shown


def rms_angle_deg(swings: Float[np.ndarray, "n 3 3"]) -> float:
    """Root-mean-square angle of rotations."""
    return float(np.rad2deg(np.sqrt(np.mean(rotation_angle(swings) ** 2))))


def part_mask(
    positions_angstrom: Float[np.ndarray, "n 3"], box: int, pixel_size_angstrom: float
) -> Float[np.ndarray, "box box box"]:
    """Soft mask of the voxels that hold atoms and of 5 Å around, falling over 8 Å.

    With large pixels of one and of two of them.
    """
    indices = np.rint(positions_angstrom / pixel_size_angstrom).astype(np.int64) + box // 2
    indices = indices[np.all((indices >= 0) & (indices < box), axis=1)]
    solid = np.zeros((box, box, box), bool)
    solid[indices[:, 2], indices[:, 1], indices[:, 0]] = True
    extend = max(MASK_EXTEND_ANGSTROM, pixel_size_angstrom)
    edge = max(MASK_EDGE_ANGSTROM, 2.0 * pixel_size_angstrom)
    return soft_region(solid, pixel_size_angstrom, extend, edge)
