"""Continuous local pose search: Gauss–Newton steps and Laplace evidence.

The residual of register j is linear in a small pose offset v = (rotation, origin) measured in
prior standard deviations: r_j − T_j v. One gather of eight voxels gives value and tangents, so one
step costs one gather for all registers. With u the current offset from the consensus,

    −log p(y, v | j) = ½|r_j − T_j v|² + ½|u + v|² + const,

is quadratic: its minimum gives the posterior pose, its curvature H_j + I the Laplace evidence
(MacKay 2003, ch. 27)  log p(y | j) ≈ −min − ½ log det(H_j + I). The shared pose moves by the
expectation–maximisation step, the registers' normal equations averaged under their posterior.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelax.arrays import on_device
from jaxrelax.geometry import Aberrations, exp_so3
from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    Parts,
    in_stages,
    slice_stages,
)
from jaxrelax.inference.likelihood import centred_data, residual_power
from jaxrelax.inference.pose_search import (
    N_OFFSETS,
    PosePosterior,
    PosePrior,
    Poses,
    PoseSearch,
    posterior_spread,
    require_pairs,
)
from jaxrelax.inference.small_systems import solved


def small_rotation_vector(rotation: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3"]:
    """Rotation vector (rad) of rotations below a quarter turn; differentiable at the identity."""
    vee = 0.5 * jnp.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    sine2 = jnp.sum(vee**2, axis=-1, keepdims=True)
    sine = jnp.sqrt(jnp.where(sine2 > 1e-12, sine2, 1.0))
    factor = jnp.where(sine2 > 1e-12, jnp.arcsin(jnp.minimum(sine, 1.0)) / sine, 1.0 + sine2 / 6.0)
    return vee * factor


class NormalEquations(eqx.Module):
    """Quadratic expansion of every register's misfit around the current pose."""

    misfit: Float[Array, "batch registers"]  # |r|², weighted
    gradient: Float[Array, "batch registers 5"]  # Tᵀ r
    curvature: Float[Array, "batch registers 5 5"]  # Tᵀ T
    residual_power: Float[Array, "batch registers shells"]


# Offsets are read off rotation matrices, which beyond a quarter turn say something else.
LARGEST_EXTENT_DEG = 60.0

# Monomials of a wavevector that products of tangents are summed with.
N_MONOMIALS = 6
ONE, X, Y, XX, XY, YY = range(N_MONOMIALS)


def _monomials(wavevectors) -> Float[Array, "6 freq"]:
    kx, ky = wavevectors
    return jnp.stack([jnp.ones_like(kx), kx, ky, kx * kx, kx * ky, ky * ky])


def _product(one: Parts, other: Parts):
    """Re(a* b)."""
    return one.real * other.real + one.imaginary * other.imaginary


def _turned_product(one: Parts, other: Parts):
    """Re(a* i b)."""
    return one.imaginary * other.real - one.real * other.imaginary


