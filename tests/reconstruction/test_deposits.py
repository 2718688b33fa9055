"""Posteriors become sums on the device as they would on the host, one pose after another."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from jaxrelax.geometry import point_group, random_rotations
from jaxrelax.imaging import (
    ImageBatch,
    half_shape,
    half_spectrum,
    image_geometry,
    volume_radius,
)
from jaxrelax.inference import significant
from jaxrelax.reconstruction import (
    Accumulator,
    Candidates,
    accumulate,
    accumulators,
    deposit,
    deposit_in_maps,
    empty_accumulator,
)
from jaxrelax.reconstruction.deposits import significant_first

BOX, SHELL, IMAGES, PLACED = 24, 9, 6, 3
RADIUS = volume_radius(SHELL)
PACKING = half_spectrum(BOX, SHELL)
GEOMETRY = image_geometry(PACKING, 3.0, BOX, 3.0)
OPERATORS = point_group("D2").operators
PLACES = len(OPERATORS)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    size = (IMAGES, PACKING.n_pixels)
    data = (rng.standard_normal(size) + 1j * rng.standard_normal(size)).astype(np.complex64)
    ctf = rng.uniform(-1, 1, size).astype(np.float32)
    weights = PACKING.multiplicity * rng.uniform(0.5, 2.0, size[1]).astype(np.float32)
    valid = np.arange(IMAGES) < IMAGES - 1
    return jax.device_put(ImageBatch(data, ctf, weights, valid))


@pytest.fixture(scope="module")
def poses():
    """Rotations, origins and weights; one image sharp, one flat, one of padding, some zeros."""
    rng = np.random.default_rng(1)
    shape = (IMAGES, PLACED, PLACES)
    rotations = random_rotations(int(np.prod(shape)), rng).reshape(*shape, 3, 3)
    weights = rng.dirichlet(np.full(PLACED * PLACES, 0.2), IMAGES).reshape(shape)
    weights[1] = 1.0 / (PLACED * PLACES)
    weights[2] = np.eye(PLACED * PLACES)[5].reshape(PLACED, PLACES)
    weights[3] *= 0.3  # the rest is junk
    weights[:, 1, 2] = 0.0
    weights[-1] = 0.0
    single = (rotations, rng.uniform(-3, 3, (*shape, 2)), weights)
    return tuple(x.astype(np.float32) for x in single)


@pytest.fixture(scope="module")
def deposited():
    return jax.jit(
        lambda sums, batch, rotations, origins, weights: deposit(
            sums, batch, GEOMETRY, rotations, origins, weights, OPERATORS
        ),
        donate_argnums=0,
    )


def plain_sums(batch, rotations, origins_px, weights, mass=0.999):
    """In double precision, image by image and corner by corner."""
    shape = half_shape(RADIUS)
    sums = np.zeros((*shape, 3))
    data, ctf = np.asarray(batch.data, np.complex128), np.asarray(batch.ctf, np.float64)
    k = np.asarray(GEOMETRY.slice_wavevectors, np.float64)
    images_k = np.asarray(PACKING.wavevectors_px, np.float64)
    for image, mine in enumerate(np.asarray(weights, np.float64).reshape(len(weights), -1)):
        order = sorted(range(len(mine)), key=lambda j: -mine[j])
        chosen, held = [], 0.0
        for j in order:
            if held >= mass * mine.sum() or mine[j] == 0:
                break
            chosen.append(j)
            held += mine[j]
        for j in chosen:
            placed, place = divmod(j, PLACES)
            pose = rotations[image, placed, place].astype(np.float64) @ OPERATORS[place].T
            shift = images_k @ origins_px[image, placed, place].astype(np.float64)
            phase = np.exp(-2j * np.pi * shift / BOX)
            factor = mine[j] * mine.sum() / held * 0.5 * np.asarray(batch.weights, np.float64)
            value = factor * ctf[image] * data[image] * phase
            weight = factor * ctf[image] ** 2
            point = 2.0 * k @ pose[:2]
            sign = np.where(point[:, :1] < 0, -1.0, 1.0)
            point = point * sign
            corner = np.floor(point).astype(int)
            row = np.stack([value.real, value.imag * sign[:, 0], weight], axis=1)
            for ends in np.ndindex(2, 2, 2):
                share = np.prod(np.where(ends, point - corner, 1 - (point - corner)), axis=1)
                x, y, z = (corner + ends).T
                np.add.at(sums, (z + RADIUS, y + RADIUS, x), share[:, None] * row)
    return sums.reshape(-1, 3)


def test_the_sums_are_those_of_double_precision(batch, poses, deposited):
    found = np.asarray(deposited(empty_accumulator(RADIUS), batch, *poses).values)
    expected = plain_sums(batch, *poses)
    assert np.abs(found[:, :3] - expected).max() < 2e-6 * np.abs(expected).max()
    np.testing.assert_array_equal(found[:, 3], 0.0)


@pytest.mark.parametrize("most", [1, 2, 4, 100])
def test_the_sums_are_those_of_candidates_chosen_on_the_host(batch, poses, monkeypatch, most):
    monkeypatch.setattr(accumulators, "on_cpu", lambda: False)
    monkeypatch.setattr(accumulators, "fitting", lambda bytes_each: most)
    rotations, origins_px, weights = poses
    found = deposit(
        empty_accumulator(RADIUS), batch, GEOMETRY, rotations, origins_px, weights, OPERATORS
    )
    rows, hypotheses, kept = significant(weights.reshape(IMAGES, -1))
    placed, places = np.divmod(hypotheses, PLACES)
    candidates = Candidates(
        rows.astype(np.int32),
        rotations[rows, placed, places] @ OPERATORS[places].transpose(0, 2, 1).astype(np.float32),
        origins_px[rows, placed, places],
        kept.astype(np.float32),
    )
    expected = accumulate(empty_accumulator(RADIUS), batch, GEOMETRY, candidates)
    scale = float(jnp.abs(expected.values).max())
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6 * scale)


def test_it_adds_to_what_is_there_and_nothing_for_padding(batch, poses, deposited):
    rotations, origins_px, weights = poses
    start = np.random.default_rng(2).uniform(size=(int(np.prod(half_shape(RADIUS))), 4))
    start = start.astype(np.float32)

    def sums(weights):
        begun = Accumulator(jnp.asarray(start), RADIUS)
        return np.asarray(deposited(begun, batch, rotations, origins_px, weights).values)

    np.testing.assert_array_equal(sums(np.zeros_like(weights)), start)
    fresh = deposited(empty_accumulator(RADIUS), batch, *poses).values
    np.testing.assert_allclose(sums(weights), start + fresh, atol=1e-5)


def test_the_sums_are_updated_where_they_are(batch, poses, deposited):
    sums = empty_accumulator(RADIUS)
    compiled = deposited.lower(sums, batch, *poses).compile().memory_analysis()
    assert compiled.alias_size_in_bytes >= sums.values.nbytes
    assert compiled.temp_size_in_bytes < sums.values.nbytes / 4


# Few, for each is a program of its own.
SIZES = ((1, 1), (1, 40), (3, 2), (4, 7), (4, 40))


@st.composite
def posteriors(draw):
    """Images × hypotheses with ties, zeros, and totals other than 1."""
    images, hypotheses = draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = np.exp(draw(st.floats(0, 12)) * rng.standard_normal((images, hypotheses)))
    weights *= rng.uniform(size=weights.shape) < draw(st.floats(0.1, 1.0))
    if draw(st.booleans()):
        weights = np.round(4 * weights / weights.max(initial=1e-30))
    return (weights * rng.uniform(0, 1, (images, 1))).astype(np.float32)


@given(posteriors(), st.sampled_from([0.5, 0.9, 0.999]))
def test_it_chooses_what_double_precision_does(weights, mass):
    found = significant_first(weights, mass)
    rows, hypotheses, kept = significant(weights, mass)
    # Where a remainder is the threshold itself, rounding may decide one way or the other.
    ranked = -np.sort(-weights.astype(np.float64), axis=1)
    remaining = np.cumsum(ranked[:, ::-1], axis=1)[:, ::-1]
    total = remaining[:, :1]
    if (np.abs(remaining - (1 - mass) * total)[total[:, 0] > 0] < 1e-7 * (1 - mass)).any():
        return
    count = int(found.count)
    assert count == len(rows)
    chosen = np.asarray(found.index[:count])
    np.testing.assert_array_equal(chosen, rows * weights.shape[1] + hypotheses)
    np.testing.assert_allclose(found.weight[:count], kept, rtol=1e-6)
    np.testing.assert_array_equal(found.weight[count:], 0.0)
    assert len(found.weight) == weights.size


def test_a_remainder_just_below_the_threshold_is_dropped():
    """Summed from the likeliest down, single precision could not tell these two."""
    for remainder, kept in ((1.00001e-3, 4), (0.99999e-3, 3)):
        parts = np.array([0.5, 0.3, 0.2, 0.0]) * (1 - remainder)
        parts[3] = remainder
        assert int(significant_first(parts[None].astype(np.float32)).count) == kept
        assert len(significant(parts[None].astype(np.float32))[0]) == kept


def test_every_device_adds_its_own_images(batch, poses, deposited):
    mesh = Mesh(np.array(jax.devices()[:2]), ("images",))
    each, every = PartitionSpec("images"), PartitionSpec()

    def own(values, data, ctf, valid, pixel_weights, rotations, origins_px, weights):
        images = ImageBatch(data, ctf, pixel_weights, valid)
        sums = Accumulator(values, RADIUS)
        return deposit(sums, images, GEOMETRY, rotations, origins_px, weights, OPERATORS).values

    program = jax.jit(
        jax.shard_map(
            own, mesh=mesh, in_specs=(each, each, each, each, every, each, each, each),
            out_specs=each, check_vma=False,
        )
    )  # fmt: skip
    empty = np.tile(np.asarray(empty_accumulator(RADIUS).values), (2, 1))
    arguments = (empty, batch.data, batch.ctf, batch.valid, batch.weights, *poses)
    text = program.lower(*arguments).as_text()
    assert "all_reduce" not in text
    assert "all_gather" not in text
    both = np.asarray(program(*arguments)).reshape(2, -1, 4)
    assert np.abs(both).max(axis=(1, 2)).min() > 0
    whole = np.asarray(deposited(empty_accumulator(RADIUS), batch, *poses).values)
    np.testing.assert_allclose(both.sum(axis=0), whole, atol=1e-6 * np.abs(whole).max())


def test_it_lowers_for_accelerators_without_the_host(batch, poses, monkeypatch):
    monkeypatch.setattr(accumulators, "on_cpu", lambda: False)
    # A function of its own: what was traced for this processor is not taken again.
    program = jax.jit(
        lambda sums, batch, rotations, origins, weights: deposit(
            sums, batch, GEOMETRY, rotations, origins, weights, OPERATORS
        )
    )
    exported = jax.export.export(program, platforms=["cuda"])(
        empty_accumulator(RADIUS), batch, *map(jnp.asarray, poses)
    )
    text = exported.mlir_module()
    assert "callback" not in text
    assert "stablehlo.while" in text
    assert "precision = [HIGHEST, HIGHEST]" in text


def test_maps_get_what_is_significant_of_all_together(batch, poses):
    maps = np.array([0, 1, 0, 1])
    rotations, origins, weights = poses
    empty = [empty_accumulator(RADIUS) for _ in range(2)]
    found = jax.jit(
        lambda sums, batch, *given: deposit_in_maps(sums, batch, GEOMETRY, *given, OPERATORS, maps)
    )(tuple(empty), batch, rotations, origins, weights)
    # In double precision: what is kept of each image is decided before maps are told apart.
    kept = np.zeros_like(weights, np.float64)
    for image, own in enumerate(weights.astype(np.float64).reshape(IMAGES, -1)):
        order = np.argsort(-own, kind="stable")
        above = own.sum() - np.concatenate([[0.0], np.cumsum(own[order])[:-1]])
        chosen = order[(above > 1e-3 * own.sum()) & (own[order] > 0)]
        if len(chosen):
            scaled = own[chosen] * own.sum() / own[chosen].sum()
            kept[image].reshape(-1)[chosen] = scaled
    for number, one in enumerate(found):
        mine = np.where(maps == number, kept, 0.0)
        expected = plain_sums(batch, rotations, origins, mine, mass=1.0)
        values = np.asarray(one.values)[:, :3].reshape(expected.shape)
        np.testing.assert_allclose(values, expected, atol=2e-5 * np.abs(expected).max())
    together = deposit(
        empty_accumulator(RADIUS), batch, GEOMETRY, rotations, origins, weights, OPERATORS
    )
    total = np.asarray(found[0].values) + np.asarray(found[1].values)
    np.testing.assert_allclose(total, together.values, atol=1e-5 * np.abs(total).max())
