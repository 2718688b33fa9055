"""Trees of arrays as JSON and named arrays, and back.

Modules, named tuples, dicts, tuples and lists are described in JSON, class by class; every array
has its path in the tree as its name, such as ``.poses.rotations``. Nothing is executed when a tree
is read, but the classes of its modules are imported.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

Outline = dict[str, Any] | None


def outlined(tree: Any, path: str = "") -> tuple[Outline, dict[str, np.ndarray]]:
    """What a tree is made of, JSON-able, and its arrays by path.

    Raises:
        TypeError: it holds something else than arrays.
    """
    if tree is None:
        return None, {}
    if isinstance(tree, jax.Array | np.ndarray | np.generic):
        return {"array": path}, {path: np.asarray(tree)}
    kind, children = _children(tree, path)
    arrays: dict[str, np.ndarray] = {}
    inside = {}
    for name, (child, where) in children.items():
        inside[name], found = outlined(child, where)
        arrays |= found
    return {"kind": kind, "children": inside}, arrays


def filled(outline: Outline, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree that was outlined.

    Raises:
        KeyError: an array is missing.
        ImportError, AttributeError, TypeError: a class is no longer what it was.
    """
    if outline is None:
        return None
    if "array" in outline:
        return arrays[outline["array"]]
    children = {name: filled(child, arrays) for name, child in outline["children"].items()}
    kind = outline["kind"]
    if kind == "dict":
        return children
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(children.values())
    return _class(kind)(**children)


def _children(tree: Any, path: str) -> tuple[str, dict[str, tuple[Any, str]]]:
    """Kind of a node, and its children with their paths."""
    if isinstance(tree, Mapping):
        return "dict", {str(k): (v, f"{path}[{str(k)!r}]") for k, v in tree.items()}
    fields = getattr(tree, "_fields", None)
    if isinstance(tree, eqx.Module):
        fields = [field.name for field in dataclasses.fields(tree)]
    if fields is not None:
        name = f"{type(tree).__module__}:{type(tree).__qualname__}"
        return name, {f: (getattr(tree, f), f"{path}.{f}") for f in fields}
    if isinstance(tree, tuple | list):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return kind, {str(i): (each, f"{path}[{i}]") for i, each in enumerate(tree)}
    raise TypeError(f"the state holds {tree!r} at {path or 'its root'}, which is no array")


def _class(name: str) -> type:
    """A module class or named tuple.

    Raises:
        TypeError: it is something else, which a checkpoint has no business with.
    """
    module, _, qualified = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    known = isinstance(found, type) and (
        issubclass(found, eqx.Module) or (issubclass(found, tuple) and hasattr(found, "_fields"))
    )
    if not known:
        raise TypeError(f"{name} is no module")
    return found
