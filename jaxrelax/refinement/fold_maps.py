"""The map that scores a fold: from the sums of the other folds to the volume of all hypotheses.

On a processor step by step, on an accelerator as one program (see
:mod:`jaxrelax.reconstruction.scoring_maps`); no map leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.engine.program_cache import cached_program
from jaxrelax.imaging import FourierVolume, working_box
from jaxrelax.inference import Hypotheses
from jaxrelax.reconstruction import (
    IsotypicParts,
    MapSums,
    MaskedRegions,
    Particle,
    Portion,
    StatesPrior,
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
        slice_power: E|P V|² per shell of the whole map; of the mean over states.
        power: by which the map is expected to tell registers apart, up to a factor; of the first
            map that has some.
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


class FoldMaps:
    """Makes the maps that score the folds of a half-set; it needs all of the problem.

    What all of them are made with is put on the device once.

    Args:
        problem, state: before the pass.
        half: 0 or 1.
    """

    def __init__(self, problem: Problem, state: State, half: int):
        self.problem, self.state, self.half = problem, state, half
        shells, maps = problem.shells, state.maps
        rung = shells.rung(state.score_shell)
        self._shape = (problem.plan.table, rung, shells.box, shells.count)
        self._with: tuple[Any, ...] = ()
        if maps.sums is None:
            return
        strength, seen = maps.strength, number(maps.strength.nats_per_power)
        power = 0.0
        if strength.held_nats is not None and seen > 0:
            power = float(strength.held_nats) / seen
        weight, held = maps.sums.weight[half], Held(float(strength.factor), power)
        self._with = (maps.sums.prior, weight, held, None)
        if not on_host(maps.sums.prior):
            # Masks are the same for all maps.
            regions = problem.particle.regions(working_box(weight.shape[1] - 1))
            single = jax.tree.map(_single, (maps.sums.prior, weight, held))
            self._with = problem.execution.workers.everywhere((*single, regions))

    def without(self, folds: list[MapSums], fold: int) -> FoldMap:
        """The map without a fold, or the one that is given.

        Args:
            folds: newest sums of the half-set; empty where maps are given.
            fold: whose images it scores.
        """
        problem, maps = self.problem, self.state.maps
        data, plan, workers = problem.data, problem.plan, problem.execution.workers
        if maps.sums is None:
            n_maps = plan.table.n_maps
            given = len(maps.symmetric) // n_maps
            first = (self.half * data.n_folds + fold) * given // (2 * data.n_folds) * n_maps
            parts = maps.parts()[first : first + n_maps]
            return FoldMap(*_volume(parts, *self._shape), 0.0)
        if data.cross_fitted:
            folds = folds[:fold] + folds[fold + 1 :]
        made_of = (plan.prior, problem.of_maps, data.kept_share, *self._shape)
        if on_host(folds):
            return _made(*made_of)(total(folds), *self._with)
        sums = total(folds)
        program = cached_program(
            lambda: workers.alike(_made(*made_of)), "fold map", workers, sums.max_shell, *made_of
        )
        return program(sums, *self._with)


def _single(value) -> np.ndarray:
    """An array with numbers of single precision, if they are not whole."""
    array = np.asarray(value)
    return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array


def _made(
    prior: StatesPrior,
    particles: Sequence[Particle],
    share: float,
    table: Hypotheses,
    rung: int,
    box: int,
    n_shells: int,
) -> Callable[..., FoldMap]:
    # The first map with registers: it is what the strength is of.
    relaxed = next((k for k, one in enumerate(particles) if one.relaxed), 0)

    def make(
        sums: MapSums, state: Any, weight, held: Held, regions: MaskedRegions | None
    ) -> FoldMap:
        seen = [one if regions is None else replace(one, given=regions) for one in particles]
        portions = [Portion(one, own, share) for one, own in zip(sums.maps, weight, strict=True)]
        parts = prior.solve(state, portions, seen)
        spectrum = slice_power(parts[relaxed].asymmetric, box, weight.shape[1])
        xp = np if on_host(parts) else jnp
        power = xp.sum(spectrum * weight[relaxed])
        # Not the factor is held: as registers sharpen in the course of a pass the map grows, and
        # would be stronger than what its factor was calibrated for.
        scales = xp.sqrt(held.power / xp.where(power > 0, power, 1.0))
        factor = xp.where((held.power > 0) & (power > 0), scales, held.factor)
        factor = factor.astype(np.float32)
        parts = [IsotypicParts(one.symmetric, one.asymmetric * factor) for one in parts]
        volume, whole = _volume(parts, table, rung, box, n_shells)
        return FoldMap(volume, whole, power * factor**2)

    return make


def _volume(
    parts: Sequence[IsotypicParts], table: Hypotheses, rung: int, box: int, n_shells: int
) -> tuple[FourierVolume, Float[AnyArray, " shells"]]:
    volume = scoring_volume(parts, table, max_shell=rung, image_box=box)
    whole = [slice_power(one.symmetric + one.asymmetric, box, n_shells) for one in parts]
    return volume, sum(whole[1:], start=whole[0]) / len(whole)
