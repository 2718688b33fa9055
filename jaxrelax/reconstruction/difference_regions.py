"""Connected regions of a difference map, and which of them are symmetry mates of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Float64, Int

from jaxrelax.geometry import PointGroup

# Voxels that share a corner are one region: a surface between two of them would have no width.
NEIGHBOURS = np.ones((3, 3, 3), bool)
# Of the smaller region, inside the other one turned by an operator.
MATES_OVERLAP = 0.5


@dataclass(frozen=True)
class Region:
    """A connected region in which a difference is significant, all of it of one sign.

    Attributes:
        sign: 1 where the map has more, −1 where it has less.
        peak_sigma: the largest difference, in σ, with its sign.
        peak_angstrom: where that is, (x, y, z) from the centre of the box, voxel ``n // 2``.
        centre_angstrom: centre of mass, weighted by σ, likewise.
        volume_angstrom3: of its voxels.
        site: from 0; regions of one site are brought onto each other by operators of the group.
    """

    sign: int
    peak_sigma: float
    peak_angstrom: tuple[float, float, float]
    centre_angstrom: tuple[float, float, float]
    volume_angstrom3: float
    site: int = 0


def labelled(
    sigma: Float[np.ndarray, "n n n"], chosen: Bool[np.ndarray, "n n n"]
) -> tuple[Int[np.ndarray, "n n n"], Float64[np.ndarray, " regions"]]:
    """Number of the region of every chosen voxel, from 1, and the peak of every region.

    Voxels of different sign are in different regions. Regions are in order of their peaks, the
    highest in σ, of either sign, first.
    """
    labels = np.zeros(sigma.shape, np.int32)
    found = 0
    for sign in (1, -1):
        mine = np.zeros(sigma.shape, np.int32)
        count = int(scipy.ndimage.label(chosen & (sign * sigma > 0), NEIGHBOURS, output=mine))  # type: ignore[arg-type]
        labels[mine > 0] = mine[mine > 0] + found
        found += count
    peaks = np.zeros(found)
    inside = labels > 0
    np.maximum.at(peaks, labels[inside] - 1, np.abs(sigma[inside]))
    order = np.argsort(-peaks, kind="stable")
    new = np.zeros(found + 1, np.int32)
    new[order + 1] = np.arange(1, found + 1)
    return new[labels], peaks[order]


def regions_of(
    sigma: Float[np.ndarray, "n n n"],
    labels: Int[np.ndarray, "n n n"],
    group: PointGroup,
    pixel_size_angstrom: float,
) -> tuple[Region, ...]:
    """What is to be said of every labelled region, in order of the labels.

    Args:
        sigma: the difference in σ.
        labels: of :func:`labelled`.
        group: whose operators bring mates onto each other.
        pixel_size_angstrom: of both.
    """
    n, regions, places = len(sigma), [], []
    for number, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        start = np.array([each.start for each in box])
        places.append(np.argwhere(labels[box] == number) + start)
    sites = _sites(places, labels, group)
    for voxels, site in zip(places, sites, strict=True):
        values = sigma[tuple(voxels.T)].astype(np.float64)
        highest = int(np.argmax(np.abs(values)))
        from_centre = (voxels[:, ::-1] - n // 2) * pixel_size_angstrom
        centre = np.average(from_centre, axis=0, weights=np.abs(values))
        regions.append(
            Region(
                sign=int(np.sign(values[highest])),
                peak_sigma=float(values[highest]),
                peak_angstrom=_triple(from_centre[highest]),
                centre_angstrom=_triple(centre),
                volume_angstrom3=len(voxels) * pixel_size_angstrom**3,
                site=site,
            )
        )
    return tuple(regions)


def _sites(
    places: Sequence[Int[np.ndarray, "voxels 3"]],
    labels: Int[np.ndarray, "n n n"],
    group: PointGroup,
) -> list[int]:
    """The site of every region, numbered in order of its first region."""
    n, parent = len(labels), list(range(len(places)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for number, voxels in enumerate(places):
        from_centre = voxels[:, ::-1] - n // 2
        for operator in group.operators[1:]:
            turned = np.rint(from_centre @ operator.T).astype(int)[:, ::-1] + n // 2
            turned = turned[np.all((turned >= 0) & (turned < n), axis=1)]
            overlap = np.bincount(labels[tuple(turned.T)], minlength=len(places) + 1)[1:]
            for other in np.flatnonzero(overlap).tolist():
                smaller = min(len(voxels), len(places[other]))
                if overlap[other] >= MATES_OVERLAP * smaller:
                    first, second = sorted((root(number), root(other)))
                    parent[second] = first
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(each), len(numbers)) for each in range(len(places))]


def _triple(vector: Float[np.ndarray, " 3"]) -> tuple[float, float, float]:
    x, y, z = (float(each) for each in vector)
    return x, y, z
