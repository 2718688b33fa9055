"""How many programs a run compiles, and how long that takes."""

from __future__ import annotations

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts what is compiled, or loaded from JAX's persistent cache, while it is open.

    Attributes:
        programs: how many.
        seconds: in all.
    """

    def __init__(self):
        self.programs = 0
        self.seconds = 0.0

    def __enter__(self) -> Compilations:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _EVENT:
            self.programs += 1
            self.seconds += duration_secs
