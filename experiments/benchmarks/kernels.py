"""Speed of the slice kernels against the straightforward way of writing them in XLA.

Everything is measured side by side in one run, because the rates of a shared machine mean little
by themselves; the ratios do. A point is one Fourier pixel of one register of one image.

    python experiments/benchmarks/kernels.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxrelax.geometry import random_rotations
from jaxrelax.imaging import (
    FourierVolume,
    ImageBatch,
    extract_parts,
    extract_parts_and_derivatives,
    half_shape,
    half_spectrum,
    image_geometry,
    insert_slices,
    volume_radius,
)
from jaxrelax.inference import PosePrior, log_likelihood
from jaxrelax.inference.gauss_newton import normal_equations

CHANNELS = (1, 4, 14)  # no relaxation, C4, D7


def plain_corners(radius, rotations, wavevectors):
    """Flat index, weight and Friedel sign of the eight corners of every slice pixel."""
    _, ny, nx = half_shape(radius)
    points = 2.0 * jnp.einsum("bij,fi->bfj", rotations[:, :2], wavevectors)
    mirrored = points[..., 0] < 0
    points = jnp.where(mirrored[..., None], -points, points)
    low = jnp.floor(points).astype(jnp.int32)
    fraction = points - low
    for corner in np.ndindex(2, 2, 2):
        x, y, z = (low[..., axis] + corner[axis] for axis in range(3))
        weight = jnp.prod(jnp.where(np.array(corner, bool), fraction, 1.0 - fraction), axis=-1)
        yield ((z + radius) * ny + y + radius) * nx + x, weight, mirrored


def plain_gather(grid, radius, rotations, wavevectors):
    """Complex trilinear slices of one map: eight gathers."""
    corners = list(plain_corners(radius, rotations, wavevectors))
    total = sum(weight * grid[index] for index, weight, _ in corners)
    return jnp.where(corners[0][2], jnp.conj(total), total)


def plain_scatter(columns, radius, rotations, wavevectors, values, weights):
    """Add slices to three arrays: eight corners, one ``.at[].add`` each."""
    real, imaginary, total = columns
    for index, weight, mirrored in plain_corners(radius, rotations, wavevectors):
        sign = jnp.where(mirrored, -1.0, 1.0)
        real = real.at[index].add(weight * values.real)
        imaginary = imaginary.at[index].add(weight * values.imag * sign)
        total = total.at[index].add(weight * weights)
    return real, imaginary, total


def median_seconds(calls: dict[str, tuple], repetitions: int) -> dict[str, float]:
    """Median wall time of each compiled ``(function, *arguments)``.

    They take turns, so that whatever else the machine does slows all of them.
    """
    compiled = {name: jax.jit(function) for name, (function, *_) in calls.items()}
    for name, (_, *arguments) in calls.items():
        jax.block_until_ready(compiled[name](*arguments))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, (_, *arguments) in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled[name](*arguments))
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def chunked(function: Callable, chunk: int) -> Callable:
    """The function over a batch in chunks, as in the E-step."""

    def over_batch(*batched):
        parts = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), batched)
        return jax.lax.map(lambda some: function(*some), parts)

    return over_batch


def gemm_rate(repetitions: int, size: int = 1024) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal((size, size)), jnp.float32) for _ in range(2))
    return 2 * size**3 / median_seconds({"gemm": (jnp.matmul, a, b)}, repetitions)["gemm"]


class Measurement:
    """The inputs of all kernels, and a table of what they took."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        rng = np.random.default_rng(1)
        self.packing = half_spectrum(options.box, options.max_shell)
        self.geometry = image_geometry(self.packing, 3.0, options.box, 3.0)
        self.wavevectors = self.packing.wavevectors_px
        self.radius = volume_radius(options.max_shell)
        self.voxels = int(np.prod(half_shape(self.radius)))
        self.rotations = jnp.asarray(random_rotations(options.batch, rng), jnp.float32)
        self.origins = jnp.asarray(rng.uniform(-3, 3, (options.batch, 2)), jnp.float32)
        shape = (options.batch, self.packing.n_pixels)
        data = rng.standard_normal((2, *shape)).astype(np.float32)
        self.data = jnp.asarray(data[0] + 1j * data[1])
        self.ctf = jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)
        self.points = options.batch * self.packing.n_pixels
        self.rng = rng

    def volume(self, channels: int) -> FourierVolume:
        """Random numbers in the layout of ``channels`` maps."""
        values = self.rng.standard_normal((self.voxels, 2 * channels), np.float32)
        return FourierVolume(jnp.asarray(values), self.radius)

    def rates(self, calls: dict[str, tuple], channels: int) -> dict[str, float]:
        """Points per second of each call."""
        seconds = median_seconds(calls, self.options.repetitions)
        return {name: channels * self.points / value for name, value in seconds.items()}


