"""Put a model's symmetry axes where RELION has them: through the origin, in its setting."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float

from jaxrelax.geometry import (
    PointGroup,
    matrix_to_rotvec,
    project_to_so3,
    rotation_angle,
    rotvec_to_matrix,
)
from jaxrelax.io.errors import InputError
from jaxrelax.simulate.superposition import Trace, kinds_of_chains, self_motions, superpose

logger = logging.getLogger("jaxrelax")

ANGLE_TOLERANCE = np.deg2rad(22.0)
# Chains whose middle comes to lie farther from any mate's are not part of what obeys the group.
SYMMETRIC_WITHIN_ANGSTROM = 12.0
PROVISIONALLY_WITHIN_ANGSTROM = 25.0  # while the frame is still that of single chains
WARN_RMS_ANGSTROM = 1.0


@dataclass(frozen=True)
class Frame:
    """``r → rotation (r − centre)`` brings a model into RELION's setting of the group.

    ``rms_angstrom`` says how well the chains in ``symmetric_chains`` then obey the group: the
    root-mean-square distance between trace atoms and those of the mate they are moved onto.
    """

    rotation: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, "3"]
    rms_angstrom: float
    symmetric_chains: tuple[str, ...]

    def apply(self, positions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Positions in the frame of the group, in Å."""
        return (positions - self.centre) @ self.rotation.T


def find_frame(chains: Sequence[Trace], group: PointGroup) -> Frame:
    """Find the axes of ``group`` in an assembly, from superpositions of its chains.

    Every chain of a kind superposed on the first one gives a motion. Pairs of motions whose
    rotations have the angles of two of the group's operators, and the same angle between their
    axes, propose an orientation; the best one that all operators confirm is taken, and of
    equally good ones that which turns the model least.

    Raises:
        InputError: the motions do not contain the group.
    """
    everything = np.concatenate([chain.points() for chain in chains])
    middle = everything.mean(axis=0)
    if group.order == 1:
        return Frame(np.eye(3), middle, 0.0, tuple(chain.name for chain in chains))
    kinds = kinds_of_chains(chains)
    motions = self_motions(kinds)
    rotations = np.array([motion[0] for motion in motions]).reshape(-1, 3, 3)
    rotation = _orientation(rotations, group)
    if rotation is None:
        counts = ", ".join(f"{len(kind)} × {kind[0].name}" for kind in kinds)
        raise InputError(
            f"the chains of the model do not repeat with symmetry {group.name} (kinds of chains: "
            f"{counts}). Choose another group, or another biological assembly ('' for the "
            "coordinates as they are)."
        )
    frame = Frame(rotation, _first_centre(kinds, group), 0.0, ())
    # From single chains to all of them at once: the superposition of the whole assembly on itself.
    for _ in range(4):
        pairs = _whole_motions(kinds, frame, group)
        if pairs is None:
            raise InputError(
                f"no chains of the model are repeated by all operators of {group.name}."
            )
        rotations = np.array([superpose(ends, starts)[0] for starts, ends in pairs])
        rotation = _refined(frame.rotation, rotations, group)
        frame = Frame(rotation, _centre(pairs, rotation, group, middle), 0.0, ())
    rms, names = _agreement(kinds, frame, group)
    if not names:
        raise InputError(f"no chains are repeated by all operators of {group.name}.")
    if rms > WARN_RMS_ANGSTROM:
        logger.warning(
            "The model obeys %s only to %.1f Å rms: its body is pseudo-symmetric.", group.name, rms
        )
    return Frame(frame.rotation, frame.centre, rms, names)


def _first_centre(kinds: Sequence[Sequence[Trace]], group: PointGroup) -> Float[np.ndarray, "3"]:
    """Middle of the chains that come in multiples of the order (of all, if none do)."""
    multiples = [kind for kind in kinds if len(kind) % group.order == 0] or kinds
    return np.mean([chain.points().mean(axis=0) for kind in multiples for chain in kind], axis=0)


def _orientation(
    rotations: Float[np.ndarray, "n 3 3"], group: PointGroup
) -> Float[np.ndarray, "3 3"] | None:
    """Q with ``Q R Qᵀ`` = the operators, for some of the model's own rotations R."""
    if len(rotations) == 0:
        return None
    vectors, axes = _angles_and_axes(rotations)
    wanted_angles, wanted_axes = _angles_and_axes(group.operators[1:])
    first = int(np.argmin(wanted_angles))
    slant = np.abs(wanted_axes @ wanted_axes[first])
    others = np.flatnonzero(slant < 0.999)
    proposals = []
    if len(others) == 0:  # cyclic: any orientation about the axis will do
        for i in np.flatnonzero(np.abs(vectors - wanted_angles[first]) < ANGLE_TOLERANCE):
            signs = (1.0, -1.0) if wanted_angles[first] > np.pi - ANGLE_TOLERANCE else (1.0,)
            proposals += [_shortest_turn(s * axes[i], wanted_axes[first]) for s in signs]
    else:
        second = int(others[np.argmin(wanted_angles[others])])
        target = wanted_axes[[first, second]]
        for i, j in permutations(range(len(rotations)), 2):
            errors = np.abs([vectors[i], vectors[j]] - wanted_angles[[first, second]])
            if np.max(errors) > ANGLE_TOLERANCE:
                continue
            for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):  # of 2-fold axes both are right
                pair = axes[[i, j]] * np.array(signs)[:, None]
                angle = np.arccos(np.clip(pair[0] @ pair[1], -1, 1))
                if abs(angle - np.arccos(np.clip(target[0] @ target[1], -1, 1))) < ANGLE_TOLERANCE:
                    proposals.append(_kabsch(target, pair))
    scored = []
    for q in proposals:
        errors, _ = _match(q, rotations, group)
        if errors.max() < ANGLE_TOLERANCE:
            scored.append((float(errors.max()), q))
    if not scored:
        return None
    best = min(error for error, _ in scored)
    near = [q for error, q in scored if error < best + np.deg2rad(3.0)]
    q = max(near, key=np.trace)
    for _ in range(5):
        q = _refined(q, rotations, group)
    return q


