"""Searches that return several poses of an image, its *modes*, and know of no better one before.

What is known of a pose beforehand is how far the particle may be from where it was picked, and
nothing of its orientation. A search of all orientations finds modes
(:mod:`jaxrelax.inference.global_search`); once the same ones are found again and again, they are
climbed from where they were last, without a grid.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from jaxrelax.arrays import on_device
from jaxrelax.imaging import FourierVolume, ImageBatch, ImageGeometry
from jaxrelax.inference.gauss_newton import GaussNewton
from jaxrelax.inference.pose_search import (
    PosePosterior,
    PosePrior,
    Poses,
    PoseSearch,
    require_pairs,
)
from jaxrelax.inference.race import Starts, race

SHIFT_SHARE = 1.0 / 3.0  # of the resolution of the grid, from one shift to the next
# A band may be wider than the one before by this many octaves.
WIDEST_STEP = 1.25


class ModeSearch(PoseSearch):
    """What searches of several modes have in common.

    Attributes:
        operators: of the symmetry of the map: a pose and its mates are the same.
        spacing_deg: of the directions and in-plane angles of the grid that finds modes.
        resolution_angstrom: the grid sees frequencies up to this.
        n_modes: how many are kept.
        n_draws: draws of its posterior at which an image goes into the map; 0: at its peaks.
        behind_nats: log-evidence by which a mode may be behind the best of its image and still be
            climbed further.
        polish: how modes are climbed, under a prior around each that is as wide as the grid is
            coarse, and narrows as the band widens.
    """

    operators: Float32[np.ndarray, "operators 3 3"]
    spacing_deg: float
    resolution_angstrom: float
    n_modes: int
    n_draws: int
    behind_nats: float
    polish: GaussNewton

    def __check_init__(self):
        require_pairs(self.n_draws)

    @property
    def from_picking(self) -> bool:
        """Nothing is known of orientations."""
        return True

    @property
    def draws(self) -> int:
        """Peaks of weak images follow the map that they are compared with, and it follows them."""
        return self.n_draws

    @property
    def modes(self) -> int:
        """As many as are kept."""
        return self.n_modes

    def levels(self, geometry: ImageGeometry):
        """Bands of the climb as weights of pixels, and the widths of its priors in grid steps.

        Beyond the band of the grid, each about an octave wider: a pose that is best in one lies
        within reach of the peak of the next. The last one is everything.
        """
        frequency = np.hypot(*geometry.frequencies.T)
        octaves = max(np.log2(frequency.max() * self.resolution_angstrom), 0.0)
        count = max(int(np.ceil(octaves / WIDEST_STEP)), 1)
        exponents = octaves * np.arange(1, count + 1) / count
        limits = 2.0**exponents / self.resolution_angstrom
        weights = frequency[None] <= limits[:, None] * (1.0 + 1e-6)
        return weights.astype(np.float32), (2.0**-exponents).astype(np.float32)

    def steps(self, geometry: ImageGeometry) -> tuple[np.float32, np.float32]:
        """From one point of the grid to the next: turns in rad, shifts in px."""
        shift = SHIFT_SHARE * self.resolution_angstrom / geometry.pixel_size_angstrom
        return np.float32(np.deg2rad(self.spacing_deg)), np.float32(shift)

    def climb(
        self,
        volume: FourierVolume,
        batch: ImageBatch,
        geometry: ImageGeometry,
        starts: Starts,
        running: Bool[Array, "starts batch"],
        width: float | Float[Array, ""],
        poses: Poses,
        prior: PosePrior,
        n_shells: int,
    ) -> PosePosterior:
        """Posteriors near all starts, of every image from the best to the worst.

        Starts that were given up, and those that have climbed the peak of a better one, have no
        evidence.

        Args:
            volume, batch, geometry: what is compared, and in which band.
            starts: rotations, and origins in px.
            running: which of them to climb from.
            width: of the prior around each, in steps of the grid.
            poses: where particles were picked.
            prior: of how far they are from there.
            n_shells: of the residual power.
        """
        centre = jnp.asarray(poses.prior_origins_px)
        turn, move = self.steps(geometry)
        around = PosePrior(jnp.asarray(width * turn), jnp.asarray(width * move))

        def log_prior(origins_px):
            offset = (origins_px - centre[None]) / prior.sigma_shift_px
            return -0.5 * jnp.sum(offset**2, axis=-1)

        climbs, running = race(
            self.polish, volume, batch, geometry, starts, running, around, log_prior,
            self.behind_nats, n_shells,
        )  # fmt: skip
        found = jax.vmap(lambda one: self.polish.posterior(one, around))(climbs)
        found = jax.vmap(lambda one: _under_prior(one, around, prior, centre))(found)
        found = _ordered(found, jnp.where(running, evidence_of_modes(found), -jnp.inf))
        running = jnp.sort(running, axis=0, descending=True)
        kept = self.distinct(best_poses(found), running, width * turn, width * move)
        found = eqx.tree_at(
            lambda f: f.log_evidence,
            found,
            jnp.where(kept[..., None], found.log_evidence, -jnp.inf),
        )
        return _ordered(found, evidence_of_modes(found))

    def distinct(self, poses: Starts, running, turn, move) -> Bool[Array, "starts batch"]:
        """Which of the running poses are not close to one before them, or to a mate of it.

        Close is nearer than ``turn`` (rad) and ``move`` (px).
        """
        rotations, origins = poses
        between = jnp.einsum("ibxy,jbxz->ijbyz", rotations, rotations)
        traces = jnp.einsum("ijbyz,gzy->ijbg", between, self.operators).max(axis=-1)
        apart = jnp.linalg.norm(origins[:, None] - origins[None], axis=-1)
        near = (traces > 1.0 + 2.0 * jnp.cos(turn)) & (apart < move)

        def with_next(i, distinct):
            # Those after it are not among the distinct ones yet.
            again = jnp.any(near[i] & distinct, axis=0)
            return distinct.at[i].set(running[i] & ~again)

        return jax.lax.fori_loop(0, len(near), with_next, jnp.zeros_like(running))

    def returned(self, found: PosePosterior) -> PosePosterior:
        """The best modes, from (modes, batch, channels, …) to (batch, modes · channels, …)."""

        def reordered(x):
            return jnp.moveaxis(x[: self.n_modes], 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

        return jax.tree.map(reordered, found)


class KnownModes(ModeSearch):
    """Every image near the modes that it had last, and nowhere else."""

    @property
    def follows_modes(self) -> bool:
        """It begins from them."""
        return True

    def __call__(
        self,
        target: FourierVolume,
        batch: ImageBatch,
        geometry: ImageGeometry,
        poses: Poses,
        prior: PosePrior,
        n_shells: int,
    ) -> PosePosterior:
        """Evidence and pose of every register near every mode."""
        target, batch, poses, prior = on_device((target, batch, poses, prior))
        if poses.mode_rotations is None or poses.mode_origins_px is None:
            raise ValueError("there are no modes to begin from")
        count = min(poses.mode_rotations.shape[1], self.n_modes)
        # Fewer than are kept are filled up with the best, which is climbed once only.
        which = np.where(np.arange(self.n_modes) < count, np.arange(self.n_modes), 0)
        starts = (
            jnp.moveaxis(poses.mode_rotations, 1, 0)[which],
            jnp.moveaxis(poses.mode_origins_px, 1, 0)[which],
        )
        width = float(self.levels(geometry)[1][-1])
        turn, move = self.steps(geometry)
        running = jnp.ones(starts[0].shape[:2], bool)
        running = self.distinct(starts, running, width * turn, width * move)
        return self.returned(
            self.climb(target, batch, geometry, starts, running, width, poses, prior, n_shells)
        )


def evidence_of_modes(found: PosePosterior) -> Float[Array, "modes batch"]:
    """Of all channels of a mode together."""
    return jax.nn.logsumexp(found.log_evidence, axis=-1)


def best_poses(found: PosePosterior) -> Starts:
    """Pose of the best channel of every mode."""

    def of_mode(one: PosePosterior):
        best = one.log_evidence.argmax(axis=-1)
        image = jnp.arange(len(best))
        return one.rotations[image, best], one.origins_px[image, best]

    return jax.vmap(of_mode)(found)


def _under_prior(
    found: PosePosterior, around: PosePrior, prior: PosePrior, centre_px: Float[Array, "batch 2"]
) -> PosePosterior:
    """A mode that was climbed without the prior of its origin: evidence, offset and covariance.

    The prior hardly changes within a mode. Of orientations nothing is known beforehand; they have
    no offset.
    """
    sigma = prior.sigma_shift_px
    offset = (found.origins_px - centre_px[:, None]) / sigma
    log_prior = -0.5 * jnp.sum(offset**2, axis=-1)
    ratio = around.scales() / prior.scales()
    return eqx.tree_at(
        lambda f: (f.log_evidence, f.offset, f.covariance),
        found,
        (
            found.log_evidence + log_prior,
            jnp.concatenate([jnp.zeros_like(found.offset[..., :3]), offset], axis=-1),
            found.covariance * (ratio[:, None] * ratio[None, :])[None, None],
        ),
    )


def _ordered(found: PosePosterior, worth: Float[Array, "modes batch"]) -> PosePosterior:
    """Modes of every image from the best to the worst."""
    order = jnp.argsort(-worth, axis=0, stable=True)
    return jax.tree.map(lambda x: _reordered(x, order), found)


def _reordered(x: Array, order: Int[Array, "modes batch"]) -> Array:
    """Modes of every image in another order."""
    return x[order, jnp.arange(order.shape[1])[None]]
