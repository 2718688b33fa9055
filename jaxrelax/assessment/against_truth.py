"""Every iteration of a refinement against the truth of a simulation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int

from jaxrelax.assessment.accuracy import has_register, matching_rows
from jaxrelax.assessment.states import JUNK, state_accuracy
from jaxrelax.assessment.words import percent
from jaxrelax.geometry import euler_to_matrix, pose_error_mod_group, register_agreement
from jaxrelax.io import InputError, Particles, read_particles
from jaxrelax.refinement import Callback, Problem, Result, State, StepInfo
from jaxrelax.refinement.loop import of_states

TRUE_STATE = "rlnClassNumber"
JUNK_COLUMN = "jrxJunk"


def true_part_poses(
    truth: Particles,
) -> tuple[Float64[np.ndarray, "n 3 3"], Float64[np.ndarray, "n 2"]] | None:
    """Poses and origins (Å) of a part that swings, in the frame of the map.

    Args:
        truth: a table of `jaxrelax simulate --swing`.

    Returns:
        None where the table has no such columns.
    """
    names = [f"jrxPart{name}" for name in ("AngleRot", "AngleTilt", "AnglePsi")]
    names += [f"jrxPartOrigin{axis}Angst" for axis in "XY"]
    columns = [truth.column(name) for name in names]
    if any(values is None for values in columns):
        return None
    *angles, x, y = (np.asarray(values, np.float64) for values in columns)
    return euler_to_matrix(*angles), np.stack([x, y], axis=1)


class AgainstTruth(Callback):
    """Watch how many registers and states are right in every iteration, and how far poses are off.

    Each half-set is judged in its own frame, which is known only up to one operator of the group.
    Junk and symmetric particles of the truth have no register and are left out. A part is judged
    by its own poses where the truth has them (``jaxrelax simulate --swing``).

    Attributes:
        rows: by iteration, what :meth:`added_to` makes columns of ``history.csv``:
            ``true_register_accuracy`` where one map is relaxed, ``true_state_accuracy`` where there
            are states and the truth has the column ``rlnClassNumber`` (0: no particle),
            ``true_pose_error_deg`` (median, modulo the group) and ``true_shift_error_angstrom``.
    """

    def __init__(self, truth: Particles | str | Path):
        """Of a table with true poses, in any order and maybe with more images.

        Args:
            truth: the table, or its path.
        """
        self.truth = read_particles(truth) if isinstance(truth, str | Path) else truth
        self.rows: dict[int, dict[str, float]] = {}
        self._matched: np.ndarray | None = None

    def on_start(self, problem: Problem, state: State) -> None:
        """Find the images in the truth.

        Raises:
            InputError: some are not in it, or none of them shows a particle.
        """
        self._matched = matching_rows(problem.data.particles, self.truth)
        if not np.any((self._labels() != JUNK) & ~self._junk()):
            raise InputError(f"{self.truth.source}: none of its images shows a particle")

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """Judge an iteration."""
        assert self._matched is not None
        rows, table = self._matched, problem.plan.table
        true, true_origins = self._true_poses(problem)
        labels = self._labels()[rows]
        shown = (labels != JUNK) & ~self._junk()[rows]
        error = pose_error_mod_group(
            state.poses.rotations[shown], true[shown], problem.common_group
        )
        moved = state.poses.origins_angstrom - true_origins
        found = {
            "true_pose_error_deg": float(np.rad2deg(np.median(error))),
            "true_shift_error_angstrom": float(np.median(np.linalg.norm(moved[shown], axis=1))),
        }
        best = table.place_operators[state.beliefs.registers.argmax(axis=1)]
        poses = state.poses.rotations @ best.mT
        if info.fractions:
            if labels.max() > 0:
                states = of_states(problem, state.beliefs.registers).argmax(axis=1)
                labels = np.where(shown, labels, JUNK)
                accuracy = state_accuracy(states, labels, n_states=len(info.fractions)).accuracy
                found["true_state_accuracy"] = accuracy
        elif info.relaxed:
            judged = shown & has_register(self.truth)[rows]
            group, kept = problem.particle.group, problem.particle.subgroup
            right = [
                register_agreement(poses[some], true[some], group, kept).correct
                for some in (judged & (problem.data.half_set == half) for half in (1, 2))
                if some.any()
            ]
            if right:
                found["true_register_accuracy"] = float(np.mean(np.concatenate(right)))
        self.rows[info.iteration] = found

    def _true_poses(
        self, problem: Problem
    ) -> tuple[Float64[np.ndarray, "n 3 3"], Float64[np.ndarray, "n 2"]]:
        """True poses and origins of the images; of a part in its frame, as those of the state."""
        assert self._matched is not None
        true, where = self.truth.select(self._matched), problem.where
        if where is None:
            return true.rotations, true.origins_angstrom
        # What the mask leaves out does not swing.
        of_part = None if where.mask is None else true_part_poses(true)
        poses = (true.rotations, true.origins_angstrom) if of_part is None else of_part
        return where.frame.poses(*poses, true.magnifications)

    def added_to(self, result: Result) -> Result:
        """The result with these columns in its history.

        Iterations before a run was resumed were not watched, and have none.
        """
        history = [row | self.rows.get(int(row["iteration"]), {}) for row in result.history]
        return dataclasses.replace(result, history=history)

    def _junk(self) -> Bool[np.ndarray, " truth"]:
        column = self.truth.column(JUNK_COLUMN)
        if column is None:
            return np.zeros(len(self.truth), bool)
        return np.array([float(one) for one in column]) != 0

    def _labels(self) -> Int[np.ndarray, " truth"]:
        """True states from 0, `JUNK` for images that show no particle; all 0 if it has none."""
        column = self.truth.column(TRUE_STATE)
        if column is None:
            return np.zeros(len(self.truth), int)
        return np.array([int(float(one)) for one in column]) - 1


def truth_sentence(result: Result) -> str | None:
    """What was right in the last iteration that was watched; None where none was."""
    watched = [row for row in result.history if "true_pose_error_deg" in row]
    if not watched:
        return None
    last = watched[-1]
    named = {"true_register_accuracy": "registers", "true_state_accuracy": "states"}
    right = [
        f"{percent(last[name])} of the {what} are right"
        for name, what in named.items()
        if name in last
    ]
    poses = (
        f"half of the poses are off by less than {last['true_pose_error_deg']:.2f}° (modulo the "
        f"group) and {last['true_shift_error_angstrom']:.2f} Å"
    )
    return f"Against the truth, in iteration {last['iteration']:.0f}: {', '.join([*right, poses])}."
