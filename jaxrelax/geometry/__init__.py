"""Rotations, point groups, subgroups and registers. Host-side NumPy, but for `exp_so3`."""

from .aberrations import Aberrations, zernike_sum
from .agreement import (
    GlobalOperator,
    RegisterAgreement,
    best_global_operator,
    pose_error_mod_group,
    register_agreement,
)
from .characters import isotypic_weights
from .cosets import RightCosets, register_mates, right_cosets
from .directions import (
    asymmetric_unit,
    direction_neighbours,
    directions_in_tilt_range,
    healpix_directions,
    healpix_spacing_deg,
    poses_of_directions,
)
from .frames import Frame, frame_along
from .groups import NotAGroupError, PointGroup, group_from_operators, nearest_operator
from .operator_files import parse_group, read_operators
from .patterns import OccupancyPatterns, Pattern, occupancy_patterns
from .point_groups import UnknownGroupError, point_group
from .recentring import heights_angstrom, recentred_origins
from .rotations import (
    cryosparc_pose_to_matrix,
    euler_to_matrix,
    exp_so3,
    is_axis_aligned_permutation,
    matrix_to_cryosparc_pose,
    matrix_to_euler,
    matrix_to_rotvec,
    project_to_so3,
    random_rotations,
    rotation_angle,
    rotvec_to_matrix,
)
from .sites import Sites, SiteViews, equivalent_sites, view_sites
from .subgroups import (
    common_subgroup,
    conjugate_subgroups,
    operator_classes,
    subgroup,
    subgroup_indices,
    subgroups,
)

__all__ = [
    "Aberrations",
    "Frame",
    "GlobalOperator",
    "NotAGroupError",
    "OccupancyPatterns",
    "Pattern",
    "PointGroup",
    "RegisterAgreement",
    "RightCosets",
    "SiteViews",
    "Sites",
    "UnknownGroupError",
    "asymmetric_unit",
    "best_global_operator",
    "common_subgroup",
    "conjugate_subgroups",
    "cryosparc_pose_to_matrix",
    "direction_neighbours",
    "directions_in_tilt_range",
    "equivalent_sites",
    "euler_to_matrix",
    "exp_so3",
    "frame_along",
    "group_from_operators",
    "healpix_directions",
    "healpix_spacing_deg",
    "heights_angstrom",
    "is_axis_aligned_permutation",
    "isotypic_weights",
    "matrix_to_cryosparc_pose",
    "matrix_to_euler",
    "matrix_to_rotvec",
    "nearest_operator",
    "occupancy_patterns",
    "operator_classes",
    "parse_group",
    "point_group",
    "pose_error_mod_group",
    "poses_of_directions",
    "project_to_so3",
    "random_rotations",
    "read_operators",
    "recentred_origins",
    "register_agreement",
    "register_mates",
    "right_cosets",
    "rotation_angle",
    "rotvec_to_matrix",
    "subgroup",
    "subgroup_indices",
    "subgroups",
    "view_sites",
    "zernike_sum",
]
