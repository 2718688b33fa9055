"""Fail when something public is not documented, or a page shows code that cannot work.

Public is what the packages name in ``__all__``, and the public methods and properties of the
classes among it. Each needs a docstring of its own and a ``::: name`` entry on a page of
``docs/api``. Python examples on all pages must compile, and what they take from ``jaxrelax`` must
exist. Run by ``make docs``; prints what is wrong and exits with 1.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).resolve().parent
PACKAGES = (
    *("geometry", "io", "imaging", "inference", "reconstruction", "engine", "judgement"),
    *("refinement", "in_memory", "simulate", "assessment"),
)
ENTRY = re.compile(r"^::: +(\S+)", re.MULTILINE)
EXAMPLE = re.compile(r"^```python.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documented(thing: object) -> bool:
    """Whether it has a docstring that somebody wrote."""
    text = (getattr(thing, "__doc__", None) or "").strip()
    if not inspect.isclass(thing):
        return bool(text)
    # Dataclasses and named tuples without docstring are given their signature as one.
    made = dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")
    own = "__doc__" in vars(thing) and bool(text)
    return own and not (made and text.startswith(thing.__name__ + "("))


def members(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class defines itself, and its ``__call__``."""
    for name, value in vars(cls).items():
        if name.startswith("_") and name != "__call__":
            continue
        if inspect.isclass(value):
            continue
        # callable() of the attribute too: equinox wraps methods, and fields may hold functions.
        method = callable(value) and callable(getattr(cls, name, None))
        if method or isinstance(value, property | cached_property | classmethod | staticmethod):
            yield name, value


def without_docstring() -> Iterator[str]:
    """Public symbols, methods and properties that say nothing."""
    for package in PACKAGES:
        module = importlib.import_module(f"jaxrelax.{package}")
        if not documented(module):
            yield f"jaxrelax.{package}"
        for symbol in module.__all__:
            thing = getattr(module, symbol)
            name = f"jaxrelax.{package}.{symbol}"
            if (inspect.isclass(thing) or callable(thing)) and not documented(thing):
                yield name
            if inspect.isclass(thing) and thing.__module__.startswith("jaxrelax"):
                yield from (f"{name}.{m}" for m, value in members(thing) if not documented(value))


def not_on_a_page() -> Iterator[str]:
    """Public symbols that no API page shows."""
    shown = {name for page in DOCS.glob("api/*.md") for name in ENTRY.findall(page.read_text())}
    identities = set()
    for package in PACKAGES:
        module = importlib.import_module(f"jaxrelax.{package}")
        identities.add(id(module))
        for symbol in module.__all__:
            identities.add(id(getattr(module, symbol)))
            if f"jaxrelax.{package}.{symbol}" not in shown:
                yield f"jaxrelax.{package}.{symbol}"
    top = importlib.import_module("jaxrelax")
    yield from (f"jaxrelax.{s}" for s in top.__all__ if id(getattr(top, s)) not in identities)


def broken_examples() -> Iterator[str]:
    """Python examples that do not compile, or use names that jaxrelax does not have."""
    for page in [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]:
        text = page.read_text()
        for match in EXAMPLE.finditer(text):
            where = f"{page.relative_to(DOCS.parent)}:{text[: match.start()].count(chr(10)) + 1}"
            try:
                tree = ast.parse(match[1])
            except SyntaxError as error:
                yield f"{where}: {error.msg}"
                continue
            yield from (f"{where}: there is no {name}" for name in unknown_names(tree))


def unknown_names(tree: ast.Module) -> Iterator[str]:
    """What an example imports from jaxrelax, or reads from ``jr``, and is not there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxrelax"):
            module: ModuleType = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    yield f"{node.module}.{alias.name}"
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "jr"
            and not hasattr(importlib.import_module("jaxrelax"), node.attr)
        ):
            yield f"jaxrelax.{node.attr}"


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    failures = 0
    for heading, found in (
        ("without docstring", without_docstring()),
        ("not on an API page (docs/api)", not_on_a_page()),
        ("examples that cannot work", broken_examples()),
    ):
        names = list(found)
        failures += len(names)
        if names:
            print(f"{heading}:", *names, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
