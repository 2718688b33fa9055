"""Search over all orientations: shared grid first, then Gauss–Newton from its best points.

The grid (:mod:`jaxrelax.inference.orientation_grid`) need only be so fine that the likelihood has
no peak between its points: peaks are then climbed without a grid. Every image is scored at every
direction, in-plane angle and shift, in the band that the grid can sample; its few best local
maxima are climbed in wider and wider bands, and the best of them are its possible poses. Where maps
of several registers are given, the grid sees the symmetrised one (the last channel), and one
direction of each orbit suffices.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from jaxrelax.geometry import (
    PointGroup,
    asymmetric_unit,
    direction_neighbours,
    healpix_directions,
    healpix_spacing_deg,
    poses_of_directions,
)
from jaxrelax.imaging import FourierVolume, HalfSpectrum, ImageBatch, ImageGeometry, shift_phases
from jaxrelax.imaging.polar import RINGS_BEYOND, PolarGrid, polar_grid
from jaxrelax.inference.gauss_newton import GaussNewton
from jaxrelax.inference.orientation_grid import (
    References,
    best_candidates,
    grid_scores,
    references,
)
from jaxrelax.inference.pose_search import PosePosterior, PosePrior, Poses, PoseSearch

# The edge of a particle may move by this share of the finest resolved distance over half a step of
# the grid. RELION's coarse images have about the same (``keepsafe`` of 1.2).
EDGE_SHARE = 0.6
SHIFT_SHARE = 1.0 / 3.0  # of the resolution, from one shift to the next
# Shifts within this many steps of the current origin: 21.
SHIFT_RADIUS = np.sqrt(5.0)
# Rings hold an object of at most this share of the box; a wider one is seen through that circle.
WIDEST = 0.8
# Of the sums of one chunk of images on the grid: what stays in the cache.
GRID_BYTES = 24 * 2**20


def finest_resolution_angstrom(order: int, diameter_angstrom: float) -> float:
    """Resolution in Å to which a HEALPix order samples the views of an object."""
    half_step = 0.5 * np.deg2rad(healpix_spacing_deg(order))
    return float(0.5 * diameter_angstrom * half_step / EDGE_SHARE)


class GridTarget(eqx.Module):
    """A map as the search sees it: the volume, its projections, and the grid they lie on."""

    volume: FourierVolume
    references: References
    poses: Float[Array, "directions 3 3"]
    neighbours: Int[Array, "directions neighbours"]
    shifts_px: Float[Array, "shifts 2"]
    grid: PolarGrid
    low: Int[np.ndarray | Array, " low"]  # packed pixels in the band of the grid


class GlobalSearch(PoseSearch):
    """Every image at every orientation; the best local maxima polished by Gauss–Newton.

    Attributes:
        directions: viewing directions of the grid.
        spacing_deg: of directions and in-plane angles.
        diameter_angstrom: of the particle.
        resolution_angstrom: the grid sees frequencies up to this.
        n_candidates: local maxima that are climbed in the band of the grid.
        n_modes: of these, the best, which are climbed in wider and wider bands up to everything.
        polish: how; its prior is as wide as the grid is coarse, and narrows as the band widens.
    """

    directions: Float64[np.ndarray, "directions 3"]
    spacing_deg: float
    diameter_angstrom: float
    resolution_angstrom: float
    n_candidates: int = 8
    n_modes: int = 4
    polish: GaussNewton = GaussNewton(n_steps=0)

    @property
    def is_global(self) -> bool:
        """It needs no pose to start from."""
        return True

    @property
    def modes(self) -> int:
        """As many as are kept."""
        return self.n_modes

    @property
    def quarter(self) -> int:
        """In-plane angles of a quarter turn."""
        return int(np.ceil(90.0 / self.spacing_deg))

    def prepare(self, volume: FourierVolume, geometry: ImageGeometry) -> GridTarget:
        """Projections of the volume's last channel along all directions."""
        packing = geometry.inner().packing
        frequency = np.hypot(*geometry.inner().frequencies.T)
        low = np.flatnonzero(frequency <= 1.0 / self.resolution_angstrom)
        low = low if len(low) else np.arange(packing.n_pixels)
        band = _band(packing, low)
        pixel = _pixel_size(geometry)
        # The map ends with its band: there is nothing on the last rings beyond it.
        scale = _scale(geometry)
        last = min(band.max_shell + RINGS_BEYOND, int((volume.radius // 2 - 1) / scale))
        diameter = min(self.diameter_angstrom / pixel, WIDEST * packing.box)
        grid = polar_grid(band, diameter, last)
        symmetric = FourierVolume(
            volume.values[:, [volume.channels - 1, 2 * volume.channels - 1]], volume.radius
        )
        poses = jnp.asarray(poses_of_directions(self.directions).astype(np.float32))
        step = SHIFT_SHARE * self.resolution_angstrom / pixel
        grid = jax.tree.map(jnp.asarray, grid)
        return GridTarget(
            volume=volume,
            references=_references(symmetric, poses, grid, jnp.float32(scale)),
            poses=poses,
            neighbours=jnp.asarray(direction_neighbours(self.directions)),
            shifts_px=jnp.asarray((step * shift_grid()).astype(np.float32)),
            grid=grid,
            low=low,
        )

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

        Current poses count only as the centre of the shifts; the prior not at all.
        """
        rotations, shifts = self._candidates(target, batch, geometry, poses)
        starts = (rotations, poses.origins_px[:, None] + shifts)
        weights, widths = (jnp.asarray(part) for part in self._levels(geometry))
        shift_step = target.shifts_px.max() / SHIFT_RADIUS

        def climb(start, level):
            """Posterior of one mode of every image in one band."""
            share, width = level
            narrowed = ImageBatch(batch.data, batch.ctf, batch.weights * share, batch.valid)
            flat = PosePrior(width * np.float32(np.deg2rad(self.spacing_deg)), width * shift_step)
            return self.polish(
                target.volume, narrowed, geometry, Poses(*start, *start), flat, n_shells
            )

        def first(start):
            found = climb(start, (weights[0], widths[0]))
            return _best_pose(found), _evidence(found)

        modes_first = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), starts)
        (rotations, origins), evidence = jax.lax.map(first, modes_first)
        _, kept = jax.lax.top_k(evidence.T, min(self.n_modes, self.n_candidates))
        image = jnp.arange(len(batch.data))
        kept = kept.T  # modes, batch
        kept_modes = (rotations[kept, image[None]], origins[kept, image[None]])

        def rest(start):
            def one(start, level):
                found = climb(start, level)
                return _best_pose(found), found

            _, levels = jax.lax.scan(one, start, (weights[1:], widths[1:]))
            return jax.tree.map(lambda x: x[-1], levels)

        found = jax.lax.map(rest, kept_modes)
        # (modes, batch, channels, …) to (batch, modes · channels, …)
        return jax.tree.map(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:]), found
        )

    def _levels(self, geometry: ImageGeometry):
        """Bands of the climb as weights of pixels, and the widths of its priors in grid steps.

        From the band of the grid on, each an octave wider: a pose that is best in one lies within
        reach of the peak of the next. The last one is everything, the first is not.
        """
        frequency = np.hypot(*geometry.frequencies.T)
        octaves = max(np.log2(frequency.max() * self.resolution_angstrom), 0.0)
        levels = int(np.ceil(octaves)) + 2
        exponents = np.minimum(np.arange(levels - 1), octaves)
        exponents = np.append(exponents, octaves)
        limits = 2.0**exponents / self.resolution_angstrom
        weights = frequency[None] <= limits[:, None] * (1.0 + 1e-6)
        return weights.astype(np.float32), (2.0**-exponents).astype(np.float32)

    def _candidates(self, target: GridTarget, batch: ImageBatch, geometry, poses: Poses):
        """Rotations (batch, modes, 3, 3) and shifts (batch, modes, 2) of the best maxima."""
        n, n_low = len(batch.data), len(target.low)
        packing = geometry.packing
        centred = batch.data * shift_phases(poses.origins_px, packing)
        weights = batch.weights[target.low]
        per_image = 4 * len(target.shifts_px) * len(target.poses) * _sums(target, self.quarter)
        size = int(2 ** np.clip(np.floor(np.log2(GRID_BYTES / per_image)), 0, 9))
        size = min(size, n)
        while n % size:
            size //= 2

        def some(images):
            data, ctf = images
            chunk = ImageBatch(data, ctf, weights, jnp.ones(len(data), bool))
            scores = grid_scores(
                chunk, target.references, target.grid, target.shifts_px, self.quarter
            )
            best = best_candidates(scores, target.neighbours, target.shifts_px, self.n_candidates)
            return best.rotations(target.poses), best.shifts_px

        images = (centred[:, target.low], batch.ctf[:, target.low])
        found = jax.lax.map(some, jax.tree.map(lambda x: x.reshape(-1, size, n_low), images))
        return jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), found)


def global_search(
    resolution_angstrom: float,
    diameter_angstrom: float,
    group: PointGroup,
    *,
    coarsest_order: int,
    finest_order: int,
    n_candidates: int,
    n_modes: int,
) -> GlobalSearch:
    """The search whose grid is as fine as a resolution needs, within limits.

    Args:
        resolution_angstrom: of the reference.
        diameter_angstrom: of the particle.
        group: symmetry of the reference: one direction of every orbit is searched.
        coarsest_order, finest_order: HEALPix orders. Beyond what the finest one samples, images
            are compared up to that resolution only.
        n_candidates, n_modes: see :class:`GlobalSearch`.
    """
    order = coarsest_order
    while order < finest_order and (
        finest_resolution_angstrom(order, diameter_angstrom) > resolution_angstrom
    ):
        order += 1
    directions = healpix_directions(order)
    return GlobalSearch(
        directions=directions[asymmetric_unit(directions, group)],
        spacing_deg=healpix_spacing_deg(order),
        diameter_angstrom=diameter_angstrom,
        resolution_angstrom=max(
            resolution_angstrom, finest_resolution_angstrom(order, diameter_angstrom)
        ),
        n_candidates=n_candidates,
        n_modes=n_modes,
    )


def shift_grid() -> Float64[np.ndarray, "shifts 2"]:
    """Integer shifts within a disc, in steps."""
    x, y = np.meshgrid(*[np.arange(-3, 4)] * 2)
    inside = np.hypot(x, y) <= SHIFT_RADIUS + 1e-9
    return np.stack([x[inside], y[inside]], axis=1).astype(np.float64)


_references = jax.jit(references)


def _evidence(found: PosePosterior) -> Float[Array, " batch"]:
    # The last channel is the symmetrised map where there are registers, and the map itself else.
    return jax.nn.logsumexp(found.log_evidence, axis=-1)


def _best_pose(found: PosePosterior):
    """Pose of the best channel of every image."""
    best = found.log_evidence.argmax(axis=-1)
    image = jnp.arange(len(best))
    return found.rotations[image, best], found.origins_px[image, best]


def _sums(target: GridTarget, quarter: int) -> int:
    """Numbers per image, shift and direction that are alive at once."""
    orders = target.grid.even.shape[1] // 2 + target.grid.odd.shape[1] // 2
    return 2 * orders + 8 * quarter


def _band(packing: HalfSpectrum, chosen: Int[np.ndarray, " low"]) -> HalfSpectrum:
    shells = packing.shell[chosen]
    return HalfSpectrum(
        packing.wavevectors_px[chosen], shells, packing.multiplicity[chosen],
        packing.flat_index[chosen], packing.box, int(shells.max()), len(chosen),
    )  # fmt: skip


def _scale(geometry: ImageGeometry) -> float:
    """Fourier pixels of the map per Fourier pixel of the images."""
    largest = int(np.argmax(np.abs(geometry.packing.wavevectors_px[:, 0])))
    return float(
        geometry.slice_wavevectors[largest, 0] / geometry.packing.wavevectors_px[largest, 0]
    )


def _pixel_size(geometry: ImageGeometry) -> float:
    largest = int(np.argmax(np.abs(geometry.packing.wavevectors_px[:, 0])))
    frequency = geometry.frequencies[largest, 0]
    return float(geometry.packing.wavevectors_px[largest, 0] / (geometry.packing.box * frequency))
