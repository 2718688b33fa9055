"""Which images can tell registers apart, from map, CTF, noise and pose alone.

No image is read: what is predicted is an average over the noise (``docs/discriminability.md``).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.streams import Conditions
from jaxrelax.engine.workers import ALL, EACH
from jaxrelax.geometry import rotvec_to_matrix
from jaxrelax.imaging import (
    CTFParameters,
    FourierVolume,
    ImageGeometry,
    batch_ctf,
    fourier_volume,
    pixel_weights,
    resample_map,
    undo_premultiplication,
    volume_radius,
    working_box,
)
from jaxrelax.inference import (
    PosePrior,
    accuracy_points,
    expected_accuracy,
    register_gram,
    squared_distance,
    whitened_tangents,
    whitened_views,
)
from jaxrelax.judgement.predicted import Discriminability
from jaxrelax.reconstruction import (
    IsotypicParts,
    Particle,
    first_below,
    match_halves,
    onto_first,
    rotated_maps,
)

# Shells in which the half-maps' asymmetric parts agree less add more noise than they tell.
TRUSTED_FSC = 0.143
# Images whose curvature tells how well poses are known.
WIDTH_SAMPLE = 500


def discriminability(
    execution: Execution,
    particle: Particle,
    symmetric: Float32[AnyArray, "b b b"],
    asymmetric: Float32[AnyArray, "b b b"],
    second: Float32[AnyArray, "b b b"] | None = None,
    *,
    noise_power: Float64[np.ndarray, "groups shells"],
    max_shell: int,
    pose_prior: tuple[float, float] | None,
    blur: bool,
) -> Discriminability:
    """Predict every image's registers at the poses of the particles.

    It is of images (execution) of a particle, so it takes both.

    Args:
        execution: table, devices and shells. The registers of the poses do not matter.
        particle: its groups.
        symmetric: S, the map averaged over the group, on the images' grey scale.
        asymmetric: D = V − S.
        second: an independent estimate of D in the same register frame (of the other half-set);
            without it ``asymmetric`` is taken for the truth, and its noise for signal.
        noise_power: noise spectrum per optics group, E|X|² per shell.
        max_shell: last shell that tells registers apart.
        pose_prior: standard deviations of the poses per axis, rotation (degrees) and shift (Å);
            None takes the poses for exact.
        blur: blur D by what the images leave uncertain about their poses. Not for a map that was
            reconstructed at such poses: it is blurred already.
    """
    n, particles, workers = len(execution.data), execution.data.particles, execution.workers
    rung = execution.shells.rung(max_shell)
    body = _volume(particle, symmetric[None], rung)
    priors: list[PosePrior | None] = [None] * len(particles.optics)
    if pose_prior is not None:
        priors = [_prior(pose_prior, o.pixel_size_angstrom) for o in particles.optics]
    common = (execution, noise_power, max_shell)
    left = (0.0, 0.0)
    if pose_prior is not None and blur:
        # A sample will do: this is a property of the symmetric part and the noise.
        rows = np.unique(np.linspace(0, n - 1, WIDTH_SAMPLE).astype(int))
        share = np.zeros((n, 2))
        for group, prior in enumerate(priors):
            _stream(*common, group, rows, prior, _pose_program, (body,), (share,))
        share = workers.rows(share, execution.own)
        left = tuple(np.array(pose_prior) * np.sqrt(share[rows].mean(axis=0)))
    views = [
        _registers(particle, part, left[0], rung)
        for part in (asymmetric, second)
        if part is not None
    ]
    distance, accuracy = np.zeros(n), np.zeros(n)
    for group, prior in enumerate(priors):
        shift = jax.device_put(np.float32(left[1] / particles.optics[group].pixel_size_angstrom))
        _stream(
            *common, group, np.arange(n), prior, _register_program, (views, body, shift),
            (distance, accuracy),
        )  # fmt: skip
    distance, accuracy = workers.rows((distance, accuracy), execution.own)
    along_z = np.clip(np.abs(particles.rotations[:, 2, 2]), 0.0, 1.0)
    return Discriminability(
        squared_distance=distance,
        expected_accuracy=accuracy,
        chance=1.0 / particle.n_registers,
        resolution_angstrom=execution.shells.resolution(max_shell),
        view_deg=np.rad2deg(np.arccos(along_z)),
        pose_uncertain=pose_prior is not None,
    )


def discriminability_of_halves(
    execution: Execution,
    particle: Particle,
    conditions: Conditions,
    first: Float32[AnyArray, "n n n"],
    second: Float32[AnyArray, "n n n"],
    *,
    pose_prior: tuple[float, float] | None,
) -> Discriminability:
    """What a finished refinement's own half-maps predict, free of their noise.

    Up to the shell where the asymmetric parts of the half-maps stop agreeing (FSC 0.143), or
    scoring does. That falls short of the truth if the true map tells registers apart beyond. It
    is of images (execution) of a particle, so it takes both.

    Args:
        execution, particle: what was refined.
        conditions: noise and band.
        first, second: unregularised half-maps, on any working box of the refinement; they are
            aligned over the group here. From before the joined last scoring they are independent.
        pose_prior: widths of the poses' prior; None takes the poses for exact.
    """
    box, shells = first.shape[0], execution.shells
    sphere = particle.sphere(box)
    density = particle.density_mask(first, second)
    parts = [particle.split(half * sphere) for half in (first, second)]
    inside = [IsotypicParts(p.symmetric * density, p.asymmetric * density) for p in parts]
    last = min(shells.last, box // 2 - 1)
    aligned = match_halves(
        particle, inside, density, max_shell=last, score_shell=shells.rung(conditions.score_shell)
    )
    turned = onto_first(particle, aligned.index, inside[1].asymmetric)
    counts = particle.coefficients(density)
    limit = first_below(aligned.fsc[: last + 1], TRUSTED_FSC, counts) - 1
    limit = execution.workers.agreed(min(limit, particle.register_limit(conditions.score_shell)))
    return discriminability(
        execution,
        particle,
        0.5 * (inside[0].symmetric + inside[1].symmetric),
        particle.region(inside[0].asymmetric),
        particle.region(turned),
        noise_power=conditions.noise_power,
        max_shell=limit,
        pose_prior=pose_prior,
        blur=False,
    )


def _prior(widths: tuple[float, float], pixel_size_angstrom: float) -> PosePrior:
    return PosePrior(
        jax.device_put(np.float32(np.deg2rad(widths[0]))),
        jax.device_put(np.float32(widths[1] / pixel_size_angstrom)),
    )


def _registers(particle: Particle, asymmetric, width_deg: float, rung: int) -> FourierVolume:
    """Channel j at pose A is the asymmetric part at pose A r_jᵀ, blurred over rotations."""
    low = resample_map(asymmetric, working_box(rung))
    if width_deg > 0.0:
        # Isotropic, so that it does not matter that poses turn in the frame of the image.
        turns = rotvec_to_matrix(np.deg2rad(width_deg) * accuracy_points(3, 64).reshape(-1, 3))
        low = np.mean(list(rotated_maps(low, turns)), axis=0)
    inverses = particle.registers.representatives.transpose(0, 2, 1)
    return _volume(particle, np.stack(list(rotated_maps(low, inverses))), rung)


def _volume(particle: Particle, maps, rung: int) -> FourierVolume:
    box = working_box(rung)
    low = np.stack([resample_map(m, box) for m in maps])
    return fourier_volume(jax.device_put(low), radius=volume_radius(rung), image_box=particle.box)


def _stream(execution, noise_power, max_shell, group, rows, prior, build, arguments, results):
    """Run a program over the given rows of one optics group, into arrays over all particles.

    Each process does its own rows.
    """
    particles, workers = execution.data.particles, execution.workers
    rows = execution.mine(rows[particles.optics_group[rows] == group])
    rung = execution.shells.rung(max_shell)
    geometry = execution.geometry(group, rung, rung)
    program = _chunked(execution, group, geometry, build)
    power = noise_power[group].astype(np.float32)
    arguments, power, last, prior = workers.everywhere((arguments, power, max_shell, prior))
    size = execution.batch_size(geometry.packing.n_pixels)
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        padded = np.concatenate([chosen, np.full(size - len(chosen), chosen[0])])
        rotations = workers.split(particles.rotations[padded].astype(np.float32))
        found = program(arguments, power, last, prior, execution.ctf_parameters(padded), rotations)
        for result, values in zip(results, found, strict=True):
            result[chosen] = np.asarray(values)[: len(chosen)]


def _chunked(
    execution: Execution, group: int, geometry: ImageGeometry, build: Callable
) -> Callable:
    """A compiled program over a batch, in chunks whose temporaries fit the cache."""
    optics = execution.optics[group]
    chunk = execution.chunk_size(geometry.packing.n_pixels)

    def program(arguments, power, max_shell, prior, parameters: CTFParameters, rotations):
        weights = pixel_weights(power, geometry.packing, geometry.slice_shell, max_shell)

        def one_chunk(part):
            some, poses = part
            ctf = batch_ctf(some, geometry, optics.phase_flipped)
            if optics.ctf_premultiplied:
                # Where such an image is left out of the likelihood.
                _, ctf = undo_premultiplication(jnp.zeros(ctf.shape, jnp.complex64), ctf)
            return build(*arguments, ctf, weights, geometry, poses, prior)

        def split(x):
            return x.reshape(-1, min(chunk, rotations.shape[0]), *x.shape[1:])

        found = jax.lax.map(one_chunk, jax.tree.map(split, (parameters, rotations)))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    return execution.workers.program(program, (ALL, ALL, ALL, ALL, EACH, EACH), EACH)


def _pose_program(body, ctf, weights, geometry, rotations, prior):
    """Share of the pose prior's variance that an image leaves: rotation, shift."""
    tangents = whitened_tangents(body, ctf, weights, geometry, rotations, prior)
    curvature = jnp.einsum("baf,bcf->bac", tangents, tangents)
    left = jnp.linalg.inv(curvature + jnp.eye(5, dtype=curvature.dtype)[None])
    left = jnp.diagonal(left, axis1=1, axis2=2)
    return (jnp.stack([left[:, :3].mean(axis=1), left[:, 3:].mean(axis=1)], axis=1),)


def _register_program(views, body, shift_px, ctf, weights, geometry, rotations, prior):
    """Squared distance between registers, and expected accuracy."""
    # The mean over shifts of a phase factor.
    k2 = (
        np.sum(geometry.packing.wavevectors_px**2, axis=1) * (2 * np.pi / geometry.packing.box) ** 2
    )
    seen_ctf = ctf * jnp.exp(-0.5 * jnp.asarray(k2, ctf.dtype) * shift_px**2)[None]
    seen = [whitened_views(v, seen_ctf, weights, geometry, rotations) for v in views]
    tangents = None
    if prior is not None:
        tangents = whitened_tangents(body, ctf, weights, geometry, rotations, prior)
    gram = register_gram(seen[0], seen[-1], tangents)
    points = accuracy_points(gram.shape[1])
    return squared_distance(gram), expected_accuracy(gram, points)
