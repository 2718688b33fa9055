"""Where a map deviates: from its symmetrised self, or the map of a state from the mean of all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from jaxrelax.reconstruction import DifferenceInSigma
from jaxrelax.refinement.result import Result

COLUMNS = (
    *("number", "site", "sign", "peak_sigma", "x_angstrom", "y_angstrom", "z_angstrom"),
    *("x_from_centre_angstrom", "y_from_centre_angstrom", "z_from_centre_angstrom"),
    *("volume_angstrom3", "mates"),
)


def differences(result: Result) -> Iterator[tuple[int, DifferenceInSigma]]:
    """Differences in σ with the class that they are of, from 1; class 0 is a relaxed map."""
    if result.in_sigma is not None:
        yield 0, result.in_sigma
    for number, one in enumerate(result.states, start=1):
        if one.in_sigma is not None:
            yield number, one.in_sigma


def positions(difference: DifferenceInSigma, pixel_size_angstrom: float) -> list[dict[str, Any]]:
    """A row per region, the highest peak first.

    ``x_angstrom`` and so on are of the centre of mass as ChimeraX shows it: voxel (0, 0, 0) of a
    map with origin 0 is at 0. ``mates`` are the numbers of the regions of the same site.
    """
    origin = (len(difference.sigma) // 2) * pixel_size_angstrom
    regions = difference.regions
    rows = []
    for number, one in enumerate(regions, start=1):
        mates = [
            other
            for other, region in enumerate(regions, start=1)
            if region.site == one.site and other != number
        ]
        row: dict[str, Any] = {"number": number, "site": one.site + 1, "sign": one.sign}
        row["peak_sigma"] = one.peak_sigma
        for name, value in zip("xyz", one.centre_angstrom, strict=True):
            row[f"{name}_angstrom"] = value + origin
            row[f"{name}_from_centre_angstrom"] = value
        row |= {"volume_angstrom3": one.volume_angstrom3, "mates": mates}
        rows.append({name: row[name] for name in COLUMNS})
    return rows


def difference_summary(
    difference: DifferenceInSigma | None, pixel_size_angstrom: float
) -> dict[str, Any] | None:
    """What ``result.json`` says of a difference in σ."""
    if difference is None:
        return None
    found = bool(difference.regions)
    return {
        "false_discovery_rate": difference.rate,
        "threshold_sigma": difference.threshold if found else None,
        "band_angstrom": difference.resolution_angstrom,
        "half_maps_agree": difference.agrees,
        "searched_angstrom3": float(difference.searched.sum()) * pixel_size_angstrom**3,
        "positions": positions(difference, pixel_size_angstrom),
    }


def positions_csv(result: Result) -> str:
    """Content of ``difference_positions.csv``; with states there is a column ``class``."""
    text = io.StringIO()
    first = ("class",) if result.states else ()
    writer = csv.DictWriter(text, (*first, *COLUMNS), lineterminator="\n")
    writer.writeheader()
    for number, difference in differences(result):
        for row in positions(difference, result.pixel_size_angstrom):
            mates = " ".join(map(str, row["mates"]))
            rounded = {k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(({"class": number} if first else {}) | rounded | {"mates": mates})
    return text.getvalue()


def difference_sentence(difference: DifferenceInSigma) -> str:
    """Whether a difference is real, in words."""
    band = f"filtered to {difference.resolution_angstrom:.1f} Å"
    rate = f"{100 * difference.rate:g} %"
    if not difference.regions:
        why = "" if difference.agrees else "; the half-maps agree on none of it"
        return (
            f"No part of the difference, {band}, is significant at a false-discovery rate of "
            + (f"{rate}{why}.")
        )
    more = sum(one.sign > 0 for one in difference.regions)
    less = len(difference.regions) - more
    counts = " and ".join(
        f"{count} with {what} density" for count, what in ((more, "more"), (less, "less")) if count
    )
    regions = "region is" if len(difference.regions) == 1 else "regions are"
    return (
        f"{len(difference.regions)} {regions} significant: {counts}. The difference was {band}; "
        f"voxels beyond {difference.threshold:.1f} σ count, at a false-discovery rate of {rate}."
    )
