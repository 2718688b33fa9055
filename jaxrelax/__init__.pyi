# What `import jaxrelax` offers; __init__.py imports it from here, name by name.
from . import assessment as assessment
from . import engine as engine
from . import geometry as geometry
from . import imaging as imaging
from . import in_memory as in_memory
from . import inference as inference
from . import io as io
from . import judgement as judgement
from . import reconstruction as reconstruction
from . import refinement as refinement
from . import simulate as simulate
from .geometry import point_group
from .imaging import RadialNoise, SmoothNoise
from .in_memory import Images, load_images, relaxed, volume
from .inference import FixedPoses, GaussNewton, PoseGrid, log_marginal
from .io import InputError, OutputFolder, Particles, read_map, read_particles, write_map
from .refinement import (
    AsymmetryStalled,
    Callback,
    Classification,
    Criterion,
    DeviationSettled,
    FinalPasses,
    Homogeneous,
    LikelihoodStalled,
    Local,
    Map,
    MaxIterations,
    OccupancyPatterns,
    Part,
    PosesSettled,
    RegisterFlowSettled,
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
    read_history,
    refine,
    replay,
    step,
)

__version__: str

__all__ = [
    "AsymmetryStalled",
    "Callback",
    "Classification",
    "Criterion",
    "DeviationSettled",
    "FinalPasses",
    "FixedPoses",
    "GaussNewton",
    "Homogeneous",
    "Images",
    "InputError",
    "LikelihoodStalled",
    "Local",
    "Map",
    "MaxIterations",
    "OccupancyPatterns",
    "OutputFolder",
    "Part",
    "Particles",
    "PoseGrid",
    "PosesSettled",
    "RadialNoise",
    "RegisterFlowSettled",
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
    "read_history",
    "read_map",
    "read_particles",
    "refine",
    "relaxed",
    "replay",
    "step",
    "volume",
    "write_map",
]
