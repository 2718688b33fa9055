"""What a refinement returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Float64, Int

from jaxrelax.geometry import OccupancyPatterns
from jaxrelax.io import Particles
from jaxrelax.judgement.predicted import Discriminability
from jaxrelax.judgement.verdict import AsymmetryEvidence
from jaxrelax.reconstruction import DifferenceInSigma
from jaxrelax.refinement.exclusive import CopiesOfParents
from jaxrelax.refinement.held_out_states import StatesApart, StateSupport


@dataclass(frozen=True)
class StateMap:
    """What was found of a state; half-maps are in one register frame.

    Attributes:
        name: its symmetry in words.
        group, kept: the symmetry that its registers are of, and what is imposed.
        fraction: of the images that show the particle, by their posterior.
        count: images that show this state most probably, and the particle more probably than junk.
        registers: of it.
        map: combined, regularised map.
        half_maps: unregularised half-maps.
        mask: solvent mask used for the FSC.
        fsc: curves by name, as of a result; ``own``: of what it has of its own beside the mean of
            all states.
        resolution_angstrom: corrected FSC at 0.143.
        own_resolution_angstrom: of what the state has beside the mean of all; 0: half-sets agree on
            nothing of it.
        asymmetric_resolution_angstrom: of what breaks its symmetry, where it is relaxed; else 0.
        in_sigma: the half-maps' average less the mean of all states, each averaged over its group,
            over its local standard error.
        local_resolution: see :func:`jaxrelax.reconstruction.local_resolution`, of its half-maps.
    """

    name: str
    group: str
    kept: str
    fraction: float
    count: int
    registers: int
    map: Float32[np.ndarray, "n n n"]
    half_maps: tuple[Float32[np.ndarray, "n n n"], Float32[np.ndarray, "n n n"]]
    mask: Float32[np.ndarray, "n n n"]
    fsc: dict[str, Float64[np.ndarray, " shells"]]
    resolution_angstrom: float
    own_resolution_angstrom: float = 0.0
    asymmetric_resolution_angstrom: float = 0.0
    in_sigma: DifferenceInSigma | None = None
    local_resolution: Float32[np.ndarray, "n n n"] | None = None


@dataclass(frozen=True)
class MapsOfIterations:
    """Regularised half-map 1 after some iterations, to look at: coarse, in half precision.

    Attributes:
        iterations: counted from 1.
        symmetric: its symmetric part, in a unit that is the same for all.
        asymmetric: what breaks the symmetry, in the same unit; None without relaxation.
        edge_angstrom: edge of their box.
        resumed_after: so many iterations were done, and not kept, before the run was resumed.
    """

    iterations: tuple[int, ...]
    symmetric: Float16[np.ndarray, "iterations b b b"]
    asymmetric: Float16[np.ndarray, "iterations b b b"] | None
    edge_angstrom: float
    resumed_after: int = 0


@dataclass(frozen=True)
class PartMotion:
    """Where a part was refined, and how it moved; coordinates in Å from the centre of the box.

    Attributes:
        centre_angstrom: the point that it turns about.
        axis: direction of its z axis in the map.
        turn_deg: root mean square angle between part and rest, registers undone.
        turn_by_axis_deg: the same about x, y and z of the map.
        shift_angstrom: root mean square shift of the centre in the plane of the images, per axis.
    """

    centre_angstrom: tuple[float, float, float]
    axis: tuple[float, float, float]
    turn_deg: float
    turn_by_axis_deg: tuple[float, float, float]
    shift_angstrom: float

    def sentence(self) -> str:
        """In words."""
        x, y, z = self.centre_angstrom
        return (
            f"The part was refined about {x:.1f} {y:.1f} {z:.1f} Å; against the rest it is turned "
            f"by {self.turn_deg:.1f}° and shifted by {self.shift_angstrom:.1f} Å (root mean square)"
        )


@dataclass(frozen=True)
class Result:
    """A finished refinement; both half-sets are in one register frame.

    Maps are (N, N, N) arrays [z, y, x] on the box of the images, zero beyond the box in which the
    particle was refined.

    Attributes:
        particles: the input with final poses (register included), origins, half-sets and the
            columns ``jrxRegister``, ``jrxRegisterProbability``, ``jrxRegisterEntropy``,
            ``jrxJunkProbability``, ``jrxSymmetricProbability``, ``jrxDiscriminability`` and
            ``jrxExpectedAccuracy``.
        map: combined, regularised map.
        half_maps: unregularised half-maps, aligned over the group.
        map_symmetrised: ``map`` averaged over the group that was relaxed.
        difference: ``map − map_symmetrised``.
        mask: solvent mask used for the FSC.
        pixel_size_angstrom: of all maps.
        shell_edge_angstrom: edge of the box in which the particle was refined; shell s of every
            curve and spectrum is at ``shell_edge_angstrom / s`` Å.
        registers: posterior over registers of every particle.
        operators: register representatives r_j; register j of pose A is A r_jᵀ.
        fsc: curves by name over shells up to Nyquist: unmasked, masked, random, corrected, and
            with relaxation symmetric and asymmetric.
        resolution_angstrom: of the whole map: corrected FSC at 0.143; its symmetric part decides.
        asymmetric_resolution_angstrom: of what breaks the symmetry, FSC at 0.143; 0 where half-sets
            agree on nothing of it, or nothing was relaxed.
        evidence: held-out test of the symmetry; None without relaxation.
        discriminability: how well the registers of each particle can be told apart with this map,
            predicted from it and the particle's CTF, noise and pose; None without relaxation.
        noise_power: noise spectrum per optics group and shell, E|X|² of the unitary transform.
        history: one row of scalars per iteration (see ``StepInfo``).
        reason: why the loop stopped.
        settings: what was asked, JSON-able.
        seconds: wall time of the whole run.
        peak_memory_gib: peak resident memory of the process.
        compiled_programs: programs compiled, or loaded from JAX's persistent cache.
        compile_seconds: how long that took.
        notes: what the log warned of during the run.
        states: where images may show one of several maps, these; ``map`` and the other maps are
            then of their mean, ``registers`` has the registers of all states one after another.
        states_apart: which states held-out images tell apart; None without states, and where they
            are occupancy patterns.
        patterns: where states are occupancy patterns, these, in their order.
        either_half: images that show the particle by the state that maps of their own half-set
            (without their fold) find most probable, in rows, and by what those of the other one
            find, in columns; None without states.
        copies: with states, how often several copies of one parent (``jrxParent``) are in one
            class; None where the table knows of no copies.
        repeats: adjusted Rand index between the states of this run, the first, and of runs with
            other seeds; None where it was not repeated.
        in_sigma: what symmetrisation removes of the half-maps' average, over its local standard
            error; None without relaxation, and with states, which have their own.
        local_resolution: in Å where the mask is above 0.5, else 0, see
            :func:`jaxrelax.reconstruction.local_resolution`; None with states, which have theirs.
        operator_shifts_angstrom: t_j where registers are about axes that do not go through the
            centre of the box: mate j of the map is at r_j x + t_j; None: they do.
        part: where a part was refined, and how it moves against the rest; None: all was refined.
        map_composite: of a part, its map with the rest as it was; else None.
        maps_of_iterations: half-map 1 on its way, if something kept it
            (:class:`jaxrelax.assessment.Strip`).
    """

    particles: Particles
    map: Float32[np.ndarray, "n n n"]
    half_maps: tuple[Float32[np.ndarray, "n n n"], Float32[np.ndarray, "n n n"]]
    map_symmetrised: Float32[np.ndarray, "n n n"]
    difference: Float32[np.ndarray, "n n n"]
    mask: Float32[np.ndarray, "n n n"]
    pixel_size_angstrom: float
    shell_edge_angstrom: float
    registers: Float[np.ndarray, "particles registers"]
    operators: Float64[np.ndarray, "registers 3 3"]
    fsc: dict[str, Float64[np.ndarray, " shells"]]
    resolution_angstrom: float
    evidence: AsymmetryEvidence | None
    noise_power: Float64[np.ndarray, "groups shells"]
    history: list[dict[str, float]]
    reason: str
    asymmetric_resolution_angstrom: float = 0.0
    discriminability: Discriminability | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_gib: float = 0.0
    compiled_programs: int = 0
    compile_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    states: tuple[StateMap, ...] = ()
    states_apart: StatesApart | None = None
    patterns: OccupancyPatterns | None = None
    either_half: Int[np.ndarray, "states states"] | None = None
    copies: CopiesOfParents | None = None
    repeats: Float[np.ndarray, "runs runs"] | None = None
    in_sigma: DifferenceInSigma | None = None
    local_resolution: Float32[np.ndarray, "n n n"] | None = None
    operator_shifts_angstrom: Float64[np.ndarray, "registers 3"] | None = None
    part: PartMotion | None = None
    map_composite: Float32[np.ndarray, "n n n"] | None = None
    maps_of_iterations: MapsOfIterations | None = None

    @property
    def support(self) -> StateSupport | None:
        """Whether held-out images tell the two most similar states apart; None as above."""
        return None if self.states_apart is None else self.states_apart.tests[0]

    @property
    def state_posterior(self) -> Float[np.ndarray, "particles states"]:
        """Probability of every state, given that the image shows the particle."""
        last = np.cumsum([one.registers for one in self.states])[:-1]
        return np.stack([b.sum(axis=1) for b in np.split(self.registers, last, axis=1)], axis=1)

    @property
    def poses(self) -> Float64[np.ndarray, "particles 3 3"]:
        """Final poses A, register included."""
        return self.particles.rotations

    @property
    def best_register(self) -> Int[np.ndarray, " particles"]:
        """Most probable register of every particle."""
        return self.registers.argmax(axis=1)

    @property
    def asymmetry_found(self) -> Bool[np.ndarray, ""] | bool:
        """Whether the held-out test found asymmetry."""
        return self.evidence is not None and self.evidence.found
