"""The E-step: score every image against maps without it, and accumulate it under its posterior.

One implementation for every mode and for the final full-resolution pass. Images of one half-set
and fold share the map that leaves their fold out. Folds are gone through one after another, and
each is scored against the newest sums of the others: *incremental* EM (Neal & Hinton, in Jordan,
Learning in Graphical Models, 1998, 355). A pass then moves as far as two that use the old sums.
Half-sets know nothing of each other, so that they are gone through side by side where there is
room: a processor's cores, or the host and its accelerator, have work for both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.geometry import project_to_so3
from jaxrelax.imaging import volume_radius
from jaxrelax.inference import JunkParameters, logit, significant
from jaxrelax.reconstruction import (
    Candidates,
    IsotypicParts,
    ShellSums,
    completed,
    empty_accumulator,
)
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.programs import accumulate_program
from jaxrelax.refinement.score_maps import kept_share, score_map, slice_power
from jaxrelax.refinement.scoring import ScoredBatch, register_volume, scored_batches
from jaxrelax.refinement.side_by_side import Side, both, one_by_one
from jaxrelax.refinement.state import State

# Of an expectation: sums over images, and of what was expected from the maps.
SUMMED = (
    "residual", "count", "rotation_moment_rad2", "shift_moment_angstrom2", "counted", "nats",
    "power",
)  # fmt: skip


@dataclass
class Expectation:
    """Results of one pass over all images."""

    sums: list[list[ShellSums]]  # [half][fold]
    rotations: Float64[np.ndarray, "n 3 3"]  # of the best register, without its operator
    origins_angstrom: Float64[np.ndarray, "n 2"]
    mode_rotations: Float32[np.ndarray, "n modes 3 3"]  # the same of all modes
    mode_origins_angstrom: Float32[np.ndarray, "n modes 2"]
    registers: Float32[np.ndarray, "n registers"]
    symmetric: Float32[np.ndarray, " n"]
    junk: Float32[np.ndarray, " n"]
    log_gain: Float32[np.ndarray, " n"]
    residual: Float64[np.ndarray, "groups shells"]
    count: Float64[np.ndarray, "groups shells"]
    # Posterior mean squared offset from the centre of the prior, per axis.
    rotation_moment_rad2: float = 0.0
    shift_moment_angstrom2: float = 0.0
    counted: float = 0.0  # images, junk by its probability
    nats: float = 0.0  # mean squared distance between a register's view and the symmetrised one
    power: float = 0.0  # what was expected of it from the maps, up to a factor

    @property
    def nats_per_power(self) -> float:
        """The factor; 0 where the maps tell no registers apart."""
        return self.nats / self.power if self.power > 0 and self.nats > 0 else 0.0


def expectation(
    problem: Problem,
    state: State,
    accumulate_shell: int,
    *,
    n_folds: int | None = None,
    weights_override: Float32[np.ndarray, "n registers"] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Expectation:
    """One pass over the images.

    Args:
        problem, state: inputs and current sums or maps, noise, poses.
        accumulate_shell: last shell accumulated (at least the scored band).
        n_folds: sums per half-set; by default the problem's folds. 1 joins the folds: the scores
            are still cross-fitted, only the sums are not kept apart (nor used before the end).
        weights_override: register weights to accumulate with instead of the posterior (for the
            first iteration, before any map tells registers apart).
        on_batch: called with the number of images done by this process, from either half-set's
            thread but never from both at once.

    Returns:
        the whole result, in every process: each goes through its own images.

    Raises:
        WorkerLost: another process has ended.
    """
    n, registers = len(problem.particles), problem.n_registers
    modes = state.search(problem).modes
    result = Expectation(
        sums=[],
        rotations=state.rotations.copy(),
        origins_angstrom=state.origins_angstrom.copy(),
        mode_rotations=np.zeros((n, modes, 3, 3), np.float32),
        mode_origins_angstrom=np.zeros((n, modes, 2), np.float32),
        registers=np.zeros((n, registers), np.float32),
        symmetric=np.zeros(n, np.float32),
        junk=np.zeros(n, np.float32),
        log_gain=np.zeros(n, np.float32),
        residual=np.zeros_like(state.noise_power),
        count=np.zeros_like(state.noise_power),
    )
    latest = state.sums()
    passes = [
        _HalfPass(
            problem, state, half, accumulate_shell,
            keep_folds=problem.n_folds if n_folds is None else n_folds,
            weights_override=weights_override,
            latest=latest[half] if latest else [],
            # Rows of images are written into the same arrays, sums are each half-set's own.
            result=replace(
                result, sums=[[]], residual=np.zeros_like(result.residual),
                count=np.zeros_like(result.count),
            ),
        )
        for half in (0, 1)
    ]  # fmt: skip
    first, second = (partial(one.run, on_batch=on_batch) for one in passes)
    both(first, second, alone=one_by_one(problem, state))
    for one in passes:
        result.sums += one.result.sums
        for name in SUMMED:
            setattr(result, name, getattr(result, name) + getattr(one.result, name))
    _put_together(problem, result)
    result.rotation_moment_rad2 /= 3 * max(result.counted, 1.0)
    result.shift_moment_angstrom2 /= 2 * max(result.counted, 1.0)
    result.nats /= n
    return result


@dataclass
class _HalfPass:
    """The pass over the images of one half-set, fold by fold."""

    problem: Problem
    state: State
    half: int
    accumulate_shell: int
    keep_folds: int
    weights_override: Float32[np.ndarray, "n registers"] | None
    latest: list[ShellSums]  # newest sums of the folds; empty in the first iteration
    result: Expectation

    def run(self, side: Side, on_batch: Callable[[int], None] | None) -> None:
        """Go through the folds, unless the other half-set fails."""
        problem, state, result = self.problem, self.state, self.result
        workers, shell = problem.workers, self.accumulate_shell
        radius = volume_radius(shell)
        search = state.search(problem)
        score_rung = problem.rung(state.score_shell)
        for fold in range(problem.n_folds):
            groups = problem.batches(self.half + 1, fold)
            parts, power = _map_without(problem, state, self.latest, self.half, fold)
            result.power += power / (2 * problem.n_folds)
            volume = register_volume(problem, parts.symmetric, parts.asymmetric, score_rung)
            params = _parameters(problem, state, parts)
            if self.keep_folds > 1 or fold == 0:
                accumulator = workers.one_each(empty_accumulator(radius))
            for group, all_rows in groups:
                rows = problem.mine(all_rows)
                geometry = problem.geometry(group, shell, score_rung)
                insert = accumulate_program(problem, group, shell, score_rung)
                for batch in scored_batches(
                    problem, state, volume, group, rows, geometry, search, params
                ):
                    kept = batch.kept
                    if self.weights_override is not None:
                        kept = self.weights_override[batch.rows]
                    for candidates in _candidates(problem, kept, batch):
                        accumulator = insert(accumulator, batch.images, candidates)
                    _record(problem, state, group, geometry, batch, result)
                    if on_batch is not None:
                        side.call(on_batch, len(batch.rows))
                    if group == groups[-1][0]:
                        side.go_on()
                    if side.stopped:
                        return
            if self.keep_folds > 1 or fold == problem.n_folds - 1:
                own = ShellSums.of(completed(workers.summed(accumulator)), shell)
                done = ShellSums(workers.total(own.values), shell)
                result.sums[0].append(done)
                if self.keep_folds > 1 and self.latest:
                    self.latest[fold] = done.resized(self.latest[fold].max_shell)


def _put_together(problem: Problem, result: Expectation):
    """Per-image results and sums of all processes, in place; the sums by fold have been added."""
    workers = problem.workers
    for names, joined in (
        (
            (
                "rotations",
                "origins_angstrom",
                "mode_rotations",
                "mode_origins_angstrom",
                "registers",
                "symmetric",
                "junk",
                "log_gain",
            ),
            lambda array: workers.rows(array, problem.own),
        ),
        (tuple(name for name in SUMMED if name != "power"), workers.total),
        (("power",), workers.agreed),
    ):
        for name in names:
            setattr(result, name, joined(getattr(result, name)))


def total(folds: list[ShellSums]) -> ShellSums:
    """Sum over folds."""
    return reduce(add, folds)


def _map_without(
    problem: Problem, state: State, folds: list[ShellSums], half: int, fold: int
) -> tuple[IsotypicParts, float]:
    """The map that scores a fold, and the power by which it tells registers apart."""
    if not folds:
        index = (half * problem.n_folds + fold) * len(state.symmetric) // (2 * problem.n_folds)
        return IsotypicParts(state.symmetric[index], state.asymmetric[index]), 0.0
    prior = state.prior()
    if problem.cross_fitted:
        folds = folds[:fold] + folds[fold + 1 :]
    parts = score_map(problem, total(folds), half, prior, kept_share(problem))
    spectrum = slice_power(parts.asymmetric, problem.map_box, prior.max_shell + 1)
    power = float(np.sum(spectrum * prior.weight[half]))
    factor = state.amplitude
    if state.held_nats >= 0 and state.nats_per_power > 0 and power > 0:
        # Not the factor is held: as registers sharpen in the course of a pass the map grows, and
        # would be stronger than what its factor was calibrated for.
        factor = np.sqrt(state.held_nats / (state.nats_per_power * power))
    factor = np.float32(factor)
    return IsotypicParts(parts.symmetric, parts.asymmetric * factor), float(power * factor**2)


def _parameters(problem: Problem, state: State, parts: IsotypicParts) -> dict[str, Any]:
    """Of the model's latents; what an unknown object shows is as strong as this map."""
    power = slice_power(parts.symmetric + parts.asymmetric, problem.map_box, problem.n_shells)
    junk = JunkParameters(logit(state.junk_fraction), power.astype(np.float32))
    known = {"symmetric": logit(state.symmetric_fraction), "junk": junk}
    return problem.model.init() | {
        one.name: known[one.name] for one in problem.model.latents if one.name in known
    }


