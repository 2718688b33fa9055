"""What may watch a refinement: progress, logs, checkpoints, a researcher's own probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxrelax.refinement.history import StepInfo
from jaxrelax.refinement.problem import Problem
from jaxrelax.refinement.state import State


class Callback:
    """Base of callbacks; override what is needed. They see the state and must not change it.

    Of several processes each calls its own.
    """

    def on_start(self, problem: Problem, state: State) -> None:
        """Before the first iteration (or the first after a resume)."""

    def on_batch(self, images: int) -> None:
        """After each batch of images of an iteration, of this process if there are several.

        Half-sets may be in threads of their own: any of the two may call, never both at once.
        """

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """After each iteration."""

    def on_finish(self, reason: str) -> None:
        """When the loop has stopped, before the final full-resolution pass."""


@dataclass(frozen=True)
class Together(Callback):
    """Several callbacks as one, in their order."""

    callbacks: Sequence[Callback]

    def on_start(self, problem: Problem, state: State) -> None:
        """Of all."""
        for one in self.callbacks:
            one.on_start(problem, state)

    def on_batch(self, images: int) -> None:
        """Of all."""
        for one in self.callbacks:
            one.on_batch(images)

    def on_step(self, problem: Problem, state: State, info: StepInfo) -> None:
        """Of all."""
        for one in self.callbacks:
            one.on_step(problem, state, info)

    def on_finish(self, reason: str) -> None:
        """Of all."""
        for one in self.callbacks:
            one.on_finish(reason)
