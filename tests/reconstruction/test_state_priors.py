"""What states share and what they do not: contrasts, gains that vary in space, and the prior."""

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

from jaxrelax.arrays import on_device
from jaxrelax.geometry import point_group
from jaxrelax.imaging import fourier_volume, half_grid_shells, volume_radius, working_box
from jaxrelax.reconstruction import (
    Accumulator,
    Belief,
    HalfMaps,
    IsotypicParts,
    OwnGains,
    Particle,
    Portion,
    SharedAndOwn,
    ShellSums,
    apply_component_gains,
    apply_gain,
    each_seen_by_the_other,
    match_halves,
    mean_weight,
    own_filtered,
    soft_sphere,
    symmetrise,
    unregularised_map,
)
from jaxrelax.reconstruction.components import component_gained_maps
from jaxrelax.reconstruction.contrasts import combined, contrasts
from jaxrelax.reconstruction.fsc import cross_power, fsc, shell_counts, spectrum
from jaxrelax.reconstruction.isotypic import gained_maps
from jaxrelax.reconstruction.local_gains import (
    LEVELS,
    _shares,
    concentration,
    filtered_locally,
    product_scatter,
    signal_profile,
    stronger,
)

from .blobs import sampled

N, SHELLS = 32, 14
MASK = soft_sphere(N, 0.38 * N, 2.0)
COUNTS = shell_counts(N)[:SHELLS] * 0.2
SHARES = np.array([0.5, 0.3, 0.2], np.float32)


def noise(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def domain(n=N, x=6.0):
    """A domain off the centre."""
    return sampled(np.array([[x, 0.0, 0.0], [x, 2.5, 1.0]]), np.ones(2), n)


def without_shared(maps):
    shared = np.einsum("k,kzyx->zyx", SHARES, maps)
    return (maps - shared) * MASK


def states(rng, occupancy, level):
    """Half-maps of states with so many copies of a domain, the noise of rare ones greater."""
    spread = level / np.sqrt(SHARES)[:, None, None, None]
    signal = np.multiply.outer(np.asarray(occupancy, np.float32), domain())
    return [list(without_shared(signal + spread * noise(rng, 3, N, N, N))) for _ in range(2)]


def covariances(first, second):
    """Of signal and noise, shells weighted by what they know of the signal; plain NumPy."""
    spectra = [
        np.fft.fftn(np.asarray(half, np.float64), axes=(1, 2, 3)) for half in (first, second)
    ]
    f = np.fft.fftfreq(N, 1 / N)
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[None, None, :] ** 2)
    signals, noises = np.zeros((2, 3, 3))
    for shell in range(1, SHELLS):
        one, other = (each[:, np.rint(radius) == shell] for each in spectra)
        signal = np.real(one @ other.conj().T)
        signal = 0.5 * (signal + signal.T)
        difference = (one - other) / np.sqrt(2.0)
        noise = np.real(difference @ difference.conj().T)
        ratio = max(np.trace(signal), 0.0) / np.trace(noise)
        weight = one.shape[1] / (1.0 + ratio) ** 2 / np.trace(noise)
        signals, noises = signals + weight * signal, noises + weight * (ratio + 1e-6) * noise
    return signals, noises


@pytest.mark.parametrize("level", [0.02, 0.1, 0.3])
def test_contrasts_are_generalised_eigenvectors(level):
    first, second = states(np.random.default_rng(0), [0.25, 1.0, 0.0], level)
    found = contrasts(first, second, SHELLS)
    signal, noise = covariances(first, second)
    # In two of the three maps, since that of all populations is nothing.
    centre = np.eye(3) - np.outer(np.ones(3), SHARES)
    values, vectors = scipy.linalg.eigh(signal[:2, :2], noise[:2, :2])
    vectors = np.pad(vectors[:, ::-1].T, ((0, 0), (0, 1))) @ centre
    seen = found.of_maps @ centre
    for one, other in zip(seen, vectors, strict=True):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert abs(cosine) > 1 - 1e-5
    np.testing.assert_allclose(found.of_maps @ noise @ found.of_maps.T, np.eye(2), atol=1e-4)
    after = found.of_maps @ signal @ found.of_maps.T
    np.testing.assert_allclose(after, np.diag(values[::-1]), atol=1e-4 * values[-1])


