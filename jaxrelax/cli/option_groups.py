"""Options that several commands share: each class is a group of them in the help.

A command holds such a group as a field of type ``tyro.conf.OmitArgPrefixes``; the docstring of that
field, where there is one, stands above the group's options instead of that of the class.
"""
# ruff: noqa: RUF009  (defaults are read from the components, and are immutable)

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrelax.cli.options import OnOff, Switch, checked, default_of, flag, refuse_idle
from jaxrelax.cli.processes import guard
from jaxrelax.engine.workers import WAY_OUT
from jaxrelax.io import (
    InputError,
    Particles,
    drop_bad_images,
    read_map,
    read_particles,
    read_reference,
)
from jaxrelax.refinement import (
    Classification,
    Homogeneous,
    Local,
    Map,
    MaxIterations,
    Mode,
    OccupancyPatterns,
    Registers,
    Relax,
    criterion_from_text,
    refine,
)
from jaxrelax.refinement.criteria import Either
from jaxrelax.refinement.setup import DEFAULT_UNTIL, UNTIL_STATES_SETTLED

assert isinstance(DEFAULT_UNTIL, Either)
assert isinstance(UNTIL_STATES_SETTLED, Either)
PATTERNS = "patterns"
SETTLED, LIMIT = DEFAULT_UNTIL.first, DEFAULT_UNTIL.second
assert isinstance(LIMIT, MaxIterations)


@dataclass(frozen=True)
class TableOptions:
    """How the table of particles is read."""

    image_root: Path | None = default_of(read_particles, "image_root")
    """Folder that image names are relative to."""
    passthrough: tuple[Path, ...] = default_of(read_particles, "passthrough")
    """Passthrough files of a .cs file; by default those of the same job in the same folder."""

    def read(self, path: Path, *, require_poses: bool = True) -> Particles:
        """The table.

        Raises:
            InputError: see `jaxrelax.io.read_particles`; or passthrough files without a .cs file.
        """
        if path.suffix != ".cs":
            refuse_idle(self, ["passthrough"], "belongs to .cs files")
        return read_particles(
            path,
            self.image_root,
            passthrough=self.passthrough,
            require_poses=require_poses,
        )


@dataclass(frozen=True)
class ParticleOptions(TableOptions):
    """How the table of particles is read, and what becomes of images that cannot be used."""

    skip_bad_images: Switch = default_of(drop_bad_images, "skip_bad")
    """Leave out images that cannot be used (NaN, constant, with a pixel far from all others),
    instead of stopping."""


@dataclass(frozen=True)
class MapOptions:
    """How maps are read."""

    map_pixel_size_angstrom: float | None = default_of(read_map, "pixel_size_angstrom")
    """Pixel size (Å) of the map, instead of its header's."""

    def read(self, path: Path) -> Map:
        """The map.

        Raises:
            InputError: see `jaxrelax.io.read_reference`.
        """
        return Map(*read_reference(path, self.map_pixel_size_angstrom), name=str(path))

    def later(self, path: Path) -> Map | Path:
        """The path, for those who read maps themselves; the map if its header does not count."""
        return path if self.map_pixel_size_angstrom is None else self.read(path)


@dataclass(frozen=True)
class RegisterOptions:
    """Which registers there are, and where they differ."""

    to: str = default_of(Relax, "to")
    """The subgroup that is kept; the symmetries between it and the group are in question."""
    register_mask: Path | None = default_of(Relax, "mask")
    """Mask (.mrc); only density inside it tells registers apart."""

    def component(self, group: str, **more: Any) -> Relax:
        """The relaxation of a group, with these options and more of its fields.

        Raises:
            InputError: a value is out of range, or an option is given that cannot act.
        """
        # Fields of the component need no such prefix; among a command's options it says what for.
        values = {name.removeprefix("register_"): value for name, value in vars(self).items()}
        if self.register_mask is not None:
            values["mask"] = str(self.register_mask)
        return checked(Relax, group=group, **values, **more)


