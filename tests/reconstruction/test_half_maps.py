"""Register alignment of half-maps: finds the operator, and gives noise no correlation."""

import numpy as np
import pytest

from jaxrelax.geometry import point_group, subgroup
from jaxrelax.reconstruction import (
    align_half_maps,
    apply_gain,
    asymmetric_coefficients,
    fsc,
    independent_fraction,
    isotypic_parts,
    rotate_map,
    soft_sphere,
)
from jaxrelax.reconstruction.fsc import shell_counts

from .blobs import blobs

N = 24
SHELLS = slice(2, N // 2)
N_SEEDS = 60


def weights():
    """Each shell counts by its coefficients, inside the band."""
    counts = shell_counts(N).copy()
    counts[:1], counts[N // 2 :] = 0.0, 0.0
    return counts


def noise_parts(seed, group, mask):
    rng = np.random.default_rng(seed)
    kept = point_group("C1")
    return [
        mask * isotypic_parts(rng.standard_normal((N,) * 3).astype(np.float32), group, kept)[1]
        for _ in range(2)
    ]


@pytest.mark.parametrize(("name", "element"), [("C4", 1), ("D3", 4), ("D3", 2), ("T", 5), ("O", 9)])
def test_the_operator_between_the_halves_is_found(name, element):
    group = point_group(name)
    rng = np.random.default_rng(3)
    first = isotypic_parts(blobs(N), group, point_group("C1")).asymmetric
    second = rotate_map(first, group.operators[group.inverse[element]])
    noise = 0.2 * first.std() * rng.standard_normal((2, N, N, N)).astype(np.float32)
    found = align_half_maps(
        first + noise[0], second + noise[1], group, list(range(group.order)), weights()
    )
    assert found.index == element
    # In the direction that is documented: g V₂ is in the frame of V₁.
    assert fsc(first, rotate_map(second, group.operators[found.index]))[1:6].min() > 0.99
    assert found.fsc[1:5].min() > 0.8


def test_only_candidates_are_chosen():
    group = point_group("C4")
    first = isotypic_parts(blobs(N), group, point_group("C1")).asymmetric
    second = rotate_map(first, group.operators[1].T)
    assert align_half_maps(first, second, group, [0, 2], weights()).index in (0, 2)


@pytest.mark.parametrize(
    "mask",
    [np.ones((N,) * 3, np.float32), soft_sphere(N, 0.3 * N, 0.15 * N), soft_sphere(N, 5.0, 2.0)],
    ids=["whole box", "particle", "partner"],
)
@pytest.mark.parametrize("name", ["C4", "O"])
def test_noise_has_no_correlation_although_the_best_operator_is_taken(name, mask):
    group = point_group(name)
    operators = list(range(group.order))
    ours, naive = [], []
    for seed in range(N_SEEDS):
        first, second = noise_parts(seed, group, mask)
        found = align_half_maps(
            first, second, group, operators, weights(), independent_fraction(mask)
        )
        ours.append(np.average(found.fsc[SHELLS], weights=weights()[SHELLS]))
        best = fsc(first, rotate_map(second, group.operators[found.index]))
        naive.append(np.average(best[SHELLS], weights=weights()[SHELLS]))
    error = np.std(ours) / np.sqrt(N_SEEDS)
    assert abs(np.mean(ours)) < 3 * error
    # The operator that all shells choose together correlates noise, many errors above nothing.
    assert np.mean(naive) > 6 * np.std(naive) / np.sqrt(N_SEEDS)


@pytest.mark.parametrize(("name", "kept"), [("C4", "C1"), ("O", "C1"), ("D4", "C2")])
def test_noise_scatters_as_the_number_of_coefficients_says(name, kept):
    group = point_group(name)
    held = subgroup(group, kept) if kept != "C1" else point_group("C1")
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(N_SEEDS):
        maps = rng.standard_normal((2, N, N, N)).astype(np.float32)
        curves.append(fsc(*(isotypic_parts(m, group, held).asymmetric for m in maps)))
    expected = 1 / np.sqrt(asymmetric_coefficients(N, 1.0, group, held))
    ratio = np.std(curves, axis=0)[4 : N // 2] / expected[4 : N // 2]
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)


def test_a_mask_leaves_the_coefficients_it_says():
    mask = soft_sphere(N, 0.3 * N, 0.1 * N)
    group, kept = point_group("C4"), point_group("C1")
    curves = np.array([fsc(*noise_parts(seed, group, mask)) for seed in range(2 * N_SEEDS)])
    counts = asymmetric_coefficients(N, independent_fraction(mask), group, kept)
    band = slice(3, N // 2 - 1)
    pooled = np.average(curves[:, band], axis=1, weights=counts[band])
    assert pooled.std() * np.sqrt(counts[band].sum()) == pytest.approx(1.0, abs=0.2)
    # A mask correlates a shell with its neighbours more than with itself: one by one they scatter
    # less than their share of the coefficients says, never more.
    assert np.all(curves.std(axis=0)[band] * np.sqrt(counts[band]) < 1.1)


def test_gain_multiplies_shells_and_drops_those_beyond():
    map_ = np.random.default_rng(0).standard_normal((N,) * 3).astype(np.float32)
    gain = np.linspace(1.0, 0.2, 9)
    before, after = np.fft.rfftn(map_), np.fft.rfftn(apply_gain(map_, gain))
    f = np.fft.fftfreq(N, 1 / N)
    shell = np.rint(np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2
                            + np.arange(N // 2 + 1) ** 2)).astype(int)  # fmt: skip
    expected = np.where(shell < 9, before * gain[np.minimum(shell, 8)], 0.0)
    np.testing.assert_allclose(after, expected, atol=1e-3)