def _match(q, rotations, group: PointGroup):
    """For each operator but the identity, the angle to the nearest rotation, and its index."""
    mine = q.T @ group.operators[1:] @ q
    angles = rotation_angle(mine[:, None] @ rotations[None].mT)
    return angles.min(axis=1), angles.argmin(axis=1)


def _refined(q, rotations, group: PointGroup) -> np.ndarray:
    """Least squares over the axes of all operators."""
    _, index = _match(q, rotations, group)
    _, axes = _angles_and_axes(rotations[index])
    _, wanted = _angles_and_axes(group.operators[1:])
    signs = np.sign(np.sum((axes @ q.T) * wanted, axis=1))
    axes = axes * signs[:, None]
    if np.linalg.matrix_rank(wanted, tol=1e-6) == 1:
        flips = np.sign(wanted @ wanted[0])
        mean = np.sum(axes * flips[:, None], axis=0)
        return _shortest_turn(mean / np.linalg.norm(mean), wanted[0])
    return _kabsch(wanted, axes)


def _whole_motions(kinds, frame: Frame, group: PointGroup):
    """For each operator but the identity, the points it moves and where their mates are.

    Only kinds of chains that the operator maps onto themselves, one to one, take part.
    """
    pairs = []
    for operator in group.operators[1:]:
        starts, ends = [], []
        for kind in kinds:
            mates = _mates(kind, frame, operator, PROVISIONALLY_WITHIN_ANGSTROM)
            if mates is not None:
                for chain, mate in zip(kind, mates, strict=True):
                    keys = chain.common(mate)
                    starts.append(chain.points(keys))
                    ends.append(mate.points(keys))
        if not starts:
            return None
        pairs.append((np.concatenate(starts), np.concatenate(ends)))
    return pairs


def _mates(
    kind: Sequence[Trace], frame: Frame, operator, within_angstrom: float
) -> list[Trace] | None:
    """The chain onto which an operator moves each chain of a kind; None if some have none."""
    centres = frame.apply(np.array([chain.points().mean(axis=0) for chain in kind]))
    gaps = np.linalg.norm((centres @ operator.T)[:, None] - centres[None], axis=2)
    nearest = gaps.argmin(axis=1)
    if len(set(nearest.tolist())) < len(kind) or gaps.min(axis=1).max() > within_angstrom:
        return None
    return [kind[i] for i in nearest]


def _centre(pairs, q, group: PointGroup, middle) -> Float[np.ndarray, "3"]:
    """The point that all operators leave where it is; along a single axis, the middle."""
    left, right = [], []
    for operator, (starts, ends) in zip(q.T @ group.operators[1:] @ q, pairs, strict=True):
        left.append(np.eye(3) - operator)
        right.append(ends.mean(axis=0) - operator @ starts.mean(axis=0) - left[-1] @ middle)
    # The least-norm solution has no component along an axis that all operators share.
    shift = np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=1e-6)[0]
    return middle + shift


def _agreement(kinds, frame: Frame, group: PointGroup) -> tuple[float, tuple[str, ...]]:
    """Root-mean-square deviation of the symmetric chains from their mates, and their names."""
    squares, count, names = 0.0, 0, []
    for kind in kinds:
        mates = [
            _mates(kind, frame, operator, SYMMETRIC_WITHIN_ANGSTROM)
            for operator in group.operators[1:]
        ]
        if any(m is None for m in mates):
            continue
        names += [chain.name for chain in kind]
        for operator, mapped in zip(group.operators[1:], mates, strict=True):
            for chain, mate in zip(kind, mapped or (), strict=True):
                keys = chain.common(mate)
                moved = frame.apply(chain.points(keys)) @ operator.T
                squares += float(np.sum((moved - frame.apply(mate.points(keys))) ** 2))
                count += len(keys)
    return float(np.sqrt(squares / count)) if count else 0.0, tuple(names)


def _angles_and_axes(rotations: Float[np.ndarray, "n 3 3"]):
    vectors = matrix_to_rotvec(rotations)
    angles = np.linalg.norm(vectors, axis=1)
    return angles, vectors / np.maximum(angles, 1e-12)[:, None]


def _shortest_turn(start: np.ndarray, end: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """The rotation by the least angle that takes one unit vector to another."""
    axis, cosine = np.cross(start, end), float(start @ end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        if cosine > 0:
            return np.eye(3)
        axis = np.cross(start, np.eye(3)[int(np.argmin(np.abs(start)))])
        return rotvec_to_matrix(np.pi * axis / np.linalg.norm(axis))
    return rotvec_to_matrix(axis / sine * np.arctan2(sine, cosine))


def _kabsch(target: Float[np.ndarray, "n 3"], moving: Float[np.ndarray, "n 3"]) -> np.ndarray:
    return project_to_so3(target.T @ moving)
