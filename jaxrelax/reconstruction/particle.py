"""The particle: its groups, where it ends, and which of its density tells registers apart."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup, RightCosets, right_cosets
from jaxrelax.imaging import resample_map, working_box
from jaxrelax.reconstruction.fsc import shell_counts
from jaxrelax.reconstruction.isotypic import (
    IsotypicParts,
    asymmetric_coefficients,
    isotypic_parts,
)
from jaxrelax.reconstruction.masks import (
    density_mask,
    independent_fraction,
    soft_sphere,
    solvent_mask,
)

# Edge of the map's box over the particle's diameter. What trilinear interpolation of the twofold
# oversampled transform leaves of the neighbouring copies at the end of the particle grows with the
# narrowness of the box: 4 % of the amplitude where the box is 1.5 times as wide, 9 % here.
ROOM = 1.1
# Over which the sphere around the particle falls to nothing, at least.
SPHERE_EDGE_ANGSTROM, SPHERE_EDGE_PX = 10.0, 3.0
# Of the density of the body: what is left of a partner's after a low-pass.
FAINT_PARTNER = 0.3


class MaskedRegions(NamedTuple):
    """Masks on a working box, see :meth:`Particle.regions`."""

    sphere: Float32[AnyArray, "b b b"]
    registers: Float32[AnyArray, "b b b"] | None


@dataclass(frozen=True, eq=False)
class Particle:
    """What is looked at.

    Attributes:
        group: G, the symmetry of the consensus.
        subgroup: H, the symmetry that is kept; G itself where nothing is relaxed.
        box: of its map, in pixels.
        pixel_size_angstrom: of its map.
        diameter_angstrom: of the sphere that it fills.
        register_mask: only density inside it tells registers apart; None: all does.
        finest_register_angstrom: so do only frequencies up to this; None: all do.
        part: only density inside this mask is refined; None: all that the sphere holds.
    """

    group: PointGroup
    subgroup: PointGroup
    box: int
    pixel_size_angstrom: float
    diameter_angstrom: float
    register_mask: Float32[np.ndarray, "b b b"] | None = None
    finest_register_angstrom: float | None = None
    part: Float32[np.ndarray, "b b b"] | None = None
    # Arguments of a program that works with the particle, in place of constants of a map's size.
    given: MaskedRegions | None = None

    @property
    def edge_angstrom(self) -> float:
        """Edge of its map's box in Å."""
        return self.box * self.pixel_size_angstrom

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """Maps of one kind may be taken for each other: that of a half-set for another's."""
        return self.group, self.subgroup

    @property
    def name(self) -> str:
        """Its symmetry in words."""
        if self.relaxed:
            return f"{self.group.name} relaxed to {self.subgroup.name}"
        return self.group.name

    @cached_property
    def registers(self) -> RightCosets:
        """Cosets of H in G."""
        return right_cosets(self.group, self.subgroup)

    @property
    def n_registers(self) -> int:
        """Number of registers, |G|/|H|; 1 without relaxation."""
        return len(self.registers.representatives)

    @property
    def relaxed(self) -> bool:
        """Whether there are registers to tell apart."""
        return self.n_registers > 1

    @cached_property
    def normaliser(self) -> list[int]:
        """Indices in G of register representatives that keep H in place: possible alignments."""
        table, inverse = self.group.multiplication_table, self.group.inverse
        members = [self.group.index_of(h) for h in self.subgroup.operators]
        found = []
        for representative in self.registers.representatives:
            g = self.group.index_of(representative)
            conjugate = {int(table[table[g, h], inverse[g]]) for h in members}
            if conjugate == set(members):
                found.append(g)
        return found

    def register_limit(self, shell: int) -> int:
        """Last shell, up to a given one, that may tell registers apart."""
        if self.finest_register_angstrom is None:
            return shell
        return min(shell, max(int(self.edge_angstrom / self.finest_register_angstrom), 1))

    def regions(self, box: int) -> MaskedRegions:
        """Masks of the particle and of what tells registers apart, on a working box."""
        registers = None if self.register_mask is None else self.register_mask_at(box)
        return MaskedRegions(self.sphere(box), registers)

    def sphere(self, box: int) -> Float32[AnyArray, "b b b"]:
        """Soft spherical mask of the particle on a working box."""
        if self.given is not None and self.given.sphere.shape[0] == box:
            return self.given.sphere
        pixel = self.edge_angstrom / box
        radius = 0.5 * self.diameter_angstrom / pixel
        edge = min(max(SPHERE_EDGE_PX, SPHERE_EDGE_ANGSTROM / pixel), 0.5 * box - radius)
        return soft_sphere(box, radius, edge)

    def part_mask(self, box: int) -> Float32[np.ndarray, "b b b"] | None:
        """The mask of the part on a working box; None where all is refined."""
        return None if self.part is None else np.clip(resample_map(self.part, box), 0.0, 1.0)

    def fsc_mask(self, map_: Float32[AnyArray, "b b b"]) -> Float32[np.ndarray, "b b b"]:
        """Where half-maps are compared: in the part, or around the density of a map."""
        part = self.part_mask(len(map_))
        return solvent_mask(map_, self.edge_angstrom / len(map_)) if part is None else part

    def density_mask(
        self,
        first: Float32[AnyArray, "b b b"],
        second: Float32[AnyArray, "b b b"],
        *,
        faint: bool = False,
    ) -> Float32[np.ndarray, "b b b"]:
        """Mask of what stands out in two unregularised half-maps on a working box.

        Where they are in different registers what breaks the symmetry counts as noise, too.

        Args:
            first, second: half-maps.
            faint: what may be a partner averaged over all registers counts as well (see
                :func:`jaxrelax.reconstruction.density_mask`).
        """
        part = self.part_mask(len(first))
        if part is not None:  # drawn by a person
            return part
        return density_mask(
            first,
            second,
            self.edge_angstrom / len(first),
            0.5 * self.diameter_angstrom,
            self.group,
            faintest=(FAINT_PARTNER / self.n_registers) ** 2 if faint else 1.0,
        )

    def register_mask_at(self, box: int) -> Float32[AnyArray, "b b b"]:
        """The register mask on a working box."""
        given = None if self.given is None else self.given.registers
        if given is not None and given.shape[0] == box:
            return given
        if self.register_mask is None:
            raise ValueError("this refinement has no register mask")
        return np.clip(resample_map(self.register_mask, box), 0.0, 1.0)

    def region(self, asymmetric: Float32[AnyArray, "b b b"]) -> Float32[AnyArray, "b b b"]:
        """The asymmetric part inside the register mask, if there is one."""
        if self.register_mask is None:
            return asymmetric
        return asymmetric * self.register_mask_at(asymmetric.shape[0])

    def split(self, map_: Float32[AnyArray, "b b b"]) -> IsotypicParts:
        """Isotypic parts of a map; without relaxation everything is imposed to be symmetric."""
        parts = isotypic_parts(map_, self.group, self.subgroup)
        if self.relaxed:
            return parts
        return IsotypicParts(parts.symmetric, 0.0 * parts.symmetric)

    def coefficients(self, mask: Float32[AnyArray, "b b b"]) -> Float64[np.ndarray, " shells"]:
        """Independent coefficients of the asymmetric part per shell, inside a mask."""
        fraction = independent_fraction(self.region(mask))
        return asymmetric_coefficients(len(mask), fraction, self.group, self.subgroup)

    def symmetric_coefficients(
        self, mask: Float32[AnyArray, "b b b"]
    ) -> Float64[np.ndarray, " shells"]:
        """Independent coefficients of a G-symmetric map per shell, inside a mask."""
        return shell_counts(len(mask)) * independent_fraction(mask) / self.group.order


def particle_box(image_box: int, pixel_size_angstrom: float, diameter_angstrom: float) -> int:
    """Box in which the map of a particle is refined, at most that of the images.

    Images need room around the particle for what the CTF spreads; their map does not. Volumes,
    sums and transforms grow with the third power of the box, and a typical image is half as wide
    again as its particle.

    Args:
        image_box: of the images.
        pixel_size_angstrom: of images and map.
        diameter_angstrom: of the particle's sphere.
    """
    diameter = diameter_angstrom / pixel_size_angstrom
    edge = max(SPHERE_EDGE_PX, SPHERE_EDGE_ANGSTROM / pixel_size_angstrom)
    needed = max(ROOM * diameter, diameter + 2.0 * edge)
    return min(image_box, working_box(math.ceil(0.5 * needed) - 1))
