"""Images of a table of particles, held in memory with everything that their likelihood takes."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Float64, Int

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import exp_so3
from jaxrelax.imaging import (
    CTFParameters,
    ImageBatch,
    ImageGeometry,
    background_power,
    batch_ctf,
    half_spectrum,
    image_geometry,
    normalise_background,
    pack,
    pixel_weights,
    undo_premultiplication,
    without_odd_phase,
)
from jaxrelax.inference import Poses
from jaxrelax.io import ImageReader, InputError, OpticsGroup, Particles, read_particles

# Images that are read and transformed together.
TOGETHER = 256
# Of the box: what lies outside a circle of this diameter is background of any particle.
WIDEST = 0.94


class _Held:
    """A geometry as a constant of compiled programs: another object is another constant."""

    def __init__(self, geometry: ImageGeometry):
        self.geometry = geometry


class Images(eqx.Module):
    """Images of one optics group and what is known of them; a pytree, to be passed through ``jit``.

    Attributes:
        data: packed transforms about the box centre; the antisymmetric phase, a phase flip and a
            multiplication by the CTF have been undone.
        usable: False where an image that had been multiplied by its CTF says nothing; None for
            images that had not been.
        optics: of every image, as the table has it.
        poses: of every image, as the table has them.
        noise_power: per shell, E|X|² of the unitary transform.
        rows: 0-based row of every image in its file.
    """

    data: Complex[AnyArray, "images freq"]
    usable: Bool[AnyArray, "images freq"] | None
    optics: CTFParameters
    poses: Poses
    noise_power: Float[AnyArray, " shells"]
    rows: Int[AnyArray, " images"]
    _held: _Held = eqx.field(static=True)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def geometry(self) -> ImageGeometry:
        """Of the images on the grid of a map whose box has the same edge in Å."""
        return self._held.geometry

    def select(self, rows: Int[AnyArray, " some"] | slice) -> Images:
        """Only these images, by their number among those held; the numbers may be traced."""
        of_images = (self.data, self.usable, self.optics, self.poses, self.rows)
        data, usable, optics, poses, numbers = jax.tree.map(
            lambda x: jnp.asarray(x)[rows], of_images
        )
        return Images(data, usable, optics, poses, self.noise_power, numbers, self._held)

    def inputs(
        self,
        *,
        turns_rad: Float[AnyArray, "images 3"] | None = None,
        shifts_px: Float[AnyArray, "images 2"] | None = None,
        defocus_change_angstrom: Float[AnyArray, " images"] | None = None,
        noise_power: Float[AnyArray, " shells"] | None = None,
    ) -> tuple[ImageBatch, ImageGeometry, Poses]:
        """The last three arguments of :func:`jaxrelax.inference.log_marginal`.

        Differentiable in all arguments; what is left out is as the table has it, or as the noise
        was estimated.

        Args:
            turns_rad: rotation vectors δ in the image's frame; poses become ``exp([δ]×) A``.
            shifts_px: (x, y) added to the origins.
            defocus_change_angstrom: added to both defoci.
            noise_power: per shell, above 0.
        """
        optics, poses = self.optics, self.poses
        if defocus_change_angstrom is not None:
            optics = replace(
                optics,
                defocus_u_angstrom=optics.defocus_u_angstrom + defocus_change_angstrom,
                defocus_v_angstrom=optics.defocus_v_angstrom + defocus_change_angstrom,
            )
        if turns_rad is not None:
            poses = replace(poses, rotations=exp_so3(jnp.asarray(turns_rad)) @ poses.rotations)
        if shifts_px is not None:
            poses = replace(poses, origins_px=poses.origins_px + shifts_px)
        power = self.noise_power if noise_power is None else noise_power
        geometry = self.geometry
        ctf = batch_ctf(optics, geometry, phase_flipped=False)
        batch = ImageBatch(
            data=self.data,
            ctf=ctf if self.usable is None else jnp.where(self.usable, ctf, 0.0),
            weights=pixel_weights(
                power, geometry.packing, geometry.slice_shell, self.noise_power.shape[0] - 1
            ),
            valid=jnp.ones(len(self), bool),
        )
        return batch, geometry, poses


def load_images(
    particles: Particles | str | os.PathLike,
    rows: Int[np.ndarray, " rows"] | Bool[np.ndarray, " particles"] | slice | None = None,
    *,
    max_resolution_angstrom: float | None = None,
    particle_diameter_angstrom: float | None = None,
    normalise: bool = False,
) -> Images:
    """Read images of one optics group into memory, with CTFs, poses and the noise around them.

    Nothing else is done to them: particles must be white. The noise power is that of the images
    outside a circle, with the mean over each shell; it is a start, to be refined where it matters.

    Args:
        particles: a STAR or ``.cs`` file, or its table.
        rows: which of the table, as indices, mask or slice; all by default.
        max_resolution_angstrom: the band; by default all shells below Nyquist.
        particle_diameter_angstrom: of the circle; by default 0.94 of the box.
        normalise: bring each image to mean 0, slope 0 and deviation 1 outside the circle.

    Raises:
        InputError: no poses, no images, images of several optics groups, a resolution beyond
            Nyquist or a diameter beyond the box; or images with pixels that are no numbers, or
            without noise around the particle.
    """
    if not isinstance(particles, Particles):
        particles = read_particles(particles)
    if not particles.has_poses:
        raise InputError(f"{particles.source}: there are no poses, and the likelihood takes them")
    if rows is not None:
        particles = particles.select(np.arange(len(particles))[rows])
    optics = _one_group(particles)
    edge = optics.box * optics.pixel_size_angstrom
    geometry = _geometry(particles, optics, max_resolution_angstrom)
    diameter = WIDEST * edge if particle_diameter_angstrom is None else particle_diameter_angstrom
    if not 0 < diameter <= edge:
        raise InputError(
            f"a particle diameter of {diameter:g} Å does not fit the box of {edge:.1f} Å"
        )
    radius_px = 0.5 * diameter / optics.pixel_size_angstrom
    data, background = _read(particles, geometry, radius_px, normalise)
    parameters = _ctf_parameters(particles, optics)
    ctf = batch_ctf(parameters, geometry, phase_flipped=False)
    if optics.phase_flipped:
        data = data * jnp.where(ctf < 0, -1.0, 1.0)
        ctf = jnp.abs(ctf)
    usable = None
    if optics.ctf_premultiplied:
        # The noise was multiplied, too.
        background = background / np.mean(np.asarray(ctf, np.float64) ** 2, axis=0)
        data, kept = undo_premultiplication(data, ctf)
        usable = kept != 0
    origins = particles.origins_angstrom / optics.pixel_size_angstrom
    rotations, origins = jnp.asarray(particles.rotations), jnp.asarray(origins)
    return Images(
        data=data,
        usable=usable,
        optics=parameters,
        poses=Poses(rotations, origins, rotations, origins),
        noise_power=_shell_means(background, geometry, particles),
        rows=jnp.asarray(particles.rows_of_file()),
        _held=_Held(geometry),
    )


def _one_group(particles: Particles) -> OpticsGroup:
    if len(particles) == 0:
        raise InputError(f"{particles.source}: no images were chosen")
    groups = np.unique(particles.optics_group)
    if len(groups) > 1:
        names = ", ".join(f"'{particles.optics[group].name}' ({group})" for group in groups)
        raise InputError(
            f"{particles.source}: images of several optics groups, {names}, which have noise (and "
            "maybe boxes and pixels) of their own. Load each by itself: "
            "rows=particles.optics_group == 0; log-likelihoods add."
        )
    return particles.optics[int(groups[0])]


def _geometry(particles: Particles, optics: OpticsGroup, resolution: float | None) -> ImageGeometry:
    box, pixel = optics.box, optics.pixel_size_angstrom
    shell = box // 2 - 1
    if resolution is not None:
        if not resolution >= 2.0 * pixel:
            raise InputError(
                f"{particles.source}: a band up to {resolution:g} Å, but the images end at "
                f"{2.0 * pixel:g} Å"
            )
        shell = int(np.clip(box * pixel / resolution, 1, shell))
    packing = half_spectrum(box, shell, aberrations=optics.aberrations)
    return image_geometry(packing, pixel, box, pixel, optics.aberrations)


def _read(
    particles: Particles, geometry: ImageGeometry, radius_px: float, normalise: bool
) -> tuple[Complex[Array, "images freq"], Float64[np.ndarray, " freq"]]:
    """Packed images without odd phase, and the mean power of their background."""
    packing = geometry.packing

    @jax.jit
    def packed(images):
        images = normalise_background(images, radius_px) if normalise else images
        data = without_odd_phase(pack(images, packing), geometry)
        return data, background_power(images, packing, radius_px)

    parts, total = [], np.zeros(packing.n_pixels)
    with ImageReader(particles) as reader:
        reader.validate()
        for start in range(0, len(particles), TOGETHER):
            rows = np.arange(start, min(start + TOGETHER, len(particles)))
            data, power = packed(jnp.asarray(reader.read(rows)))
            good = np.isfinite(np.asarray(data)).all(axis=1)
            if not good.all():
                row = int(rows[np.flatnonzero(~good)[0]])
                raise InputError(
                    f"{particles.source}, row {particles.rows_of_file()[row] + 1}: image "
                    f"{reader.image_name(row)} has pixels that are no numbers. Leave it out: "
                    "jaxrelax.io.find_bad_images lists all such rows"
                )
            parts.append(data)
            total += np.asarray(power, np.float64).sum(axis=0)
    return jnp.concatenate(parts), total / len(particles)


def _shell_means(
    power: Float64[np.ndarray, " freq"], geometry: ImageGeometry, particles: Particles
) -> Float[Array, " shells"]:
    shells, weight = geometry.slice_shell, geometry.packing.multiplicity
    seen = np.bincount(shells, weight)
    means = np.bincount(shells, weight * power) / np.where(seen > 0, seen, 1.0)
    if not np.all(means[seen > 0] > 0):
        raise InputError(
            f"{particles.source}: the images show no noise around their particles; give the "
            "images before masking, or a smaller particle_diameter_angstrom"
        )
    # A shell without pixels weighs nothing; 1 keeps its logarithm finite.
    return jnp.asarray(np.where(seen > 0, means, 1.0))


def _ctf_parameters(particles: Particles, optics: OpticsGroup) -> CTFParameters:
    column = partial(jnp.full, len(particles))
    scale = particles.ctf_scale
    return CTFParameters(
        defocus_u_angstrom=jnp.asarray(particles.defocus_u_angstrom),
        defocus_v_angstrom=jnp.asarray(particles.defocus_v_angstrom),
        defocus_angle_deg=jnp.asarray(particles.defocus_angle_deg),
        phase_shift_deg=jnp.asarray(particles.phase_shift_deg),
        bfactor_angstrom2=jnp.asarray(particles.bfactor_angstrom2),
        voltage_kv=column(optics.voltage_kv),
        spherical_aberration_mm=column(optics.spherical_aberration_mm),
        amplitude_contrast=column(optics.amplitude_contrast),
        scale=None if scale is None else jnp.asarray(scale),
    )
