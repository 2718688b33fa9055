"""Components that are no part of the package run through `refine`, and their arrays count."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax import MaxIterations, Registers, Relax, refine
from jaxrelax.imaging import NoiseModel
from jaxrelax.inference import FixedPoses, Latent, PoseSearch
from jaxrelax.reconstruction import Belief, Isotypic, IsotypicParts, MapPrior, apply_gain
from jaxrelax.refinement import (
    Band,
    Course,
    Criterion,
    Mode,
    Orders,
    StraightState,
    followed,
)
from jaxrelax.simulate import Simulation, simulate


class Favoured(Latent):
    """Registers are not alike beforehand."""

    weight: np.ndarray
    name: str = eqx.field(static=True, default="favoured", kw_only=True)

    def extend(self, table):
        return table

    def log_prior(self, params, table):
        register = table.value("register")
        return jnp.where(register < 0, 0.0, jnp.log(jnp.asarray(self.weight))[register])


class Damped(MapPrior):
    """The isotypic prior with every shell of the asymmetric part damped further."""

    damping: np.ndarray
    inner: MapPrior = Isotypic()

    def learn(self, halves, belief, particle, rng):
        return self.inner.learn(halves, belief, particle, rng)

    def solve(self, state, portion, particle):
        parts = self.inner.solve(state, portion, particle)
        curve = self.damping[0] ** np.arange(len(parts.asymmetric), dtype=np.float32)
        return IsotypicParts(parts.symmetric, apply_gain(parts.asymmetric, curve))

    def join(self, state, portion, other, strength, particle):
        return self.inner.join(state, portion, other, strength, particle)


class Shaken(PoseSearch):
    """Images are scored a little off their origins."""

    shift_px: np.ndarray

    def __call__(self, target, batch, geometry, poses, prior, n_shells):
        moved = dataclasses.replace(poses, origins_px=poses.origins_px + self.shift_px[None])
        return FixedPoses()(target, batch, geometry, moved, prior, n_shells)


class Shaking(Mode):
    """Poses are what :class:`Shaken` makes of them."""

    pose_search: PoseSearch
    learns_prior = False

    def search(self, searched, resolution_angstrom, everywhere):
        return self.pose_search

    def prior_widths(self):
        return 1.0, 1.0


class Louder(NoiseModel):
    """The noise is a multiple of the residual power."""

    from_images: bool = True
    factor: np.ndarray = eqx.field(kw_only=True)

    def update(self, power, residual, count):
        return np.where(count > 0, self.factor[0] * residual / np.maximum(count, 1.0), power)


class Timid(Course):
    """Asymmetry is held to a strength for ever; criteria are asked at once."""

    nats: np.ndarray

    def init(self, shell):
        return StraightState(Band.starting(shell, growing=False), np.asarray(0.0))

    def orders(self, state):
        return Orders(Belief(6.0, faint=True, by_component=False), self.nats[0], False, True, True)

    def next(self, state, seen):
        return StraightState(followed(state.band, seen), state.optimism)

    def may_stop(self, state):
        return True


class Sharp(Criterion):
    """Posteriors have reached a sharpness, or the asymmetric part a share of the map."""

    wanted: np.ndarray

    def reason(self, state: Any):
        last = state.history[-1]
        enough = last.mean_max_posterior + last.asymmetric_power > self.wanted[0]
        return f"sharp after {last.iteration}" if enough else None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return simulate(
        "phantom", tmp_path_factory.mktemp("outside"),
        Simulation(
            n_images=80, box=28, pixel_size_angstrom=8.0, group="C2", protomer_kda=30.0,
            partner_kda=40.0, snr=0.3, pose_error_deg=0.0, shift_error_angstrom=0.0,
            max_shift_angstrom=5.0, seed=1, dtype="float32",
        ),
    )  # fmt: skip


def refined(data, **changes):
    options = {"mode": Registers(), "relax": Relax("C2", cross_fit=2), "until": MaxIterations(3)}
    return refine(
        data.particles, data.reference, ini_high=30.0, subgroups="none", **options | changes
    )


@pytest.fixture(scope="module")
def usual(data):
    return refined(data)


COMPONENTS = {
    "latent": lambda x: {"latents": (Favoured(np.array([1.0, x], np.float32)),)},
    "map prior": lambda x: {"map_prior": Damped(np.array([x], np.float32))},
    "search": lambda x: {"mode": Shaking(Shaken(np.array([1.0 - x, 0.0], np.float32)))},
    "noise model": lambda x: {"noise": Louder(factor=np.array([x]))},
}  # fmt: skip


# Searches and noise models are also run by the page that tells how to write them.
ON_THE_PAGE = {"search", "noise model"}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k in ON_THE_PAGE)) for k in COMPONENTS],
)
def test_a_component_from_outside_counts_with_its_arrays(kind, data, usual):
    same, other = (refined(data, **COMPONENTS[kind](x)) for x in (1.0, 0.5))
    # With a neutral value it does what the package's own does.
    np.testing.assert_allclose(same.registers, usual.registers, atol=1e-3)
    assert np.abs(other.registers - same.registers).max() > 0.01


def test_a_course_from_outside_counts_with_its_arrays(data):
    weak, strong = (refined(data, course=Timid(np.array([nats]))) for nats in (0.05, 2.0))
    assert weak.history[-1]["register_nats"] < 0.2 < strong.history[-1]["register_nats"]


def test_a_criterion_from_outside_counts_with_its_arrays(data):
    course = Timid(np.array([2.0]))
    early, late = (
        refined(data, course=course, until=Sharp(np.array([wanted])) | MaxIterations(4))
        for wanted in (0.2, 3.0)
    )
    assert early.reason == "sharp after 1"
    assert late.reason == "4 iterations done"
