"""Write a file whole or not at all: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from jaxrelax.io.errors import InputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY_SUFFIX = ".jrx-tmp"


@contextmanager
def atomic_open(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes; it appears under its name only when the block succeeds.

    Whatever goes wrong, the temporary file is removed and an older file of that name stays as
    it was.

    Raises:
        InputError: the disk is full, or the folder is missing or not writable.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())  # some file systems report a full disk only here
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # An OSError about another file (an input read inside the block) is not ours to explain.
        ours = error.filename is None or Path(error.filename) in (temporary, path)
        if error.errno in _DISK_FULL:
            raise InputError(
                f"{path}: the disk is full; nothing was written under this name. "
                "Free some space or choose another folder."
            ) from error
        if not ours:
            raise
        raise InputError(
            f"{path}: cannot be written ({error.strerror}). "
            "Check that the folder exists and that you may write in it."
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Put renames on the disk in their order, where the file system can: a power cut keeps it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def atomic_write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all; see `atomic_open` for what it raises."""
    with atomic_open(path) as handle:
        handle.write(data)


def atomic_write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` whole or not at all; raises as `atomic_open`.

    Bytes of a file name that are no UTF-8 become escapes that JSON can read.
    """
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))
