"""cryoSPARC's result groups: a ``.csg`` that says what the ``.cs`` files beside it hold.

"Import Result Group" takes one. It is YAML: ``group`` with name, title, description and type;
``results`` with, for every slot, the ``.cs`` file whose fields ``slot/…`` it is (a leading ``>``
means: in the folder of the group), its number of rows and its type, ``particle.ctf``. What is
written here is what cryoSPARC itself exports and what others have imported:

- https://guide.cryosparc.com/setup-configuration-and-management/software-system-guides/guide-data-management-in-cryosparc-v4.0+
- https://github.com/ml-struct-bio/cryodrgn/issues/150, a group edited and imported again
- https://github.com/cryoem-uoft/cryosparc-tools, ``api.jobs.import_result_group``: the path of a
  group is one within the project directory
- https://guide.cryosparc.com/processing-data/all-job-types-in-cryosparc/local-refinement/job-new-local-refinement-beta,
  what a local refinement takes: particles (blob, ctf, alignments3D) with half-sets, a volume (map,
  map_half_A, map_half_B), a mask
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from jaxrelax.io.atomic import atomic_open, atomic_write_text

# Parts of particles whose types are documented; others stay in the .cs file, without a slot.
PARTICLE_SLOTS = ("alignments2D", "alignments3D", "blob", "ctf", "location", "pick_stats")
VERSION = "v4.0.0"  # of cryoSPARC, whose guide describes the format


def write_particle_group(path: Path, records: Path, title: str) -> None:
    """Write the group of a ``.cs`` file of particles that lies in the same folder.

    Args:
        path: the ``.csg`` file.
        records: the particles, as `write_cs` wrote them.
        title: what they are.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
    """
    array = np.load(records, mmap_mode="r", allow_pickle=False)
    there = {name.split("/")[0] for name in array.dtype.names or ()}
    slots = {slot: f"particle.{slot}" for slot in PARTICLE_SLOTS if slot in there}
    text = result_group("particle", "particles", title, slots, records.name, len(array))
    atomic_write_text(path, text)


def write_volume_group(
    path: Path,
    kind: Literal["volume", "mask"],
    maps: Mapping[str, str],
    box: int,
    pixel_size_angstrom: float,
    title: str,
) -> None:
    """Write the group of maps that lie in the same folder, and the ``.cs`` file that it needs.

    Args:
        path: the ``.csg`` file; the ``.cs`` file has its stem.
        kind: what cryoSPARC takes them for.
        maps: file name by slot: ``map``, ``map_half_A``, ``map_half_B``; ``mask_refine``.
        box: their edge in voxels.
        pixel_size_angstrom: of their voxels.
        title: what they are.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
    """
    records = volume_records(maps, box, pixel_size_angstrom)
    with atomic_open(path.with_suffix(".cs")) as handle:
        np.save(handle, records, allow_pickle=False)
    slots = {slot: f"{kind}.blob" for slot in maps}
    text = result_group(kind, kind, title, slots, path.with_suffix(".cs").name, len(records))
    atomic_write_text(path, text)


def volume_records(maps: Mapping[str, str], box: int, pixel_size_angstrom: float) -> np.ndarray:
    """The one row of a ``.cs`` file of maps: ``slot/path``, ``slot/shape``, ``slot/psize_A``."""
    paths = {slot: os.fsencode(f">{name}") for slot, name in maps.items()}
    fields: list[tuple] = [("uid", "<u8")]
    for slot, name in paths.items():
        fields += [
            (f"{slot}/path", f"S{len(name)}"),
            (f"{slot}/shape", "<u4", (3,)),
            (f"{slot}/psize_A", "<f4"),
        ]
    records = np.zeros(1, np.dtype(fields))
    records["uid"] = 1
    for slot, name in paths.items():
        records[f"{slot}/path"] = name
        records[f"{slot}/shape"] = box
        records[f"{slot}/psize_A"] = pixel_size_angstrom
    return records


def result_group(
    kind: str, name: str, title: str, slots: Mapping[str, str], metafile: str, count: int
) -> str:
    """The text of a ``.csg`` file.

    Args:
        kind: ``particle``, ``volume`` or ``mask``.
        name, title: of the group.
        slots: type by slot.
        metafile: the ``.cs`` file with all of them, in the same folder.
        count: its rows.
    """
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    return "\n".join([
        f"created: {now.isoformat(sep=' ', timespec='microseconds')}",
        "group:",
        f"  description: {_quoted(f'{title}, refined by jaxrelax')}",
        f"  name: {name}",
        f"  title: {_quoted(title)}",
        f"  type: {kind}",
        "results:",
        *_results(slots, metafile, count),
        f"version: {VERSION}",
        "",
    ])  # fmt: skip


def _results(slots: Mapping[str, str], metafile: str, count: int) -> Iterable[str]:
    for slot, kind in slots.items():
        yield f"  {slot}:"
        yield f"    metafile: {_quoted('>' + metafile)}"
        yield f"    num_items: {count}"
        yield f"    type: {kind}"


def _quoted(text: str) -> str:
    """A YAML scalar in single quotes, in which only these are doubled."""
    return "'" + text.replace("'", "''") + "'"
