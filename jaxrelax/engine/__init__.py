"""What runs a refinement: devices and processes, streams of images, compiled programs."""

from jaxrelax.engine.data import Data
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.streams import Conditions
from jaxrelax.engine.workers import WorkerLost, Workers, available_workers

__all__ = ["Conditions", "Data", "Execution", "WorkerLost", "Workers", "available_workers"]
