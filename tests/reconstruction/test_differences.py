"""Differences in σ: noise is noise, a partner is found, and its mates are told from others."""

import numpy as np
import pytest
import scipy.stats

from jaxrelax.geometry import parse_group
from jaxrelax.reconstruction import (
    Band,
    apply_gain,
    asymmetric_coefficients,
    band_of_difference,
    benjamini_hochberg,
    benjamini_yekutieli,
    difference_in_sigma,
    fsc,
    independent_fraction,
    isotypic_parts,
    rotate_map,
    soft_sphere,
    symmetrise,
)
from jaxrelax.reconstruction.difference_regions import labelled, regions_of
from jaxrelax.reconstruction.differences import _local_variance
from jaxrelax.reconstruction.fsc import cross_power, shell_counts, spectrum
from tests.reconstruction.blobs import blobs

N, PIXEL = 40, 2.0
PLACE = np.array([10.0, 0.0, 3.0])  # (x, y, z) in voxels from the centre


def coordinates(n=N):
    axis = np.arange(n) - n // 2
    return np.meshgrid(axis, axis, axis, indexing="ij")


def compared(names, rng, *, partner=0.0, choose=False, noise=0.3):
    """A symmetric body, noise that falls off towards the outside, and a partner at one site."""
    group, kept = (parse_group(name) for name in names)
    z, y, x = coordinates()
    from_site = (x - PLACE[0]) ** 2 + (y - PLACE[1]) ** 2 + (z - PLACE[2]) ** 2
    density = symmetrise(blobs(N, seed=3), group)
    density = density + symmetrise((partner * np.exp(-from_site / 8.0)).astype(np.float32), kept)
    spread = 1.0 + 0.5 * np.exp(-(x**2 + y**2 + z**2) / 128.0)
    sphere = soft_sphere(N, 0.42 * N, 3.0)
    parts = []
    for _ in range(2):
        white = (noise * rng.standard_normal((N, N, N))).astype(np.float32)
        half = density + apply_gain(white, np.linspace(0.5, 1.5, N)) * spread
        parts.append(isotypic_parts(np.float32(half * sphere), group, kept))
    first, second, frames = parts[0].asymmetric, parts[1].asymmetric, 1
    if choose:  # as half-maps of a refinement are brought into one frame
        low = apply_gain(first, np.ones(8))
        turned = [rotate_map(second, operator) for operator in group.operators]
        second = max(turned, key=lambda map_: float(np.sum(low * map_)))
        frames = group.order
    fraction = independent_fraction(sphere)
    counts = asymmetric_coefficients(N, fraction, group, kept)
    band = band_of_difference(
        fsc(first, second),
        counts,
        fsc(parts[0].symmetric, parts[1].symmetric),
        shell_counts(N) * fraction / group.order,
    )
    return difference_in_sigma(
        (first, second), parts[0].symmetric, sphere > 0.5, band, PIXEL,
        group=group, kept=kept, removed=group, frames=frames, coefficients=counts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "choose"),
    [(("C4", "C1"), False), (("C4", "C1"), True), (("C3", "C1"), True), (("D2", "C2"), True)],
)
def test_noise_of_a_symmetric_map_is_not_significant(names, choose):
    rng = np.random.default_rng(4)
    runs = [compared(names, rng, choose=choose) for _ in range(12)]
    # At a rate of 1 % two runs of twelve that find something happen in 0.6 %.
    assert sum(bool(run.regions) for run in runs) <= 1
    assert not any(run.agrees for run in runs)
    sigma = np.concatenate([run.sigma[run.searched] for run in runs])
    # Some few hundred independent values a run.
    assert 0.85 < sigma.std() < 1.04
    assert np.mean(np.abs(sigma) > 3.0) < 1.5 * 2.7e-3
    # And as much on the axis, where symmetrisation leaves next to nothing of the noise.
    _, y, x = coordinates()
    near = runs[0].searched & (np.hypot(x, y) < 3.0)
    assert 0.8 < np.concatenate([run.sigma[near] for run in runs]).std() < 1.15


@pytest.mark.parametrize("names", [("C4", "C1"), ("C3", "C1")])
def test_a_partner_is_one_red_region_and_its_mates_are_blue(names):
    group = parse_group(names[0])
    found = compared(names, np.random.default_rng(0), partner=0.5)
    assert found.agrees
    red, *blue = found.regions
    assert red.sign == 1
    assert red.peak_sigma > 8.0
    assert np.allclose(red.centre_angstrom, PLACE * PIXEL, atol=PIXEL)
    assert [one.sign for one in blue] == [-1] * (group.order - 1)
    assert {one.site for one in found.regions} == {0}
    mates = group.operators[1:] @ PLACE * PIXEL
    for one in blue:
        distance = np.linalg.norm(mates - one.centre_angstrom, axis=1)
        assert distance.min() < 2.0 * PIXEL
    volume = sum(one.volume_angstrom3 for one in found.regions)
    assert volume == pytest.approx(found.significant.sum() * PIXEL**3)
    assert np.all(np.abs(found.sigma[found.significant]) >= found.threshold)


def test_false_regions_beside_a_true_one():
    """Voxels of a large region let the voxels' threshold fall, but not the regions'."""
    rng = np.random.default_rng(7)
    false = total = 0
    mates = parse_group("C4").operators @ PLACE * PIXEL
    for _ in range(10):
        found = compared(("C4", "C1"), rng, partner=2.0)
        total += len(found.regions)
        for one in found.regions:
            away = np.linalg.norm(mates - one.centre_angstrom, axis=1).min()
            false += away > 6.0 * PIXEL
    assert total >= 40
    assert false <= 1


