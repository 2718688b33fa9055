"""What an image says: likelihood, pose searches, posteriors over registers."""

from jaxrelax.inference.discriminability import (
    accuracy_points,
    accuracy_with_estimate,
    expected_accuracy,
    register_gram,
    squared_distance,
    whitened_tangents,
    whitened_views,
)
from jaxrelax.inference.gauss_newton import GaussNewton
from jaxrelax.inference.global_search import (
    GlobalSearch,
    finest_resolution_angstrom,
    global_search,
)
from jaxrelax.inference.likelihood import log_density, log_likelihood, log_normaliser
from jaxrelax.inference.mixture import Belief, Mixture, junk_evidence, mixture_posterior
from jaxrelax.inference.modes import KnownModes
from jaxrelax.inference.orientation_test import (
    OrientationScores,
    PermutationTest,
    combined_log10_p,
    derangements,
    orientation_scores,
    permutation_test,
)
from jaxrelax.inference.pose_grid import PoseGrid
from jaxrelax.inference.pose_search import (
    FixedPoses,
    PosePosterior,
    PosePrior,
    Poses,
    PoseSearch,
    draw_poses,
)
from jaxrelax.inference.posterior import (
    entropy,
    gain_over_mixture,
    harden,
    posterior,
    significant,
)

__all__ = [
    "Belief",
    "FixedPoses",
    "GaussNewton",
    "GlobalSearch",
    "KnownModes",
    "Mixture",
    "OrientationScores",
    "PermutationTest",
    "PoseGrid",
    "PosePosterior",
    "PosePrior",
    "PoseSearch",
    "Poses",
    "accuracy_points",
    "accuracy_with_estimate",
    "combined_log10_p",
    "derangements",
    "draw_poses",
    "entropy",
    "expected_accuracy",
    "finest_resolution_angstrom",
    "gain_over_mixture",
    "global_search",
    "harden",
    "junk_evidence",
    "log_density",
    "log_likelihood",
    "log_normaliser",
    "mixture_posterior",
    "orientation_scores",
    "permutation_test",
    "posterior",
    "register_gram",
    "significant",
    "squared_distance",
    "whitened_tangents",
    "whitened_views",
]
