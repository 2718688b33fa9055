"""What stays fixed during a refinement: data, shells, particle, execution, and the components.

Whoever needs one of them is given that one. What goes through an iteration as a whole (the E-step,
the M-step, the calibration of the strength) is given the problem, since it needs all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int, Int8

from jaxrelax.engine.data import Data
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.workers import Workers
from jaxrelax.imaging import NoiseModel, Shells
from jaxrelax.inference import Hypotheses, Junk, Latent, Model, Register, SymmetricState
from jaxrelax.io import Particles, Units, every_row
from jaxrelax.reconstruction import Isotypic, MapPrior, Particle, Plain
from jaxrelax.refinement.course import Course, SeekAmplifySettle, Straight
from jaxrelax.refinement.modes import Mode
from jaxrelax.refinement.relax import Relax, relaxation_groups


@dataclass(frozen=True, eq=False)
class Plan:
    """The components of a refinement.

    Attributes:
        mode: how poses are searched.
        model: what else is unknown of an image.
        prior: how sums become maps.
        noise: how noise is learned.
        course: what is done when.
        relax: the relaxation that was asked for, if any.
        seed: of everything random.
    """

    mode: Mode
    model: Model
    prior: MapPrior
    noise: NoiseModel
    course: Course
    relax: Relax | None
    seed: int

    @cached_property
    def table(self) -> Hypotheses:
        """The model's table: what the channels of a volume stand for."""
        return self.model.table

    @property
    def calibrated(self) -> bool:
        """Whether there is an asymmetric part whose strength is found by other images."""
        return self.relax is not None and self.prior.calibrated

    @property
    def hard(self) -> bool:
        """Whether images go to their best register alone."""
        return self.relax is not None and self.relax.register == "hard"


@dataclass(frozen=True, eq=False)
class Problem:
    """Inputs of a refinement and everything derived from them once."""

    data: Data
    shells: Shells
    particle: Particle
    execution: Execution
    plan: Plan


def make_problem(
    particles: Particles,
    *,
    mode: Mode,
    relax: Relax | None,
    symmetry: str,
    noise: NoiseModel,
    map_box: int,
    map_pixel_size_angstrom: float,
    particle_diameter_angstrom: float,
    register_mask: Float32[np.ndarray, "b b b"] | None,
    half_set: Int8[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    units: Units | None = None,
    normalise: bool | Sequence[bool] = False,
    seed: int = 0,
    cache_bytes: int = 0,
    max_alignment_resolution_angstrom: float | None = None,
    workers: Workers | None = None,
    prior: MapPrior | None = None,
    course: Course | None = None,
    latents: Sequence[Latent] = (),
) -> Problem:
    """Put a problem together.

    Args:
        particles: the table.
        mode, relax, symmetry, noise, prior, course, latents: as for
            :func:`jaxrelax.refine`; ``relax`` decides where prior and course are None.
        map_box, map_pixel_size_angstrom: of the map.
        particle_diameter_angstrom: of the sphere that it fills.
        register_mask: only density inside it tells registers apart.
        half_set, fold, units: see :class:`jaxrelax.engine.Data`.
        normalise, cache_bytes, workers: see :class:`jaxrelax.engine.Execution`.
        seed: of everything random.
        max_alignment_resolution_angstrom: images are scored up to this.

    Raises:
        InputError: groups that do not fit.
        ValueError: latents that need maps or registers of their own.
    """
    group, subgroup = relaxation_groups(relax, symmetry)
    particle = Particle(
        group, subgroup, map_box, map_pixel_size_angstrom, particle_diameter_angstrom,
        register_mask, None if relax is None else relax.max_resolution,
    )  # fmt: skip
    data = Data(
        particles, half_set, fold, every_row(len(particles)) if units is None else units,
        cross_fitted=relax is None or relax.cross_fit > 1,
    )  # fmt: skip
    shells = Shells(
        map_box, map_pixel_size_angstrom, data.last_shell(map_box, map_pixel_size_angstrom),
        max_alignment_resolution_angstrom,
    )  # fmt: skip
    model = Model(_latents(particle, relax, shells.count, latents))
    _require_one_map(model, particle)
    plan = Plan(
        mode=mode,
        model=model,
        prior=_prior(relax) if prior is None else prior,
        noise=noise,
        course=_course(relax) if course is None else course,
        relax=relax,
        seed=seed,
    )
    execution = Execution(
        data, shells, channels=len(plan.table),
        particle_diameter_angstrom=particle_diameter_angstrom, normalise=normalise,
        cache_bytes=cache_bytes, workers=workers,
    )  # fmt: skip
    return Problem(data, shells, particle, execution, plan)


def _require_one_map(model: Model, particle: Particle) -> None:
    """Refuse latents that need maps or registers of their own.

    Raises:
        ValueError: a latent adds maps, or places where images go into them.
    """
    table = model.table
    if table.map_index.max() > 0 or table.n_places != particle.n_registers:
        raise ValueError(
            f"the latents {', '.join(one.name for one in model.latents)} make "
            f"{int(table.map_index.max()) + 1} maps and {table.n_places} places where images go "
            f"into them; a refinement makes one map, with {particle.n_registers} registers. "
            "Further rows must be deposited at the places that there are."
        )


def _latents(
    particle: Particle, relax: Relax | None, n_shells: int, further: Sequence[Latent]
) -> tuple[Latent, ...]:
    """Of every image: its register, whether it is symmetric, what was asked for, and junk."""
    latents: list[Latent] = []
    if particle.relaxed:
        latents += [SymmetricState(), Register(particle.registers.representatives)]
    latents += further
    if relax is not None and relax.junk:
        latents.append(Junk(n_shells))
    return tuple(latents)


def _prior(relax: Relax | None) -> MapPrior:
    return Plain() if relax is not None and relax.prior == "plain" else Isotypic()


def _course(relax: Relax | None) -> Course:
    """Asymmetry is sought unless there is none to seek or it is given."""
    if relax is None:
        return Straight()
    if relax.start == "symmetric":
        return SeekAmplifySettle(relax.optimism)
    return Straight(relax.optimism)
