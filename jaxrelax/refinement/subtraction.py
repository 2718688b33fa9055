"""Subtraction of what lies outside a mask: the rest's projections are taken from every image.

As ``relion_particle_subtract`` does (Bai et al., eLife 4 (2015) e11182), but for registers: where
an image may be in several, what is subtracted is the mean of the rest over their posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Int

from jaxrelax.engine.data import Data
from jaxrelax.engine.execution import Execution
from jaxrelax.imaging import (
    CTFParameters,
    FourierVolume,
    ImageGeometry,
    Shells,
    fourier_volume,
    mean_slices,
    pack,
    recorded,
    unpack,
    volume_radius,
)
from jaxrelax.io import InputError, OpticsGroup, Particles
from jaxrelax.io.registers import RegisterPosterior

# Frequencies that the scale is found from. Beyond, a map has noise of its own, which no image has:
# it would make the factor small.
SCALE_RESOLUTION_ANGSTROM = 8.0
# A group of fewer images has the scale of all: its own would be uncertain by more than they differ.
OWN_SCALE_IMAGES = 100
# Registers below this probability are left out; the others are as probable as they were together.
LEAST_PROBABILITY = 1e-4


@dataclass(frozen=True)
class Scale:
    """How a map lies to the grey scale of images.

    Attributes:
        factors: of each optics group; the map times it is on the scale of its images.
        overall: of all images together.
        correlation: of images and projections in the band that was used.
    """

    factors: tuple[float, ...]
    overall: float
    correlation: float | None = None


class Subtraction:
    """What lies outside a mask, as every image shows it.

    Args:
        particles: with poses, CTFs and images.
        whole: the map [z, y, x] on the box of the first optics group, on any scale.
        keep: the mask of what stays, on the same box.
        registers: which registers the images may be in; None takes the poses of the table.

    Raises:
        InputError: nothing lies outside the mask, or images are not there.
    """

    def __init__(
        self,
        particles: Particles,
        whole: Float32[np.ndarray, "n n n"],
        keep: Float32[np.ndarray, "n n n"],
        registers: RegisterPosterior | None = None,
    ):
        self.particles, self.registers = particles, registers
        self.whole, self.rest = whole, (1.0 - keep) * whole
        if not np.any(self.rest):
            raise InputError(
                "nothing of the map lies outside the mask of what is kept, so there is nothing to "
                "subtract. Give a mask of a part."
            )
        optics = particles.optics[0]
        last = optics.box // 2 - 1
        shells = Shells(optics.box, optics.pixel_size_angstrom, last)
        self.execution = Execution(
            Data.undivided(particles), shells, channels=1,
            particle_diameter_angstrom=shells.edge_angstrom,
        )  # fmt: skip
        self._posterior = None if registers is None else _ordered(registers)

    @property
    def share_outside(self) -> float:
        """Power of the rest over that of the whole map."""
        power = [float(np.sum(np.square(x, dtype=np.float64))) for x in (self.rest, self.whole)]
        return power[0] / power[1]

    def matched_scale(self, on_batch: Callable[[int], None] | None = None) -> Scale:
        """The scale of the whole map by least squares over all images, ⟨y, p⟩ / ⟨p, p⟩.

        p is the projection that would be subtracted if nothing were kept. Where images are in
        several registers it is the posterior mean, and ⟨y, p⟩ is as unbiased as the posterior is
        calibrated. Frequency 0, which the normalisation has set, does not count.

        Args:
            on_batch: called with the number of images done.

        Raises:
            InputError: the factor is not positive.
        """
        shells, n = self.execution.shells, len(self.particles.optics)
        last = shells.at(SCALE_RESOLUTION_ANGSTROM)
        volume = self._volume(self.whole, last)
        sums, counts = np.zeros((n, 3)), np.zeros(n, int)
        for group in range(n):
            geometry = self.execution.geometry(group, last, last)
            program = jax.jit(_products_of(geometry, self.particles.optics[group]))
            for rows, images, *given in self._batches(group, geometry):
                found = np.asarray(program(volume, images, *given), np.float64)
                sums[group] += found[:, : len(rows)].sum(axis=1)
                counts[group] += len(rows)
                if on_batch is not None:
                    on_batch(len(rows))
        cross, power, images_power = sums.sum(axis=0)
        overall = cross / power if power > 0 else 0.0
        own = np.divide(sums[:, 0], sums[:, 1], out=np.zeros(n), where=sums[:, 1] > 0)
        factors = np.where(counts < OWN_SCALE_IMAGES, overall, own)
        if not (overall > 0 and np.all(factors > 0)):
            raise InputError(
                f"{self.particles.source}: projections of the map do not match the images (scale "
                f"{min(overall, *factors):.3g}); check contrast (particles must be white), pixel "
                "size and that the poses belong to this map, or say the scale with --scale"
            )
        correlation = cross / np.sqrt(power * images_power)
        return Scale(tuple(factors.tolist()), float(overall), float(correlation))

    def images(
        self, group: int, factor: float, on_batch: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Int[np.ndarray, " m"], Float32[np.ndarray, "m y x"]]]:
        """Rows of an optics group and their images without the rest, batch by batch, in order.

        Images have the contrast that they have on disk.

        Args:
            group: of the table.
            factor: brings the map to the scale of these images.
            on_batch: called with the number of images done.
        """
        last = self.execution.shells.last
        volume = self._volume(np.float32(factor) * self.rest, last)
        geometry = self.execution.geometry(group, last, last)
        program = jax.jit(_difference_of(geometry, self.particles.optics[group]))
        for rows, images, *given in self._batches(group, geometry):
            left = np.array(program(volume, images, *given)[: len(rows)])
            # Read as if white.
            left[self.particles.image_sign[rows] < 0] *= -1.0
            yield rows, left
            if on_batch is not None:
                on_batch(len(rows))

    def _volume(self, map_: Float32[np.ndarray, "n n n"], last: int) -> FourierVolume:
        box = self.execution.shells.box
        return fourier_volume(map_[None], radius=volume_radius(last), image_box=box)

    def _batches(self, group: int, geometry: ImageGeometry):
        """Rows; and padded to one size: images, optics, rotations, weights, origins in px."""
        particles, execution = self.particles, self.execution
        size = execution.batch_size(geometry.packing.n_pixels)
        rows = np.flatnonzero(particles.optics_group == group)
        pixel = particles.optics[group].pixel_size_angstrom
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        for chosen, images in execution.images.padded(batches, size):
            padded = np.concatenate([chosen, np.full(size - len(chosen), chosen[0])])
            rotations, weights = self._poses(padded)
            yield (
                chosen,
                images,
                execution.ctf_parameters(padded),
                rotations.astype(np.float32),
                weights.astype(np.float32),
                (particles.origins_angstrom[padded] / pixel).astype(np.float32),
            )

    def _poses(
        self, rows: Int[np.ndarray, " m"]
    ) -> tuple[Float64[np.ndarray, "m poses 3 3"], Float64[np.ndarray, "m poses"]]:
        """Poses of some images and their weights: as many as the least certain of them needs."""
        rotations = self.particles.rotations[rows]
        if self.registers is None or self._posterior is None:
            return rotations[:, None], np.ones((len(rows), 1))
        order, weights = (x[rows] for x in self._posterior)
        needed = max(int((weights > 0).sum(axis=1).max()), 1)
        # Powers of two: each number of poses is a program.
        needed = min(1 << (needed - 1).bit_length(), weights.shape[1])
        poses = self.registers.select(rows).poses(rotations)
        order = order[:, :needed]
        return poses[np.arange(len(rows))[:, None], order], weights[:, :needed]


def _ordered(
    registers: RegisterPosterior,
) -> tuple[Int[np.ndarray, "n registers"], Float64[np.ndarray, "n registers"]]:
    """Registers from the most probable on, and their probabilities without the least ones."""
    posterior = registers.posterior.astype(np.float64)
    order = np.argsort(-posterior, axis=1, kind="stable")
    weights = np.take_along_axis(posterior, order, axis=1)
    weights = np.where(weights < LEAST_PROBABILITY, 0.0, weights)
    return order, weights / weights.sum(axis=1, keepdims=True)


def _model_of(geometry: ImageGeometry, optics: OpticsGroup):
    def model(
        volume: FourierVolume, parameters: CTFParameters, rotations, weights, origins_px
    ) -> jax.Array:
        slices = mean_slices(volume, rotations, weights, geometry.slice_wavevectors)
        return recorded(
            slices, parameters, geometry, origins_px,
            phase_flipped=optics.phase_flipped, ctf_premultiplied=optics.ctf_premultiplied,
        )  # fmt: skip

    return model


def _products_of(geometry: ImageGeometry, optics: OpticsGroup):
    model = _model_of(geometry, optics)
    multiplicity = np.where(geometry.packing.shell > 0, geometry.packing.multiplicity, 0.0)
    multiplicity = multiplicity.astype(np.float32)[None]

    def products(volume, images, *given):
        """⟨y, p⟩, ⟨p, p⟩ and ⟨y, y⟩ of every image."""
        data = pack(images.astype(jnp.float32), geometry.packing)
        p = model(volume, *given)
        pairs = ((data, p), (p, p), (data, data))
        weighted = [multiplicity * (a * jnp.conj(b)).real for a, b in pairs]
        return jnp.stack([jnp.sum(x, axis=1) for x in weighted])

    return products


def _difference_of(geometry: ImageGeometry, optics: OpticsGroup):
    model = _model_of(geometry, optics)

    def difference(volume, images, *given):
        return images.astype(jnp.float32) - unpack(model(volume, *given), geometry.packing)

    return difference


def mass_centre(
    mask: Float32[np.ndarray, "n n n"], pixel_size_angstrom: float
) -> Float64[np.ndarray, "3"]:
    """Centre of mass (x, y, z) of a mask, in Å from the centre of its box."""
    axis = pixel_size_angstrom * (np.arange(len(mask)) - len(mask) // 2)
    total = mask.sum(dtype=np.float64)
    along = [mask.sum(axis=axes, dtype=np.float64) for axes in ((0, 1), (0, 2), (1, 2))]
    return np.array([axis @ profile for profile in along]) / total
