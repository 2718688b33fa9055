"""Finished runs side by side, from their output folders: what they found, and whether it agrees."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from jaxrelax.assessment.accuracy import IMAGE_NAME, groups
from jaxrelax.assessment.state_shares import LIKELY_JUNK
from jaxrelax.assessment.states import adjusted_rand
from jaxrelax.assessment.words import relaxation_field
from jaxrelax.geometry import (
    PointGroup,
    pose_error_mod_group,
    register_agreement,
)
from jaxrelax.io import InputError, Particles
from jaxrelax.io.reading import load_particles

DEFOCUS = "rlnDefocusU"


@dataclass(frozen=True)
class FinishedRun:
    """A run as its output folder keeps it.

    Attributes:
        path: the folder.
        result: content of ``result.json``.
        asymmetric_resolution_angstrom: of the last iteration, from ``history.csv``; None where the
            asymmetric parts do not agree at all, or there are none.
    """

    path: Path
    result: dict[str, Any]
    asymmetric_resolution_angstrom: float | None

    @property
    def group(self) -> str:
        """The symmetry that was relaxed or imposed."""
        settings = self.result.get("settings", {})
        return relaxation_field(settings, "group") or str(settings.get("symmetry", "C1"))

    @property
    def kept(self) -> str:
        """What is kept of it."""
        settings = self.result.get("settings", {})
        if relaxation_field(settings, "group") is None:
            return self.group
        return relaxation_field(settings, "to") or "C1"

    @property
    def n_states(self) -> int:
        """Of a classification; 0 of others."""
        return len(self.result.get("states") or ())

    @cached_property
    def particles(self) -> Particles:
        """The table with final poses.

        Raises:
            InputError: it is not there, or cannot be read.
        """
        return load_particles(self.path / "particles.star", require_poses=True, require_ctf=False)

    def figures(self) -> dict[str, Any]:
        """What is compared, by its name; None for what the run does not have."""
        result, evidence = self.result, self.result.get("evidence") or {}
        accuracy = evidence.get("expected_register_accuracy")
        return {
            "run": str(self.path),
            "group": self.group,
            "kept": self.kept,
            "states": self.n_states or None,
            "particles": result.get("n_particles"),
            "resolution_angstrom": result.get("resolution_angstrom"),
            "asymmetric_resolution_angstrom": self.asymmetric_resolution_angstrom,
            "asymmetry_found": evidence.get("found"),
            "z_score": evidence.get("z_score"),
            "expected_register_accuracy": accuracy,
            "expected_state_accuracy": result.get("expected_state_accuracy"),
            "half_set_agreement": evidence.get("half_set_agreement"),
            "supported_symmetry": evidence.get("supported_symmetry"),
            "iterations": result.get("n_iterations"),
            "seconds": result.get("seconds"),
            "peak_memory_gib": result.get("peak_memory_gib"),
        }


@dataclass(frozen=True)
class RunAgreement:
    """What two runs say of the images that both have.

    Attributes:
        images: matched by name, those that both take for particles.
        same_register: of these, as far as they are in a state with registers, the fraction in the
            same register, up to one operator for all; None where there are none of them, or the
            runs do not relax the same symmetry to the same one.
        pose_difference_deg: median angle between their poses, modulo the larger group.
        adjusted_rand: of their states; None unless both are classifications.
    """

    images: int
    same_register: float | None
    pose_difference_deg: float
    adjusted_rand: float | None

    def figures(self) -> dict[str, Any]:
        """By name, as columns beside those of a run."""
        return {
            "shared_images": self.images,
            "same_register": self.same_register,
            "pose_difference_deg": self.pose_difference_deg,
            "adjusted_rand": self.adjusted_rand,
        }


def read_finished_run(folder: str | os.PathLike) -> FinishedRun:
    """What an output folder holds of a run that is over.

    Raises:
        InputError: there is no such folder, no result in it, or one that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give the output folders of finished runs.")
    path = folder / "result.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: has no result.json, so that no run is finished there; `jaxrelax status "
            f"{folder}` says more."
        )
    try:
        result = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    return FinishedRun(folder, result, _asymmetric_resolution(folder / "history.csv"))