@dataclass(frozen=True)
class RelaxationOptions(RegisterOptions):
    """How registers are inferred, and the map with them."""

    register_max_resolution: float | None = default_of(Relax, "max_resolution")
    """Registers are told apart by frequencies up to this resolution (Å)."""
    cross_fit: int = default_of(Relax, "cross_fit")
    """Folds per half-set; images are scored against maps without their fold. 1 scores them against
    maps that contain them."""
    prior: Literal["isotypic", "local", "plain"] = default_of(Relax, "prior")
    """Give the asymmetric part a gain and a strength of its own, vary the gains of both in space
    too (also where nothing is relaxed), or take one FSC for the whole map, as other programs do."""
    optimism: float = default_of(Relax, "optimism")
    """Standard errors added to the asymmetric FSC until it stands without. Not for the
    plain prior."""
    junk: OnOff = default_of(Relax, "junk")
    """Infer which images show no particle, or a symmetric one, and count them by the probability
    that they do not."""
    inner_iterations: int = default_of(Relax, "inner_iterations")
    """After every search of poses, iterate registers and maps at these poses until they stand
    still, so many times at the most."""
    start: Literal["symmetric", "reference", "poses"] = default_of(Relax, "start")
    """Start from the symmetrised reference, the reference as it is, or the registers of the input
    poses."""

    def component(self, group: str, **more: Any) -> Relax:
        """As `RegisterOptions.component`."""
        if self.prior == "plain":
            refuse_idle(self, ["optimism"], "cannot act with --prior plain")
        return super().component(group, **more)


@dataclass(frozen=True)
class PoseErrorOptions:
    """How well the poses are known."""

    sigma_rotation_deg: float = default_of(Local, "sigma_rotation_deg")
    """Error of the poses per rotation axis (degrees): the width of their prior."""
    sigma_shift_angstrom: float = default_of(Local, "sigma_shift_angstrom")
    """Error of the origins per axis (Å): the width of their prior."""

    def mode(self, option: str, value: str) -> Mode:
        """Local poses under this prior if that is the value of the option; else none, or all.

        Raises:
            InputError: a width is out of range, or given where poses are held.
        """
        if value == "local":
            return checked(Local, **vars(self))
        if value == "global":
            refuse_idle(self, vars(self), f"can act only with {option} local")
            return Homogeneous()
        refuse_idle(self, vars(self), f"can act only with {option} local")
        return Registers()


@dataclass(frozen=True)
class PosePriorOptions(PoseErrorOptions):
    """How well the poses are known, at first."""

    learn_prior: OnOff = default_of(Local, "learn_prior")
    """Let these widths follow the posterior."""


@dataclass(frozen=True)
class LocalSearchOptions(PosePriorOptions):
    """How well the poses are known, at first, and how far they may move."""

    rotation_extent_deg: float | None = default_of(Local, "rotation_extent_deg")
    """Turn poses no farther than this (degrees) from those of the input."""
    shift_extent_angstrom: float | None = default_of(Local, "shift_extent_angstrom")
    """Shift them no farther than this (Å)."""


@dataclass(frozen=True)
class GlobalSearchOptions:
    """How finely all orientations are searched."""

    coarsest_order: int = default_of(Homogeneous, "coarsest_order")
    """HEALPix order of the first grid of orientations; 2 is 15°, each further one halves it."""
    finest_order: int = default_of(Homogeneous, "finest_order")
    """HEALPix order of the finest grid; from its best points poses are refined without one."""
    tilt_range_deg: tuple[float, float] = default_of(Homogeneous, "tilt_range_deg")
    """Search directions between these angles (degrees) to the z axis only."""
    relax_from: Literal["start", "local", "end"] = default_of(Homogeneous, "relax_from")
    """With --relax: infer registers from the start, when poses have settled, or when the symmetric
    refinement has converged."""

    def component(self) -> Homogeneous:
        """The mode.

        Raises:
            InputError: a value is out of range.
        """
        return checked(Homogeneous, **vars(self))


