"""Maps of occupancy patterns from one body and one partner."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
import pytest

from jaxrelax.geometry import occupancy_patterns, point_group
from jaxrelax.imaging import fourier_volume, volume_radius, working_box
from jaxrelax.reconstruction import (
    Accumulator,
    Belief,
    HalfMaps,
    IsotypicParts,
    Particle,
    Portion,
    SharedAndOwn,
    ShellSums,
    TiedPatterns,
    completed,
    match_halves,
    match_states,
    mean_occupancy,
    mean_weight,
    of_patterns,
    partner_coefficients,
    partner_map,
    pattern_parts,
    rotate_map,
    symmetrise,
    unregularised_map,
)
from jaxrelax.reconstruction.pattern_prior import RIDGE
from jaxrelax.reconstruction.rotate import inside_sphere

from .blobs import blobs, sampled

N = 20


def maps(count, n=N):
    """Away from the ends of the box, so that turning them twice is turning them by the product."""
    return [inside_sphere(blobs(n, seed, scale=1.2)) for seed in range(count)]


def of_all_subsets(patterns, group, of_patterns_, shares):
    """Sites, weight and map of every subset: h V_S for h S."""
    sites, weights, turned = [], [], []
    for code in range(2**group.order):
        k, t = int(patterns.pattern_of[code]), int(patterns.placement[code])
        sites.append([code >> (group.order - 1 - g) & 1 for g in range(group.order)])
        weights.append(shares[k] / patterns.patterns[k].multiplicity)
        turned.append(rotate_map(of_patterns_[k], group.operators[t]))
    return np.array(sites), np.array(weights), np.array(turned, np.float64)


@pytest.mark.parametrize("name", ["C2", "C4", "D2", "C3", "D3"])
def test_partner_is_the_least_squares_fit_to_all_subsets(name):
    group = point_group(name)
    patterns = occupancy_patterns(group)
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(len(patterns), 2.0))
    given = [
        symmetrise(one, pattern.stabiliser)
        for one, pattern in zip(maps(len(patterns)), patterns.patterns, strict=True)
    ]
    sites, weights, turned = of_all_subsets(patterns, group, given, shares)
    values = turned.reshape(len(sites), -1)
    # The ridge is on the partners of all sites, not on the body.
    n = group.order
    design = np.concatenate([np.ones((len(sites), 1)), sites], axis=1) * weights[:, None] ** 0.5
    design = np.concatenate([design, RIDGE**0.5 * np.eye(n + 1)[1:]])
    observed = np.concatenate([values * weights[:, None] ** 0.5, np.zeros((n, values.shape[1]))])
    fit = np.linalg.lstsq(design, observed, rcond=None)[0]
    found = partner_map(given, partner_coefficients(patterns.patterns, group, shares), group)
    np.testing.assert_allclose(found.ravel(), fit[1], atol=1e-3 * np.abs(fit[1]).max())
    # The mean map is what it was.
    q = mean_occupancy(patterns.patterns, shares)
    np.testing.assert_allclose(q, weights @ sites.mean(axis=1), atol=1e-12)
    mean = np.einsum("t,tv->v", weights, values)
    everywhere = fit[1:].sum(axis=0)
    np.testing.assert_allclose(fit[0] + q * everywhere, mean, atol=1e-6)


def test_a_map_far_from_the_model_is_not_asked_for_what_hardly_varies():
    """Two opposite partners or none: which of the two it is at cannot be said."""
    group = point_group("C4")
    patterns = occupancy_patterns(group).patterns
    shares = np.zeros(len(patterns))
    shares[[0, 3]] = 0.5
    found = partner_coefficients(patterns, group, shares)
    assert patterns[3].name == "two opposite"
    # What is found is the mean of the two places, of the patterns that there are.
    np.testing.assert_allclose(found[0], found[2])
    np.testing.assert_allclose(found[:, [1, 2, 4, 5]], 0.0)
    assert 0.99 < 2.0 * found[[0, 2], 3].sum() < 1.0


BOX, PIXEL, SHELL = 32, 4.0, 11
RADIUS, WORKING = volume_radius(SHELL), working_box(SHELL)
PARTICLE = Particle(point_group("C4"), point_group("C1"), BOX, PIXEL, 100.0)
PATTERNS = occupancy_patterns(PARTICLE.group)
PARTICLES = of_patterns(PARTICLE, PATTERNS)
# Of all images; one pattern is rare, and one never seen.
SHARES = np.array([0.2, 0.3, 0.25, 0.0, 0.01, 0.24])


def body_and_partner(n=WORKING, scale=BOX / WORKING):
    ring = np.array([[4.0, 0.0, 0.0], [3.0, 2.0, 1.0]])
    ring = np.concatenate([ring @ g.T for g in PARTICLE.group.operators])
    partner = np.array([[6.0, 2.0, 4.0], [7.0, 1.0, 5.0], [6.0, 1.0, 6.0]])
    body = sampled(ring, np.ones(len(ring)), n, scale)
    return body, sampled(partner, np.array([1.0, 0.5, 0.5]), n, scale)


def true_maps():
    body, partner = body_and_partner()
    mean = body + 0.5 * 4 * symmetrise(partner, PARTICLE.group)
    return pattern_parts(mean, partner, 0.5, PATTERNS.patterns, PARTICLE.group)


class Pass(NamedTuple):
    """As an M-step has it."""

    halves: list[HalfMaps]
    portions: list[list[Portion]]


@pytest.fixture(scope="module")
def accumulated() -> Pass:
    """Sums of both half-sets over noisy images of every pattern."""
    rng, sums = np.random.default_rng(0), []
    for _ in range(2):
        of_half = []
        for parts, share in zip(true_maps(), SHARES, strict=True):
            map_ = (parts.symmetric + parts.asymmetric)[None]
            volume = fourier_volume(map_, radius=RADIUS, image_box=BOX).values
            weight = (200.0 * share * rng.uniform(0.5, 1.5, (len(volume), 1))).astype(np.float32)
            noise = 6.0 * np.sqrt(weight) * rng.standard_normal(volume.shape)
            rows = np.concatenate([volume * weight + noise, weight, 0 * weight], axis=1)
            full = completed(Accumulator(rows.astype(np.float32), RADIUS))
            of_half.append(ShellSums.of(full, SHELL))
        sums.append(of_half)
    n_shells, halves = SHELL + 1, []
    sphere = PARTICLE.sphere(WORKING)
    for number, particle in enumerate(PARTICLES):
        raw = [unregularised_map(half[number], particle) for half in sums]
        parts = [particle.split(one * sphere) for one in raw]
        matched = match_halves(particle, parts, sphere, max_shell=SHELL, score_shell=SHELL)
        halves.append(HalfMaps(raw, parts, matched, SHELL, SHELL))
    portions = [
        [Portion(one, mean_weight(one.accumulator(), n_shells)) for one in half] for half in sums
    ]
    return Pass(halves, portions)


def learned(accumulated, prior):
    rng = np.random.default_rng(2)
    return prior.learn(accumulated.halves, SHARES, Belief(), PARTICLES, rng)


def errors(found):
    """Of every map, relative to what patterns differ by."""
    size = np.linalg.norm(body_and_partner()[1])
    return np.array(
        [
            np.linalg.norm(one.symmetric + one.asymmetric - true.symmetric - true.asymmetric) / size
            for one, true in zip(found, true_maps(), strict=True)
        ]
    )


def test_tied_maps_of_rare_patterns_are_as_good_as_those_of_others(accumulated):
    prior = TiedPatterns()
    tied = prior.solve(learned(accumulated, prior).state, accumulated.portions[0], PARTICLES)
    prior = SharedAndOwn()
    each = prior.solve(learned(accumulated, prior).state, accumulated.portions[0], PARTICLES)
    tied, each = errors(tied), errors(each)
    # Mostly what the band cuts off.
    assert tied.max() < 0.35
    rare = [3, 4]
    assert np.all(each[rare] > 1.5 * tied[rare])
    assert np.all(tied < 1.05 * each)


def test_parts_of_tied_maps_are_those_of_their_groups(accumulated):
    prior = TiedPatterns()
    found = prior.solve(learned(accumulated, prior).state, accumulated.portions[1], PARTICLES)
    largest = max(np.abs(one.symmetric).max() for one in found)
    for one, particle in zip(found, PARTICLES, strict=True):
        alike = symmetrise(one.symmetric, particle.group)
        np.testing.assert_allclose(one.symmetric, alike, atol=1e-4 * largest)
        nothing = symmetrise(one.asymmetric, particle.group)
        np.testing.assert_allclose(nothing, 0.0, atol=1e-4 * largest)
        kept = symmetrise(one.asymmetric, particle.subgroup)
        np.testing.assert_allclose(one.asymmetric, kept, atol=1e-4 * largest)
        assert (np.abs(one.asymmetric).max() > 0.1 * largest) == particle.relaxed


def test_one_program_makes_the_tied_maps_of_the_host(accumulated):
    prior = TiedPatterns()
    state, portions = learned(accumulated, prior).state, accumulated.portions[0]
    expected = prior.solve(state, portions, PARTICLES)
    assert all(isinstance(each, np.ndarray) for each in jax.tree.leaves(expected))
    single = jax.tree.map(lambda x: np.asarray(x, np.float32), state)
    sums, weights = [one.sums for one in portions], [one.weight for one in portions]

    def solve(state, sums, weights):
        made = [Portion(one, weight) for one, weight in zip(sums, weights, strict=True)]
        return prior.solve(state, made, PARTICLES)

    found = jax.jit(solve)(single, sums, weights)
    scale = max(np.abs(each).max() for each in jax.tree.leaves(expected))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


def test_joined_maps_are_better_than_those_of_a_half_set(accumulated):
    prior = TiedPatterns()
    state = learned(accumulated, prior).state
    alone = prior.solve(state, accumulated.portions[0], PARTICLES)
    others = [one.parts[1] for one in accumulated.halves]
    joined = prior.join(state, accumulated.portions[0], others, 1.0, PARTICLES)
    assert np.all(errors(joined) < errors(alone))


def test_noise_that_is_no_partner_gets_no_gain(accumulated):
    """Nothing but the body in all images."""
    rng = np.random.default_rng(5)
    body, halves = body_and_partner()[0], []
    for particle in PARTICLES:
        noise = 0.5 * body.std() * rng.standard_normal((2, *body.shape))
        raw = [inside_sphere((body + one).astype(np.float32)) for one in noise]
        parts = [particle.split(one * PARTICLE.sphere(WORKING)) for one in raw]
        matched = match_halves(particle, parts, parts[0].symmetric, max_shell=SHELL, score_shell=9)
        halves.append(HalfMaps(raw, parts, matched, SHELL, 9))
    shares = PATTERNS.binomial(0.5)
    found = TiedPatterns().learn(halves, shares, Belief(), PARTICLES, rng).state
    assert np.mean(found.gain[1:]) < 0.1
    asked = TiedPatterns().learn(halves, shares, Belief(full=True), PARTICLES, rng).state
    assert np.count_nonzero(asked.gain == 1.0) > 5
    true = learned(accumulated, TiedPatterns()).state
    assert np.mean(true.gain[1:6]) > 0.8


def test_the_partner_is_sought_where_it_is(accumulated):
    """Its gain is that of one site, not of all; and maps are better by it."""
    prior = TiedPatterns()
    state = learned(accumulated, prior).state
    partner = np.maximum(body_and_partner()[1], 0.0)
    there = np.average(state.profile, weights=partner)
    elsewhere = [
        np.average(state.profile, weights=np.maximum(rotate_map(partner, g), 0.0))
        for g in PARTICLE.group.operators[1:]
    ]
    assert there > 2.0 * max(elsewhere)
    alike = eqx.tree_at(lambda s: s.profile, state, np.ones_like(state.profile))
    local, uniform = (
        errors(prior.solve(one, accumulated.portions[0], PARTICLES)) for one in (state, alike)
    )
    assert np.mean(local) < np.mean(uniform)
    # Nothing is chosen where all is wanted.
    rng = np.random.default_rng(2)
    asked = prior.learn(accumulated.halves, SHARES, Belief(full=True), PARTICLES, rng).state
    assert np.all(asked.profile == 1.0)


def test_patterns_are_not_exchanged_between_half_sets():
    """They are known by their sites, however alike those of another number look."""
    rng = np.random.default_rng(1)
    halves = [
        [
            IsotypicParts(*rng.standard_normal((2, WORKING, WORKING, WORKING)).astype(np.float32))
            for _ in PARTICLES
        ]
    ]
    halves.append(halves[0][:1] + halves[0][:0:-1])
    order = match_states(
        PARTICLES, halves, SHARES, PARTICLE.sphere(WORKING), max_shell=SHELL, score_shell=SHELL
    )
    assert order == list(range(len(PARTICLES)))
    assert all(one.normaliser == [0] for one in PARTICLES)


def test_other_particles_are_refused(accumulated):
    with pytest.raises(ValueError, match="of_patterns"):
        TiedPatterns().learn(
            accumulated.halves, SHARES, Belief(), [PARTICLE] * 6, np.random.default_rng(0)
        )
