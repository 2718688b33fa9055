"""Search over all orientations: shared grid first, then Gauss–Newton from its best points.

The grid (:mod:`jaxrelax.inference.orientation_grid`) need only be so fine that the likelihood has
no peak between its points: peaks are then climbed without a grid. Every image is scored at every
direction, in-plane angle and shift, in the band that the grid can sample; its few best local
maxima are climbed in wider and wider bands, and the best of them are its possible poses. Where maps
of several registers are given, the grid sees the symmetrised one, and one direction of each orbit
suffices. Of several states, each has a grid of its own; what they propose is climbed together, and
every pose compared with the maps of all.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from jaxrelax.arrays import on_device
from jaxrelax.geometry import (
    PointGroup,
    asymmetric_unit,
    direction_neighbours,
    directions_in_tilt_range,
    healpix_directions,
    healpix_spacing_deg,
    poses_of_directions,
)
from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry, shift_phases
from jaxrelax.imaging.polar import RINGS_BEYOND, PolarGrid, band_reach, polar_grid
from jaxrelax.inference.gauss_newton import GaussNewton
from jaxrelax.inference.modes import (
    SHIFT_SHARE,
    KnownModes,
    ModeSearch,
    best_poses,
    evidence_of_modes,
)
from jaxrelax.inference.orientation_grid import (
    References,
    best_peaks,
    grid_scores,
    references,
)
from jaxrelax.inference.pose_search import PosePosterior, PosePrior, Poses

# The edge of a particle may move by this share of the finest resolved distance over half a step of
# the grid: peaks of the likelihood are about as wide.
EDGE_SHARE = 0.6
# Shifts lie in a disc of the first of these radii, in steps, that reaches so many standard
# deviations of the prior. Few radii, as each is a program of its own; the first has 21 shifts.
SHIFT_RADII = np.sqrt([5.0, 9.0, 13.0, 18.0, 25.0, 36.0, 49.0, 64.0])
SHIFT_REACH = 2.5
# Rings hold an object of at most this share of the box; a wider one is seen through that circle.
WIDEST = 0.8
# Log-evidence that is negligible, with room for what a climb or a wider band still changes.
BEHIND_NATS = 10.0
# Of the sums of one chunk of images on the grid: what stays in the cache.
GRID_BYTES = 24 * 2**20


def finest_resolution_angstrom(order: int, diameter_angstrom: float) -> float:
    """Resolution in Å to which a HEALPix order samples the views of an object."""
    half_step = 0.5 * np.deg2rad(healpix_spacing_deg(order))
    return float(0.5 * diameter_angstrom * half_step / EDGE_SHARE)


class GridTarget(eqx.Module):
    """A map as the search sees it: the volume, its projections, and the grid they lie on."""

    volume: FourierVolume
    references: References  # of every guide, along a leading axis
    poses: Float[Array, "directions 3 3"]
    neighbours: Int[Array, "directions neighbours"]
    shifts_px: Float[Array, "shifts 2"]
    grid: PolarGrid


class GlobalSearch(ModeSearch):
    """Every image at every orientation; the best local maxima polished by Gauss–Newton.

    Attributes:
        directions: viewing directions of the grid.
        diameter_angstrom: of the particle.
        n_candidates: local maxima, of every guide, that are climbed: in the band of the grid, then,
            as far as they do not fall behind, in wider and wider bands up to everything.
        shift_radius: of the disc of shifts around the centre of the prior, in steps of a third of
            the resolution.
        guides: what the grid sees: for every map, channels of the volume that it sees the mean of.
    """

    directions: Float64[np.ndarray, "directions 3"]
    diameter_angstrom: float
    n_candidates: int
    shift_radius: float
    guides: tuple[tuple[int, ...], ...] = eqx.field(static=True, default=((0,),))

    def __check_init__(self):
        if not 1 <= self.n_modes <= self.n_candidates <= len(self.directions):
            raise ValueError(
                "modes are chosen among candidates and candidates among directions; got "
                f"n_modes={self.n_modes}, n_candidates={self.n_candidates}, "
                f"{len(self.directions)} directions"
            )

    @property
    def is_global(self) -> bool:
        """It needs no pose to start from."""
        return True

    @property
    def quarter(self) -> int:
        """In-plane angles of a quarter turn."""
        return int(np.ceil(90.0 / self.spacing_deg))

    def prepare(self, volume: FourierVolume, geometry: ImageGeometry) -> GridTarget:
        """Projections of the volume's guiding channels along all directions."""
        packing = geometry.inner().packing
        band = packing.select(self._low(geometry.inner()))
        pixel, scale = geometry.pixel_size_angstrom, geometry.scale
        # The map ends with its band: there is nothing on the last rings beyond it.
        reach = band_reach(band, geometry.aberrations)
        last = min(reach + RINGS_BEYOND, int((volume.radius // 2 - 1) / scale))
        diameter = min(self.diameter_angstrom / pixel, WIDEST * packing.box)
        grid = polar_grid(band, diameter, last, geometry.aberrations)
        poses = jax.device_put(poses_of_directions(self.directions).astype(np.float32))
        shifts = self.steps(geometry)[1] * shift_grid(self.shift_radius)
        grid = jax.device_put(grid)
        return GridTarget(
            volume=volume,
            references=jax.tree.map(
                lambda *each: jnp.stack(each),
                *(_references(volume, one, poses, grid, np.float32(scale)) for one in self.guides),
            ),
            poses=poses,
            neighbours=jax.device_put(direction_neighbours(self.directions, self.spacing_deg)),
            shifts_px=jax.device_put(shifts.astype(np.float32)),
            grid=grid,
        )

    @property
    def followed(self) -> KnownModes:
        """The search near the modes that this one found; one step each, as it goes on from them."""
        return KnownModes(
            self.operators, self.spacing_deg, self.resolution_angstrom, self.n_modes, self.n_draws,
            self.behind_nats, GaussNewton(n_steps=1),
        )  # fmt: skip

    def __call__(
        self,
        target: GridTarget,
        batch: ImageBatch,
        geometry: ImageGeometry,
        poses: Poses,
        prior: PosePrior,
        n_shells: int,
    ) -> PosePosterior:
        """Evidence and pose of every register near every mode.

        The current pose is one of the candidates. The prior says how far the particle is from where
        it was picked (``poses.prior_origins_px``), and nothing of orientations. It does not follow
        what was found: images with a wrong pose would wander off, farther than the shifts of the
        grid lead back.
        """
        target, batch, poses, prior = on_device((target, batch, poses, prior))
        turn, move = self.steps(geometry)

        def climb(band: ImageBatch, pixels: ImageGeometry, starts, running, width):
            return self.climb(
                target.volume, band, pixels, starts, running, width, poses, prior, n_shells
            )

        # In the band of the grid first, where there are few pixels and many candidates.
        low = self._low(geometry)
        low_batch = ImageBatch(
            batch.data[:, low], batch.ctf[:, low], batch.weights[low], batch.valid
        )
        # A place for the current pose, which is not climbed here.
        current = (poses.rotations, poses.origins_px)
        starts = jax.tree.map(
            lambda x, one: jnp.concatenate([x, one[None]]),
            self._candidates(target, batch, geometry, poses, prior), current,
        )  # fmt: skip
        running = jnp.ones(starts[0].shape[:2], bool).at[-1].set(False)
        found = climb(low_batch, geometry.select(low), starts, running, jnp.ones(()))

        # One loop over all levels, so that the climb is compiled once.
        def one_level(found, level):
            share, width, is_last = level
            narrowed = ImageBatch(batch.data, batch.ctf, batch.weights * share, batch.valid)
            worth = evidence_of_modes(found)
            near = worth >= worth.max(axis=0, keepdims=True) - self.behind_nats
            running = near & jnp.isfinite(worth)
            starts = best_poses(found)
            # The grid or the climb may miss what was found before: that is at its peak already, and
            # goes into the last band instead of those that climb there. The worst gives its place:
            # it is not running, for there is one place more than there are candidates.
            starts, running = jax.tree.map(
                lambda x, one: jnp.where(is_last, jnp.concatenate([one[None], x[:-1]]), x),
                (starts, running), (current, jnp.ones_like(running[0])),
            )  # fmt: skip
            running = self.distinct(starts, running, width * turn, width * move)
            return climb(narrowed, geometry, starts, running, width), None

        weights, widths = (jnp.asarray(part) for part in self.levels(geometry))
        last = np.arange(len(weights)) == len(weights) - 1
        found, _ = jax.lax.scan(one_level, found, (weights, widths, jnp.asarray(last)))
        return self.returned(found)

    def _low(self, geometry: ImageGeometry) -> Int[np.ndarray, " low"]:
        """Pixels in the band of the grid."""
        low = np.flatnonzero(np.hypot(*geometry.frequencies.T) <= 1.0 / self.resolution_angstrom)
        return low if len(low) else np.arange(len(geometry.frequencies))

    def _candidates(
        self, target: GridTarget, batch: ImageBatch, geometry, poses: Poses, prior: PosePrior
    ):
        """Rotations (modes, batch, 3, 3) and origins (modes, batch, 2) of the best maxima."""
        low = self._low(geometry)
        n, n_low = len(batch.data), len(low)
        packing = geometry.packing
        centre = poses.prior_origins_px
        centred = batch.data * shift_phases(centre, packing)
        log_prior = -0.5 * jnp.sum((target.shifts_px / prior.sigma_shift_px) ** 2, axis=-1)
        weights = batch.weights[low]
        per_image = 4 * len(target.shifts_px) * len(target.poses) * _sums(target, self.quarter)
        size = int(2 ** np.clip(np.floor(np.log2(GRID_BYTES / per_image)), 0, 9))
        size = min(size, n)
        while n % size:
            size //= 2

        def some(images):
            data, ctf = images
            chunk = ImageBatch(data, ctf, weights, jnp.ones(len(data), bool))

            def proposed(seen):
                scores = grid_scores(
                    chunk, seen, target.grid, target.shifts_px, log_prior, self.quarter
                )
                best = best_peaks(scores, target.neighbours, target.shifts_px, self.n_candidates)
                return best.rotations(target.poses), best.shifts_px

            if len(self.guides) == 1:
                return proposed(jax.tree.map(lambda x: x[0], target.references))
            # One after another: the scores of one guide fill the cache.
            found = jax.lax.map(proposed, target.references)
            return jax.tree.map(lambda x: jnp.concatenate([*x], axis=1), found)

        images = (centred[:, low], batch.ctf[:, low])
        found = jax.lax.map(some, jax.tree.map(lambda x: x.reshape(-1, size, n_low), images))
        rotations, shifts = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(n, *x.shape[2:]), 0, 1), found
        )
        return rotations, centre[None] + shifts


def global_search(
    resolution_angstrom: float,
    diameter_angstrom: float,
    group: PointGroup,
    *,
    coarsest_order: int,
    finest_order: int,
    n_candidates: int,
    n_modes: int,
    sigma_offset_angstrom: float = 0.0,
    tilt_range_deg: tuple[float, float] = (0.0, 180.0),
    guides: tuple[tuple[int, ...], ...] = ((0,),),
) -> GlobalSearch:
    """The search whose grid is as fine as a resolution needs, within limits.

    Args:
        resolution_angstrom: of the reference.
        diameter_angstrom: of the particle.
        group: symmetry of the reference: one direction of every orbit is searched.
        coarsest_order, finest_order: HEALPix orders. Beyond what the finest one samples, images
            are compared up to that resolution only.
        n_candidates, n_modes: see :class:`GlobalSearch`; at most as many as there are directions:
            large groups leave few.
        sigma_offset_angstrom: standard deviation, along either axis, of where the particle is from
            where it was picked; the shifts reach :data:`SHIFT_REACH` of them, as far as the
            longest of :data:`SHIFT_RADII`.
        tilt_range_deg: only directions are searched that have a mate whose angle to the z axis is
            in this range.
        guides: what the grid sees (:attr:`Hypotheses.guides`).

    Raises:
        ValueError: no direction of the grid is in the range.
    """
    order = coarsest_order
    while order < finest_order and (
        finest_resolution_angstrom(order, diameter_angstrom) > resolution_angstrom
    ):
        order += 1
    directions = healpix_directions(order)
    directions = directions[asymmetric_unit(directions, group)]
    directions = directions_in_tilt_range(directions, group, tilt_range_deg)
    if len(directions) == 0:
        raise ValueError(f"no direction has a tilt in {tilt_range_deg} degrees")
    resolution = max(resolution_angstrom, finest_resolution_angstrom(order, diameter_angstrom))
    reach = SHIFT_REACH * sigma_offset_angstrom / (SHIFT_SHARE * resolution)
    return GlobalSearch(
        directions=directions,
        operators=group.operators.astype(np.float32),
        spacing_deg=healpix_spacing_deg(order),
        diameter_angstrom=diameter_angstrom,
        resolution_angstrom=resolution,
        n_candidates=min(n_candidates, len(directions)),
        n_modes=min(n_modes, len(directions)),
        n_draws=4,
        behind_nats=BEHIND_NATS,
        polish=GaussNewton(n_steps=2),
        shift_radius=next((float(r) for r in SHIFT_RADII if r >= reach), float(SHIFT_RADII[-1])),
        guides=guides,
    )


def shift_grid(radius: float = SHIFT_RADII[0]) -> Float64[np.ndarray, "shifts 2"]:
    """Integer shifts within a disc of this radius, in steps."""
    along = np.arange(-np.ceil(radius), np.ceil(radius) + 1)
    x, y = np.meshgrid(along, along)
    inside = np.hypot(x, y) <= radius + 1e-9
    return np.stack([x[inside], y[inside]], axis=1).astype(np.float64)


@partial(jax.jit, static_argnames="guide")
def _references(volume: FourierVolume, guide: tuple[int, ...], poses, grid: PolarGrid, scale):
    """References of the mean over some channels."""
    rows = np.array(guide)
    parts = [volume.values[:, rows], volume.values[:, volume.channels + rows]]
    values = jnp.stack([part.mean(axis=1) for part in parts], axis=1)
    return references(FourierVolume(values, volume.radius), poses, grid, scale)


def _sums(target: GridTarget, quarter: int) -> int:
    """Numbers per image, shift and direction that are alive at once."""
    orders = target.grid.even.shape[1] // 2 + target.grid.odd.shape[1] // 2
    return 2 * orders + 8 * quarter
