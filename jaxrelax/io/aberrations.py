"""Aberrations of optics groups as RELION and cryoSPARC write them, as `Aberrations`.

RELION: beam tilt β (mrad) is the phase −2π Cs λ² k² (k·β) of the image, coma among the Zernike
terms (``rlnBeamTiltX/Y``; Zivanov et al., eLife 7 (2018) e42166); the rest stands in its columns.

cryoSPARC: coefficients in Å, a wave aberration in the notation of Uhlemann & Haider
(Ultramicroscopy 72 (1998) 109), with θ from the x axis: tilt (coma) λ²k³ cos θ, trefoil
⅓λ²k³ cos 3θ, shift k cos θ, each times −2π and next to its sine, are the odd phase; tetra is
λ³k⁴ (cos 2θ, sin 2θ) and ¼λ³k⁴ (cos 4θ, sin 4θ), times 2π, in the direction of Cs.
``ctf/anisomag`` is M − 1, row by row, M as in RELION. cryoSPARC's program is not public: that tilt
has RELION's sign is what public converters assume (pyem), M is explained in its forum, and the
factors are those of the notation, which others found in comparisons with its simulator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from jaxrelax.geometry import Aberrations
from jaxrelax.io.errors import InputError
from jaxrelax.io.particles import some_rows
from jaxrelax.io.possible import require_possible
from jaxrelax.io.relion_tables import CtfLookup

LOG = logging.getLogger("jaxrelax")

ODD, EVEN = "rlnOddZernike", "rlnEvenZernike"
TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
MATRIX = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
# Place of Z(1,−1), Z(1,1), Z(3,−3), Z(3,−1), Z(3,1), Z(3,3) among the odd coefficients.
Y, X, SIN3, COMA_Y, COMA_X, COS3 = range(6)
# Place of Z(2,−2), Z(2,2), Z(4,−4), Z(4,−2), Z(4,2), Z(4,4) among the even ones.
SIN2, COS2, SIN4, ASTIG_SIN, ASTIG_COS, COS4 = 1, 3, 4, 5, 7, 8
ABSENT = ("", "None", "<NA>", "nan")
# Magnifications differ by a few per cent between directions; much more is another kind of number.
STRETCHES = (0.7, 1.4)

Numbered = tuple[Int[np.ndarray, " particles"], tuple[Aberrations, ...]]


def aberrations_of(
    odd: tuple[float, ...],
    even: tuple[float, ...],
    beam_tilt_mrad: tuple[float, float],
    magnification: tuple[float, float, float, float],
    voltage_kv: float,
    spherical_aberration_mm: float,
) -> Aberrations:
    """The values of RELION's columns as one thing: beam tilt is among the odd terms."""
    terms = np.zeros(max(6, len(odd)))
    terms[: len(odd)] = odd
    if any(beam_tilt_mrad):
        x, y = (1e-3 * tilt * 1e7 * spherical_aberration_mm for tilt in beam_tilt_mrad)
        _add_coma(terms, x, y, voltage_kv)
    return Aberrations(tuple(terms), even, magnification)


def with_terms(coefficients: tuple[float, ...], more: dict[int, float]) -> tuple[float, ...]:
    """A list of coefficients with some of them raised."""
    terms = [*coefficients, *[0.0] * (max(more) + 1 - len(coefficients))]
    for place, value in more.items():
        terms[place] += value
    return tuple(terms)


