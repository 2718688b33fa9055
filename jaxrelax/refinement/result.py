"""What a refinement returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from jaxrelax.io import Particles

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class AsymmetryEvidence:
    """Whether the asymmetric map predicts images that it was not made from.

    Each half-set's images are scored against the *other* half-set's map and against that map
    symmetrised; ``log_gain`` is the log of the likelihood ratio of the two, the register
    marginalised. If the particle is symmetric, the likelihood ratio of the whole half-set is an
    e-value: it exceeds 1/p with probability at most p (Ville; Grünwald et al., JRSS B 2024).

    Attributes:
        log_gain: per particle, in nats.
        log_e_value: natural logarithm of the mean e-value of the two half-sets.
        p_value: bound on the p-value, min(1, 1/e-value).
        found: p below 0.01.
        half_set_agreement: fraction of particles with the same best register under either map.
        expected_accuracy: mean largest posterior probability under each image's own half-set,
            before the last, joined scoring.
    """

    log_gain: Float64[np.ndarray, " n"]
    log_e_value: float
    p_value: float
    found: bool
    half_set_agreement: float
    expected_accuracy: float

    def p_text(self) -> str:
        """The bound on p; from the logarithm where p itself is too small for a float."""
        if self.log_e_value > 50.0:
            exponent = -math.floor(self.log_e_value / math.log(10.0))
            return "10" + str(exponent).translate(SUPERSCRIPT)
        return f"{self.p_value:.2g}"

    def sentence(self) -> str:
        """One sentence for people."""
        if not self.found:
            return (
                "No asymmetry was found: the asymmetric map predicts held-out images no better "
                f"than the symmetrised map (p ≤ {self.p_text()})."
            )
        return (
            f"Asymmetry was found (held-out likelihood ratio, p ≤ {self.p_text()}; "
            f"{self.log_gain.mean():.3g} nats per particle)."
        )


@dataclass(frozen=True)
class Result:
    """A finished refinement; both half-sets are in one register frame.

    Maps are (N, N, N) arrays [z, y, x] on the map's box.

    Attributes:
        particles: the input with final poses (register included), origins, half-sets and the
            columns ``jrxRegister``, ``jrxRegisterProbability``, ``jrxRegisterEntropy``.
        map: combined, regularised map.
        half_maps: unregularised half-maps, aligned over the group.
        map_symmetrised: ``map`` averaged over the group that was relaxed.
        difference: ``map − map_symmetrised``.
        mask: solvent mask used for the FSC.
        pixel_size_angstrom: of all maps.
        registers: posterior over registers of every particle.
        operators: register representatives r_j; register j of pose A is A r_jᵀ.
        fsc: curves by name over shells 0 … N/2: unmasked, masked, random, corrected, and with
            relaxation symmetric and asymmetric.
        resolution_angstrom: corrected FSC at 0.143.
        evidence: held-out test of the asymmetry; None without relaxation.
        noise_power: noise spectrum per optics group and shell, E|X|² of the unitary transform.
        history: one row of scalars per iteration (see ``StepInfo``).
        reason: why the loop stopped.
        settings: what was asked, JSON-able.
        seconds: wall time of the whole run.
        peak_memory_gib: peak resident memory of the process.
    """

    particles: Particles
    map: Float32[np.ndarray, "n n n"]
    half_maps: tuple[Float32[np.ndarray, "n n n"], Float32[np.ndarray, "n n n"]]
    map_symmetrised: Float32[np.ndarray, "n n n"]
    difference: Float32[np.ndarray, "n n n"]
    mask: Float32[np.ndarray, "n n n"]
    pixel_size_angstrom: float
    registers: Float[np.ndarray, "particles registers"]
    operators: Float64[np.ndarray, "registers 3 3"]
    fsc: dict[str, Float64[np.ndarray, " shells"]]
    resolution_angstrom: float
    evidence: AsymmetryEvidence | None
    noise_power: Float64[np.ndarray, "groups shells"]
    history: list[dict[str, float]]
    reason: str
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_gib: float = 0.0

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
