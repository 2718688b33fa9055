"""What the report says and shows of differences in σ."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxrelax.assessment.chimerax import LESS, MORE, contour_levels
from jaxrelax.assessment.difference_plots import (
    Tile,
    Views,
    colour_bar,
    sections,
    views_of_both,
    views_of_state,
)
from jaxrelax.assessment.positions import difference_sentence, positions
from jaxrelax.assessment.state_plots import state_colour
from jaxrelax.reconstruction import DifferenceInSigma
from jaxrelax.refinement.result import Result

# Of the table on the page; the file has all.
MOST_ROWS = 20


class Compared(NamedTuple):
    """A difference as the page shows it.

    Attributes:
        title, colour: of the state; empty for a relaxed map.
        sentence: whether it is real.
        sections, bar: through it; none of states.
        views: shaded surfaces.
        rows: of the table of positions: colour and cells.
        more: rows that are in the file only.
    """

    title: str
    colour: str
    sentence: str
    sections: list[Tile]
    bar: str | None
    views: list[Tile]
    rows: list[tuple[str, list[str]]]
    more: int


def compared(result: Result) -> list[Compared]:
    """The relaxed map with itself symmetrised, or every state with the mean of all."""
    pixel, (level, _) = result.pixel_size_angstrom, contour_levels(result)
    found = []
    one = result.in_sigma
    if one is not None:
        views = Views(one, level, pixel, (result.map_symmetrised, result.map))
        found.append(
            Compared(
                title="",
                colour="",
                sentence=difference_sentence(one),
                sections=sections(result.map, one, pixel),
                bar=colour_bar(one),
                views=views_of_both(views, result.map_symmetrised, result.map),
                rows=_rows(one, pixel),
                more=max(len(one.regions) - MOST_ROWS, 0),
            )
        )
    for number, state in enumerate(result.states):
        one = state.in_sigma
        if one is None:
            continue
        views = Views(one, level, pixel, [each.map for each in result.states])
        found.append(
            Compared(
                title=f"Class {number + 1}, {state.name}",
                colour=state_colour(number),
                sentence=difference_sentence(one),
                sections=[],
                bar=None,
                views=views_of_state(views, state.map),
                rows=_rows(one, pixel),
                more=max(len(one.regions) - MOST_ROWS, 0),
            )
        )
    return found


def _rows(difference: DifferenceInSigma, pixel: float) -> list[tuple[str, list[str]]]:
    rows: list[tuple[str, list[str]]] = []
    for row in positions(difference, pixel)[:MOST_ROWS]:
        rows.append(
            (
                MORE if row["sign"] > 0 else LESS,
                [
                    "more" if row["sign"] > 0 else "less",
                    f"{row['peak_sigma']:+.1f}".replace("-", "−"),
                    _triple(row, "{}_angstrom"),
                    _triple(row, "{}_from_centre_angstrom"),
                    f"{row['volume_angstrom3'] / 1000.0:.2f}",
                    ", ".join(map(str, row["mates"])) or "–",
                ],
            )
        )
    return rows


def _triple(row: dict[str, Any], name: str) -> str:
    values = (round(row[name.format(axis)], 1) + 0.0 for axis in "xyz")
    return ", ".join(f"{value:.1f}" for value in values).replace("-", "−")
