"""From sums to the volume that scores images: pure functions, on a host or as one program.

On a processor and outside of ``jit`` NumPy, SciPy and FINUFFT do the work; in a program or on an
accelerator the same code is JAX's, and no map leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.geometry import PointGroup
from jaxrelax.imaging import (
    FourierVolume,
    fourier_volume,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.inference import Hypotheses
from jaxrelax.reconstruction.accumulators import ShellSums
from jaxrelax.reconstruction.components import apply_component_gains
from jaxrelax.reconstruction.isotypic import IsotypicParts, isotypic_parts
from jaxrelax.reconstruction.rotate import rotated_maps
from jaxrelax.reconstruction.wiener import wiener_map


def regularised_parts(
    sums: ShellSums,
    inverse_tau2: Float[AnyArray, " shells"],
    gains: Float[AnyArray, "components shells"],
    group: PointGroup,
    subgroup: PointGroup,
    *,
    sphere: Float32[AnyArray, "b b b"],
    symmetric_mask: Float32[AnyArray, "b b b"],
    asymmetric_mask: Float32[AnyArray, "b b b"],
    image_box: int,
    margin: int = 0,
) -> IsotypicParts:
    """The map of some images under an isotypic prior, as symmetric part and the rest.

    Args:
        sums: of the images; the map is on the working box of their last shell.
        inverse_tau2: 1/τ² per shell, of the whole map.
        gains: of the asymmetric part, per isotypic component (:func:`apply_component_gains`).
        group: G, whose symmetric part is one of the two.
        subgroup: H, which is imposed on all.
        sphere: multiplies the map before it is split.
        symmetric_mask, asymmetric_mask: multiply the parts.
        image_box: box of the images.
        margin: last shells over which the map falls to nothing (:func:`wiener_map`).
    """
    split = wiener_parts(
        sums, inverse_tau2, group, subgroup, sphere=sphere, image_box=image_box, margin=margin
    )
    asymmetric = apply_component_gains(split.asymmetric, gains, group)
    return IsotypicParts(split.symmetric * symmetric_mask, asymmetric * asymmetric_mask)


def wiener_parts(
    sums: ShellSums,
    inverse_tau2: Float[AnyArray, " shells"],
    group: PointGroup,
    subgroup: PointGroup,
    *,
    sphere: Float32[AnyArray, "b b b"],
    image_box: int,
    margin: int = 0,
) -> IsotypicParts:
    """:func:`regularised_parts` before gains and masks."""
    map_ = wiener_map(
        sums.accumulator(), inverse_tau2, box=working_box(sums.max_shell), image_box=image_box,
        margin=margin,
    )  # fmt: skip
    if on_host(map_):
        map_ = np.asarray(map_)
    return isotypic_parts(map_ * sphere, group, subgroup)


def scoring_volume(
    parts: Sequence[IsotypicParts], table: Hypotheses, *, max_shell: int, image_box: int
) -> FourierVolume:
    """One channel per hypothesis, in the order of the table's rows.

    A row with operator r at pose A is the map at pose ``A rᵀ``. The symmetric part is the same
    array in every channel of a map, so that interpolation cannot prefer a register; only the
    asymmetric part is turned: ``V_j(x) = S(x) + D(r_j x)``. Maps that reach beyond ``max_shell``
    are resampled, so that one program serves a band whatever was accumulated.

    Args:
        parts: of each of the table's maps.
        table: of the hypotheses.
        max_shell: last shell that scores.
        image_box: box of the images.
    """
    box = working_box(max_shell)
    channels: dict[int, np.ndarray | jax.Array] = {}
    for number, one in enumerate(parts):
        symmetric, asymmetric = (resample_map(part, box) for part in one)
        rows = np.flatnonzero(table.map_index == number)
        inverses = table.operators[rows[~table.symmetrised[rows]]].transpose(0, 2, 1)
        turned = rotated_maps(asymmetric, inverses)
        for row in rows:
            alone = table.symmetrised[row]
            channels[int(row)] = symmetric if alone else symmetric + next(turned)
    ordered = [channels[row] for row in range(len(table))]
    maps = jax.device_put(np.stack(ordered)) if on_host(ordered) else jnp.stack(ordered)
    return fourier_volume(maps, radius=volume_radius(max_shell), image_box=image_box)
