"""The cross-validated local low-pass of non-uniform refinement, as a map prior to compare with.

Punjani, Zhang & Fleet, Nature Methods 17 (2020) 1214: every voxel has a low-pass filter of its own,
the one with which each half-map, filtered, is nearest to the other one, unfiltered, in a window of
some wavelengths of the filter's cutoff. Butterworth filters of order 8 and windows of three
wavelengths are as we know the method; where it differs from the program that bears the name, this
is not that program. The asymmetric part is filtered in the same way, with its error averaged over
the group and nothing at all as one of the filters.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    Gains,
    Isotypic,
    IsotypicParts,
    apply_component_gains,
    apply_gain,
    onto_first,
    symmetrise,
    unregularised_map,
)
from jaxrelax.reconstruction.band_gains import coarse_box, on_fine_grid, windowed

ORDER = 8
WAVELENGTHS = 3.0
CUTOFFS = 14
LEAST_HELD = 0.05


class Cutoffs(Gains):
    """What is learned: for every voxel of a coarser box the number of its filter."""

    symmetric: Float32[np.ndarray, "h h h"]
    asymmetric: Float32[np.ndarray, "h h h"]


def filters(max_shell: int) -> tuple[np.ndarray, np.ndarray]:
    """Cutoffs in shells, and the gain of each filter per shell; the first of them is nothing."""
    cutoffs = np.geomspace(2.0, max_shell, CUTOFFS)
    shells = np.arange(max_shell + 1)
    gains = 1.0 / np.sqrt(1.0 + (shells[None] / cutoffs[:, None]) ** (2 * ORDER))
    return np.append(2.0, cutoffs), np.concatenate([np.zeros((1, len(shells))), gains])


class NonUniform(Isotypic):
    """A local low-pass in place of Wiener filters; while seeking, the gains of asymmetry stay.

    Only on a processor.
    """

    def learn(self, halves, belief, particle, rng):
        """The filter of every voxel."""
        learned = super().learn(halves, belief, particle, rng)
        known = learned.state
        symmetric = chosen([one.symmetric for one in halves.parts], known.density, halves.max_shell)
        asymmetric = np.full_like(symmetric, -1.0)
        if particle.relaxed and belief.by_component and not belief.full:
            second = onto_first(particle, halves.matched.index, halves.parts[1].asymmetric)
            asymmetric = chosen(
                [particle.region(halves.parts[0].asymmetric), particle.region(second)],
                known.density, halves.max_shell, nothing=True,
                average=lambda one: symmetrise(one, particle.group),
            )  # fmt: skip
        state = Cutoffs(known.fsc_symmetric, known.gain, known.density, symmetric, asymmetric)
        return learned._replace(state=state)

    def solve(self, state, portion, particle):
        """Filtered as every voxel wants it; there is no other prior."""
        sphere = particle.sphere(working_box(portion.sums.max_shell))
        parts = particle.split(unregularised_map(portion.sums, particle) * sphere)
        return _filtered_parts(parts, state, portion.sums.max_shell, particle)

    def join(self, state, portion, other, strength, particle):
        """Half-sets keep to themselves."""
        parts = self.solve(state, portion, particle)
        return IsotypicParts(parts.symmetric, parts.asymmetric * np.float32(strength))


def _filtered_parts(parts, state, max_shell, particle) -> IsotypicParts:
    symmetric = filtered(parts.symmetric, state.symmetric, max_shell) * state.density
    if not particle.relaxed:
        return IsotypicParts(symmetric, 0.0 * symmetric)
    if state.asymmetric.min() < 0.0:
        asymmetric = apply_component_gains(parts.asymmetric, state.gain, particle.group)
    else:
        asymmetric = filtered(parts.asymmetric, state.asymmetric, max_shell)
    return IsotypicParts(symmetric, particle.region(asymmetric * state.density))


def chosen(pair, mask, max_shell: int, nothing: bool = False, average=lambda one: one):
    """Number of the filter of least cross-validated error for every voxel of a coarser box."""
    first, second = (np.asarray(one) for one in pair)
    n, box = len(mask), coarse_box(len(mask))
    cutoffs, gains = filters(max_shell)
    best = np.full((box,) * 3, np.inf, np.float32)
    number = np.zeros((box,) * 3, np.float32)
    for row, (cutoff, gain) in enumerate(zip(cutoffs, gains, strict=True)):
        if row == 0 and not nothing:
            continue
        missed = (apply_gain(first, gain) - second) ** 2 + (apply_gain(second, gain) - first) ** 2
        # A ball's radius is √5 of its standard deviation along an axis.
        sigma = WAVELENGTHS * n / cutoff / np.sqrt(5.0)
        held = np.maximum(windowed(mask, sigma, box), LEAST_HELD)
        error = np.asarray(average(windowed(missed * mask, sigma, box))) / held
        better = error < best
        best[better], number[better] = error[better], row
    return number


def filtered(map_, number, max_shell: int):
    """A map with the filter of every voxel, interpolated between voxels."""
    _, gains = filters(max_shell)
    total = np.zeros_like(map_)
    for row in range(1, len(gains)):
        share = on_fine_grid((number >= row).astype(np.float32), len(map_))
        if share.any():
            total += apply_gain(map_, gains[row] - gains[row - 1]) * share
    return total
