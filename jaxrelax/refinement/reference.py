"""Preparation of references: box, symmetry and scale, and whether states would come apart."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float32

from jaxrelax.engine.background import background_spectrum
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.streams import batches_at
from jaxrelax.geometry import PointGroup
from jaxrelax.imaging import resample_map
from jaxrelax.io import InputError, OpticsGroup, read_map, read_mask
from jaxrelax.io.mrc import require_density
from jaxrelax.io.mrc_header import read_header
from jaxrelax.reconstruction import Particle, isotypic_parts, slice_power
from jaxrelax.refinement.checkpoint import array_hash
from jaxrelax.refinement.projection_match import matches
from jaxrelax.refinement.reference_group import require_group

LOG = logging.getLogger("jaxrelax")
PIXEL_TOLERANCE = 0.005
SCALE_TOLERANCE = 2.0
SCALE_SAMPLE = 500
# Of the power of a map: what differs by less is the same.
SAME = 1e-4


class Map(eqx.Module):
    """A map in memory with its pixel size, wherever a path is accepted.

    Attributes:
        values: (N, N, N) array [z, y, x].
        pixel_size_angstrom: in Å.
        name: what messages call it.
    """

    values: Float32[np.ndarray, "n n n"]
    pixel_size_angstrom: float
    name: str = eqx.field(static=True, default="the reference")


class Reference(NamedTuple):
    """A map to start from, on the images' box; the hash is of what was given."""

    name: str
    values: Float32[np.ndarray, "n n n"]
    hash: str


def prepared_reference(
    given: Map | str | Path,
    groups: tuple[PointGroup, PointGroup],
    optics: OpticsGroup,
    *,
    force: bool,
) -> Reference:
    """A reference that was given, on the images' box; it must have the group that is said.

    Args:
        given: the map, or its path.
        groups: G and H, relaxed from the one to the other, or twice the one that is imposed.
        optics: box and pixel size of the images.
        force: a map without the group is warned of, not refused.

    Raises:
        InputError: no map, no density, another box, or another symmetry.
    """
    name = given.name if isinstance(given, Map) else str(given)
    if isinstance(given, Map):
        values, pixel = np.asarray(given.values, np.float32), given.pixel_size_angstrom
    else:
        values, pixel = read_map(given)
    require_density(values, name)
    # As it was given: what becomes of it below depends on the rounding of a machine.
    before = array_hash(values)
    values = on_box(values, pixel, optics.box, optics.pixel_size_angstrom, name)
    group, kept = groups
    require_group(values, group, name, relaxed=kept.order < group.order, force=force)
    return Reference(name, values, before)


def on_box(
    map_: Float32[np.ndarray, "n n n"],
    pixel_size_angstrom: float,
    box: int,
    target_pixel_angstrom: float,
    name: str,
) -> Float32[np.ndarray, "m m m"]:
    """A map on the images' box, resampled where only the sampling differs.

    Raises:
        InputError: the boxes differ in Å, so that resampling alone cannot match them.
    """
    n = map_.shape[0]
    edge, target = n * pixel_size_angstrom, box * target_pixel_angstrom
    if abs(edge - target) > PIXEL_TOLERANCE * target:
        raise InputError(
            f"{name}: box of {n} px at {pixel_size_angstrom:.4g} Å ({edge:.1f} Å) does not match "
            f"the images' {box} px at {target_pixel_angstrom:.4g} Å ({target:.1f} Å); crop or pad "
            "the map to that edge (relion_image_handler --new_box), or, if its pixel size is "
            "wrong, write the right one into its header (relion_image_handler "
            "--force_header_angpix; for a reference there is --map-pixel-size-angstrom, too)"
        )
    if n == box:
        return map_
    LOG.warning("%s: resampled from %d to %d pixels", name, n, box)
    return np.asarray(resample_map(map_, box))


