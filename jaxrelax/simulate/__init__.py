"""Data sets with known truth: from an atomic model, a map, or a phantom made of nothing.

Objects are projected in real space, point by point; no Fourier slice of a map is interpolated,
so the images do not share the errors of the programs they are meant to test.
"""

from jaxrelax.simulate.atoms import Atoms, FormFactors
from jaxrelax.simulate.config import Simulation, SimulationResult
from jaxrelax.simulate.dataset import simulate
from jaxrelax.simulate.models import model_atoms
from jaxrelax.simulate.noise import coloured_noise, noise_amplitude
from jaxrelax.simulate.phantom import phantom_atoms
from jaxrelax.simulate.projection import Projector

__all__ = [
    "Atoms",
    "FormFactors",
    "Projector",
    "Simulation",
    "SimulationResult",
    "coloured_noise",
    "model_atoms",
    "noise_amplitude",
    "phantom_atoms",
    "simulate",
]
