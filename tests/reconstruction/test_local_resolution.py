"""Local resolution against direct sums, and against phantoms whose resolution is known."""

import numpy as np
import pytest

from jaxrelax.reconstruction import local_resolution, soft_sphere
from jaxrelax.reconstruction.fsc import cross_power, shell_counts, spectrum
from jaxrelax.reconstruction.local_resolution import (
    BAND_END,
    BAND_STEP,
    BAND_WIDTH,
    WINDOW,
    band_gain,
    bands,
)

N, PIXEL = 64, 1.5
RADIUS = 20.0


def radii(n):
    f = np.fft.fftfreq(n, 1 / n)
    return np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[None, None, :] ** 2)


def filtered(map_, gain):
    return np.fft.ifftn(np.fft.fftn(map_, axes=(0, 1, 2)) * gain, axes=(0, 1, 2)).real


def gaussian(decay_angstrom, n=N):
    """Transfer function of a Gaussian of this standard deviation in real space."""
    return np.exp(-2.0 * (np.pi * decay_angstrom * radii(n) / (n * PIXEL)) ** 2)


def atoms(rng, n=N, radius=RADIUS):
    """White density in a ball."""
    x = np.arange(n) - n // 2
    r = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2)
    return np.where(r < radius, rng.poisson(0.05, (n, n, n)) - 0.05, 0.0)


def halves(rng, density, level):
    return [
        (density + level * rng.standard_normal(density.shape)).astype(np.float32) for _ in (0, 1)
    ]


def of_pair(pair, mask):
    first, second = pair
    return local_resolution(first, second, mask, PIXEL)


def expected(density, level, n=N, radius=RADIUS):
    """Where signal and noise inside the ball are equally strong: FSC 1/2."""
    transform = spectrum(density.astype(np.float32))
    signal = cross_power(transform, transform, n) / shell_counts(n)
    noise = n**3 * level**2 * np.mean(soft_sphere(n, radius, 1.0) ** 2)
    curve = signal / (signal + noise)
    shell = int(np.flatnonzero(curve[1:] < 0.5)[0]) + 1
    part = (curve[shell - 1] - 0.5) / (curve[shell - 1] - curve[shell])
    return n * PIXEL / (shell - 1 + part)


def reference(first, second, mask, threshold=0.5):
    """The same by full transforms in double precision, without any smaller box."""
    n, r = len(mask), radii(len(mask))
    shell = np.rint(r).astype(int)
    power = np.zeros(mask.shape)
    for one in (first, second):
        power += np.abs(np.fft.fftn(one.astype(np.float64) * mask)) ** 2
    # The mean of every shell, over voxels of the box, is what whitening divides by.
    mean = np.bincount(shell.ravel(), power.ravel()) / np.bincount(shell.ravel())
    white = np.where(r <= n // 2, 1.0 / np.sqrt(mean)[shell], 0.0)
    x = np.arange(n)
    x = np.minimum(x, n - x)
    away = x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2
    found = np.full(mask.shape, 0.5 * n)
    resolved, before, last = np.ones(mask.shape, bool), np.ones(mask.shape), 0.0
    for centre in bands(mask):
        gain = np.exp(-0.5 * (np.log(np.maximum(r, 1e-6) / centre) / BAND_WIDTH) ** 2) * white
        gain[r > BAND_END * centre] = 0.0
        a, b = (filtered(one.astype(np.float64), gain) for one in (first, second))
        window = np.fft.fftn(np.exp(-0.5 * away / (WINDOW * n / centre) ** 2))
        sums = [
            np.fft.ifftn(np.fft.fftn(mask * one) * window).real for one in (a * b, a * a, b * b)
        ]
        now = sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-300))
        falls = resolved & (now < threshold)
        last = last or centre
        part = np.clip((before - threshold) / np.where(falls, before - now, 1.0), 0.0, 1.0)
        found = np.where(falls, last * (centre / last) ** part, found)
        resolved &= ~falls
        before, last = now, centre
    return np.where(mask > 0.5, n * PIXEL / found, 0.0)


@pytest.fixture(scope="module")
def mask():
    return soft_sphere(N, RADIUS, 4.0)


