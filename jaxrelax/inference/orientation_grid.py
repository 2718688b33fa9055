"""Scores of images on a shared grid of orientations and shifts, as matrix products.

The log-likelihood of image y at pose (direction d, in-plane angle ψ) and shift t, up to a constant
of the image, is

    Re⟨z_t, P⟩ − ½⟨g, |P|²⟩,   z = c y/σ²,   g = c²/σ².

On rings P_{d,ψ}(r, θ) = P_d(r, θ + ψ), so that with angular coefficients

    Re⟨z_t, P⟩ = Σ_m Re e^{imψ} Σ_r 2πr (2 − δ_m0) conj(z_m(r)) p_m(r):

one small matrix product over rings per order for all (image, shift) × direction, then a Fourier
sum over ψ. The sum is folded four times: cosine and sine sums tell ψ from −ψ, even and odd orders
ψ from π − ψ, and each is a matrix product with a quarter of the angles.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32, Int

from jaxrelax.imaging import FourierVolume, ImageBatch, extract_parts
from jaxrelax.imaging.polar import (
    POWER_ORDERS,
    PolarGrid,
    angular_coefficients,
    polar_samples,
    shifted,
)

DIRECTIONS_AT_ONCE = 32


class References(eqx.Module):
    """Projections of one map along every direction, ready for products with images."""

    even: Float[Array, "even parts twice_rings directions"]
    odd: Float[Array, "odd parts twice_rings directions"]
    power: Complex[Array, "powers fine_rings directions"]

    @property
    def n_directions(self) -> int:
        """Viewing directions."""
        return self.even.shape[-1]


def references(
    volume: FourierVolume,
    poses: Float[Array, "directions 3 3"],
    grid: PolarGrid,
    scale: float | Float[Array, ""] = 1.0,
) -> References:
    """Angular coefficients of the projections of a map, channel 0 of the volume.

    Args:
        volume: the map; it must serve the outermost ring.
        poses: of the directions, at ψ = 0.
        grid: rings.
        scale: Fourier pixels of the map per Fourier pixel of the images.
    """

    def sampled(wavevectors_px):
        flat = wavevectors_px.reshape(-1, 2) * scale

        def views(some):
            return tuple(part[:, 0] for part in extract_parts(volume, some, flat))

        # A few directions at a time: the corners of all of them would fill the memory.
        missing = -len(poses) % DIRECTIONS_AT_ONCE
        padded = jnp.concatenate([poses, jnp.tile(poses[-1:], (missing, 1, 1))])
        parts = jax.lax.map(views, padded.reshape(-1, DIRECTIONS_AT_ONCE, 3, 3))
        shape = (len(padded), *wavevectors_px.shape[:2])
        real, imaginary = (part.reshape(shape)[: len(poses)] for part in parts)
        return real, imaginary

    p = angular_coefficients(sampled(grid.wavevectors_px), grid)
    real, imaginary = sampled(grid.power_wavevectors_px)
    intensity = real**2 + imaginary**2
    theta = np.pi * np.arange(grid.n_angles) / grid.n_angles
    waves = np.exp(-1j * theta[:, None] * np.array(POWER_ORDERS)[None]) / grid.n_angles
    power = jnp.einsum("dra,am->mrd", intensity, jnp.asarray(waves.astype(np.complex64)))

    def stacked(real, imaginary, orders):
        twice = np.where(orders == 0, 1.0, 2.0).astype(np.float32)[:, None, None]
        weight = twice * grid.area[None, None, :]
        real, imaginary = (jnp.swapaxes(part * weight, 1, 2) for part in (real, imaginary))
        # Σ conj(z) p: real part, then imaginary part.
        return jnp.stack(
            [jnp.concatenate([real, imaginary], 1), jnp.concatenate([imaginary, -real], 1)], axis=1
        )

    twice = np.where(np.array(POWER_ORDERS) == 0, 0.5, 1.0).astype(np.float32)  # with the half
    return References(
        even=stacked(p.even_real, p.even_imaginary, grid.even_orders),
        odd=stacked(p.odd_real, p.odd_imaginary, grid.odd_orders),
        power=power * twice[:, None, None],
    )


def in_plane_angles(quarter: int) -> Float32[np.ndarray, " angles"]:
    """The 4 · ``quarter`` in-plane angles ψ in radians, in the order of :class:`GridScores`.

    Evenly spaced, half a step off zero: those of the first quarter turn, then −ψ, π − ψ, π + ψ.
    """
    first = (np.arange(quarter) + 0.5) * (np.pi / 2 / quarter)
    return np.concatenate([first, -first, np.pi - first, np.pi + first]).astype(np.float32)


class GridScores(eqx.Module):
    """Scores of all grid points, folded: the four sums that every quadrant of ψ combines."""

    cosine_even: Float[Array, "quarter batch shifts directions"]
    sine_even: Float[Array, "quarter batch shifts directions"]
    cosine_odd: Float[Array, "quarter batch shifts directions"]
    sine_odd: Float[Array, "quarter batch shifts directions"]

    def unfolded(self) -> Float[Array, "angles batch shifts directions"]:
        """The score of every grid point, angles as in :func:`in_plane_angles`."""
        plus, minus = self.cosine_even + self.cosine_odd, self.cosine_even - self.cosine_odd
        sine, difference = self.sine_even + self.sine_odd, self.sine_even - self.sine_odd
        return jnp.concatenate(
            [plus - sine, plus + sine, minus + difference, minus - difference], axis=0
        )

    def largest(self) -> Float[Array, "batch directions"]:
        """The best score of every direction, without unfolding."""
        # max(a − b, a + b) = a + |b|
        both = jnp.maximum(
            self.cosine_even + self.cosine_odd + jnp.abs(self.sine_even + self.sine_odd),
            self.cosine_even - self.cosine_odd + jnp.abs(self.sine_even - self.sine_odd),
        )
        return both.max(axis=(0, 2))

    def at(self, directions: Int[Array, "batch some"]) -> GridScores:
        """The scores of some directions of every image."""
        return jax.tree.map(
            lambda sums: jnp.take_along_axis(sums, directions[None, :, None], axis=3), self
        )


def grid_scores(
    batch: ImageBatch,
    refs: References,
    grid: PolarGrid,
    shifts_px: Float[Array, "shifts 2"],
    log_prior: Float[Array, " shifts"],
    quarter: int,
) -> GridScores:
    """Log-posterior of every image at every in-plane angle, shift and direction.

    Up to a constant of the image. Memory grows with the product of all axes: work through images
    in chunks.

    Args:
        batch: packed images, moved to where shifts count from.
        refs: projections (:func:`references`).
        grid: rings of the images' packing.
        shifts_px: by which images are moved; RELION's origins relative to where they are.
        log_prior: of the shifts.
        quarter: in-plane angles of a quarter turn (:func:`in_plane_angles`).
    """
    # The rings have their own area in place of the multiplicity of packed pixels.
    inverse_power = (batch.weights / grid.multiplicity)[None]
    z = polar_samples(jnp.asarray(batch.data) * batch.ctf * inverse_power, grid)
    c = angular_coefficients(shifted(z, shifts_px, grid), grid)
    shape = (quarter, len(batch.data), len(shifts_px), refs.n_directions)
    psi = in_plane_angles(quarter)[:quarter, None]

    def folded(real, imaginary, matrix, orders):
        """Σ_m cos(mψ) Re q_m and Σ_m sin(mψ) Im q_m with q = Σ_r conj(z) p."""
        left = jnp.concatenate([real, imaginary], axis=-1).reshape(
            len(orders), -1, 2 * grid.n_rings
        )
        angle = psi * orders[None].astype(np.float32)
        return [
            wave @ jnp.matmul(left, matrix[:, part]).reshape(len(orders), -1)
            for part, wave in enumerate((np.cos(angle), np.sin(angle)))
        ]

    sums = [
        *folded(c.even_real, c.even_imaginary, refs.even, grid.even_orders),
        *folded(c.odd_real, c.odd_imaginary, refs.odd, grid.odd_orders),
    ]
    # Without the barrier XLA computes the products again for every sum that reads them.
    cosine_even, sine_even, cosine_odd, sine_odd = (
        part.reshape(shape) for part in jax.lax.optimization_barrier(sums)
    )
    powers = jnp.einsum(
        "mbr,mrd->mbd",
        jnp.conj(
            jnp.einsum(
                "bf,fr,fm->mbr", batch.ctf**2 * inverse_power, grid.power_rings, grid.power_waves
            )
        ),
        refs.power,
    )
    angle = psi * np.array(POWER_ORDERS, np.float32)[None]
    log_prior = log_prior[None, None, :, None]
    return GridScores(
        cosine_even - jnp.einsum("am,mbd->abd", np.cos(angle), powers.real)[:, :, None] + log_prior,
        sine_even - jnp.einsum("am,mbd->abd", np.sin(angle), powers.imag)[:, :, None],
        cosine_odd,
        sine_odd,
    )


class GridPeaks(eqx.Module):
    """The best grid points of every image, one for each local maximum over directions."""

    directions: Int[Array, "batch modes"]
    psi_rad: Float[Array, "batch modes"]
    shifts_px: Float[Array, "batch modes 2"]
    scores: Float[Array, "batch modes"]

    def rotations(self, poses: Float[Array, "directions 3 3"]) -> Float[Array, "batch modes 3 3"]:
        """Poses A of the peaks, from those of the directions."""
        cosine, sine = jnp.cos(self.psi_rad), jnp.sin(self.psi_rad)
        zero, one = jnp.zeros_like(cosine), jnp.ones_like(cosine)
        # A = Rz(ψ)ᵀ A_d
        rows = [[cosine, sine, zero], [-sine, cosine, zero], [zero, zero, one]]
        turn = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
        return turn @ poses[self.directions]


def best_peaks(
    scores: GridScores,
    neighbours: Int[Array, "directions neighbours"] | Int[np.ndarray, "directions neighbours"],
    shifts_px: Float[Array, "shifts 2"],
    n_modes: int,
) -> GridPeaks:
    """The best directions that are better than their neighbours, each with its best ψ and shift.

    Neighbouring directions see nearly the same: a list of the best grid points would hold one peak
    many times. Where there are fewer maxima than ``n_modes``, further directions have score −∞.
    """
    largest = scores.largest()
    peak = largest >= largest[:, neighbours].max(axis=-1)
    best, directions = jax.lax.top_k(jnp.where(peak, largest, -jnp.inf), n_modes)
    around = scores.at(directions).unfolded()  # angles, batch, shifts, modes
    n_angles, images, shifts, _ = around.shape
    flat = jnp.moveaxis(around, 2, 1).reshape(n_angles * shifts, images, n_modes).argmax(axis=0)
    psi = jnp.asarray(in_plane_angles(n_angles // 4))[flat // shifts]
    return GridPeaks(directions, psi, shifts_px[flat % shifts], best)
