"""The options of a command, read from its fields: names, and what may stand behind them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tyro.conf import Positional

from jaxrelax.cli.options import Switch, flag

POSITIONAL = typing.get_args(Positional[int])[1]


class Option(NamedTuple):
    """An option.

    Attributes:
        names: its own first, then others that are understood, with hyphens.
        choices: words that may follow; empty where anything may.
        takes_value: whether anything follows.
        takes_path: whether that is a file or folder.
    """

    names: tuple[str, ...]
    choices: tuple[str, ...]
    takes_value: bool
    takes_path: bool


def options_of(command: type) -> list[Option]:
    """All options of a command, those of its groups among them, and ``--help``.

    Args:
        command: a dataclass that tyro makes a command line of.
    """
    helps = [Option((name,), (), False, False) for name in ("--help", "--help-all")]
    return [*_options(command), *helps]


def _options(kind: type) -> Iterator[Option]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        bare, marks = _bare(hints[field.name])
        if dataclasses.is_dataclass(bare):
            yield from _options(typing.cast(type, bare))
        elif POSITIONAL not in marks:
            yield _option(field.name, hints[field.name])


def _option(name: str, hint: Any) -> Option:
    bare, marks = _bare(hint)
    named = [mark for mark in marks if hasattr(mark, "aliases")]
    own = next((mark.name for mark in named if mark.name), None)
    names = [flag(name) if own is None else f"--{own}"]
    names += [alias for mark in named for alias in (mark.aliases or ())]
    if bare is bool:
        switch = set(_bare(Switch)[1]) <= set(marks)
        return Option((*names, *(() if switch else (f"--no-{names[0][2:]}",))), (), False, False)
    leaves = list(_leaves(bare))
    words = tuple(str(word) for kind, word in leaves if kind is typing.Literal)
    return Option(tuple(names), words, True, any(kind is Path for kind, _ in leaves))


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its annotations, and these; annotations may stand around annotations."""
    marks: tuple[Any, ...] = ()
    while typing.get_origin(hint) is typing.Annotated:
        hint, *more = typing.get_args(hint)
        marks += tuple(more)
    return hint, marks


def _leaves(hint: Any) -> Iterator[tuple[Any, Any]]:
    """What a value may be: a type, or ``Literal`` with a word."""
    hint, _ = _bare(hint)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        yield from ((typing.Literal, word) for word in typing.get_args(hint))
    elif origin in (typing.Union, types.UnionType, tuple):
        for one in typing.get_args(hint):
            yield from _leaves(one)
    else:
        yield hint, None