def load_mask(
    path: str | Path, box: int, pixel_size_angstrom: float, particle_diameter_angstrom: float
) -> Float32[np.ndarray, "m m m"]:
    """Read a mask and bring it on the images' box.

    A mask without pixel size that has their box is taken to have their pixel size, too.

    Raises:
        InputError: as `read_mask` and `on_box`, or there is no particle inside the mask.
    """
    header = read_header(path)
    given = None
    if header.pixel_size_angstrom <= 0:
        if header.shape != (box, box, box):
            raise InputError(
                f"{path}: the header gives no pixel size, and the box is not that of the images "
                f"({box} px). Write it into the header: relion_image_handler --i {path} "
                "--o fixed.mrc --force_header_angpix 2.6 (with the right number)."
            )
        given = pixel_size_angstrom
        LOG.warning("%s: no pixel size in the header; taken as that of the images", path)
    mask, mask_pixel = read_mask(path, given)
    mask = np.clip(on_box(mask, mask_pixel, box, pixel_size_angstrom, str(path)), 0.0, 1.0)
    radius = 0.5 * particle_diameter_angstrom
    squares = (pixel_size_angstrom * (np.arange(box) - box // 2)) ** 2
    within = squares[:, None, None] + squares[:, None] + squares <= radius**2
    highest = float(mask[within].max(initial=0.0))
    if highest < 0.5:
        raise InputError(
            f"{path}: the mask lies outside the particle: within {radius:.0f} Å of the "
            f"centre it is nowhere above {highest:.3g}. Give a mask in the frame of the "
            "reference, or a larger --particle-diameter."
        )
    return mask


def matched_scale(
    execution: Execution,
    low: Float32[np.ndarray, "b b b"],
    reference: Float32[np.ndarray, "n n n"],
    max_shell: int,
    *,
    seed: int,
    name: str,
) -> Float32[np.ndarray, "n n n"]:
    """The reference on the absolute scale of the images.

    The scale is the least-squares factor of its projections at the consensus poses, over a sample
    of images. Within a factor of two the map is left as it is: errors of the poses alone lower the
    factor.

    Args:
        execution: images at their poses.
        low: the reference as far as it is used at first (:func:`low_passed`).
        reference: what is scaled.
        max_shell: last shell that is compared.
        seed: of the sample.
        name: of the reference, for messages.

    Raises:
        InputError: the factor is not positive: inverted contrast, or a map of something else.
    """
    cross, power = 0.0, 0.0
    white = np.ones(execution.shells.count)
    particles, rng = execution.data.particles, np.random.default_rng((seed, 4))
    sample = SCALE_SAMPLE // len(particles.optics) + 1
    for group in range(len(particles.optics)):
        rows = np.flatnonzero(particles.optics_group == group)
        rows = np.sort(rng.permutation(rows)[:sample])
        rows = execution.mine(rows)
        for _, products, powers in matches(execution, low, group, rows, max_shell, white):
            cross += float(products.sum())
            power += float(powers.sum())
    cross, power = execution.workers.total((cross, power))
    factor = cross / power if power > 0 else 0.0
    if factor <= 0:
        raise InputError(
            f"{name}: its projections do not match the images at the given poses (scale "
            f"{factor:.3g}); check contrast (particles must be white), pixel size and that the "
            "poses belong to this map"
        )
    return _scaled(reference, factor, name)


def matched_power(
    execution: Execution,
    low: Float32[np.ndarray, "b b b"],
    reference: Float32[np.ndarray, "n n n"],
    max_shell: int,
    *,
    seed: int,
    name: str,
) -> Float32[np.ndarray, "n n n"]:
    """The reference on the absolute scale of images whose poses are not known.

    The scale is that at which its projections, at random poses and under the CTFs, have the power
    that a sample of images has beyond its background. Arguments as of :func:`matched_scale`.

    Raises:
        InputError: the images have no more power than their background.
    """
    views = slice_power(low, execution.shells.box, execution.shells.count)
    background = background_spectrum(execution, seed)
    white = np.ones(execution.shells.count)
    particles, rng = execution.data.particles, np.random.default_rng((seed, 4))
    sample = SCALE_SAMPLE // len(particles.optics) + 1
    seen, expected = 0.0, 0.0
    for group in range(len(particles.optics)):
        rows = np.flatnonzero(particles.optics_group == group)
        rows = np.sort(rng.permutation(rows)[:sample])
        rows = execution.mine(rows)
        geometry = execution.geometry(group, max_shell, max_shell)
        # The zero frequency is what normalisation made of it.
        weight = geometry.packing.multiplicity * (geometry.packing.shell > 0)
        for chosen, batch, _, _ in batches_at(execution, group, rows, geometry, white):
            m = len(chosen)
            power = (
                np.abs(np.asarray(batch.data[:m])) ** 2 - background[group][geometry.slice_shell]
            )
            seen += float(np.sum(weight * power))
            ctf2 = np.asarray(batch.ctf[:m], np.float64) ** 2
            expected += float(np.sum(weight * ctf2 * views[geometry.slice_shell]))
    seen, expected = execution.workers.total((seen, expected))
    if seen <= 0 or expected <= 0:
        raise InputError(
            f"{name}: up to {execution.shells.resolution(max_shell):.1f} Å the images have no more "
            "power than their background, so nothing can be aligned; check the particle diameter "
            "and that the images show particles"
        )
    return _scaled(reference, float(np.sqrt(seen / expected)), name)


def require_apart(
    of_maps: Sequence[Particle], low: Sequence[Float32[np.ndarray, "b b b"]], names: Sequence[str]
) -> None:
    """Refuse references from which states would stay alike, or registers.

    Args:
        of_maps: what every state is of.
        low: references as far as they are used at first.
        names: of the references.

    Raises:
        InputError: names the references.
    """
    power = [float(np.sum(np.square(one, dtype=np.float64))) for one in low]
    for first, second in itertools.combinations(range(len(low)), 2):
        same = of_maps[first].group == of_maps[second].group
        same &= of_maps[first].subgroup == of_maps[second].subgroup
        apart = float(np.sum(np.square(low[first] - low[second], dtype=np.float64)))
        if same and apart < SAME * power[first]:
            raise InputError(
                f"{names[first]} and {names[second]}: up to the resolution that is used at first "
                f"these are one map, and classes {first + 1} and {second + 1} would stay alike. "
                "Give other maps, or one reference for all states, which then find differences."
            )
    for number, (of, one) in enumerate(zip(of_maps, low, strict=True)):
        if not of.relaxed:
            continue
        asymmetric = isotypic_parts(one, of.group, of.subgroup).asymmetric
        if float(np.sum(np.square(asymmetric, dtype=np.float64))) < SAME * power[number]:
            raise InputError(
                f"{names[number]}: class {number + 1} is relaxed from {of.group.name}, and this "
                "reference is symmetric, so that no register would be told from another. Give a "
                f"map of which something breaks the symmetry, or classify with {of.group.name} "
                "imposed on this state, and relax what is found in it."
            )


def _scaled(reference, factor: float, name: str):
    if 1 / SCALE_TOLERANCE < factor < SCALE_TOLERANCE:
        return reference
    LOG.warning("%s: multiplied by %.4g to match the grey scale of the images", name, factor)
    return (reference * factor).astype(np.float32)
