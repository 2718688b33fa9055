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
from jaxrelax.inference.e_step import (
    Posterior,
    Stats,
    e_step,
    found_at_places,
    infer,
    log_marginal,
    over_modes,
    split_modes,
    statistics,
)
from jaxrelax.inference.gauss_newton import GaussNewton
from jaxrelax.inference.global_search import (
    GlobalSearch,
    finest_resolution_angstrom,
    global_search,
)
from jaxrelax.inference.hypotheses import Hypotheses, summed
from jaxrelax.inference.latents import (
    Junk,
    JunkParameters,
    Latent,
    Model,
    Register,
    States,
    SymmetricState,
    junk_evidence,
    logit,
)
from jaxrelax.inference.likelihood import log_density, log_likelihood, log_normaliser
from jaxrelax.inference.modes import KnownModes
from jaxrelax.inference.orientation_test import (
    ForeignSlices,
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
    "FixedPoses",
    "ForeignSlices",
    "GaussNewton",
    "GlobalSearch",
    "Hypotheses",
    "Junk",
    "JunkParameters",
    "KnownModes",
    "Latent",
    "Model",
    "OrientationScores",
    "PermutationTest",
    "PoseGrid",
    "PosePosterior",
    "PosePrior",
    "PoseSearch",
    "Poses",
    "Posterior",
    "Register",
    "States",
    "Stats",
    "SymmetricState",
    "accuracy_points",
    "accuracy_with_estimate",
    "combined_log10_p",
    "derangements",
    "draw_poses",
    "e_step",
    "entropy",
    "expected_accuracy",
    "finest_resolution_angstrom",
    "found_at_places",
    "gain_over_mixture",
    "global_search",
    "harden",
    "infer",
    "junk_evidence",
    "log_density",
    "log_likelihood",
    "log_marginal",
    "log_normaliser",
    "logit",
    "orientation_scores",
    "over_modes",
    "permutation_test",
    "posterior",
    "register_gram",
    "significant",
    "split_modes",
    "squared_distance",
    "statistics",
    "summed",
    "whitened_tangents",
    "whitened_views",
]
