"""What a bad input is called."""

from __future__ import annotations


class InputError(Exception):
    """A file, column, row or option that cannot be honoured.

    The message is one statement for the person at the keyboard: what is wrong, where (file,
    column, row) and the way out. The command line prints it and exits with a non-zero status.
    """


class UnsupportedError(InputError):
    """The input asks for something that jaxrelax does not model, and must not ignore."""


class MissingImagesError(InputError):
    """The table of particles names image files that are not there."""


class LostImagesError(InputError):
    """Images that were there when the run began can no longer be read."""
