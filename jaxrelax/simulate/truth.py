"""Draw what every particle really is, and what a symmetric refinement would say of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrelax.geometry import PointGroup, random_rotations, rotvec_to_matrix
from jaxrelax.simulate.config import Simulation
from jaxrelax.simulate.occupancy import Occupancy
from jaxrelax.simulate.swing import draw_swings

VOLTAGE_STEP = 0.9
DEFOCUS_STEP_UM = 0.3
COLOUR_STEP = 0.5


@dataclass(frozen=True)
class Truth:
    """The latent variables of all particles; units and signs as in RELION STAR files.

    ``registers`` are indices g of operators such that the true pose is the mate ``A gᵀ`` of the
    consensus pose ``A``, but for the pose error. ``swings`` are the rotations of the part that
    swings, about its hinge and in the frame of the specimen; fully symmetric particles are rigid,
    and None is all of them.
    """

    poses: Float[np.ndarray, "n 3 3"]
    consensus_poses: Float[np.ndarray, "n 3 3"]
    registers: Int[np.ndarray, " n"]
    origins_angstrom: Float[np.ndarray, "n 2"]
    consensus_origins_angstrom: Float[np.ndarray, "n 2"]
    defocus_u_angstrom: Float[np.ndarray, " n"]
    defocus_v_angstrom: Float[np.ndarray, " n"]
    defocus_angle_deg: Float[np.ndarray, " n"]
    optics_group: Int[np.ndarray, " n"]
    half_set: Int[np.ndarray, " n"]
    junk: Bool[np.ndarray, " n"]
    symmetric: Bool[np.ndarray, " n"]
    occupied: Bool[np.ndarray, "n sites"]
    swings: Float[np.ndarray, "n 3 3"] | None = None

    @property
    def carried(self) -> Bool[np.ndarray, "n sites"]:
        """Sites that the images show occupied: all on symmetric particles, none on junk."""
        return (self.occupied | self.symmetric[:, None]) & ~self.junk[:, None]


def draw_truth(
    config: Simulation, group: PointGroup, occupancy: Occupancy, rng: np.random.Generator
) -> Truth:
    """All random choices but the noise."""
    n = config.n_images
    poses = random_rotations(n, rng)
    registers = rng.integers(0, group.order, n)
    # Per axis, so that the length has the root mean square asked for.
    errors = rng.standard_normal((n, 3)) * (np.deg2rad(config.pose_error_deg) / np.sqrt(3.0))
    # A_true ≈ A gᵀ, hence A = E A_true g.
    consensus = rotvec_to_matrix(errors) @ poses @ group.operators[registers]
    radius = config.max_shift_angstrom * np.sqrt(rng.random(n))
    angle = 2.0 * np.pi * rng.random(n)
    origins = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    moved = rng.standard_normal((n, 2)) * (config.shift_error_angstrom / np.sqrt(2.0))

    optics_group = rng.permutation(np.arange(n) % config.n_optics_groups)
    mean = rng.uniform(config.defocus_min_um, config.defocus_max_um, n)
    mean = mean + DEFOCUS_STEP_UM * optics_group
    half_difference = 0.5 * config.astigmatism_um * rng.random(n)
    kind = rng.permutation(n)
    n_junk = round(config.junk_fraction * n)
    n_symmetric = round(config.symmetric_fraction * n)
    truth = Truth(
        poses=poses,
        consensus_poses=consensus,
        registers=registers,
        origins_angstrom=origins,
        consensus_origins_angstrom=origins + moved,
        defocus_u_angstrom=1e4 * (mean + half_difference),
        defocus_v_angstrom=1e4 * (mean - half_difference),
        defocus_angle_deg=180.0 * rng.random(n),
        optics_group=optics_group,
        half_set=1 + rng.permutation(np.arange(n) % 2),
        junk=kind < n_junk,
        symmetric=(kind >= n_junk) & (kind < n_junk + n_symmetric),
        occupied=occupancy.draw(n, rng),
    )
    if config.swing_deg == 0.0:
        return truth
    swings = draw_swings(n, config.swing_deg, rng)  # the last: all else is the rigid particle's
    swings[truth.symmetric | truth.junk] = np.eye(3)
    return replace(truth, swings=swings)


def group_voltage_kv(config: Simulation, optics_group: int) -> float:
    """Voltage of a 0-based optics group."""
    return round(config.voltage_kv * VOLTAGE_STEP**optics_group, 1)


def group_colour(config: Simulation, optics_group: int) -> float:
    """Noise colour of a 0-based optics group."""
    return config.noise_colour * (1.0 + COLOUR_STEP * optics_group)