def relion_aberrations(
    path: Path,
    lookup: CtfLookup,
    voltage_kv: Float64[np.ndarray, " particles"],
    spherical_aberration_mm: Float64[np.ndarray, " particles"],
) -> Numbered:
    """The distinct aberrations of a STAR file, and the number of those of every particle.

    Looked up like the CTF: particle table, then optics table.

    Raises:
        InputError: a list that is none, or a matrix that is no magnification; with its row.
    """
    lists = [_zernike_lists(path, lookup, label) for label in (ODD, EVEN)]
    matrix = [
        lookup.or_default(label, value)
        for label, value in zip(MATRIX, (1.0, 0.0, 0.0, 1.0), strict=True)
    ]
    _require_magnification(path, np.stack(matrix, axis=1), "rlnMagMat00 to rlnMagMat11")
    tilt = [lookup.or_default(label, 0.0) for label in TILT]
    for label, values in zip(TILT, tilt, strict=True):
        require_possible(path, "beam_tilt_mrad", label, values)

    def of_row(row: int) -> Aberrations:
        odd, even = (distinct[numbers[row]] for numbers, distinct in lists)
        m00, m01, m10, m11 = (float(values[row]) for values in matrix)
        return aberrations_of(
            odd,
            even,
            (float(tilt[0][row]), float(tilt[1][row])),
            (m00, m01, m10, m11),
            voltage_kv[row],
            spherical_aberration_mm[row],
        )

    keys = [*tilt, *matrix, lists[0][0], lists[1][0], voltage_kv, spherical_aberration_mm]
    return _numbered(np.column_stack(keys), of_row)


def cryosparc_aberrations(
    path: Path,
    records: np.ndarray,
    voltage_kv: Float64[np.ndarray, " particles"],
) -> Numbered:
    """The distinct aberrations of a ``.cs`` file, and the number of those of every particle.

    Raises:
        InputError: a field of another shape or not finite, or a matrix that is no magnification.
    """

    def field(name: str, count: int) -> Float64[np.ndarray, "particles count"]:
        if f"ctf/{name}" not in (records.dtype.names or ()):
            return np.zeros((len(records), count))
        values = records[f"ctf/{name}"].astype(np.float64).reshape(len(records), -1)
        if values.shape[1] != count:
            raise InputError(
                f"{path}: field ctf/{name} has {values.shape[1]} numbers per particle, not {count}."
            )
        bad = np.asarray(~np.isfinite(values).all(axis=1))
        if bad.any():
            raise InputError(
                f"{path}, {some_rows(bad)}: field ctf/{name} is not finite. "
                "Correct or remove these rows."
            )
        return values

    shift, tilt, trefoil = field("shift_A", 2), field("tilt_A", 2), field("trefoil_A", 2)
    identity = np.array([1.0, 0.0, 0.0, 1.0])
    tetra, stretch = field("tetra_A", 4), field("anisomag", 4) + identity
    _require_magnification(path, stretch, "ctf/anisomag, the identity added,")
    _say_what_is_assumed(
        path,
        {"tilt_A": tilt, "trefoil_A": trefoil, "shift_A": shift, "tetra_A": tetra,
         "anisomag": stretch - identity},
    )  # fmt: skip

    def of_row(row: int) -> Aberrations:
        odd, even = np.zeros(6), np.zeros(9)
        if tilt[row].any() or trefoil[row].any() or tetra[row].any():
            wavelength = wavelength_angstrom(voltage_kv[row])
            _add_coma(odd, tilt[row, 0], tilt[row, 1], voltage_kv[row])
            odd[[COS3, SIN3]] = -2.0 * np.pi / 3.0 * wavelength**2 * trefoil[row]
            astigmatic, fourfold = 2.0 * np.pi * wavelength**3 * tetra[row].reshape(2, 2)
            # k⁴ cos 2θ = ¼ Z(4,2) + ¾ Z(2,2)
            even[[ASTIG_COS, ASTIG_SIN]] = 0.25 * astigmatic
            even[[COS2, SIN2]] = 0.75 * astigmatic
            even[[COS4, SIN4]] = 0.25 * fourfold
        odd[[X, Y]] -= 2.0 * np.pi * shift[row]
        m00, m01, m10, m11 = (float(x) for x in stretch[row])
        return Aberrations(tuple(odd), tuple(even), (m00, m01, m10, m11))

    return _numbered(np.column_stack([shift, tilt, trefoil, tetra, stretch, voltage_kv]), of_row)


