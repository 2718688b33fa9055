"""State, loop, modes, schedule, criteria, checkpoints: refinement as one loop."""

from jaxrelax.refinement.callbacks import Callback
from jaxrelax.refinement.components import Homogeneous, Local, Mode, Registers, Relax
from jaxrelax.refinement.criteria import (
    Criterion,
    MaxIterations,
    RegistersSettled,
    ResolutionStalled,
)
from jaxrelax.refinement.finish import finish
from jaxrelax.refinement.loop import init, step
from jaxrelax.refinement.preparation import Map, Setup, prepare
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.refine import done, iterate, refine
from jaxrelax.refinement.result import AsymmetryEvidence, Result, SubgroupTest
from jaxrelax.refinement.state import State, StepInfo
from jaxrelax.refinement.workers import WorkerLost, Workers, available_workers

__all__ = [
    "AsymmetryEvidence",
    "Callback",
    "Criterion",
    "Homogeneous",
    "Local",
    "Map",
    "MaxIterations",
    "Mode",
    "Problem",
    "Registers",
    "RegistersSettled",
    "Relax",
    "ResolutionStalled",
    "Result",
    "Setup",
    "State",
    "StepInfo",
    "SubgroupTest",
    "WorkerLost",
    "Workers",
    "available_workers",
    "done",
    "finish",
    "init",
    "iterate",
    "prepare",
    "refine",
    "step",
]
