"""Small data, and a refinement that takes no time."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxrelax.cli import commands, main
from jaxrelax.engine import Execution
from jaxrelax.geometry import parse_group
from jaxrelax.reconstruction import IsotypicParts, Particle
from jaxrelax.refinement import Problem, State, StepInfo
from jaxrelax.simulate import Simulation, simulate
from tests.assessment.conftest import make_result


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A simulated data set of 40 images."""
    config = Simulation(
        n_images=40, box=32, pixel_size_angstrom=7.0, protomer_kda=15.0, partner_kda=30.0,
        dtype="float32",
    )  # fmt: skip
    return simulate("phantom", tmp_path_factory.mktemp("data"), config)


@pytest.fixture(autouse=True)
def no_kept_programs(monkeypatch):
    """Commands leave JAX, and the cache of whoever runs the tests, as they are."""
    monkeypatch.setattr(commands, "_keep_programs", lambda: None)


@pytest.fixture
def run(capsys):
    """Run a command; returns its exit status and what it wrote on both streams."""

    def run_(*argv):
        capsys.readouterr()
        try:
            status = main([str(word) for word in argv])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run_


def bare(kind, **attributes):
    """An object of a class with these attributes alone; what else is read raises."""
    made = object.__new__(kind)
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


class FakeRefine:
    """Stands for `jaxrelax.refine`: keeps what it was asked, and calls the callbacks."""

    def __init__(self, result):
        self.result, self.asked = result, {}
        self.during = lambda: None

    def __call__(self, particles, reference, *, callbacks, **options):
        self.asked = {"particles": particles, "reference": reference, **options}
        particle = bare(Particle, group=parse_group("C4"), subgroup=parse_group("C1"))
        problem = bare(
            Problem,
            execution=bare(Execution, own=np.ones(len(particles), bool)),
            particle=particle,
            of_maps=(particle,),
            shells=SimpleNamespace(edge_angstrom=160.0),
        )
        part = IsotypicParts(*np.zeros((2, 8, 8, 8), np.float32))
        maps = SimpleNamespace(parts=lambda: [part])
        state = bare(State, iteration=0, history_before=(), maps=maps)
        info = bare(StepInfo, iteration=1)
        for callback in callbacks:
            callback.on_start(problem, state)
            callback.on_batch(10)
        self.during()
        for callback in callbacks:
            callback.on_step(problem, state, info)
            callback.on_finish("it was enough")
            callback.on_batch(10)
        return self.result


@pytest.fixture
def fake_refine(monkeypatch, tmp_path):
    fake = FakeRefine(make_result(tmp_path / "result"))
    monkeypatch.setattr("jaxrelax.cli.refine.refine", fake)
    return fake
