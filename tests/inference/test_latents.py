"""Posteriors over the whole table and junk, against enumeration in float64; what latents learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from jaxrelax.geometry import point_group, random_rotations, right_cosets
from jaxrelax.imaging import ImageBatch
from jaxrelax.inference import (
    Junk,
    JunkParameters,
    Model,
    Register,
    States,
    SymmetricState,
    infer,
    junk_evidence,
    logit,
    posterior,
)

from .conftest import N_SHELLS, SHELL, geometry_of_images, make_problem, projections, scores

N, REGISTERS = 5, 4
EVIDENCES = arrays(np.float32, (N, REGISTERS + 1), elements=st.floats(-40, 40, width=32))
FRACTIONS = st.floats(0.0078125, 0.9921875, width=32)
POWER = np.linspace(3.0, 0.5, N_SHELLS).astype(np.float32)


def registers(name):
    group = point_group(name)
    return Register(right_cosets(group, point_group("C1")).representatives)


RELAXED = Model((SymmetricState(), registers("C4"), Junk(N_SHELLS)))


def parameters(symmetric=0.0, junk=0.0):
    return {
        "symmetric": jnp.asarray(logit(symmetric)),
        "register": (),
        "junk": JunkParameters(jnp.asarray(logit(junk)), jnp.asarray(POWER)),
    }


def batch_of(data, ctf, weights):
    return ImageBatch(
        jnp.asarray(data, jnp.complex64), jnp.asarray(ctf, jnp.float32),
        jnp.asarray(weights, jnp.float32), jnp.ones(len(data), bool),
    )  # fmt: skip


def images(scale=1.0):
    rng = np.random.default_rng(0)
    packing = geometry_of_images().packing
    data = rng.standard_normal((2, N, packing.n_pixels)) * scale
    ctf = rng.uniform(-1, 1, (N, packing.n_pixels))
    return batch_of(data[0] + 1j * data[1], ctf, packing.multiplicity)


BATCH = images()


@jax.jit
def relaxed(evidence, params):
    return infer(RELAXED, params, evidence, BATCH, geometry_of_images())


def junk_in_float64():
    """By the definition: normalised complex Gaussians over the half plane, relative to noise."""
    packing = geometry_of_images().packing
    data = np.asarray(BATCH.data, np.complex128)
    total = 1.0 + np.asarray(BATCH.ctf, np.float64) ** 2 * POWER[packing.shell]
    half = 0.5 * packing.multiplicity
    noise = -half * np.abs(data) ** 2
    thing = -half * (np.abs(data) ** 2 / total + np.log(total))
    return np.logaddexp(noise.sum(axis=1), thing.sum(axis=1)) - np.log(2.0)


JUNK = junk_in_float64()


@given(EVIDENCES, FRACTIONS, FRACTIONS)
def test_registers_the_symmetric_state_and_junk_are_those_of_float64(evidence, symmetric, junk):
    # On the scale of the evidence of junk, so that all of them matter.
    evidence = evidence + np.float32(JUNK.mean())
    found = relaxed(evidence, parameters(symmetric, junk))
    e = evidence.astype(np.float64)
    joint = np.concatenate(
        [
            e[:, :-1] + np.log((1 - junk) * (1 - symmetric) / REGISTERS),
            e[:, -1:] + np.log((1 - junk) * symmetric),
            JUNK[:, None] + np.log(junk),
        ],
        axis=1,
    )
    total = logsumexp(joint, axis=1)
    np.testing.assert_allclose(found.log_marginal, total, rtol=2e-6)
    p = np.exp(joint - total[:, None])
    # Evidences of hundreds of nats are rounded to some 1e-5 of one.
    np.testing.assert_allclose(found.outside["junk"], p[:, -1], atol=2e-4)
    shown = np.exp(joint[:, :-1] - logsumexp(joint[:, :-1], axis=1, keepdims=True))
    np.testing.assert_allclose(found.rows, shown, atol=2e-4)
    places = shown[:, :-1] + shown[:, -1:] / REGISTERS
    np.testing.assert_allclose(found.places, places, atol=2e-4)
    np.testing.assert_allclose(np.sum(found.places, axis=1), 1.0, atol=1e-5)


def test_two_states_with_registers_symmetric_parts_and_junk_equal_enumeration():
    """In double precision, to 1e-6: every hypothesis written out one by one."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        model = Model(
            (States(((SymmetricState(), registers("C2")), (registers("C2"),))), Junk(N_SHELLS))
        )
        batch = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), BATCH)
        evidence = JUNK.mean() + rng.uniform(-3, 3, (N, len(model.table)))
        fractions, symmetric, junk = np.array([0.7, 0.3]), 0.2, 0.1
        params = {
            "state": (jnp.log(jnp.asarray(fractions)), ((_logit64(symmetric), ()), ((),))),
            "junk": JunkParameters(_logit64(junk), jnp.asarray(POWER, jnp.float64)),
        }
        batch = ImageBatch(
            batch.data.astype(jnp.complex128), batch.ctf.astype(jnp.float64),
            batch.weights.astype(jnp.float64), BATCH.valid,
        )  # fmt: skip
        found = infer(model, params, jnp.asarray(evidence), batch, geometry_of_images())
        priors = []
        for state in (0, 1):
            for _ in range(2):
                share = 1 - symmetric if state == 0 else 1.0
                priors.append((1 - junk) * fractions[state] * share / 2)
            if state == 0:
                priors.append((1 - junk) * fractions[0] * symmetric)
        weighed = [
            [np.exp(evidence[i, j] - JUNK[i]) * priors[j] for j in range(5)] for i in range(N)
        ]
        for i in range(N):
            shown = sum(weighed[i])
            np.testing.assert_allclose(found.rows[i], np.array(weighed[i]) / shown, rtol=1e-6)
            np.testing.assert_allclose(found.outside["junk"][i], junk / (shown + junk), rtol=1e-5)
            np.testing.assert_allclose(
                found.log_marginal[i], np.log(shown + junk) + JUNK[i], rtol=1e-9
            )
            one, two, both, three, four = weighed[i]
            places = np.array([one + both / 2, two + both / 2, three, four]) / shown
            np.testing.assert_allclose(found.places[i], places, rtol=1e-6)


