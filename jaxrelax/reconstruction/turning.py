"""Turning and symmetrising maps in JAX: differentiable, and without leaving an accelerator.

What :mod:`jaxrelax.reconstruction.rotate` does with FINUFFT on a processor, which is faster there,
to the same accuracy. Here the map's transform is read between the points of a twofold oversampled
grid with a Kaiser–Bessel window, the map having been divided by the window's transform (Jackson et
al., IEEE Trans. Med. Imaging 10 (1991) 473; shape parameter of Beatty, Nishimura & Pauly, IEEE
Trans. Med. Imaging 24 (2005) 799).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float64, Int, Num

from jaxrelax.geometry import PointGroup
from jaxrelax.imaging.chunks import fitting
from jaxrelax.reconstruction.ball import permuted, permuting_cosets, traced_ball

OVERSAMPLING = 2
# Points of the window. The largest error of a turned map, over the map's maximum, is 2e-6; with
# five it is 6e-5, which would pass for asymmetry.
WIDTH = 6
HIGHEST = jax.lax.Precision.HIGHEST
SHAPE = math.pi * math.sqrt((WIDTH / OVERSAMPLING * (OVERSAMPLING - 0.5)) ** 2 - 0.8)


def turn_map(
    map_: Float[Array | np.ndarray, "n n n"], rotation: Float[Array | np.ndarray, "3 3"]
) -> Float[Array, "n n n"]:
    """The rotated map (gV)(r) = V(g⁻¹ r) about the centre ``n // 2``; r is (x, y, z).

    Differentiable in map and rotation, to be used under ``jit`` and ``vmap``. Frequencies beyond
    the inscribed sphere are dropped, also where the rotation permutes the axes, since a traced one
    cannot be asked: compare with :func:`jaxrelax.reconstruction.rotate_map`.
    """
    return turned_maps(map_, jnp.asarray(rotation)[None])[0]


@jax.jit
def turned_maps(
    map_: Float[Array | np.ndarray, "n n n"], rotations: Float[Array | np.ndarray, "m 3 3"]
) -> Float[Array, "m n n n"]:
    """The map turned by each of several rotations, as by :func:`turn_map`."""
    grid, n = oversampled(jnp.asarray(map_)), map_.shape[0]
    _, ball = traced_ball(n)

    def turned(rotation):
        return map_of_ball(read_grid(grid, ball, rotation), n)

    return jax.lax.map(turned, jnp.asarray(rotations, grid.real.dtype))


def average_over(
    map_: Float[Array | np.ndarray, "n n n"], group: PointGroup
) -> Float[Array, "n n n"]:
    """Average of a map over a group: :func:`jaxrelax.reconstruction.symmetrise` in JAX.

    Operators that permute the axes are exact; if all do, the corners of Fourier space are kept.
    On maps that end inside the box's sphere it is a self-adjoint projection, so the gradient of
    ½‖V − Sym V‖² is V − Sym V there; beyond, it has the map's periodic copies, turned in.
    """
    map_ = jnp.asarray(map_)
    exact, cosets = permuting_cosets(group)
    turned = [permuted(map_, g) for g in group.operators[exact]]
    average = jnp.asarray(sum(turned[1:], start=turned[0])) / len(turned)
    if cosets is None:
        return average
    return _mean_of_turned(average, jnp.asarray(group.operators[cosets], map_.dtype))


@jax.jit
def _mean_of_turned(map_, rotations):
    curves = jnp.full((len(rotations), map_.shape[0] // 2 + 1), 1.0 / len(rotations), map_.dtype)
    total = sum_of_turned(map_, rotations, curves)
    return map_of_ball(total, map_.shape[0])


def sum_of_turned(
    map_: Float[Array, "n n n"],
    rotations: Float[Array, "m 3 3"],
    curves: Float[Array, "m shells"],
) -> Complex[Array, " ball"]:
    """Σ_j c_j(|k|) times the transform of the map turned by rotation j, in the half ball."""
    grid = oversampled(map_)
    _, frequencies = traced_ball(map_.shape[0])
    radius = jnp.sqrt(jnp.sum(frequencies**2, axis=1).astype(map_.dtype))
    shells = jnp.rint(radius).astype(jnp.int32)

    def add(total, one):
        rotation, curve = one
        return total + curve[shells] * read_grid(grid, frequencies, rotation), None

    zero = jnp.zeros(len(shells), grid.dtype)
    return jax.lax.scan(add, zero, (rotations, curves))[0]


def _window(distance: Float[Array, "*points"]) -> Float[Array, "*points"]:
    """Kaiser–Bessel window at distances of at most half its width, in points of the grid.

    Without its constant, which :func:`_window_transform` has neither. Scaled by exp(−SHAPE), so
    that single precision keeps its digits.
    """
    root = jnp.sqrt(jnp.maximum(1.0 - (2.0 * distance / WIDTH) ** 2, 1e-12))
    return jax.scipy.special.i0e(SHAPE * root) * jnp.exp(SHAPE * (root - 1.0))


def _window_transform(n: int) -> Float64[np.ndarray, " n"]:
    """Transform of the window at the voxels of a map of box n, centre at ``n // 2``."""
    position = (np.arange(n) - n // 2) / (OVERSAMPLING * n)
    root = np.sqrt(SHAPE**2 - (np.pi * WIDTH * position) ** 2)
    return WIDTH * np.sinh(root) / root * np.exp(-SHAPE)


def oversampled(map_: Float[Array, "n n n"]) -> Complex[Array, "z y x"]:
    """Transform of the map over the window's, on the oversampled half grid with margins.

    z and y run from −n − m to n + m, x from −m to n + m, where m is half the window and n the
    oversampled Nyquist frequency of the ball.
    """
    n = map_.shape[0]
    padded, margin = OVERSAMPLING * n, WIDTH // 2
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = n
        map_ = map_ / jnp.asarray(_window_transform(n), map_.dtype).reshape(shape)
    before = padded // 2 - n // 2
    wide = jnp.pad(map_, (before, padded - n - before))
    spectrum = jnp.fft.rfftn(jnp.fft.ifftshift(wide))
    full = np.arange(-n - margin, n + margin + 1) % padded
    spectrum = spectrum[full][:, full]
    # x below zero are the mates of those above; both other axes are symmetric about zero.
    mates = jnp.conj(spectrum[::-1, ::-1, 1 : margin + 1][..., ::-1])
    beyond = jnp.conj(spectrum[::-1, ::-1, n - margin : n][..., ::-1])
    return jnp.concatenate([mates, spectrum, beyond], axis=2)


def read_grid(
    grid: Complex[Array, "z y x"],
    frequencies: Num[Array, "points 3"],
    rotation: Float[Array, "3 3"],
) -> Complex[Array, " points"]:
    """The grid's function at frequencies (x, y, z) turned back by a rotation."""
    nz, ny, nx = grid.shape
    margin = WIDTH // 2
    reach = (nz - 1) // 2 - margin  # oversampled Nyquist, which is the box of the map
    n, most = len(frequencies), fitting(4 * 8 * WIDTH)
    size = -(-n // -(-n // most))
    rows = jnp.stack([grid.real, grid.imag], axis=-1).reshape(-1)

    def some(points: Float[Array, "points 3"]):
        # Row vectors times g: coordinates of g⁻¹ k.
        # An accelerator would otherwise multiply with ten bits.
        place = OVERSAMPLING * jnp.matmul(points, rotation, precision=HIGHEST)
        sign = jnp.where(place[:, :1] < 0, -1.0, 1.0).astype(place.dtype)
        place = place * sign
        first = jnp.floor(place).astype(jnp.int32) - (margin - 1)
        taps = first[..., None] + jnp.arange(WIDTH)[None, None]
        x, y, z = jnp.moveaxis(_window(place[..., None] - taps), 1, 0)
        # Offsets of the grid: x begins at −margin, y and z at −reach − margin.
        start = first + jnp.array([margin, reach + margin, reach + margin])[None]
        corner = (start[:, 2] * ny + start[:, 1]) * nx + start[:, 0]

        def add_line(total, line):
            dz, dy = line // WIDTH, line % WIDTH
            values = _lines(rows, 2 * (corner + (dz * ny + dy) * nx))
            weight = (z[:, dz] * y[:, dy])[:, None] * x
            return total + jnp.einsum("pw,pwc->pc", weight, values, precision=HIGHEST), None

        total = jnp.zeros((len(points), 2), rows.dtype)
        total, _ = jax.lax.scan(add_line, total, jnp.arange(WIDTH**2))
        return jax.lax.complex(total[:, 0], total[:, 1] * sign[:, 0])

    points = jnp.pad(jnp.asarray(frequencies, rows.dtype), ((0, -n % size), (0, 0)))
    return jax.lax.map(some, points.reshape(-1, size, 3)).reshape(-1)[:n]


def _lines(rows: Float[Array, " numbers"], start: Int[Array, " points"]):
    """``WIDTH`` complex numbers from each start, contiguous in memory."""
    dimensions = jax.lax.GatherDimensionNumbers(
        offset_dims=(1,), collapsed_slice_dims=(), start_index_map=(0,)
    )
    found = jax.lax.gather(
        rows, start[:, None], dimensions, slice_sizes=(2 * WIDTH,), mode="promise_in_bounds"
    )
    return found.reshape(-1, WIDTH, 2)


def map_of_ball(values: Complex[Array, " ball"], n: int) -> Float[Array, "n n n"]:
    """The map whose transform has these values in the half ball and nothing outside."""
    spectrum = jnp.zeros(n * n * (n // 2 + 1), values.dtype).at[traced_ball(n)[0]].set(values)
    turned = jnp.fft.irfftn(spectrum.reshape(n, n, -1), s=(n, n, n))
    return jnp.fft.fftshift(turned)
