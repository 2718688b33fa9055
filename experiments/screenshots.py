"""Numbered screenshots of a report, for pages of the documentation.

What a picture shows and where its numbers stand is said by elements of the page (heading of the
section, CSS selector, which one), not by pixels, so a report that changes is cut in the right
places. Headless Chromium says where the elements are and takes the whole page; Pillow cuts it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from check_report import left, opened
from pictures import write_few_colours
from PIL import Image, ImageDraw, ImageFont

WIDTH = 960
# Of a window that holds the longest report; what is below the report is white, and cut.
HEIGHT = 12000
MARGIN = 8
RADIUS = 13
RED = (200, 30, 30)
# Drawn larger and made smaller again: Pillow's circles have no smooth edges.
FINER = 4

WHERE = """
<script>
  addEventListener("load", () => {
    const places = JSON.parse(document.getElementById("jrx-asked").textContent);
    const found = document.createElement("pre");
    found.id = "jrx-places";
    found.textContent = JSON.stringify(places.map(([heading, css, which]) => {
      const within = heading === "" ? document : [...document.querySelectorAll("section")].find(
        one => one.querySelector("h2")?.textContent === heading);
      const box = within?.querySelectorAll(css)[which]?.getBoundingClientRect();
      return box ? [box.left, box.top, box.right, box.bottom] : null;
    }));
    document.body.append(found);
  });
</script>
"""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Place:
    """An element of a report.

    The heading of its section ('' for the whole page), a CSS selector, and which of those selected.
    """

    heading: str
    css: str
    which: int = 0


@dataclass(frozen=True)
class Mark:
    """A number at an element, at fractions of its width and height from its upper left corner."""

    place: Place
    right: float = 1.0
    down: float = 0.0


@dataclass(frozen=True)
class Picture:
    """A cut from the top of one element to the bottom of another, with numbers from 1."""

    top: Place
    bottom: Place
    marks: tuple[Mark, ...] = ()


def _boxes(report: Path, places: list[Place]) -> list[Box]:
    """Where elements are, in pixels: left, top, right, bottom."""
    text = report.read_text(encoding="utf-8")
    asked = json.dumps([(one.heading, one.css, one.which) for one in places])
    added = f'<script type="application/json" id="jrx-asked">{asked}</script>{WHERE}'
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "page.html"
        page.write_text(text.replace("</body>", added + "</body>"), encoding="utf-8")
        ran = opened(page, WIDTH, f"--window-size={WIDTH},{HEIGHT}", "--dump-dom")
    found = json.loads(left(ran.stdout, "jrx-places") or "null")
    if found is None:
        raise SystemExit(f"{report}: the page was not shown: {ran.stderr[-300:]}")
    missing = [place for place, box in zip(places, found, strict=True) if box is None]
    if missing:
        raise SystemExit(f"{report}: not on the page: {missing}")
    return [tuple(box) for box in found]


def _numbered(image: Image.Image, number: int, x: float, y: float) -> None:
    """Draw a number in a red circle."""
    side = 2 * RADIUS * FINER
    tile = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(tile)
    draw.ellipse((0, 0, side - 1, side - 1), fill=RED, outline="white", width=2 * FINER)
    font = ImageFont.load_default(size=16 * FINER)
    draw.text((side / 2, side / 2), str(number), fill="white", font=font, anchor="mm")
    tile = tile.resize((2 * RADIUS, 2 * RADIUS), Image.Resampling.LANCZOS)
    x = min(max(x, RADIUS + 1), image.width - RADIUS - 1)
    y = min(max(y, RADIUS + 1), image.height - RADIUS - 1)
    image.paste(tile, (round(x) - RADIUS, round(y) - RADIUS), tile)


def take(report: Path, pictures: dict[Path, Picture]) -> None:
    """Write pictures of a report, PNGs of few colours.

    Raises:
        SystemExit: an element is not there, or a picture is too large for a page.
    """
    asked = [
        place
        for one in pictures.values()
        for place in (one.top, one.bottom, *(mark.place for mark in one.marks))
    ]
    boxes = dict(zip(asked, _boxes(report, asked), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "page.png"
        size = f"--window-size={WIDTH},{HEIGHT}"
        opened(report.resolve(), WIDTH, size, f"--screenshot={shot}")
        page = Image.open(shot).convert("RGB")
    for path, one in pictures.items():
        top = max(round(boxes[one.top][1]) - MARGIN, 0)
        bottom = min(round(boxes[one.bottom][3]) + MARGIN, page.height)
        image = page.crop((0, top, WIDTH, bottom))
        for number, mark in enumerate(one.marks, start=1):
            x0, y0, x1, y1 = boxes[mark.place]
            _numbered(
                image, number, x0 + mark.right * (x1 - x0), y0 + mark.down * (y1 - y0) - top
            )  # fmt: skip
        write_few_colours(image, path)
