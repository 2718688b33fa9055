"""One look at every image before anything is made of it: is it usable, is it normalised?

A scale or an offset that some of the images have of their own makes the noise of their whole group
wrong, however few they are: one image multiplied by a hundred has the power of ten thousand. So
all are read, and each optics group is judged by what its images would do to its noise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float64, Int

from jaxrelax.engine.execution import Execution
from jaxrelax.engine.workers import Workers
from jaxrelax.imaging import background_statistics
from jaxrelax.io import ImageReader, InputError, Particles, drop_bad_images, prefetch

LOG = logging.getLogger("jaxrelax")

# A background is off when its mean is further from 0, or its deviation from 1, than this.
TOLERANCE = 0.2
# ... and far off beyond these: no choice of the background's circle explains it.
FAR_MEAN, FAR_FACTOR = 0.5, 1.5
# Images far off that are left in a group: this share of it, and of its background's power.
MOST_IMAGES, MOST_POWER = 0.01, 0.05
# A pixel so many deviations of the background away is none of the particle's. Where particles are
# as far away (images almost without noise), so many times what their pixels are.
PEAK, PEAK_FACTOR = 100.0, 10.0
# A background is constant when its corners vary by less than this of the image's range.
CONSTANT = 1e-6
# Of images in a batch.
BATCH_BYTES = 2**26

NOT_FINITE, EQUAL, CONSTANT_BACKGROUND = (
    "NaN or infinite pixels",
    "all pixels are equal",
    "the background around the particle is constant",
)


class Statistics(NamedTuple):
    """A row for every particle; see `jaxrelax.imaging.background_statistics`."""

    mean: Float64[np.ndarray, " n"]
    deviation: Float64[np.ndarray, " n"]
    peak: Float64[np.ndarray, " n"]
    spread: Float64[np.ndarray, " n"]
    corner_spread: Float64[np.ndarray, " n"]
    usual_peak: Float64[np.ndarray, " n"]

    @property
    def power(self) -> Float64[np.ndarray, " n"]:
        """Mean square of the background: what an image adds to the noise as it is."""
        return self.mean**2 + self.deviation**2

    @property
    def off(self) -> Float64[np.ndarray, " n"]:
        """How far a background is from normalised."""
        return np.maximum(np.abs(self.mean), np.abs(self.deviation - 1.0))

    @property
    def far_off(self) -> Bool[np.ndarray, " n"]:
        """Which backgrounds nobody has normalised."""
        near = (self.deviation > 1 / FAR_FACTOR) & (self.deviation < FAR_FACTOR)
        return ~near | (np.abs(self.mean) > FAR_MEAN)


def same_images(
    particles: Particles, statistics: Statistics, source: Int[np.ndarray, " n"], chunk: int = 256
) -> Bool[np.ndarray, " n"]:
    """Rows that show, pixel by pixel, what an earlier row shows under another name.

    Args:
        particles: the table.
        statistics: of its images; those that have the same are read again and compared.
        source: number of what a row is known to show, see `Units.source`.
        chunk: images that are read at once.
    """
    _, first, inverse = np.unique(
        np.stack(statistics, axis=1), axis=0, return_index=True, return_inverse=True
    )
    leader = first[inverse.reshape(-1)]
    same = np.zeros(len(source), bool)
    pairs = np.flatnonzero(source != source[leader])
    boxes = np.array([group.box for group in particles.optics])[particles.optics_group]
    pairs = pairs[boxes[pairs] == boxes[leader[pairs]]]
    with ImageReader(particles) as reader:
        for box in np.unique(boxes[pairs]):
            of_box = pairs[boxes[pairs] == box]
            for start in range(0, len(of_box), chunk):
                some = of_box[start : start + chunk]
                others = reader.read(leader[some])
                same[some] = np.all(reader.read(some) == others, axis=(1, 2))
    return same


def usable_images(
    particles: Particles,
    particle_diameter_angstrom: float,
    normalise: str,
    skip_bad: bool | None,
    workers: Workers,
    source: Int[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " rows"], tuple[bool, ...]]:
    """Rows whose images can be used, and which optics groups are to be normalised.

    Args:
        particles: every image is read once, an equal part by each process.
        particle_diameter_angstrom: the background is what lies outside.
        normalise: ``"yes"`` or ``"no"`` for all groups; ``"auto"`` decides for each.
        skip_bad: as for `jaxrelax.io.drop_bad_images`.
        workers: processes that share the images.
        source: number of what a row is known to show; where it is given, the same image under
            several names is refused.

    Raises:
        InputError: images that cannot be used, named, if they are not to be left out; images that
            all are masked; copies that the table does not know of; stacks that do not belong to
            the table.
    """
    if normalise not in ("auto", "yes", "no"):
        raise InputError(f'normalise is "auto", "yes" or "no", not {normalise!r}')
    statistics = measured(particles, particle_diameter_angstrom, workers)
    bad = unusable(particles, statistics, masked=normalise == "no")
    if len(particles) and all(bad.get(row) == CONSTANT_BACKGROUND for row in range(len(particles))):
        raise InputError(
            f"{particles.source}: around the particles all images are constant, so they were "
            "masked and do not show their noise. Give the images before masking, or take them as "
            "they are with --normalise no --noise white."
        )
    usable = drop_bad_images(particles, skip_bad, bad)
    kept = np.delete(np.arange(len(particles)), sorted(bad))
    statistics = Statistics(*(values[kept] for values in statistics))
    if source is not None and (same := same_images(usable, statistics, source[kept])).any():
        rows = np.zeros(len(particles), bool)
        rows[kept[same]] = True
        raise InputError(
            f"{particles.source}, {particles.some_rows(rows)}: these images are, pixel by pixel, "
            "those of other rows, in a copy of their stack. Copies are no evidence: name one stack "
            "for both (then they are taken for the one image that they are), or remove these rows."
        )
    chosen = [
        _normalised(usable, statistics, group, normalise) for group in range(len(usable.optics))
    ]
    return kept, workers.agreed(tuple(chosen))


def measured(
    particles: Particles, particle_diameter_angstrom: float, workers: Workers
) -> Statistics:
    """Statistics of every image as it is read.

    Raises:
        InputError: see `ImageReader.validate`.
    """
    n = len(particles)
    found = np.zeros((len(Statistics._fields), n))
    mine = np.zeros(n, bool)
    mine[np.array_split(np.arange(n), workers.count)[workers.index]] = True
    with ImageReader(particles) as reader:
        reader.validate()
        # Of one size, so that groups of one box share a program.
        most = int(np.bincount(particles.optics_group[mine], minlength=1).max())
        for group, optics in enumerate(particles.optics):
            rows = np.flatnonzero(mine & (particles.optics_group == group))
            if not len(rows):
                continue
            box = reader.box(rows)
            radius = 0.5 * particle_diameter_angstrom / optics.pixel_size_angstrom
            program = _program(radius)
            size = int(np.clip(BATCH_BYTES // (4 * box**2), 1, most))
            for some, images in prefetch(reader, _batches(rows, size)):
                padding = ((0, size - len(some)), (0, 0), (0, 0))
                images = np.pad(images, padding, mode="edge") if len(some) < size else images
                values = np.stack([np.asarray(v, np.float64) for v in program(images)])
                found[:, some] = values[:, : len(some)]
    found = workers.rows(np.ascontiguousarray(found.T), mine).T
    return Statistics(*found)


@lru_cache(maxsize=32)
def _program(particle_radius_px: float):
    return jax.jit(
        lambda images: background_statistics(images.astype(np.float32), particle_radius_px)
    )


def _batches(rows: Int[np.ndarray, " rows"], size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def unusable(particles: Particles, statistics: Statistics, masked: bool = False) -> dict[int, str]:
    """Rows whose image cannot be used even when it is normalised, with the reason.

    Args:
        particles: the table.
        statistics: of its images.
        masked: whether a background without noise will do.
    """
    bad: dict[int, str] = {}
    finite = np.all(np.isfinite(np.stack(statistics)), axis=0)
    for group in range(len(particles.optics)):
        members = particles.optics_group == group
        usual = statistics.usual_peak[members & finite & (statistics.deviation > 0)]
        limit = max(PEAK, PEAK_FACTOR * float(np.median(usual))) if len(usual) else PEAK
        for row in np.flatnonzero(members):
            if not finite[row]:
                bad[int(row)] = NOT_FINITE
            elif statistics.spread[row] == 0:
                bad[int(row)] = EQUAL
            elif statistics.corner_spread[row] <= CONSTANT * statistics.spread[row]:
                if not masked:
                    bad[int(row)] = CONSTANT_BACKGROUND
            elif statistics.peak[row] > limit:
                bad[int(row)] = (
                    f"a pixel is {statistics.peak[row]:.3g} standard deviations of the background "
                    "away"
                )
    return bad


def _normalised(particles: Particles, statistics: Statistics, group: int, normalise: str) -> bool:
    """Whether to normalise an optics group; says so where its images ask for it."""
    members = particles.optics_group == group
    if normalise == "yes" or not members.any():
        return normalise == "yes"
    far = members & statistics.far_off
    power = float(statistics.power[far].sum() / max(statistics.power[members].sum(), 1e-30))
    usual = float(np.median(statistics.off[members]))
    if usual <= TOLERANCE and far.sum() <= MOST_IMAGES * members.sum() and power <= MOST_POWER:
        return False
    amount = f"{far.sum()} of {members.sum()} images" if far.any() else "most images"
    amount = "all images" if far.sum() == members.sum() else amount
    what = (
        f"optics group '{particles.optics[group].name}': the background of {amount} is not "
        "normalised (mean 0, standard deviation 1)"
    )
    if normalise == "no":
        LOG.warning(
            "%s: %s, and --normalise no leaves it so; noise and probabilities will be wrong where "
            "images of one group differ",
            particles.source,
            what,
        )
        return False
    LOG.warning("%s: %s; normalising all images of the group", particles.source, what)
    return True


def made_of_images(execution: Execution) -> dict[str, Any]:
    """What is done to images when they are read, for the settings of a result."""
    chosen = execution.images.normalise
    names = [g.name for g, yes in zip(execution.data.particles.optics, chosen, strict=True) if yes]
    return {
        "normalised_optics_groups": names,
        "inverted_images": int(np.sum(execution.data.particles.image_sign < 0)),
    }
