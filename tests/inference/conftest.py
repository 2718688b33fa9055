"""A small problem: two registers as channels of one volume, and images of known pose."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import point_group, random_rotations, rotvec_to_matrix
from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    extract_slices,
    fourier_volume,
    half_spectrum,
    image_geometry,
    volume_radius,
    working_box,
)
from jaxrelax.inference import GaussNewton, PosePrior, Poses, log_likelihood
from jaxrelax.reconstruction import rotate_map

BOX, SHELL = 32, 8
N_SHELLS = SHELL + 1
SEARCH = GaussNewton(n_steps=2, max_step=100.0)
PARTNER = 0.03  # registers differ by a few nats only


class Problem(NamedTuple):
    volume: FourierVolume
    batch: ImageBatch
    geometry: ImageGeometry
    poses: Poses
    prior: PosePrior
    true_register: np.ndarray
    true_offset: np.ndarray  # (rotation, origin) from the consensus, in prior standard deviations
    noise_power: float


def blobs(n: int, seed: int) -> np.ndarray:
    """A smooth map on an n-box that stands for one of 32."""
    rng = np.random.default_rng(seed)
    scale = BOX / n
    x = (np.arange(n) - n // 2) * scale
    centres, weights = rng.uniform(-6, 6, (14, 3)), rng.uniform(0.5, 1.5, 14)
    profile = [np.exp(-((x[None] - c[:, None]) ** 2) / (2 * 2.0**2)) for c in centres.T]
    return np.einsum("p,pz,py,px->zyx", weights, *profile[::-1]).astype(np.float32)


def two_registers() -> np.ndarray:
    """A C2-symmetric map with a lopsided part, and the same with that part turned."""
    n = working_box(SHELL)
    turn = point_group("C2").operators[1]
    body, partner = blobs(n, 1), PARTNER * blobs(n, 2)
    body = 0.5 * (body + rotate_map(body, turn))
    return np.stack([body + partner, body + rotate_map(partner, turn)])


def geometry_of_images() -> ImageGeometry:
    """The same for all problems."""
    return image_geometry(half_spectrum(BOX, SHELL), 3.0, BOX, 3.0)


@jax.jit
def projections(volume, rotations):
    """Slices of every channel."""
    return extract_slices(volume, rotations, geometry_of_images().slice_wavevectors)


@jax.jit
def scores(volume, batch, poses):
    """Log-likelihood and residual power at the poses."""
    return log_likelihood(volume, batch, geometry_of_images(), poses.rotations, poses.origins_px)


@cache
def compiled(search):
    """A pose search, compiled once for each shape of its arguments."""
    return jax.jit(
        lambda volume, batch, poses, prior: search(
            volume, batch, geometry_of_images(), poses, prior, N_SHELLS
        )
    )


def run(search, problem):
    """A search on a problem."""
    return compiled(search)(problem.volume, problem.batch, problem.poses, problem.prior)


def make_problem(
    n_images: int,
    noise_power: float,
    sigma_rotation_deg: float = 1.0,
    sigma_shift_px: float = 0.04,
    spread: float = 1.0,
    seed: int = 0,
) -> Problem:
    """Images at offsets drawn from the prior (times ``spread``) and true registers in turn."""
    rng = np.random.default_rng(seed)
    geometry = geometry_of_images()
    packing = geometry.packing
    volume = fourier_volume(
        jnp.asarray(two_registers()), radius=volume_radius(SHELL), image_box=BOX
    )
    prior = PosePrior(jnp.float32(np.deg2rad(sigma_rotation_deg)), jnp.float32(sigma_shift_px))
    consensus = random_rotations(n_images, rng)
    origins = rng.uniform(-2, 2, (n_images, 2))
    offset = spread * rng.standard_normal((n_images, 5))
    scaled = offset * np.asarray(prior.scales())
    register = np.arange(n_images) % 2
    rotations = (rotvec_to_matrix(scaled[:, :3]) @ consensus).astype(np.float32)
    slices = np.asarray(projections(volume, jnp.asarray(rotations)))
    signal = slices[np.arange(n_images), register]
    contrast = rng.uniform(-1.0, 1.0, (n_images, packing.n_pixels))
    noise = rng.standard_normal((2, n_images, packing.n_pixels)) * np.sqrt(0.5 * noise_power)
    noise[1, :, packing.multiplicity == 1] = 0.0
    # The particle sits at −origin.
    shift = -(origins + scaled[:, 3:])
    moved = contrast * signal * np.exp(-2j * np.pi / BOX * (shift @ packing.wavevectors_px.T))
    batch = ImageBatch(
        data=jnp.asarray(moved + noise[0] + 1j * noise[1], jnp.complex64),
        ctf=jnp.asarray(contrast, jnp.float32),
        weights=jnp.asarray(packing.multiplicity / np.float32(noise_power)),
        valid=jnp.ones(n_images, bool),
    )
    poses = Poses(*(2 * (jnp.asarray(consensus, jnp.float32), jnp.asarray(origins, jnp.float32))))
    return Problem(volume, batch, geometry, poses, prior, register, offset, noise_power)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Six images whose data narrow the prior of 1° and 0.04 px to about two thirds."""
    return make_problem(6, noise_power=0.25)
