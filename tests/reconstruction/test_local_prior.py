"""Gains per band and place: the local ratio, the filter that knows it, and the prior."""

import jax
import numpy as np
import pytest

from jaxrelax.arrays import on_device
from jaxrelax.geometry import point_group
from jaxrelax.imaging import (
    fourier_volume,
    half_grid_shells,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.reconstruction import (
    Accumulator,
    Belief,
    HalfMaps,
    Isotypic,
    LocalPrior,
    Particle,
    Portion,
    ShellSums,
    apply_gain,
    band_gains,
    each_seen_by_the_other,
    match_halves,
    mean_weight,
    soft_sphere,
    symmetrise,
    unregularised_map,
)
from jaxrelax.reconstruction.band_gains import (
    LEAST_HELD,
    NARROWEST,
    WINDOW,
    bands_of,
    coarse_box,
    filtered_in_bands,
    local_ratio,
    more_gain,
    on_fine_grid,
    shrunk,
)
from jaxrelax.reconstruction.fsc import fsc
from jaxrelax.reconstruction.local_gains import stronger
from jaxrelax.reconstruction.local_prior import FLOORS, local_power, standing_out

from .blobs import blobs, sampled

N, LAST = 32, 14
MASK = soft_sphere(N, 0.38 * N, 2.0)
BANDS = bands_of(LAST, 1.1)


def noise(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def radius(n, last_axis):
    f = np.fft.fftfreq(n, 1 / n)
    x = last_axis(n, 1 / n)
    return np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + x[None, None, :] ** 2)


def test_bands_share_every_shell():
    for last, ratio in ((6, 1.1), (14, 1.5), (60, 1.2)):
        centres, shares, fine, between = bands_of(last, ratio)
        assert shares.shape == (len(centres), last + 1)
        for each in (shares, fine, between.T):
            np.testing.assert_allclose(each.sum(axis=0), 1.0, rtol=1e-12)
            assert each.min() >= 0.0
        assert centres[-1] == pytest.approx(last)
        assert np.all(centres[1:] / centres[:-1] < 1.7)


def reference_power(pair, mask, weight, sigma):
    """Mean signal and noise in the window around every voxel; plain float64 NumPy."""
    shells = np.rint(radius(N, np.fft.fftfreq)).astype(int)
    window = np.exp(-2.0 * (np.pi * sigma * radius(N, np.fft.fftfreq) / N) ** 2)
    transforms = [np.fft.fftn(np.asarray(one, np.float64)) for one in pair]
    power = sum(np.bincount(shells.ravel(), np.abs(t).ravel() ** 2) for t in transforms)
    amplitude = np.sqrt(power / np.bincount(shells.ravel()))[: LAST + 1]
    gain = np.zeros(shells.max() + 1)
    gain[: LAST + 1] = weight / amplitude
    one, other = (np.real(np.fft.ifftn(t * gain[shells])) for t in transforms)

    def around(values):
        return np.real(np.fft.ifftn(np.fft.fftn(values) * window))

    held = around(np.asarray(mask, np.float64))
    signal, rest = around(mask * one * other), around(mask * 0.5 * (one - other) ** 2)
    return signal / held, rest / held, held


def test_local_ratio_is_that_of_windowed_covariances(monkeypatch):
    """Nothing is taken for scatter; that is tested by itself."""
    monkeypatch.setattr(band_gains, "product_scatter", lambda *_: 0.0)
    rng = np.random.default_rng(0)
    signal = sampled(np.array([[6.0, 0.0, 0.0], [-4.0, -5.0, 1.0]]), np.array([1.0, 0.3]), N)
    where = 1.0 + 3.0 * soft_sphere(N, 0.2 * N, 3.0)
    level = 0.1 * signal.std()
    pair = [signal + level * where * noise(rng, N, N, N) for _ in range(2)]
    curve = fsc(pair[0], pair[1], MASK)[: LAST + 1]
    found = local_ratio(pair, curve, MASK, BANDS)
    assert coarse_box(N) == N // 2
    for ratio, centre, weight in zip(found, BANDS.centres, BANDS.shares, strict=True):
        sigma = max(WINDOW * N / centre, NARROWEST)
        *powers, held = reference_power(pair, MASK, weight, sigma)
        held, relative = held[::2, ::2, ::2], []
        for power in powers:
            local = np.clip(power[::2, ::2, ::2] * np.minimum(held / LEAST_HELD, 1.0), 0.0, None)
            relative.append(local / np.average(local, weights=np.maximum(held, 0.0)))
        expected = np.minimum(relative[0] / np.maximum(relative[1], 1 / 32), 32.0)
        inside = held > 0.2
        if np.average(powers[0][::2, ::2, ::2], weights=np.maximum(held, 0.0)) <= 0.0:
            expected = np.ones_like(expected)  # no signal in this band
        np.testing.assert_allclose(ratio[inside], expected[inside], atol=0.04 * expected.max())


def test_shrinking_against_james_and_stein():
    rng = np.random.default_rng(1)
    held = rng.uniform(0.2, 1.0, (8, 8, 8)).astype(np.float32)
    local = (2.0 + rng.standard_normal((8, 8, 8)) * 0.4).astype(np.float32)
    mean = np.average(local.astype(np.float64), weights=held)
    variance = np.average((local - mean) ** 2, weights=held)
    certain = 1 - 0.05 / variance
    expected = mean + certain * (local - mean)
    np.testing.assert_allclose(shrunk(local, held, 0.05), expected / mean, rtol=1e-4)
    np.testing.assert_array_equal(shrunk(local, held, 10.0), 1.0)
    assert shrunk(-local, held, 0.05) is None


@pytest.mark.parametrize("level", [0.3, 1.0, 3.0])
def test_signal_everywhere_alike_has_one_gain(level):
    """And noise alone has none that is large anywhere."""
    spread = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        signal = apply_gain(noise(rng, N, N, N), 1.0 / (1.0 + 0.2 * np.arange(LAST + 1)))
        pair = [signal + level * signal.std() * noise(rng, N, N, N) for _ in range(2)]
        curve = fsc(pair[0], pair[1], MASK)[: LAST + 1]
        found = local_ratio(pair, curve, MASK, BANDS)
        inside = MASK[::2, ::2, ::2] > 0.5
        spread.append(np.abs(np.log(np.maximum(found[:, inside], 1e-3))).mean(axis=1))
    assert np.mean(spread) < 0.2


def test_the_filter_is_a_wiener_filter_at_every_place():
    """Against gains of every shell and place by themselves, in float64."""
    rng = np.random.default_rng(2)
    map_ = noise(rng, N, N, N)
    gain = np.clip(1.1 - np.arange(LAST + 1) / 12.0, 0.0, 0.98)
    gain[0] = 0.9
    box = coarse_box(N)
    smooth = apply_gain(noise(rng, box, box, box), [1.0, 1.0, 0.5])
    ratio = np.stack([np.exp(2.0 * smooth / smooth.std() * (1 + 0 * c)) for c in BANDS.centres])
    ratio = np.clip(ratio, 0.05, 20.0).astype(np.float32)
    found = filtered_in_bands(map_, gain, more_gain(gain, ratio, BANDS), BANDS)
    fine = np.asarray(on_fine_grid(ratio[0], N), np.float64)
    shells = np.rint(radius(N, np.fft.fftfreq)).astype(int)
    transform = np.fft.fftn(map_.astype(np.float64))
    expected = np.zeros((N, N, N))
    for shell in range(LAST + 1):
        one = np.real(np.fft.ifftn(transform * (shells == shell)))
        expected += stronger(gain[shell], fine) * one
    assert np.std(found - expected) < 0.1 * np.std(expected)
    # Where nothing is known of places it is the filter of the shells.
    flat = filtered_in_bands(map_, gain, more_gain(gain, np.ones_like(ratio), BANDS), BANDS)
    np.testing.assert_allclose(flat, apply_gain(map_, gain), atol=1e-5)


def test_interpolation_keeps_centres():
    for n in (32, 36, 50):
        h = coarse_box(n)
        x = (np.arange(h) - h // 2) * (n / h)
        slope = np.broadcast_to(x[:, None, None] + 2 * x[:, None] - 3 * x, (h,) * 3)
        at = np.arange(n) - n // 2
        fine = on_fine_grid(slope.astype(np.float32), n)
        expected = at[:, None, None] + 2 * at[:, None] - 3 * at
        inner = slice(2, n - 4)
        np.testing.assert_allclose(
            fine[inner, inner, inner], expected[inner, inner, inner], atol=1e-3
        )
        found = jax.jit(lambda c, n=n: on_fine_grid(c, n))(slope.astype(np.float32))
        np.testing.assert_allclose(found, fine, atol=1e-4)


@pytest.mark.parametrize("window", [0.7, 2.0])
def test_local_power(window):
    """Against a window in float64."""
    map_ = blobs(N)
    kernel = np.exp(-2.0 * (np.pi * window * radius(N, np.fft.fftfreq) / N) ** 2)
    expected = np.real(np.fft.ifftn(np.fft.fftn(map_.astype(np.float64) ** 2) * kernel))
    found = local_power(map_, window)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())
    traced = jax.jit(local_power)(map_, np.float32(window))
    np.testing.assert_allclose(traced, found, atol=1e-5 * expected.max())


def test_what_stands_out():
    power = np.array([0.0, 0.5, 1.0, 2.0, 8.0], np.float32)
    np.testing.assert_allclose(standing_out(power, 1.0), [0.0, 0.0, 0.0, 0.5, 0.875])
    np.testing.assert_array_equal(standing_out(power, 0.0), 1.0)


# The prior itself: one copy of a domain on a body of fourfold symmetry.
TOP, BOX, LEVEL = 20, 64, 0.3
GROUP, PIXEL = point_group("C4"), 4.0
SMALL, RADIUS = working_box(TOP), volume_radius(TOP)


def particle_of(kept):
    return Particle(GROUP, point_group(kept), BOX, PIXEL, 0.8 * BOX * PIXEL)


def truth(kept):
    places = np.array([[4.0, 2.0, 0.0], [9.0, 3.0, 5.0]])
    body = symmetrise(8.0 * sampled(places, np.ones(2), BOX), GROUP)
    places = np.array([[18.0, 0.0, 0.0], [17.0, 4.0, 2.0], [18.0, 1.0, -4.0]])
    return body + sampled(places, np.ones(3), BOX) if kept == "C1" else body


def sums_of(map_, weight, level, rng):
    """Sums of images that see every frequency alike, with white noise of the map's pixels."""
    noisy = map_ + level * noise(rng, BOX, BOX, BOX)
    volume = fourier_volume(noisy[None], radius=RADIUS, image_box=BOX).values
    inside = (half_grid_shells(RADIUS).reshape(-1, 1) <= TOP).astype(np.float32)
    weights = np.full((len(volume), 1), weight, np.float32) * inside
    values = np.concatenate([np.asarray(volume) * weights, weights], axis=1)
    return ShellSums.of(Accumulator(values, RADIUS), TOP)


def learned(prior, particle, level, seed=0, belief=None, map_=None):
    rng = np.random.default_rng(seed)
    map_ = truth(particle.subgroup.name) if map_ is None else map_
    sums = [sums_of(map_, 100.0, level, rng) for _ in range(2)]
    sphere = particle.sphere(SMALL)
    raw = [unregularised_map(one, particle) for one in sums]
    parts = [particle.split(m * sphere) for m in raw]
    matched = match_halves(particle, parts, sphere, max_shell=TOP, score_shell=TOP - 2)
    halves = HalfMaps(raw, parts, matched, TOP, TOP - 2)
    state = prior.learn(halves, belief or Belief(), particle, np.random.default_rng(1)).state
    portions = [Portion(s, np.asarray(mean_weight(s.accumulator(), TOP + 1))) for s in sums]
    return state, portions, halves


def error(made, exact):
    """Share that is not the truth; how strong a part speaks is not the prior's."""
    return 1.0 - np.array(
        [np.corrcoef(a.ravel(), b.ravel())[0, 1] ** 2 for a, b in zip(made, exact, strict=True)]
    )


@pytest.fixture(scope="module")
def exact():
    particle = particle_of("C1")
    state, portions, _ = learned(Isotypic(), particle, 1e-4)
    return Isotypic().solve(state, portions[0], particle)


def test_local_gains_make_better_maps(exact):
    """Of the symmetric part and, more so, of what is in one place."""
    particle, ratios, joined = particle_of("C1"), [], []
    for seed in range(4):
        of = []
        for prior in (LocalPrior(), Isotypic()):
            state, portions, halves = learned(prior, particle, LEVEL, seed)
            others = each_seen_by_the_other(particle, halves.matched.index, halves.parts)
            alone = prior.solve(state, portions[0], particle)
            both = prior.join(state, portions[0], others[0], 1.0, particle)
            of.append((error(alone, exact), error(both, exact)))
        ratios.append(of[0][0] / of[1][0])
        joined.append(of[0][1] / of[1][1])
    assert np.mean(ratios, axis=0)[0] < 0.95
    assert np.mean(ratios, axis=0)[1] < 0.9
    assert np.mean(joined, axis=0)[0] < 0.95
    assert np.mean(joined, axis=0)[1] < 0.95


def test_the_focus_is_where_the_asymmetry_is():
    """In the map's own frame, which it is made in, and nothing of it is symmetric."""
    particle = particle_of("C1")
    state, portions, _ = learned(LocalPrior(), particle, LEVEL)
    assert float(state.floor) in np.float32(FLOORS)
    made = LocalPrior().solve(state, portions[0], particle).asymmetric
    same, _, _ = learned(Isotypic(), particle, LEVEL)
    uniform = Isotypic().solve(same, portions[0], particle).asymmetric
    mask = np.asarray(state.density) > 0.5
    arm = resample_map(truth("C1") - truth("C4"), SMALL)
    arm = symmetrise(arm, GROUP) > 0.02 * arm.max()
    here, elsewhere = arm & mask, ~arm & mask
    stands_out = [np.mean(m[here] ** 2) / np.mean(m[elsewhere] ** 2) for m in (made, uniform)]
    assert stands_out[0] > 2.0 * stands_out[1]
    assert np.abs(symmetrise(made, GROUP)).max() < 0.02 * np.abs(made).max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_a_group_keeps_is_not_broken(seed):
    """A cap on the axis of D3 leaves C3: components that it does not have get no gain."""
    group = point_group("D3")
    particle = Particle(group, point_group("C1"), BOX, PIXEL, 0.8 * BOX * PIXEL)
    body = symmetrise(8.0 * sampled(np.array([[9.0, 3.0, 5.0]]), np.ones(1), BOX), group)
    cap = sampled(np.array([[0.0, 0.0, 16.0], [0.0, 0.0, 12.0]]), np.ones(2), BOX)
    state, portions, _ = learned(LocalPrior(), particle, LEVEL, seed, map_=body + cap)
    made = LocalPrior().solve(state, portions[0], particle).asymmetric
    same, _, _ = learned(Isotypic(), particle, LEVEL, seed, map_=body + cap)
    uniform = Isotypic().solve(same, portions[0], particle).asymmetric
    broken = [np.sum((m - symmetrise(m, point_group("C3"))) ** 2) for m in (made, uniform)]
    assert broken[0] < 1.1 * broken[1]
    assert broken[0] < 0.1 * np.sum(made**2)


def test_noise_stays_noise():
    """The asymmetric part of a symmetric particle is as small as with gains alike everywhere."""
    particle, powers = particle_of("C1"), []
    for seed in range(6):
        of = []
        for prior in (LocalPrior(), Isotypic()):
            state, portions, _ = learned(prior, particle, LEVEL, seed, map_=truth("C4"))
            of.append(np.sum(prior.solve(state, portions[0], particle).asymmetric ** 2))
        powers.append(of)
    local, uniform = np.mean(powers, axis=0)
    assert local < uniform


@pytest.mark.parametrize("kept", ["C1", "C2", "C4"])
def test_the_prior_in_a_program(kept):
    particle, prior = particle_of(kept), LocalPrior()
    state, portions, _ = learned(prior, particle, LEVEL)
    expected = prior.solve(state, portions[0], particle)
    found = jax.jit(lambda s, p: prior.solve(s, p, particle))(*on_device((state, portions[0])))
    scale = np.abs(expected.symmetric).max()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 * scale)


def test_without_relaxation_nothing_is_asymmetric():
    particle = particle_of("C4")
    state, portions, halves = learned(LocalPrior(), particle, LEVEL)
    made = LocalPrior().solve(state, portions[0], particle)
    both = LocalPrior().join(state, portions[0], halves.parts[1], 1.0, particle)
    assert made.symmetric.any()
    assert not made.asymmetric.any()
    assert not both.asymmetric.any()


@pytest.mark.parametrize("belief", [Belief(full=True), Belief(by_component=False)])
def test_while_it_is_sought_asymmetry_may_be_anywhere(belief):
    particle = particle_of("C1")
    state, portions, _ = learned(LocalPrior(), particle, LEVEL, belief=belief)
    same, _, _ = learned(Isotypic(), particle, LEVEL, belief=belief)
    assert float(state.floor) == 0.0
    made = LocalPrior().solve(state, portions[0], particle).asymmetric
    expected = Isotypic().solve(same, portions[0], particle).asymmetric
    np.testing.assert_allclose(made, expected, atol=1e-6 * np.abs(expected).max())