def _record(problem, state, group, geometry, batch: ScoredBatch, result: Expectation):
    """Put a batch's results where they belong."""
    rows = batch.rows
    m = np.arange(len(rows))
    best = batch.weights.argmax(axis=1)
    pixel = problem.particles.optics[group].pixel_size_angstrom
    mode = batch.modes[m, :, best].argmax(axis=1)
    rotations = batch.rotations[m, mode, best].astype(np.float64)
    result.rotations[rows] = project_to_so3(rotations)
    result.origins_angstrom[rows] = pixel * batch.origins_px[m, mode, best]
    result.mode_rotations[rows] = project_to_so3(batch.rotations[m, :, best].astype(np.float64))
    result.mode_origins_angstrom[rows] = pixel * batch.origins_px[m, :, best]
    result.registers[rows] = batch.weights
    result.symmetric[rows] = batch.symmetric
    result.junk[rows] = batch.junk
    # Register parts add up to nothing, so the mean of their log-evidences over that of the
    # symmetrised map is half the mean squared distance.
    table = problem.hypotheses
    if table.symmetrised.any():
        apart = batch.log_evidence[:, ~table.symmetrised]
        alike = batch.log_evidence[:, table.guide]
        one = np.logaddexp.reduce(apart, axis=1) - np.log(np.float32(apart.shape[1]))
        result.log_gain[rows] = one - alike
        below = apart.mean(axis=1) - alike
        result.nats += float(np.sum(-2.0 * below, dtype=np.float64))
    result.counted += batch.counted
    inner = geometry.inner()
    shells = np.minimum(inner.slice_shell, problem.n_shells - 1)
    result.residual[group] += batch.residual
    result.count[group] += batch.counted * np.bincount(
        shells, inner.packing.multiplicity, minlength=problem.n_shells
    )
    rotation, shift = batch.moments
    result.rotation_moment_rad2 += rotation
    result.shift_moment_angstrom2 += shift


