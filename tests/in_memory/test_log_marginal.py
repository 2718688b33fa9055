"""The marginal likelihood, its posterior and its gradients against enumeration in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrelax import Images, log_marginal, volume
from jaxrelax.geometry import point_group, right_cosets
from jaxrelax.imaging import CTFParameters, half_spectrum, image_geometry, pack
from jaxrelax.in_memory.images import _Held
from jaxrelax.inference import (
    FixedPoses,
    Junk,
    JunkParameters,
    Model,
    PosePrior,
    Poses,
    Register,
    States,
    SymmetricState,
    e_step,
)

from . import enumeration
from .enumeration import BOX, EDGE_ANGSTROM, SHELL, simulated

C2 = point_group("C2")
REGISTERS = Register(right_cosets(C2, point_group("C1")).representatives)
# The order of a state's latents decides that of its rows alone.
MODEL = Model(
    (States(((SymmetricState(), REGISTERS), (REGISTERS, SymmetricState()))), Junk(SHELL + 1))
)
PACKING = half_spectrum(BOX, SHELL)
GEOMETRY = image_geometry(PACKING, EDGE_ANGSTROM / BOX, BOX, EDGE_ANGSTROM / BOX)
HELD = _Held(GEOMETRY)


def held(values, images, rotations, dtype):
    """The images as :func:`jaxrelax.load_images` would hold them, at no turn and no shift."""
    n = len(images)
    defocus = jnp.zeros(n, dtype)
    same = jnp.ones(n, dtype)
    half = 0.5 * enumeration.ASTIGMATISM_ANGSTROM
    rotations, origins = jnp.asarray(rotations, dtype), jnp.zeros((n, 2), dtype)
    return Images(
        data=pack(jnp.asarray(images, dtype), PACKING),
        usable=None,
        optics=CTFParameters(
            defocus + half, defocus - half, enumeration.ANGLE_DEG * same, 0.0 * same, 0.0 * same,
            enumeration.VOLTAGE_KV * same, enumeration.CS_MM * same, enumeration.Q0 * same,
        ),
        poses=Poses(rotations, origins, rotations, origins),
        noise_power=jnp.asarray(values["noise"], dtype),
        rows=jnp.arange(n),
        _held=HELD,
    )  # fmt: skip


def parameters(values):
    one, other = values["symmetric"]
    return {
        "state": (values["state"], ((one, ()), ((), other))),
        "junk": JunkParameters(values["junk"], values["object"]),
    }


def arguments(values, images):
    seen = volume(values["maps"], MODEL, "C2", images.geometry)
    return seen, *images.inputs(
        turns_rad=values["turns"],
        shifts_px=values["shifts"],
        defocus_change_angstrom=values["defocus"],
        noise_power=values["noise"],
    )


@jax.jit
def total(values, images):
    return jnp.sum(log_marginal(MODEL, parameters(values), *arguments(values, images)))


gradient = jax.jit(jax.grad(total))


@pytest.fixture(scope="module")
def problem():
    return simulated(6, seed=0, signal=0.5)


@pytest.fixture(scope="module")
def slopes(problem):
    values, images, rotations = problem
    with jax.enable_x64(True):
        values = jax.tree.map(jnp.asarray, values)
        return jax.tree.map(
            np.asarray, gradient(values, held(values, images, rotations, jnp.float64))
        )


def test_the_density_is_that_of_enumeration(problem):
    values, images, rotations = problem
    with jax.enable_x64(True):
        on_device = jax.tree.map(jnp.asarray, values)
        found = log_marginal(
            MODEL,
            parameters(on_device),
            *arguments(on_device, held(values, images, rotations, jnp.float64)),
        )
    expected = enumeration.log_marginal(values, images, rotations)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_posterior_is_that_of_enumeration():
    """Two states × C2 × symmetric × junk, from faint images, to 1e-6 relative."""
    values, images, rotations = simulated(6, seed=0, signal=0.2)
    with jax.enable_x64(True):
        on_device = jax.tree.map(jnp.asarray, values)
        inputs = arguments(on_device, held(values, images, rotations, jnp.float64))
        search, prior = FixedPoses(), PosePrior(jnp.ones(()), jnp.ones(()))
        found, _, _ = e_step(
            MODEL, parameters(on_device), search, *inputs, prior, n_shells=SHELL + 1
        )
    joint = enumeration.joint(values, images, rotations)
    weighed = np.exp(joint - joint.max(axis=1, keepdims=True))
    shown = weighed[:, :-1].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.rows, weighed[:, :-1] / shown, rtol=1e-6)
    np.testing.assert_allclose(
        found.outside["junk"], weighed[:, -1] / weighed.sum(axis=1), rtol=1e-6
    )
    # Nothing is certain: all hypotheses of some image matter.
    assert np.max(np.min(weighed / weighed.sum(axis=1, keepdims=True), axis=1)) > 1e-3


STEPS = {
    "maps": 1e-5, "turns": 1e-6, "shifts": 1e-5, "defocus": 1e-1, "noise": 1e-5, "object": 1e-5,
    "state": 1e-4, "symmetric": 1e-4, "junk": 1e-4,
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_the_gradient_is_that_of_enumeration(problem, slopes, name):
    values, images, rotations = problem
    shape = np.shape(values[name])
    rng = np.random.default_rng(1)
    size = int(np.prod(shape))
    # Maps have too many voxels to go through one by one.
    directions = (
        rng.standard_normal((12, *shape)) if name == "maps" else np.eye(size).reshape(-1, *shape)
    )
    expected = []
    for direction in directions:
        ahead, behind = (
            enumeration.log_marginal(
                {**values, name: values[name] + sign * STEPS[name] * direction}, images, rotations
            ).sum()
            for sign in (1, -1)
        )
        expected.append((ahead - behind) / (2 * STEPS[name]))
    found = (directions * slopes[name]).reshape(len(directions), -1).sum(axis=1)
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6 * scale)


OFF = {
    "one state": {"state": np.array([0.0, -np.inf])},
    "never symmetric": {"symmetric": np.array([-np.inf, -np.inf])},
    "always symmetric": {"symmetric": np.array([np.inf, -0.5])},
    "no junk": {"junk": np.array(-np.inf)},
    "junk alone": {"junk": np.array(np.inf)},
    "one state, never symmetric, no junk": {
        "state": np.array([-np.inf, 0.0]), "symmetric": np.array([-np.inf, -np.inf]),
        "junk": np.array(-np.inf),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OFF)
def test_no_gradient_is_nan_where_a_fraction_is_0_or_1(problem, name):
    values, images, rotations = problem
    values = {**values, **OFF[name]}
    with jax.enable_x64(True):
        on_device = jax.tree.map(jnp.asarray, values)
        kept = held(values, images, rotations, jnp.float64)
        found, slope = total(on_device, kept), gradient(on_device, kept)
        slope = jax.tree.map(np.asarray, slope)
    expected = enumeration.log_marginal(values, images, rotations).sum()
    assert float(found) == pytest.approx(expected, rel=1e-8)
    for leaf in jax.tree.leaves(slope):
        assert np.isfinite(leaf).all()
    # What is still on has its gradient.
    ahead, behind = (
        enumeration.log_marginal(
            {**values, "noise": values["noise"] * (1.0 + step)}, images, rotations
        ).sum()
        for step in (1e-6, -1e-6)
    )
    assert np.sum(slope["noise"] * values["noise"]) == pytest.approx(
        (ahead - behind) / 2e-6, rel=1e-4
    )


def test_noise_is_found_by_ascent_from_three_times_too_much():
    values, images, rotations = simulated(240, seed=2, signal=0.5)
    truth = values["noise"]
    # All images show particles.
    values = {**values, "junk": np.array(-np.inf)}
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values)
    kept = held(values, images, rotations, jnp.float32)

    @jax.jit
    def slope(log_power):
        return jax.grad(lambda x: -total({**single, "noise": jnp.exp(x)}, kept) / len(images))(
            log_power
        )

    for start in (3.0, 1.0 / 3.0):
        log_power = jnp.log(jnp.asarray(start * truth, jnp.float32))
        solver = optax.adam(0.05)
        memory = solver.init(log_power)
        for _ in range(120):
            change, memory = solver.update(slope(log_power), memory)
            log_power = optax.apply_updates(log_power, change)
        np.testing.assert_allclose(np.exp(log_power), truth, rtol=0.05)