@dataclass(frozen=True)
class ClassificationOptions:
    """Which states there are, and how they are told apart."""

    states: tuple[str, ...] = ()
    """Symmetries of classes 1, 2, …: C4 imposes it, C4:C1 relaxes from C4 to C1, C4:C2 keeps a C2,
    C1 has none. Or patterns (with --relax C4; or patterns:C4): the patterns in which the sites of
    that group are occupied by a partner."""
    classes: int | Literal["auto"] | None = None
    """So many states, all relaxed as --relax and --to say, or with --symmetry without them; auto:
    as many as held-out images tell apart."""
    most_classes: int = default_of(Classification, "most")
    """With --classes auto: no more than these."""
    further_references: tuple[Path, ...] = ()
    """Maps (.mrc) that classes 2, 3, … start from, where class 1 starts from --reference: without a
    consensus, and with --poses global from nothing."""
    poses: Literal["held", "local", "global"] = default_of(Classification, "poses")
    """Leave poses where the consensus has them (those of the input, with references of all states),
    refine them locally with every state, or search all orientations."""
    state_start: Literal["auto", "occupancy", "directions", "random"] = default_of(
        Classification, "start"
    )
    """Start states from the occupancy of the consensus' partner, from clusters of images along the
    directions in which they differ most, or from seeded random states; auto takes occupancy where
    one state is relaxed and others have the whole group, and else directions."""
    seeds: int = 1
    """Run so many times, with --seed and those after it, and say how well the states agree; the
    first run is written."""
    classification_resolution: float | None = default_of(Classification, "max_resolution")
    """States are told apart by frequencies up to this resolution (Å)."""
    focus_mask: Path | None = default_of(Classification, "focus_mask")
    """Mask (.mrc); states differ only inside it."""
    exclusive: int | Literal["auto"] | None = default_of(Classification, "exclusive")
    """Of sub-particles: of the copies of one particle (jrxParent) exactly one shows this class;
    auto: the class of which the images say so."""
    exclusive_or_none: Switch = default_of(Classification, "exclusive_or_none")
    """With --exclusive: at most one copy shows it, and a particle may have none."""

    def component(self, relax: Relax | None, symmetry: str, poses: Mode) -> Classification:
        """The mode.

        Args:
            relax: what all states are relaxed by, where only their number is given.
            symmetry: of all states, without.
            poses: how they are searched.

        Raises:
            InputError: a value is out of range, or none or both of states and their number given.
        """
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}; there is at least one run.")
        if bool(self.states) == (self.classes is not None):
            raise InputError(
                "--mode classification needs the symmetries of the states (--states C4:C1 C4) or "
                "their number (--classes 3), and not both."
            )
        if self.states and self.states[0].partition(":")[0] == PATTERNS:
            return self._patterns(relax, poses)
        if isinstance(self.classes, int) and self.classes < 2:
            raise InputError(f"--classes is {self.classes}; there are at least 2, or auto.")
        if self.classes == "auto":
            idle = ["state_start", "further_references", "exclusive", "exclusive_or_none"]
            refuse_idle(self, idle, "cannot act with --classes auto")
        else:
            refuse_idle(self, ["most_classes"], "can act only with --classes auto")
        if self.further_references:
            refuse_idle(self, ["state_start"], "cannot act with --further-references")
        one = symmetry if relax is None else f"{relax.group}:{relax.to}"
        count = 1 if self.classes == "auto" else self.classes or 0
        return checked(
            Classification,
            states=self.states or (one,) * count,
            poses=poses,
            start="splits" if self.classes == "auto" else self.state_start,
            most=self.most_classes,
            max_resolution=self.classification_resolution,
            focus_mask=None if self.focus_mask is None else str(self.focus_mask),
            exclusive=self.exclusive,
            exclusive_or_none=self.exclusive_or_none,
        )

    def _patterns(self, relax: Relax | None, poses: Mode) -> OccupancyPatterns:
        """States are occupancy patterns."""
        group = self.states[0].partition(":")[2] or (relax.group if relax is not None else "")
        if len(self.states) > 1 or not group:
            raise InputError(
                "--states patterns stands alone, and needs a group: --relax C4, or patterns:C4"
            )
        idle = ["state_start", "most_classes", "further_references"]
        idle += ["exclusive", "exclusive_or_none"]
        refuse_idle(self, idle, "cannot act with --states patterns")
        return checked(
            OccupancyPatterns,
            group=group,
            poses=poses,
            max_resolution=self.classification_resolution,
            focus_mask=None if self.focus_mask is None else str(self.focus_mask),
        )


