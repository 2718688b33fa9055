"""How well a map agrees with turned copies of itself, beyond what any turn gives.

The self-rotation function of crystallography (Rossmann & Blow, Acta Cryst. 15 (1962) 24), of a map
instead of intensities. What a map has of spherical or axial symmetry agrees with itself at every
angle and says nothing of a group: a ring of four protomers correlates 0.9 with itself turned by a
fifth. So that part is taken out first. The rest correlates 1 at the angles of the map's symmetry,
and 0 in the mean over all angles.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import rotvec_to_matrix
from jaxrelax.imaging import rebox_map, resample_map
from jaxrelax.reconstruction.masks import particle_radius_angstrom, soft_sphere
from jaxrelax.reconstruction.rotate import half_ball, map_in_ball, rotated_spectra

# Edge of the copies that are looked at, in voxels.
COARSE_BOX = 40
# Box of the copy over the particle's diameter.
ROOM = 1.1
# Radius of the sphere that is looked at, and the width of its edge, as shares of the box.
SPHERE, EDGE = 0.45, 0.03
# Turns that average out everything but axial symmetry: more than a copy has angular orders.
TURNS = 37


def coarse_copy(
    map_: Float[AnyArray, "n n n"], box: int = COARSE_BOX
) -> tuple[Float32[np.ndarray, "m m m"], float]:
    """The map cut to its particle and sampled by ``box`` voxels at most.

    Returns:
        The copy, of even box about the same centre, and its voxel in voxels of the map.
    """
    map_ = np.asarray(map_)
    n = len(map_)
    radius = particle_radius_angstrom(map_, 1.0)
    around = min(n, 2 * int(np.ceil(ROOM * radius)))
    map_ = rebox_map(map_, around)
    m = min(box, around)
    return np.asarray(resample_map(map_, m)), around / m


class SelfRotation:
    """Correlations of a map with copies of itself, without what is alike at every angle.

    Args:
        map_: the map, about its centre ``n // 2``.
        axis: only turns about this axis are asked for, or turns that reverse it: the map's average
            over all turns about it is taken out. None takes out the spherical average.
        radius: of the sphere that is looked at, as a share of the usual.

    Attributes:
        share: share of the map's power, in that sphere, that is left.
    """

    def __init__(
        self,
        map_: Float[np.ndarray, "n n n"],
        axis: Float[np.ndarray, "3"] | None = None,
        radius: float = 1.0,
    ):
        n = len(map_)
        # A sharp inner sphere would leave its own edge, which is spherical, but is sampled badly.
        edge = EDGE if radius >= 1.0 else 2.0 * EDGE
        inner = np.asarray(map_ * soft_sphere(n, radius * SPHERE * n, edge * n), np.float32)
        self._multiplicity = half_ball(n).multiplicity
        total = self._power(_spectrum(inner))
        rest = _without_spherical(inner) if axis is None else _without_axial(inner, axis)
        # Turned copies have no corners in Fourier space; nor must the map.
        self._spectrum = _spectrum(rest)
        self._map = map_in_ball(self._spectrum, n)
        power = self._power(self._spectrum)
        self.share = power / max(total, 1e-30)
        self._norm = max(power, 1e-30)
        self._known: dict[bytes, float] = {}

    def correlations(self, rotations: Float[np.ndarray, "m 3 3"]) -> Float64[np.ndarray, " m"]:
        """Correlation of the map with its copy turned by each rotation; each is made once."""
        rotations = np.asarray(rotations, np.float64)
        keys = [_key(rotation) for rotation in rotations]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            turned = rotated_spectra(self._map, rotations[list(new.values())])
            for key, spectrum in zip(new, turned, strict=True):
                self._known[key] = self._power(self._spectrum, spectrum) / self._norm
        return np.array([self._known[key] for key in keys])

    def _power(self, first, second=None) -> float:
        second = first if second is None else second
        product = first.real * second.real + first.imag * second.imag
        return float(np.sum(self._multiplicity * product, dtype=np.float64))


def _key(rotation) -> bytes:
    """The same for a rotation and its inverse: the correlation is."""
    there, back = ((np.round(r, 6) + 0.0).tobytes() for r in (rotation, rotation.T))
    return min(there, back)


def _spectrum(map_):
    return next(rotated_spectra(map_, np.eye(3)[None]))


def _without_axial(map_, axis):
    """The map less its average over turns about an axis."""
    unit = np.asarray(axis) / np.linalg.norm(axis)
    angles = 2.0 * np.pi * np.arange(TURNS) / TURNS
    turned = rotated_spectra(map_, rotvec_to_matrix(angles[:, None] * unit))
    average = np.sum(list(turned), axis=0) / np.float32(TURNS)
    return map_in_ball(_spectrum(map_) - average, len(map_))


def _without_spherical(map_):
    """The map less its average over spheres, linear between radii half a voxel apart."""
    n = len(map_)
    x = np.arange(n) - n // 2
    r = 2.0 * np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2).ravel()
    below, beyond = np.floor(r).astype(int), r - np.floor(r)
    size = int(below.max()) + 2
    values = map_.ravel()

    def over_radii(weights):
        inner = np.bincount(below, (1.0 - beyond) * weights, size)
        return inner + np.bincount(below + 1, beyond * weights, size)

    mean = over_radii(values) / np.maximum(over_radii(np.ones_like(values)), 1e-9)
    smooth = (1.0 - beyond) * mean[below] + beyond * mean[below + 1]
    return (values - smooth).reshape(map_.shape).astype(np.float32)