def test_contrasts_find_what_states_differ_in():
    """With covariances that were put in, as far as so few coefficients tell them."""
    occupancy = np.array([0.25, 1.0, 0.0])
    centre = np.eye(3) - np.outer(np.ones(3), SHARES)
    put_in = np.linalg.pinv(centre @ np.diag(1 / SHARES) @ centre.T) @ centre @ occupancy @ centre
    cosines = []
    for seed in range(6):
        first, second = states(np.random.default_rng(seed), occupancy, 0.1)
        found = contrasts(first, second, SHELLS)
        seen = found.of_maps[0] @ centre
        cosines.append(abs(seen @ put_in) / np.linalg.norm(seen) / np.linalg.norm(put_in))
    assert np.median(cosines) > 0.98


def test_contrasts_take_maps_apart_and_put_them_together():
    rng = np.random.default_rng(1)
    first, second = states(rng, [0.25, 1.0, 0.0], 0.3)
    found = contrasts(first, second, SHELLS)
    np.testing.assert_allclose(found.of_maps @ found.to_maps, np.eye(2), atol=1e-6)
    back = combined(found.to_maps, combined(found.of_maps, first))
    np.testing.assert_allclose(back, first, atol=2e-4 * np.max(np.abs(first)))
    np.testing.assert_allclose(SHARES @ found.to_maps, 0.0, atol=1e-4 * np.abs(found.to_maps).max())


def test_a_rare_state_is_shown_by_what_others_have_in_common_with_it():
    """Filtered contrast by contrast and where the signal is, not by what its own half-maps say."""
    first, second = states(np.random.default_rng(4), [0.25, 1.0, 0.0], 0.12)
    truth = without_shared(np.multiply.outer(np.array([0.25, 1.0, 0.0], np.float32), domain()))
    mean = [0.5 * (a + b) for a, b in zip(first, second, strict=True)]
    found = contrasts(first, second, SHELLS)
    pairs = list(zip(combined(found.of_maps, first), combined(found.of_maps, second), strict=True))
    curves = [np.clip(fsc(*pair)[:SHELLS], 0.0, 0.99) for pair in pairs]
    profiles = [signal_profile(*each, MASK, COUNTS) for each in zip(pairs, curves, strict=True)]
    empty, ones = np.zeros((3, SHELLS)), np.ones_like(MASK)
    state = OwnGains(
        empty[0], found, np.array(curves), empty, (None,) * 3, empty, SHARES, ones,
        MASK, tuple(profiles), (None,) * 3,
    )  # fmt: skip
    gains = [2.0 * f / (1.0 + f) for f in curves]
    parts = [IsotypicParts(one, 0.0 * one) for one in mean]
    shown = own_filtered(parts, 0.0 * MASK, state.on_box(N), gains)
    for number in range(3):
        own = np.clip(fsc(first[number], second[number])[:SHELLS], 0.0, 0.99)
        alone = apply_gain(mean[number], 2.0 * own / (1.0 + own)) * MASK
        errors = [np.linalg.norm(map_ - truth[number]) for map_ in (shown[number], alone)]
        assert errors[0] < 0.8 * errors[1]


def test_states_that_differ_in_one_way_have_one_contrast_with_signal():
    first, second = states(np.random.default_rng(2), [0.25, 1.0, 0.0], 0.15)
    found = contrasts(first, second, SHELLS)
    one, other = (
        np.mean(fsc(*pair)[2:SHELLS])
        for pair in zip(
            combined(found.of_maps, first), combined(found.of_maps, second), strict=True
        )
    )
    of_maps = [np.mean(fsc(*pair)[2:SHELLS]) for pair in zip(first, second, strict=True)]
    assert one > max(of_maps) - 0.01
    assert abs(other) < 0.1 < min(of_maps)


def test_a_state_alone_has_no_contrast():
    found = contrasts([MASK], [MASK], SHELLS)
    assert found.of_maps.shape == (0, 1)
    (nothing,) = combined(found.to_maps, [], like=MASK)
    np.testing.assert_array_equal(nothing, 0.0 * MASK)


