"""A part of the particle: what of it is refined, about which point and which axes.

A user says it in the map's own coordinates. What is derived from that, once, is a frame (see
:mod:`jaxrelax.geometry.frames`) in which the part is refined as any other particle is.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import numpy as np
import scipy.ndimage
from jaxtyping import Float32, Float64

from jaxrelax.geometry import Frame, PointGroup, frame_along
from jaxrelax.io import InputError
from jaxrelax.reconstruction import AxisAlignment, moved
from jaxrelax.reconstruction.site_masks import over_all_sites
from jaxrelax.refinement.reference import load_mask
from jaxrelax.refinement.reference_group import require_group
from jaxrelax.refinement.relax import Relax
from jaxrelax.refinement.subtraction import mass_centre

Point = tuple[float, float, float]

# Of a mask: what is below is outside.
EDGE = 0.01
# A fulcrum that is nearer to the axis is on it.
ON_AXIS_ANGSTROM = 0.5


class Part(eqx.Module):
    """What of the particle is refined; coordinates (x, y, z) are in Å from the centre of the box.

    Attributes:
        mask: path of a mask (0…1) on the reference's box: only density inside it is refined, and
            the rest stays at its own poses, those of the input. None: all is refined.
        fulcrum: the point about which the part turns; by default the mask's centre of mass or,
            with a symmetry, the point of its axis that is nearest to that.
        axis_at: a point of the axis of the symmetry that is relaxed or imposed; of a group of
            several axes where they meet. None: the centre of the box.
        axis_along: direction of that axis, the z of the group.
        rest_symmetry: symmetry of what the mask leaves out, about the centre of the box.
    """

    mask: str | None = None
    fulcrum: Point | None = None
    axis_at: Point | None = None
    axis_along: Point = (0.0, 0.0, 1.0)
    rest_symmetry: str = "C1"

    def __check_init__(self):
        for name in ("fulcrum", "axis_at", "axis_along"):
            value = getattr(self, name)
            if value is None and name != "axis_along":
                continue
            point = np.asarray(value, np.float64)
            if point.shape != (3,) or not np.all(np.isfinite(point)):
                raise ValueError(f"{name} is three finite numbers x, y, z; got {value!r}")
        if not np.any(np.asarray(self.axis_along, np.float64)):
            raise ValueError("axis_along is a direction; its three numbers are not all zero")
        if self.mask is None and self.rest_symmetry.upper() != "C1":
            raise ValueError("rest_symmetry is that of what a mask leaves out, and there is none")


class Located(NamedTuple):
    """A part where it is.

    Attributes:
        frame: in which it is refined.
        pixel_size_angstrom: of the images' box.
        mask: on the images' box, in the frame; None: all is refined.
        diameter_angstrom: of the sphere around the frame's centre that holds it.
    """

    frame: Frame
    pixel_size_angstrom: float
    mask: Float32[np.ndarray, "n n n"] | None
    diameter_angstrom: float

    @property
    def _centre_px(self) -> Float64[np.ndarray, "3"]:
        return self.frame.centre_angstrom / self.pixel_size_angstrom

    def into(self, map_: Float32[np.ndarray, "n n n"]) -> Float32[np.ndarray, "n n n"]:
        """A map in the frame. Nothing is interpolated where it has whole voxels and no turn."""
        steps = self._whole_voxels()
        if steps is not None:
            return shifted(map_, -steps)
        return moved(map_, self.frame.axes, self._centre_px)

    def back(self, map_: Float32[np.ndarray, "n n n"]) -> Float32[np.ndarray, "n n n"]:
        """A map of the frame where it is in the particle."""
        steps = self._whole_voxels()
        if steps is not None:
            return shifted(map_, steps)
        return moved(map_, self.frame.axes.T, -self.frame.axes @ self._centre_px)

    def back_near(self, values: Float32[np.ndarray, "n n n"]) -> Float32[np.ndarray, "n n n"]:
        """The same of what has edges, such as masks: by the nearest voxels, without ringing."""
        steps = self._whole_voxels()
        if steps is not None:
            return shifted(values, steps)
        n = len(values)
        # Voxel r of the particle is at F (r − c) in the frame; arrays are [z, y, x].
        turn = self.frame.axes[::-1, ::-1]
        middle = np.full(3, float(n // 2))
        motion = np.eye(4)  # homogeneous: voxels of the particle to those of the frame
        motion[:3, :3] = turn
        motion[:3, 3] = middle - turn @ (middle + self._centre_px[::-1])
        found = scipy.ndimage.affine_transform(values, motion, order=1, mode="constant")
        return np.asarray(found, np.float32)

    def into_near(self, values: Float32[np.ndarray, "n n n"]) -> Float32[np.ndarray, "n n n"]:
        """What has edges, such as a mask, in the frame."""
        frame = self.frame
        inverse = Frame(frame.axes.T, -frame.axes @ frame.centre_angstrom)
        return self._replace(frame=inverse).back_near(values)

    def _whole_voxels(self) -> np.ndarray | None:
        """The frame's centre in voxels where these are whole and nothing is turned."""
        steps = np.rint(self._centre_px)
        exact = not self.frame.is_turned and np.allclose(self._centre_px, steps, atol=1e-6)
        return steps.astype(int) if exact else None


