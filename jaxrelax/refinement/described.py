"""Components in words that people can read, and that differ whenever the components do."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

# Hexadecimal digits of a digest: enough that no two things of one user share them.
DIGITS = 16
PLAIN = (bool, int, float, complex, str, bytes, tuple, jax.Array, np.ndarray, np.generic)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def described(value: Any) -> str:
    """Class, fields and digests of arrays and code: the same in every process and on any machine.

    Like ``repr`` of a module, on one line: ``Relax(group='C4', to='C2')``. Fields of this package's
    classes that have their default are left out. Of an array there is the SHA-256 of its bits
    beside type and shape, ``f32[3]#5e88489…``; single numbers are shown as they are.

    A class or function that is not of this package comes with its module and a digest of its
    compiled code, ``__main__.Best#a1b2…(beta=f32(1.0))``: scripts and notebooks define another one
    under the same name. What the code refers to in its module is known by name only.
    """
    return _text(value, ())


def _text(value: Any, around: tuple[int, ...]) -> str:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _of_array(value, around)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if id(value) in around:  # a class that its own methods mention
        return "…"
    around = (*around, id(value))
    if isinstance(value, type):
        return _name(value, around)
    if isinstance(value, partial):
        return _call("partial", [value.func, *value.args], value.keywords, around)
    if isinstance(value, types.MethodType):
        return f"{_text(value.__self__, around)}.{value.__name__}"
    code = getattr(_plain(value), "__code__", None)
    if isinstance(code, types.CodeType) or isinstance(value, types.BuiltinFunctionType | np.ufunc):
        return _name(value, around)
    if dataclasses.is_dataclass(value):
        return _call(_name(type(value), around), (), _fields(value, around), around)
    if isinstance(value, Mapping):
        parts = [f"{_text(key, around)}: {_text(each, around)}" for key, each in value.items()]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(_text(each, around) for each in value)) + "}"
    if isinstance(value, tuple | list):
        inside = ", ".join(_text(each, around) for each in value)
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    found = jax.tree_util.default_registry.flatten_one_level(value)
    if found is not None:
        return _call(_name(type(value), around), found, {}, around)
    if type(value).__repr__ is object.__repr__:
        return _call(_name(type(value), around), (), getattr(value, "__dict__", {}), around)
    return _ADDRESS.sub("", repr(value))


def _call(name: str, values, fields: Mapping[str, Any], around: tuple[int, ...]) -> str:
    parts = [_text(value, around) for value in values]
    parts += [f"{key}={_text(value, around)}" for key, value in fields.items()]
    return f"{name}({', '.join(parts)})"


def _fields(value: Any, around: tuple[int, ...]) -> dict[str, Any]:
    """Fields of a dataclass; of this package's those that are not as by default."""
    shown = {}
    for field in dataclasses.fields(value):
        held = getattr(value, field.name, None)
        usual = field.default is not dataclasses.MISSING and _ours(type(value))
        if not (usual and _text(held, around) == _text(field.default, around)):
            shown[field.name] = held
    return shown


def _of_array(value, around: tuple[int, ...]) -> str:
    kind = str(value.dtype)
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    host = np.asarray(value)
    kind = re.sub(r"^(complex|float|uint|int)(?=\d)", lambda m: m[1][0], kind)
    shape = ",".join(map(str, host.shape))
    if host.dtype.hasobject:
        return f"{kind}[{shape}]{_text(host.ravel().tolist(), around)}"
    if host.ndim == 0 and host.dtype.kind in "biufc":
        return f"{kind}({host.item() if host.dtype.itemsize >= 8 else host})"
    # Little-endian everywhere.
    bits = host.astype(host.dtype.newbyteorder("<"), copy=False).tobytes()
    return f"{kind}[{shape}]#{_digest(bits)}"


def _ours(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").split(".")[0] == "jaxrelax"


def _name(thing: Any, around: tuple[int, ...]) -> str:
    """Of a class or function; of one that is not ours with its module and a digest of its code."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", str(thing))
    if _ours(thing):
        return name
    module = getattr(thing, "__module__", None) or "builtins"
    name = f"{module}.{name}"
    code = _code_of_class(thing, around) if isinstance(thing, type) else _code(thing, around)
    return f"{name}#{_digest(code.encode())}" if code else name


def _plain(thing: Any) -> Any:
    """A function as it was written: without the wrappers that made it a property or compiled it."""
    while True:
        inner = next(
            (
                getattr(thing, name)
                for name in ("fget", "func", "__func__", "__wrapped__")
                if getattr(thing, name, None) is not None
            ),
            None,
        )
        if inner is None or isinstance(thing, type | partial):
            return thing
        thing = inner


def _code_of_class(cls: type, around: tuple[int, ...]) -> str:
    """Methods and attributes, inherited ones too, of classes that are not of this package."""
    parts, fields = [], getattr(cls, "__dataclass_fields__", {})
    for base in cls.__mro__:
        if _ours(base) or (base.__module__ or "").split(".")[0] in ("builtins", "abc", "equinox"):
            continue
        for name, member in sorted(vars(base).items()):
            # What is generated of the fields follows from them.
            generated = name in ("__init__", "__repr__", "__eq__", "__hash__", "__replace__")
            if code := "" if generated and _is_generated(member) else _code(member, around):
                parts.append(f"{base.__qualname__}.{name}: {code}")
            elif name not in fields and isinstance(member, PLAIN) and not name.startswith("__"):
                parts.append(f"{base.__qualname__}.{name} = {_text(member, around)}")
    return "; ".join(parts)


def _is_generated(member: Any) -> bool:
    code = getattr(_plain(member), "__code__", None)
    return code is None or code.co_filename.startswith("<string>")


def _code(function: Any, around: tuple[int, ...]) -> str:
    """Instructions, constants, names, defaults and closure of a Python function; "" of others."""
    function = _plain(function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return ""
    around = (*around, id(function))
    held = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(_text(cell.cell_contents, around))
        except ValueError:  # not filled yet
            held.append("")
    defaults = (function.__defaults__, function.__kwdefaults__)
    return f"{_of_code(code)} {_text(defaults, around)} {held}"


def _of_code(code: types.CodeType) -> str:
    constants = [
        _of_code(each) if isinstance(each, types.CodeType) else _text(each, ())
        for each in code.co_consts
    ]
    return f"{code.co_code.hex()} {constants} {code.co_names}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]
