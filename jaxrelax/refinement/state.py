"""What changes during a refinement, and what each step reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.inference import FixedPoses, PoseSearch
from jaxrelax.reconstruction import ShellSums
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.schedule import Stage, global_due, inner_due, poses_settled
from jaxrelax.refinement.score_maps import MapPrior


@dataclass(frozen=True)
class State:
    """Everything that a step changes: enough, with the inputs, to go on from here.

    Arrays are host-resident. ``n`` particles; ``m`` maps on a working box ``b``: one before the
    first iteration, then one per half-set (with all its folds), and in the last pass one per
    half-set and fold.
    """

    iteration: int
    score_shell: int  # last shell that scores images
    rotations: Float64[np.ndarray, "n 3 3"]
    origins_angstrom: Float64[np.ndarray, "n 2"]
    # Where the prior of a local search is centred: the poses of the input, or the last ones of a
    # search that knew of none.
    prior_rotations: Float64[np.ndarray, "n 3 3"]
    prior_origins_angstrom: Float64[np.ndarray, "n 2"]
    registers: Float32[np.ndarray, "n registers"]  # posterior
    log_gain: Float32[np.ndarray, " n"]  # see StepInfo.held_out_gain
    noise_power: Float64[np.ndarray, "groups all_shells"]
    sigma_rotation_deg: float
    sigma_shift_angstrom: float
    # Standard deviation of origins from those of the input: the prior of a global search.
    sigma_offset_angstrom: float
    symmetric: Float32[np.ndarray, "m b b b"]
    asymmetric: Float32[np.ndarray, "m b b b"]
    fsc: Float64[np.ndarray, " shells"]
    fsc_symmetric: Float64[np.ndarray, " shells"]
    fsc_asymmetric: Float64[np.ndarray, " shells"]
    optimism: float
    stage: Stage  # see jaxrelax.refinement.schedule
    growing: bool  # the half-maps agree to the end of the band: look beyond it
    alignment: int  # index in G: g × (half-map 2) is in the frame of half-map 1
    # Sums of each half-set and fold; none before the first iteration and in the last pass, when
    # the maps above score.
    fold_sums: Float32[np.ndarray, "halves folds kept columns"] = field(
        default_factory=lambda: np.zeros((0, 0, 0, 3), np.float32)
    )
    # How sums become maps (MapPrior).
    weight: Float64[np.ndarray, "judged_halves prior_shells"] = field(
        default_factory=lambda: np.zeros((0, 1))
    )
    gain: Float64[np.ndarray, "components prior_shells"] = field(
        default_factory=lambda: np.zeros((1, 1))
    )
    density: Float32[np.ndarray, "d d d"] = field(
        default_factory=lambda: np.zeros((0, 0, 0), np.float32)
    )
    # Poses of every image that its last search found possible, from the best to the worst.
    mode_rotations: Float32[np.ndarray, "known modes 3 3"] = field(
        default_factory=lambda: np.zeros((0, 0, 3, 3), np.float32)
    )
    mode_origins_angstrom: Float32[np.ndarray, "known modes 2"] = field(
        default_factory=lambda: np.zeros((0, 0, 2), np.float32)
    )
    amplitude: float = 1.0  # calibrated factor of its gain
    # Mean squared distance between the views of a register and of the symmetrised map, in nats,
    # that the scoring maps are held to; below 0 they keep the factor above.
    held_nats: float = -1.0
    # Log odds that there is asymmetry at all, from the same images; certain until calibrated.
    log_odds: float = 1e3
    nats_per_power: float = 0.0  # see Expectation
    symmetric_fraction: float = 0.0  # of the particles
    junk_fraction: float = 0.0  # of the images
    symmetric_probability: Float32[np.ndarray, " n"] = field(
        default_factory=lambda: np.zeros(0, np.float32)
    )
    junk_probability: Float32[np.ndarray, " n"] = field(
        default_factory=lambda: np.zeros(0, np.float32)
    )
    # Register weights from before they were amplified or calibrated: what the held-out test judges
    # if they came to nothing.
    sought: Float32[np.ndarray, "rows registers"] = field(
        default_factory=lambda: np.zeros((0, 1), np.float32)
    )
    history: tuple[dict[str, float], ...] = field(default=())
    # The same of a symmetric stage before a relaxation.
    history_before: tuple[dict[str, float], ...] = field(default=())

    @property
    def iterations_done(self) -> int:
        """Iterations so far, those of a symmetric stage before a relaxation included."""
        return len(self.history_before) + self.iteration

    def __post_init__(self):
        # Scalars of NumPy raise the precision of arrays that they meet; those of Python, which a
        # checkpoint gives back, do not. A resumed run would differ in rounding.
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, one.name, value.item())

    def search(self, problem: Problem) -> PoseSearch:
        """How the next pass over the images searches poses."""
        if problem.relax is not None and inner_due(self.history, problem.relax.inner_iterations):
            return FixedPoses()
        everywhere = not self.poses_settled(problem) and global_due(self.history)
        return problem.search(self.score_shell, everywhere, self.sigma_offset_angstrom)

    def poses_settled(self, problem: Problem) -> bool:
        """Whether there is nothing more to look for, or poses were known from the beginning."""
        if problem.mode.needs_poses:
            return True
        # While asymmetry is sought the map still changes, and with it what images show best.
        return self.stage == "settle" and poses_settled(self.history)

    def sums(self) -> list[list[ShellSums]]:
        """Sums by half-set and fold, empty where maps are given instead."""
        last = self.gain.shape[1] - 1
        return [[ShellSums(values, last) for values in folds] for folds in self.fold_sums]

    def prior(self) -> MapPrior:
        """How the sums become maps."""
        return MapPrior(self.weight, self.fsc_symmetric, self.gain, self.density)

    def replace(self, **changes) -> State:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class StepInfo:
    """What one iteration reports; the scalars become a row of ``history.csv``.

    Attributes:
        iteration: counted from 1.
        resolution_angstrom: where the FSC of the aligned half-maps falls below 0.143.
        mean_fsc: of the same half-maps, over all shells up to the last that is ever used; zero
            where nothing was accumulated. It moves where the resolution, as one shell, does not.
        score_resolution_angstrom: limit of the frequencies that scored images.
        mean_max_posterior: mean over particles of the largest register probability.
        register_change: fraction of particles whose best register changed.
        rotation_change_deg, shift_change_angstrom: median change of the pose (without registers).
        pose_jumps: fraction of images whose pose moved so far, modulo the group, that they found
            another one (``JUMP_DEG``).
        asymmetric_fsc: FSC of the asymmetric parts, averaged over the scored shells with the
            square root of their number of independent coefficients as weight.
        asymmetric_signal: the same in units of its standard error under pure noise.
        asymmetric_power: rms of the asymmetric part over that of the symmetric one.
        register_nats: mean squared distance, in noise standard deviations, between the view of a
            register and that of the symmetrised map, under the maps that scored.
        held_out_gain: mean over particles of log p(y | asymmetric map) − log p(y | symmetrised
            map), in nats, each image scored against a map that does not contain it.
        optimism: standard errors added to the asymmetric FSC in this iteration.
        amplitude: factor of the asymmetric part's gain, calibrated by the other half-set's images.
        symmetric_fraction: of the particles, those that fit the symmetrised map better.
        junk_fraction: of the images, those that show no particle.
        sigma_rotation_deg, sigma_shift_angstrom: width of the pose prior after it; of a global
            search that of origins around those of the input.
        seconds: wall time.
    """

    iteration: int
    resolution_angstrom: float
    mean_fsc: float
    score_resolution_angstrom: float
    mean_max_posterior: float
    register_change: float
    rotation_change_deg: float
    shift_change_angstrom: float
    pose_jumps: float
    asymmetric_fsc: float
    asymmetric_signal: float
    asymmetric_power: float
    register_nats: float
    held_out_gain: float
    optimism: float
    amplitude: float
    symmetric_fraction: float
    junk_fraction: float
    sigma_rotation_deg: float
    sigma_shift_angstrom: float
    seconds: float

    def row(self) -> dict[str, float]:
        """The scalars by name."""
        return {k: float(v) for k, v in dataclasses.asdict(self).items()}
