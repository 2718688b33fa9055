"""The ceiling for occupancy patterns: how well they can be told apart, given all of their maps.

Pattern and register are one posterior under the true maps, poses, CTF and noise and the true
shares of the patterns; nobody can do better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int

from jaxrelax.assessment.calibration import Calibration, brier_score, calibration
from jaxrelax.assessment.oracle import NOISE_PASSES
from jaxrelax.geometry import (
    OccupancyPatterns,
    PointGroup,
    nearest_operator,
    occupancy_patterns,
    parse_group,
    right_cosets,
)
from jaxrelax.in_memory import Images, load_images
from jaxrelax.inference import FixedPoses, Model, PosePrior, Register, States, e_step
from jaxrelax.io import InputError, Particles
from jaxrelax.reconstruction import hypothesis_volume

STATE, PLACEMENT = "rlnClassNumber", "jrxPlacement"
TOGETHER = 64  # images scored at a time


@dataclass(frozen=True)
class PatternAccuracy:
    """Bayes-optimal patterns.

    Attributes:
        accuracy: fraction of the judged particles whose most probable pattern is the true one.
        mean_max_posterior: mean largest posterior probability of a pattern; equal to the accuracy
            but for chance when maps, poses and noise are right.
        register_accuracy: of the particles whose pattern was found, the fraction whose most
            probable register in it is the true one.
        calibration: reliability table of the patterns.
        states: posterior of the patterns; each image's registers together.
        fractions: shares of the patterns that were assumed.
        confusion: [true, told] fraction of the particles of a pattern (a row) that are told to have
            another; NaN for patterns without particles.
        judged: rows of the table, those that are not junk.
        noise_power: noise spectrum per shell, learned with the true maps.
    """

    accuracy: float
    mean_max_posterior: float
    register_accuracy: float
    calibration: Calibration
    states: Float64[np.ndarray, "judged patterns"]
    fractions: Float64[np.ndarray, " patterns"]
    confusion: Float64[np.ndarray, "patterns patterns"]
    judged: Int[np.ndarray, " judged"]
    noise_power: Float64[np.ndarray, " shells"]


def pattern_model(patterns: OccupancyPatterns) -> Model:
    """Latents of images of a particle with any of the patterns: which one, and its register."""
    registers = [right_cosets(patterns.group, p.stabiliser) for p in patterns.patterns]
    return Model((States(tuple((Register(each.representatives),) for each in registers)),))


def oracle_patterns(
    truth: Particles,
    maps: Sequence[Float[np.ndarray, "n n n"]],
    *,
    group: str | PointGroup,
    poses: Particles | None = None,
    fractions: Float[np.ndarray, " patterns"] | None = None,
    max_resolution_angstrom: float | None = None,
    particle_diameter_angstrom: float | None = None,
) -> PatternAccuracy:
    """Patterns and registers of all particles under the true maps.

    The origin of Fourier space is left out: normalisation has made something else of it.

    Args:
        truth: particles of one optics group, as `jaxrelax simulate` writes them where sites are
            occupied at random, with ``rlnClassNumber`` and ``jrxPlacement``. Junk is not judged.
        maps: of the representatives of `occupancy_patterns`, in their order, on the grey scale of
            the images.
        group: G, as :func:`jaxrelax.geometry.parse_group` reads it.
        poses: take poses and origins from these particles, of the same rows, instead.
        fractions: shares of the patterns; by default those of the table.
        max_resolution_angstrom: use frequencies up to this only.
        particle_diameter_angstrom: outside of it the images show the noise to begin with.

    Raises:
        InputError: bad groups, columns that are missing, a wrong number of maps or of rows, several
            optics groups, or nothing but junk.
    """
    try:
        whole = parse_group(group)
        patterns = occupancy_patterns(whole)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    if len(maps) != len(patterns):
        raise InputError(f"{whole.name} has {len(patterns)} patterns; {len(maps)} maps were given.")
    state, placement = (_whole_numbers(truth, label) for label in (STATE, PLACEMENT))
    judged = np.flatnonzero(state > 0)
    if not len(judged) or state.max() > len(patterns):
        raise InputError(
            f"{truth.source}: {STATE} must be 1 to {len(patterns)}, 0 being junk, which is not "
            "judged; some particle must be none."
        )
    if poses is not None and len(poses) != len(truth):
        raise InputError(f"{poses.source} has {len(poses)} rows, {truth.source} {len(truth)}.")
    state, placement = state[judged] - 1, placement[judged]
    counts = np.bincount(state, minlength=len(patterns))
    shares = counts / counts.sum() if fractions is None else np.asarray(fractions, np.float64)
    particles = (truth if poses is None else poses).select(judged)
    images = load_images(
        particles,
        max_resolution_angstrom=max_resolution_angstrom,
        particle_diameter_angstrom=particle_diameter_angstrom,
    )
    model = pattern_model(patterns)
    rows, power = _posterior(images, np.stack(maps), model, patterns, shares)

    where = model.table.value("state")
    within = [rows[:, where == k] for k in range(len(patterns))]
    states = np.stack([each.sum(axis=1) for each in within], axis=1)
    told = states.argmax(axis=1)
    correct = told == state
    # A pose A shows the representative in register r if A rᵀ is its true pose.
    true_poses = truth.rotations[judged] @ whole.operators[placement]
    elements, _ = nearest_operator(true_poses.mT @ particles.rotations, whole.operators)
    found = np.zeros(len(judged), bool)
    for k, pattern in enumerate(patterns.patterns):
        mine = state == k
        right = right_cosets(whole, pattern.stabiliser).coset_table[elements[mine]]
        found[mine] = within[k][mine].argmax(axis=1) == right
    confusion = np.zeros((len(patterns), len(patterns)))
    np.add.at(confusion, (state, told), 1.0)
    largest = states.max(axis=1)
    return PatternAccuracy(
        accuracy=float(correct.mean()),
        mean_max_posterior=float(largest.mean()),
        register_accuracy=float(found[correct].mean()) if correct.any() else float("nan"),
        calibration=calibration(largest, correct, brier_score(states, state)),
        states=states,
        fractions=shares,
        confusion=confusion / np.where(counts > 0, counts, np.nan)[:, None],
        judged=judged,
        noise_power=power,
    )  # fmt: skip


def _posterior(
    images: Images,
    maps: Float[np.ndarray, "patterns n n n"],
    model: Model,
    patterns: OccupancyPatterns,
    shares: Float64[np.ndarray, " patterns"],
) -> tuple[Float32[np.ndarray, "images rows"], Float64[np.ndarray, " shells"]]:
    """Posterior of every row of the table, and the noise that the true maps leave."""
    geometry = images.geometry
    volume = hypothesis_volume(
        jnp.asarray(maps, jnp.float32),
        model.table,
        [patterns.group] * len(patterns),
        max_shell=int(geometry.slice_shell.max()),
        image_box=geometry.packing.box,
    )
    with np.errstate(divide="ignore"):
        logits = np.log(shares).astype(np.float32)
    params: dict[str, Any] = model.init()
    params["state"] = (logits, params["state"][1])
    n_shells = int(geometry.slice_shell.max()) + 1
    off_origin = jnp.asarray(geometry.slice_shell > 0)
    search, prior = FixedPoses(), PosePrior(jnp.ones(()), jnp.ones(()))
    target = search.prepare(volume, geometry)

    @eqx.filter_jit
    def pass_over(target, some: Images, power) -> tuple[Array, Array]:
        batch, geometry, poses = some.inputs(noise_power=power)
        batch = replace(batch, weights=jnp.where(off_origin, batch.weights, 0.0))
        posterior, _, learned = e_step(
            model, params, search, target, batch, geometry, poses, prior, n_shells
        )
        return posterior.rows, learned.residual

    seen = np.bincount(geometry.slice_shell, geometry.packing.multiplicity, minlength=n_shells)
    power = np.asarray(images.noise_power, np.float64)
    rows = np.zeros((len(images), len(model.table)), np.float32)
    for _ in range(1 + NOISE_PASSES):
        residual = np.zeros(n_shells)
        for start in range(0, len(images), TOGETHER):
            some = images.select(slice(start, start + TOGETHER))
            found, left = pass_over(target, some, jnp.asarray(power, jnp.float32))
            rows[start : start + TOGETHER] = np.asarray(found)
            residual += np.asarray(left, np.float64)
        before = power
        power = before.copy()
        power[:n_shells] = np.where(seen > 0, residual / (len(images) * seen), before[:n_shells])
    return rows, before


def _whole_numbers(truth: Particles, label: str) -> Int[np.ndarray, " n"]:
    values = truth.column(label)
    if values is None:
        raise InputError(
            f"{truth.source}: no column {label}, which jaxrelax simulate writes where sites are "
            "occupied at random."
        )
    return np.array([int(float(value)) for value in values])
