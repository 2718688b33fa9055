"""What the options of several commands need."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, get_type_hints

import tyro

from jaxrelax.io import InputError


def in_words(default: str) -> str:
    """What the help says of the default of an option that is on or off."""
    return {"True": "(by default)", "False": ""}.get(default, f"(default: {default})")


# Both are on or off: the one without, the other with a --no-… that switches it off.
Switch = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint=in_words)]
OnOff = Annotated[bool, tyro.conf.arg(help_behavior_hint=in_words)]
VALUES = tyro.constructors.ConstructorRegistry()


@VALUES.primitive_rule
def _nothing(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """What an option that may be left out is without: a word of English."""
    if info.type is not type(None):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="none",
        choices=("none",),
        instance_from_str=lambda words: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda value: ["none"],
    )


def parsed(command: type, prog: str, given: Sequence[str]) -> Any:
    """A command with the options that were given.

    Args:
        command: a dataclass.
        prog: what it is called.
        given: options.

    Raises:
        SystemExit: status 0 after the help, 2 for options that cannot be.
    """
    with VALUES:
        return tyro.cli(command, prog=prog, args=given)


def default_of(owner: Any, name: str) -> Any:
    """Default of a dataclass field or of a function's argument, so that no option repeats it.

    Raises:
        AttributeError: there is no such field or argument, or it has no default.
    """
    if dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            if field.name == name and field.default is not dataclasses.MISSING:
                return field.default
    else:
        parameter = inspect.signature(owner).parameters.get(name)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return parameter.default
    raise AttributeError(f"{owner} has no default for {name!r}")


def flag(name: str) -> str:
    """``--sigma-rotation-deg`` for ``sigma_rotation_deg``."""
    return "--" + name.replace("_", "-")


def most_used(command: type) -> type:
    """The same command whose help has only its most used options; all of them are understood.

    Args:
        command: a dataclass; its ``most_used`` names the fields, or there is none.
    """
    names = getattr(command, "most_used", ())
    if not names:
        return command
    hints = get_type_hints(command, include_extras=True)
    others = [field for field in dataclasses.fields(command) if field.name not in names]
    kept = {field.name: field.default for field in others}
    body: dict[str, Any] = {
        "__annotations__": {name: Annotated[hints[name], tyro.conf.Suppress] for name in kept},
        "__module__": command.__module__,
        "__doc__": f"{command.__doc__}\n\nMost used options; --help-all lists all of them.",
    }
    defaults = {n: value for n, value in kept.items() if value is not dataclasses.MISSING}
    return dataclasses.dataclass(frozen=True)(type(command.__name__, (command,), body | defaults))


def given_options(command: Any) -> dict[str, Any]:
    """Options of a command, and of the groups in it, that are not at their default."""
    given = {}
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            given |= given_options(value)
        elif value != field.default:
            given[field.name] = value
    return given


def refuse_idle(command: Any, names: Iterable[str], reason: str) -> None:
    """Raise for those of a command's options that were given although they cannot act.

    Args:
        command: a command, or a group of options.

    Raises:
        InputError: names the options and the reason.
    """
    given = given_options(command)
    idle = [flag(name) for name in names if name in given]
    if idle:
        raise InputError(f"{', '.join(idle)}: {reason}.")


def checked(make: Callable[..., Any], **fields: Any) -> Any:
    """A component made from options; what it finds wrong with them is bad input.

    Raises:
        InputError: the component's own message.
    """
    try:
        return make(**fields)
    except ValueError as error:
        raise InputError(str(error)) from error
