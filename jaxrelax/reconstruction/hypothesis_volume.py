"""From maps to the volume that images are scored against: one channel for each hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup, is_axis_aligned_permutation
from jaxrelax.imaging import FourierVolume, fourier_volume, volume_radius, working_box
from jaxrelax.imaging.volume import resampled
from jaxrelax.inference import Hypotheses
from jaxrelax.reconstruction.ball import permuted
from jaxrelax.reconstruction.turning import average_over, turned_maps

OPERATOR_TOLERANCE = 1e-4  # of the entries of two operators that are the same


def hypothesis_volume(
    maps: Float[AnyArray, "maps n n n"],
    table: Hypotheses,
    groups: Sequence[PointGroup],
    *,
    max_shell: int,
    image_box: int,
) -> FourierVolume:
    """One channel for each row of a table of hypotheses; differentiable in the maps.

    A row with operator r at pose A is the map at the pose ``A rᵀ``: ``V_j(x) = S(x) + D(r_j x)``,
    where S is the map's average over its group and D the rest. The symmetric part is the same
    array in every channel, so that interpolation cannot prefer a register; only D is turned. A row
    of the symmetric part is S alone.

    Args:
        maps: the table's maps, of an even box.
        table: see :attr:`jaxrelax.inference.Model.table`.
        groups: one for each map, over which its symmetric part is the average.
        max_shell: last shell that slices reach; maps are resampled to what that needs.
        image_box: see :func:`jaxrelax.imaging.fourier_volume`.

    Raises:
        ValueError: there are not as many maps and groups as the table has, or a row is turned by
            an operator that its map's group does not have.
    """
    maps = jnp.asarray(maps)
    needed = int(table.map_index.max()) + 1
    if not len(maps) == len(groups) == needed:
        raise ValueError(
            f"the table has {needed} maps; given were {len(maps)}, and {len(groups)} groups"
        )
    box = working_box(max_shell)
    channels: list[Array] = [maps[0]] * len(table)
    for number, group in enumerate(groups):
        mine = np.flatnonzero(table.map_index == number)
        _require_operators(table.operators[mine], group)
        whole = resampled(maps[number], box)
        symmetric = average_over(whole, group)
        turned = mine[~table.symmetrised[mine]]
        inverses = table.operators[turned].transpose(0, 2, 1)
        for row in mine[table.symmetrised[mine]]:
            channels[row] = symmetric
        for row, asymmetric in zip(turned, _turned(whole - symmetric, inverses), strict=True):
            channels[row] = symmetric + asymmetric
    return fourier_volume(jnp.stack(channels), radius=volume_radius(max_shell), image_box=image_box)


def _turned(map_: Float[Array, "n n n"], rotations: Float[np.ndarray, "m 3 3"]) -> list[Array]:
    """The map turned by each rotation; those that permute the axes are exact."""
    exact = np.array([is_axis_aligned_permutation(rotation) for rotation in rotations], bool)
    others = iter(())
    if not exact.all():
        others = iter(turned_maps(map_, jnp.asarray(rotations[~exact], map_.dtype)))
    return [
        jnp.asarray(permuted(map_, rotation)) if by_axes else next(others)
        for rotation, by_axes in zip(rotations, exact, strict=True)
    ]


def _require_operators(operators: Float[np.ndarray, "rows 3 3"], group: PointGroup) -> None:
    apart = np.abs(operators[:, None] - group.operators[None]).max(axis=(2, 3)).min(axis=1)
    if apart.max() > OPERATOR_TOLERANCE:
        raise ValueError(
            f"a hypothesis is turned by an operator that {group.name} does not have; give the "
            "group that the registers are of"
        )
