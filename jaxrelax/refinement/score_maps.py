"""The maps that score images: a half-set's sums without a fold, under the prior of the M-step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.imaging import working_box
from jaxrelax.reconstruction import (
    IsotypicParts,
    ShellSums,
    apply_component_gains,
    inverse_tau2,
    isotypic_parts,
    wiener_map,
)
from jaxrelax.reconstruction.fsc import cross_power, shell_counts, spectrum
from jaxrelax.refinement.problem import MARGIN, Problem


@dataclass(frozen=True)
class MapPrior:
    """What turns sums into a map: learned from both half-sets, used for each on its own.

    Attributes:
        weight: mean weight per voxel and shell of each half-set.
        fsc_symmetric: FSC of the symmetric parts.
        gain: of the asymmetric part, per isotypic component.
        density: mask of the particle on the working box.
    """

    weight: Float64[np.ndarray, "2 shells"]
    fsc_symmetric: Float64[np.ndarray, " shells"]
    gain: Float64[np.ndarray, "components shells"]
    density: Float32[np.ndarray, "b b b"]

    @property
    def max_shell(self) -> int:
        """Last shell of the maps."""
        return self.gain.shape[1] - 1


def kept_share(problem: Problem) -> float:
    """Share of a half-set's images in the map that scores one of them."""
    return (problem.n_folds - 1) / problem.n_folds if problem.cross_fitted else 1.0


def score_map(
    problem: Problem, sums: ShellSums, half: int, prior: MapPrior, share: float = 1.0
) -> IsotypicParts:
    """The regularised map of some of a half-set's images, as symmetric part and the rest.

    Args:
        problem: groups, masks, boxes.
        sums: of the images, up to the prior's last shell.
        half: 0 or 1.
        prior: from the M-step.
        share: of the half-set that is in ``sums``; a smaller one is trusted less.
    """
    box = working_box(prior.max_shell)
    tau = inverse_tau2(prior.weight[half], prior.fsc_symmetric) * share
    solved = wiener_map(
        sums.accumulator(), tau.astype(np.float32), box=box, image_box=problem.map_box,
        margin=MARGIN,
    )  # fmt: skip
    split = split_parts(problem, np.asarray(solved) * problem.sphere(box))
    asymmetric = region(problem, apply_component_gains(split.asymmetric, prior.gain, problem.group))
    return IsotypicParts(split.symmetric * prior.density, asymmetric * prior.density)


def split_parts(problem: Problem, map_: Float32[np.ndarray, "b b b"]) -> IsotypicParts:
    """Isotypic parts of a map; without relaxation everything is imposed to be symmetric."""
    parts = isotypic_parts(map_, problem.group, problem.subgroup)
    if problem.n_registers > 1:
        return parts
    return IsotypicParts(parts.symmetric, np.zeros_like(parts.symmetric))


def region(
    problem: Problem, asymmetric: Float32[np.ndarray, "b b b"]
) -> Float32[np.ndarray, "b b b"]:
    """The asymmetric part inside the register mask, if there is one."""
    if problem.register_mask is None:
        return asymmetric
    return asymmetric * problem.register_mask_at(asymmetric.shape[0])


def slice_power(
    map_: Float32[np.ndarray, "b b b"], image_box: int, n_shells: int
) -> Float64[np.ndarray, " shells"]:
    """E|P V|² per shell at random orientations: what slices of the map hold; zero beyond its box.

    Args:
        map_: on a working box.
        image_box: box of the images.
        n_shells: length of the result.
    """
    n = len(map_)
    transform = spectrum(map_)
    mean = cross_power(transform, transform, n) / np.maximum(shell_counts(n), 1.0)
    power = np.zeros(n_shells)
    kept = min(n_shells, n // 2)
    power[:kept] = mean[:kept] * ((image_box / n) ** 3 / image_box) ** 2
    return power
