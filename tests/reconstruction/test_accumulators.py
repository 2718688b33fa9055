"""Accumulators add up; the Wiener solve gives the map back that the slices came from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import random_rotations
from jaxrelax.imaging import (
    ImageBatch,
    extract_slices,
    fourier_volume,
    half_grid_shells,
    half_shape,
    half_spectrum,
    image_geometry,
    rebox_map,
    resample_map,
    shift_phases,
    volume_radius,
    working_box,
)
from jaxrelax.reconstruction import (
    Accumulator,
    Candidates,
    ShellSums,
    accumulate,
    accumulators,
    completed,
    completed_sums,
    empty_accumulator,
    fsc,
    inverse_tau2,
    mean_weight,
    wiener_map,
)
from jaxrelax.reconstruction.fsc import cross_power, spectrum

from .blobs import gaussians, sampled

BOX, SHELL = 32, 13
WORK, RADIUS = working_box(SHELL), volume_radius(SHELL)
BAND = int(0.8 * BOX / 2)
N_IMAGES = 400


@pytest.fixture(scope="module")
def truth():
    """A map on the working box, which stands for one of 32 voxels."""
    return sampled(*gaussians(), WORK, scale=BOX / WORK, sigma=1.0)


@pytest.fixture(scope="module")
def images(truth):
    """Noiseless images with CTFs and shifts, their geometry and their poses."""
    rng = np.random.default_rng(2)
    packing = half_spectrum(BOX, SHELL)
    geometry = image_geometry(packing, 3.0, BOX, 3.0)
    rotations = jnp.asarray(random_rotations(N_IMAGES, rng), jnp.float32)
    origins = jnp.asarray(rng.uniform(-3, 3, (N_IMAGES, 2)), jnp.float32)
    phase = 20.0 * (packing.wavevectors_px**2).sum(axis=1) / BOX**2
    contrast = np.sin(rng.uniform(2, 4, (N_IMAGES, 1)) * phase + 0.1).astype(np.float32)
    volume = fourier_volume(jnp.asarray(truth[None]), radius=RADIUS, image_box=BOX)
    slices = extract_slices(volume, rotations, packing.wavevectors_px)[:, 0]
    batch = ImageBatch(
        data=contrast * slices * shift_phases(-origins, packing),
        ctf=jnp.asarray(contrast),
        weights=jnp.asarray(packing.multiplicity),
        valid=jnp.ones(N_IMAGES, bool),
    )
    return batch, geometry, rotations, origins


@pytest.fixture(scope="module")
def add(images):
    """Add some of the images, with weights, to an accumulator."""
    batch, geometry, rotations, origins = images
    program = jax.jit(lambda sums, batch, chosen: accumulate(sums, batch, geometry, chosen))

    def add(sums, rows, weight=1.0):
        rows = np.asarray(rows)
        chosen = Candidates(
            jnp.asarray(rows, jnp.int32), rotations[rows], origins[rows],
            jnp.full(len(rows), weight, jnp.float32),
        )  # fmt: skip
        return program(sums, batch, chosen)

    return add


def close(a: Accumulator, b: Accumulator):
    scale = np.abs(np.asarray(b.values)).max()
    np.testing.assert_allclose(a.values, b.values, atol=1e-5 * scale)


def test_leaving_a_fold_out_is_not_adding_it(add):
    empty = empty_accumulator(RADIUS)
    folds = [add(empty, np.arange(i * 80, (i + 1) * 80)) for i in range(5)]
    everything = folds[0] + folds[1] + folds[2] + folds[3] + folds[4]
    rest = add(add(empty, np.arange(160)), np.arange(240, 400).reshape(2, 80)[0])
    rest = add(rest, np.arange(320, 400))
    close(everything - folds[2], rest)
    close(completed(everything - folds[2]), completed(rest))


@pytest.mark.parametrize(("cpu", "at_once"), [(True, 1), (False, 1), (False, 7), (False, 100)])
def test_chunks_add_up_to_the_whole(images, add, monkeypatch, cpu, at_once):
    batch, geometry, rotations, origins = images
    rows = np.arange(84)
    chosen = Candidates(
        jnp.asarray(rows, jnp.int32), rotations[rows], origins[rows],
        jnp.linspace(0.5, 1.5, 84, dtype=jnp.float32),
    )  # fmt: skip
    chunks = []
    monkeypatch.setattr(accumulators, "on_cpu", lambda: cpu)
    monkeypatch.setattr(accumulators, "fitting", lambda bytes_each: at_once)
    one = accumulators.accumulated

    def counted(sums, batch, geometry, chunk):
        chunks.append(len(chunk.row))
        return one(sums, batch, geometry, chunk)

    monkeypatch.setattr(accumulators, "accumulated", counted)
    found = accumulate(empty_accumulator(RADIUS), batch, geometry, chosen)
    assert set(chunks) == {min(at_once, 84)}
    close(found, one(empty_accumulator(RADIUS), batch, geometry, chosen))


def test_weights_of_candidates_add_up(add):
    empty = empty_accumulator(RADIUS)
    rows = np.arange(80)
    close(add(add(empty, rows, 0.3), rows, 0.7), add(empty, rows, 1.0))
    np.testing.assert_array_equal(add(empty, rows, 0.0).values, 0.0)


def test_noiseless_slices_give_the_map_back(add, truth):
    sums = completed(add(empty_accumulator(RADIUS), np.arange(N_IMAGES)))
    found = np.asarray(wiener_map(sums, jnp.zeros(SHELL + 1), box=WORK, image_box=BOX))
    assert fsc(found, truth)[: BAND + 1].min() > 0.99
    assert np.vdot(found, truth) / np.vdot(truth, truth) == pytest.approx(1.0, abs=0.02)


def test_a_prior_damps_and_shells_beyond_it_are_empty(add):
    sums = completed(add(empty_accumulator(RADIUS), np.arange(N_IMAGES)))
    weight = np.asarray(mean_weight(sums, SHELL + 1))
    free, damped = (
        np.asarray(wiener_map(sums, jnp.asarray(prior), box=WORK, image_box=BOX))
        for prior in (np.zeros(SHELL + 1, np.float32), weight.astype(np.float32))
    )
    # A prior as strong as the data halves the map, roughly: the weight varies within shells.
    assert np.vdot(free, damped) / np.vdot(free, free) == pytest.approx(0.5, abs=0.1)
    short = np.asarray(wiener_map(sums, jnp.zeros(7), box=WORK, image_box=BOX))
    power = np.abs(np.fft.rfftn(short))
    f = np.fft.fftfreq(WORK, 1 / WORK)
    k = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + np.arange(WORK // 2 + 1) ** 2)
    assert power[k > 9].max() < 0.02 * power[k < 6].max()


@pytest.mark.parametrize("strength", [0.3, 20.0])
def test_a_map_may_keep_the_amplitude_of_its_shells(add, strength):
    """Shell by shell what the prior takes in the mean is given back, but no more than twice."""
    sums = completed(add(empty_accumulator(RADIUS), np.arange(N_IMAGES)))
    prior = strength * np.asarray(mean_weight(sums, SHELL + 1), np.float64)
    faded, unfaded = (
        spectrum(
            wiener_map(
                sums, jnp.asarray(prior, jnp.float32), box=WORK, image_box=BOX, unfaded=unfaded
            )
        )
        for unfaded in (False, True)
    )
    shells = half_grid_shells(RADIUS).ravel()
    inside = shells <= SHELL
    weight = np.asarray(sums.values[:, 2], np.float64)[inside]
    kept = weight / (weight + prior[shells[inside]])
    share = np.bincount(shells[inside], kept) / np.bincount(shells[inside])
    expected = 1.0 / np.maximum(share, 0.5)
    assert (expected[1:] < 1.6).all() if strength < 1 else (expected == 2.0).all()
    found = cross_power(faded, unfaded, WORK) / cross_power(faded, faded, WORK)
    # Shells of the map's grid are mixtures of those of the oversampled one beside them.
    np.testing.assert_allclose(found[2:SHELL], expected[2:SHELL], rtol=0.03)


def test_a_margin_ends_the_map_smoothly(add):
    sums = completed(add(empty_accumulator(RADIUS), np.arange(N_IMAGES)))
    sharp, smooth = (
        spectrum(np.asarray(wiener_map(sums, jnp.zeros(7), box=WORK, image_box=BOX, margin=m)))
        for m in (0, 2)
    )
    gain = cross_power(sharp, smooth, WORK) / cross_power(sharp, sharp, WORK)
    np.testing.assert_allclose(gain[1:4], 1.0, atol=0.02)
    assert 0.2 < gain[5] < 0.95
    assert gain[6] < 0.3


def test_mean_weight_is_the_mean_over_each_shell(add):
    sums = completed(add(empty_accumulator(RADIUS), np.arange(80)))
    shells = half_grid_shells(RADIUS).ravel()
    weight = np.asarray(sums.values[:, 2], np.float64)
    expected = np.bincount(shells, weight)[: SHELL + 1] / np.bincount(shells)[: SHELL + 1]
    found = np.asarray(mean_weight(sums, SHELL + 1))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    twice = completed(add(add(empty_accumulator(RADIUS), np.arange(80)), np.arange(80)))
    np.testing.assert_allclose(mean_weight(twice, SHELL + 1), 2 * found, rtol=1e-4)


def test_total_weight_is_that_of_the_images(add, images):
    batch, _, _, _ = images
    rows = np.arange(80)
    sums = add(empty_accumulator(RADIUS), rows)
    inserted = 0.5 * np.sum(np.asarray(batch.weights) * np.asarray(batch.ctf)[rows] ** 2)
    total = np.asarray(sums.values[:, 2], np.float64).sum()
    assert total == pytest.approx(inserted, rel=1e-4)


def test_prior_variance_from_the_fsc():
    # SSNR = F/(1−F) = τ²·weight.
    found = inverse_tau2(np.array([8.0, 8.0]), np.array([0.5, 0.8]))
    np.testing.assert_allclose(found, [8.0, 2.0])
    assert np.all(np.isfinite(inverse_tau2(np.ones(3), np.array([-0.2, 0.0, 1.0]))))


@pytest.fixture(scope="module")
def two_sums(add):
    """Two accumulators of different images."""
    return [completed(add(empty_accumulator(RADIUS), np.arange(i, 240, 2))) for i in range(2)]


@pytest.mark.parametrize("shell", [4, 9, SHELL])
def test_shell_sums_keep_what_the_last_shell_needs(two_sums, shell):
    whole = two_sums[0]
    kept = ShellSums.of(whole, shell)
    grid = kept.accumulator()
    assert grid.radius == volume_radius(shell)
    assert len(kept.values) < len(grid.values)
    again = ShellSums.of(grid, shell)
    np.testing.assert_array_equal(again.values, kept.values)
    beyond = half_grid_shells(grid.radius).ravel() > shell
    np.testing.assert_array_equal(np.asarray(grid.values)[beyond], 0.0)
    assert kept.values[:, 2].sum() > 0
    # The map is that of everything.
    prior, box = jnp.zeros(shell + 1), working_box(shell)
    found = wiener_map(grid, prior, box=box, image_box=BOX)
    middle = np.arange(grid.radius + 1)
    z = slice(whole.radius - grid.radius, whole.radius + grid.radius + 1)
    shape = (2 * whole.radius + 1, 2 * whole.radius + 1, whole.radius + 1, 3)
    cut = np.asarray(whole.values).reshape(shape)[z, z][:, :, middle].reshape(-1, 3)
    expected = wiener_map(
        Accumulator(jnp.asarray(cut), grid.radius), prior, box=box, image_box=BOX
    )  # fmt: skip
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


def test_shell_sums_add_up(two_sums):
    first, second = (ShellSums.of(sums, SHELL) for sums in two_sums)
    both = ShellSums.of(two_sums[0] + two_sums[1], SHELL)
    scale = np.abs(both.values).max()
    np.testing.assert_allclose((first + second).values, both.values, atol=1e-6 * scale)
    np.testing.assert_allclose((both - first).values, second.values, atol=1e-6 * scale)
    assert (both - first).max_shell == SHELL


def test_shell_sums_change_their_last_shell(two_sums):
    whole = ShellSums.of(two_sums[0], SHELL)
    assert whole.resized(SHELL) is whole
    small = whole.resized(6)
    np.testing.assert_array_equal(small.values, ShellSums.of(two_sums[0], 6).values)
    # Nothing is known beyond it, and nothing is lost on the way.
    large = small.resized(SHELL)
    assert (large.max_shell, len(large.values)) == (SHELL, len(whole.values))
    np.testing.assert_array_equal(large.resized(6).values, small.values)
    shells = half_grid_shells(RADIUS).ravel()
    grid = np.asarray(large.accumulator().values)
    np.testing.assert_array_equal(grid[shells > 6], 0.0)
    inside = np.asarray(two_sums[0].values)[shells <= 6]
    np.testing.assert_array_equal(grid[shells <= 6], inside)


def test_a_narrower_box_accumulates_the_same_map(images, truth):
    """What images show around the map's box stays around it on the oversampled grid."""
    batch, geometry, rotations, origins = images
    rng = np.random.default_rng(7)
    size = batch.data.shape
    noise = 0.3 * np.std(batch.data) * (rng.normal(size=size) + 1j * rng.normal(size=size))
    data = batch.data + noise.astype(np.complex64)
    rows = jnp.arange(N_IMAGES, dtype=jnp.int32)
    everything = Candidates(rows, rotations, origins, jnp.ones(N_IMAGES, jnp.float32))
    maps = []
    for box in (BOX, 24):
        seen = image_geometry(geometry.packing, 3.0, box, 3.0)
        shell = int(seen.slice_shell.max())
        noisy = ImageBatch(data, batch.ctf * seen.amplitude, batch.weights, batch.valid)
        sums = accumulate(empty_accumulator(volume_radius(shell)), noisy, seen, everything)
        solved = wiener_map(
            completed(sums), np.zeros(shell + 1, np.float32), box=working_box(shell), image_box=box
        )
        maps.append(rebox_map(resample_map(np.asarray(solved), box), 24))
    radius = np.hypot.reduce(np.indices((24, 24, 24)) - 12.0)
    inside = radius < 8
    wide, narrow = (m[inside] for m in maps)
    # Noise included; a shell of another width ends the band elsewhere.
    assert np.corrcoef(wide, narrow)[0, 1] > 0.98
    assert np.polyfit(wide, narrow, 1)[0] == pytest.approx(1.0, abs=0.03)


def test_completed_sums_are_what_is_kept_of_the_completed_grid():
    radius = volume_radius(SHELL)
    rng = np.random.default_rng(8)
    values = rng.standard_normal((int(np.prod(half_shape(radius))), 4)).astype(np.float32)
    whole = Accumulator(jnp.asarray(values), radius)
    for shell in (SHELL, SHELL - 2):
        expected = ShellSums.of(completed(whole), shell)
        found = completed_sums(whole, shell)
        np.testing.assert_array_equal(found.values, expected.values)
        assert found.max_shell == shell
