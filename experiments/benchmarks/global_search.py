"""The grid of the global search: how fast, how right, and what it finds on images with truth.

    python experiments/benchmarks/global_search.py [DATA] [--order N] [--images N]

Without DATA, random images: images per second of the search on rings beside a plain matrix product
over all orientations, and the machine's own rate of matrix products, all in one run. With DATA (a
folder with ``particles.star``, ``truth.star`` and ``truth_map.mrc``, made by ``jaxrelax simulate``)
also, under the true map: the error of the scores, and for how many images the right peak is among
the first candidates.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxrelax.engine.streams import prepared_batches
from jaxrelax.geometry import (
    healpix_directions,
    point_group,
    pose_error_mod_group,
)
from jaxrelax.imaging import (
    ImageBatch,
    extract_slices,
    fourier_volume,
    half_spectrum,
    image_geometry,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.inference import (
    GlobalSearch,
    PosePrior,
    Poses,
    finest_resolution_angstrom,
    global_search,
)
from jaxrelax.inference.global_search import shift_grid
from jaxrelax.inference.orientation_grid import grid_scores, in_plane_angles
from jaxrelax.io import read_map, read_particles
from jaxrelax.reconstruction import symmetrise
from jaxrelax.refinement import Homogeneous, Map, Setup, prepare

BOX, PIXEL, DIAMETER = 128, 2.6, 216.0
GEMM = 2048
ANYWHERE_PX = 1e3
WIDER = 0.7  # of the grid's resolution: where candidates are climbed to
NEAR_DEG = 20.0  # of the grid point nearest to the truth, in the worst case


def fastest(run, repeats: int = 5) -> float:
    """Seconds of the fastest of some calls."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return min(times)


def start(n: int) -> Poses:
    """No poses."""
    nothing = (jnp.tile(jnp.eye(3), (n, 1, 1)), jnp.zeros((n, 2)))
    return Poses(*nothing, *nothing)


def prior_of(sigma_px: float) -> PosePrior:
    """Of origins alone; the search knows nothing of orientations."""
    return PosePrior(jnp.float32(1.0), jnp.float32(sigma_px))


def candidates(search: GlobalSearch, geometry, n: int, sigma_px: float):
    """The compiled first half of the search."""
    return jax.jit(
        lambda target, batch: search._candidates(
            target, batch, geometry.inner(), start(n), prior_of(sigma_px)
        )
    )


