"""States of an image: their probabilities against plain NumPy, and on images of known state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logsumexp, softmax

from jaxrelax.geometry import random_rotations
from jaxrelax.imaging import ImageBatch
from jaxrelax.inference import Mixture, junk_evidence, mixture_posterior, posterior

from .conftest import N_SHELLS, SHELL, geometry_of_images, make_problem, projections, scores

N, REGISTERS = 5, 4
EVIDENCES = arrays(np.float32, (N, REGISTERS + 2), elements=st.floats(-40, 40, width=32))
FRACTIONS = st.floats(0.0078125, 0.9921875, width=32)

believe = jax.jit(mixture_posterior)


def mixture(symmetric=0.0, junk=0.0, power=None):
    power = np.zeros(N_SHELLS) if power is None else power
    return Mixture(*(jnp.asarray(x, jnp.float32) for x in (symmetric, junk, power)))


def belief_of(evidences, chosen):
    """Of rows (registers …, symmetric, junk)."""
    e = jnp.asarray(evidences)
    return believe(e[:, :REGISTERS], e[:, REGISTERS], e[:, REGISTERS + 1], chosen)


@given(EVIDENCES, FRACTIONS, FRACTIONS)
def test_the_posterior_is_that_of_float64(evidences, symmetric, junk):
    found = belief_of(evidences, mixture(symmetric, junk))
    e = evidences.astype(np.float64)
    parts = np.concatenate(
        [
            e[:, :REGISTERS] + np.log((1 - junk) * (1 - symmetric) / REGISTERS),
            e[:, REGISTERS:] + np.log([(1 - junk) * symmetric, junk]),
        ],
        axis=1,
    )
    p = softmax(parts, axis=1)
    np.testing.assert_allclose(found.junk, p[:, -1], atol=2e-5)
    shown = softmax(parts[:, :-1], axis=1)
    np.testing.assert_allclose(found.symmetric, shown[:, -1], atol=2e-5)
    expected = shown[:, :-1] + shown[:, -1:] / REGISTERS
    np.testing.assert_allclose(found.registers, expected, atol=2e-5)
    np.testing.assert_allclose(np.sum(found.registers, axis=1), 1.0, atol=1e-5)


@given(EVIDENCES, FRACTIONS)
def test_a_fraction_of_zero_switches_its_state_off(evidences, fraction):
    nothing = belief_of(evidences, mixture())
    np.testing.assert_array_equal(nothing.symmetric, 0.0)
    np.testing.assert_array_equal(nothing.junk, 0.0)
    registers = evidences[:, :REGISTERS]
    np.testing.assert_allclose(nothing.registers, posterior(jnp.asarray(registers)), atol=1e-6)
    junk = belief_of(evidences, mixture(junk=fraction))
    np.testing.assert_array_equal(junk.symmetric, 0.0)
    np.testing.assert_array_equal(junk.registers, nothing.registers)
    one = logsumexp(registers.astype(np.float64), axis=1) - np.log(REGISTERS)
    odds = evidences[:, -1] - one + np.log(fraction / (1 - fraction))
    np.testing.assert_allclose(junk.junk, expit(odds), atol=2e-5)
    np.testing.assert_array_equal(belief_of(evidences, mixture(fraction)).junk, 0.0)


@given(EVIDENCES, st.floats(-20, 20, width=32))
def test_only_differences_of_evidence_count(evidences, offset):
    chosen = mixture(0.2, 0.1)
    for one, other in zip(
        jax.tree.leaves(belief_of(evidences, chosen)),
        jax.tree.leaves(belief_of(evidences + np.float32(offset), chosen)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-4)


def batch_of(data, ctf, weights):
    return ImageBatch(
        jnp.asarray(data, jnp.complex64), jnp.asarray(ctf, jnp.float32),
        jnp.asarray(weights, jnp.float32), jnp.ones(len(data), bool),
    )  # fmt: skip


@jax.jit
def empty_evidence(batch, chosen):
    return junk_evidence(batch, geometry_of_images(), chosen)


def test_junk_is_a_gaussian_over_the_whole_plane():
    """Ratio of normalised densities to that of noise of the image itself, in float64."""
    rng = np.random.default_rng(0)
    geometry = geometry_of_images()
    packing = geometry.packing
    power, variance = rng.uniform(0.5, 4.0, (2, N_SHELLS))
    power[3] = 0.0
    ctf = rng.uniform(-1, 1, (N, packing.n_pixels))
    data = rng.standard_normal((2, N, packing.n_pixels))
    data = data[0] + 1j * data[1]
    data[:, packing.multiplicity == 1] = data[:, packing.multiplicity == 1].real
    sigma2 = variance[packing.shell]
    weights = packing.multiplicity / sigma2
    found = empty_evidence(batch_of(data, ctf, weights), mixture(power=power))
    # Real and imaginary parts of a pixel have half of its variance each; the origin is real.
    real = packing.multiplicity == 1
    total = sigma2 + ctf**2 * power[packing.shell]
    thing = np.where(
        real,
        -0.5 * np.abs(data) ** 2 / total - 0.5 * np.log(total / sigma2),
        -(np.abs(data) ** 2) / total - np.log(total / sigma2),
    )
    noise = np.where(real, -0.5 * np.abs(data) ** 2 / sigma2, -(np.abs(data) ** 2) / sigma2)
    expected = np.logaddexp(noise.sum(axis=1), thing.sum(axis=1)) - np.log(2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_shells_beyond_the_score_do_not_count():
    rng = np.random.default_rng(1)
    packing = geometry_of_images().packing
    inside = packing.shell <= SHELL // 2
    data = rng.standard_normal((N, packing.n_pixels))
    ctf = np.ones((N, packing.n_pixels))
    chosen = mixture(power=np.full(N_SHELLS, 2.0))
    weights = packing.multiplicity * inside
    found = empty_evidence(batch_of(data, ctf, weights), chosen)
    other = empty_evidence(batch_of(np.where(inside, data, 7.0), 3 * ctf - 2, weights), chosen)
    np.testing.assert_array_equal(found, other)


PARTICLE, NOISE, THING = range(3)


@pytest.fixture(scope="module", params=[6.0, 60.0], ids=["clear", "hard"])
def known_states(request):
    """Particles at known poses, noise alone, and Gaussian objects of the particle's power."""
    noise_power, each = request.param, 400
    problem = make_problem(3 * each, noise_power, spread=0.0, seed=2)
    rng = np.random.default_rng(3)
    packing = problem.geometry.packing
    views = np.asarray(
        projections(problem.volume, jnp.asarray(random_rotations(600, rng), jnp.float32))
    )
    square = np.mean(np.abs(views) ** 2, axis=(0, 1))
    size = np.bincount(packing.shell, packing.multiplicity)
    power = np.bincount(packing.shell, packing.multiplicity * square) / size
    state = np.repeat([PARTICLE, NOISE, THING], each)
    shape = (2, each, packing.n_pixels)
    half = np.where(packing.multiplicity == 1, [[1.0], [0.0]], np.sqrt(0.5))[:, None]
    data = np.array(problem.batch.data)
    for kind in (NOISE, THING):
        white = half * rng.standard_normal(shape) * np.sqrt(noise_power)
        drawn = half * rng.standard_normal(shape) * np.sqrt(power[packing.shell])
        contrast = np.asarray(problem.batch.ctf)[state == kind]
        thing = contrast * (drawn[0] + 1j * drawn[1])
        data[state == kind] = white[0] + 1j * white[1] + (thing if kind == THING else 0.0)
    batch = batch_of(data, problem.batch.ctf, problem.batch.weights)
    registers, _ = scores(problem.volume, batch, problem.poses)
    chosen = mixture(junk=2 / 3, power=power)
    empty = empty_evidence(batch, chosen)
    belief = believe(registers, jnp.zeros(3 * each), empty, chosen)
    return noise_power, state, np.asarray(belief.junk, np.float64)


