"""Images and maps of atoms, made in real space: no Fourier slice is ever interpolated.

Each point is spread with a cubic B-spline onto a grid finer than the image, the sum is Fourier
transformed, multiplied by form factor × blur ÷ spline transfer, and cropped to the band of the
image. This is the non-uniform Fourier sum Σ w f(k) exp(−2πi k·r) with errors of order
((kh)/(1−kh))⁴, h being the fine pixel. A map is a pile of such images, one per fine z plane.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from jaxrelax.simulate.atoms import Atoms

OVERSAMPLING = 2
CHUNK = 200_000  # points spread at a time: 16 taps each, so about 50 MB


class Projector:
    """Images of one set of atoms, and its map, on one grid.

    Args:
        atoms: what to project.
        box: side of the images in pixels, even; the origin is pixel ``box // 2``.
        pixel_size_angstrom: pixel of the images.
        bfactor_angstrom2: common blur ``exp(−B k²/4)``.
        resolution_angstrom: where a soft low-pass falls to one half, or None for Nyquist.
        rank_tolerance: relative error of the low-rank basis of the form factors.
        magnification: M of the images, whose transform at k is that of the particle at M k; the map
            is that of the particle.

    Values are scattering per pixel (per voxel), so that the sum of the map over z is the image
    at the identity pose. Both are limited to |k| < Nyquist.
    """

    def __init__(
        self,
        atoms: Atoms,
        box: int,
        pixel_size_angstrom: float,
        bfactor_angstrom2: float = 0.0,
        resolution_angstrom: float | None = None,
        rank_tolerance: float = 1e-3,
        magnification: Float[np.ndarray, "2 2"] | None = None,
    ):
        self.atoms = atoms
        self.box = box
        self.pixel_size_angstrom = pixel_size_angstrom
        self.bfactor_angstrom2 = bfactor_angstrom2
        self.resolution_angstrom = resolution_angstrom
        self._table_k = np.linspace(0.0, 0.5 / pixel_size_angstrom, 257)
        # Elements have nearly proportional form factors: two or three functions span them all,
        # and each costs one transform per image.
        table = atoms.form_factors.at(self._table_k)
        u, s, vt = np.linalg.svd(table, full_matrices=False)
        rank = max(1, int(np.sum(s > rank_tolerance * s[0])))
        self._basis = vt[:rank] * self._blur(self._table_k)
        self._coefficients = (u * s)[:, :rank][atoms.kinds] * atoms.weights[:, None]
        self._magnification = np.eye(2) if magnification is None else magnification
        self._transfer_2d = self._transfer(
            (_fft_frequencies(box), _rfft_frequencies(box)), magnification=self._magnification
        )

    def image_fourier(
        self,
        pose: Float[np.ndarray, "3 3"],
        mask: Bool[np.ndarray, "atoms"] | None = None,
        positions_angstrom: Float[np.ndarray, "atoms 3"] | None = None,
    ) -> Complex[np.ndarray, "box half"]:
        """``rfft2`` of the image at a pose: (x, y) = (pose r)[:2], the centre at ``box // 2``.

        Args:
            pose: RELION's A, from volume to image coordinates.
            mask: which atoms are there; all by default.
            positions_angstrom: where they are; by default as in ``atoms``.
        """
        positions, coefficients = self.atoms.positions_angstrom, self._coefficients
        if positions_angstrom is not None:
            positions = positions_angstrom
        if mask is not None:
            positions, coefficients = positions[mask], coefficients[mask]
        xy = self._fine(positions @ pose[:2].T @ self._magnification)  # M k · r = k · Mᵀ r
        grids = _spread(xy, coefficients, OVERSAMPLING * self.box)
        transforms = _crop_rows(np.fft.rfft2(grids), self.box)
        return np.sum(transforms * self._transfer_2d, axis=0)

    def image(
        self, pose: Float[np.ndarray, "3 3"], mask: Bool[np.ndarray, "atoms"] | None = None
    ) -> Float[np.ndarray, "box box"]:
        """The image [y, x] at a pose; arguments as for `image_fourier`."""
        return np.fft.irfft2(self.image_fourier(pose, mask))

    def map(
        self,
        occupancies: Float[np.ndarray, "atoms"] | None = None,
        operators: Float[np.ndarray, "order 3 3"] | None = None,
    ) -> Float[np.ndarray, "box box box"]:
        """The map [z, y, x], averaged over copies moved by ``operators`` if there are any.

        Args:
            occupancies: further weights of the atoms; 1 by default.
            operators: the copies are at ``g r`` for every operator g.
        """
        positions, coefficients = self.atoms.positions_angstrom, self._coefficients
        if occupancies is not None:
            there = occupancies > 0
            positions = positions[there]
            coefficients = coefficients[there] * occupancies[there, None]
        matrices = np.eye(3)[None] if operators is None else operators
        n = self.box
        total = np.zeros((n, n, n // 2 + 1), np.complex64)
        # Copies are taken together as long as they are few: the transforms are what costs.
        together = max(1, 1_000_000 // max(1, len(positions)))
        for first in range(0, len(matrices), together):
            some = matrices[first : first + together]
            copies = np.einsum("gij,nj->gni", some, positions).reshape(-1, 3)
            weights = np.tile(coefficients, (len(some), 1)) / len(matrices)
            total += self._map_fourier(self._fine(copies), weights)
        return np.fft.irfftn(total).astype(np.float32)

    def _map_fourier(self, xyz, coefficients) -> Complex[np.ndarray, "box box half"]:
        n, fine = self.box, OVERSAMPLING * self.box
        order = np.argsort(xyz[:, 2], kind="stable")
        xyz, coefficients = xyz[order], coefficients[order]
        start, taps = _spline_taps(xyz[:, 2])
        total = np.zeros((n, n, n // 2 + 1), np.complex64)
        for rank in range(coefficients.shape[1]):
            planes = np.zeros((fine, n, n // 2 + 1), np.complex64)
            for tap in range(4):
                for plane, members in _runs(start + tap):
                    values = coefficients[members, rank, None] * taps[tap, members, None]
                    grid = _spread(xyz[members, :2], values, fine)
                    planes[plane % fine] += _crop_rows(np.fft.rfft2(grid), n)[0]
            keep = np.r_[0 : n // 2, fine - n // 2 : fine]
            for y, ky in enumerate(_fft_frequencies(n)):  # row by row: no copy of all planes
                axes = (_fft_frequencies(n), np.array([ky]), _rfft_frequencies(n))
                columns = np.fft.fft(planes[:, y], axis=0)[keep]
                total[:, y] += columns * self._transfer(axes, rank)[:, 0]
        return total

    def _fine(self, angstrom: Float[np.ndarray, "points dim"]) -> Float[np.ndarray, "points dim"]:
        fine = OVERSAMPLING * self.box
        return angstrom * (OVERSAMPLING / self.pixel_size_angstrom) + fine // 2

    def _blur(self, k: Float[np.ndarray, "freq"]) -> Float[np.ndarray, "freq"]:
        blur = np.exp(-0.25 * self.bfactor_angstrom2 * k**2)
        if self.resolution_angstrom is not None:
            # A raised-cosine edge as wide as a fifth of the cut-off: no ripples to speak of.
            position = (k * self.resolution_angstrom - 0.9) / 0.2
            blur = blur * 0.5 * (1.0 + np.cos(np.pi * np.clip(position, 0.0, 1.0)))
        return blur

    def _transfer(self, axes, rank: int | None = None, magnification=None) -> np.ndarray:
        """Basis functions ÷ transfer of the spline on a grid of frequencies in cycles/pixel.

        In the plane, the axes being y and x, the basis functions may be those at M k.
        """
        grids = np.meshgrid(*axes, indexing="ij", sparse=True)
        squares = sum(g**2 for g in grids)
        spline = np.ones(())
        for grid in grids:
            spline = spline * np.sinc(grid / OVERSAMPLING) ** 4
        lengths = squares
        if magnification is not None:
            (xx, xy), (yx, yy) = magnification
            ky, kx = grids
            lengths = (xx * kx + xy * ky) ** 2 + (yx * kx + yy * ky) ** 2
        k = np.sqrt(lengths) / self.pixel_size_angstrom
        # The Nyquist frequency itself stays out: a real image cannot carry its phase.
        inside = (squares < 0.25 * (1 - 1e-9)) & (k < self.atoms.band_limit)
        basis = self._basis if rank is None else self._basis[rank : rank + 1]
        values = np.stack([np.interp(k, self._table_k, b) for b in basis])
        values = np.where(inside, values / spline, 0.0)
        return values if rank is None else values[0]


def _fft_frequencies(box: int) -> Float[np.ndarray, "box"]:
    return np.fft.fftfreq(box)


def _rfft_frequencies(box: int) -> Float[np.ndarray, "half"]:
    return np.fft.rfftfreq(box)


def _spline_taps(
    x: Float[np.ndarray, "points"],
) -> tuple[Int[np.ndarray, "points"], Float[np.ndarray, "4 points"]]:
    """First of the four grid points under a cubic B-spline centred at ``x``, and the weights."""
    base = np.floor(x)
    f = x - base
    g = 1.0 - f
    weights = np.stack([g**3, 4.0 - 6.0 * f**2 + 3.0 * f**3, 4.0 - 6.0 * g**2 + 3.0 * g**3, f**3])
    return base.astype(np.int64) - 1, weights / 6.0


def _spread(
    xy: Float[np.ndarray, "points 2"], values: Float[np.ndarray, "points ranks"], size: int
) -> Float[np.ndarray, "ranks size size"]:
    """Sum of splines at ``xy`` (pixels) on a periodic grid [y, x], one per column of values."""
    grids = np.zeros((values.shape[1], size * size))
    for first in range(0, len(xy), CHUNK):
        some = slice(first, first + CHUNK)
        (x, wx), (y, wy) = _spline_taps(xy[some, 0]), _spline_taps(xy[some, 1])
        offsets = np.arange(4)[:, None]
        flat = ((y + offsets) % size * size)[:, None, :] + ((x + offsets) % size)[None, :, :]
        weights = wy[:, None, :] * wx[None, :, :]
        flat = flat.ravel()
        for rank, grid in enumerate(grids):
            grid += np.bincount(flat, (weights * values[some, rank]).ravel(), size * size)
    return grids.reshape(-1, size, size)


def _crop_rows(
    transforms: Complex[np.ndarray, "ranks fine finehalf"], box: int
) -> Complex[np.ndarray, "ranks box half"]:
    """The central ``box`` of the transform of a finer grid (the origin is the grid's centre)."""
    fine = transforms.shape[1]
    rows = np.r_[0 : box // 2, fine - box // 2 : fine]
    return transforms[:, rows, : box // 2 + 1]


def _runs(planes: Int[np.ndarray, "points"]) -> Iterable[tuple[int, slice]]:
    """Stretches of equal value in a sorted array."""
    edges = np.flatnonzero(np.diff(planes)) + 1
    for first, last in zip(np.r_[0, edges], np.r_[edges, len(planes)], strict=True):
        if last > first:
            yield int(planes[first]), slice(int(first), int(last))