def rates(order: int, images: int) -> None:
    """Images per second on random images of 128²."""
    resolution = finest_resolution_angstrom(order, DIAMETER)
    shell = int(BOX * PIXEL / resolution)
    rng = np.random.default_rng(0)
    box = working_box(shell)
    map_ = rng.standard_normal((1, box, box, box)).astype(np.float32)
    volume = fourier_volume(jnp.asarray(map_), radius=volume_radius(shell), image_box=BOX)
    packing = half_spectrum(BOX, shell)
    geometry = image_geometry(packing, PIXEL, BOX, PIXEL)
    n = packing.n_pixels
    data = rng.standard_normal((2, images, n)).astype(np.float32)
    batch = ImageBatch(
        jnp.asarray(data[0] + 1j * data[1], jnp.complex64),
        jnp.asarray(rng.standard_normal((images, n)), jnp.float32),
        jnp.asarray(packing.multiplicity), jnp.ones(images, bool),
    )  # fmt: skip
    search = global_search(
        resolution, DIAMETER, point_group("C1"), coarsest_order=order, finest_order=order,
        n_candidates=8, n_modes=4,
    )  # fmt: skip
    target = search.prepare(volume, geometry)
    shifts, angles = len(shift_grid()), 4 * search.quarter
    directions = len(healpix_directions(order))
    square = jnp.ones((GEMM, GEMM), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    flops = 2 * GEMM**3 / fastest(lambda: product(square))

    first = candidates(search, geometry, images, ANYWHERE_PX)
    grid_time = fastest(lambda: first(target, batch)) / images
    whole = jax.jit(
        lambda target, batch: search(
            target, batch, geometry.inner(), start(images),
            prior_of(ANYWHERE_PX), shell + 1,
        ).log_evidence
    )  # fmt: skip
    whole_time = fastest(lambda: whole(target, batch), 3) / images

    # Some of the in-plane angles, so that the matrix fits the memory; then to scale.
    some = max(1, angles // 8)
    views = jnp.asarray(rng.standard_normal((2 * n, directions * some)), jnp.float32)
    moved = jnp.asarray(rng.standard_normal((shifts, 2 * n)), jnp.float32)
    plain = jax.jit(
        lambda moved, views: (moved @ views).reshape(shifts, directions, some).max((0, 2))
    )
    plain_time = fastest(lambda: plain(moved, views)) * angles / some

    rings = target.grid.n_rings
    orders = len(target.grid.even_orders) + len(target.grid.odd_orders)
    done = shifts * directions * orders * (8 * rings + angles)
    print(
        f"order {order}: {directions} directions × {angles} angles × {shifts} shifts, to "
        f"{resolution:.1f} Å ({n} pixels; {rings} rings, {orders} orders)"
    )
    print(f"  matrix products of the machine   {flops / 1e9:8.1f} GFLOP/s")
    print(f"  plain product over orientations  {1 / plain_time:8.1f} images/s")
    print(
        f"  on rings                         {1 / grid_time:8.1f} images/s, "
        f"{plain_time / grid_time:.1f} times as many; {100 * done / grid_time / flops:.0f} % of "
        "the rate of matrix products, equivalent to "
        f"{100 * 4 * n * shifts * directions * angles / grid_time / flops:.0f} % in the plain form"
    )
    print(f"  with the climb                   {1 / whole_time:8.1f} images/s")


def found(folder: Path, order: int, images: int, group: str) -> None:
    """Scores and candidates under the true map."""
    particles, truth = (read_particles(folder / f"{n}.star") for n in ("particles", "truth"))
    rows = np.arange(images)
    particles, truth = particles.select(rows), truth.select(rows)
    values, pixel = read_map(folder / "truth_map.mrc")
    symmetry = point_group(group)
    values = symmetrise(np.asarray(values, np.float32), symmetry)
    # On the scale of the images and in the box of the particle, as a refinement has it.
    setup = prepare(
        particles, Map(values, pixel), mode=Homogeneous(), symmetry=group, ini_high=2.5 * pixel
    )
    problem, values = setup.problem, setup.state.maps.symmetric[0]
    diameter = problem.particle.diameter_angstrom
    resolution = finest_resolution_angstrom(order, diameter)
    shell = problem.shells.at(resolution)
    rung = problem.shells.rung(shell)
    volume = fourier_volume(
        jnp.asarray(resample_map(values, working_box(rung))[None]),
        radius=volume_radius(rung),
        image_box=problem.shells.box,
    )
    geometry = problem.execution.geometry(0, rung, rung)
    sigma = float(np.sqrt(np.mean(truth.origins_angstrom**2)))
    search = global_search(
        resolution, diameter, symmetry, coarsest_order=order, finest_order=order,
        n_candidates=16, n_modes=4, sigma_offset_angstrom=sigma,
    )  # fmt: skip
    target = search.prepare(volume, geometry)
    batch = next(
        iter(
            prepared_batches(
                problem.execution, 0, rows, geometry, setup.state.noise_power[0], shell, images
            )
        )
    ).scored
    sigma_px = sigma / geometry.pixel_size_angstrom
    rotations, _ = candidates(search, geometry, images, sigma_px)(target, batch)
    flat = np.asarray(rotations, np.float64).swapaxes(0, 1).reshape(-1, 3, 3)
    error = np.rad2deg(
        pose_error_mod_group(flat, np.repeat(truth.rotations, 16, axis=0), symmetry)
    ).reshape(images, 16)
    share = [f"{np.mean(error[:, :k].min(axis=1) < NEAR_DEG):.3f} of {k}" for k in (1, 2, 4, 8, 16)]
    print(
        f"{folder.name}, order {order} with the true map to {resolution:.1f} Å: a candidate within "
        f"{NEAR_DEG:g}° of the truth among the best {', '.join(share)} ({images} images)"
    )
    error, spread = score_error(search, target, volume, geometry, batch)
    print(f"  error of the scores {error:.2f} nats, their spread {spread:.1f}")
    left_out(setup, values, search, WIDER * resolution, sigma)


def left_out(
    setup: Setup, values: np.ndarray, search: GlobalSearch, resolution: float, sigma: float
) -> None:
    """How much of the images' posterior a race of candidates leaves out, and the time it takes."""
    problem, n = setup.problem, len(setup.problem.data.particles)
    shell = problem.shells.at(resolution)
    rung = problem.shells.rung(shell)
    volume = fourier_volume(
        jnp.asarray(resample_map(values, working_box(rung))[None]),
        radius=volume_radius(rung),
        image_box=problem.shells.box,
    )
    geometry = problem.execution.geometry(0, rung, rung)
    batches = prepared_batches(
        problem.execution, 0, np.arange(n), geometry, setup.state.noise_power[0], shell, n
    )
    batch, poses = next(iter(batches)).scored, start(n)
    prior = prior_of(sigma / geometry.pixel_size_angstrom)
    chunk = 16

    def evidence(candidates: int, behind_nats: float):
        changed = eqx.tree_at(
            lambda s: (s.n_candidates, s.n_modes, s.behind_nats), search,
            (candidates, candidates, behind_nats),
        )  # fmt: skip
        target = changed.prepare(volume, geometry)

        @jax.jit
        def run(target, batch, poses):
            def some(part):
                (data, ctf, valid), poses = part
                images = ImageBatch(data, ctf, batch.weights, valid)
                found = changed(
                    target, images, geometry.inner(), poses, prior, problem.shells.count
                )
                return jax.nn.logsumexp(found.log_evidence, axis=-1)

            parts = (batch.data, batch.ctf, batch.valid), poses
            parts = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), parts)
            return jax.lax.map(some, parts).reshape(-1)

        seconds = fastest(lambda: run(target, batch, poses), 3) / n
        return np.asarray(run(target, batch, poses), np.float64), seconds

    everything, all_seconds = evidence(8, np.inf)
    print(f"  climbed to {resolution:.1f} Å, of the posterior of all of eight candidates")
    for name, arguments in (
        ("a race", (8, search.behind_nats)),
        ("the best four of the grid", (4, np.inf)),
    ):
        found, seconds = evidence(*arguments)
        lost = np.clip(1.0 - np.exp(found - everything), 0.0, 1.0)
        print(
            f"    {name} leaves out {lost.mean():.4f} in {seconds / all_seconds:.2f} of the time "
            "(the grid's included)"
        )


