"""State, step, course, modes, criteria, checkpoints: refinement as one loop."""

from jaxrelax.engine import WorkerLost, Workers, available_workers
from jaxrelax.judgement import AsymmetryEvidence, SubgroupTest
from jaxrelax.refinement.callbacks import Callback
from jaxrelax.refinement.classification import Classification, OccupancyPatterns
from jaxrelax.refinement.course import (
    Course,
    Orders,
    Seeded,
    SeekAmplifySettle,
    Seen,
    Straight,
    StraightState,
    followed,
)
from jaxrelax.refinement.criteria import (
    AsymmetryStalled,
    Criterion,
    DeviationSettled,
    FinalPasses,
    LikelihoodStalled,
    MaxIterations,
    PosesSettled,
    RegisterFlowSettled,
    RegistersSettled,
    ResolutionStalled,
    StatesSettled,
)
from jaxrelax.refinement.exclusive import CopiesOfParents
from jaxrelax.refinement.finish import finish
from jaxrelax.refinement.finish_states import finish_states
from jaxrelax.refinement.history import History, StepInfo
from jaxrelax.refinement.loop import step
from jaxrelax.refinement.modes import Homogeneous, Local, Mode, Registers
from jaxrelax.refinement.part import Part
from jaxrelax.refinement.preparation import prepare
from jaxrelax.refinement.problem import Plan, Problem
from jaxrelax.refinement.reference import Map
from jaxrelax.refinement.refine import iterate, refine
from jaxrelax.refinement.relax import Relax
from jaxrelax.refinement.replay import Stop, criterion_from_text, read_history, replay
from jaxrelax.refinement.result import MapsOfIterations, PartMotion, Result, StateMap
from jaxrelax.refinement.setup import Setup
from jaxrelax.refinement.stages import done
from jaxrelax.refinement.start import init
from jaxrelax.refinement.state import Band, State

__all__ = [
    "AsymmetryEvidence",
    "AsymmetryStalled",
    "Band",
    "Callback",
    "Classification",
    "CopiesOfParents",
    "Course",
    "Criterion",
    "DeviationSettled",
    "FinalPasses",
    "History",
    "Homogeneous",
    "LikelihoodStalled",
    "Local",
    "Map",
    "MapsOfIterations",
    "MaxIterations",
    "Mode",
    "OccupancyPatterns",
    "Orders",
    "Part",
    "PartMotion",
    "Plan",
    "PosesSettled",
    "Problem",
    "RegisterFlowSettled",
    "Registers",
    "RegistersSettled",
    "Relax",
    "ResolutionStalled",
    "Result",
    "Seeded",
    "SeekAmplifySettle",
    "Seen",
    "Setup",
    "State",
    "StateMap",
    "StatesSettled",
    "StepInfo",
    "Stop",
    "Straight",
    "StraightState",
    "SubgroupTest",
    "WorkerLost",
    "Workers",
    "available_workers",
    "criterion_from_text",
    "done",
    "finish",
    "finish_states",
    "followed",
    "init",
    "iterate",
    "prepare",
    "read_history",
    "refine",
    "replay",
    "step",
]
