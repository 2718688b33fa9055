"""cryoSPARC ``.cs`` files as `Particles`: radians, pixels and 0-based numbers end here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from jaxrelax.geometry import cryosparc_pose_to_matrix
from jaxrelax.io.aberrations import cryosparc_aberrations
from jaxrelax.io.cryosparc_records import join_passthrough, read_records
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import (
    Document,
    Latents,
    Particles,
    Refusal,
    group_optics,
    positive_scale,
    require_columns,
    some_rows,
    unique_names,
)
from jaxrelax.io.possible import class_numbers, half_sets, require_defocus, require_possible
from jaxrelax.io.stacks import resolve_stacks

logger = logging.getLogger("jaxrelax")

POSE, SHIFT, SPLIT = "alignments3D/pose", "alignments3D/shift", "alignments3D/split"
CLASS, ALIGNMENT_PIXEL = "alignments3D/class", "alignments3D/psize_A"
_CTF = ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/accel_kv", "ctf/cs_mm")
NOTED_ROOT = "jrx/image_root"  # written where image names do not resolve from the file itself
_BLOB = ("blob/path", "blob/idx", "blob/shape", "blob/psize_A")


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class CryosparcDocument(Document):
    """The records of a ``.cs`` file, with the fields joined from passthrough files."""

    records: np.ndarray

    def select(self, rows: Int[np.ndarray, " rows"]) -> CryosparcDocument:
        return CryosparcDocument(self.records[rows])

    def column(self, name: str) -> np.ndarray | None:
        names = self.records.dtype.names or ()
        return self.records[name] if name in names else None

    def noted_roots(self) -> list[str]:
        noted = self.column(NOTED_ROOT)
        return [] if noted is None else [root for root in map(_text, np.unique(noted)) if root]

    def refusals(self) -> list[Refusal]:
        return []


def load_cryosparc(
    path: Path,
    image_root: Path | None,
    passthrough: Iterable[Path],
    require_poses: bool,
    require_ctf: bool,
) -> Particles:
    """Read a ``.cs`` file of particles.

    Raises:
        InputError: the file or a needed field is missing, or uids do not match.
    """
    records = join_passthrough(path, read_records(path), tuple(passthrough))
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
        bad = np.logical_not(np.isfinite(column).reshape(n))
        if bad.any():
            raise InputError(
                f"{path}, {some_rows(bad)}: field {name} is not finite. "
                "Correct or remove these rows."
            )
        return column

    pixel_size = _exact_decimal(records["blob/psize_A"])
    require_possible(path, "pixel_size_angstrom", "blob/psize_A", pixel_size)
    amplitude_contrast = _exact_decimal(values("ctf/amp_contrast"))
    require_possible(path, "amplitude_contrast", "ctf/amp_contrast", amplitude_contrast)
    voltage, aberration = _exact_decimal(values("ctf/accel_kv")), values("ctf/cs_mm")
    if "ctf/accel_kv" in names:
        require_possible(path, "voltage_kv", "ctf/accel_kv", voltage)
    require_possible(path, "spherical_aberration_mm", "ctf/cs_mm", aberration)
    phase_shift = np.rad2deg(values("ctf/phase_shift_rad"))
    require_possible(path, "phase_shift_deg", "ctf/phase_shift_rad", phase_shift)
    bfactor = values("ctf/bfactor")
    require_possible(path, "bfactor_angstrom2", "ctf/bfactor", bfactor)
    if require_ctf and "ctf/amp_contrast" not in names:
        logger.warning("%s: no field ctf/amp_contrast; taken as 0.", path)
    exposure = values("ctf/exp_group_id").astype(np.int64)
    distinct, group = np.unique(exposure, return_inverse=True)
    voltage = _exact_decimal(values("ctf/accel_kv"))
    optics_group, optics = group_optics(
        [f"group{number}" for number in distinct],
        group.reshape(-1),
        {
            "pixel_size_angstrom": pixel_size,
            "box": records["blob/shape"][:, 1].astype(np.float64),
            "voltage_kv": voltage,
            "spherical_aberration_mm": _exact_decimal(aberration),
            "amplitude_contrast": amplitude_contrast,
            "ctf_premultiplied": np.zeros(n),
            "phase_flipped": np.zeros(n),
        },
        cryosparc_aberrations(path, records, voltage),
    )
    require_defocus(path, _CTF[:2], values(_CTF[0]), values(_CTF[1]), optics_group)
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
        phase_shift_deg=phase_shift,
        bfactor_angstrom2=bfactor,
        optics_group=optics_group,
        optics=optics,
        half_set=latents.half_set,
        class_number=latents.class_number,
        stack_paths=resolve_stacks(stack_names, path, image_root, document.noted_roots()),
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
        ctf_scale=positive_scale(path, values("ctf/scale", 1.0), "ctf/scale"),
    )


def shift_pixel_size(
    records: np.ndarray, pixel_size: Float64[np.ndarray, " particles"]
) -> Float64[np.ndarray, " particles"]:
    """Å per pixel of ``alignments3D/shift``: the box it was aligned in may have been binned."""
    if ALIGNMENT_PIXEL in (records.dtype.names or ()):
        own = _exact_decimal(records[ALIGNMENT_PIXEL])
        return np.where(own > 0, own, pixel_size)
    return pixel_size


def cryosparc_field(label: str) -> str:
    """``jrx/register_entropy`` for ``jrxRegisterEntropy``; names with a slash stay."""
    if "/" in label:
        return label
    words = re.findall(r"[A-Z][a-z0-9]*|[a-z0-9]+", label.removeprefix("jrx"))
    return "jrx/" + "_".join(word.lower() for word in words)


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
        bad = ~np.isfinite(np.concatenate([pose, shift], axis=1)).all(axis=1).reshape(n)
        if bad.any():
            raise InputError(
                f"{path}, {some_rows(bad)}: {POSE} or {SHIFT} is not finite. "
                "Refine these particles first or remove the rows."
            )
        rotations = np.asarray(cryosparc_pose_to_matrix(pose), np.float64)
        origins = shift * shift_pixel_size(records, pixel_size)[:, None]
    if SPLIT in names:
        half = half_sets(path, SPLIT, _or_unset(records[SPLIT]), first=0)
    else:
        half = np.zeros(n, np.int8)
    number = _or_unset(records[CLASS]) if CLASS in names else np.full(n, -1.0)
    return Latents(rotations, origins, half, class_numbers(path, CLASS, number + 1.0))


def _or_unset(values: np.ndarray) -> Float64[np.ndarray, " particles"]:
    """0-based numbers; the largest integer of 32 bits is -1, for unset."""
    numbers = values.astype(np.float64)
    return np.where(numbers == 2**32 - 1, -1.0, numbers)


def _exact_decimal(values: np.ndarray) -> Float64[np.ndarray, " particles"]:
    """float32 settings as the decimal number that was meant: 0.07, not 0.07000000029802322."""
    distinct, inverse = np.unique(values.astype(np.float32), return_inverse=True)
    decimals = np.array([float(str(x)) for x in distinct], np.float64)
    return decimals[inverse.reshape(-1)]


def _text(value: bytes | str | np.generic) -> str:
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return text.removeprefix(">")
