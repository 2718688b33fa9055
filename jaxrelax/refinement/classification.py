"""Several states: one normalised posterior per image over state × register (× junk)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import equinox as eqx
import numpy as np

from jaxrelax import geometry
from jaxrelax.geometry import (
    PointGroup,
    common_subgroup,
    occupancy_patterns,
    parse_group,
    point_group,
    subgroup,
    subgroup_indices,
)
from jaxrelax.inference import PoseSearch
from jaxrelax.io import InputError
from jaxrelax.refinement.modes import Homogeneous, Local, Mode, Registers, Searched
from jaxrelax.refinement.relax import Relax

STATE = re.compile(r"^(?P<group>[^:]+)(:(?P<kept>[^:]+))?$")
STARTS = ("auto", "references", "occupancy", "random", "directions", "splits")
# Axes of states that are nearer to each other are the same.
APART_ANGSTROM = 0.5
POSES: dict[str, Mode] = {"held": Registers(), "local": Local(), "global": Homogeneous()}


def _several(states: Iterable[str]) -> tuple[str, ...]:
    """The symmetries of all states; a text alone would be taken letter by letter."""
    if isinstance(states, str):
        raise ValueError(f'states are a list, such as ["C4:C1", "C4"], not the text {states!r}')
    return tuple(states)


class Classification(Mode):
    """Which of several maps an image shows is inferred together with its register.

    Every state has its own map and its own symmetry: ``"C4"`` imposes it, ``"C4:C1"`` relaxes from
    C4 to C1, ``"C4:C2"`` keeps a C2, and ``"C1"`` has none. First a consensus is refined, relaxed
    if a state is; the states start from it.

    Attributes:
        states: symmetries of classes 1, 2, …
        poses: ``"local"`` refines poses with every state, ``"held"`` leaves them where the
            consensus, which is refined locally, has them, and lets only frequencies score that
            their errors allow; or a mode (with ``Registers()`` the poses of the input are held,
            whose errors nobody knows). ``"global"`` finds them: those of every state where each has
            a reference of its own, else those of the consensus, and refines them locally then.
        start: ``"occupancy"``: from the relaxed consensus, relaxed states with one partner and of
            the others the first with all and the last with none; ``"directions"``: from clusters
            of images along the directions in which they differ most; ``"random"``: a seeded random
            state for every image, from which what images differ by most grows; ``"splits"``: with
            the symmetry of one state, as many of it as held-out images tell apart, each number from
            directions; ``"references"``: each from a reference of its own, without a consensus;
            ``"auto"``: references where there are several, occupancy where one state is relaxed and
            others have the whole group, and directions else.
        most: states, where their number is found.
        max_resolution: states are told apart by frequencies up to this, in Å; None: all.
        focus_mask: path of a map-sized mask (0…1); states differ only inside of it.
        exclusive: class, from 1, that of the copies of one particle (``jrxParent``) exactly one
            shows; ``"auto"``: the one of which images say so; None: copies are judged alone.
        exclusive_or_none: at most one does, and a particle may have none.
    """

    states: tuple[str, ...] = eqx.field(converter=_several)
    poses: Mode | str = "local"
    start: str = "auto"
    most: int = 8
    max_resolution: float | None = None
    focus_mask: str | None = None
    exclusive: int | str | None = None
    exclusive_or_none: bool = False

    def __check_init__(self):
        if self.start == "splits" and len(self.states) != 1:
            raise ValueError(
                'with start="splits" all states have one symmetry, which is given once; got '
                f"{', '.join(self.states) or 'none'}"
            )
        if self.start != "splits" and len(self.states) < 2:
            raise ValueError(
                "a classification has at least two states, or finds their number (--classes auto, "
                f'start="splits"); got {", ".join(self.states) or "none"}'
            )
        if self.most < 2:
            raise ValueError(f"most is a number of states, at least 2; got {self.most}")
        if isinstance(self.poses, str) and self.poses not in POSES:
            raise ValueError(f'poses are "held", "local", "global" or a mode, not {self.poses!r}')
        if self.start not in STARTS:
            raise ValueError(f"start is one of {', '.join(STARTS)}, not {self.start!r}")
        if self.max_resolution is not None and self.max_resolution <= 0:
            raise ValueError(f"max_resolution is in Å, above 0; got {self.max_resolution:g}")
        if self.exclusive is None and self.exclusive_or_none:
            raise ValueError("exclusive_or_none: no class excludes itself; give exclusive, too")
        if self.exclusive is not None:
            _require_class(self.exclusive, self.states, self.start)

    @property
    def pose_mode(self) -> Mode:
        """How poses are searched."""
        return POSES[self.poses] if isinstance(self.poses, str) else self.poses

    def search(
        self, searched: Searched, resolution_angstrom: float, everywhere: bool
    ) -> PoseSearch:
        """That of its pose mode."""
        return self.pose_mode.search(searched, resolution_angstrom, everywhere)

    @property
    def mode_of_consensus(self) -> Mode:
        """How poses are searched before there are states.

        Held poses are those of a consensus that says how exact they are.
        """
        return Local() if self.poses == "held" else self.pose_mode

    @property
    def after_consensus(self) -> Classification:
        """The same for poses that a consensus has found."""
        found = self.pose_mode.relaxed
        return self if found is None else dataclasses.replace(self, poses=found)

    @property
    def needs_poses(self) -> bool:
        """As its pose mode."""
        return self.pose_mode.needs_poses

    @property
    def ini_high_angstrom(self) -> float:
        """As its pose mode."""
        return self.pose_mode.ini_high_angstrom

    @property
    def holds_poses(self) -> bool:
        """As its pose mode."""
        return self.pose_mode.holds_poses

    @property
    def learns_prior(self) -> bool:
        """As its pose mode."""
        return self.pose_mode.learns_prior

    def prior_widths(self) -> tuple[float, float]:
        """As its pose mode."""
        return self.pose_mode.prior_widths()

    def groups(self) -> list[tuple[PointGroup, PointGroup]]:
        """Of every state its group and what is kept of it.

        Raises:
            InputError: names the state.
        """
        return [state_groups(text) for text in self.states]

    def starts_from(self) -> str:
        """How states begin: from references, by occupancy, along directions or at random."""
        if self.start in ("references", "occupancy", "random", "directions"):
            return self.start
        groups = self.groups()
        relaxed = [group for group, kept in groups if kept.order < group.order]
        imposed = [group for group, kept in groups if kept.order == group.order]
        alike = len({group.name for group, _ in groups}) == 1
        return "occupancy" if len(relaxed) == 1 and imposed and alike else "directions"

    @property
    def seeds_states(self) -> bool:
        """Whether images begin in states, and maps follow."""
        return self.starts_from() in ("random", "directions")

    def consensus(
        self, relax: Relax | None, *, references: bool = False
    ) -> tuple[Relax | None, str]:
        """What is relaxed before there are states, and the symmetry if nothing is.

        It has the largest group of all states, and keeps the least of it. Where there is none,
        since every state has a map of its own, it is what stands for all of them together.

        Args:
            relax: how registers are inferred; its groups must be those of the states.
            references: whether there is a map for every state. Their groups need then not contain
                each other as long as none is relaxed.

        Raises:
            InputError: states of groups that do not contain each other, or other groups than asked.
        """
        groups = self.groups()
        number = max(range(len(groups)), key=lambda k: groups[k][0].order)
        largest, name = groups[number][0], self.states[number].partition(":")[0]
        relaxed = [text.partition(":")[2] or "C1" for text in self.states if ":" in text]
        if references and relaxed:
            self._require_registers_apart(groups)
        for text, (group, _) in zip(self.states, groups, strict=True):
            try:
                subgroup_indices(largest, group)
            except ValueError as error:
                if references and not relaxed:
                    name = "C1"
                else:
                    raise InputError(
                        f"state {text!r}: {group.name} is no subgroup of {largest.name}, the "
                        "largest group of the states; the consensus needs a symmetry that all are "
                        "part of. Give a reference for every state, and relax none (write C1 for "
                        "a state whose asymmetry is sought): then they may have any groups"
                    ) from error
            apart = np.subtract(group.centre_angstrom, largest.centre_angstrom)
            if group.order > 1 and np.linalg.norm(apart) > APART_ANGSTROM:
                raise InputError(
                    f"state {text!r}: its axes pass {np.linalg.norm(apart):.1f} Å beside those of "
                    f"{self.states[number].partition(':')[0]}; all states are about the same axes"
                )
        if not relaxed:
            if relax is not None:
                raise InputError("no state is relaxed: write it as GROUP:KEPT, such as C4:C1")
            return None, name
        if relax is not None and relax.group not in (name, largest.name):
            raise InputError(
                f"relaxing {relax.group}, but the largest group of the states is {name}"
            )
        least = min(relaxed, key=lambda kept: subgroup_of(largest, kept).order)
        if relax is None:
            return Relax(name, to=least), name
        return dataclasses.replace(relax, to=least), name

    def _require_registers_apart(self, groups: list[tuple[PointGroup, PointGroup]]) -> None:
        """Refuse registers that are poses of another state, where both are searched.

        What is equivalent for all states is searched once. Where one has less symmetry, poses that
        a relaxed state relates by its registers are searched as well, and every register of it
        would be found several times.
        """
        if self.pose_mode.needs_poses:
            return
        common = common_subgroup([group for group, _ in groups])
        for number, (text, (group, kept)) in enumerate(zip(self.states, groups, strict=True)):
            if kept.order < group.order > common.order:
                raise InputError(
                    f"state {text!r} (class {number + 1}): at unknown poses its registers are "
                    f"poses that states without {group.name} are searched at, too. Write "
                    f"{kept.name} for it: its reference says which register is which"
                )


class OccupancyPatterns(Classification):
    """States are the patterns in which the sites of a group are occupied by a partner.

    They are those of :func:`jaxrelax.geometry.occupancy_patterns`, in their order; each keeps its
    stabiliser. The consensus is relaxed to no symmetry, and its partner placed on the sites of
    every pattern is where they start.

    Attributes:
        group: that moves the sites onto each other: its name, or a text file of matrices.
        tied: maps of all patterns are made of one body and one partner
            (:class:`jaxrelax.reconstruction.TiedPatterns`), as long as it is refined; else each
            pattern has what it likes (:class:`jaxrelax.reconstruction.SharedAndOwn`).
    """

    group: str = ""
    tied: bool = True

    def __init__(
        self,
        group: str,
        *,
        poses: Mode | str = "local",
        tied: bool = True,
        max_resolution: float | None = None,
        focus_mask: str | None = None,
    ):
        """Look at the group.

        Raises:
            ValueError: no group, one without sites to tell apart, or one with too many.
        """
        if parse_group(group, placed=True).order == 1:
            raise ValueError(f"{group} has one site; occupancy patterns need a larger group")
        self.group, self.tied = group, tied
        self.states = tuple(occupancy_patterns(parse_group(group, placed=True)).names)
        self.poses, self.start, self.most = poses, "occupancy", len(self.states)
        self.max_resolution, self.focus_mask = max_resolution, focus_mask
        self.exclusive, self.exclusive_or_none = None, False

    @property
    def patterns(self) -> geometry.OccupancyPatterns:
        """All of the group."""
        return occupancy_patterns(parse_group(self.group, placed=True))

    def groups(self) -> list[tuple[PointGroup, PointGroup]]:
        """Of every pattern the group and its stabiliser."""
        patterns = self.patterns
        return [(patterns.group, one.stabiliser) for one in patterns.patterns]

    def consensus(
        self, relax: Relax | None, *, references: bool = False
    ) -> tuple[Relax | None, str]:
        """It is relaxed from the group to C1; patterns start from it, never from maps of their own.

        Raises:
            InputError: another group or a subgroup was asked for.
        """
        relax = Relax(self.group) if relax is None else relax
        if relax.group != self.group:
            raise InputError(f"relaxing {relax.group}, but the patterns are those of {self.group}")
        if relax.to.upper() != "C1":
            raise InputError(
                f"relaxing to {relax.to}: every pattern keeps what it has; relax to C1"
            )
        return relax, self.group


def _require_class(exclusive: int | str, states: tuple[str, ...], start: str) -> None:
    """Refuse an exclusive class that there is not."""
    if start == "splits":
        raise ValueError("exclusive: classes whose number is found cannot be named beforehand")
    if exclusive != "auto" and (
        isinstance(exclusive, bool | str) or not 1 <= exclusive <= len(states)
    ):
        raise ValueError(
            f'exclusive is "auto" or a class from 1 to {len(states)} ({", ".join(states)}), not '
            f"{exclusive!r}"
        )


def finest_at_held_poses(
    diameter_angstrom: float, sigma_rotation_deg: float, sigma_shift_angstrom: float
) -> float:
    """Resolution in Å beyond which errors of held poses would be read as other states.

    There the error moves density at the radius of gyration of a ball, √(3/5) of its radius, by a
    radian of phase: 2π √((σ R)² + σ_s²). At 2π/d above one what an image shows no longer correlates
    with its map at the held pose; the misfit grows with the density that a state has, and favours
    the state with less of it.

    Args:
        diameter_angstrom: of the particle's sphere.
        sigma_rotation_deg, sigma_shift_angstrom: error of poses, per axis.
    """
    radius = np.sqrt(0.6) * 0.5 * diameter_angstrom
    moved = np.hypot(np.deg2rad(sigma_rotation_deg) * radius, sigma_shift_angstrom)
    return float(2.0 * np.pi * moved)


def state_groups(text: str) -> tuple[PointGroup, PointGroup]:
    """Group of a state and what is kept of it, from ``"C4"`` or ``"C4:C1"``.

    Raises:
        InputError: neither.
    """
    found = STATE.match(text)
    if found is None:
        raise InputError(f"state {text!r}: write GROUP or GROUP:KEPT, such as C4 or C4:C1")
    try:
        group = parse_group(found["group"], placed=True)
        return group, group if found["kept"] is None else subgroup_of(group, found["kept"])
    except (ValueError, OSError) as error:
        raise InputError(f"state {text!r}: {error}") from error


def subgroup_of(group: PointGroup, kept: str) -> PointGroup:
    """What is kept of a group, by name."""
    return point_group("C1") if kept.upper() == "C1" else subgroup(group, kept)
