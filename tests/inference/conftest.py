"""A small problem: two registers as channels of one volume, and images of known pose."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import exp_so3, point_group, random_rotations
from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    ImageGeometry,
    extract_slices,
    fourier_volume,
    half_spectrum,
    image_geometry,
    shift_phases,
    volume_radius,
    working_box,
)
from jaxrelax.inference import PosePrior, Poses
from jaxrelax.reconstruction import rotate_map

BOX, SHELL = 32, 8
N_SHELLS = SHELL + 1
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
    packing = half_spectrum(BOX, SHELL)
    geometry = image_geometry(packing, 3.0, BOX, 3.0)
    volume = fourier_volume(
        jnp.asarray(two_registers()), radius=volume_radius(SHELL), image_box=BOX
    )
    prior = PosePrior(jnp.float32(np.deg2rad(sigma_rotation_deg)), jnp.float32(sigma_shift_px))
    consensus = random_rotations(n_images, rng).astype(np.float32)
    origins = rng.uniform(-2, 2, (n_images, 2)).astype(np.float32)
    offset = spread * rng.standard_normal((n_images, 5)).astype(np.float32)
    scaled = jnp.asarray(offset * np.asarray(prior.scales()))
    rotations = exp_so3(scaled[:, :3]) @ jnp.asarray(consensus)
    register = np.arange(n_images) % 2
    slices = extract_slices(volume, rotations, geometry.slice_wavevectors)
    signal = slices[np.arange(n_images), register]
    contrast = rng.uniform(-1.0, 1.0, (n_images, packing.n_pixels)).astype(np.float32)
    noise = rng.standard_normal((2, n_images, packing.n_pixels)) * np.sqrt(0.5 * noise_power)
    noise[1, :, packing.multiplicity == 1] = 0.0
    moved = contrast * signal * shift_phases(-(origins + scaled[:, 3:]), packing)
    data = moved + jnp.asarray(noise[0] + 1j * noise[1], jnp.complex64)
    batch = ImageBatch(
        data=data,
        ctf=jnp.asarray(contrast),
        weights=jnp.asarray(packing.multiplicity / np.float32(noise_power)),
        valid=jnp.ones(n_images, bool),
    )
    poses = Poses(*(2 * (jnp.asarray(consensus), jnp.asarray(origins))))
    return Problem(volume, batch, geometry, poses, prior, register, offset, noise_power)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Six images whose data narrow the prior of 1° and 0.04 px to about two thirds."""
    return make_problem(6, noise_power=0.25)
