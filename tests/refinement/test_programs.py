"""Components that differ get programs of their own, and a run does not resume as another one."""

import os
import subprocess
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.engine.compilation import Compilations
from jaxrelax.engine.fingerprint import fingerprint
from jaxrelax.geometry import point_group
from jaxrelax.imaging import RadialNoise
from jaxrelax.inference import FixedPoses, GaussNewton, PosePosterior, PoseSearch
from jaxrelax.io import InputError, OutputFolder, read_particles
from jaxrelax.refinement import Homogeneous, Local, Registers, Relax, prepare, refine, step
from jaxrelax.refinement.checkpoint import load_checkpoint, particles_hash, save_checkpoint
from jaxrelax.refinement.described import described

from .conftest import TINY, DataSet


class Tempered(PoseSearch):
    """Held poses, with the evidence times a number that is an array of JAX."""

    beta: jax.Array

    def __call__(self, target, batch, geometry, poses, prior, n_shells) -> PosePosterior:
        found = FixedPoses()(target, batch, geometry, poses, prior, n_shells)
        return eqx.tree_at(lambda f: f.log_evidence, found, self.beta * found.log_evidence)


DEFINED = """
class Sharpened(FixedPoses):
    def __call__(self, target, batch, geometry, poses, prior, n_shells):
        found = FixedPoses()(target, batch, geometry, poses, prior, n_shells)
        return eqx.tree_at(lambda f: f.log_evidence, found, {factor} * found.log_evidence)
"""


def defined(factor: float) -> PoseSearch:
    """A search of a class that a notebook's cell defines, and may define again."""
    names = {"FixedPoses": FixedPoses, "eqx": eqx, "__name__": "__main__"}
    exec(DEFINED.format(factor=factor), names)
    return names["Sharpened"]()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return DataSet(tmp_path_factory.mktemp("tiny"), **TINY | {"n_images": 100})


def arguments(data, search):
    """Of a run with poses held by a search of one's own, from the true registers."""
    return (data.folder / "truth.star", data.reference), dict(
        mode=Local(pose_search=search, learn_prior=False), relax=Relax("C4", start="poses")
    )


def registers(data, search):
    """After two iterations; the first makes the maps."""
    inputs, options = arguments(data, search)
    setup = prepare(*inputs, **options)
    state, _ = step(setup.problem, setup.state)
    return step(setup.problem, state)[0].beliefs.registers


def test_searches_that_differ_in_an_array_of_jax(tiny):
    sharp = registers(tiny, Tempered(jnp.float32(1.0)))
    assert sharp.max(axis=1).mean() > 0.3
    with Compilations() as other:
        np.testing.assert_array_equal(registers(tiny, Tempered(jnp.float32(0.0))), 0.25)
    with Compilations() as again:
        np.testing.assert_array_equal(registers(tiny, Tempered(jnp.float32(1.0))), sharp)
    # What is equal shares its programs: only another search has some of its own.
    assert other.programs > again.programs


def test_a_class_defined_again_under_its_name(tiny):
    assert registers(tiny, defined(1.0)).max(axis=1).mean() > 0.3
    np.testing.assert_array_equal(registers(tiny, defined(0.0)), 0.25)


def test_a_run_does_not_resume_as_another_one(tiny, tmp_path):
    folder = OutputFolder.create(tmp_path / "out")
    inputs, options = arguments(tiny, defined(1.0))
    setup = prepare(*inputs, **options)
    save_checkpoint(folder, setup.state, setup.identity)
    for other in (defined(0.0), Tempered(jnp.float32(1.0))):
        _, changed = arguments(tiny, other)
        with pytest.raises(InputError, match=r"mode was .* and is now"):
            refine(*inputs, **changed, out=folder, resume=True)
    again = prepare(*inputs, **arguments(tiny, defined(1.0))[1])
    assert load_checkpoint(folder, again.identity) is not None


class Holding(eqx.Module):
    """Fields of all kinds, hidden from JAX or not."""

    array: object = None
    hidden: object = eqx.field(static=True, default=None)


def shifted(x, by=1):
    return x + by


def doubled(x):
    return x + x


