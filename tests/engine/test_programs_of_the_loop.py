"""The compiled programs of a refinement: how often they are traced, what they take from the host,
and that they can be made for an accelerator on a machine that has none."""

import equinox as eqx
import jax
import numpy as np
import pytest

from jaxrelax.engine import program_cache
from jaxrelax.engine.workers import Workers
from jaxrelax.refinement import Homogeneous, Local, Registers, Relax, prepare, step
from jaxrelax.simulate import Simulation, simulate

MOST_TRACES = 1
# A layout is a wish of the compiler's own, without a promise for other versions of it.
LAYOUTS = [jax.export.DisabledSafetyCheck.custom_call("LayoutConstraint")]


class Recorded:
    """Programs as they are made in a cold process: each with what it was first called with."""

    def __init__(self, patch):
        self.made = []
        originals = Workers.program, Workers.alike

        def program(workers, function, *rest, **options):
            counted = eqx.debug.assert_max_traces(function, max_traces=MOST_TRACES)
            return self.recorded(function, originals[0](workers, counted, *rest, **options))

        def alike(workers, function):
            counted = eqx.debug.assert_max_traces(function, max_traces=MOST_TRACES)
            return self.recorded(function, originals[1](workers, counted))

        patch.setattr(Workers, "program", program)
        patch.setattr(Workers, "alike", alike)
        patch.setattr(program_cache, "_PROGRAMS", {})

    def recorded(self, function, compiled):
        """A program that remembers what it was called with, and takes nothing from the host."""
        called = {}
        self.made.append((function, called))

        def guarded(*values):
            called.setdefault(jax.tree.structure(values), jax.tree.map(_shape, values))
            # Whatever a program needs was put on its device before, by name.
            with jax.transfer_guard("disallow"):
                return compiled(*values)

        return guarded


def _shape(value):
    return jax.ShapeDtypeStruct(np.shape(value), value.dtype)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return simulate(
        "phantom", tmp_path_factory.mktemp("loop"),
        Simulation(
            n_images=64, box=28, pixel_size_angstrom=8.0, group="C2", protomer_kda=25.0,
            partner_kda=30.0, snr=0.3, pose_error_deg=2.0, shift_error_angstrom=1.0,
            max_shift_angstrom=5.0, seed=1, dtype="float32",
        ),
    )  # fmt: skip


MODES = {
    "held": (Registers(), 3),
    "local": (Local(), 3),
    "global": (Homogeneous(relax_from="start", coarsest_order=1, finest_order=1), 2),
}


@pytest.fixture(
    scope="module", params=["held", "local", pytest.param("global", marks=pytest.mark.slow)]
)
def recorded(request, data):
    """Programs of some iterations in a mode, from a cold cache."""
    with pytest.MonkeyPatch.context() as patch:
        found = Recorded(patch)
        iterated(data, *MODES[request.param])
    return found


def iterated(data, mode, iterations):
    """The state after some iterations."""
    setup = prepare(
        data.particles, data.reference, mode=mode, relax=Relax("C2", cross_fit=2), ini_high=32.0,
        devices=1,
    )  # fmt: skip
    state = setup.state
    for _ in range(iterations):
        state, _ = step(setup.problem, state)
    return state


@pytest.fixture(scope="module")
def as_an_accelerator(data):
    """Programs and state of iterations that go the way of an accelerator, on this processor."""
    with pytest.MonkeyPatch.context() as patch:
        found = Recorded(patch)
        patch.setattr(jax, "default_backend", lambda: "cuda")
        return found, iterated(data, *MODES["held"])


def names(recorded):
    return [function.__name__ for function, called in recorded.made if called]


def test_programs_are_few_and_traced_once(recorded):
    """Another trace of any of them would have raised while the iterations ran."""
    made = names(recorded)
    assert made.count("search_images") <= 2
    assert made.count("deposit_images") <= 2
    assert made.count("prepare_images") <= 3
    assert {"search_images", "deposit_images", "prepare_images"} <= set(made)


def test_a_program_that_is_traced_anew_for_every_shape_is_noticed():
    counted = eqx.filter_jit(eqx.debug.assert_max_traces(lambda x: x + 1, max_traces=MOST_TRACES))
    for n in range(1, MOST_TRACES + 1):
        counted(np.zeros(n))
    with pytest.raises(Exception, match="trace"):
        counted(np.zeros(MOST_TRACES + 1))


def test_what_a_program_takes_from_the_host_is_noticed():
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match=r"[Dd]isallowed"):
        jax.jit(lambda x: x + 1)(np.zeros(3))


def test_the_way_of_an_accelerator_finds_the_same(data, as_an_accelerator):
    """Maps of the folds as programs, without NumPy and FINUFFT."""
    found, state = as_an_accelerator
    assert "make" in names(found)
    expected = iterated(data, *MODES["held"])
    np.testing.assert_allclose(state.beliefs.registers, expected.beliefs.registers, atol=2e-3)
    scale = np.abs(expected.maps.symmetric).max()
    np.testing.assert_allclose(
        state.maps.symmetric, expected.maps.symmetric, atol=1e-4 * scale, rtol=0.0
    )


def test_programs_of_the_loop_lower_for_an_accelerator(recorded, monkeypatch):
    """As they are traced where the backend is one: blocks are large there, and loops others."""
    lower_all(recorded, monkeypatch)


def test_maps_of_folds_lower_for_an_accelerator(as_an_accelerator, monkeypatch):
    lower_all(as_an_accelerator[0], monkeypatch)


def lower_all(recorded, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cuda")
    lowered = 0
    for function, called in recorded.made:
        for values in called.values():
            # Traced anew: what was traced for the processor would be found again.
            fresh = jax.jit(lambda *x, function=function: function(*x))
            module = jax.export.export(fresh, platforms=["cuda"], disabled_checks=LAYOUTS)(
                *values
            ).mlir_module()
            assert "callback" not in module
            assert "host" not in module
            lowered += 1
    assert lowered >= 3