def _logit64(p):
    return jnp.asarray(np.log(p) - np.log1p(-p), jnp.float64)


@given(EVIDENCES, FRACTIONS)
def test_a_fraction_of_zero_switches_its_state_off(evidence, fraction):
    nothing = relaxed(evidence, parameters())
    np.testing.assert_array_equal(nothing.rows[:, -1], 0.0)
    np.testing.assert_array_equal(nothing.outside["junk"], 0.0)
    expected = posterior(jnp.asarray(evidence[:, :-1]))
    np.testing.assert_allclose(nothing.places, expected, atol=1e-6)
    junk = relaxed(evidence, parameters(junk=fraction))
    np.testing.assert_allclose(junk.places, nothing.places, atol=1e-6)
    np.testing.assert_array_equal(relaxed(evidence, parameters(fraction)).outside["junk"], 0.0)


@pytest.mark.parametrize("symmetric", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("junk", [0.0, 0.3, 1.0])
def test_no_gradient_is_nan_at_the_ends_of_a_fraction(symmetric, junk):
    evidence = jnp.asarray(
        np.random.default_rng(4).standard_normal((N, REGISTERS + 1)), jnp.float32
    )

    def loss(params, evidence):
        found = relaxed(evidence, params)
        return (
            jnp.sum(found.log_marginal) + jnp.sum(found.places**2) + jnp.sum(found.outside["junk"])
        )

    for leaf in jax.tree.leaves(
        jax.grad(loss, argnums=(0, 1))(parameters(symmetric, junk), evidence)
    ):
        assert np.isfinite(np.asarray(leaf)).all()


@given(st.permutations(range(REGISTERS)))
def test_registers_have_no_order(order):
    evidence = np.random.default_rng(5).uniform(-3, 3, (N, REGISTERS + 1)).astype(np.float32)
    shuffled = evidence[:, [*order, REGISTERS]]
    one, other = (relaxed(e, parameters(0.2, 0.1)) for e in (evidence, shuffled))
    np.testing.assert_allclose(other.places, np.asarray(one.places)[:, order], atol=1e-6)
    np.testing.assert_allclose(other.log_marginal, one.log_marginal, rtol=1e-6)


def test_fractions_are_found_by_their_own_updates():
    """Evidences drawn from the model: repeated updates end at the fractions that drew them."""
    rng = np.random.default_rng(6)
    n, symmetric, apart = 4000, 0.3, 4.0
    model = Model((SymmetricState(), registers("C2")))
    truth = np.where(rng.random(n) < symmetric, 2, rng.integers(2, size=n))
    evidence = rng.standard_normal((n, 3)) * np.sqrt(apart)
    evidence[np.arange(n), truth] += apart
    params = model.init() | {"symmetric": jnp.asarray(logit(0.5))}
    for _ in range(100):
        found = infer(
            model, params, jnp.asarray(evidence, jnp.float32), BATCH, geometry_of_images()
        )
        learned = {
            one.name: one.statistics(model.table, found.rows, None, jnp.ones(n))
            for one in model.latents
        }
        params = model.update(params, learned)
    assert float(jax.nn.sigmoid(params["symmetric"])) == pytest.approx(symmetric, abs=0.03)


def test_a_fraction_of_one_is_learned_without_nan():
    """All but 1e-8 of every image is symmetric: a difference of sums would round below zero."""
    model = Model((SymmetricState(), registers("C2")))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = rng.uniform(1e-9, 1e-8, (400, 3))
        rows[:, -1] = rng.uniform(0.5, 1.0, 400)
        (latent, _) = model.latents
        learned = latent.statistics(
            model.table, jnp.asarray(rows, jnp.float32), None, jnp.ones(400, jnp.float32)
        )
        found = float(latent.update(latent.init(), learned))
        expected = np.log(rows[:, -1].sum()) - np.log(rows[:, :-1].sum())
        assert found == pytest.approx(expected, rel=1e-5)


def test_what_states_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="'junk' stands outside the table"):
        States(((registers("C2"), Junk(N_SHELLS)), (registers("C2"),)))
    late = Model((States(((registers("C2"),), (registers("C2"),))), SymmetricState()))
    with pytest.raises(ValueError, match="after the states"):
        late.log_prior(late.init())


def test_shells_beyond_the_score_do_not_count():
    rng = np.random.default_rng(1)
    packing = geometry_of_images().packing
    inside = packing.shell <= SHELL // 2
    data = rng.standard_normal((N, packing.n_pixels))
    ctf = np.ones((N, packing.n_pixels))
    power = jnp.full(N_SHELLS, 2.0)
    weights = packing.multiplicity * inside
    evidence = jax.jit(lambda b: junk_evidence(b, geometry_of_images(), power))
    found = evidence(batch_of(data, ctf, weights))
    other = evidence(batch_of(np.where(inside, data, 7.0), 3 * ctf - 2, weights))
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
    evidence, _ = scores(problem.volume, batch, problem.poses)
    model = Model((registers("C2"), Junk(N_SHELLS)))
    params = model.init() | {"junk": JunkParameters(jnp.asarray(logit(2 / 3)), jnp.asarray(power))}
    found = jax.jit(lambda e, b: infer(model, params, e, b, geometry_of_images()))(evidence, batch)
    return noise_power, state, np.asarray(found.outside["junk"], np.float64)


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