def test_scatter_of_a_windowed_product():
    """Against many pairs of stationary maps with these spectra."""
    rng, n, sigma = np.random.default_rng(3), 24, 2.5
    curve = np.clip(1.1 - np.arange(11) / 8.0, 0.0, 1.0)
    curve[0] = 0.0
    found = []
    for _ in range(150):
        common, first, second = noise(rng, 3, n, n, n)
        # Of spectrum c, with covariance c²: a share c of each is common.
        pair = [
            apply_gain(common, curve) + apply_gain(m, np.sqrt(curve * (1 - curve)))
            for m in (first, second)
        ]
        product = pair[0] * pair[1]
        found.append(scipy.ndimage.gaussian_filter(product, sigma, mode="wrap", truncate=6))
    # Noise of variance 1 has spectrum n³.
    expected = product_scatter(curve, curve**2, n, sigma) * n**6
    assert np.var(found) == pytest.approx(expected, rel=0.1)


def profile_of(signal, level, seed, **more):
    rng = np.random.default_rng(seed)
    first, second = ((signal + level * noise(rng, N, N, N)) * MASK for _ in range(2))
    pair = first, second
    curve = fsc(*pair)[:SHELLS]
    return signal_profile(pair, curve, MASK, COUNTS, **more), curve


def test_a_profile_shows_where_the_signal_is():
    signal = domain()
    profile, curve = profile_of(signal, 0.2 * signal.std(), 4)
    assert curve[1:6].min() > 0.5
    # The mean over the noise, which is alike everywhere, stays the same.
    assert np.average(profile, weights=MASK**2) == pytest.approx(1.0, rel=1e-2)
    here = signal > 0.5 * signal.max()
    far = (MASK > 0.9) & (signal < 1e-3 * signal.max())
    assert profile[here].mean() > 20 * profile[far].mean()
    assert concentration(profile, MASK) > 3.0


@pytest.mark.parametrize("level", [0.3, 1.0, 3.0])
def test_a_profile_of_signal_everywhere_is_flat(level):
    ratios = []
    for seed in range(6):
        signal = apply_gain(noise(np.random.default_rng(100 + seed), N, N, N), 5.0 / (1 + COUNTS))
        profile, _ = profile_of(signal, level * signal.std(), seed)
        ratios.append(concentration(profile, MASK))
    assert np.mean(ratios) < 1.3


def test_noise_gets_no_gain():
    """Neither by contrasts nor in places that were chosen because half-maps agree there."""
    powers = []
    for seed in range(8):
        first, second = states(np.random.default_rng(seed), [0.0, 0.0, 0.0], 1.0)
        found = contrasts(first, second, SHELLS)
        pairs = zip(combined(found.of_maps, first), combined(found.of_maps, second), strict=True)
        for pair in pairs:
            curve = np.clip(fsc(*pair)[:SHELLS], 0.0, 0.999)
            profile = signal_profile(pair, curve, MASK, COUNTS)
            kept = filtered_locally(pair[0], curve, profile) * MASK
            powers.append(np.sum(kept**2) / np.sum(pair[0] ** 2))
    assert np.mean(powers) < 0.01
    assert np.max(powers) < 0.05


def test_copies_in_all_registers_share_a_profile():
    """The product is averaged over the group, so that the frame of the half-maps does not count."""
    group, signal = point_group("C4"), domain()
    average = {"average": lambda m: symmetrise(m, group), "averaged": 3.0}
    profile, _ = profile_of(signal, 0.2 * signal.std(), 4, **average)
    turned = symmetrise(profile, group)
    np.testing.assert_allclose(MASK * profile, MASK * turned, atol=1e-2 * profile.max())
    assert profile[N // 2, N // 2, N // 2 - 6] > 2.0


def test_gains_between_levels():
    """Against the gain itself, over all powers and ratios of signal to noise."""
    powers = np.geomspace(1e-3, LEVELS[-1], 300).astype(np.float32)
    shares = np.array(_shares(np, powers))
    below = powers < LEVELS[0]
    np.testing.assert_allclose(shares.sum(axis=0)[~below], 1.0, rtol=1e-5)
    for ratio in np.geomspace(1e-3, 1e3, 60):
        found = np.array([p * ratio / (1 + p * ratio) for p in LEVELS]) @ shares
        expected = powers * ratio / (1 + powers * ratio)
        assert np.abs(found - expected)[~below].max() < 0.03
        assert np.all((found <= expected + 1e-6)[below])
        assert np.all(np.diff(found) >= 0)


def test_one_power_everywhere_is_one_gain():
    rng = np.random.default_rng(5)
    map_, gain = noise(rng, N, N, N), rng.uniform(0.0, 0.95, SHELLS)
    for level in (1.0, 4.0, 16.0):
        found = filtered_locally(map_, gain, np.full((N, N, N), level, np.float32))
        np.testing.assert_allclose(found, apply_gain(map_, stronger(gain, level)), atol=1e-5)
    assert not filtered_locally(map_, gain, np.zeros((N, N, N), np.float32)).any()


@pytest.mark.parametrize("name", [None, "C4", "D3"])
def test_local_gains_in_a_program(name):
    rng = np.random.default_rng(6)
    map_, profile = noise(rng, N, N, N), np.exp(noise(rng, N, N, N))
    gain, apply = rng.uniform(0.0, 0.95, SHELLS), gained_maps
    if name is not None:
        group = point_group(name)
        rows = {"C4": 2, "D3": 2}[name]
        gain = rng.uniform(0.0, 0.95, (rows, SHELLS))
        map_ = soft_sphere(N, 0.4 * N, 2.0) * map_
        apply = lambda m, g: component_gained_maps(m, g, group)  # noqa: E731
    expected = filtered_locally(map_, gain, profile, apply)
    found = jax.jit(lambda m, g, p: filtered_locally(m, g, p, apply))(map_, gain, profile)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(map_).max())


