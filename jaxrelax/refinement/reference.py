"""Preparation of the reference: box and scale."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from jaxrelax.engine.background import background_spectrum
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.streams import batches_at
from jaxrelax.imaging import resample_map
from jaxrelax.io import InputError, read_mask
from jaxrelax.io.mrc_header import read_header
from jaxrelax.reconstruction import slice_power
from jaxrelax.refinement.projection_match import matches

LOG = logging.getLogger("jaxrelax")
PIXEL_TOLERANCE = 0.005
SCALE_TOLERANCE = 2.0
SCALE_SAMPLE = 500


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


def _scaled(reference, factor: float, name: str):
    if 1 / SCALE_TOLERANCE < factor < SCALE_TOLERANCE:
        return reference
    LOG.warning("%s: multiplied by %.4g to match the grey scale of the images", name, factor)
    return (reference * factor).astype(np.float32)
