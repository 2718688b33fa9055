"""States before a first iteration."""

from __future__ import annotations

import itertools

import jax
import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.engine.background import starting_noise
from jaxrelax.imaging import resample_map, working_box
from jaxrelax.reconstruction import isotypic_parts
from jaxrelax.refinement.classification import Classification
from jaxrelax.refinement.history import History
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import Beliefs, MapState, PoseState, State, Strength, frozen

# Share of an image's weight that a random register gets in the first iteration of a symmetric
# start: enough that the half-maps' asymmetric parts rise above rounding, too little to decide.
SYMMETRY_BREAKING = 0.5


def init(
    problem: Problem,
    *references: Float32[np.ndarray, "n n n"],
    ini_high_angstrom: float,
) -> State:
    """State before the first iteration: poses of the input, low-passed references, noise.

    Args:
        problem: what stays fixed.
        references: of every map, on the problem's box and the absolute scale of the images.
        ini_high_angstrom: the reference is used up to this resolution (RELION's ``ini_high``).
    """
    shell = problem.shells.at(ini_high_angstrom)
    noise = starting_noise(problem.execution, problem.plan.noise, problem.plan.seed)
    return _start(problem, np.stack(references), shell, noise)


def init_relaxation(problem: Problem, earlier: Problem, symmetric: State) -> State:
    """State before the first iteration of a relaxation, from where a symmetric stage ended.

    Args:
        problem: of the relaxation; its particles have the poses that were found.
        earlier: of the symmetric stage.
        symmetric: the last state of the symmetric stage. Its half-maps are used up to the
            resolution in which asymmetry is sought, each for its own half-set.
    """
    shell = min(problem.shells.at(problem.plan.mode.ini_high_angstrom), symmetric.score_shell)
    state = _start(problem, symmetric.maps.symmetric, shell, symmetric.noise_power)
    before = symmetric.history_before
    for info in symmetric.history:
        before = before.appended(info)
    return state.replace(history_before=before, stage=symmetric.stage + 1)


def _start(
    problem: Problem,
    references: Float32[np.ndarray, "m b b b"],
    shell: int,
    noise_power: Float64[np.ndarray, "groups shells"],
) -> State:
    """Nothing is known but poses, noise, and maps, for each half-set or both, up to a shell."""
    shells, particle, plan = problem.shells, problem.particle, problem.plan
    of_maps = problem.of_maps
    shell = min(shell, shells.last_scored)
    box = working_box(shells.rung(shell))
    parts = [
        isotypic_parts(resample_map(one, box) * particle.sphere(box), of.group, of.subgroup)
        for one, of in zip(references, itertools.cycle(of_maps), strict=False)
    ]
    symmetric, asymmetric = MapState.stacked(parts)
    alone = len(of_maps) == 1
    if alone and (plan.relax is None or plan.relax.start != "reference"):
        asymmetric = np.zeros_like(asymmetric)
    particles, n = problem.data.particles, len(problem.data)
    rotation, shift = plan.mode.prior_widths()
    places = plan.table.n_places
    alike = np.full((n, places), 1.0 / places, np.float32)
    nothing, curve = np.zeros(n, np.float32), np.zeros(shell + 1)
    state = State(
        iteration=np.asarray(0),
        stage=np.asarray(0),
        poses=PoseState(
            rotations=particles.rotations,
            origins_angstrom=particles.origins_angstrom,
            centre_rotations=particles.rotations,
            centre_origins_angstrom=particles.origins_angstrom,
            mode_rotations=None,
            mode_origins_angstrom=None,
            sigma_rotation_deg=np.asarray(float(rotation)),
            sigma_shift_angstrom=np.asarray(float(shift)),
            # Of which nothing is known: as far as the first search sees.
            sigma_offset_angstrom=np.asarray(float(shells.resolution(shell))),
        ),
        beliefs=Beliefs(alike, nothing, nothing, nothing, alike),
        latents=jax.tree.map(np.asarray, plan.model.init()),
        noise_power=noise_power,
        maps=MapState(
            symmetric, asymmetric, None, curve, curve, curve, np.asarray(0), Strength.untouched()
        ),
        course=plan.course.init(shell),
        history=History.empty(),
        history_before=History.empty(),
    )
    return frozen(jax.tree.map(np.array, state))


def starting_weights(problem: Problem, state: State) -> Float32[np.ndarray, "n places"] | None:
    """Weights of the first accumulation, or None where the posterior decides."""
    relax, mode = problem.plan.relax, problem.plan.mode
    if isinstance(mode, Classification):
        # Where maps are all alike beliefs are given.
        return state.beliefs.registers if mode.seeds_states else None
    if relax is None or relax.start == "reference":
        return None
    n, registers = len(problem.data), problem.particle.n_registers
    if relax.start == "poses":
        return np.eye(registers, dtype=np.float32)[np.zeros(n, int)]
    rng = np.random.default_rng((problem.plan.seed, 2))
    random = np.eye(registers)[rng.integers(registers, size=n)]
    weights = (1 - SYMMETRY_BREAKING) / registers + SYMMETRY_BREAKING * random
    return weights.astype(np.float32)