# The prior itself: one copy of a domain, four, and none, on a body of fourfold symmetry.
LAST, BOX = 10, 32
GROUP, PIXEL = point_group("C4"), 4.0
SMALL, RADIUS = working_box(LAST), volume_radius(LAST)
PARTICLES = [
    Particle(GROUP, point_group(kept), BOX, PIXEL, 0.8 * BOX * PIXEL) for kept in ("C1", "C4", "C4")
]


def truth():
    body = symmetrise(8.0 * sampled(np.array([[2.0, 1.0, 0.0]]), np.ones(1), BOX), GROUP)
    whole = domain(BOX, 8.0)
    four = GROUP.order * symmetrise(whole, GROUP)
    return [body + whole, body + four, body]


def sums_of(map_, weight, level, rng):
    """Sums of images that see every frequency alike, with white noise of the map's pixels."""
    noisy = map_ + level * noise(rng, BOX, BOX, BOX)
    volume = fourier_volume(noisy[None], radius=RADIUS, image_box=BOX).values
    inside = (half_grid_shells(RADIUS).reshape(-1, 1) <= LAST).astype(np.float32)
    weights = np.full((len(volume), 1), weight, np.float32) * inside
    values = np.concatenate([np.asarray(volume) * weights, weights], axis=1)
    return ShellSums.of(Accumulator(values, RADIUS), LAST)


def learned(maps, level, prior=None, seed=0, shares=SHARES):
    rng = np.random.default_rng(seed)
    sums = [
        [sums_of(m, 100.0 * s, level / np.sqrt(s), rng) for m, s in zip(maps, shares, strict=True)]
        for _ in range(2)
    ]
    halves = []
    sphere = PARTICLES[0].sphere(SMALL)
    for number, particle in enumerate(PARTICLES):
        raw = [unregularised_map(half[number], particle) for half in sums]
        parts = [particle.split(m * sphere) for m in raw]
        matched = match_halves(particle, parts, sphere, max_shell=LAST, score_shell=LAST - 2)
        halves.append(HalfMaps(raw, parts, matched, LAST, LAST - 2))
    prior = SharedAndOwn() if prior is None else prior
    state = prior.learn(halves, shares, Belief(), PARTICLES, np.random.default_rng(1)).state
    portions = [
        [Portion(s, np.asarray(mean_weight(s.accumulator(), LAST + 1))) for s in half]
        for half in sums
    ]
    return prior, state, portions, halves


def differences(parts):
    """What tells states apart."""
    maps = [p.symmetric + p.asymmetric for p in parts]
    return np.stack([maps[0] - maps[2], maps[1] - maps[2]])


def error(parts, exact):
    return float(np.sum((differences(parts) - exact) ** 2))


@pytest.fixture(scope="module")
def exact():
    """Differences without noise, as far as maps reach; the second half-set sees the same ones."""
    prior, state, portions, _ = learned(truth(), 1e-4)
    return differences(prior.solve(state, portions[0], PARTICLES))


LEVEL = 0.25


