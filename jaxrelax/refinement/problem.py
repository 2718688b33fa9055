"""What stays fixed during a refinement: data, shells, particle, execution, and the components.

Whoever needs one of them is given that one. What goes through an iteration as a whole (the E-step,
the M-step, the calibration of the strength) is given the problem, since it needs all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int, Int8

from jaxrelax.engine.data import Data
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.rest import Rest
from jaxrelax.engine.workers import Workers
from jaxrelax.geometry import PointGroup, common_subgroup
from jaxrelax.imaging import NoiseModel, Shells, rebox_map
from jaxrelax.inference import Hypotheses, Junk, Latent, Model, Register, States, SymmetricState
from jaxrelax.io import Particles, Units, every_row
from jaxrelax.reconstruction import (
    EachAlone,
    Isotypic,
    LocalPrior,
    MapPrior,
    Particle,
    Plain,
    SharedAndOwn,
    StatesPrior,
    TiedPatterns,
    of_patterns,
)
from jaxrelax.refinement.classification import Classification, OccupancyPatterns
from jaxrelax.refinement.course import Course, Seeded, SeekAmplifySettle, Straight
from jaxrelax.refinement.exclusive import Exclusive
from jaxrelax.refinement.modes import Mode
from jaxrelax.refinement.part import Located
from jaxrelax.refinement.relax import Relax, relaxation_groups

# Of one map, by what Relax calls them.
PRIORS: dict[str, type[MapPrior]] = {"isotypic": Isotypic, "local": LocalPrior, "plain": Plain}


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
    prior: StatesPrior
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
    """Inputs of a refinement and everything derived from them once.

    Attributes:
        data, shells, execution, plan: see these.
        particle: what the consensus is of: with the largest symmetry, and the least that is kept.
        of_maps: what every map of the table is of; the particle itself where there is one.
        exclusive: copies of one parent that exclude each other, if any do.
        where: the part that is refined, in whose frame all of this is; None: all is refined.
    """

    data: Data
    shells: Shells
    particle: Particle
    of_maps: tuple[Particle, ...]
    execution: Execution
    plan: Plan
    exclusive: Exclusive | None = None
    where: Located | None = None

    @cached_property
    def common_group(self) -> PointGroup:
        """The symmetry that all maps have, or had before it was relaxed."""
        return common_subgroup([one.group for one in self.of_maps])


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
    prior: MapPrior | StatesPrior | None = None,
    course: Course | None = None,
    latents: Sequence[Latent] = (),
    states: Sequence[tuple[PointGroup, PointGroup]] = (),
    focus_mask: Float32[np.ndarray, "b b b"] | None = None,
    exclusive: Exclusive | None = None,
    where: Located | None = None,
    rest: Rest | None = None,
    background_diameter_angstrom: float | None = None,
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
        states: of every state that images may show its group and the one that is kept; none: one.
        focus_mask: states differ only inside of it.
        exclusive: copies of one parent of which one shows a state.
        where: the part that is refined; particles and masks are in its frame.
        rest: what is around it.
        background_diameter_angstrom: outside of so much images show no particle; None: outside of
            what is refined.

    Raises:
        InputError: groups that do not fit.
        ValueError: latents that need maps or registers of their own.
    """
    group, subgroup = relaxation_groups(relax, symmetry)
    part_mask = None
    if where is not None and where.mask is not None:
        part_mask = rebox_map(where.mask, map_box)
    particle = Particle(
        group, subgroup, map_box, map_pixel_size_angstrom, particle_diameter_angstrom,
        register_mask, None if relax is None else relax.max_resolution, part_mask,
    )  # fmt: skip
    data = Data(
        particles, half_set, fold, every_row(len(particles)) if units is None else units,
        cross_fitted=relax is None or relax.cross_fit > 1,
    )  # fmt: skip
    shells = Shells(
        map_box, map_pixel_size_angstrom, data.last_shell(map_box, map_pixel_size_angstrom),
        max_alignment_resolution_angstrom,
    )  # fmt: skip
    of_maps = tuple(
        dataclasses.replace(particle, group=group, subgroup=kept) for group, kept in states
    ) or (particle,)
    if isinstance(mode, OccupancyPatterns):
        of_maps = of_patterns(particle, mode.patterns)
    model = Model(_latents(of_maps, relax, shells.count, latents))
    _require_known_maps(model, of_maps)
    plan = Plan(
        mode=mode,
        model=model,
        prior=_prior(relax, mode, len(of_maps), prior, focus_mask),
        noise=noise,
        course=_course(relax, mode) if course is None else course,
        relax=relax,
        seed=seed,
    )
    execution = Execution(
        data, shells, channels=len(plan.table),
        particle_diameter_angstrom=background_diameter_angstrom or particle_diameter_angstrom,
        normalise=normalise, cache_bytes=cache_bytes, workers=workers,
        origin_counts=len(of_maps) == 1, rest=rest,
    )  # fmt: skip
    return Problem(data, shells, particle, of_maps, execution, plan, exclusive, where)


def _require_known_maps(model: Model, of_maps: Sequence[Particle]) -> None:
    """Refuse latents that need maps or registers of their own.

    Raises:
        ValueError: a latent adds maps, or places where images go into them.
    """
    table, places = model.table, sum(one.n_registers for one in of_maps)
    if table.n_maps != len(of_maps) or table.n_places != places:
        raise ValueError(
            f"the latents {', '.join(one.name for one in model.latents)} make {table.n_maps} maps "
            f"and {table.n_places} places where images go into them; this refinement makes "
            f"{len(of_maps)}, with {places} registers. Further rows must be deposited at the "
            "places that there are."
        )


def _latents(
    of_maps: Sequence[Particle], relax: Relax | None, n_shells: int, further: Sequence[Latent]
) -> tuple[Latent, ...]:
    """Of every image: its state and register, whether it is symmetric, what was asked, and junk."""
    latents: list[Latent] = []
    registers = [
        (Register(one.registers.representatives),) if one.relaxed else () for one in of_maps
    ]
    if len(of_maps) > 1:
        latents.append(States(tuple(registers)))
    elif of_maps[0].relaxed:
        latents += [SymmetricState(), *registers[0]]
    latents += further
    if relax.junk if relax is not None else len(of_maps) > 1:
        latents.append(Junk(n_shells))
    return tuple(latents)


def _prior(
    relax: Relax | None,
    mode: Mode,
    n_maps: int,
    given: MapPrior | StatesPrior | None,
    focus_mask: Float32[np.ndarray, "b b b"] | None,
) -> StatesPrior:
    """That of all maps: what was given or, by default, what states share and what they do not."""
    if isinstance(given, StatesPrior):
        return given
    if given is None and isinstance(mode, OccupancyPatterns) and mode.tied:
        return TiedPatterns(mode.max_resolution, focus_mask)
    if given is None and n_maps > 1:
        # Where poses are found with the states' maps they are what a noisy mean costs most.
        return SharedAndOwn(
            getattr(mode, "max_resolution", None), focus_mask, unfaded=mode.needs_poses
        )
    if given is None:
        given = PRIORS["isotypic" if relax is None else relax.prior]()
    return EachAlone(given)


def _course(relax: Relax | None, mode: Mode) -> Course:
    """Asymmetry is sought unless there is none to seek or it is given."""
    if isinstance(mode, Classification):
        if mode.starts_from() == "directions":
            return Seeded(alike=1)  # held alike, all would turn to the leading direction again
        return Seeded() if mode.seeds_states else Straight()
    if relax is None:
        return Straight()
    if relax.start == "symmetric":
        return SeekAmplifySettle(relax.optimism)
    return Straight(relax.optimism)
