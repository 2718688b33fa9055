"""What may be exchanged with what in the symmetry test, where rows share noise.

The noise of a unit (a tube, or the copies of an image) does not know how its particles were
oriented, but its rows know of each other. So units take the orientations of other units as a
whole, in their order, and what is summed and permuted is the score of a unit.
"""

from __future__ import annotations

import numpy as np
import scipy.stats
from jaxtyping import Float, Float64, Int

from jaxrelax.inference import PermutationTest, derangements, permutation_test
from jaxrelax.io import Units


def foreign_rows(
    units: Units, rows: Int[np.ndarray, " m"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "m others"]:
    """Rows whose orientations each of some rows is given, none of its own unit.

    The k-th row of a unit is given the orientation of the k-th row of another unit, from the
    start again where that one is shorter.

    Args:
        units: of the whole table.
        rows: of a half-set and optics group.
        count: foreign orientations wanted; there are no more than other units.
        rng: source of the draw.

    Returns:
        No columns where there are fewer than three units.
    """
    unit, of_row = np.unique(units.unit[rows], return_inverse=True)
    of_row = of_row.reshape(-1)
    if len(unit) < 3:
        return np.zeros((len(rows), 0), int)
    if len(unit) == len(rows):
        return rows[derangements(len(rows), count, rng)]
    # Rows unit by unit, in the order of the tube.
    order = np.lexsort((units.along[rows], of_row))
    sizes = np.bincount(of_row)
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(rows), int)
    place[order] = np.arange(len(rows)) - np.repeat(starts, sizes)
    other = derangements(len(unit), count, rng)[of_row]
    return rows[order[starts[other] + place[:, None] % sizes[other]]]


def along_own_axis(
    own: Float[np.ndarray, "m 3 3"], foreign: Float[np.ndarray, "m others 3 3"]
) -> Float[np.ndarray, "m others 3 3"]:
    """Foreign orientations, turned in the plane so that the z axis lies as it does in the image.

    A segment shows where its tube lies: neighbouring segments are in its noise. So only what it
    does not show is exchanged, the turn about the axis and the tilt.
    """
    angle = np.arctan2(own[:, 1, 2], own[:, 0, 2])[:, None]
    angle = angle - np.arctan2(foreign[..., 1, 2], foreign[..., 0, 2])
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.array(foreign)
    turned[..., 0, :] = cos[..., None] * foreign[..., 0, :] - sin[..., None] * foreign[..., 1, :]
    turned[..., 1, :] = sin[..., None] * foreign[..., 0, :] + cos[..., None] * foreign[..., 1, :]
    return turned


def unit_test(
    unit: Int[np.ndarray, " n"],
    own: Float[np.ndarray, " n"],
    foreign: Float[np.ndarray, "n others"],
    rng: np.random.Generator,
) -> PermutationTest:
    """:func:`permutation_test` with the sums over units as what is permuted.

    Where rows share units there may be few units, or one that is most of all: p is then no
    smaller than the tail of Student's distribution with the degrees of freedom that the foreign
    sums have (Welch 1947 and Satterthwaite 1946).

    Args:
        unit: number of the unit of every row.
        own, foreign: scores, as for :func:`permutation_test`.
        rng: source of the draws.
    """
    _, of_row = np.unique(unit, return_inverse=True)
    of_row = of_row.reshape(-1)
    if of_row.max(initial=-1) + 1 == len(unit):
        return permutation_test(own, foreign, rng)
    sums = _sums(of_row, np.concatenate([own[:, None], foreign], axis=1))
    test = permutation_test(sums[:, 0], sums[:, 1:], rng)
    if test.deviation == 0.0:
        return test
    variance = sums[:, 1:].var(axis=1, ddof=1)
    freedom = variance.sum() ** 2 / np.sum(variance**2) * (foreign.shape[1] - 1)
    tail = scipy.stats.t.logsf(test.excess / test.deviation, freedom) / np.log(10.0)
    return test._replace(log10_p=max(test.log10_p, float(tail)))


def _sums(
    of_row: Int[np.ndarray, " n"], values: Float[np.ndarray, "n columns"]
) -> Float64[np.ndarray, "units columns"]:
    sums = np.zeros((of_row.max() + 1, values.shape[1]))
    np.add.at(sums, of_row, values)
    return sums