@pytest.mark.parametrize(
    ("kept", "removed"), [("C1", None), ("C7", None), ("C1", "C4"), ("C2", "D2")]
)
def test_variance_is_that_of_many_maps(kept, removed):
    """Also on axes, where noise is averaged less, or not left at all."""
    rng, n = np.random.default_rng(1), 24
    gain = np.ones(7)
    groups = parse_group(kept), None if removed is None else parse_group(removed)
    searched = soft_sphere(n, 9.0, 0.1) > 0.5
    maps, estimates = [], []
    for _ in range(150):
        noise = symmetrise(rng.standard_normal((n, n, n)).astype(np.float32), groups[0])
        if groups[1] is not None:
            noise = noise - symmetrise(noise, groups[1])
        noise = apply_gain(noise, gain)
        power = cross_power(spectrum(noise), spectrum(noise), n)
        variance, freedom = _local_variance(
            noise, power, searched, 5.0, kept=groups[0], removed=groups[1]
        )
        maps.append(noise[searched])
        estimates.append(variance)
    true = np.var(maps, axis=0, dtype=np.float64)
    _, y, x = (each[searched] for each in coordinates(n))
    estimated = np.mean(estimates, axis=0)
    for where in (np.hypot(x, y) < 1.0, np.hypot(x, y) > 5.0):
        if true[where].mean() < 0.05 * true.mean():
            # Nothing is left of the noise: bounded from below instead.
            assert estimated[where].mean() > true[where].mean()
        else:
            assert estimated[where].mean() == pytest.approx(true[where].mean(), rel=0.15)
    # What the estimate scatters by is no more than its degrees of freedom say.
    scatter = np.var(np.array(estimates) / estimated, axis=0)
    assert np.mean(scatter * freedom / 2.0) < 1.3


def test_where_everything_is_symmetric_rounding_is_not_a_difference():
    group, kept = parse_group("C3"), parse_group("C1")
    body = symmetrise(blobs(N), group)
    part = isotypic_parts(body, group, kept)
    assert np.abs(part.asymmetric).max() > 0
    flat = np.ones(N // 2 + 1)
    found = difference_in_sigma(
        (part.asymmetric, part.asymmetric), part.symmetric, soft_sphere(N, 16.0, 2.0) > 0.5,
        Band(flat, N // 2, True), PIXEL, group=group, kept=kept, removed=group,
        coefficients=shell_counts(N),
    )  # fmt: skip
    assert not found.significant.any()
    assert found.threshold == np.inf


def test_nothing_searched_and_nothing_there():
    group, empty = parse_group("C1"), np.zeros((8, 8, 8), np.float32)
    band = Band(np.ones(5), 4, False)
    for searched in (np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)):
        found = difference_in_sigma(
            (empty, empty), empty, searched, band, 1.0, group=group, kept=group,
            coefficients=shell_counts(8),
        )  # fmt: skip
        assert found.regions == ()
        assert not found.sigma.any()
    with pytest.raises(ValueError, match="between 0 and 1"):
        difference_in_sigma(
            (empty, empty), empty, searched, band, 1.0, group=group, kept=group,
            coefficients=shell_counts(8), rate=1.0,
        )  # fmt: skip


def test_band_follows_the_half_maps_only_where_they_agree():
    counts = np.linspace(1.0, 400.0, 33) * np.arange(33)
    whole = 1.0 / (1.0 + np.exp(np.arange(33) - 24.0))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(33) / np.sqrt(np.maximum(counts, 1.0))
    band = band_of_difference(noise, counts, whole, counts)
    assert not band.agrees
    assert band.shell == np.flatnonzero(whole >= 0.143)[-1]
    curve = 1.0 / (1.0 + np.exp(2.0 * (np.arange(33) - 10.0)))
    curve[:3] = (0.0, -0.4, 0.1)  # a few coefficients only
    band = band_of_difference(curve, counts, whole, counts)
    assert band.agrees
    assert abs(band.shell - 10) <= 1
    assert np.all(np.diff(band.gain[: band.shell + 1]) <= 0)
    assert not band.gain[band.shell + 1 :].any()


def test_procedures_of_false_discovery():
    rng = np.random.default_rng(2)
    p = np.concatenate([rng.uniform(0, 1e-4, 40), rng.uniform(0, 1, 460)])
    adjusted = scipy.stats.false_discovery_control(p, method="bh")
    assert np.array_equal(benjamini_hochberg(p, 0.05), adjusted <= 0.05)
    adjusted = scipy.stats.false_discovery_control(p, method="by")
    assert np.array_equal(benjamini_yekutieli(p, 0.05), adjusted <= 0.05)
    assert not benjamini_hochberg(np.full(5, 0.9), 0.05).any()
    assert benjamini_hochberg(np.zeros(3), 0.05).all()


def test_regions_touching_with_other_signs_are_two():
    sigma = np.zeros((8, 8, 8), np.float32)
    sigma[4, 4, 1:4], sigma[4, 4, 4:7] = 5.0, -9.0
    sigma[2, 4, 5] = 6.0
    labels, peaks = labelled(sigma, sigma != 0)
    assert peaks.tolist() == [9.0, 6.0, 5.0]
    first, second, third = regions_of(sigma, labels, parse_group("C2"), 2.0)
    assert (first.sign, second.sign, third.sign) == (-1, 1, 1)
    assert first.centre_angstrom == (2.0, 0.0, 0.0)
    assert first.volume_angstrom3 == 3 * 8.0
    assert second.peak_angstrom == (2.0, 0.0, -4.0)
    # Turned by C2 x = 0, 1, 2 is 0, −1, −2: inside the third but for one voxel.
    assert (first.site, second.site, third.site) == (0, 1, 0)
