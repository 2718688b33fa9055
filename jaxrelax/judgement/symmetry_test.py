"""Which symmetry do the images know of? Permutation tests over the subgroups between H and G.

Images of one half-set are judged by the map of the other, split into what is invariant under the
tested subgroup (taken for granted) and the rest (tested): see docs/theory.md, "Is the asymmetry
real?". What a map contributes to the test, its conjugate of the subgroup included, comes from that
map alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Float64, Int

from jaxrelax.engine.data import Data
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.memory import give_back_freed
from jaxrelax.engine.program_cache import cached_program
from jaxrelax.engine.side_by_side import Side, both, one_by_one
from jaxrelax.engine.streams import Conditions, prepared_batches
from jaxrelax.engine.workers import ALL, EACH, Workers
from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    extract_parts,
    fourier_volume,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.inference import (
    ForeignSlices,
    PermutationTest,
    combined_log10_p,
    orientation_scores,
)
from jaxrelax.judgement.exchange import along_own_axis, foreign_rows, unit_test
from jaxrelax.judgement.subgroup_classes import Split
from jaxrelax.judgement.verdict import SubgroupTest
from jaxrelax.reconstruction import Particle, rotated_maps

PERMUTATIONS = 24
# Nats per image. An asymmetric part that says less than this is rounding, not even noise.
LEAST_INFORMATION = 1e-6
# Of a half-set and optics group: with more of them every image makes its foreign ones again.
MOST_SLICE_BYTES = 2**28


class Scores(NamedTuple):
    """Scores of the images of a half-set and optics group in one test."""

    half: int
    rows: Int[np.ndarray, " m"]
    own: Float32[np.ndarray, " m"]
    foreign: Float32[np.ndarray, "m others"]
    best: Int[np.ndarray, " m"]  # most probable register under the judging map
    information: Float32[np.ndarray, " m"]
    unit: Int[np.ndarray, " m"]  # rows of a unit share noise, see `Units`


def exchanges(
    data: Data, permutations: int, seed: int
) -> Iterator[tuple[int, int, Int[np.ndarray, " m"], Int[np.ndarray, "m others"]]]:
    """(half, optics group, rows, rows whose orientations they are given), alike at every call.

    An image needs two of other units in its half-set and optics group to be tested.
    """
    for half in (1, 2):
        for group, rows in data.batches(half, None):
            rng = np.random.default_rng((seed, 8, half, group))
            others = foreign_rows(data.units, rows, permutations, rng)
            if others.shape[1] > 0:
                yield half, group, rows, others


def scores(
    execution: Execution,
    particle: Particle,
    conditions: Conditions,
    maps: list[Split],
    permutations: int,
    *,
    seed: int,
    max_shell: int,
) -> list[Scores]:
    """Every image at its own and at foreign orientations, against the map of the other half-set.

    Processes share the images, and all get the whole result.

    Args:
        execution: the images.
        particle: whose registers the maps are turned by.
        conditions: poses, noise and band.
        maps: the map that judges half-set 1, and the one that judges half-set 2.
        permutations: foreign orientations per image; fewer where there are fewer images.
        seed: of their draw.
        max_shell: last shell to which images are prepared, at least the scored band; that of the
            pass before, whose program then serves.

    Returns:
        One entry per half-set and optics group.
    """
    rung = execution.shells.rung(conditions.score_shell)
    give_back_freed()
    plan = list(exchanges(execution.data, permutations, seed))
    found = [_nothing_scored(rows, others) for _, _, rows, others in plan]

    def score(of_half: int, side: Side) -> None:
        volumes = _volumes(particle, maps[of_half - 1], rung)
        for (half, group, rows, others), columns in zip(plan, found, strict=True):
            if half != of_half:
                continue
            for seen, *values in _scored(
                execution, conditions, volumes, group, rows, others, max_shell
            ):
                for column, new in zip(columns, values, strict=True):
                    column[np.searchsorted(rows, seen)] = new
                side.go_on()
                if side.stopped:
                    return

    # Side by side both half-sets have a volume of either part.
    parts = 1 if maps[0].preserved is None else 2
    alone = one_by_one(execution, conditions.score_shell, channels=2 * parts * particle.n_registers)
    both(partial(score, 1), partial(score, 2), alone=alone)
    return [
        Scores(
            half,
            rows,
            *execution.workers.rows(columns, execution.own[rows]),
            unit=execution.data.units.unit[rows],
        )
        for (half, _, rows, _), columns in zip(plan, found, strict=True)
    ]


def _nothing_scored(rows: Int[np.ndarray, " m"], others: Int[np.ndarray, "m others"]):
    """Own and foreign scores, registers and information of images that were not yet scored."""
    return (
        np.zeros(len(rows), np.float32),
        np.zeros(others.shape, np.float32),
        np.zeros(len(rows), int),
        np.zeros(len(rows), np.float32),
    )


def informative(found: list[Scores]) -> bool:
    """Whether the tested part can change a likelihood by more than rounding."""
    images = sum(len(one.rows) for one in found)
    information = sum(float(one.information.sum(dtype=np.float64)) for one in found)
    return information > LEAST_INFORMATION * images


def subgroup_test(
    name: str,
    operators: Float64[np.ndarray, "order 3 3"],
    found: list[Scores],
    rng: np.random.Generator,
) -> SubgroupTest:
    """The test of one subgroup from the scores of both half-sets.

    Args:
        name, operators: of the subgroup.
        found: from :func:`scores`.
        rng: source of the draws.
    """
    if not informative(found):
        return SubgroupTest(name, operators, z_score=0.0, p_value=1.0, log10_p=0.0, nats=0.0)
    halves = [_half_test([one for one in found if one.half == half], rng) for half in (1, 2)]
    log10_p = combined_log10_p(halves)
    excess = sum(half.excess for half in halves)
    return SubgroupTest(
        name,
        operators,
        z_score=excess / float(np.linalg.norm([half.deviation for half in halves])),
        p_value=10.0**log10_p,
        log10_p=log10_p,
        nats=excess / sum(len(one.rows) for one in found),
    )


def _half_test(found: list[Scores], rng: np.random.Generator) -> PermutationTest:
    # Optics groups of few images have few foreign orientations.
    fewest = min(one.foreign.shape[1] for one in found)
    own, unit = (np.concatenate([getattr(one, name) for one in found]) for name in ("own", "unit"))
    return unit_test(unit, own, np.concatenate([one.foreign[:, :fewest] for one in found]), rng)


def _volumes(particle: Particle, map_: Split, shell: int) -> tuple[FourierVolume, FourierVolume]:
    """Base and tested part; channel j at pose A is the map at pose ``A r_jᵀ``."""

    def turned(part):
        return np.stack(
            list(rotated_maps(part, particle.registers.representatives.transpose(0, 2, 1)))
        )

    box = working_box(shell)
    base = resample_map(map_.symmetric, box)[None]
    if map_.preserved is not None:
        base = base + turned(resample_map(map_.preserved, box))
    tested = turned(resample_map(map_.tested, box))
    transform = partial(fourier_volume, radius=volume_radius(shell), image_box=particle.box)
    return transform(jax.device_put(base)), transform(jax.device_put(tested))


def _scored(execution: Execution, conditions: Conditions, volumes, group, rows, others, max_shell):
    """Stream this process's images of one optics group.

    Yields:
        rows, own, foreign, best, information.
    """
    workers = execution.workers
    geometry = execution.geometry(group, max_shell, execution.shells.rung(conditions.score_shell))
    pixel = execution.optics[group].pixel_size_angstrom
    size = execution.batch_size(geometry.n_inner)
    chunk = min(execution.chunk_size(geometry.n_inner), size)
    made_of = (geometry.inner(), chunk, workers)
    base, tested = workers.everywhere(volumes)
    units = execution.data.units
    # Every orientation is foreign to many images: where their slices fit they are made only once.
    shared = units.tube_column is None and (
        8 * tested.channels * geometry.n_inner * len(rows) <= MOST_SLICE_BYTES
    )
    slices = None
    if shared:
        extract = cached_program(lambda: _slices_program(*made_of), "foreign slices", *made_of)
        seen = np.concatenate([rows, np.full(-len(rows) % size, rows[0])])
        slices = workers.everywhere(
            extract(tested, workers.split(conditions.rotations[seen].astype(np.float32)))
        )
    score = cached_program(
        lambda: _program(*made_of, shared), "orientation scores", *made_of, shared
    )
    for batch in prepared_batches(
        execution,
        group,
        execution.mine(rows),
        geometry,
        conditions.noise_power[group],
        conditions.score_shell,
        size,
    ):
        m, padded = len(batch.rows), batch.padded
        foreign = others[np.searchsorted(rows, padded)]
        if shared:
            foreign = np.searchsorted(rows, foreign).astype(np.int32)
        else:
            foreign = conditions.rotations[foreign].astype(np.float32)
        if units.tube_column is not None:
            foreign = along_own_axis(conditions.rotations[padded], foreign).astype(np.float32)
        found = score(
            base, tested, batch.scored.weights, slices,
            (
                batch.scored.data, batch.scored.ctf, batch.scored.valid,
                workers.split(conditions.rotations[padded].astype(np.float32)),
                workers.split((conditions.origins_angstrom[padded] / pixel).astype(np.float32)),
                workers.split(foreign),
            ),
        )  # fmt: skip
        yield (
            batch.rows,
            np.asarray(found.own)[:m],
            np.asarray(found.foreign)[:m],
            np.asarray(found.log_evidence)[:m].argmax(axis=1),
            np.asarray(found.information)[:m],
        )


def _slices_program(geometry: ImageGeometry, chunk: int, workers: Workers):
    """Compiled slices of the tested part, made in chunks."""

    def program(tested, rotations):
        found = jax.lax.map(
            lambda some: extract_parts(tested, some, geometry.slice_wavevectors),
            rotations.reshape(-1, chunk, 3, 3),
        )
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    return workers.program(program, (ALL, EACH), EACH)


def _program(geometry: ImageGeometry, chunk: int, workers: Workers, shared: bool):
    """Compiled scores of one geometry, worked through in chunks whose temporaries fit the cache."""

    def program(base, tested, weights, slices, parts):
        def one_chunk(part):
            data, ctf, valid, rotations, origins_px, others = part
            images = ImageBatch(data, ctf, weights, valid)
            if shared:
                others = ForeignSlices(slices, others)
            return orientation_scores(base, tested, images, geometry, rotations, origins_px, others)

        chunked = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), parts)
        found = jax.lax.map(one_chunk, chunked)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    return workers.program(program, (ALL, ALL, ALL, ALL, EACH), EACH)
