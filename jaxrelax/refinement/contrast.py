"""Are particles white in all images? Each is compared with the reference, and black ones inverted.

The comparison of an image is t = ⟨y, p⟩/‖p‖ under the noise of its group: normal around f ‖p‖ with
variance about 1 where the particle is white, around −f ‖p‖ where it is black. p is the projection
at the given pose; without poses that of the reference averaged over all rotations, which every view
resembles. Whole optics groups, stacks and micrographs are judged by their sums, since one job
inverts all that it writes; single images only where two populations can be told apart.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from jaxrelax.engine.background import background_spectrum
from jaxrelax.engine.execution import Execution
from jaxrelax.io import InputError, Particles
from jaxrelax.refinement.projection_match import matches

LOG = logging.getLogger("jaxrelax")

# Images of each optics group that are looked at first, and all others if any of these is black.
SAMPLE = 1000
# Standard errors by which a group, stack or micrograph must be black, and the share of the usual
# scale that it must have with the other sign: it is a mirror image, and not only odd.
SURE, MIRRORED = 6.0, 0.5
# Log-likelihood by which a population of black images must explain the comparisons better than
# white and foreign images do, and its smallest share: fewer do no harm.
GAIN, LEAST = 30.0, 0.02
# Standard deviations between black or white and nothing: single images can be told apart from the
# first on, the population is noticed from the second on, and so large a one is not passed over.
APART, NOTICED, LARGE = 2.5, 1.5, 0.1
# A group at less than this part of the others' scale is worth a word.
FAINT = 1 / 3


@dataclass(frozen=True)
class Populations:
    """White, black and foreign images, fitted to comparisons with the reference.

    Attributes:
        shares: of white, black and foreign images.
        black: probability of each image that it is black.
        apart: distance of black and white images from 0, in standard deviations (the median).
        gain: log-likelihood gained over white and foreign images alone.
    """

    shares: Float64[np.ndarray, "3"]
    black: Float64[np.ndarray, " n"]
    apart: float
    gain: float

    @property
    def mixed(self) -> bool:
        """Whether there are black images beyond doubt."""
        enough = self.shares[1] >= LEAST and self.shares[1] * len(self.black) >= 5
        return bool(enough and self.gain > GAIN and self.apart >= NOTICED)


def inverted(particles: Particles, rows: Bool[np.ndarray, " n"]) -> Particles:
    """The same particles with some images multiplied by −1 when they are read."""
    sign = np.where(rows, -particles.image_sign, particles.image_sign).astype(np.int8)
    return dataclasses.replace(particles, image_sign=sign)


def made_white(
    execution: Execution,
    low: Float32[np.ndarray, "b b b"],
    max_shell: int,
    *,
    with_poses: bool,
    seed: int,
    name: str,
) -> Particles:
    """The particles with the images inverted in which they are black; says which.

    Args:
        execution: images, and their poses.
        low: the reference as far as it is used at first.
        max_shell: last shell that is compared.
        with_poses: whether poses are known, and not still to be found.
        seed: of the sample.
        name: of the reference, for messages.

    Raises:
        InputError: the reference is black, or black images are many and cannot be told from white.
    """
    particles = execution.data.particles
    if not with_poses:
        low = radially_averaged(low)
    rng = np.random.default_rng((seed, 7))
    order = [
        rng.permutation(np.flatnonzero(particles.optics_group == group))
        for group in range(len(particles.optics))
    ]
    first = np.sort(np.concatenate([rows[:SAMPLE] for rows in order]))
    rest = np.sort(np.concatenate([rows[SAMPLE:] for rows in order]))
    noise = background_spectrum(execution, seed)
    seen, norm = _comparisons(execution, low, first, max_shell, noise)
    black = execution.workers.agreed(_black(particles, seen, norm, first))
    if len(rest) and black.any():
        more = _comparisons(execution, low, rest, max_shell, noise)
        seen, norm = seen + more[0], norm + more[1]
        black = execution.workers.agreed(_black(particles, seen, norm, np.arange(len(particles))))
    if black.mean() > 0.9 and np.sum(low.astype(np.float64) ** 3) < 0:
        raise InputError(
            f"{name}: its density is negative and the particles of {particles.source} are white; "
            "multiply the map by -1 (relion_image_handler --multiply_constant -1)"
        )
    if black.any():
        LOG.warning(
            "%s: %s: multiplied by -1. If that is wrong, check the poses and the reference, or "
            "give --contrast white",
            particles.source,
            _named(particles, black),
        )
    _tell_faint(particles, np.where(black, -seen, seen), norm)
    return inverted(particles, black) if black.any() else particles


def radially_averaged(map_: Float32[np.ndarray, "b b b"]) -> Float32[np.ndarray, "b b b"]:
    """Mean over all rotations about the centre: its projection is the mean of all views."""
    x = np.arange(len(map_)) - len(map_) // 2
    radius = np.rint(np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)).astype(int)
    mean = np.bincount(radius.ravel(), map_.ravel()) / np.bincount(radius.ravel())
    return mean[radius].astype(np.float32)


def _comparisons(execution: Execution, low, rows, max_shell: int, noise):
    """⟨y, p⟩/‖p‖ and ‖p‖ of some images; zeros in all other rows."""
    seen, norm = np.zeros(len(execution.data.particles)), np.zeros(len(execution.data.particles))
    for group in range(len(execution.data.particles.optics)):
        mine = execution.mine(rows[execution.data.particles.optics_group[rows] == group])
        for some, product, power in matches(execution, low, group, mine, max_shell, noise[group]):
            norm[some] = np.sqrt(np.maximum(power, 0.0))
            seen[some] = product / np.maximum(norm[some], 1e-30)
    return execution.workers.rows((seen, norm), execution.own)


def _black(
    particles: Particles,
    seen: Float64[np.ndarray, " n"],
    norm: Float64[np.ndarray, " n"],
    rows: Int[np.ndarray, " rows"],
) -> Bool[np.ndarray, " n"]:
    """Images to be inverted, among some rows.

    Raises:
        InputError: there are many and nobody can tell which.
    """
    black = np.zeros(len(particles), bool)
    usable = np.zeros(len(particles), bool)
    usable[rows] = np.isfinite(seen[rows]) & (norm[rows] > 0)
    rows = np.flatnonzero(usable)
    if not len(rows):
        return black
    units = [particles.optics_group, particles.stack_index]
    if particles.micrograph is not None:
        units.append(np.unique(particles.micrograph.astype(str), return_inverse=True)[1])
    t, m = seen[rows].copy(), norm[rows]
    for unit in units:
        members = np.unique(unit[rows], return_inverse=True)[1].reshape(-1)
        flipped = black_units(t, m, members)[members]
        black[rows[flipped]] ^= True
        t[flipped] *= -1.0
    found = populations(t, m)
    if not found.mixed:
        return black
    if found.apart >= APART:
        black[rows[found.black > 0.5]] ^= True
        return black
    share = 100 * found.shares[1]
    if found.shares[1] < LARGE:
        return black
    raise InputError(
        f"{particles.source}: in about {share:.0f} % of the images particles seem to be black, and "
        "in the others white; the images are too noisy to tell which. Invert those that need it "
        "(relion_image_handler --multiply_constant -1), or give --contrast white to take all as "
        "they are"
    )


def black_units(
    t: Float64[np.ndarray, " n"],
    norm: Float64[np.ndarray, " n"],
    unit: Int[np.ndarray, " n"],
) -> Bool[np.ndarray, " units"]:
    """Which sets of images are the mirror image of white ones.

    Args:
        t: comparison of each image with the reference.
        norm: what it is expected to be in proportion to.
        unit: number of the set of each image, from 0.
    """
    weight = np.bincount(unit, norm**2)
    scale = np.bincount(unit, t * norm) / weight
    # Errors of the poses and of the model scatter t more than noise does.
    scatter = max(1.0, float(np.mean((t - scale[unit] * norm) ** 2)))
    sure = scale < -SURE * np.sqrt(scatter / weight)
    return sure & (scale < -MIRRORED * float(np.median(np.abs(scale))))


def populations(
    t: Float64[np.ndarray, " n"], norm: Float64[np.ndarray, " n"], steps: int = 100
) -> Populations:
    """Fit white, black and foreign images to comparisons, by expectation–maximisation.

    White ones are normal around f·norm, black ones around −f·norm, with one variance v; foreign
    ones around 0 with variance v + f² norm², which explains whatever is neither.
    """
    shares, black, apart, reached = _fit(t, norm, np.array([0.4, 0.4, 0.2]), steps)
    _, _, _, without = _fit(t, norm, np.array([0.8, 0.0, 0.2]), steps)
    return Populations(shares, black, apart, reached - without)


def _fit(t, norm, shares, steps: int):
    start = np.abs(t) if shares[1] > 0 else t
    f = max(float(np.sum(start * norm) / np.sum(norm**2)), 1e-3)
    variance = max(float(np.mean((start - f * norm) ** 2)), 0.5)
    black, reached = np.zeros(len(t)), -np.inf
    for _ in range(steps):
        wide = variance + (f * norm) ** 2
        logs = np.stack(
            [
                -0.5 * ((t - f * norm) ** 2 / variance + np.log(variance)),
                -0.5 * ((t + f * norm) ** 2 / variance + np.log(variance)),
                -0.5 * (t**2 / wide + np.log(wide)),
            ]
        )
        with np.errstate(divide="ignore"):
            logs += np.log(shares)[:, None]
        total = np.logaddexp.reduce(logs, axis=0)
        white, black, _ = posterior = np.exp(logs - total)
        reached = float(total.sum())
        shares = posterior.mean(axis=1)
        counted = max(float(np.sum(white + black)), 1e-9)
        power = max(float(np.sum((white + black) * norm**2)), 1e-9)
        f = max(float(np.sum((white - black) * t * norm)) / power, 1e-3)
        residual = white * (t - f * norm) ** 2 + black * (t + f * norm) ** 2
        variance = max(float(np.sum(residual)) / counted, 0.5)
    apart = f * float(np.median(norm)) / np.sqrt(variance)
    return shares, black, apart, reached


def _named(particles: Particles, black: Bool[np.ndarray, " n"]) -> str:
    """What is black: all, whole optics groups by name, or rows."""
    if black.all():
        return "particles are black in all images, the inverse of the reference"
    groups = particles.optics_group
    whole = [
        g for g in range(len(particles.optics)) if (groups == g).any() and black[groups == g].all()
    ]
    parts = [f"all of optics group '{particles.optics[g].name}'" for g in whole]
    others = black & ~np.isin(groups, whole)
    if others.any():
        parts.append(f"{others.sum()} others" if whole else f"{others.sum()}")
        parts[-1] += f" ({particles.some_rows(others)})"
    return (
        f"particles are black in {black.sum()} of {len(particles)} images, the inverse of the "
        f"reference and of the others: {' and '.join(parts)}"
    )


def _tell_faint(particles: Particles, t, norm) -> None:
    """Warn of optics groups that hardly resemble the reference although others do."""
    weight = np.bincount(particles.optics_group, norm**2, minlength=len(particles.optics))
    product = np.bincount(particles.optics_group, t * norm, minlength=len(particles.optics))
    usual = product.sum() / max(weight.sum(), 1e-30)
    for group in np.flatnonzero(weight > 0):
        scale, error = product[group] / weight[group], 1.0 / np.sqrt(weight[group])
        if scale + 5.0 * error < FAINT * usual:
            LOG.warning(
                "%s: images of optics group '%s' resemble the reference at a scale of %.2g, where "
                "all together have %.2g; check their pixel size, CTFs and poses",
                particles.source,
                particles.optics[group].name,
                scale,
                usual,
            )
