"""Records of cryoSPARC ``.cs`` files: reading them and joining passthrough files by uid."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from numpy.lib import recfunctions

from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import some_rows

logger = logging.getLogger("jaxrelax")


def read_records(path: Path) -> np.ndarray:
    """The structured array of a ``.cs`` file.

    Raises:
        InputError: the file is missing or is none, or is of the newer stream format.
    """
    try:
        with open(path, "rb") as handle:
            magic = handle.read(6)
        if magic == b"\x94CSDAT":
            raise InputError(
                f"{path}: this is cryoSPARC's stream format. Save it as NumPy records, with "
                "cryosparc-tools: Dataset.load(...).save(path, format=1)."
            )
        records = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, EOFError) as error:
        why = f"not a .cs file, or truncated ({error})"
        if "pickle" in str(error):  # NumPy advises to load what is none of its files unsafely
            why = "not a .cs file: it does not hold NumPy records"
        raise InputError(f"{path}: {why}. Give the particles of a job.") from error
    if not isinstance(records, np.ndarray) or records.dtype.names is None or records.ndim != 1:
        raise InputError(f"{path}: not a table of records, so not a .cs file.")
    if len(records) == 0:
        raise InputError(f"{path}: no rows.")
    return records


def join_passthrough(path: Path, records: np.ndarray, passthrough: tuple[Path, ...]) -> np.ndarray:
    """Add the fields of the passthrough files given, or else of those beside the file.

    Raises:
        InputError: a file given lacks some of the particles, or has no uid.
    """
    for other in passthrough:
        records = _join(path, records, other, read_records(other))
    if passthrough:
        return records
    for other in _siblings(path):
        theirs = read_records(other)
        if not _covers(records, theirs):
            logger.warning("%s: left aside, it lacks some uids of %s.", other, path)
            continue
        joined = _join(path, records, other, theirs)
        if joined is not records:
            logger.info("%s: joined the passthrough fields of %s.", path, other)
        records = joined
    return records


def _siblings(path: Path) -> list[Path]:
    """Passthrough files of the same job in the same folder."""
    if "passthrough" in path.name:
        return []
    job = re.search(r"J\d+", path.name)
    found = sorted(path.parent.glob("*passthrough_particles*.cs"))
    matches = [(other, re.search(r"J\d+", other.name)) for other in found]
    return [
        other
        for other, its_job in matches
        if job is None or its_job is None or job[0] == its_job[0]
    ]


def _covers(records: np.ndarray, theirs: np.ndarray) -> bool:
    both = "uid" in (records.dtype.names or ()) and "uid" in (theirs.dtype.names or ())
    return both and bool(np.isin(records["uid"], theirs["uid"]).all())


def _join(path: Path, records: np.ndarray, other: Path, theirs: np.ndarray) -> np.ndarray:
    """The records with the fields that only ``theirs`` has, matched by uid."""
    if "uid" not in (records.dtype.names or ()) or "uid" not in (theirs.dtype.names or ()):
        raise InputError(f"{other}: cannot be joined to {path} without the field uid in both.")
    new = [name for name in theirs.dtype.names or () if name not in (records.dtype.names or ())]
    if not new:
        return records
    order = np.argsort(theirs["uid"], kind="stable")
    sorted_uid = theirs["uid"][order]
    at = np.minimum(np.searchsorted(sorted_uid, records["uid"]), len(theirs) - 1)
    lost = sorted_uid[at] != records["uid"]
    if lost.any():
        raise InputError(
            f"{other}: {int(lost.sum())} particles of {path} are not in this passthrough file "
            f"({some_rows(lost)}). Give the passthrough file of the same job."
        )
    return append_fields(records, {name: theirs[name][order[at]] for name in new})


def append_fields(records: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
    """A structured array with more fields, which may have axes of their own."""
    extra = [(name, values.dtype, values.shape[1:]) for name, values in fields.items()]
    dtype = np.dtype([*recfunctions.repack_fields(records.dtype).descr, *extra])
    out = np.empty(len(records), dtype)
    for name in records.dtype.names or ():
        out[name] = records[name]
    for name, values in fields.items():
        out[name] = values
    return out


def fields_in_order(records: np.ndarray, names: list[str]) -> np.ndarray:
    """A structured array of these fields in this order."""
    return recfunctions.repack_fields(records[names])