UNEQUAL = [
    jnp.zeros(3), jnp.ones(3), np.zeros(3, np.float32), np.zeros(3), np.zeros((1, 3)),
    np.zeros(3, np.int32), jnp.float32(1), np.float32(1), 1.0, 1, True, "1", None,
    0.0, -0.0, jnp.zeros(()), -jnp.zeros(()), jnp.full((), jnp.nan), float("nan"),
    (1, 2), [1, 2], (1, (2,)), {"a": 1}, {"b": 1}, {1, 2}, b"1",
    shifted, doubled, partial(shifted, by=2), partial(shifted, by=3),
    jax.random.key(0), jax.random.key(1), point_group("C2"), point_group("C3"),
    GaussNewton(), GaussNewton(n_steps=2), Tempered(jnp.float32(0.0)), Tempered(jnp.float32(1.0)),
    np.array(["a", None], object), np.array(["b", None], object),
]  # fmt: skip


@pytest.mark.parametrize("key", [fingerprint, described])
@pytest.mark.parametrize("field", ["array", "hidden"])
@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
def test_what_differs_has_another_key(key, field):
    keys = [key(Holding(**{field: value})) for value in UNEQUAL]
    same = {(i, j) for i in range(len(keys)) for j in range(i) if keys[i] == keys[j]}
    # Scalars and zero-dimensional arrays of NumPy and JAX of one type read alike.
    if key is described:
        alike = {frozenset((0, 2)), frozenset((6, 7))}
        same = {pair for pair in same if frozenset(pair) not in alike}
    assert not same


@pytest.mark.parametrize("key", [fingerprint, described])
@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
def test_what_is_equal_has_the_same_key(key):
    def make():
        inside = {"a": np.arange(3), "b": (jnp.ones(2), float("nan"), partial(shifted, by=2))}
        return Holding(inside, np.arange(4.0)), Tempered(jnp.float32(0.5)), jax.random.key(3)

    assert key(make()) == key(make())
    assert hash(key(make())) == hash(key(make()))


def test_things_that_cannot_be_compared_are_only_themselves():
    class Mutable:
        __hash__ = None  # pyright: ignore

        def __eq__(self, other):
            return True

    one, other = Mutable(), Mutable()
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)


def test_components_are_described_as_before():
    assert described(Relax("C4", to="C2")) == "Relax(group='C4', to='C2')"
    assert described(Local(sigma_rotation_deg=1.0)) == "Local(sigma_rotation_deg=1.0)"
    assert described(Registers()) == repr(Registers())
    assert described(RadialNoise(fixed=True)) == "RadialNoise(fixed=True)"
    assert "\n" not in described(Homogeneous(local=Local(sigma_rotation_deg=3.0)))
    assert "beta=f32(0.5)" in described(Local(pose_search=Tempered(jnp.float32(0.5))))


def test_code_tells_classes_of_one_name_apart():
    assert described(defined(1.0)) == described(defined(1.0))
    assert described(defined(1.0)) != described(defined(2.0))
    assert described(defined(1.0)).startswith("__main__.Sharpened#")


SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from jaxrelax.inference import PoseSearch
from jaxrelax.refinement import Local
from jaxrelax.refinement.described import described

def make(power):
    def raised(x):
        return x**power if power in {"a", "b", 2} else x
    return raised

class Mine(PoseSearch):
    beta: jax.Array
    how: object = make(2)
    words: object = frozenset({"one", "two", "three"})
    names = ("first", "second")

    @property
    def modes(self):
        return 1 if str(self.beta) in {"x", "y", "z"} else 2

    def __call__(self, *_):
        return super().__call__(*[lambda x: (x, self) for _ in range(3)])

print(described(Local(pose_search=Mine(jnp.arange(3.0)))))
"""


def test_the_description_is_the_same_in_every_process():
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT], text=True, capture_output=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
    assert "pose_search=__main__.Mine#" in found.pop()


def test_what_was_read_and_then_changed_is_another_table(tiny):
    table = read_particles(tiny.star)
    assert particles_hash(table) == particles_hash(read_particles(tiny.star))
    # Other roundings of the same angles are the same poses.
    nearly = table.with_updates(rotations=table.rotations * (1.0 + 1e-15))
    assert particles_hash(nearly) == particles_hash(table)
    turned = table.with_updates(rotations=table.rotations[:, [1, 0, 2]] * [[[1], [1], [-1]]])
    swapped = table.with_updates(half_set=3 - table.half_set)
    fewer = table.select(np.arange(len(table)) > 0)
    hashes = {particles_hash(each) for each in (table, turned, swapped, fewer)}
    assert len(hashes) == 4
