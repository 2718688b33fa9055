"""Scores at own and foreign orientations against NumPy, and p-values under exchangeability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrelax.geometry import random_rotations
from jaxrelax.imaging import extract_parts, fourier_volume, volume_radius, working_box
from jaxrelax.inference import (
    ForeignSlices,
    PermutationTest,
    combined_log10_p,
    derangements,
    orientation_scores,
    permutation_test,
)

from .conftest import BOX, PARTNER, SHELL, blobs, geometry_of_images, two_registers
from .test_likelihood import full_plane_values, full_slice, full_transform, whole_plane


def volume(maps):
    return fourier_volume(jnp.asarray(maps), radius=volume_radius(SHELL), image_box=BOX)


def added_maps(strength=PARTNER):
    """Three parts to be tested."""
    n = working_box(SHELL)
    return np.stack([strength * blobs(n, seed) for seed in (5, 6, 7)])


@jax.jit
def scores(base, added, batch, poses, others):
    geometry = geometry_of_images()
    return orientation_scores(
        base, added, batch, geometry, poses.rotations, poses.origins_px, others
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_float64_sums_over_the_whole_plane(problem, channels):
    n = len(problem.true_register)
    bases = np.stack([two_registers()[0] + m for m in added_maps(0.01)[::-1]])[:channels]
    others = random_rotations(2 * n, np.random.default_rng(3)).reshape(n, 2, 3, 3)
    others = others.astype(np.float32)
    batch, poses, packing = problem.batch, problem.poses, problem.geometry.packing
    found = scores(volume(bases), volume(added_maps()), batch, poses, jnp.asarray(others))
    k = whole_plane()
    base = [full_transform(m) for m in bases]
    added = [full_transform(m) for m in added_maps()]
    for row in range(n):
        shift = np.asarray(poses.origins_px[row], float)
        image = full_plane_values(np.asarray(batch.data[row], complex), packing, k)
        image = image * np.exp(-2j * np.pi * (k @ shift) / BOX)
        contrast = full_plane_values(np.asarray(batch.ctf[row], float), packing, k)
        own = np.asarray(poses.rotations[row], float)
        residual = [image - contrast * full_slice(s, own, k) for s in base]
        residual = residual if channels == 3 else residual * 3

        def power(values):
            return np.sum(np.abs(values) ** 2) / problem.noise_power

        before = np.array([-0.5 * power(r) for r in residual])
        expected = []
        for rotation in (own, *others[row].astype(float)):
            slices = [contrast * full_slice(s, rotation, k) for s in added]
            after = [-0.5 * power(r - s) for r, s in zip(residual, slices, strict=True)]
            expected.append(np.logaddexp.reduce(after) - np.logaddexp.reduce(before))
            if rotation is own:
                np.testing.assert_allclose(found.log_evidence[row], after, rtol=1e-4)
                information = np.mean([power(s) for s in slices])
                assert found.information[row] == pytest.approx(information, rel=1e-4)
        got = [found.own[row], *found.foreign[row]]
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


def test_a_faint_part_is_not_lost_in_rounding(problem):
    """The gain is of second order in the part: a hundredth of it has a ten-thousandth."""
    base, part = two_registers()[:1], added_maps()
    # Registers that add up to nothing, so that the first order is zero.
    part = part - part.mean(axis=0)
    others = problem.poses.rotations[:, None]
    strong, faint = (
        scores(volume(base), volume(f * part), problem.batch, problem.poses, others)
        for f in (0.03, 0.0003)
    )
    np.testing.assert_allclose(1e4 * faint.own, strong.own, rtol=0.1, atol=3e-6)
    # The own orientation as a foreign one.
    np.testing.assert_allclose(strong.foreign[:, 0], strong.own, rtol=1e-5, atol=1e-7)


def test_slices_made_once_score_as_those_made_for_each_image(problem):
    rng = np.random.default_rng(4)
    n, seen = len(problem.true_register), random_rotations(5, rng).astype(np.float32)
    index = rng.integers(len(seen), size=(n, 3)).astype(np.int32)
    added = volume(added_maps())
    base, batch, poses = volume(two_registers()[:1]), problem.batch, problem.poses
    parts = extract_parts(added, seen, problem.geometry.slice_wavevectors)
    anew = scores(base, added, batch, poses, jnp.asarray(seen[index]))
    once = scores(base, added, batch, poses, ForeignSlices(parts, index))
    np.testing.assert_allclose(once.foreign, anew.foreign, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(once.own, anew.own, rtol=1e-5, atol=1e-5)


def test_channels_must_agree(problem):
    with pytest.raises(ValueError, match="2 channels cannot carry 3"):
        scores(
            volume(two_registers()), volume(added_maps()), problem.batch, problem.poses,
            problem.poses.rotations[:, None],
        )  # fmt: skip


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 2**32))
def test_derangements(n, count, seed):
    found = derangements(n, count, np.random.default_rng(seed))
    assert found.shape == (n, max(min(count, n - 1), 0))
    for column in found.T:
        assert sorted(column) == list(range(n))
        assert np.all(column != np.arange(n))
    for row in found:
        assert len(set(row)) == len(row)


def swapped(rng, images=60, others=24, effect=0.0):
    """Scores of pairs (image, orientation) of which the diagonal is the images' own."""
    scale = rng.uniform(0.2, 3.0, images)
    table = np.exp(rng.standard_normal((images, images))) * scale[:, None] + rng.normal(size=images)
    table[np.diag_indices(images)] += effect * scale
    foreign = np.take_along_axis(table, derangements(images, others, rng), axis=1)
    return np.diag(table), foreign


def test_p_values_of_exchangeable_scores_are_uniform():
    rng = np.random.default_rng(0)
    found = [permutation_test(*swapped(rng), rng, draws=999) for _ in range(400)]
    assert scipy.stats.kstest([t.p for t in found], "uniform").pvalue > 0.01
    z = np.array([t.excess / t.deviation for t in found])
    assert abs(z.mean()) < 0.15
    assert 0.85 < z.std() < 1.15


def test_a_real_effect_has_a_finite_logarithm():
    rng = np.random.default_rng(1)
    faint = permutation_test(*swapped(rng, effect=2.0), rng)
    strong = permutation_test(*swapped(rng, effect=300.0), rng)
    assert faint.p < 0.01
    assert faint.log10_p == pytest.approx(np.log10(faint.p))
    assert strong.p == 0.0
    assert np.isfinite(strong.log10_p)
    assert strong.log10_p < -300


def test_nothing_to_tell_apart_is_no_evidence():
    rng = np.random.default_rng(2)
    assert permutation_test(np.zeros(5), np.zeros((5, 4)), rng).p == 1.0
    with pytest.raises(ValueError, match="at least 2"):
        permutation_test(np.zeros(5), np.zeros((5, 1)), rng)


def combined(*logs):
    return combined_log10_p([PermutationTest(0.0, 1.0, log) for log in logs])


def test_combined_p_values():
    rng = np.random.default_rng(3)
    p = rng.random((2000, 2))
    together = [10.0 ** combined(*row) for row in np.log10(p)]
    assert scipy.stats.kstest(together, "uniform").pvalue > 0.01
    assert combined(-2.0, -2.0) == pytest.approx(-2.0)
    assert combined(-300.0, 0.0) == pytest.approx(-300.0 + np.log10(2.0))
    # Where the two formulas meet.
    assert combined(-7.999, -3.0) == pytest.approx(combined(-8.001, -3.0), abs=3e-3)
    assert -0.1 < combined(0.0, 0.0) <= 0.0
