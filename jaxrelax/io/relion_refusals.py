"""Columns of RELION STAR files that change the images and that jaxrelax does not apply."""

from __future__ import annotations

from jaxrelax.io.particles import Refusal
from jaxrelax.io.star import StarTable

_CONVERT = "Correct it in the images first, or accept the error with --ignore-aberrations."
_NEUTRAL = {
    **dict.fromkeys(("rlnBeamTiltX", "rlnBeamTiltY"), 0.0),
    "rlnCtfScalefactor": 1.0,
    **{"rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0},
}
_MEANING = {
    "rlnBeamTiltX": "beam tilt is not modelled",
    "rlnBeamTiltY": "beam tilt is not modelled",
    "rlnCtfScalefactor": "a CTF scale factor other than 1 is not modelled",
    **dict.fromkeys(
        ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"),
        "anisotropic magnification is not modelled",
    ),
    "rlnOddZernike": "antisymmetric aberrations are not modelled",
    "rlnEvenZernike": "symmetric aberrations are not modelled",
}
_SUBTOMOGRAM = ("rlnCtfImage", "rlnTomoVisibleFrames")


def find(particles: StarTable, optics: StarTable | None) -> list[Refusal]:
    """What a file asks for and the imaging model does not do, one refusal per column."""
    tables = [particles] if optics is None else [particles, optics]
    found: list[Refusal] = []
    for table in tables:
        columns = table.columns([*_MEANING, "rlnImageDimensionality", *_SUBTOMOGRAM])
        for label, values in columns.items():
            distinct = set(values)
            if any(refusal.column == label for refusal in found):
                continue
            if label in _MEANING:
                bad = [value for value in distinct if not _is_neutral(label, value)]
                if bad:
                    reason = f"{_MEANING[label]} (value {_short(min(bad))})"
                    found.append(Refusal(label, reason, _CONVERT))
            elif label in _SUBTOMOGRAM or any(_number(value) != 2.0 for value in distinct):
                found.append(
                    Refusal(
                        label,
                        "these are subtomograms, not images",
                        "Give a STAR file of two-dimensional particles.",
                        is_aberration=False,
                    )
                )
    return found


def _is_neutral(label: str, text: str) -> bool:
    if label in ("rlnOddZernike", "rlnEvenZernike"):
        terms = text.strip("[]").replace(",", " ").split()
        return all(_number(term) == 0.0 for term in terms) or text in ("None", "<NA>", "nan")
    return _number(text) == _NEUTRAL[label]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
