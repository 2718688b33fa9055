"""The output folder: what jaxrelax writes there, whole or not at all, and nothing else touched."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from jaxrelax.io.atomic import (
    TEMPORARY_SUFFIX,
    atomic_open,
    atomic_write_bytes,
    atomic_write_text,
)
from jaxrelax.io.errors import InputError
from jaxrelax.io.star import make_table, write_star_tables

_MAPS = (
    *("map", "half1", "half2", "map_symmetrised", "difference", "difference_sigma"),
    *("local_resolution", "mask"),
)
_GROUPS = ("particles", "volume", "mask")
MANIFEST: tuple[str, ...] = (
    *("particles.star", "registers.npz", "fsc.star", "history.csv"),
    *("difference_positions.csv", "result.json", "populations.json", "symmetry_test.json"),
    *("report.html", "view.cxc", "log.txt"),
    *(f"{name}.mrc" for name in _MAPS),
    *(f"{name}_class[0-9][0-9].mrc" for name in _MAPS),
    "fsc_class[0-9][0-9].star",
    "particles_class[0-9][0-9].star",
    *(f"{name}.{kind}" for name in _GROUPS for kind in ("cs", "csg")),
    *(f"{name}_class[0-9][0-9].{kind}" for name in _GROUPS for kind in ("cs", "csg")),
    *("checkpoint/*.json", "checkpoint/*.npz"),
    *(f".*{TEMPORARY_SUFFIX}", f"checkpoint/.*{TEMPORARY_SUFFIX}"),
)
"""Everything that jaxrelax may write into an output folder, as patterns; nothing else is ever
removed. Only jaxrelax writes into ``checkpoint/``."""


@dataclass(frozen=True)
class OutputFolder:
    """A folder for the results of one run.

    Every file appears under its name only when it is whole. All writers raise `InputError` when
    the disk is full, with nothing half-written left behind.
    """

    path: Path

    @staticmethod
    def create(
        path: str | os.PathLike, resume: bool = False, overwrite: bool = False
    ) -> OutputFolder:
        """Make the folder, or take one that is there.

        Args:
            path: the folder; its parents are made.
            resume: keep what is in it, to go on from its checkpoint.
            overwrite: remove the files that an earlier run of jaxrelax wrote. Other files stay.

        Raises:
            InputError: the folder is not empty and neither is given, both are given, or the
                path is a file or cannot be made.
        """
        folder = Path(path)
        if resume and overwrite:
            raise InputError(f"{folder}: give one of --resume and --overwrite, not both.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            not_empty = any(folder.iterdir())
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{folder}: is a file, not a folder. Name another folder.") from error
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be made ({error.strerror}). Name a folder you may write in."
            ) from error
        if not_empty and not (resume or overwrite):
            raise InputError(
                f"{folder}: the output folder is not empty. Name another one, go on from its "
                "checkpoint with --resume, or replace its results with --overwrite."
            )
        output = OutputFolder(folder)
        if overwrite:
            output.remove_results()
        return output

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def results(self) -> list[Path]:
        """Files in the folder that jaxrelax wrote, or may have written: those of `MANIFEST`."""
        here = [*self.path.glob("*"), *self.path.glob("checkpoint/*")]
        return sorted(
            path
            for path in here
            if path.is_file() and any(_matches(path, self.path, p) for p in MANIFEST)
        )

    def remove_results(self) -> None:
        """Remove what jaxrelax wrote; foreign files, and folders with such files, stay."""
        for path in self.results():
            path.unlink()
        checkpoint = self.path / "checkpoint"
        if checkpoint.is_dir() and not any(checkpoint.iterdir()):
            checkpoint.rmdir()

    def remove_temporaries(self) -> None:
        """Remove what a killed run had half-written."""
        for path in self.results():
            if path.name.endswith(TEMPORARY_SUFFIX):
                path.unlink()

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write bytes to ``name`` (which may be in a subfolder); returns the path."""
        return self._write(name, lambda path: atomic_write_bytes(path, data))

    def write_text(self, name: str, text: str) -> Path:
        """Write UTF-8 text."""
        return self._write(name, lambda path: atomic_write_text(path, text))

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON, indented. NumPy numbers and arrays, and paths, are taken.

        NaN and infinities, which JSON does not have, are written as null.
        """
        text = json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False)
        return self.write_text(name, text + "\n")

    def write_npz(
        self, name: str, arrays: Mapping[str, np.ndarray], *, compress: bool = True
    ) -> Path:
        """Write arrays as an ``.npz``, compressed unless that costs more time than it saves."""
        savez = np.savez_compressed if compress else np.savez

        def write(path: Path) -> None:
            with atomic_open(path) as handle:
                savez(handle, **arrays)  # type: ignore[arg-type]

        return self._write(name, write)

    def _write(self, name: str, write) -> Path:
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path.parent}: cannot be made ({error.strerror}).") from error
        write(path)
        return path


def require_writable(folder: str | os.PathLike) -> None:
    """Refuse a folder that cannot be made or written into, before work is done for it.

    Makes nothing; what happens to the folder meanwhile is another matter.

    Raises:
        InputError: the folder, or what is there of its path, is a file or not writable.
    """
    folder = Path(folder)
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{there}: is a file, so {folder} cannot be made. Name another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: you may not write there. Name another folder.")


def write_fsc_star(path: str | os.PathLike, table: Mapping[str, Sequence[Any] | np.ndarray]):
    """Write Fourier shell correlations in the layout of RELION's ``postprocess.star``.

    Args:
        path: the STAR file; its block is ``data_fsc``.
        table: label to values, one per shell: ``rlnSpectralIndex``, ``rlnResolution`` (1/Å),
            ``rlnAngstromResolution``, ``rlnFourierShellCorrelation...``. Shell 0 has resolution
            999 Å in RELION; an infinite ``rlnAngstromResolution`` is written so.

    Raises:
        ValueError: the columns differ in length.
        InputError: the disk is full or the folder cannot be written to.
    """
    columns: dict[str, list[str]] = {}
    for label, values in table.items():
        array = np.asarray(values)
        if label == "rlnAngstromResolution":
            array = np.where(np.isfinite(array), array, 999.0)
        integer = array.dtype.kind in "iu"
        columns[label] = [str(x) if integer else f"{x:.6f}" for x in array]
    write_star_tables(path, [make_table("fsc", columns)])


def _matches(path: Path, root: Path, pattern: str) -> bool:
    parts, wanted = path.relative_to(root).parts, pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch, parts, wanted))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