def shifted(map_: Float32[np.ndarray, "n n n"], steps: np.ndarray) -> Float32[np.ndarray, "n n n"]:
    """The map moved by whole voxels (x, y, z); what comes in is 0."""
    result = np.zeros_like(map_)
    here, there = [], []
    for step in np.asarray(steps)[::-1].tolist():
        n = len(map_)
        here.append(slice(max(-step, 0), min(n - step, n)))
        there.append(slice(max(step, 0), min(n + step, n)))
    result[tuple(there)] = map_[tuple(here)]
    return result


def located(
    part: Part,
    group: PointGroup,
    reference: Float32[np.ndarray, "n n n"],
    pixel_size_angstrom: float,
    particle_diameter_angstrom: float,
) -> Located:
    """Where a part is, and the frame in which it is refined.

    Args:
        part: as a user says it.
        group: of the part, about its axes.
        reference: on the images' box, for messages and where there is no mask.
        pixel_size_angstrom: of both.
        particle_diameter_angstrom: of the whole particle.

    Raises:
        InputError: the mask cannot be read, is empty or leaves nothing out; or the fulcrum is not
            on the axes.
    """
    n, pixel = len(reference), pixel_size_angstrom
    mask = None
    if part.mask is not None:
        # It may lie anywhere in the box.
        mask = load_mask(part.mask, n, pixel, 2.0 * n * pixel)
        if np.all(mask > 1.0 - EDGE):
            raise InputError(f"{part.mask}: leaves nothing out; give a mask of a part.")
    centre = np.asarray(part.axis_at if part.axis_at is not None else (0, 0, 0), np.float64)
    if mask is not None:
        middle = mass_centre(mask, pixel)
        centre = _centre(part, group, centre, middle, pixel)
    elif part.fulcrum is not None:
        centre = _centre(part, group, centre, np.asarray(part.fulcrum, np.float64), pixel)
    frame = frame_along(centre, np.asarray(part.axis_along, np.float64))
    edge = n * pixel
    if np.any(np.abs(frame.centre_angstrom) > 0.5 * edge):
        place = " ".join(f"{x:g}" for x in frame.centre_angstrom)
        raise InputError(f"the centre of the part, {place} Å, lies outside the box of {edge:g} Å")
    where = Located(frame, pixel, None, particle_diameter_angstrom)
    if mask is None:
        around = 2.0 * float(np.linalg.norm(frame.centre_angstrom))
        return where._replace(diameter_angstrom=particle_diameter_angstrom + around)
    inside = np.argwhere(mask > EDGE)[:, ::-1] - n // 2
    reach = np.linalg.norm(inside * pixel - frame.centre_angstrom, axis=1).max()
    if reach > 0.5 * edge:
        raise InputError(
            f"{part.mask}: reaches {reach:.0f} Å from the centre about which the part is refined, "
            f"and the box ends at {0.5 * edge:.0f} Å; give a smaller mask, or a fulcrum inside it"
        )
    forward = np.clip(where.into_near(mask), 0.0, 1.0)
    if group.order > 1:
        forward = over_all_sites(forward, group)
    return where._replace(mask=forward, diameter_angstrom=2.0 * float(reach) + 2.0 * pixel)


