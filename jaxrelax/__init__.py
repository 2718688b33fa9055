"""jaxrelax: symmetry-relaxed cryo-EM refinement in JAX.

For every particle, which symmetry-related register is right, with an honest posterior, and the
asymmetric map that follows from it.
"""

from importlib.metadata import version as _version

from jaxrelax.geometry import point_group
from jaxrelax.imaging import RadialNoise, SmoothNoise
from jaxrelax.in_memory import Images, load_images, relaxed, volume
from jaxrelax.inference import FixedPoses, GaussNewton, PoseGrid, log_marginal
from jaxrelax.io import InputError, OutputFolder, Particles, read_map, read_particles, write_map
from jaxrelax.refinement import (
    Callback,
    Classification,
    Criterion,
    Homogeneous,
    Local,
    Map,
    MaxIterations,
    OccupancyPatterns,
    Registers,
    RegistersSettled,
    Relax,
    ResolutionStalled,
    Result,
    State,
    StatesSettled,
    StepInfo,
    finish,
    init,
    iterate,
    prepare,
    refine,
    step,
)

__version__ = _version("jaxrelax")

__all__ = [
    "Callback",
    "Classification",
    "Criterion",
    "FixedPoses",
    "GaussNewton",
    "Homogeneous",
    "Images",
    "InputError",
    "Local",
    "Map",
    "MaxIterations",
    "OccupancyPatterns",
    "OutputFolder",
    "Particles",
    "PoseGrid",
    "RadialNoise",
    "Registers",
    "RegistersSettled",
    "Relax",
    "ResolutionStalled",
    "Result",
    "SmoothNoise",
    "State",
    "StatesSettled",
    "StepInfo",
    "finish",
    "init",
    "iterate",
    "load_images",
    "log_marginal",
    "point_group",
    "prepare",
    "read_map",
    "read_particles",
    "refine",
    "relaxed",
    "step",
    "volume",
    "write_map",
]
