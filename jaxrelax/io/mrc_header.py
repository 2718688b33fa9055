"""The first kilobyte of an MRC file: size, mode, pixel size, and whether the file is whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from jaxrelax.io.errors import InputError

_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
MODES = {np.dtype(kind): mode for mode, kind in _DTYPES.items()}
IMOD_STAMP = 1146047817
HEADER_BYTES = HEADER_DTYPE.itemsize


@dataclass(frozen=True)
class MrcHeader:
    """What the header says.

    ``shape`` is (nz, ny, nx); ``pixel_size_angstrom`` is along x, and 0 if it does not say.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    data_offset: int
    pixel_size_angstrom: float
    file_bytes: int
    axes: tuple[int, int, int] = (1, 2, 3)
    is_volume: bool = True  # by the space group, which is 0 in stacks
    sections_sampled: int = 0  # mz: 1 in stacks, nz in maps
    voxel_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, y, z; 0 where not said
    cell_angles_deg: tuple[float, float, float] = (90.0, 90.0, 90.0)

    @property
    def bytes_per_slice(self) -> int:
        """Bytes of one section."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def expected_bytes(self) -> int:
        """Size that a whole file has."""
        return self.data_offset + self.shape[0] * self.bytes_per_slice

    def require_whole(self) -> None:
        """Raise `InputError` if the file is shorter than its header says."""
        if self.file_bytes < self.expected_bytes:
            raise InputError(
                f"{self.path}: truncated: {self.file_bytes} bytes where the header "
                f"({self.shape[2]} x {self.shape[1]} x {self.shape[0]}, {self.dtype.name}) "
                f"promises {self.expected_bytes}. Copy or write the file again."
            )

    def is_stack(self) -> bool:
        """Whether the sections are images.

        Names and headers are both unreliable: cryoSPARC writes stacks as ``.mrc``, and many
        programs leave the space group at 0 or 1 whatever they write. A cube is a map, unless name
        or header say otherwise; square sections of another number than their size are images.
        """
        nz, ny, nx = self.shape
        if self.path.suffix in (".mrcs", ".st") or not nz == ny == nx:
            return self.path.suffix in (".mrcs", ".st") or ny == nx or not self.is_volume
        return not self.is_volume and self.sections_sampled == 1 and nz > 1

    def require_cubic_voxels(self, known_pixel_size: bool) -> None:
        """Raise `InputError` if the cell of a map is not rectangular, or its voxels no cubes.

        Args:
            known_pixel_size: lengths of the header do not count.
        """
        angles = [angle for angle in self.cell_angles_deg if angle != 0.0]
        if any(abs(angle - 90.0) > 0.01 for angle in angles):
            shown = ", ".join(f"{angle:g}" for angle in self.cell_angles_deg)
            raise InputError(
                f"{self.path}: the angles of the cell are {shown} degrees, not 90. Resample the "
                "map on cubic voxels; if only the header is wrong, write it again with "
                "relion_image_handler --force_header_angpix."
            )
        lengths = [length for length in self.voxel_angstrom if length > 0.0]
        if not known_pixel_size and lengths and max(lengths) > (1.0 + 1e-3) * min(lengths):
            shown = " x ".join(f"{length:.5g}" for length in self.voxel_angstrom)
            raise InputError(
                f"{self.path}: voxels of {shown} Å are no cubes. Resample the map on cubic voxels; "
                f"if only the header is wrong, {pixel_size_advice(self.path)}"
            )

    def memory_map(self) -> np.ndarray:
        """The data as a read-only memory map, (nz, ny, nx), in the file's own type.

        For maps that are read at once; a file that shrinks while it is mapped kills the process.
        """
        return np.memmap(
            self.path, dtype=self.dtype, mode="r", offset=self.data_offset, shape=self.shape
        )


def read_header(path: str | os.PathLike) -> MrcHeader:
    """Read the header of a map or stack; the data are not touched.

    Modes 0, 1, 2, 6 and 12 (float16), either byte order, with extended header.

    Raises:
        InputError: the file is missing, is no MRC file, or has a mode that is not supported.
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            raw = handle.read(HEADER_BYTES)
            file_bytes = os.fstat(handle.fileno()).st_size
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(raw) < HEADER_BYTES:
        raise InputError(f"{path}: {len(raw)} bytes, too short for an MRC file.")
    for order in ("<", ">"):
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order), 1)[0]
        shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
        mode = int(header["mode"])
        if all(0 < size < 2**24 for size in shape) and 0 <= mode < 128:
            break
    else:
        raise InputError(f"{path}: the header is not one of an MRC map or stack.")
    if mode not in _DTYPES:
        raise InputError(
            f"{path}: MRC mode {mode} is not supported. Convert it to mode 2 (float32)."
        )
    voxel = _voxel(header)
    kind = _DTYPES[mode]
    if mode == 0 and _has_unsigned_bytes(raw, order):
        kind = "u1"
    return MrcHeader(
        path=path,
        shape=shape,
        dtype=np.dtype(order + kind),
        data_offset=HEADER_BYTES + max(int(header["nsymbt"]), 0),
        pixel_size_angstrom=voxel[0],
        file_bytes=file_bytes,
        axes=_axes(header),
        is_volume=int(header["ispg"]) != 0,
        sections_sampled=int(header["mz"]),
        voxel_angstrom=voxel,
        cell_angles_deg=(
            float(header["cellb"]["alpha"]),
            float(header["cellb"]["beta"]),
            float(header["cellb"]["gamma"]),
        ),
    )


