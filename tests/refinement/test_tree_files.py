"""Trees of arrays as JSON and named arrays, and back."""

import json
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.refinement.tree_files import filled, outlined


class Leaf(eqx.Module):
    values: Any
    nothing: Any = None


class Pair(NamedTuple):
    first: Any
    second: Any


class Outer:
    class Inner(eqx.Module):
        values: Any


class NoModule:
    def __init__(self, **given):
        raise AssertionError("nobody should make one of these")


def there_and_back(tree):
    outline, arrays = outlined(tree)
    return filled(json.loads(json.dumps(outline)), arrays)


TREES = [
    np.arange(3.0),
    None,
    Leaf(np.arange(4, dtype=np.int8)),
    Leaf(Pair(np.ones((2, 3), np.float32), None), {"b": np.array(True), "a": (np.zeros(0),)}),
    {"one": [np.array(-np.inf), np.array(np.nan)], "two": ((), {}, [])},
    (Outer.Inner(np.float64(1) / 3), Leaf(None)),
]


@pytest.mark.parametrize("tree", TREES)
def test_a_tree_comes_back_as_it_was(tree):
    found = there_and_back(tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_arrays_of_jax_become_those_of_the_host():
    found = there_and_back(Leaf(jnp.arange(3)))
    assert isinstance(found.values, np.ndarray)
    np.testing.assert_array_equal(found.values, np.arange(3))


def test_arrays_have_their_paths_as_names():
    tree = Leaf(Pair(np.zeros(1), {"key": np.ones(1)}), [np.zeros(2)])
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    assert set(outlined(tree)[1]) == paths == {
        ".values.first", ".values.second['key']", ".nothing[0]",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["text", 1.0, NoModule, object()])
def test_what_is_no_array_is_refused_by_its_path(value):
    with pytest.raises(TypeError, match=r"at \.values\.second"):
        outlined(Leaf(Pair(np.zeros(1), value)))


@pytest.mark.parametrize(
    "kind",
    [f"{__name__}:NoModule", "builtins:eval", "subprocess:Popen", "builtins:dict", "os:system"],
)
def test_a_class_that_is_no_module_is_refused(kind):
    outline, arrays = outlined(Leaf(np.zeros(1)))
    with pytest.raises(TypeError, match="is no module"):
        filled({**outline, "kind": kind}, arrays)


def test_a_class_or_array_that_is_not_there():
    outline, arrays = outlined(Leaf(np.zeros(1)))
    with pytest.raises(KeyError):
        filled(outline, {})
    with pytest.raises(AttributeError):
        filled({**outline, "kind": f"{__name__}:Gone"}, arrays)
    with pytest.raises(ImportError):
        filled({**outline, "kind": "jaxrelax.gone:Leaf"}, arrays)
    other = {**outline, "children": {"other": outline["children"]["values"]}}
    with pytest.raises(TypeError):
        filled(other, arrays)
