"""cryoSPARC ``.cs`` files as `Particles`: radians, pixels and 0-based numbers end here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int
from numpy.lib import recfunctions

from jaxrelax.geometry import cryosparc_pose_to_matrix
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import (
    Document,
    Latents,
    Particles,
    Refusal,
    group_optics,
    require_columns,
    some_rows,
    unique_names,
)
from jaxrelax.io.stacks import resolve_stacks

logger = logging.getLogger("jaxrelax")

POSE, SHIFT, SPLIT = "alignments3D/pose", "alignments3D/shift", "alignments3D/split"
CLASS, ALIGNMENT_PIXEL = "alignments3D/class", "alignments3D/psize_A"
_CTF = ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/accel_kv", "ctf/cs_mm")
_BLOB = ("blob/path", "blob/idx", "blob/shape", "blob/psize_A")
_ABERRATIONS = {
    "ctf/tilt_A": "beam tilt is not modelled",
    "ctf/shift_A": "a beam-tilt shift is not modelled",
    "ctf/trefoil_A": "trefoil is not modelled",
    "ctf/tetra_A": "tetrafoil is not modelled",
    "ctf/anisomag": "anisotropic magnification is not modelled",
}


@dataclass(frozen=True)
class CryosparcDocument(Document):
    """The records of a ``.cs`` file, with the fields joined from passthrough files."""

    records: np.ndarray

    def select(self, rows: Int[np.ndarray, " rows"]) -> CryosparcDocument:
        return CryosparcDocument(self.records[rows])

    def column(self, name: str) -> np.ndarray | None:
        names = self.records.dtype.names or ()
        return self.records[name] if name in names else None

    def refusals(self) -> list[Refusal]:
        way_out = "Correct it in the images first, or accept the error with --ignore-aberrations."
        found = []
        for name, reason in _ABERRATIONS.items():
            values = self.column(name)
            if values is not None and np.any(values != 0):
                found.append(Refusal(name, reason, way_out))
        scale = self.column("ctf/scale")
        if scale is not None and np.any(scale != 1):
            reason = "a CTF scale factor other than 1 is not modelled"
            found.append(Refusal("ctf/scale", reason, way_out))
        return found


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
        raise InputError(f"{path}: not a .cs file, or truncated ({error}).") from error
    if not isinstance(records, np.ndarray) or records.dtype.names is None or records.ndim != 1:
        raise InputError(f"{path}: not a table of records, so not a .cs file.")
    if len(records) == 0:
        raise InputError(f"{path}: no rows.")
    return records


def load_cryosparc(
    path: Path,
    image_root: Path | None,
    passthrough: Iterable[Path],
    require_poses: bool,
    require_ctf: bool,
) -> Particles:
    """Read a ``.cs`` file of particles; aberrations are not looked at.

    Raises:
        InputError: the file or a needed field is missing, or uids do not match.
    """
    records = _join_all(path, read_records(path), tuple(passthrough))
    document = CryosparcDocument(records)
    names = records.dtype.names or ()
    way_out = "Give the job's passthrough file (--passthrough)."
    require_columns(path, "the images", [name for name in _BLOB if name not in names], way_out)
    if require_ctf:
        require_columns(path, "the CTF", [name for name in _CTF if name not in names], way_out)
    has_poses = POSE in names and SHIFT in names
    if require_poses:
        missing = [name for name in (POSE, SHIFT) if name not in names]
        require_columns(
            path, "poses", missing, f"{way_out[:-1]}, or run a consensus refinement first."
        )
    n = len(records)

    def values(name: str, default: float = 0.0) -> Float64[np.ndarray, " particles"]:
        if name not in names:
            return np.full(n, default)
        column = records[name].astype(np.float64)
        if not np.all(np.isfinite(column)):
            raise InputError(
                f"{path}, {some_rows(~np.isfinite(column))}: field {name} is not finite. "
                "Correct or remove these rows."
            )
        return column

    pixel_size = _exact_decimal(records["blob/psize_A"])
    if np.any(pixel_size <= 0):
        raise InputError(
            f"{path}, {some_rows(pixel_size <= 0)}: blob/psize_A is not positive. Correct it."
        )
    if require_ctf and "ctf/amp_contrast" not in names:
        logger.warning("%s: no field ctf/amp_contrast; taken as 0.", path)
    exposure = values("ctf/exp_group_id").astype(np.int64)
    distinct, group = np.unique(exposure, return_inverse=True)
    optics_group, optics = group_optics(
        [f"group{number}" for number in distinct],
        group.reshape(-1),
        {
            "pixel_size_angstrom": pixel_size,
            "box": records["blob/shape"][:, 1].astype(np.float64),
            "voltage_kv": _exact_decimal(values("ctf/accel_kv")),
            "spherical_aberration_mm": _exact_decimal(values("ctf/cs_mm")),
            "amplitude_contrast": _exact_decimal(values("ctf/amp_contrast")),
            "ctf_premultiplied": np.zeros(n),
            "phase_flipped": np.zeros(n),
        },
    )
    stack_index, stack_names = unique_names([_text(value) for value in records["blob/path"]])
    latents = _latents(path, records, has_poses, pixel_size)
    sign = np.where(values("blob/sign", 1.0) < 0, -1, 1).astype(np.int8)
    if np.any(sign < 0):
        logger.info(
            "%s: blob/sign is -1 for %d particles: their images are inverted when read.",
            path,
            int(np.count_nonzero(sign < 0)),
        )
    micrographs = document.column("location/micrograph_path")
    return Particles(
        source=path,
        image_root=image_root,
        rotations=latents.rotations,
        origins_angstrom=latents.origins_angstrom,
        defocus_u_angstrom=values("ctf/df1_A"),
        defocus_v_angstrom=values("ctf/df2_A"),
        defocus_angle_deg=np.rad2deg(values("ctf/df_angle_rad")),
        phase_shift_deg=np.rad2deg(values("ctf/phase_shift_rad")),
        bfactor_angstrom2=values("ctf/bfactor"),
        optics_group=optics_group,
        optics=optics,
        half_set=latents.half_set,
        class_number=latents.class_number,
        stack_paths=resolve_stacks(stack_names, path, image_root),
        stack_index=stack_index,
        image_index=records["blob/idx"].astype(np.int64),
        image_names=stack_names,
        image_sign=sign,
        micrograph=None
        if micrographs is None
        else np.array([_text(value) for value in micrographs], dtype=object),
        has_poses=has_poses,
        document=document,
        as_read=latents,
    )


def shift_pixel_size(
    records: np.ndarray, pixel_size: Float64[np.ndarray, " particles"]
) -> Float64[np.ndarray, " particles"]:
    """Å per pixel of ``alignments3D/shift``: the box it was aligned in may have been binned."""
    if ALIGNMENT_PIXEL in (records.dtype.names or ()):
        own = _exact_decimal(records[ALIGNMENT_PIXEL])
        return np.where(own > 0, own, pixel_size)
    return pixel_size


def _latents(
    path: Path,
    records: np.ndarray,
    has_poses: bool,
    pixel_size: Float64[np.ndarray, " particles"],
) -> Latents:
    n = len(records)
    names = records.dtype.names or ()
    rotations, origins = np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 2))
    if has_poses:
        pose = records[POSE].astype(np.float64)
        shift = records[SHIFT].astype(np.float64)
        bad = ~np.isfinite(np.concatenate([pose, shift], axis=1)).all(axis=1)
        if bad.any():
            raise InputError(
                f"{path}, {some_rows(bad)}: {POSE} or {SHIFT} is not finite. "
                "Refine these particles first or remove the rows."
            )
        rotations = np.asarray(cryosparc_pose_to_matrix(pose), np.float64)
        origins = shift * shift_pixel_size(records, pixel_size)[:, None]
    half = records[SPLIT].astype(np.int8) + 1 if SPLIT in names else np.zeros(n)
    number = records[CLASS].astype(np.int32) + 1 if CLASS in names else np.zeros(n)
    return Latents(rotations, origins, half.astype(np.int8), number.astype(np.int32))


def _join_all(path: Path, records: np.ndarray, passthrough: tuple[Path, ...]) -> np.ndarray:
    """Add the fields of the passthrough files given, or else of those beside the file."""
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


def _exact_decimal(values: np.ndarray) -> Float64[np.ndarray, " particles"]:
    """float32 settings as the decimal number that was meant: 0.07, not 0.07000000029802322."""
    distinct, inverse = np.unique(values.astype(np.float32), return_inverse=True)
    return np.array([float(str(x)) for x in distinct], np.float64)[inverse.reshape(-1)]


def _text(value: bytes | str | np.generic) -> str:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text.removeprefix(">")
