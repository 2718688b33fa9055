"""Options that say which part of a particle is refined, and about which axes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxrelax.cli.options import checked, default_of, given_options, refuse_idle
from jaxrelax.refinement import Part


@dataclass(frozen=True)
class PartOptions:
    """A part of the particle, or a symmetry about other axes; points are x y z in Å from the
    centre of the box.
    """

    mask: Path | None = None
    """Mask (.mrc): refine only what is inside, by its own poses. The rest stays as the input has
    it, and is taken from the images."""
    fulcrum: tuple[float, float, float] | None = default_of(Part, "fulcrum")
    """The point about which the part turns; by default the mask's centre of mass or, with a
    symmetry, the point of its axis next to that."""
    axis_at: tuple[float, float, float] | None = default_of(Part, "axis_at")
    """A point of the axis of --relax or --symmetry, where that is not the centre of the box."""
    axis_along: tuple[float, float, float] = default_of(Part, "axis_along")
    """Direction of that axis."""
    rest_symmetry: str = default_of(Part, "rest_symmetry")
    """With --mask: symmetry of what it leaves out."""

    def component(self) -> Part | None:
        """The part; None where nothing was said of one.

        Raises:
            InputError: a value is out of range, or an option is given that cannot act.
        """
        if not given_options(self):
            return None
        if self.mask is None:
            refuse_idle(self, ["rest_symmetry"], "can act only with --mask")
        values = vars(self) | {"mask": None if self.mask is None else str(self.mask)}
        return checked(Part, **values)