def _asymmetric_resolution(path: Path) -> float | None:
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        value = float(rows[-1].get("asymmetric_resolution_angstrom") or 0.0) if rows else 0.0
    except ValueError:
        return None
    return value if value > 0 else None


def compare_runs(first: FinishedRun, second: FinishedRun) -> RunAgreement | None:
    """Registers, poses and states of two runs, image by image.

    Images are those of one name (``rlnImageName``) that each run has once and takes for a particle
    rather than junk. Stacks of one name in two data sets are told apart by their defocus.

    Args:
        first, second: runs.

    Returns:
        None if they have no such image in common.

    Raises:
        InputError: a table cannot be read.
    """
    rows = _shared(first.particles, second.particles)
    shown = _shown(first.particles)[rows[0]] & _shown(second.particles)[rows[1]]
    one, other = (of[shown] for of in rows)
    if len(one) == 0 or not _of_one_stack(first.particles, second.particles, *rows):
        return None
    poses = first.particles.rotations[one], second.particles.rotations[other]
    pairs = [groups(run.group, run.kept) for run in (first, second)]
    larger = max((group for group, _ in pairs), key=lambda group: group.order)
    differ = pose_error_mod_group(*poses, larger)
    same = None
    if _same(pairs[0][0], pairs[1][0]) and _same(pairs[0][1], pairs[1][1]):
        group, kept = pairs[0]
        told = _has_register(first)[one] & _has_register(second)[other]
        if kept.order < group.order and told.any():
            same = register_agreement(poses[0][told], poses[1][told], group, kept).fraction
    rand = None
    if first.n_states and second.n_states and len(one) > 1:
        rand = adjusted_rand(_states(first.particles)[one], _states(second.particles)[other])
    return RunAgreement(len(one), same, float(np.rad2deg(np.median(differ))), rand)


def _same(one: PointGroup, other: PointGroup) -> bool:
    return one.order == other.order and np.allclose(one.operators, other.operators, atol=1e-6)


def _shared(
    first: Particles, second: Particles
) -> tuple[Int[np.ndarray, " shared"], Int[np.ndarray, " shared"]]:
    """Rows of the images that each table has once."""
    names, others = (_single(one) for one in (first, second))
    both = [name for name in names if name in others]
    return (
        np.array([names[name] for name in both], int),
        np.array([others[name] for name in both], int),
    )


def _of_one_stack(first: Particles, second: Particles, one: Any, other: Any) -> bool:
    """Whether rows may show the same images: their defocus differs by less than among images.

    Names are relative to folders that two output folders need not share. Refining the CTF moves a
    defocus by far less than it differs from image to image.
    """
    defocus, again = _numbers(first, DEFOCUS), _numbers(second, DEFOCUS)
    if defocus is None or again is None:
        return True
    defocus, again = defocus[one], again[other]
    spread = np.median(np.abs(defocus - np.median(defocus)))
    return bool(np.median(np.abs(defocus - again)) <= 0.5 * spread) or np.allclose(defocus, again)


def _single(particles: Particles) -> dict[str, int]:
    """Row of every image that has one row."""
    names = particles.column(IMAGE_NAME)
    if names is None:
        raise InputError(f"{particles.source}: has no {IMAGE_NAME} to match images by.")
    count = Counter(names)
    return {name: row for row, name in enumerate(names) if count[name] == 1}


def _shown(particles: Particles) -> Bool[np.ndarray, " n"]:
    junk = _numbers(particles, "jrxJunkProbability")
    return np.ones(len(particles), bool) if junk is None else junk < LIKELY_JUNK


def _has_register(run: FinishedRun) -> Bool[np.ndarray, " n"]:
    """Images whose most probable state has registers to choose from."""
    if not run.n_states:
        return np.ones(len(run.particles), bool)
    several = [one.get("registers", 1) > 1 for one in run.result["states"]]
    return np.array([False, *several])[_states(run.particles)]


def _states(particles: Particles) -> Int[np.ndarray, " n"]:
    numbers = _numbers(particles, "rlnClassNumber")
    if numbers is None:
        raise InputError(f"{particles.source}: has no rlnClassNumber, though the run has states.")
    return numbers.astype(int)


def _numbers(particles: Particles, label: str) -> Float64[np.ndarray, " n"] | None:
    values = particles.column(label)
    return None if values is None else np.array([float(value) for value in values])
