"""From truth to images: projection, shift, CTF, noise, normalisation; a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from jaxrelax.imaging.ctf import CTFParameters, ctf
from jaxrelax.simulate.config import Simulation
from jaxrelax.simulate.noise import coloured_noise, noise_amplitude
from jaxrelax.simulate.phantom import compact_object
from jaxrelax.simulate.projection import Projector
from jaxrelax.simulate.specimen import DEFAULT_BFACTOR_ANGSTROM2, Specimen, magnification
from jaxrelax.simulate.truth import Truth, group_colour, group_voltage_kv

BATCH = 32
PILOT_IMAGES = 64  # the signal's variance is estimated from these to set the grey scale

_ctf = jax.jit(ctf)


@dataclass
class SignalVariance:
    """Variance of the signal inside the particle's circle, image by image, per optics group."""

    sums: Float[np.ndarray, " groups"]
    counts: Int[np.ndarray, " groups"] = field(init=False)

    def __post_init__(self):
        self.counts = np.zeros(len(self.sums), np.int64)

    def add(self, group: int, value: float) -> None:
        """Count one image."""
        self.sums[group] += value
        self.counts[group] += 1

    def per_group(self) -> list[float | None]:
        """Means per optics group; None where a group shows no particle."""
        return [float(s / c) if c else None for s, c in zip(self.sums, self.counts, strict=True)]

    def mean(self) -> float:
        """Mean over all images."""
        return float(self.sums.sum() / self.counts.sum())