def _candidates(problem: Problem, weights, batch: ScoredBatch) -> Iterator[Candidates]:
    """Significant poses of a batch, as many at a time as it has images, so that one program does.

    Every device has those of its own images, and rows count from the first of them.
    """
    shares = weights[:, None] * batch.shares
    rows, hypotheses, kept = significant(shares.reshape(len(shares), -1))
    part = batch.size // len(problem.workers.devices)
    own = itertools.pairwise(np.searchsorted(rows, np.arange(0, batch.size + 1, part)))
    own = [np.arange(first, end) for first, end in own]
    placed, places = np.divmod(hypotheses, problem.hypotheses.n_places)
    mates = problem.hypotheses.place_operators.astype(np.float32).transpose(0, 2, 1)
    everything = (
        (rows % part).astype(np.int32),
        batch.placed_rotations[rows, placed, places] @ mates[places],
        batch.placed_origins_px[rows, placed, places],
        kept.astype(np.float32),
    )
    for begin in range(0, max(len(mine) for mine in own), part):
        some = [mine[begin : begin + part] for mine in own]
        yield Candidates(*(problem.workers.split(_laid_out(x, some, part)) for x in everything))


def _laid_out(values: np.ndarray, places: list[np.ndarray], size: int) -> np.ndarray:
    """The values at each device's places one after another, each padded to one size with zeros."""
    laid = np.zeros((len(places), size, *values.shape[1:]), values.dtype)
    for device, own in enumerate(places):
        laid[device, : len(own)] = values[own]
    return laid.reshape(-1, *values.shape[1:])
