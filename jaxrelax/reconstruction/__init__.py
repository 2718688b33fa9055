"""From weighted images to maps: accumulators, Wiener solves, the isotypic prior, FSC, masks."""

from jaxrelax.reconstruction.accumulators import (
    Accumulator,
    Candidates,
    ShellSums,
    accumulate,
    completed,
    empty_accumulator,
)
from jaxrelax.reconstruction.axes import (
    AxisAlignment,
    align_axes,
    misaligned_axes,
    moved,
    symmetry_correlation,
)
from jaxrelax.reconstruction.components import (
    apply_component_gains,
    component_counts,
    component_fsc,
    component_shares,
    share_of_components,
)
from jaxrelax.reconstruction.deposits import deposit
from jaxrelax.reconstruction.fsc import corrected_fsc, first_below, fsc, resolution_shell
from jaxrelax.reconstruction.group_fit import Fit, GroupFits, Verdict, fits_beside
from jaxrelax.reconstruction.isotypic import (
    HalfAlignment,
    IsotypicParts,
    align_half_maps,
    apply_gain,
    asymmetric_coefficients,
    isotypic_parts,
)
from jaxrelax.reconstruction.masks import (
    density_mask,
    independent_fraction,
    particle_radius_angstrom,
    soft_sphere,
    solvent_mask,
)
from jaxrelax.reconstruction.rotate import rotate_map, rotated_maps, symmetrise
from jaxrelax.reconstruction.scoring_maps import regularised_parts, scoring_volume
from jaxrelax.reconstruction.self_rotation import SelfRotation, coarse_copy
from jaxrelax.reconstruction.turning import average_over, turn_map
from jaxrelax.reconstruction.wiener import inverse_tau2, mean_weight, wiener_map

__all__ = [
    "Accumulator",
    "AxisAlignment",
    "Candidates",
    "Fit",
    "GroupFits",
    "HalfAlignment",
    "IsotypicParts",
    "SelfRotation",
    "ShellSums",
    "Verdict",
    "accumulate",
    "align_axes",
    "align_half_maps",
    "apply_component_gains",
    "apply_gain",
    "asymmetric_coefficients",
    "average_over",
    "coarse_copy",
    "completed",
    "component_counts",
    "component_fsc",
    "component_shares",
    "corrected_fsc",
    "density_mask",
    "deposit",
    "empty_accumulator",
    "first_below",
    "fits_beside",
    "fsc",
    "independent_fraction",
    "inverse_tau2",
    "isotypic_parts",
    "mean_weight",
    "misaligned_axes",
    "moved",
    "particle_radius_angstrom",
    "regularised_parts",
    "resolution_shell",
    "rotate_map",
    "rotated_maps",
    "scoring_volume",
    "share_of_components",
    "soft_sphere",
    "solvent_mask",
    "symmetrise",
    "symmetry_correlation",
    "turn_map",
    "wiener_map",
]