def test_junk_is_recognised(known_states):
    noise_power, state, junk = known_states
    mean = [junk[state == kind].mean() for kind in (PARTICLE, NOISE, THING)]
    limit = 0.02 if noise_power < 10 else 0.3
    assert mean[PARTICLE] < limit
    assert min(mean[NOISE:]) > 1.0 - limit


def test_the_probability_of_junk_is_honest(known_states):
    """Drawn from the very model, images are junk as often as their posterior says."""
    _, state, junk = known_states
    wrong = (state != PARTICLE) - junk
    spread = np.sqrt(junk * (1.0 - junk))
    for use in (np.ones_like(junk), junk, junk < 0.5):
        assert abs(np.sum(use * wrong)) < 4.0 * np.linalg.norm(use * spread) + 0.5


def enumerated(evidences, symmetric, junk):
    """Registers, symmetric and junk in float64, from a table of all that an image may be.

    Without logarithms of fractions: every state by its prior probability times its likelihood.
    """
    likelihood = np.exp(evidences - evidences.max(axis=1, keepdims=True))
    prior = np.array([(1 - junk) * (1 - symmetric) / REGISTERS] * REGISTERS)
    joint = likelihood * np.concatenate([prior, [(1 - junk) * symmetric, junk]])
    shown = likelihood[:, :-1] * np.concatenate(
        [[(1 - symmetric) / REGISTERS] * REGISTERS, [symmetric]]
    )
    shown /= shown.sum(axis=1, keepdims=True)
    return np.concatenate(
        [
            shown[:, :-1] + shown[:, -1:] / REGISTERS,
            shown[:, -1:],
            joint[:, -1:] / joint.sum(axis=1, keepdims=True),
        ],
        axis=1,
    )


