"""From sums to the volume that scores: one program does what NumPy, SciPy and FINUFFT do."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.arrays import on_device
from jaxrelax.geometry import isotypic_weights, point_group, random_rotations
from jaxrelax.imaging import (
    fourier_volume,
    half_grid_shells,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.inference import Hypotheses, summed
from jaxrelax.reconstruction import (
    Accumulator,
    ShellSums,
    apply_component_gains,
    apply_gain,
    completed,
    inverse_tau2,
    isotypic_parts,
    mean_weight,
    regularised_parts,
    rotate_map,
    rotated_maps,
    scoring_volume,
    soft_sphere,
    symmetrise,
    wiener_map,
)
from jaxrelax.reconstruction.accumulators import traced_grid_shells
from jaxrelax.reconstruction.ball import half_ball, traced_ball
from jaxrelax.reconstruction.fsc import cross_power, rfft_shells, spectrum, traced_shells
from jaxrelax.reconstruction.rotate import inside_sphere

from .blobs import blobs, gaussians, sampled

SHELL, IMAGE_BOX, MARGIN = 9, 32, 2
N, RADIUS = working_box(SHELL), volume_radius(SHELL)
GROUPS = ["C4", "D3", "T"]
SPHERE = soft_sphere(N, 0.42 * N, 2.0)
DENSITY = soft_sphere(N, 0.35 * N, 2.0)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def map_of(n=N, seed=0):
    map_ = blobs(n)
    return (map_ + 0.1 * map_.max() * noise(n, n, n, seed=seed)).astype(np.float32)


def same(found, expected, accuracy=1e-5):
    """To some part of the largest value."""
    found, expected = (jax.tree.leaves(x) for x in (found, expected))
    scale = max(np.abs(each).max() for each in expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=accuracy * scale)


@pytest.fixture(scope="module")
def inserted():
    """Sums before they are completed, of a map seen unevenly."""
    volume = fourier_volume(map_of()[None], radius=RADIUS, image_box=IMAGE_BOX).values
    weight = np.random.default_rng(1).uniform(5, 10, (len(volume), 1)).astype(np.float32)
    values = np.concatenate([volume * weight, weight, 0 * weight], axis=1)
    return Accumulator(values, RADIUS)


def table_of(group):
    return Hypotheses.single().product(group.operators, "register").with_symmetrised("symmetric")


def gains_of(group, seed=2):
    components = max(len(isotypic_weights(group)) - 1, 1)
    return np.random.default_rng(seed).uniform(0.2, 0.9, (components, SHELL + 1))


def scored(group, subgroup, table):
    """The whole way of a map, as a function of arrays."""

    def volume(inserted, inverse_tau2, gains, density):
        sums = ShellSums.of(completed(inserted), SHELL)
        parts = regularised_parts(
            sums, inverse_tau2, gains, group, subgroup, sphere=SPHERE, symmetric_mask=density,
            asymmetric_mask=density, image_box=IMAGE_BOX, margin=MARGIN,
        )  # fmt: skip
        return parts, scoring_volume([parts], table, max_shell=SHELL - 2, image_box=IMAGE_BOX)

    return volume


@pytest.mark.parametrize("name", GROUPS)
def test_one_program_makes_what_the_host_makes(name, inserted):
    group = point_group(name)
    way = scored(group, point_group("C1"), table_of(group))
    arguments = inserted, np.full(SHELL + 1, 0.5, np.float32), gains_of(group), DENSITY
    parts, volume = way(*arguments)
    assert isinstance(parts.symmetric, np.ndarray)
    found, found_volume = jax.jit(way)(*arguments)
    same(found, parts)
    same(found_volume.values, volume.values)
    assert volume.channels == group.order + 1
    assert np.abs(parts.asymmetric).max() > 1e-2 * np.abs(parts.symmetric).max()


def test_on_an_accelerator_maps_stay_there(inserted, monkeypatch):
    """The same calls outside of a program, where the backend is not this processor."""
    group = point_group("C4")
    way = scored(group, point_group("C1"), table_of(group))
    arguments = inserted, np.full(SHELL + 1, 0.5, np.float32), gains_of(group), DENSITY
    expected = way(*arguments)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = way(*on_device(arguments))
    assert all(isinstance(each, jax.Array) for each in jax.tree.leaves(found))
    same(found[0], expected[0])
    same(found[1].values, expected[1].values)


def test_channels_are_turned_by_the_operators_of_their_rows():
    """Of two maps with symmetries of their own, each channel by itself."""
    groups = [point_group("C3"), point_group("D2")]
    table = summed([table_of(group) for group in groups], "state")
    parts = [
        isotypic_parts(map_of(seed=seed) * SPHERE, group, point_group("C1"))
        for seed, group in enumerate(groups)
    ]
    found = scoring_volume(parts, table, max_shell=SHELL, image_box=IMAGE_BOX)
    row = 0
    for part, group in zip(parts, groups, strict=True):
        maps = [part.symmetric + rotate_map(part.asymmetric, g.T) for g in group.operators]
        for map_ in [*maps, part.symmetric]:
            one = fourier_volume(map_[None], radius=RADIUS, image_box=IMAGE_BOX).values
            mine = np.asarray(found.values)[:, [row, row + len(table)]]
            same(mine, one, 2e-6)
            row += 1
    assert row == len(table)


@pytest.mark.parametrize("name", GROUPS)
def test_parts_in_a_program_are_those_of_the_host(name):
    group, map_ = point_group(name), map_of()
    for subgroup in ("C1", "C2") if name != "D3" else ("C1", "C3"):
        lower = point_group(subgroup)
        if any(np.abs(group.operators - h).sum(axis=(1, 2)).min() > 1e-9 for h in lower.operators):
            continue
        found = jax.jit(lambda m, lower=lower: isotypic_parts(m, group, lower))(map_)
        same(found, isotypic_parts(map_, group, lower))


@pytest.mark.parametrize("name", GROUPS)
def test_a_symmetric_map_has_no_asymmetric_part(name):
    """Made symmetric by its atoms, not by what is tested."""
    group = point_group(name)
    centres, weights = gaussians()
    orbit = np.concatenate([centres @ g.T for g in group.operators])
    map_ = sampled(orbit, np.tile(weights, group.order), 32)
    residue = jax.jit(lambda m: isotypic_parts(m, group, point_group("C1")).asymmetric)(map_)
    assert np.abs(residue).max() <= 1e-5 * np.abs(map_).max()


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("name", ["C1", *GROUPS])
def test_component_gains_in_a_program(name, alike):
    group = point_group(name)
    gains = gains_of(group)
    gains = np.broadcast_to(gains[:1], gains.shape) if alike else gains
    map_ = inside_sphere(map_of())
    asymmetric = map_ - symmetrise(map_, group) if name != "C1" else map_
    found = jax.jit(lambda m, g: apply_component_gains(m, g, group))(asymmetric, gains)
    expected = apply_component_gains(asymmetric, gains, group)
    # Of what the map was: turned copies of all of it are added up.
    assert np.abs(found - expected).max() < 1e-5 * np.abs(map_).max()


def test_turned_maps_in_a_program():
    map_ = map_of()
    rotations = random_rotations(4, np.random.default_rng(3)).astype(np.float32)
    rotations[1] = point_group("C4").operators[1]
    expected = list(rotated_maps(map_, rotations))
    # What permutes the axes is exact if it can be asked for.
    found = jax.jit(lambda m: list(rotated_maps(m, rotations)))(map_)
    same(found, expected)
    np.testing.assert_array_equal(found[1], expected[1])
    found = jax.jit(lambda m, r: list(rotated_maps(m, r)))(map_, rotations)
    same(found[0::2], expected[0::2])
    # Noise up to the edge of the box is where the window is worst.
    same(found[1], inside_sphere(expected[1]), 2e-5)
    same(jax.jit(rotate_map)(map_, rotations[2]), expected[2])


@pytest.mark.parametrize("box", [N - 6, N, N + 8])
def test_resampling_in_a_program(box):
    map_ = map_of()
    found = jax.jit(lambda m: resample_map(m, box))(map_)
    assert found.dtype == jnp.float32
    same(found, resample_map(map_, box), 1e-6)


@pytest.mark.parametrize("length", [4, N // 2 + 1, 3 * N])
def test_gains_in_a_program(length):
    map_, gain = map_of(), np.random.default_rng(4).uniform(size=length)
    same(jax.jit(apply_gain)(map_, gain), apply_gain(map_, gain), 1e-6)
    same(jax.jit(inside_sphere)(map_), inside_sphere(map_), 1e-6)


def test_filters_are_their_own_adjoints():
    first, second = noise(N, N, N, seed=5), noise(N, N, N, seed=6)
    gain = np.random.default_rng(4).uniform(size=8).astype(np.float32)
    for function in (lambda m: apply_gain(m, gain), inside_sphere):
        there = np.vdot(function(first), second)
        (back,) = jax.vjp(function, jnp.asarray(first))[1](jnp.asarray(second))
        same(back, function(second))
        assert np.vdot(first, back) == pytest.approx(there, rel=1e-4)


@pytest.mark.parametrize("shell", [4, SHELL])
def test_sums_in_a_program(inserted, shell):
    whole = completed(inserted)
    same(jax.jit(completed)(inserted).values, whole.values, 1e-7)
    np.testing.assert_array_equal(
        jax.jit(lambda a: ShellSums.of(a, shell))(whole).values, ShellSums.of(whole, shell).values
    )
    kept = ShellSums.of(whole, shell)
    grid = jax.jit(lambda s: s.accumulator())(kept)
    assert grid.radius == kept.accumulator().radius
    np.testing.assert_array_equal(grid.values, kept.accumulator().values)
    for other in (4, 6, SHELL):
        found = jax.jit(lambda s, other=other: s.resized(other))(kept)
        np.testing.assert_array_equal(found.values, kept.resized(other).values)
        assert found.max_shell == other
    same(jax.jit(lambda a: mean_weight(a, shell))(whole), mean_weight(whole, shell), 1e-6)


def test_the_solve_in_a_program(inserted):
    whole, box = completed(inserted), {"box": N, "image_box": IMAGE_BOX, "margin": MARGIN}
    curve = np.linspace(1.1, -0.1, SHELL + 1)
    weight = mean_weight(whole, SHELL + 1)
    tau = inverse_tau2(weight, curve)
    same(jax.jit(inverse_tau2)(weight, curve), tau, 1e-6)
    single = tau.astype(np.float32)
    found = jax.jit(lambda a, t: wiener_map(a, t, **box))(whole, single)
    same(found, wiener_map(whole, single, **box), 1e-6)
    found = jax.jit(lambda a, t: wiener_map(a, t, **box, unfaded=True))(whole, single)
    same(found, wiener_map(whole, single, **box, unfaded=True), 1e-6)


@pytest.mark.parametrize("n", [8, N, 30, 48])
def test_shells_and_balls_made_in_a_program(n):
    shells, _ = rfft_shells(n)
    np.testing.assert_array_equal(jax.jit(traced_shells, static_argnums=0)(n).ravel(), shells)
    index, frequencies = jax.jit(traced_ball, static_argnums=0)(n)
    np.testing.assert_array_equal(index, half_ball(n).index)
    np.testing.assert_array_equal(frequencies, half_ball(n).frequencies)
    np.testing.assert_array_equal(
        jax.jit(traced_grid_shells, static_argnums=0)(n), half_grid_shells(n)
    )
    a, b = (spectrum(noise(n, n, n, seed=seed)) for seed in range(2))
    same(jax.jit(lambda x, y: cross_power(x, y, n))(a, b), cross_power(a, b, n))


def test_gradients_by_gains_map_and_direction(inserted):
    """The parts are linear in gains and numerators, so that differences need not be small."""
    group = point_group("D3")
    way = scored(group, point_group("C1"), table_of(group))
    tau = np.full(SHELL + 1, 0.5, np.float32)
    with_weights = noise(N, N, N, seed=7)

    @jax.jit
    def overlap(numerator, gains):
        values = jnp.concatenate([numerator, inserted.values[:, 2:]], axis=1)
        parts, _ = way(Accumulator(values, RADIUS), tau, gains, DENSITY)
        return jnp.vdot(parts.asymmetric, with_weights)

    gains = gains_of(group).astype(np.float32)
    numerator = jnp.asarray(inserted.values[:, :2])
    by_numerator, by_gains = jax.grad(overlap, argnums=(0, 1))(numerator, gains)
    step = 0.1 * noise(*gains.shape, seed=8)
    change = overlap(numerator, gains + step) - overlap(numerator, gains - step)
    scale = float(jnp.linalg.norm(by_gains) * np.linalg.norm(step))
    assert 2 * float(jnp.vdot(by_gains, step)) == pytest.approx(float(change), abs=1e-3 * scale)
    # Linear without a constant.
    value = float(overlap(numerator, gains))
    assert float(jnp.vdot(by_numerator, numerator)) == pytest.approx(value, rel=1e-3)


def test_it_lowers_for_accelerators_without_the_host(inserted):
    group = point_group("T")
    way = jax.jit(scored(group, point_group("C1"), table_of(group)))
    arguments = inserted, np.ones(SHELL + 1, np.float32), gains_of(group), DENSITY
    text = jax.export.export(way, platforms=["cuda"])(*on_device(arguments)).mlir_module()
    assert "stablehlo.fft" in text
    assert "callback" not in text
    assert not set(re.findall(r"custom_call @(\w+)", text)) - {"Sharding"}
    # Products of matrices decide where a map is read: ten bits are not enough.
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all("HIGHEST" in line for line in products)
