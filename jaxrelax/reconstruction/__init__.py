"""From weighted images to maps: accumulators, Wiener solves, the isotypic prior, FSC, masks."""

from jaxrelax.reconstruction.accumulators import (
    Accumulator,
    Candidates,
    MapSums,
    ShellSums,
    accumulate,
    completed,
    completed_sums,
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
from jaxrelax.reconstruction.deposits import deposit, deposit_in_maps
from jaxrelax.reconstruction.fsc import corrected_fsc, first_below, fsc, resolution_shell
from jaxrelax.reconstruction.group_fit import Fit, GroupFits, Verdict, fits_beside
from jaxrelax.reconstruction.hypothesis_volume import hypothesis_volume
from jaxrelax.reconstruction.isotypic import (
    HalfAlignment,
    IsotypicParts,
    align_half_maps,
    apply_gain,
    asymmetric_coefficients,
    isotypic_parts,
)
from jaxrelax.reconstruction.map_priors import (
    Belief,
    Gains,
    HalfMaps,
    Isotypic,
    Learned,
    MapPrior,
    Plain,
    Portion,
    component_curves,
    isotypic_gains,
    unregularised_map,
)
from jaxrelax.reconstruction.masks import (
    density_mask,
    independent_fraction,
    particle_radius_angstrom,
    soft_sphere,
    solvent_mask,
)
from jaxrelax.reconstruction.matching import (
    MeanAgreement,
    each_seen_by_the_other,
    match_halves,
    match_states,
    mean_agreement,
    onto_first,
    registers_onto_first,
    voting_shells,
)
from jaxrelax.reconstruction.particle import MaskedRegions, Particle, particle_box
from jaxrelax.reconstruction.rotate import rotate_map, rotated_maps, symmetrise
from jaxrelax.reconstruction.scoring_maps import regularised_parts, scoring_volume
from jaxrelax.reconstruction.self_rotation import SelfRotation, coarse_copy
from jaxrelax.reconstruction.slice_power import slice_power
from jaxrelax.reconstruction.state_priors import EachAlone, OwnGains, SharedAndOwn, StatesPrior
from jaxrelax.reconstruction.turning import average_over, turn_map, turned_maps
from jaxrelax.reconstruction.wiener import inverse_tau2, mean_weight, wiener_map

__all__ = [
    "Accumulator",
    "AxisAlignment",
    "Belief",
    "Candidates",
    "EachAlone",
    "Fit",
    "Gains",
    "GroupFits",
    "HalfAlignment",
    "HalfMaps",
    "Isotypic",
    "IsotypicParts",
    "Learned",
    "MapPrior",
    "MapSums",
    "MaskedRegions",
    "MeanAgreement",
    "OwnGains",
    "Particle",
    "Plain",
    "Portion",
    "SelfRotation",
    "SharedAndOwn",
    "ShellSums",
    "StatesPrior",
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
    "completed_sums",
    "component_counts",
    "component_curves",
    "component_fsc",
    "component_shares",
    "corrected_fsc",
    "density_mask",
    "deposit",
    "deposit_in_maps",
    "each_seen_by_the_other",
    "empty_accumulator",
    "first_below",
    "fits_beside",
    "fsc",
    "hypothesis_volume",
    "independent_fraction",
    "inverse_tau2",
    "isotypic_gains",
    "isotypic_parts",
    "match_halves",
    "match_states",
    "mean_agreement",
    "mean_weight",
    "misaligned_axes",
    "moved",
    "onto_first",
    "particle_box",
    "particle_radius_angstrom",
    "registers_onto_first",
    "regularised_parts",
    "resolution_shell",
    "rotate_map",
    "rotated_maps",
    "scoring_volume",
    "share_of_components",
    "slice_power",
    "soft_sphere",
    "solvent_mask",
    "symmetrise",
    "symmetry_correlation",
    "turn_map",
    "turned_maps",
    "unregularised_map",
    "voting_shells",
    "wiener_map",
]
