"""The ceiling: how well registers can be told apart at all, given the true map.

Nobody can do better than the posterior under the true map, the true CTF and the true noise. Its
accuracy, not 100 %, is what a refinement is measured against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxrelax.assessment.accuracy import groups, has_register, matching_rows, true_registers
from jaxrelax.assessment.calibration import Calibration, brier_score, calibration
from jaxrelax.imaging import RadialNoise
from jaxrelax.io import InputError, Particles
from jaxrelax.reconstruction import particle_radius_angstrom
from jaxrelax.refinement.expectation import expectation
from jaxrelax.refinement.modes import Mode, Registers
from jaxrelax.refinement.problem import make_problem
from jaxrelax.refinement.relax import Relax
from jaxrelax.refinement.start import init

NOISE_PASSES = 2  # the noise learned from the residuals moves by less than 0.1 % after these


@dataclass(frozen=True)
class OracleAccuracy:
    """Bayes-optimal registers.

    Attributes:
        accuracy: fraction of the judged particles whose most probable register is the true one.
        mean_max_posterior: mean largest posterior probability; equal to the accuracy but for
            chance when map, poses and noise are right.
        calibration: reliability table.
        registers: posterior of the judged particles; register j of pose A is ``A r_jᵀ``.
        noise_power: noise spectrum per optics group and shell, learned with the true map.
        resolution_angstrom: limit of the frequencies used.
    """

    accuracy: float
    mean_max_posterior: float
    calibration: Calibration
    registers: Float32[np.ndarray, "n registers"]
    noise_power: Float64[np.ndarray, "groups shells"]
    resolution_angstrom: float


def oracle_registers(
    truth: Particles,
    truth_map: Float[np.ndarray, "n n n"],
    *,
    pixel_size_angstrom: float,
    group: str,
    kept: str = "C1",
    poses: Particles | None = None,
    mode: Mode | None = None,
    max_resolution_angstrom: float | None = None,
    particle_diameter_angstrom: float | None = None,
    normalise: bool = False,
) -> OracleAccuracy:
    """Registers of all particles under the true map, by the E-step of the refinement.

    Args:
        truth: particles with true poses and origins; junk and symmetric ones are not judged.
        truth_map: the true map, on the grey scale of the images.
        pixel_size_angstrom: of the map.
        group: G.
        kept: H, the symmetry of the true map.
        poses: take poses and origins from these particles instead, for instance the consensus.
        mode: how poses are treated: held by default, integrated over with ``Local(...)``, whose
            widths then have to be those of the errors (see `consensus_error`).
        max_resolution_angstrom: use frequencies up to this only.
        particle_diameter_angstrom: outside of it the background shows; by default that of the
            map.
        normalise: bring the background of each image to mean 0 and deviation 1 first.

    Raises:
        InputError: bad groups, tables that do not match, images that are missing, or no particle
            that has a register.
    """
    judged = has_register(truth)
    if not judged.any():
        raise InputError(f"{truth.source}: all of its particles are junk or symmetric.")
    truth = truth.select(judged)
    particles = truth
    if poses is not None:
        rows = matching_rows(truth, poses)
        particles = truth.with_updates(
            rotations=poses.rotations[rows], origins_angstrom=poses.origins_angstrom[rows]
        )
    if any(groups(group, kept)[0].centre_angstrom):
        raise InputError(
            f"{group}: an oracle is about the centre of the box; give a map and poses that are "
            "centred on the axes, and rotations alone"
        )
    n = len(truth)
    radius = particle_radius_angstrom(truth_map, pixel_size_angstrom)
    problem = make_problem(
        particles,
        mode=Registers() if mode is None else mode,
        relax=Relax(group, to=kept, cross_fit=1, optimism=0.0, start="reference"),
        symmetry=kept,
        noise=RadialNoise(from_images=True),
        map_box=truth_map.shape[0],
        map_pixel_size_angstrom=pixel_size_angstrom,
        particle_diameter_angstrom=particle_diameter_angstrom or 2.0 * radius,
        register_mask=None,
        half_set=np.ones(n, np.int8),
        fold=np.zeros(n, int),
        normalise=normalise,
        seed=0,
        cache_bytes=0,
    )
    finest = problem.shells.resolution(problem.shells.last)
    limit = max(max_resolution_angstrom or finest, finest)
    state = init(problem, np.asarray(truth_map, np.float32), ini_high_angstrom=limit)
    # Nothing is reconstructed: the images enter the accumulators with weight zero.
    nothing = np.zeros((n, problem.particle.n_registers), np.float32)
    found = None
    for _ in range(1 + NOISE_PASSES):
        found = expectation(
            problem,
            state,
            problem.shells.rung(state.score_shell),
            n_folds=1,
            weights_override=nothing,
        )
        power = problem.plan.noise.update(state.noise_power, found.residual, found.count)
        state = state.replace(noise_power=power)
    assert found is not None
    whole, part = groups(group, kept)
    # The true map is the frame: nothing is aligned afterwards, and nothing selected. Poses come
    # back without their register, so that every one of them stands in register 0.
    where = true_registers(found.rotations, np.zeros(n, int), truth.rotations, whole, part, frame=0)
    assert where is not None
    correct = found.registers.argmax(axis=1) == where
    largest = found.registers.max(axis=1)
    return OracleAccuracy(
        accuracy=float(correct.mean()),
        mean_max_posterior=float(largest.mean()),
        calibration=calibration(largest, correct, brier_score(found.registers, where)),
        registers=found.registers,
        noise_power=state.noise_power,
        resolution_angstrom=problem.shells.resolution(state.score_shell),
    )
