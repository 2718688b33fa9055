"""Modes: which latent variables of an image are free besides the register.

Frozen hyper-parameters; what changes during a run lives in the state.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import NamedTuple

import equinox as eqx

from jaxrelax.geometry import PointGroup, healpix_spacing_deg
from jaxrelax.inference import (
    FixedPoses,
    GaussNewton,
    PoseSearch,
    global_search,
)


class Searched(NamedTuple):
    """What a search may know of the particle."""

    diameter_angstrom: float
    group: PointGroup  # symmetry of the map that poses are searched against
    # Standard deviation, along either axis, of where particles are from where they were picked.
    sigma_offset_angstrom: float
    # Channels of the volume whose mean a search of all orientations looks at, for every map.
    guides: tuple[tuple[int, ...], ...] = ((0,),)


class Mode(eqx.Module):
    """Which latent variables of an image are free besides the register."""

    @abc.abstractmethod
    def search(
        self, searched: Searched, resolution_angstrom: float, everywhere: bool
    ) -> PoseSearch:
        """How the pose of an image is searched.

        Args:
            searched: what is looked at.
            resolution_angstrom: limit of the frequencies that score images.
            everywhere: in a mode that finds poses itself, whether to look for others than those
                that were found (see :func:`jaxrelax.refinement.pose_schedule.global_due`).
        """

    @property
    def holds_poses(self) -> bool:
        """Whether poses stay as they are."""
        return False

    @property
    def needs_poses(self) -> bool:
        """Whether the input must have poses."""
        return True

    @property
    def ini_high_angstrom(self) -> float:
        """Resolution in Å to which a reference is used if nobody says otherwise."""
        return 12.0

    @property
    def relaxed(self) -> Mode | None:
        """Mode of the relaxation that follows a symmetric stage in this one; None: no such stage.

        Without one, registers are inferred from the first iteration on.
        """
        return None

    @property
    def settles_before_relaxing(self) -> bool:
        """Whether a symmetric stage goes on, once its poses are settled, until it has converged."""
        return False

    @property
    @abc.abstractmethod
    def learns_prior(self) -> bool:
        """Whether the width of the pose prior follows the posterior."""

    @abc.abstractmethod
    def prior_widths(self) -> tuple[float, float]:
        """Standard deviations of the pose prior: rotation (degrees), shift (Å), per axis."""


class Registers(Mode):
    """Poses stay as they are; only registers are inferred."""

    def search(
        self, searched: Searched, resolution_angstrom: float, everywhere: bool
    ) -> PoseSearch:
        """No search."""
        return FixedPoses()

    @property
    def holds_poses(self) -> bool:
        """They do."""
        return True

    @property
    def learns_prior(self) -> bool:
        """There is no prior."""
        return False

    def prior_widths(self) -> tuple[float, float]:
        """Unused by the fixed-pose search; nominal values."""
        return 1.0, 1.0


class Local(Mode):
    """Poses are refined around the consensus poses, under a Gaussian prior.

    Attributes:
        sigma_rotation_deg: standard deviation of the prior per rotation axis, in degrees.
        sigma_shift_angstrom: standard deviation of the prior per shift axis, in Å.
        learn_prior: update both from the posterior (empirical Bayes), so that they end at the
            actual error of the consensus poses.
        pose_search: the search; Gauss–Newton with Laplace evidence by default.
        rotation_extent_deg: poses are not turned farther than this from those of the input; None:
            only the prior holds them.
        shift_extent_angstrom: nor shifted farther than this.
    """

    sigma_rotation_deg: float = 2.0
    sigma_shift_angstrom: float = 1.5
    learn_prior: bool = True
    pose_search: PoseSearch = GaussNewton()
    rotation_extent_deg: float | None = None
    shift_extent_angstrom: float | None = None

    def __check_init__(self):
        if min(self.sigma_rotation_deg, self.sigma_shift_angstrom) <= 0:
            raise ValueError(
                "the pose prior needs positive widths; mode registers (Registers()) holds the poses"
            )
        if not isinstance(self.pose_search, PoseSearch):
            raise ValueError(
                f"pose_search is a PoseSearch, such as GaussNewton(), not {self.pose_search!r}"
            )
        self._bounded()  # refuses what is out of range

    def search(
        self, searched: Searched, resolution_angstrom: float, everywhere: bool
    ) -> PoseSearch:
        """The pose search."""
        return self._bounded()

    def _bounded(self) -> PoseSearch:
        if self.rotation_extent_deg is None and self.shift_extent_angstrom is None:
            return self.pose_search
        if not isinstance(self.pose_search, GaussNewton):
            raise ValueError(
                f"extents are those of GaussNewton(), and pose_search is "
                f"{type(self.pose_search).__name__}; leave them out"
            )
        return dataclasses.replace(
            self.pose_search,
            rotation_extent_deg=self.rotation_extent_deg,
            shift_extent_angstrom=self.shift_extent_angstrom,
        )

    @property
    def learns_prior(self) -> bool:
        """Whether the width of the pose prior follows the posterior."""
        return self.learn_prior

    def prior_widths(self) -> tuple[float, float]:
        """Starting widths (degrees, Å)."""
        return self.sigma_rotation_deg, self.sigma_shift_angstrom


class Homogeneous(Mode):
    """Poses from nothing: searched globally until they settle.

    The global search is repeated, so that no image keeps a wrong pose of the first ones; in every
    iteration at first, and once most images find the same poses again, in every third: between
    them images are compared near the modes that they had last. When neither the resolution nor the
    number of images that still find another pose improves, that is done until the end.

    Attributes:
        coarsest_order: HEALPix order of the first grid.
        finest_order: of the last; what it cannot sample, only the climb from its best points uses.
        n_candidates: local maxima of the grid that are climbed for every image.
        n_modes: of these, what is kept as possible poses.
        tilt_range_deg: directions are searched whose tilt, the angle to the z axis, is in this
            range for one of their symmetry mates; as of filaments and membrane proteins seen from
            the side. Poses may leave it by what a local search moves them.
        relax_from: with relaxation, when it begins. The group is imposed until then. ``"local"``:
            when the poses have settled; ``"end"``: when the refinement has converged; ``"start"``:
            at once, so that registers are inferred while poses are searched globally.
        local: the local search of a relaxation. Its prior is wide and stays so: it lies around what
            these very images said, and would narrow to nothing if it were learned.
    """

    coarsest_order: int = 2
    finest_order: int = 3
    n_candidates: int = 8
    n_modes: int = 4
    tilt_range_deg: tuple[float, float] = (0.0, 180.0)
    relax_from: str = "local"
    local: Local = Local(sigma_rotation_deg=4.0, sigma_shift_angstrom=3.0, learn_prior=False)

    def __check_init__(self):
        if not 0 <= self.coarsest_order <= self.finest_order:
            raise ValueError(
                "HEALPix orders start at 0 and the coarsest comes first; got "
                f"{self.coarsest_order} to {self.finest_order}"
            )
        if not 1 <= self.n_modes <= self.n_candidates:
            raise ValueError(
                "at least one candidate must be kept, and not more than there are; got n_modes="
                f"{self.n_modes} of n_candidates={self.n_candidates}"
            )
        low, high = self.tilt_range_deg
        # Closer than a step of the grid there may be no direction at all.
        step = healpix_spacing_deg(self.coarsest_order)
        if not (0 <= low < high <= 180 and high - low >= step):
            raise ValueError(
                f"tilts lie between 0 and 180 degrees, and the range must hold a step of the grid "
                f"({step:.1f}°); got {low:g} to {high:g}"
            )
        if self.relax_from not in ("start", "local", "end"):
            raise ValueError(f'relax_from is "start", "local" or "end", not {self.relax_from!r}')

    def search(
        self, searched: Searched, resolution_angstrom: float, everywhere: bool
    ) -> PoseSearch:
        """Global, or near what the last global search found."""
        search = global_search(
            resolution_angstrom, searched.diameter_angstrom, searched.group,
            coarsest_order=self.coarsest_order, finest_order=self.finest_order,
            n_candidates=self.n_candidates, n_modes=self.n_modes,
            sigma_offset_angstrom=searched.sigma_offset_angstrom,
            tilt_range_deg=self.tilt_range_deg, guides=searched.guides,
        )  # fmt: skip
        return search if everywhere else search.followed

    @property
    def needs_poses(self) -> bool:
        """It finds them."""
        return False

    @property
    def ini_high_angstrom(self) -> float:
        """What the reference says beyond is not to decide the poses."""
        return 30.0

    @property
    def relaxed(self) -> Mode | None:
        """The local search, unless registers are to be inferred from the start."""
        return None if self.relax_from == "start" else self.local

    @property
    def settles_before_relaxing(self) -> bool:
        """As asked for."""
        return self.relax_from == "end"

    @property
    def learns_prior(self) -> bool:
        """Of orientations nothing is known beforehand."""
        return False

    def prior_widths(self) -> tuple[float, float]:
        """Of the relaxation's local search; unused before."""
        return self.local.prior_widths()