def extraction(m: Measurement, channels: int) -> dict[str, float]:
    """Slices of all registers: our channel layout, ours one by one, and the plain way.

    Each is reduced to the power of every slice: they are consumed where they are made, as in a
    score, and writing them to memory is not what is measured.
    """
    volume = m.volume(channels)
    pairs = [volume.values[:, [j, channels + j]] for j in range(channels)]
    grids = [jax.lax.complex(pair[:, 0], pair[:, 1]) for pair in pairs]

    def ours(volume, rotations):
        def power(some):
            real, imaginary = extract_parts(volume, some, m.wavevectors)
            return jnp.sum(real**2 + imaginary**2, axis=-1)

        return chunked(power, m.options.chunk)(rotations)

    def one_by_one(pairs, rotations):
        return [ours(FourierVolume(pair, m.radius), rotations) for pair in pairs]

    def plain(grids, rotations):
        def power(some, grid):
            slices = plain_gather(grid, m.radius, some, m.wavevectors)
            return jnp.sum(slices.real**2 + slices.imag**2, axis=-1)

        return [chunked(partial(power, grid=grid), m.options.chunk)(rotations) for grid in grids]

    calls = {
        "channels together": (ours, volume, m.rotations),
        "ours, one by one": (one_by_one, pairs, m.rotations),
        "plain, one by one": (plain, grids, m.rotations),
    }
    return m.rates(calls, channels)


def searches(m: Measurement, channels: int) -> dict[str, float]:
    """The E-step at fixed poses, with tangents, and one Gauss–Newton expansion."""
    volume = m.volume(channels)
    weights = jnp.asarray(m.packing.multiplicity)
    prior = PosePrior(jnp.float32(0.02), jnp.float32(0.5))
    n_shells = m.options.max_shell + 1

    def batch(data, ctf):
        return ImageBatch(data, ctf, weights, jnp.ones(data.shape[0], bool))

    def fixed(volume, *images):
        def score(data, ctf, rotations, origins):
            return log_likelihood(volume, batch(data, ctf), m.geometry, rotations, origins)[0]

        return chunked(score, m.options.chunk)(*images)

    def tangents(volume, rotations):
        def power(some):
            found = extract_parts_and_derivatives(volume, some, m.wavevectors)
            return sum(jnp.sum(part**2, axis=-1) for parts in found for part in parts)

        return chunked(power, m.options.chunk)(rotations)

    def newton(volume, *images):
        def expand(data, ctf, rotations, origins):
            return normal_equations(
                volume, batch(data, ctf), m.geometry, rotations, origins, prior, n_shells
            )

        return chunked(expand, m.options.chunk)(*images)

    images = (m.data, m.ctf, m.rotations, m.origins)
    calls = {
        "fixed poses": (fixed, volume, *images),
        "slices and tangents": (tangents, volume, m.rotations),
        "Gauss-Newton": (newton, volume, *images),
    }
    return m.rates(calls, channels)


def insertion(m: Measurement) -> dict[str, float]:
    """Back-projection of one register."""
    accumulator = jnp.zeros((m.voxels, 4), jnp.float32)
    columns = tuple(jnp.zeros(m.voxels, jnp.float32) for _ in range(3))

    def ours(accumulator, rotations, values, weights):
        return insert_slices(accumulator, m.radius, rotations, m.wavevectors, values, weights)

    def plain(columns, rotations, values, weights):
        return plain_scatter(columns, m.radius, rotations, m.wavevectors, values, weights)

    slices = (m.rotations, m.ctf * m.data, m.ctf**2)
    calls = {"ours": (ours, accumulator, *slices), "plain": (plain, columns, *slices)}
    return m.rates(calls, channels=1)


def agree(m: Measurement) -> None:
    """Both ways of writing a kernel compute the same numbers."""
    volume = m.volume(1)
    grid = jax.lax.complex(volume.values[:, 0], volume.values[:, 1])
    real, imaginary = extract_parts(volume, m.rotations[:2], m.wavevectors)
    plain = plain_gather(grid, m.radius, m.rotations[:2], m.wavevectors)
    np.testing.assert_allclose(real[:, 0], plain.real, atol=1e-4)
    np.testing.assert_allclose(imaginary[:, 0], plain.imag, atol=1e-4)
    slices = (m.rotations[:2], m.wavevectors, m.data[:2], m.ctf[:2])
    rows = insert_slices(jnp.zeros((m.voxels, 4)), m.radius, *slices)
    columns = plain_scatter((jnp.zeros(m.voxels),) * 3, m.radius, *slices)
    np.testing.assert_allclose(rows[:, :3], jnp.stack(columns, axis=1), atol=1e-4)


def table(title: str, rates: dict[str, float], reference: str, channels: int, gemm: float) -> None:
    """One line per kernel: rate, ratio to the reference, and cost in units of the GEMM rate."""
    for name, rate in rates.items():
        print(
            f"{title:<22}{channels:>4}  {name:<22}{rate / 1e6:>10.1f}"
            f"{rate / rates[reference]:>10.2f}{gemm / rate:>14.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--max-shell", type=int, default=29)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=64, help="images worked on at a time")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    if options.batch % options.chunk:
        parser.error("--batch must be a multiple of --chunk")
    m = Measurement(options)
    agree(m)
    gemm = gemm_rate(options.repetitions)
    device = jax.devices()[0]
    print(
        f"{device.platform} ({device.device_kind}), matrix product {gemm / 1e9:.0f} GFLOP/s\n"
        f"box {options.box}, shell {options.max_shell}: {m.packing.n_pixels} pixels, "
        f"{options.batch} images in chunks of {options.chunk}, "
        f"median of {options.repetitions}\n\n"
        f"{'kernel':<22}{'|G|':>4}  {'way':<22}{'Mpoints/s':>10}{'ratio':>10}{'FLOP per point':>16}"
    )
    for channels in CHANNELS:
        table("slices", extraction(m, channels), "plain, one by one", channels, gemm)
    for channels in CHANNELS:
        table("scores", searches(m, channels), "fixed poses", channels, gemm)
    table("insertion", insertion(m), "plain", 1, gemm)


if __name__ == "__main__":
    main()