def aberration_columns(groups: Sequence[Aberrations]) -> dict[str, list[str]]:
    """Columns of ``data_optics`` that say the same to RELION; none where there are none.

    Beam tilt is among the odd Zernike terms, as RELION itself adds it.
    """
    columns = {}
    for label, lists in ((ODD, [g.odd for g in groups]), (EVEN, [g.even for g in groups])):
        if any(lists):
            columns[label] = [
                f"[{','.join(f'{x:.12g}' for x in each or (0.0,))}]" for each in lists
            ]
    if any(group.is_stretched for group in groups):
        for place, label in enumerate(MATRIX):
            columns[label] = [f"{group.magnification[place]:.9g}" for group in groups]
    return columns


def wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic electron wavelength in Å."""
    volts = 1e3 * voltage_kv
    return float(12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts))) if volts > 0 else 0.0


def _add_coma(odd: Float64[np.ndarray, " terms"], x: float, y: float, voltage_kv: float) -> None:
    """−2πλ² k² (k·tilt) for a tilt in Å: k² kx = ⅓ Z(3,1) + ⅔ Z(1,1)."""
    coma = -2.0 * np.pi / 3.0 * wavelength_angstrom(voltage_kv) ** 2 * np.array([x, y])
    odd[[COMA_X, COMA_Y]] += coma
    odd[[X, Y]] += 2.0 * coma


def _say_what_is_assumed(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Warn of fields that are not zero: their signs rest on what others found."""
    used = [f"ctf/{name}" for name, values in fields.items() if values.any()]
    if used:
        LOG.warning(
            "%s: %s %s applied. Units and signs are those of the literature and could not be "
            "compared with cryoSPARC itself: compare half-maps (jaxrelax reconstruct --half) with "
            "those of a table in which they are zero; the FSC must not be lower",
            path, " and ".join(used) if len(used) < 3 else ", ".join(used),
            "is" if len(used) == 1 else "are",
        )  # fmt: skip


def _zernike_lists(
    path: Path, lookup: CtfLookup, label: str
) -> tuple[Int[np.ndarray, " particles"], list[tuple[float, ...]]]:
    """The distinct lists of a column, and which of them every particle has."""
    if label in lookup.particles.text:
        text, rows, block = lookup.particles.text[label], np.arange(lookup.n), lookup.particles
    elif lookup.optics is not None and label in lookup.optics.text:
        text, rows, block = lookup.optics.text[label], lookup.group, lookup.optics
    else:
        return np.zeros(lookup.n, np.int64), [()]
    distinct = {value: number for number, value in enumerate(dict.fromkeys(text))}
    numbers = np.array([distinct[value] for value in text], np.int64)
    found = []
    for value in distinct:
        try:
            values = () if value in ABSENT else _parsed(value)
        except ValueError as error:
            row = text.index(value) + 1
            raise InputError(
                f"{path}, block 'data_{block.table.name}', row {row}: column {label} is "
                f"'{value[:40]}', not a list of numbers like [0.1,0,-2.5]. Correct it."
            ) from error
        found.append(values)
    return numbers[rows], found


def _parsed(text: str) -> tuple[float, ...]:
    values = tuple(float(word) for word in text.strip().strip("[]").replace(",", " ").split())
    if not np.all(np.isfinite(values)):
        raise ValueError("not finite")
    return values


def _require_magnification(
    path: Path, matrices: Float64[np.ndarray, "particles 4"], name: str
) -> None:
    stretches = np.linalg.svd(matrices.reshape(-1, 2, 2), compute_uv=False)
    low, high = STRETCHES
    bad = np.asarray((stretches.min(axis=1) < low) | (stretches.max(axis=1) > high))
    bad |= np.linalg.det(matrices.reshape(-1, 2, 2)) <= 0
    if bad.any():
        first = ", ".join(f"{x:.4g}" for x in matrices[bad][0])
        raise InputError(
            f"{path}, {some_rows(bad)}: {name} is no magnification matrix ({first}); it is the "
            "identity but for a few per cent. Correct it."
        )


def _numbered(
    keys: Float64[np.ndarray, "particles columns"], of_row: Callable[[int], Aberrations]
) -> Numbered:
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    made = [of_row(int(row)) for row in first]
    distinct = {each: number for number, each in enumerate(dict.fromkeys(made))}
    numbers = np.array([distinct[each] for each in made], np.int64)
    return numbers[inverse.reshape(-1)], tuple(distinct)
