"""What of a table is left once its images were looked at, and whether that is enough."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Int8
from numpy import ndarray

from jaxrelax.engine.workers import Workers
from jaxrelax.imaging.preprocess import OUTERMOST
from jaxrelax.io import Particles, Units
from jaxrelax.refinement.image_statistics import measured, unusable, usable_images
from jaxrelax.refinement.splits import require_enough

# Of the edge of the images: beyond it there is too little background to know the noise from.
WIDEST = 2.0 * OUTERMOST


class Usable(NamedTuple):
    """Rows whose images can be used."""

    particles: Particles
    units: Units
    half_set: Int8[ndarray, " particles"]
    normalised: tuple[bool, ...]  # which optics groups are to be normalised


def usable_particles(
    particles: Particles,
    units: Units,
    half_set: Int8[ndarray, " particles"],
    workers: Workers,
    *,
    particle_diameter_angstrom: float | None = None,
    normalise: str = "auto",
    skip_bad: bool | None = False,
    tested: bool = False,
) -> Usable:
    """The rows whose images can be used; every image is read once.

    Args:
        particles, units, half_set: the table, see `check_particles`.
        workers: processes that share the images.
        particle_diameter_angstrom: the background is what lies outside; without a reference that
            says so it is outside the widest particle that a refinement takes.
        normalise, skip_bad: as for `usable_images`.
        tested: whether there are registers to infer, and a symmetry to test.

    Raises:
        InputError: as `usable_images`; or too few are left.
    """
    diameter = particle_diameter_angstrom or widest_diameter(particles)
    rows, normalised = usable_images(
        particles, diameter, normalise, skip_bad, workers, units.source
    )
    if len(rows) < len(particles):
        particles, units, half_set = particles.select(rows), units.select(rows), half_set[rows]
        require_enough(particles, units, half_set, tested)
    return Usable(particles, units, half_set, normalised)


def bad_images(particles: Particles, workers: Workers) -> dict[int, str]:
    """Rows whose images cannot be used even as they are, with the reason.

    What a refinement leaves out, but for images without noise around the particle: nothing is
    learnt from that where a map is only reconstructed.
    """
    statistics = measured(particles, widest_diameter(particles), workers)
    return unusable(particles, statistics, masked=True)


def widest_diameter(particles: Particles) -> float:
    """Largest particle (Å) for which the images of all optics groups show a background."""
    return WIDEST * min(group.box * group.pixel_size_angstrom for group in particles.optics)
