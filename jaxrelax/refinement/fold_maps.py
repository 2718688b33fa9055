"""The map that scores a fold: from the sums of the other folds to the volume of all hypotheses.

On a processor step by step, on an accelerator as one program (see
:mod:`jaxrelax.reconstruction.scoring_maps`); no map leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.engine.program_cache import cached_program
from jaxrelax.imaging import FourierVolume, working_box
from jaxrelax.inference import Hypotheses
from jaxrelax.reconstruction import (
    IsotypicParts,
    MapPrior,
    MaskedRegions,
    Particle,
    Portion,
    ShellSums,
    scoring_volume,
    slice_power,
)
from jaxrelax.refinement.maximisation import total
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State, number


class FoldMap(NamedTuple):
    """What scores a fold.

    Attributes:
        volume: a channel for each row of the table.
        slice_power: E|P V|² per shell of the whole map.
        power: by which the map is expected to tell registers apart, up to a factor.
    """

    volume: FourierVolume
    slice_power: Float[AnyArray, " shells"]
    power: float | Float[AnyArray, ""]


class Held(NamedTuple):
    """Strength of the asymmetric part.

    Attributes:
        factor: of its gain; where its power is held, what it is without.
        power: that it is scaled to; 0 where the factor counts.
    """

    factor: float | Float[AnyArray, ""]
    power: float | Float[AnyArray, ""]


def fold_map(
    problem: Problem, state: State, folds: list[ShellSums], half: int, fold: int
) -> FoldMap:
    """The map without a fold, or the one that is given. It needs all of the problem.

    Args:
        problem, state: before the pass.
        folds: newest sums of the half-set; empty where maps are given.
        half, fold: whose images it scores.
    """
    data, shells, maps = problem.data, problem.shells, state.maps
    rung = shells.rung(state.score_shell)
    shape = (problem.plan.table, rung, shells.box, shells.count)
    if maps.sums is None:
        index = (half * data.n_folds + fold) * len(maps.symmetric) // (2 * data.n_folds)
        parts = IsotypicParts(maps.symmetric[index], maps.asymmetric[index])
        return FoldMap(*_volume(parts, *shape), 0.0)
    if data.cross_fitted:
        folds = folds[:fold] + folds[fold + 1 :]
    portion = Portion(total(folds), maps.sums.weight[half], data.kept_share)
    strength, seen = maps.strength, number(maps.strength.nats_per_power)
    held = 0.0
    if strength.held_nats is not None and seen > 0:
        held = float(strength.held_nats) / seen
    arguments = (maps.sums.prior, portion, Held(float(strength.factor), held))
    made_of = (problem.plan.prior, problem.particle, *shape)
    if on_host(arguments):
        return _made(*made_of)(*arguments, None)
    regions = problem.particle.regions(working_box(portion.sums.max_shell))
    workers = problem.execution.workers
    program = cached_program(lambda: workers.alike(_made(*made_of)), "fold map", workers, *made_of)
    return program(*workers.everywhere((*arguments, regions)))


def _made(
    prior: MapPrior, particle: Particle, table: Hypotheses, rung: int, box: int, n_shells: int
) -> Callable[[Any, Portion, Held], FoldMap]:
    def make(state: Any, portion: Portion, held: Held, regions: MaskedRegions | None) -> FoldMap:
        parts = prior.solve(state, portion, replace(particle, given=regions))
        spectrum = slice_power(parts.asymmetric, box, portion.weight.shape[0])
        xp = np if on_host(parts) else jnp
        power = xp.sum(spectrum * portion.weight)
        # Not the factor is held: as registers sharpen in the course of a pass the map grows, and
        # would be stronger than what its factor was calibrated for.
        scales = xp.sqrt(held.power / xp.where(power > 0, power, 1.0))
        factor = xp.where((held.power > 0) & (power > 0), scales, held.factor)
        parts = IsotypicParts(parts.symmetric, parts.asymmetric * factor.astype(np.float32))
        volume, whole = _volume(parts, table, rung, box, n_shells)
        return FoldMap(volume, whole, power * factor.astype(np.float32) ** 2)

    return make


def _volume(
    parts: IsotypicParts, table: Hypotheses, rung: int, box: int, n_shells: int
) -> tuple[FourierVolume, Float[AnyArray, " shells"]]:
    volume = scoring_volume([parts], table, max_shell=rung, image_box=box)
    return volume, slice_power(parts.symmetric + parts.asymmetric, box, n_shells)
