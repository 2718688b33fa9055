"""Where a criterion would have stopped a run that is over: prototyped in seconds, not in hours."""

from __future__ import annotations

import ast
import csv
import dataclasses
import importlib
import inspect
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxrelax.io import InputError
from jaxrelax.refinement import criteria
from jaxrelax.refinement.criteria import Criterion, reason_of
from jaxrelax.refinement.history import StepInfo

KNOWN = {
    name: one
    for name, one in vars(criteria).items()
    if isinstance(one, type) and issubclass(one, Criterion) and one is not Criterion
    and name not in ("Both", "Either", "FinalPasses")
}  # fmt: skip
# module:Name, but not in a text.
ELSEWHERE = re.compile(r"(?<![\w.'\"])([A-Za-z_][\w.]*):(?=[A-Za-z_])")


class Stop(NamedTuple):
    """Where a criterion is satisfied for the first time.

    Attributes:
        iteration: counted over all stages, as in ``history.csv``.
        reason: in words.
        info: of that iteration.
    """

    iteration: int
    reason: str
    info: StepInfo


@dataclass(frozen=True)
class Watched:
    """What of a state is kept when a run is over: its history, and how far it had come."""

    history: tuple[StepInfo, ...]

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history)

    def __getattr__(self, name: str) -> Any:
        raise InputError(
            f"this criterion looks at state.{name}, and of a finished run the history alone is "
            "kept. Ask it in a run: refine(until=...), or jaxrelax refine --until."
        )


def read_history(folder: str | os.PathLike) -> tuple[StepInfo, ...]:
    """The iterations of an output folder, from its ``history.csv``.

    Raises:
        InputError: there is none, or it lacks a column.
    """
    path = Path(folder) / "history.csv"
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name the output folder of a finished run")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise InputError(f"{path}: no iteration is in it")
    try:
        return tuple(map(StepInfo.from_row, rows))
    except KeyError as error:
        raise InputError(
            f"{path}: column {error.args[0]} is missing; the run is of an older version"
        ) from error


def replay(
    history: Sequence[StepInfo], until: Criterion, *, everywhere: bool = False
) -> Stop | None:
    """Where a criterion would have stopped a run, as far as the run went.

    It is asked when the run asked its own: when nothing was sought any more and poses had settled.
    (``MaxIterations`` counts over all stages here.)

    Args:
        history: of the run, as from :func:`read_history`, or of its state.
        until: the criterion; it may look at the history alone.
        everywhere: ask in every iteration, as with ``course=Straight()``: iterations in which
            asymmetry was sought count as settled.

    Raises:
        InputError: the criterion looks at more than the history.
    """
    infos = tuple(_settled(info) if everywhere else info for info in history)
    for number in range(1, len(infos) + 1):
        state: Any = Watched(infos[:number])
        asked = infos[number - 1].settled
        reason = reason_of(until, state, limit=not asked)
        if reason is not None:
            return Stop(number, reason, infos[number - 1])
    return None


def _settled(info: StepInfo) -> StepInfo:
    return dataclasses.replace(info, settled=True)


def criterion_from_text(text: str) -> Criterion:
    """A criterion as it is written in Python.

    Such as ``RegistersSettled(iterations=3) & AsymmetryStalled | MaxIterations(20)``.
    Names are those of ``jaxrelax.refinement``; ``module:Name(...)`` is of anything that can be
    imported. Values are literals.

    Args:
        text: the expression; & and | combine criteria.

    Raises:
        InputError: what is not understood.
    """
    try:
        # A module's name is no Python before a colon.
        tree = ast.parse(ELSEWHERE.sub(r"\1__from__", text), mode="eval").body
    except SyntaxError as error:
        raise InputError(f"criterion {text!r}: {error.msg}") from error
    return _made(tree, text)


def _made(node: ast.expr, text: str) -> Criterion:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        first, second = _made(node.left, text), _made(node.right, text)
        return first & second if isinstance(node.op, ast.BitAnd) else first | second
    called = node if isinstance(node, ast.Call) else None
    name = ast.unparse(called.func if called is not None else node)
    kind = _named(name, text)
    try:
        positional = [ast.literal_eval(one) for one in (called.args if called else ())]
        keywords = {
            str(one.arg): ast.literal_eval(one.value) for one in (called.keywords if called else ())
        }
    except ValueError as error:
        raise InputError(
            f"criterion {text!r}: {name}: what stands in its brackets is no number and no text"
        ) from error
    try:
        made = kind(*positional, **keywords)
    except TypeError as error:
        takes = ", ".join(inspect.signature(kind).parameters) or "nothing"
        raise InputError(f"criterion {text!r}: {name}: it takes {takes}") from error
    except ValueError as error:
        raise InputError(f"criterion {text!r}: {name}: {error}") from error
    if not isinstance(made, Criterion):
        raise InputError(f"criterion {text!r}: {name} is no jaxrelax.Criterion")
    return made


def _named(name: str, text: str) -> Any:
    module, _, attribute = name.rpartition("__from__")
    if not module:
        if name not in KNOWN:
            raise InputError(
                f"criterion {text!r}: there is no {name}. Criteria: {', '.join(KNOWN)}; combine "
                "them with & and |, and take others from a module as module:Name."
            )
        return KNOWN[name]
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"criterion {text!r}: {error}") from error
