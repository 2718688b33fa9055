"""Checkpoints: everything to go on from an iteration, written so that a kill loses nothing.

Arrays go to ``checkpoint/state_NNN.npz``, each under its path in the tree of the state, then
``checkpoint/checkpoint.json`` names that file and says what the tree is made of
(:mod:`jaxrelax.refinement.tree_files`); both are written under a temporary name and renamed, and
older arrays are removed only afterwards. At any moment the header on disk therefore names complete
arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxrelax.io import InputError, OutputFolder, Particles
from jaxrelax.refinement.described import described
from jaxrelax.refinement.state import State, frozen
from jaxrelax.refinement.tree_files import filled, outlined

FORMAT = 18
HEADER = "checkpoint/checkpoint.json"
# What reading a file may raise that is not whole, or is of other classes.
DAMAGES = (
    OSError, KeyError, TypeError, ValueError, AttributeError, ImportError, EOFError,
    zipfile.BadZipFile,
)  # fmt: skip
# Of a table: where it and its images lie, and what is only handed on.
NOT_USED = ("source", "image_root", "stack_paths", "document", "as_read", "extra_columns")
# Of the entries of a pose: they come from angles, and processors round their sines differently.
POSE_STEP = 1e-6


def save_checkpoint(folder: OutputFolder, state: State, identity: dict[str, Any]) -> None:
    """Write the state after an iteration.

    Args:
        folder: the output folder.
        state: what to save.
        identity: settings and hashes of the inputs; a resumed run must have the same.
    """
    tree, arrays = outlined(state)
    name = f"checkpoint/state_{state.iterations_done:03d}.npz"
    folder.write_npz(name, arrays, compress=False)
    header = {"format": FORMAT, "arrays": name, "tree": tree, "identity": identity}
    # Not the folder's JSON, which has null for infinities and NaN: a state comes back as it was.
    folder.write_text(HEADER, json.dumps(header, indent=2) + "\n")
    _remove_others(folder, name)


def _remove_others(folder: OutputFolder, name: str) -> None:
    """Remove all arrays but those that the header names."""
    for old in (folder.path / "checkpoint").glob("state_*.npz"):
        if old.name != Path(name).name:
            old.unlink()


def load_checkpoint(folder: OutputFolder, identity: dict[str, Any]) -> State | None:
    """The last state, or None if the folder has none.

    What a killed run may have left half-written is removed.

    Raises:
        InputError: the checkpoint is of another format, of other inputs or settings (named), or
            damaged.
    """
    folder.remove_temporaries()
    path = folder.path / HEADER
    if not path.is_file():
        return None
    try:
        header = json.loads(path.read_text())
        if header["format"] != FORMAT:
            raise InputError(
                f"{path}: checkpoint format {header['format']}, this version reads {FORMAT}; "
                "start anew with --overwrite"
            )
        _require_same(path, header["identity"], json.loads(json.dumps(identity)))
        with open(folder.path / header["arrays"], "rb") as stream, np.load(stream) as stored:
            arrays = {key: stored[key] for key in stored.files}
        state = frozen(filled(header["tree"], arrays))
        if not isinstance(state, State):
            raise TypeError("it holds no state")
    except DAMAGES as error:
        raise InputError(
            f"{path}: the checkpoint cannot be read ({error}); start anew with --overwrite"
        ) from error
    _remove_others(folder, header["arrays"])
    return state


def _require_same(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    for key in sorted(set(then) | set(now)):
        if then.get(key) != now.get(key):
            raise InputError(
                f"{path}: cannot resume, {key} was {then.get(key)!r} and is now {now.get(key)!r}; "
                "give the same settings, or start anew with --overwrite"
            )


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def array_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def particles_hash(particles: Particles) -> str:
    """Digest of what a table says, however it was made: poses, CTFs, half-sets, names of images.

    The file alone would not do: what was read can be selected from, or given other poses.
    """
    used = {
        field.name: getattr(particles, field.name)
        for field in dataclasses.fields(particles)
        if field.name not in NOT_USED
    }
    used["rotations"] = np.rint(particles.rotations / POSE_STEP).astype(np.int32)
    return hashlib.sha256(described(used).encode()).hexdigest()