def test_against_sums_over_the_whole_box_in_double_precision(mask):
    rng = np.random.default_rng(0)
    sharp, dull = (filtered(atoms(rng), gaussian(d)) for d in (1.2, 2.4))
    left = np.arange(N) < N // 2
    first, second = halves(rng, np.where(left, sharp, dull), 0.4 * sharp.std())
    found = local_resolution(first, second, mask, PIXEL)
    right = reference(first, second, mask)
    inside = mask > 0.5
    assert np.all((found > 0) == inside)
    error = np.abs(found[inside] / right[inside] - 1.0)
    # On every second voxel nothing is interpolated; what differs is the sampling of products.
    every = inside[::2, ::2, ::2]
    at_samples = np.abs(found[::2, ::2, ::2][every] / right[::2, ::2, ::2][every] - 1.0)
    assert np.median(at_samples) < 0.002
    assert np.percentile(at_samples, 99) < 0.03
    # Between two samples it may jump by some, where a band decides.
    assert np.median(error) < 0.01
    assert np.percentile(error, 99) < 0.1


def test_even_where_the_map_is_even(mask):
    rng = np.random.default_rng(1)
    density = filtered(atoms(rng), gaussian(1.6))
    level = 0.5 * density.std()
    found = of_pair(halves(rng, density, level), mask)
    core = soft_sphere(N, RADIUS - 2.0, 0.0) > 0.5
    truth = expected(density, level)
    assert truth > 2.2 * PIXEL  # else Nyquist is what is found
    low, median, high = np.percentile(found[core], [5, 50, 95])
    assert 0.97 < median / truth < 1.1
    assert low > 0.85 * median
    assert high < 1.15 * median


@pytest.mark.parametrize("how", ["blurred", "noisier"])
def test_a_half_that_is_worse_comes_out_as_much_worse(mask, how):
    rng = np.random.default_rng(2)
    base = atoms(rng)
    good = filtered(base, gaussian(1.6))
    level = 0.4 * good.std()
    worse = filtered(base, gaussian(2.4)) if how == "blurred" else good
    worse_level = level if how == "blurred" else 5.0 * level
    left = np.arange(N) < N // 2
    density, noise = np.where(left, good, worse), np.where(left, level, worse_level)
    found = of_pair(halves(rng, density, noise), mask)
    core = soft_sphere(N, RADIUS - 2.0, 0.0) > 0.5
    # Windows at the border hold both.
    x = np.broadcast_to(np.arange(N) - N // 2, core.shape)
    medians = [np.median(found[core & side]) for side in (x < -7, x > 7)]
    truth = [expected(good, level), expected(worse, worse_level)]
    assert truth[1] > 1.25 * truth[0]
    np.testing.assert_allclose(medians, truth, rtol=0.1)


def test_noise_alone_is_nowhere_resolved(mask):
    rng = np.random.default_rng(3)
    found = of_pair(halves(rng, np.zeros((N, N, N)), 1.0), mask)
    coarsest = N * PIXEL / bands(mask)[0]
    assert np.median(found[mask > 0.5]) > 0.8 * coarsest
    assert found.max() <= coarsest * 1.001


def test_alike_halves_are_resolved_to_two_pixels(mask):
    density = atoms(np.random.default_rng(4)).astype(np.float32)
    found = local_resolution(density, density, mask, PIXEL)
    np.testing.assert_allclose(found[mask > 0.5], 2 * PIXEL, rtol=1e-4)


def test_an_odd_box_has_its_centre_where_an_even_one_has():
    rng = np.random.default_rng(5)
    density = filtered(atoms(rng), gaussian(1.6))
    pair = halves(rng, density, 0.5 * density.std())
    small = soft_sphere(N, 14.0, 3.0)
    even = of_pair(pair, small)
    cut = slice(1, None)
    odd = of_pair([one[cut, cut, cut] for one in pair], small[cut, cut, cut])
    assert odd.shape == (N - 1,) * 3
    inside = small[cut, cut, cut] > 0.5
    assert np.all((odd > 0) == inside)
    ratio = odd[inside] / even[cut, cut, cut][inside]
    assert np.percentile(np.abs(ratio - 1), 90) < 0.02


def test_bands_are_close_enough_and_end_at_nyquist(mask):
    centres = bands(mask)
    assert centres[-1] == pytest.approx(N / 2)
    assert np.all(centres[1:] / centres[:-1] <= BAND_STEP + 1e-9)
    assert band_gain(np.array(centres[0]), centres[0]) == 1.0


def test_an_empty_mask_and_what_cannot_be():
    nothing = np.zeros((16, 16, 16), np.float32)
    assert not local_resolution(nothing, nothing, nothing, PIXEL).any()
    # Empty half-maps agree on nothing.
    whole = local_resolution(nothing, nothing, nothing + 1, PIXEL)
    assert np.all(whole >= 8 * PIXEL)
    with pytest.raises(ValueError, match="between 0 and 1"):
        local_resolution(nothing, nothing, nothing, PIXEL, threshold=1.5)
    with pytest.raises(ValueError, match="cubes of one size"):
        local_resolution(nothing, nothing[1:], nothing, PIXEL)
