"""What an image says: likelihood, pose searches, posteriors over registers."""

from jaxrelax.inference.gauss_newton import GaussNewton
from jaxrelax.inference.likelihood import log_likelihood
from jaxrelax.inference.pose_grid import PoseGrid
from jaxrelax.inference.pose_search import FixedPoses, PosePosterior, PosePrior, Poses, PoseSearch
from jaxrelax.inference.posterior import (
    entropy,
    gain_over_mixture,
    harden,
    posterior,
    significant,
)

__all__ = [
    "FixedPoses",
    "GaussNewton",
    "PoseGrid",
    "PosePosterior",
    "PosePrior",
    "PoseSearch",
    "Poses",
    "entropy",
    "gain_over_mixture",
    "harden",
    "log_likelihood",
    "posterior",
    "significant",
]