def everything(evidences, symmetric, junk):
    e = jnp.asarray(evidences)
    found = mixture_posterior(
        e[:, :REGISTERS], e[:, REGISTERS], e[:, REGISTERS + 1],
        Mixture(symmetric, junk, jnp.zeros(N_SHELLS)),
    )  # fmt: skip
    return jnp.concatenate([found.registers, found.symmetric[:, None], found.junk[:, None]], axis=1)


@pytest.mark.parametrize("symmetric", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("junk", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_derivatives_are_those_of_enumeration(symmetric, junk, ties):
    """By fractions, also where they are 0 or 1 (from within), and by evidences."""
    rng = np.random.default_rng(5)
    evidences = rng.uniform(-3, 3, (N, REGISTERS + 2))
    if ties:
        evidences[:] = 1.5
    one = rng.standard_normal((N, REGISTERS + 2))  # weights of a scalar made of all results

    def expected(e, s, j):
        return float(np.sum(one * enumerated(e, s, j)))

    with jax.enable_x64(True):
        arguments = (jnp.asarray(evidences), jnp.asarray(symmetric), jnp.asarray(junk))
        np.testing.assert_allclose(
            everything(*arguments), enumerated(evidences, symmetric, junk), atol=1e-12
        )
        by_evidence, by_symmetric, by_junk = jax.grad(
            lambda *a: jnp.sum(one * everything(*a)), argnums=(0, 1, 2)
        )(*arguments)

    def slope(function, at):
        """Of second order, to the side where there is room."""
        step = 1e-5 if at < 0.5 else -1e-5
        values = [function(at + i * step) for i in range(3)]
        return (-1.5 * values[0] + 2.0 * values[1] - 0.5 * values[2]) / step

    assert by_symmetric == pytest.approx(
        slope(lambda s: expected(evidences, s, junk), symmetric), rel=1e-5, abs=1e-6
    )
    assert by_junk == pytest.approx(
        slope(lambda j: expected(evidences, symmetric, j), junk), rel=1e-5, abs=1e-6
    )
    for index in [(0, 0), (1, REGISTERS - 1), (2, REGISTERS), (3, REGISTERS + 1)]:
        ahead, behind = evidences.copy(), evidences.copy()
        ahead[index] += 1e-6
        behind[index] -= 1e-6
        difference = expected(ahead, symmetric, junk) - expected(behind, symmetric, junk)
        assert by_evidence[index] == pytest.approx(difference / 2e-6, abs=1e-7)


@jax.jit
def slopes(evidences, symmetric, junk):
    """Of every result summed over images, by all that it depends on."""

    def totals(*values):
        return everything(*values).sum(axis=0)

    return jax.jacrev(totals, argnums=(0, 1, 2))(evidences, symmetric, junk)


@pytest.mark.parametrize("offset", [0.0, 30.0, 300.0, -300.0])
@pytest.mark.parametrize("fraction", [0.0, 1e-30, 0.5, 1.0])
def test_no_derivative_is_nan(offset, fraction):
    """In single precision, wherever an evidence stands above the others or below."""
    rng = np.random.default_rng(6)
    for column in (0, REGISTERS, REGISTERS + 1):
        evidences = rng.uniform(-3, 3, (N, REGISTERS + 2)).astype(np.float32)
        evidences[:, column] += offset
        found = slopes(jnp.asarray(evidences), jnp.float32(fraction), jnp.float32(fraction))
        assert all(np.isfinite(part).all() for part in found)