def _centre(
    part: Part,
    group: PointGroup,
    axis_at: Float64[np.ndarray, "3"],
    middle: Float64[np.ndarray, "3"],
    pixel: float,
) -> Float64[np.ndarray, "3"]:
    """The centre of the frame: the fulcrum, on the axes of a symmetry.

    Raises:
        InputError: a fulcrum that is not on them.
    """
    wanted = middle if part.fulcrum is None else np.asarray(part.fulcrum, np.float64)
    # At a whole voxel maps go into the frame and back as they are.
    voxel = pixel * np.rint(wanted / pixel)
    if group.order == 1:
        return voxel
    # The mean of all operators keeps what they leave where it is: the axis, or the centre alone.
    axes = frame_along(axis_at, np.asarray(part.axis_along, np.float64)).axes
    kept = axes.T @ group.operators.mean(axis=0) @ axes
    nearest = axis_at + kept @ (voxel - axis_at)
    if part.fulcrum is None:
        return nearest
    off = float(np.linalg.norm(wanted - nearest))
    if off > ON_AXIS_ANGSTROM:
        place = " ".join(f"{x:.1f}" for x in nearest)
        raise InputError(
            f"the fulcrum is {off:.1f} Å from the axis of {group.name}, and a part with a "
            f"symmetry turns about a point of its axis, such as {place}; say where the axis is "
            "with --axis-at (Part(axis_at=...)), or leave the fulcrum out"
        )
    return nearest


def with_axes_of_group(part: Part | None, group: PointGroup) -> Part | None:
    """The part with the axes that a file of operators with translations says.

    Raises:
        InputError: they are said a second time.
    """
    if not any(group.centre_angstrom):
        return part
    part = Part() if part is None else part
    if part.axis_at is not None or tuple(part.axis_along) != (0.0, 0.0, 1.0):
        raise InputError(
            f"the operators of {group.name} have translations, which say where its axes are; leave "
            "out --axis-at and --axis-along (Part.axis_at, Part.axis_along)"
        )
    return eqx.tree_at(lambda p: p.axis_at, part, group.centre_angstrom, is_leaf=_is_none)


def _is_none(value) -> bool:
    return value is None


def require_axes_of_something(part: Part | None, relax: Relax | None, symmetry: str) -> None:
    """Refuse axes of a part that has no symmetry.

    Raises:
        InputError: axes are said, and nothing is relaxed or imposed.
    """
    if part is None or relax is not None or symmetry.upper() != "C1":
        return
    if part.axis_at is not None or tuple(part.axis_along) != (0.0, 0.0, 1.0):
        raise InputError(
            "--axis-at and --axis-along (Part.axis_at, Part.axis_along) say where the axis of a "
            "symmetry is, and nothing is relaxed or imposed; name it with --relax or --symmetry"
        )


def require_group_of_part(
    where: Located,
    groups: tuple[PointGroup, PointGroup],
    reference: Float32[np.ndarray, "n n n"],
    name: str,
    *,
    relaxed: bool,
    force: bool,
) -> None:
    """Refuse a part that does not have its group, or has it about other axes.

    Raises:
        InputError: says where the axes are, in the coordinates of the map.
    """
    group = groups[0]
    if group.order == 1:
        return
    map_ = where.into(reference)
    if where.mask is not None:
        map_ = map_ * where.mask

    def elsewhere(off: AxisAlignment, voxel: float) -> str:
        pixel = voxel * where.pixel_size_angstrom
        found = Frame(off.rotation, np.asarray(off.centre_px) * pixel)
        at = where.frame.point_of_map(found.centre_angstrom)
        along = where.frame.axes.T @ found.axes[2]
        return (
            f"{group.name} of this part is about another axis: off by {off.angle_deg:.1f}° and "
            f"{found.off_axis_angstrom:.1f} Å (correlation with its symmetrised self "
            f"{off.correlation:.3f}, {off.aligned_correlation:.3f} about the right one). Say where "
            f"it is: "
            f"{axis_options(at, along)}"
        )

    require_group(map_, group, name, relaxed=relaxed, force=force, elsewhere=elsewhere)


def axis_options(at_angstrom: Float64[np.ndarray, "3"], along: Float64[np.ndarray, "3"]) -> str:
    """An axis in the words of the command line."""
    return f"--axis-at {_numbers(at_angstrom, 1)} --axis-along {_numbers(along, 3)}"


def _numbers(values: Float64[np.ndarray, "3"], digits: int) -> str:
    return " ".join(f"{x:.{digits}f}" for x in np.round(values, digits) + 0.0)
