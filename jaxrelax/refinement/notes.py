"""What is warned of during a run, kept for its report."""

from __future__ import annotations

import logging

LOG = logging.getLogger("jaxrelax")


class Notes(logging.Handler):
    """Keeps the package's warnings while it is entered, in order and each once.

    What the logger lets pass still goes wherever it went before.

    Attributes:
        texts: the messages.
    """

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)

    def __enter__(self) -> Notes:
        LOG.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        LOG.removeHandler(self)
