"""The E-step: score every image against maps without it, and accumulate it under its posterior.

One implementation for every mode and for the final full-resolution pass. Images of one half-set
and fold share the map that leaves their fold out. Folds are gone through one after another, and
each is scored against the newest sums of the others: *incremental* EM (Neal & Hinton, in Jordan,
Learning in Graphical Models, 1998, 355). A pass then moves as far as two that use the old sums.
Half-sets know nothing of each other, so that they are gone through side by side where there is
room: a processor's cores, or the host and its accelerator, have work for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.engine.memory import give_back_freed
from jaxrelax.engine.programs import deposit_program
from jaxrelax.engine.side_by_side import Side, both, one_by_one
from jaxrelax.imaging import volume_radius
from jaxrelax.inference import Stats
from jaxrelax.reconstruction import (
    MapSums,
    ShellSums,
    completed_sums,
    empty_accumulator,
)
from jaxrelax.refinement.claims import (
    Scores,
    StateScores,
    exclude_now,
    make_joint,
    prior_of_images,
)
from jaxrelax.refinement.fold_maps import FoldMaps
from jaxrelax.refinement.pass_results import keep, learned, record
from jaxrelax.refinement.pose_schedule import pose_search
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.scoring import (
    prior_widths,
    scored_batches,
)
from jaxrelax.refinement.state import Claimed, State

# Of an expectation: sums over images, and of what was expected from the maps.
SUMMED = (
    "residual", "count", "rotation_moment_rad2", "shift_moment_angstrom2", "counted", "nats",
    "power",
)  # fmt: skip
PER_IMAGE = (
    "rotations", "origins_angstrom", "mode_rotations", "mode_origins_angstrom", "registers",
    "symmetric", "junk", "log_gain", "log_marginal",
)  # fmt: skip


@dataclass
class Expectation:
    """Results of one pass over all images."""

    sums: list[list[MapSums]]  # [half][fold]
    rotations: Float64[np.ndarray, "n 3 3"]  # of the best register, without its operator
    origins_angstrom: Float64[np.ndarray, "n 2"]
    mode_rotations: Float32[np.ndarray, "n modes 3 3"]  # the same of all modes
    mode_origins_angstrom: Float32[np.ndarray, "n modes 2"]
    registers: Float32[np.ndarray, "n places"]  # of every map
    symmetric: Float32[np.ndarray, " n"]
    junk: Float32[np.ndarray, " n"]
    log_gain: Float32[np.ndarray, " n"]
    log_marginal: Float64[np.ndarray, " n"]  # log-evidence of everything, up to the images' own
    residual: Float64[np.ndarray, "groups shells"]
    count: Float64[np.ndarray, "groups shells"]
    # What every latent has learned, by its name; nothing before the first batch.
    latents: Mapping[str, Any] = field(default_factory=dict)
    # Posterior mean squared offset from the centre of the prior, per axis.
    rotation_moment_rad2: float = 0.0
    shift_moment_angstrom2: float = 0.0
    counted: float = 0.0  # images, junk by its probability
    nats: float = 0.0  # mean squared distance between a register's view and the symmetrised one
    power: float = 0.0  # what was expected of it from the maps, up to a factor
    # Where copies of one parent exclude each other.
    scores: Scores | None = None
    claimed: Claimed | None = None

    @property
    def nats_per_power(self) -> float | None:
        """The factor; None where the maps tell no registers apart."""
        return self.nats / self.power if self.power > 0 and self.nats > 0 else None

    @property
    def exclusive(self) -> int | None:
        """The state that excludes itself, if one does yet."""
        if self.claimed is None or self.claimed.state is None:
            return None
        return int(self.claimed.state)


def expectation(
    problem: Problem,
    state: State,
    accumulate_shell: int,
    *,
    n_folds: int | None = None,
    weights_override: Float32[np.ndarray, "n places"] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Expectation:
    """One pass over the images; it needs all of the problem.

    Args:
        problem, state: inputs and current sums or maps, noise, poses.
        accumulate_shell: last shell accumulated (at least the scored band).
        n_folds: sums per half-set; by default the problem's folds. 1 joins the folds: the scores
            are still cross-fitted, only the sums are not kept apart (nor used before the end).
        weights_override: weights of places to accumulate with instead of the posterior (for the
            first iteration, before any map tells registers apart).
        on_batch: called with the number of images done by this process, from either half-set's
            thread but never from both at once.

    Returns:
        the whole result, in every process: each goes through its own images.

    Raises:
        WorkerLost: another process has ended.
    """
    give_back_freed()  # of what came before: volumes are made next
    data, n = problem.data, len(problem.data)
    modes = pose_search(problem, state).modes
    result = Expectation(
        sums=[],
        rotations=np.array(state.poses.rotations),
        origins_angstrom=np.array(state.poses.origins_angstrom),
        mode_rotations=np.zeros((n, modes, 3, 3), np.float32),
        mode_origins_angstrom=np.zeros((n, modes, 2), np.float32),
        registers=np.zeros((n, problem.plan.table.n_places), np.float32),
        symmetric=np.zeros(n, np.float32),
        junk=np.zeros(n, np.float32),
        log_gain=np.zeros(n, np.float32),
        log_marginal=np.zeros(n),
        residual=np.zeros_like(state.noise_power),
        count=np.zeros_like(state.noise_power),
    )
    if exclude_now(problem, state):
        result.scores = Scores(
            np.zeros((n, len(problem.of_maps))), np.zeros(n), np.zeros_like(result.registers)
        )
    image_prior = prior_of_images(problem, state)
    sums = state.maps.sums
    latest = [[], []] if sums is None else sums.by_half()
    passes = [
        _HalfPass(
            problem, state, half, accumulate_shell,
            keep_folds=data.n_folds if n_folds is None else n_folds,
            weights_override=weights_override,
            image_prior=image_prior,
            latest=latest[half],
            # Rows of images are written into the same arrays, sums are each half-set's own.
            result=replace(
                result, sums=[[]], residual=np.zeros_like(result.residual),
                count=np.zeros_like(result.count),
            ),
        )
        for half in (0, 1)
    ]  # fmt: skip
    first, second = (partial(one.run, on_batch=on_batch) for one in passes)
    both(first, second, alone=one_by_one(problem.execution, state.score_shell))
    for one in passes:
        result.sums += one.result.sums
        for name in SUMMED:
            setattr(result, name, getattr(result, name) + getattr(one.result, name))
    latents = [one.result.latents for one in passes if one.result.latents]
    if latents:
        result.latents = jax.tree.map(lambda *each: np.sum(np.stack(each), axis=0), *latents)
    _put_together(problem, result)
    make_joint(problem, state, result)
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
    weights_override: Float32[np.ndarray, "n places"] | None
    image_prior: Float32[np.ndarray, "n rows"] | None
    latest: list[MapSums]  # newest sums of the folds; empty in the first iteration
    result: Expectation
    _stats: dict[int, Stats] = field(default_factory=dict)  # by optics group, on the devices

    def run(self, side: Side, on_batch: Callable[[int], None] | None) -> None:
        """Go through the folds, unless the other half-set fails."""
        problem, state, result = self.problem, self.state, self.result
        data, execution, table = problem.data, problem.execution, problem.plan.table
        workers, shell = execution.workers, self.accumulate_shell
        radius = volume_radius(shell)
        search = pose_search(problem, state)
        score_rung = problem.shells.rung(state.score_shell)
        maps, powers = FoldMaps(problem, state, self.half), []
        for fold in range(data.n_folds):
            groups = data.batches(self.half + 1, fold)
            made = maps.without(self.latest, fold)
            powers.append(made.power)
            power = made.slice_power.astype(np.float32)
            params = problem.plan.model.in_view(state.latents, power)
            scores = None if result.scores is None else StateScores(problem, params)
            if self.keep_folds > 1 or fold == 0:
                accumulators = tuple(
                    workers.one_each(empty_accumulator(radius)) for _ in range(table.n_maps)
                )
            for group, all_rows in groups:
                rows = execution.mine(all_rows)
                geometry = execution.geometry(group, shell, score_rung)
                insert = deposit_program(execution, geometry, table)
                for batch in scored_batches(
                    problem, state, made.volume, group, rows, geometry, search, params,
                    self.weights_override, self.image_prior,
                ):  # fmt: skip
                    accumulators = insert(accumulators, batch.images, batch.placed)
                    pixel = execution.optics[group].pixel_size_angstrom
                    record(table, batch, pixel, result)
                    if scores is not None:
                        keep(scores(batch.found), batch.rows, result.scores)
                    self._learn(group, batch.stats)
                    if on_batch is not None:
                        side.call(on_batch, len(batch.rows))
                    if group == groups[-1][0]:
                        side.go_on()
                    if side.stopped:
                        return
            del made  # a volume is not held while sums are completed and the next is made
            if self.keep_folds > 1 or fold == data.n_folds - 1:
                # Map by map, each grid given back before the next sums are made of theirs.
                done = []
                for grid in accumulators:
                    own = completed_sums(workers.summed(grid), shell)
                    done.append(ShellSums(workers.total(own.values), shell))
                done = MapSums(tuple(done))
                result.sums[0].append(done)
                if self.keep_folds > 1 and self.latest:
                    self.latest[fold] = done.resized(self.latest[fold].max_shell)
                del accumulators, grid, own
            give_back_freed()
        result.power += float(sum(map(float, powers))) / (2 * data.n_folds)
        for group, stats in self._stats.items():
            geometry = execution.geometry(group, shell, score_rung)
            widths = prior_widths(state.poses, search)
            learned(result, group, geometry, jax.device_get(stats), widths)

    def _learn(self, group: int, stats: Stats) -> None:
        known = self._stats.get(group)
        self._stats[group] = stats if known is None else _added(known, stats)


_added = jax.jit(lambda one, other: jax.tree.map(lambda x, y: x + y, one, other))


def _put_together(problem: Problem, result: Expectation):
    """Per-image results and sums of all processes, in place; the sums by fold have been added."""
    workers, own = problem.execution.workers, problem.execution.own
    for names, joined in (
        (PER_IMAGE, lambda array: workers.rows(array, own)),
        ((*(name for name in SUMMED if name != "power"), "latents"), workers.total),
        (("power",), workers.agreed),
    ):
        for name in names:
            setattr(result, name, joined(getattr(result, name)))
    if result.scores is not None:
        result.scores = Scores(*(workers.rows(array, own) for array in result.scores))
