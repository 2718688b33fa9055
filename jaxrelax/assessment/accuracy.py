"""Registers and poses of a run against the truth of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from jaxrelax.assessment.calibration import Calibration, brier_score, calibration
from jaxrelax.geometry import (
    PointGroup,
    nearest_operator,
    parse_group,
    point_group,
    pose_error_mod_group,
    register_agreement,
    right_cosets,
    subgroup,
)
from jaxrelax.io import InputError, Particles
from jaxrelax.refinement.result import Result

IMAGE_NAME = "rlnImageName"
WITHOUT_REGISTER = ("jrxJunk", "jrxSymmetric")


@dataclass(frozen=True)
class RegisterAccuracy:
    """How many particles ended in the right register, up to one operator for all.

    Attributes:
        accuracy: fraction of the judged particles in the right register.
        half_accuracy: the same for half-sets 1 and 2, each in its own best frame; NaN for one
            without particles.
        same_frame: whether both half-sets have the same best frame.
        chance: 1/|registers|.
        operator_index: index in G of g; ``g`` times the refined map is in the frame of the truth.
        operator: g as a matrix.
        mean_max_posterior: mean largest posterior probability, None where none is known; equal to
            the accuracy when the posterior is honest.
        calibration: reliability table; None where no posterior is known.
        pose_error_deg: median geodesic angle to the true pose, modulo G.
        shift_error_angstrom: median distance of the origins.
        n_judged, n_left_out: particles counted, and particles that have no register (junk, and
            fully symmetric ones).
    """

    accuracy: float
    half_accuracy: tuple[float, float]
    same_frame: bool
    chance: float
    operator_index: int
    operator: Float64[np.ndarray, "3 3"]
    mean_max_posterior: float | None
    calibration: Calibration | None
    pose_error_deg: float
    shift_error_angstrom: float
    n_judged: int
    n_left_out: int

    def summary(self) -> str:
        """A few lines for people."""
        lines = [
            f"register accuracy     {self.accuracy:.3f}  (chance {self.chance:.3f}, "
            f"{self.n_judged} particles)",
            f"  half-sets           {self.half_accuracy[0]:.3f}, {self.half_accuracy[1]:.3f}  "
            f"({'same frame' if self.same_frame else 'in DIFFERENT frames'})",
        ]
        if self.mean_max_posterior is not None:
            lines.append(f"mean max posterior    {self.mean_max_posterior:.3f}")
        if self.calibration is not None:
            lines.append(f"calibration error     {self.calibration.expected_error:.3f}")
        lines.append(f"median pose error     {self.pose_error_deg:.2f}°")
        lines.append(f"median origin error   {self.shift_error_angstrom:.2f} Å")
        return "\n".join(lines)


def register_accuracy(
    estimate: Result | Particles,
    truth: Particles,
    group: PointGroup | str,
    kept: PointGroup | str = "C1",
) -> RegisterAccuracy:
    """Judge a refinement, or any table with poses, against true poses.

    Args:
        estimate: a result, or particles with final poses (register included) and perhaps the
            column ``jrxRegisterProbability``.
        truth: the same particles, in any order and maybe more, with true poses. Those that it
            marks in ``jrxJunk`` or ``jrxSymmetric`` have no register and are left out.
        group: G, as an object, a name or a file of operators.
        kept: H, the symmetry that the true volume has; a name is looked up among G's subgroups.

    Raises:
        InputError: the two tables do not name the same images, or no particle is left to judge.
        ValueError: H is not a subgroup of G.
    """
    group, kept = groups(group, kept)
    particles = estimate.particles if isinstance(estimate, Result) else estimate
    rows = matching_rows(particles, truth)
    judged = has_register(truth)[rows]
    if not judged.any():
        raise InputError(f"{truth.source}: all of its particles are junk or symmetric.")
    rows, poses = rows[judged], particles.rotations[judged]
    true = truth.rotations[rows]
    agreement = register_agreement(poses, true, group, kept)

    halves = [_half(particles.half_set[judged] == h, poses, true, group, kept) for h in (1, 2)]
    frames = {index for index, _ in halves if index is not None}
    largest = _largest_posterior(estimate, particles)
    reliability = None
    if largest is not None:
        largest = largest[judged]
        brier = None
        if isinstance(estimate, Result):
            where = true_registers(
                poses, estimate.best_register[judged], true, group, kept, agreement.index
            )
            if where is not None:
                brier = brier_score(estimate.registers[judged], where)
        reliability = calibration(largest, agreement.correct, brier)
    moved = particles.origins_angstrom[judged] - truth.origins_angstrom[rows]
    return RegisterAccuracy(
        accuracy=agreement.fraction,
        half_accuracy=(halves[0][1], halves[1][1]),
        same_frame=len(frames) <= 1,
        chance=kept.order / group.order,
        operator_index=agreement.index,
        operator=group.operators[agreement.index],
        mean_max_posterior=None if largest is None else float(largest.mean()),
        calibration=reliability,
        pose_error_deg=float(np.rad2deg(np.median(pose_error_mod_group(poses, true, group)))),
        shift_error_angstrom=float(np.median(np.linalg.norm(moved, axis=1))),
        n_judged=int(judged.sum()),
        n_left_out=int((~judged).sum()),
    )


def true_registers(
    poses: Float[np.ndarray, "n 3 3"],
    registers: Int[np.ndarray, " n"],
    true: Float[np.ndarray, "n 3 3"],
    group: PointGroup,
    kept: PointGroup,
    frame: int = 0,
) -> Int[np.ndarray, " n"] | None:
    """The register in which every particle would have been right.

    Args:
        poses: poses with register ``registers`` applied.
        registers: index of that register, of `right_cosets`.
        true: true poses.
        group: G.
        kept: H.
        frame: index in G of the operator that takes the estimated volume to the true one.

    Returns:
        Indices of registers; None if in this frame some particle is right in no register or in
        several, which happens only when the operator does not keep H in place.
    """
    cosets = right_cosets(group, kept)
    table = group.multiplication_table
    elements, _ = nearest_operator(true.mT @ poses, group.operators)
    representative = np.array([group.index_of(r) for r in cosets.representatives])
    # With A the pose without register: A r_jᵀ = (A r_iᵀ) r_i r_j⁻¹.
    common = table[elements, representative[registers]]
    moved = table[common[:, None], group.inverse[representative][None, :]]
    right = cosets.coset_table[moved] == cosets.coset_table[frame]
    return right.argmax(axis=1) if np.all(right.sum(axis=1) == 1) else None


def matching_rows(particles: Particles, truth: Particles) -> Int[np.ndarray, " n"]:
    """For every particle the row of ``truth`` with the same image.

    By ``rlnImageName`` where both tables have it; otherwise they must have the same rows.

    Raises:
        InputError: an image is not in ``truth`` or is there twice, or the lengths differ.
    """
    names, true_names = particles.column(IMAGE_NAME), truth.column(IMAGE_NAME)
    if names is None or true_names is None:
        if len(particles) != len(truth):
            raise InputError(
                f"{particles.source} has {len(particles)} particles, {truth.source} has "
                f"{len(truth)}, and not both have {IMAGE_NAME} to match them by."
            )
        return np.arange(len(particles))
    place = {name: row for row, name in enumerate(true_names)}
    if len(place) != len(true_names):
        raise InputError(f"{truth.source}: some images occur in several rows ({IMAGE_NAME}).")
    missing = [name for name in names if name not in place]
    if missing:
        raise InputError(
            f"{truth.source}: {len(missing)} of the {len(names)} images of {particles.source} are "
            f"not in it, such as {missing[0]}. Give the truth of the same images."
        )
    return np.array([place[name] for name in names])


def has_register(truth: Particles) -> Bool[np.ndarray, " n"]:
    """Particles that are neither junk nor symmetric, as far as the table says."""
    judged = np.ones(len(truth), bool)
    for label in WITHOUT_REGISTER:
        column = truth.column(label)
        if column is not None:
            judged &= np.array([float(value) for value in column]) == 0
    return judged


def consensus_error(
    estimate: Particles, truth: Particles, group: PointGroup | str
) -> tuple[float, float]:
    """Root-mean-square error per axis of poses modulo G (degrees) and of origins (Å).

    What the prior of a local refinement should be wide.

    Raises:
        InputError: as `matching_rows`.
    """
    group, _ = groups(group, "C1")
    rows = matching_rows(estimate, truth)
    angle = pose_error_mod_group(estimate.rotations, truth.rotations[rows], group)
    moved = estimate.origins_angstrom - truth.origins_angstrom[rows]
    return (
        float(np.rad2deg(np.sqrt(np.mean(angle**2) / 3.0))),
        float(np.sqrt(np.mean(moved**2))),
    )


def groups(group: PointGroup | str, kept: PointGroup | str) -> tuple[PointGroup, PointGroup]:
    """(G, H) from objects or names.

    Raises:
        ValueError: a name is unknown, or H is not a subgroup of G.
    """
    group = parse_group(group, placed=True) if isinstance(group, str) else group
    if isinstance(kept, str):
        kept = point_group("C1") if kept.upper() == "C1" else subgroup(group, kept)
    return group, kept


def _half(
    chosen: Bool[np.ndarray, " n"], poses, true, group: PointGroup, kept: PointGroup
) -> tuple[int | None, float]:
    if not chosen.any():
        return None, float("nan")
    found = register_agreement(poses[chosen], true[chosen], group, kept)
    return found.index, found.fraction


def _largest_posterior(
    estimate: Result | Particles, particles: Particles
) -> Float64[np.ndarray, " n"] | None:
    if isinstance(estimate, Result):
        return np.asarray(estimate.registers.max(axis=1), np.float64)
    label = "jrxRegisterProbability"
    values = particles.extra_columns.get(label)
    values = particles.column(label) if values is None else values
    return None if values is None else np.array([float(value) for value in values])