class Microscope:
    """Makes the images of a specimen.

    Args:
        specimen: what is imaged.
        truth: the latent variables of all particles.
        config: the options.
        radius_angstrom: radius of the particle's circle.
    """

    def __init__(
        self, specimen: Specimen, truth: Truth, config: Simulation, radius_angstrom: float
    ):
        self.specimen, self.truth, self.config = specimen, truth, config
        n = config.box
        axis = np.arange(n) - n // 2
        distance2 = (axis[:, None] ** 2 + axis[None, :] ** 2) * config.pixel_size_angstrom**2
        self.circle = distance2 <= radius_angstrom**2
        self.kx, self.ky = np.fft.rfftfreq(n)[None, :], np.fft.fftfreq(n)[:, None]
        pair = np.broadcast_arrays(self.kx, self.ky)
        frequencies = np.stack([k.ravel() for k in pair], axis=1) / config.pixel_size_angstrom
        self._frequencies = frequencies @ magnification(config).T  # of the specimen
        self._aberrations = [
            config.aberrations(group_voltage_kv(config, g)) for g in range(config.n_optics_groups)
        ]
        self._noise = [
            noise_amplitude(n, config.pixel_size_angstrom, group_colour(config, g))
            for g in range(config.n_optics_groups)
        ]
        self._junk = self._junk_projector() if config.junk_kind == "object" else None
        self.scale = 1.0
        self.scale = self._scale_for_snr()
        self.variance = SignalVariance(np.zeros(config.n_optics_groups))

    def images(self, rng: np.random.Generator) -> Iterator[Float[np.ndarray, "batch box box"]]:
        """All images in order, normalised; noise has standard deviation one before that.

        Fills ``variance`` on the way.
        """
        for first in range(0, self.config.n_images, BATCH):
            rows = np.arange(first, min(first + BATCH, self.config.n_images))
            signals = self.signals(rows)
            batch = np.empty(signals.shape, np.float32)
            for i, row in enumerate(rows):
                group = int(self.truth.optics_group[row])
                if not self.truth.junk[row]:
                    self.variance.add(group, float(np.var(signals[i][self.circle])))
                image = signals[i] + coloured_noise(rng, self._noise[group])
                batch[i] = normalised(image, ~self.circle)
            yield batch

    def signals(self, rows: Int[np.ndarray, " batch"]) -> Float[np.ndarray, "batch box box"]:
        """Images of these particles without noise, on the final grey scale."""
        transforms = np.stack([self._shifted(int(row)) for row in rows])
        transforms *= self.scale * self.ctf(rows)
        for image, group in zip(transforms, self.truth.optics_group[rows], strict=True):
            aberrations = self._aberrations[group]
            if aberrations.odd:
                phase = aberrations.odd_phase(self._frequencies).reshape(image.shape)
                image *= np.exp(1j * phase)
        return np.fft.irfft2(transforms)

    def ctf(self, rows: Int[np.ndarray, " batch"]) -> Float[np.ndarray, "batch box half"]:
        """CTFs of these particles on the grid of ``rfft2``."""
        config, truth = self.config, self.truth
        # Always the same number of rows, so that one program is compiled.
        padded = np.resize(rows, BATCH)
        voltages = np.array([group_voltage_kv(config, g) for g in range(config.n_optics_groups)])

        def constant(value: float) -> jax.Array:
            return jnp.full(BATCH, value, jnp.float32)

        def column(values: np.ndarray) -> jax.Array:
            return jnp.asarray(values[padded], jnp.float32)

        parameters = CTFParameters(
            defocus_u_angstrom=column(truth.defocus_u_angstrom),
            defocus_v_angstrom=column(truth.defocus_v_angstrom),
            defocus_angle_deg=column(truth.defocus_angle_deg),
            phase_shift_deg=constant(config.phase_shift_deg),
            bfactor_angstrom2=constant(0.0),
            voltage_kv=column(voltages[truth.optics_group]),
            spherical_aberration_mm=constant(config.spherical_aberration_mm),
            amplitude_contrast=constant(config.amplitude_contrast),
        )
        shape = (config.box, config.box // 2 + 1)
        frequencies = jnp.asarray(self._frequencies, jnp.float32)
        if not any(each.even for each in self._aberrations):
            return np.asarray(_ctf(parameters, frequencies))[: len(rows)].reshape(-1, *shape)
        values = np.empty((len(rows), *shape), np.float32)
        for group, aberrations in enumerate(self._aberrations):
            even = jnp.asarray(aberrations.even_phase(self._frequencies), jnp.float32)
            mine = np.flatnonzero(truth.optics_group[rows] == group)
            found = np.asarray(_ctf(parameters, frequencies, even))[: len(rows)]
            values[mine] = found[mine].reshape(-1, *shape)
        return values

    def _shifted(self, row: int) -> Complex[np.ndarray, "box half"]:
        """Transform of one projection with the particle at −origin."""
        # A shift by +t multiplies by exp(−2πi k·t/N), and t = −origin.
        origin = self.truth.origins_angstrom[row] / self.config.pixel_size_angstrom
        phase = np.exp(2j * np.pi * (self.kx * origin[0] + self.ky * origin[1]))
        return self._projection(row) * phase

    def _projection(self, row: int) -> Complex[np.ndarray, "box half"]:
        truth, pose = self.truth, self.truth.poses[row]
        if truth.junk[row]:
            if self._junk is None:
                return np.zeros(self.circle[:, : self.kx.size].shape, np.complex128)
            return self._junk.image_fourier(pose)
        if truth.symmetric[row]:
            return self.specimen.symmetric_fourier(pose)
        mask = self.specimen.mask(truth.occupied[row])
        positions = None
        if self.specimen.part is not None and truth.swings is not None:
            rest = self.specimen.atoms.positions_angstrom
            positions = self.specimen.part.turned(rest, truth.swings[row])
        projector = self.specimen.projector
        return projector.image_fourier(pose, None if mask.all() else mask, positions)

    def _scale_for_snr(self) -> float:
        rows = np.flatnonzero(~self.truth.junk)[:PILOT_IMAGES]
        variance = 0.0
        for first in range(0, len(rows), BATCH):
            for signal in self.signals(rows[first : first + BATCH]):
                variance += float(np.var(signal[self.circle])) / len(rows)
        return float(np.sqrt(self.config.snr / variance))

    def _junk_projector(self) -> Projector:
        projector = self.specimen.projector
        atoms = self.specimen.atoms.where(self.specimen.object_mask())
        target = float(atoms.scattering().sum())
        junk = compact_object(target, self.config.seed)
        bfactor = self.config.bfactor_angstrom2
        return Projector(
            junk,
            projector.box,
            projector.pixel_size_angstrom,
            DEFAULT_BFACTOR_ANGSTROM2 if bfactor is None else bfactor,
            projector.resolution_angstrom,
            magnification=magnification(self.config),
        )


def normalised(
    image: Float[np.ndarray, "box box"], background: Bool[np.ndarray, "box box"]
) -> Float[np.ndarray, "box box"]:
    """Mean 0 and standard deviation 1 outside the particle, as RELION's extraction does."""
    values = image[background]
    return (image - values.mean()) / values.std()