@dataclass(frozen=True)
class RefinementOptions:
    """How the refinement begins, and how long it may go on."""

    ini_high: float | None = default_of(refine, "ini_high")
    """Resolution (Å) to which the reference is used; by default 12, and 30 with --mode
    homogeneous."""
    max_alignment_resolution: float | None = default_of(refine, "max_alignment_resolution")
    """Images are compared with maps up to this resolution (Å) only; by default as far as the
    half-maps agree."""
    particle_diameter: float | None = default_of(refine, "particle_diameter")
    """Diameter of the particle (Å); by default from the reference."""
    normalise: Literal["auto", "yes", "no"] = default_of(refine, "normalise")
    """Normalise the background of every image; auto looks at all of them, and normalises the
    optics groups that need it."""
    contrast: Literal["auto", "white", "black"] = default_of(refine, "contrast")
    """Of the particles in the images; auto compares them with the reference, and inverts images
    that are clearly black."""
    max_iterations: int = LIMIT.iterations
    """Stop after so many iterations at the latest; where a relaxation follows a symmetric stage,
    each has as many."""
    until: str | None = None
    """Stop when this criterion is satisfied, such as "RegisterFlowSettled & AsymmetryStalled" (see
    `jaxrelax replay`); by default when half-maps and their asymmetric parts agree no better and
    registers have settled."""
    final_passes: int = default_of(refine, "final_passes")
    """So many more iterations after the criterion is satisfied; --max-iterations still ends it."""
    seed: int = default_of(refine, "seed")
    """Seed of everything random."""
    cache_gib: float = default_of(refine, "cache_gib")
    """Memory for images between iterations (GiB), where reading them in every pass is slow; used
    for the images of an optics group if all of them fit."""

    def arguments(self, mode: Mode | None = None) -> dict[str, Any]:
        """These options as arguments of `jaxrelax.refine`, which is to stop as its mode needs.

        Raises:
            InputError: a value is out of range.
        """
        if self.max_iterations < 1:
            raise InputError(f"--max-iterations is {self.max_iterations}; at least 1 is needed.")
        if self.final_passes < 0:
            raise InputError(f"--final-passes is {self.final_passes}; it cannot be negative.")
        if self.cache_gib < 0:
            raise InputError(f"--cache-gib is {self.cache_gib:g}; it cannot be negative.")
        arguments = dict(vars(self))
        limit = MaxIterations(arguments.pop("max_iterations"))
        settled = UNTIL_STATES_SETTLED.first if isinstance(mode, Classification) else SETTLED
        if self.until is not None:
            settled = criterion_from_text(self.until)
        return {**arguments, "until": settled | limit}


@dataclass(frozen=True)
class WorkerOptions:
    """Devices and processes that share the images."""

    devices: int | Literal["all"] | None = default_of(refine, "devices")
    """How many devices of this machine (of each process) work, or all; by default one where there
    are only CPUs, which uses all cores, and all accelerators."""
    distributed: Switch = False
    """Work with the other processes that srun or mpirun started with this command."""
    coordinator: str | None = None
    """Without srun and mpirun: address host:port at which process 0 meets the others."""
    processes: int | None = None
    """With --coordinator: how many processes there are."""
    process_id: int | None = None
    """With --coordinator: which of them this one is, from 0."""

    def check(self) -> None:
        """Look at the options; start nothing.

        Raises:
            InputError: a value is out of range, or options do not go together.
        """
        if isinstance(self.devices, int) and self.devices < 1:
            raise InputError(f"--devices is {self.devices}; at least 1 is needed.")
        if self.coordinator is None:
            for name in ("processes", "process_id"):
                if getattr(self, name) is not None:
                    raise InputError(f"{flag(name)}: can act only with --coordinator.")
            return
        if self.distributed:
            raise InputError(
                "--distributed takes the processes from srun or mpirun, and --coordinator names "
                "them; give one of the two."
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"--coordinator is host:port, not {self.coordinator!r}.")
        if self.processes is None or self.process_id is None:
            raise InputError("--coordinator needs --processes and --process-id.")
        if not 0 <= self.process_id < self.processes:
            raise InputError(
                f"--process-id is {self.process_id}; it counts from 0 to --processes less one, "
                f"{self.processes - 1}."
            )

    def join(self) -> bool:
        """Make devices, meet the other processes; before JAX is used for anything else.

        Returns:
            whether this process writes files and talks.

        Raises:
            InputError: nothing says which processes there are.
        """
        if isinstance(self.devices, int) and self.devices > 1:
            # Too late where JAX is in use already; if there are too few devices, refine says so.
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", self.devices)
        if not (self.distributed or self.coordinator):
            return True
        guard.watch(
            "jaxrelax: this process was ended from outside, most likely because another process "
            f"of the run was lost; {WAY_OUT}."
        )
        try:
            jax.distributed.initialize(self.coordinator, self.processes, self.process_id)
        except ValueError as error:
            raise InputError(
                "--distributed: neither SLURM (srun) nor Open MPI (mpirun) started this process "
                f"({error}). Use one of them, or give --coordinator, --processes and --process-id."
            ) from error
        return jax.process_index() == 0
