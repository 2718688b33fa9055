"""What is compared at the end of a refinement, and where the difference is real.

A relaxed map with itself averaged over the group; the map of a state with the mean of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray
from jaxrelax.reconstruction import (
    DifferenceInSigma,
    IsotypicParts,
    Particle,
    band_of_difference,
    difference_in_sigma,
    fsc,
    independent_fraction,
    symmetrise,
)
from jaxrelax.reconstruction.fsc import shell_counts


def asymmetry_in_sigma(
    particle: Particle,
    parts: Sequence[IsotypicParts],
    mask: Float32[np.ndarray, "n n n"],
    symmetric: Float[np.ndarray, " shells"],
    asymmetric: Float[np.ndarray, " shells"],
) -> DifferenceInSigma:
    """What symmetrisation removes of a relaxed map, in σ.

    Args:
        particle: G, H and the register mask.
        parts: of the half-maps, in one frame.
        mask: the same in all registers: the place of a partner counts where there is none, too.
        symmetric, asymmetric: FSC of the parts under the mask.
    """
    region = np.asarray(particle.region(mask))
    coefficients = particle.coefficients(mask)
    whole = particle.symmetric_coefficients(mask)
    return difference_in_sigma(
        (parts[0].asymmetric, parts[1].asymmetric),
        0.5 * (parts[0].symmetric + parts[1].symmetric),
        region > 0.5,
        band_of_difference(asymmetric, coefficients, symmetric, whole),
        particle.pixel_size_angstrom,
        group=particle.group,
        kept=particle.subgroup,
        removed=particle.group,
        frames=len(particle.normaliser),
        coefficients=coefficients,
    )


def states_in_sigma(
    particles: Sequence[Particle],
    pairs: Sequence[tuple[Float32[AnyArray, "n n n"], Float32[AnyArray, "n n n"]]],
    fractions: Float[np.ndarray, " states"],
    mask: Float32[AnyArray, "n n n"],
    shared: Float[AnyArray, " shells"],
) -> list[DifferenceInSigma]:
    """What every state has beside the mean of all, in σ.

    The mean is of the states' maps averaged over their groups: frames of relaxed states have
    nothing to do with each other.

    Args:
        particles: of the states.
        pairs: half-maps of every state, in one frame.
        fractions: of the images that show it.
        mask: where states may differ.
        shared: FSC of the mean.
    """
    mask = np.asarray(mask)
    sphere = particles[0].sphere(len(mask))
    inside = [tuple(np.asarray(half * sphere, np.float32) for half in pair) for pair in pairs]
    means = []
    for half in (0, 1):
        symmetric = (
            symmetrise(pair[half], particle.group)
            for particle, pair in zip(particles, inside, strict=True)
        )
        mean = np.zeros_like(mask)
        for share, map_ in zip(fractions, symmetric, strict=True):
            mean += np.float32(share) * map_
        means.append(mean)
    fraction, whole = independent_fraction(mask), particles[0].symmetric_coefficients(mask)
    found = []
    for particle, pair in zip(particles, inside, strict=True):
        own = [map_ - mean for map_, mean in zip(pair, means, strict=True)]
        coefficients = shell_counts(len(mask)) * fraction / particle.subgroup.order
        alike = sum(particle.kind == other.kind for other in particles)
        found.append(
            difference_in_sigma(
                (own[0], own[1]),
                0.5 * (means[0] + means[1]),
                mask > 0.5,
                band_of_difference(fsc(own[0], own[1], mask), coefficients, shared, whole),
                particle.pixel_size_angstrom,
                group=particle.group,
                kept=particle.subgroup,
                # Which state of the other half-set it is, and in which register.
                frames=math.factorial(min(alike, 10)) * len(particle.normaliser),
                coefficients=coefficients,
            )
        )
    return found