def pixel_size_advice(path: Path) -> str:
    """How a map gets the pixel size that its header does not give: an end of a sentence."""
    return (
        "say it with --map-pixel-size-angstrom, or write it into the header: relion_image_handler "
        f"--i {path} --o fixed.mrc --force_header_angpix 2.6 (with the right number)."
    )


def _voxel(header: np.void) -> tuple[float, float, float]:
    """Å along x, y and z; 0 where the header does not say."""
    found = []
    for axis in "xyz":
        intervals, length = int(header[f"m{axis}"]), float(header["cella"][axis])
        size = length / intervals if intervals > 0 else 0.0
        found.append(size if np.isfinite(size) and size > 0.0 else 0.0)
    return (found[0], found[1], found[2])


def _has_unsigned_bytes(raw: bytes, order: str) -> bool:
    """Whether IMOD wrote bytes from 0 to 255: its stamp, and not its flag for signed bytes.

    https://bio3d.colorado.edu/imod/doc/mrc_format.txt, words 39 and 40.
    """
    stamp, flags = np.frombuffer(raw, order + "i4", 2, 152)
    return bool(stamp == IMOD_STAMP and not flags & 1)


def _axes(header: np.void) -> tuple[int, int, int]:
    """Which axis columns, rows and sections are; files that leave it out mean x, y, z."""
    axes = (int(header["mapc"]), int(header["mapr"]), int(header["maps"]))
    return axes if sorted(axes) == [1, 2, 3] else (1, 2, 3)


def make_header(
    shape: tuple[int, int, int],
    dtype: np.dtype,
    pixel_size_angstrom: float,
    statistics: tuple[float, float, float, float],
    is_stack: bool,
) -> bytes:
    """A little-endian MRC2014 header with origin 0.

    Args:
        shape: (nz, ny, nx).
        dtype: type of the data; one that has an MRC mode.
        pixel_size_angstrom: along all axes.
        statistics: minimum, maximum, mean and standard deviation.
        is_stack: a stack of images (space group 0) and no volume (space group 1).
    """
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"] = nx, ny, nz
    header["mx"], header["my"], header["mz"] = nx, ny, 1 if is_stack else nz
    header["mode"] = MODES[np.dtype(dtype).newbyteorder("=")]
    for axis, size in zip("xyz", (nx, ny, 1 if is_stack else nz), strict=True):
        header["cella"][axis] = size * pixel_size_angstrom
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90.0
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = statistics
    header["ispg"] = 0 if is_stack else 1
    header["exttyp"], header["nversion"] = b"MRCO", 20140
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0]
    label = b"jaxrelax"
    header["nlabl"] = 1
    header["label"][0] = label.ljust(80)
    return header.tobytes()
