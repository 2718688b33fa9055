"""How well the registers of an image can be told apart, before the image is looked at.

In noise units the views of the registers are points; only the distances between them decide how
often the right one is found (``docs/discriminability.md``). With D_j the view of the asymmetric
part in register j times the CTF, divided by the noise, K_jk = ⟨D_j, D_k⟩ and z ~ N(0, K), the
log-evidences of an image whose register is g are, up to one constant,

    ℓ_j = K_jg + z_j − ½ K_jj .

A pose that is known to a Gaussian prior adds the noise T v, v ~ N(0, 1), along the tangents T of
the model, and K becomes Dᵀ (1 + T Tᵀ)⁻¹ D. The map is given in two versions so that noise of its
own, if independent, does not count as distance.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32
from scipy.special import ndtri
from scipy.stats import qmc

from jaxrelax.arrays import AnyArray, on_device
from jaxrelax.imaging import (
    FourierVolume,
    ImageGeometry,
    extract_parts,
    extract_parts_and_derivatives,
)
from jaxrelax.inference.pose_search import N_OFFSETS, PosePrior

# The points of a Monte Carlo estimate, over all true registers together. The error for one image is
# 0.003 (4 registers) to 0.005 (60), measured against 64 times as many.
N_POINTS = 512
FEWEST_PER_REGISTER = 8

Points = Float[Array, "truths points registers"] | Float32[np.ndarray, "truths points registers"]


def whitened_views(
    views: FourierVolume,
    ctf: Float[AnyArray, "batch freq"],
    weights: Float[AnyArray, " freq"],
    geometry: ImageGeometry,
    rotations: Float[AnyArray, "batch 3 3"],
) -> Float[Array, "batch channels twice_freq"]:
    """Views of every channel under the CTF, in units of the noise.

    Args:
        views: maps as channels.
        ctf: CTF of every image, times the amplitude of the geometry.
        weights: multiplicity ÷ noise power per packed pixel; they decide the band.
        geometry: packing and slice frequencies of the images.
        rotations: A of every image.

    Returns:
        Real parts, then imaginary parts; the noise has variance 1 in each of these numbers.
    """
    ctf, weights = on_device((ctf, weights))
    real, imaginary = extract_parts(views, rotations, geometry.slice_wavevectors)
    scale = (ctf * jnp.sqrt(weights)[None])[:, None]
    return jnp.concatenate([real * scale, imaginary * scale], axis=-1)


def whitened_tangents(
    symmetric: FourierVolume,
    ctf: Float[AnyArray, "batch freq"],
    weights: Float[AnyArray, " freq"],
    geometry: ImageGeometry,
    rotations: Float[AnyArray, "batch 3 3"],
    prior: PosePrior,
) -> Float[Array, "batch 5 twice_freq"]:
    """How the view of a map changes with its pose, in units of the noise.

    Args:
        symmetric: one channel. The symmetric part stands for the whole map: it is what the pose
            rests on, and the same in every register.
        prior: changes are per standard deviation of it: three rotations (image frame), two shifts.

    Other arguments and the layout as for :func:`whitened_views`.
    """
    ctf, weights, prior = on_device((ctf, weights, prior))
    value, tilted, turned = extract_parts_and_derivatives(
        symmetric, rotations, geometry.slice_wavevectors
    )
    scales = prior.scales()
    kx, ky = (jnp.asarray(k)[None] for k in geometry.slice_wavevectors.T)
    columns = [
        tuple(scales[0] * -ky * part[:, 0] for part in tilted),
        tuple(scales[1] * kx * part[:, 0] for part in tilted),
        tuple(scales[2] * part[:, 0] for part in turned),
    ]
    k = geometry.packing.wavevectors_px * np.float32(2.0 * np.pi / geometry.packing.box)
    for axis in range(2):
        wave = jnp.asarray(k[:, axis])[None] * scales[N_OFFSETS - 2 + axis]
        columns.append((-wave * value[1][:, 0], wave * value[0][:, 0]))
    scale = (ctf * jnp.sqrt(weights)[None])[:, None]
    return jnp.concatenate(
        [jnp.stack([c[part] for c in columns], axis=1) * scale for part in range(2)], axis=-1
    )


def register_gram(
    first: Float[AnyArray, "batch registers numbers"],
    second: Float[AnyArray, "batch registers numbers"],
    tangents: Float[AnyArray, "batch offsets numbers"] | None = None,
) -> Float[Array, "batch registers registers"]:
    """Inner products of the registers' views, in noise units, about their mean.

    Args:
        first: whitened views of the asymmetric part (or of the whole map) in every register.
        second: the same array; or views of an independent estimate of the same map in the same
            frame. Then the noise of the two estimates cancels on average, and the matrix is an
            unbiased estimate of the true map's, but maybe not positive.
        tangents: whitened tangents where the pose is uncertain. Differences between registers that
            a change of pose also makes are discounted (a Schur complement):
            ``DᵀD' − DᵀT (TᵀT + 1)⁻¹ TᵀD'``.

    Returns:
        Symmetric matrices whose rows add up to zero.
    """
    gram = jnp.einsum("bjf,bkf->bjk", first, second)
    if tangents is not None:
        seen = jnp.einsum("bjf,baf->bja", first, tangents)
        seen_by_other = jnp.einsum("bjf,baf->bja", second, tangents)
        curvature = jnp.einsum("baf,bcf->bac", tangents, tangents)
        identity = jnp.eye(curvature.shape[-1], dtype=curvature.dtype)
        factor = jax.scipy.linalg.cho_factor(curvature + identity[None], lower=True)
        solved = jax.scipy.linalg.cho_solve(factor, jnp.swapaxes(seen_by_other, 1, 2))
        gram = gram - jnp.einsum("bja,bak->bjk", seen, solved)
    gram = 0.5 * (gram + jnp.swapaxes(gram, 1, 2))
    rows = jnp.mean(gram, axis=2)
    mean = jnp.mean(rows, axis=1)[:, None, None]
    return gram - rows[:, :, None] - rows[:, None, :] + mean


def squared_distance(
    gram: Float[AnyArray, "batch registers registers"],
) -> Float[Array, " batch"]:
    """Mean squared distance d² between two registers, in noise units, from a centred Gram matrix.

    ½ d² is the expected log-likelihood ratio (nats) of the true over another register. Unbiased
    where the matrix is, and then maybe negative.
    """
    trace = jnp.trace(gram, axis1=1, axis2=2)
    return 2.0 * trace / (gram.shape[1] - 1)


def accuracy_points(
    registers: int, n_points: int = N_POINTS, seed: int = 0
) -> Float32[np.ndarray, "truths points registers"]:
    """Normal deviates for :func:`expected_accuracy`, other ones for every true register.

    A randomly shifted Sobol sequence through the normal quantile, with its mirror image
    (antithetic). The same points serve every image, so that differences between images are not
    those of the draws.

    Args:
        registers: number of registers.
        n_points: about this many in all; at least eight per register are made.
        seed: of the shift.
    """
    each = max(FEWEST_PER_REGISTER, n_points // registers)
    half = registers * ((each + 1) // 2)
    # A sequence is balanced over a power of two of points; the rest is left unused.
    sequence = qmc.Sobol(registers, scramble=False).random_base2(int(np.ceil(np.log2(half))))
    shift = np.random.default_rng(seed).random(registers)
    uniform = np.clip((sequence[:half] + shift) % 1.0, 1e-6, 1.0 - 1e-6)
    drawn = ndtri(uniform).astype(np.float32)
    drawn = drawn.reshape(registers, -1, registers)
    return np.concatenate([drawn, -drawn], axis=1)


def expected_accuracy(
    gram: Float[AnyArray, "batch registers registers"],
    points: Points,
) -> Float[Array, " batch"]:
    """How often the most probable register is the right one: E[max_j p_j], the Bayes accuracy.

    Between 1/registers and 1. For two registers it is Φ(d/2).

    Args:
        gram: of :func:`register_gram`; negative eigenvalues are set to zero.
        points: of :func:`accuracy_points`. The true register is each in turn.
    """
    gram, noise = _evidence_noise(jnp.asarray(gram), points)
    evidence = gram[:, :, None, :] + noise - 0.5 * _diagonal(gram)[:, None, None, :]
    # Truth g's row of K is its column: K is symmetric.
    log_largest = jnp.max(evidence, axis=-1) - jax.nn.logsumexp(evidence, axis=-1)
    return jnp.mean(jnp.exp(log_largest), axis=(1, 2))


def accuracy_with_estimate(
    cross: Float[AnyArray, "batch registers registers"],
    own: Float[AnyArray, "batch registers registers"],
    points: Points,
) -> Float[Array, " batch"]:
    """How often the best register is the right one when a noisy map scores.

    With the estimate D̂ in place of D the evidence of register j is
    ``⟨D̂_j, D_g⟩ + z_j − ½ |D̂_j|²``, z ~ N(0, D̂ᵀD̂). What the estimate and the true map have in
    common is known from a second, independent estimate. As an average over images; that of one
    image has the second estimate's noise.

    Args:
        cross: Gram matrix of the estimate with an independent one.
        own: Gram matrix of the estimate with itself.
        points: as for :func:`expected_accuracy`.
    """
    cross, own = on_device((cross, own))
    own, noise = _evidence_noise(own, points)
    evidence = cross[:, :, None, :] + noise - 0.5 * _diagonal(own)[:, None, None, :]
    truth = jnp.arange(cross.shape[1])[None, :, None]
    return jnp.mean((jnp.argmax(evidence, axis=-1) == truth).astype(cross.dtype), axis=(1, 2))


def _evidence_noise(gram, points):
    """The nearest positive Gram matrix, and draws of N(0, K) as (batch, truths, points, registers).

    The symmetric root does not depend on signs and order of the eigenvectors, so equal matrices
    have equal draws and nearby ones nearby draws.
    """
    values, vectors = jnp.linalg.eigh(gram)
    values = jnp.maximum(values, 0.0)
    positive = jnp.einsum("bje,be,bke->bjk", vectors, values, vectors)
    root = jnp.einsum("bje,be,bke->bjk", vectors, jnp.sqrt(values), vectors)
    return positive, jnp.einsum("bjk,gnk->bgnj", root, jnp.asarray(points, gram.dtype))


def _diagonal(gram):
    return jnp.diagonal(gram, axis1=1, axis2=2)