def normal_equations(
    volume: FourierVolume,
    batch: ImageBatch,
    geometry: ImageGeometry,
    rotations: Float[Array, "batch 3 3"],
    origins_px: Float[Array, "batch 2"],
    prior: PosePrior,
    n_shells: int,
) -> NormalEquations:
    """One gather: misfit, gradient and curvature for all registers, in prior units.

    With m the slice, p its derivative out of the plane and t that with respect to a turn in the
    plane (:func:`extract_parts_and_derivatives`), the tangents are

        −ky p,  kx p,  t,  iα kx m,  iα ky m        (α kx: phase per pixel that the image moves).

    So all sums over pixels are of nine products, |p|², Re(p* t), …, with monomials of (kx, ky) that
    are the same for every image and register: one matrix product.
    """
    blocks, stages = slice_stages(volume, rotations, geometry.slice_wavevectors, derivatives=True)
    monomials = _monomials(jnp.asarray(geometry.slice_wavevectors).T)
    monomials = jnp.swapaxes(blocks.split(batch.weights[None] * monomials), 0, 1)
    data = centred_data(batch, origins_px, geometry)
    images = [blocks.split(each) for each in (data.real, data.imag, batch.ctf)]

    def products(block, slices: list[Parts]):
        value, tilted, turned = slices
        real, imaginary, ctf = (blocks.of_points(each, block)[:, None] for each in images)
        squared = ctf * ctf
        residual = Parts(real - ctf * value.real, imaginary - ctf * value.imaginary)
        scaled = Parts(ctf * residual.real, ctf * residual.imaginary)
        found = [
            squared * _product(tilted, tilted),
            squared * _product(tilted, turned),
            squared * _product(turned, turned),
            squared * _product(value, value),
            squared * _turned_product(tilted, value),
            squared * _turned_product(turned, value),
            _product(tilted, scaled),
            _product(turned, scaled),
            _turned_product(scaled, value),
        ]
        return jnp.concatenate(found, axis=1), _product(residual, residual)

    def sums(block, found):
        fields, power = found
        return jnp.einsum("bcf,pf->bcp", fields, blocks.part(monomials, block)), power

    found, power = in_stages((*stages, products, sums), blocks.count)
    found = blocks.total(found).reshape(len(rotations), -1, volume.channels, N_MONOMIALS)
    power = blocks.joined(power)
    scales = prior.scales()
    # α: the phase, in radians, per pixel of the image and pixel of the map's transform.
    per_pixel = 2.0 * np.pi / (geometry.packing.box * geometry.scale)
    gradient, curvature = _assembled(jnp.moveaxis(found, 1, 0), per_pixel)
    if geometry.aberrations.is_stretched:
        gradient, curvature = _in_image_shifts(gradient, curvature, geometry.aberrations)
    return NormalEquations(
        misfit=jnp.einsum("bjf,f->bj", power, batch.weights),
        gradient=gradient * scales[None, None],
        curvature=curvature * (scales[:, None] * scales[None])[None, None],
        residual_power=residual_power(power, geometry, n_shells),
    )


def _assembled(sums: Float[Array, "9 batch registers 6"], phase: float):
    """Gradient and curvature from the sums of products and monomials, see `normal_equations`."""
    pp, pt, tt, mm, pm, tm, pr, tr, mr = sums
    gradient = [
        -pr[..., Y], pr[..., X], tr[..., ONE], phase * mr[..., X], phase * mr[..., Y],
    ]  # fmt: skip
    xx, xy, yy = pp[..., YY], -pp[..., XY], pp[..., XX]
    xz, yz, zz = -pt[..., Y], pt[..., X], tt[..., ONE]
    pm, tm, mm = phase * pm, phase * tm, phase**2 * mm
    rows = [
        [xx, xy, xz, -pm[..., XY], -pm[..., YY]],
        [xy, yy, yz, pm[..., XX], pm[..., XY]],
        [xz, yz, zz, tm[..., X], tm[..., Y]],
        [-pm[..., XY], pm[..., XX], tm[..., X], mm[..., XX], mm[..., XY]],
        [-pm[..., YY], pm[..., XY], tm[..., Y], mm[..., XY], mm[..., YY]],
    ]
    return jnp.stack(gradient, axis=-1), jnp.stack(
        [jnp.stack(row, axis=-1) for row in rows], axis=-2
    )


def _in_image_shifts(gradient, curvature, aberrations: Aberrations):
    """The same for shifts of the image, k·t, instead of such of the specimen, M k·t′."""
    jacobian = np.eye(N_OFFSETS)
    jacobian[-2:, -2:] = np.linalg.inv(aberrations.matrix).T
    turn = jnp.asarray(jacobian, gradient.dtype)
    return gradient @ turn, jnp.einsum("ca,bjcd,de->bjae", turn, curvature, turn)


def _offset(centre, rotations, origins_px, prior: PosePrior) -> Float[Array, "*batch 5"]:
    """Offset of a pose from the centre of the prior in prior standard deviations."""
    turn = small_rotation_vector(rotations @ jnp.swapaxes(centre[0], -1, -2))
    moved = origins_px - centre[1]
    offset = jnp.concatenate([turn, moved], axis=-1)
    return offset / jnp.broadcast_to(prior.scales(), offset.shape)


def laplace(equations: NormalEquations, offset: Float[Array, "batch 5"]):
    """Evidence, step to the posterior mean and posterior covariance, for every register."""
    identity = jnp.eye(N_OFFSETS, dtype=offset.dtype)
    precision = equations.curvature + identity[None, None]
    right = equations.gradient - offset[:, None, :]
    step, covariance, log_determinant = solved(precision, right)
    evidence = (
        -0.5 * equations.misfit
        - 0.5 * jnp.sum(offset**2, axis=-1)[:, None]
        + 0.5 * jnp.sum(right * step, axis=-1)
        - 0.5 * log_determinant
    )
    return evidence, step, covariance


