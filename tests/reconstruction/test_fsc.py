"""Shell correlations: of the same map, of noise, and corrected for what a mask adds."""

import numpy as np
import pytest

from jaxrelax.reconstruction import corrected_fsc, first_below, fsc, resolution_shell, soft_sphere
from jaxrelax.reconstruction.fsc import pooled, randomise_phases, rfft_shells, shell_counts

from .blobs import blobs

N = 24


def noise(seed, n=N):
    return np.random.default_rng(seed).standard_normal((n, n, n)).astype(np.float32)


def test_a_map_correlates_with_itself_and_its_negative():
    map_ = noise(0)
    np.testing.assert_allclose(fsc(map_, 3.0 * map_), 1.0, atol=1e-5)
    np.testing.assert_allclose(fsc(map_, -map_), -1.0, atol=1e-5)
    np.testing.assert_array_equal(fsc(map_, np.zeros_like(map_)), 0.0)


def test_independent_noise_scatters_by_one_over_root_of_the_coefficients():
    curves = np.array([fsc(noise(2 * i), noise(2 * i + 1)) for i in range(60)])[:, 2:]
    scaled = curves * np.sqrt(shell_counts(N)[2:])
    assert scaled.std() == pytest.approx(1.0, abs=0.06)
    assert abs(scaled.mean()) < 3 / np.sqrt(scaled.size)
    assert np.all(np.abs(scaled.std(axis=0) - 1.0) < 0.4)


def test_shell_counts_are_those_of_the_whole_sphere():
    f = np.fft.fftfreq(N, 1 / N)
    r = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + f**2)
    np.testing.assert_array_equal(
        shell_counts(N), np.bincount(np.rint(r).astype(int).ravel())[: N // 2 + 1]
    )


def test_signal_and_noise_of_one_strength_correlate_by_half():
    signal = noise(0)
    curves = np.mean(
        [fsc(signal + noise(2 * i + 1), signal + noise(2 * i + 2)) for i in range(20)], axis=0
    )
    np.testing.assert_allclose(curves[3:], 0.5, atol=0.06)


def test_randomised_phases_keep_amplitudes_and_the_shells_below():
    map_ = noise(3)
    random = randomise_phases(map_, 6, np.random.default_rng(0))
    before, after = np.fft.rfftn(map_).ravel(), np.fft.rfftn(random).ravel()
    inside = rfft_shells(N)[0] < 6
    np.testing.assert_allclose(after[inside], before[inside], atol=1e-3)
    # Nyquist planes aside, where real maps have no free phase.
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-2 * np.abs(before).max())
    assert abs(fsc(map_, random)[6:].mean()) < 0.05


def test_the_correction_removes_what_a_sharp_mask_adds():
    n = 48
    signal = 20.0 * blobs(n)
    mask = soft_sphere(n, 8.0, 0.5)
    curves = corrected_fsc(
        signal + noise(1, n), signal + noise(2, n), mask, np.random.default_rng(0)
    )
    assert set(curves) == {"unmasked", "masked", "random", "corrected"}
    start = first_below(curves["unmasked"], 0.8)
    assert 5 < start < 18
    np.testing.assert_array_equal(curves["corrected"][: start + 2], curves["masked"][: start + 2])
    beyond = slice(n // 2 - 5, n // 2)  # the signal is long gone
    assert np.abs(curves["unmasked"][beyond]).max() < 0.1
    assert curves["masked"][beyond].mean() > 0.2
    assert abs(curves["corrected"][beyond].mean()) < 0.5 * curves["masked"][beyond].mean()


def test_the_correction_keeps_true_signal():
    signal = noise(0, 48)
    curves = corrected_fsc(
        signal + 0.2 * noise(1, 48), signal + 0.2 * noise(2, 48), soft_sphere(48, 14.0, 6.0),
        np.random.default_rng(0),
    )  # fmt: skip
    np.testing.assert_allclose(curves["corrected"][3:22], 1 / 1.04, atol=0.03)


def test_resolution_is_the_last_shell_before_the_curve_falls():
    curve = np.array([0.0, 1.0, 0.9, 0.5, 0.1, 0.6])
    assert first_below(curve, 0.143) == 4
    assert resolution_shell(curve) == 3
    assert first_below(curve, 0.01) == len(curve)
    assert resolution_shell(np.zeros(5)) == 1


def test_one_low_shell_is_no_end():
    """Asymmetric FSC of real data: −0.59 at 240 Å, where hardly any coefficient is."""
    counts = 0.02 * shell_counts(64)
    curve = np.zeros(33)
    curve[1:13] = [-0.59, 0.31, 0.78, 0.86, 0.93, 0.9, 0.88, 0.8, 0.7, 0.5, 0.3, 0.2]
    assert resolution_shell(curve, 0.05) == 1
    assert resolution_shell(curve, 0.05, counts) == 12
    # Many coefficients speak for themselves, and noise is noise from the first shell on.
    assert resolution_shell(curve, 0.05, np.full(33, 500.0)) == 1
    rng = np.random.default_rng(1)
    scatter = 1.0 / np.sqrt(np.maximum(counts, 1.0))
    ends = [
        resolution_shell(np.clip(scatter * rng.standard_normal(33), -1, 1), 0.143, counts)
        for _ in range(400)
    ]
    assert np.mean(ends) < 3.0
    assert np.quantile(ends, 0.95) < 10


def test_shells_are_pooled_as_far_as_they_must():
    curve, counts = np.array([1.0, 0.0, 0.5, 0.2]), np.array([1.0, 1.0, 2.0, 10.0])
    np.testing.assert_allclose(pooled(curve, counts, 1.0), curve)
    np.testing.assert_allclose(pooled(curve, counts, 3.0), [0.5, 1 / 3, 3.0 / 12, 0.2])
    # Fewer are left than are asked for.
    np.testing.assert_allclose(pooled(curve, counts, 100.0)[-1], 0.2)
    assert pooled(curve, 0.0 * counts, 3.0).tolist() == [0.0] * 4