def test_differences_come_out_better_than_from_one_gain_per_state(exact):
    """By Wiener gains of every E_k by itself over the whole mask, which this prior replaced."""
    ratios = []
    for seed in range(4):
        prior, state, portions, _ = learned(truth(), LEVEL, seed=seed)
        made = prior.solve(state, portions[0], PARTICLES)
        raw = [
            p.split(unregularised_map(one.sums, p) * p.sphere(SMALL))
            for p, one in zip(PARTICLES, portions[0], strict=True)
        ]
        shared = np.einsum("k,kzyx->zyx", SHARES, np.stack([r.symmetric for r in raw]))
        own = [
            apply_gain(r.symmetric - shared, np.clip(c, 0, 0.999)) * state.differing
            for r, c in zip(raw, state.fsc_own, strict=True)
        ]
        rest = apply_component_gains(raw[0].asymmetric, state.asymmetric[0], GROUP)
        simple = [
            IsotypicParts(o, state.differing * rest if k == 0 else 0.0 * o)
            for k, o in enumerate(own)
        ]
        ratios.append(error(made, exact) / error(simple, exact))
    assert np.mean(ratios) < 0.8


def test_joined_differences_come_out_better_than_alone(exact):
    ratios = []
    for seed in range(4):
        prior, state, portions, halves = learned(truth(), LEVEL, seed=seed)
        others = [
            each_seen_by_the_other(particle, one.matched.index, one.parts)[0]
            for particle, one in zip(PARTICLES, halves, strict=True)
        ]
        joined = prior.join(state, portions[0], others, 1.0, PARTICLES)
        ratios.append(
            error(joined, exact) / error(prior.solve(state, portions[0], PARTICLES), exact)
        )
    # What is left to gain is less since the maps of a half-set are not damped twice.
    assert np.mean(ratios) < 0.9


def test_states_of_one_structure_are_one_map():
    body = [truth()[2]] * 3
    prior, state, portions, _ = learned(body, LEVEL)
    made = prior.solve(state, portions[0], PARTICLES)
    raw = [unregularised_map(one.sums, p) for p, one in zip(PARTICLES, portions[0], strict=True)]
    kept = np.sum(differences(made) ** 2)
    assert kept < 0.01 * sum(np.sum((m * state.differing - raw[2]) ** 2) for m in raw[:2])
    np.testing.assert_allclose(SHARES @ state.contrasts.to_maps, 0.0, atol=1e-3)


def test_the_prior_in_a_program():
    prior, state, portions, _ = learned(truth(), LEVEL)
    expected = prior.solve(state, portions[0], PARTICLES)
    found = jax.jit(lambda s, p: prior.solve(s, p, PARTICLES))(*on_device((state, portions[0])))
    scale = np.abs(expected[1].symmetric).max()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * scale)


def test_one_state_has_only_what_is_shared():
    """As the prior of one map, where a classification comes to one state."""
    rng = np.random.default_rng(0)
    particle = PARTICLES[1]
    sums = [sums_of(truth()[2], 100.0, 0.3, rng) for _ in range(2)]
    raw = [unregularised_map(one, particle) for one in sums]
    parts = [particle.split(m * particle.sphere(SMALL)) for m in raw]
    matched = match_halves(
        particle, parts, particle.sphere(SMALL), max_shell=LAST, score_shell=LAST - 2
    )
    halves = [HalfMaps(raw, parts, matched, LAST, LAST - 2)]
    prior = SharedAndOwn()
    state = prior.learn(halves, np.ones(1), Belief(), [particle], rng).state
    portion = Portion(sums[0], np.asarray(mean_weight(sums[0].accumulator(), LAST + 1)))
    (made,) = prior.solve(state, [portion], [particle])
    (joined,) = prior.join(state, [portion], [parts[1]], 1.0, [particle])
    faded = SharedAndOwn(unfaded=False).solve(state, [portion], [particle])[0]
    kept = cross_power(spectrum(made.symmetric), spectrum(made.symmetric), SMALL)[1 : LAST - 2]
    power = cross_power(spectrum(faded.symmetric), spectrum(faded.symmetric), SMALL)[1 : LAST - 2]
    assert np.all(power <= 1.001 * kept)
    assert power.sum() < kept.sum()
    assert np.all(power > kept / 4.1)  # by half at the most
    for one in (made, joined):
        assert np.corrcoef(one.symmetric.ravel(), (raw[0] * state.density).ravel())[0, 1] > 0.9
        assert not one.asymmetric.any()