def _within(step: Float[Array, "*batch d"], extent: float) -> Float[Array, "*batch d"]:
    """A vector, shortened to the extent where it is longer."""
    square = jnp.sum(step * step, axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.maximum(square, 1e-20))
    return step * jnp.minimum(1.0, np.float32(extent) / length)


class Climb(eqx.Module):
    """Where the search of every image stands: its best pose so far, and the next one to be tried.

    Poses are rotations and origins in px.
    """

    centre: tuple[Float[Array, "batch 3 3"], Float[Array, "batch 2"]]  # of the prior
    trial: tuple[Float[Array, "batch 3 3"], Float[Array, "batch 2"]]
    best: tuple[Float[Array, "batch 3 3"], Float[Array, "batch 2"]]
    equations: NormalEquations  # at the best pose
    offset: Float[Array, "batch 5"]  # of it from the centre, in prior standard deviations
    density: Float[Array, " batch"]  # log of its marginal joint density
    log_evidence: Float[Array, "batch registers"]
    damping: Float[Array, " batch"]


class GaussNewton(PoseSearch):
    """Gauss–Newton search around the consensus pose with Laplace evidence.

    Attributes:
        n_steps: steps per call; poses persist between iterations of the refinement, so one or two
            suffice.
        max_step: longest step, in prior standard deviations (a trust region).
        n_draws: draws of its posterior at which an image goes into the map; 0: at its peak.
        rotation_extent_deg: poses are not turned farther than this from the consensus; None: only
            the prior holds them.
        shift_extent_angstrom: nor shifted farther than this.
    """

    n_steps: int = 1
    max_step: float = 2.0
    n_draws: int = 2
    rotation_extent_deg: float | None = None
    shift_extent_angstrom: float | None = None

    def __check_init__(self):
        require_pairs(self.n_draws)
        turn, shift = self.rotation_extent_deg, self.shift_extent_angstrom
        if turn is not None and not 0.0 < turn <= LARGEST_EXTENT_DEG:
            raise ValueError(
                f"rotation_extent_deg is {turn:g}; a local search turns by more than 0 and at most "
                f"{LARGEST_EXTENT_DEG:g} degrees"
            )
        if shift is not None and not shift > 0.0:
            raise ValueError(f"shift_extent_angstrom is {shift:g}; it is larger than 0")

    @property
    def draws(self) -> int:
        """A peak follows the noise of the map that the image is compared with."""
        return self.n_draws

    def __call__(
        self,
        target: FourierVolume,
        batch: ImageBatch,
        geometry: ImageGeometry,
        poses: Poses,
        prior: PosePrior,
        n_shells: int,
    ) -> PosePosterior:
        """Evidence with the pose integrated out, and the posterior pose of every register.

        A step that lowers the marginal joint density is taken back, so a call never ends at a
        worse expansion point than it began with.
        """
        target, batch, poses, prior = on_device((target, batch, poses, prior))

        # One expansion per turn, so that it is compiled once.
        def turn(climb, _):
            return self.advance(climb, target, batch, geometry, prior, n_shells), None

        climb = self.begin(poses, target.channels, n_shells)
        climb, _ = jax.lax.scan(turn, climb, None, length=self.n_steps + 1)
        return self._inside(self.posterior(climb, prior), climb.centre, geometry, prior)

    def begin(self, poses: Poses, channels: int, n_shells: int) -> Climb:
        """Nothing was looked at yet."""
        start = (jnp.asarray(poses.rotations), jnp.asarray(poses.origins_px))
        n, dtype = len(poses.rotations), poses.rotations.dtype

        def zeros(*shape):
            return jnp.zeros((n, *shape), dtype)

        nothing = NormalEquations(
            misfit=zeros(channels),
            gradient=zeros(channels, N_OFFSETS),
            curvature=zeros(channels, N_OFFSETS, N_OFFSETS),
            residual_power=zeros(channels, n_shells),
        )
        return Climb(
            centre=(jnp.asarray(poses.prior_rotations), jnp.asarray(poses.prior_origins_px)),
            trial=start,
            best=start,
            equations=nothing,
            offset=zeros(N_OFFSETS),
            density=zeros() - jnp.inf,
            log_evidence=zeros(channels),
            damping=zeros() + 1.0,
        )

    def advance(
        self,
        climb: Climb,
        target: FourierVolume,
        batch: ImageBatch,
        geometry: ImageGeometry,
        prior: PosePrior,
        n_shells: int,
    ) -> Climb:
        """Judge the trial, keep the better of it and the best so far, and step from there."""
        equations = normal_equations(target, batch, geometry, *climb.trial, prior, n_shells)
        offset = _offset(climb.centre, *climb.trial, prior)
        density = jax.nn.logsumexp(
            -0.5 * equations.misfit - 0.5 * jnp.sum(offset**2, axis=-1, keepdims=True), axis=-1
        )
        # Not `>=`: an image with NaN must come out as NaN, not as the placeholder.
        better = ~(density < climb.density)

        def choose(new, old):
            return jnp.where(better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

        best, equations, offset, density = jax.tree.map(
            choose,
            (climb.trial, equations, offset, density),
            (climb.best, climb.equations, climb.offset, climb.density),
        )
        damping = jnp.where(better, 1.0, 0.3 * climb.damping)
        evidence, step, _ = laplace(equations, offset)
        shared = self._limited(jnp.einsum("bj,bja->ba", jax.nn.softmax(evidence, axis=-1), step))
        step = shared * damping[:, None] * prior.scales()[None, :]
        trial = (exp_so3(step[:, :3]) @ best[0], best[1] + step[:, 3:])
        trial = self._held(trial, climb.centre, geometry)
        return Climb(climb.centre, trial, best, equations, offset, density, evidence, damping)

    def posterior(self, climb: Climb, prior: PosePrior) -> PosePosterior:
        """Every register's own posterior, from the expansion at the best pose."""
        rotations, origins = climb.best
        evidence, step, covariance = laplace(climb.equations, climb.offset)
        step = self._limited(step)
        scaled = step * prior.scales()[None, None, :]
        return PosePosterior(
            log_evidence=evidence,
            rotations=exp_so3(scaled[..., :3]) @ rotations[:, None],
            origins_px=origins[:, None] + scaled[..., 3:],
            offset=climb.offset[:, None] + step,
            covariance=covariance,
            spread=posterior_spread(covariance, prior),
            residual_power=climb.equations.residual_power,
        )

    def _held(self, pose, centre, geometry: ImageGeometry):
        """A pose, or the nearest on its way from the centre that the extents allow."""
        rotations, origins = pose
        if self.rotation_extent_deg is not None:
            back = jnp.swapaxes(centre[0], -1, -2)
            turn = _within(
                small_rotation_vector(rotations @ back), np.deg2rad(self.rotation_extent_deg)
            )
            rotations = exp_so3(turn) @ centre[0]
        if self.shift_extent_angstrom is not None:
            extent = self.shift_extent_angstrom / geometry.pixel_size_angstrom
            origins = centre[1] + _within(origins - centre[1], extent)
        return rotations, origins

    def _inside(
        self, found: PosePosterior, centre, geometry: ImageGeometry, prior: PosePrior
    ) -> PosePosterior:
        """A posterior whose poses the extents allow."""
        if self.rotation_extent_deg is None and self.shift_extent_angstrom is None:
            return found
        channels = found.origins_px.shape[1]
        centres = tuple(jnp.repeat(each[:, None], channels, axis=1) for each in centre)
        rotations, origins = self._held((found.rotations, found.origins_px), centres, geometry)
        return eqx.tree_at(
            lambda f: (f.rotations, f.origins_px, f.offset),
            found,
            (rotations, origins, _offset(centres, rotations, origins, prior)),
        )

    def _limited(self, step: Float[Array, "*batch 5"]) -> Float[Array, "*batch 5"]:
        # The bound is on the square: a root has no derivative at 0.
        square = jnp.sum(step * step, axis=-1, keepdims=True)
        length = jnp.sqrt(jnp.maximum(square, 1e-12))
        return step * jnp.minimum(1.0, self.max_step / length)
