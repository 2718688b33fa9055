"""What a microscope does to an image beyond defocus, astigmatism and spherical aberration.

Phases are sums of Zernike polynomials of the spatial frequency in 1/Å (they are not scaled to a
Nyquist frequency), in RELION's order; the magnification matrix turns the frequencies of the image
into those of the specimen. Source: Zivanov, Nakane & Scheres, IUCrJ 7 (2020) 253.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np
from jaxtyping import Float, Float64

from jaxrelax.arrays import AnyArray

IDENTITY = (1.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Aberrations:
    """Aberrations of one optics group; nothing at all by default.

    An image is ``exp(i odd) · sin(… − even) · slice`` of the specimen, everything taken at the
    frequency ``M k`` of the image's frequency k.

    Attributes:
        odd: coefficients of the antisymmetric phase (rad, with k in 1/Å), beam tilt among them:
            ``rlnOddZernike``, Z(1,−1), Z(1,1), Z(3,−3), Z(3,−1), Z(3,1), Z(3,3), …
        even: of the symmetric phase, in RELION's sign: ``rlnEvenZernike``, Z(0,0), Z(2,−2), Z(2,0),
            Z(2,2), Z(4,−4), …
        magnification: M row by row: ``rlnMagMat00``, ``01``, ``10``, ``11``.
    """

    odd: tuple[float, ...] = ()
    even: tuple[float, ...] = ()
    magnification: tuple[float, float, float, float] = IDENTITY

    def __post_init__(self):
        for name in ("odd", "even"):
            object.__setattr__(self, name, _trimmed(getattr(self, name)))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.odd or self.even) or self.is_stretched

    @property
    def is_stretched(self) -> bool:
        """Whether the magnification matrix is another than the identity."""
        return self.magnification != IDENTITY

    @property
    def matrix(self) -> Float64[np.ndarray, "2 2"]:
        """M."""
        return np.array(self.magnification, np.float64).reshape(2, 2)

    @property
    def stretches(self) -> tuple[float, float]:
        """Singular values of M: the largest and the smallest."""
        if not self.is_stretched:
            return 1.0, 1.0
        values = np.linalg.svd(self.matrix, compute_uv=False)
        return float(values[0]), float(values[1])

    def odd_phase(self, frequencies: Float[np.ndarray, "freq 2"]) -> Float64[np.ndarray, " freq"]:
        """The antisymmetric phase (rad) at frequencies (x, y) of the specimen, in 1/Å."""
        return zernike_sum(self.odd, frequencies, parity=1)

    def even_phase(self, frequencies: Float[np.ndarray, "freq 2"]) -> Float64[np.ndarray, " freq"]:
        """The symmetric phase (rad) at frequencies (x, y) of the specimen, in 1/Å."""
        return zernike_sum(self.even, frequencies, parity=0)


def zernike_sum(
    coefficients: tuple[float, ...], frequencies: Float[AnyArray, "freq 2"], parity: int
) -> Float64[np.ndarray, " freq"]:
    """A sum of Zernike polynomials of odd (``parity`` 1) or even (0) degree.

    Coefficients go by degree n, then by m = −n, −n + 2, …, n; m ≥ 0 is R cos mθ and m < 0 is
    R sin |m|θ, not normalised.
    """
    kx, ky = np.asarray(frequencies, np.float64).T
    r, theta = np.hypot(kx, ky), np.arctan2(ky, kx)
    total = np.zeros(len(r))
    for coefficient, (n, m) in zip(coefficients, _indices(len(coefficients), parity), strict=True):
        wave = np.cos(m * theta) if m >= 0 else np.sin(-m * theta)
        total += coefficient * _radial(n, abs(m), r) * wave
    return total


def _indices(count: int, parity: int) -> list[tuple[int, int]]:
    """(n, m) of the first polynomials of a parity."""
    found: list[tuple[int, int]] = []
    n = parity
    while len(found) < count:
        found += [(n, m) for m in range(-n, n + 1, 2)]
        n += 2
    return found[:count]


def _radial(n: int, m: int, r: Float64[np.ndarray, " freq"]) -> Float64[np.ndarray, " freq"]:
    total = np.zeros(len(r))
    for s in range((n - m) // 2 + 1):
        below = factorial(s) * factorial((n + m) // 2 - s) * factorial((n - m) // 2 - s)
        total += (-1) ** s * factorial(n - s) / below * r ** (n - 2 * s)
    return total


def _trimmed(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    """Without zeros at the end, so that what is the same is equal."""
    values = [float(c) for c in coefficients]
    while values and values[-1] == 0.0:
        values.pop()
    return tuple(values)