def score_error(search: GlobalSearch, target, volume, geometry, batch) -> tuple[float, float]:
    """Standard deviation over the grid, against exact sums over pixels, and of the exact ones."""
    some = 4
    inner = geometry.inner()
    low = search._low(inner)
    batch = ImageBatch(
        batch.data[:some, low], batch.ctf[:some, low], batch.weights[low], batch.valid[:some]
    )
    unmoved = jnp.zeros((1, 2))
    got = grid_scores(
        batch,
        jax.tree.map(lambda x: x[0], target.references),
        target.grid,
        unmoved,
        jnp.zeros(1),
        search.quarter,
    )
    got = np.asarray(got.unfolded())[:, :, 0]
    exact = np.empty(got.shape)
    z, g = batch.ctf * batch.weights * batch.data, batch.ctf**2 * batch.weights
    for a, psi in enumerate(in_plane_angles(search.quarter)):
        cosine, sine = np.cos(psi), np.sin(psi)
        turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]], np.float32)
        views = extract_slices(volume, turn @ target.poses, inner.slice_wavevectors[low])[:, 0]
        exact[a] = np.asarray((z.conj() @ views.T).real - 0.5 * g @ (jnp.abs(views) ** 2).T)
    error = got - exact
    return (
        float((error - error.mean(axis=(0, 2), keepdims=True)).std()),
        float(exact.std(axis=(0, 2)).mean()),
    )


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--group", default="C4", help="symmetry of DATA")
    asked = parser.parse_args()
    rates(asked.order, asked.images)
    if asked.data is not None:
        found(asked.data, asked.order, asked.images, asked.group)


if __name__ == "__main__":
    main()
