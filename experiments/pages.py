"""Tables and printed text that scripts put into pages of the documentation.

On the page they stand between ``<!-- NAME -->`` and ``<!-- /NAME -->``; what is between them is the
script's, everything else is written by people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def table(cells: Sequence[str], *, heading: bool) -> list[str]:
    """One row in Markdown; a heading is followed by its rule."""
    rows = ["| " + " | ".join(cells) + " |"]
    return [*rows, "|" + "---|" * len(cells)] if heading else rows


def quote(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines in the place of this name.

    Raises:
        SystemExit: the page has no such place, or more than one.
    """
    text = page.read_text(encoding="utf-8")
    place = re.compile(
        rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL
    )
    filled, count = place.subn(
        lambda found: found[1] + "\n" + "\n".join(lines) + "\n\n" + found[2], text
    )
    if count != 1:
        raise SystemExit(
            f"{page}: <!-- {name} --> … <!-- /{name} --> is there {count} times, not 1"
        )
    page.write_text(filled, encoding="utf-8")
