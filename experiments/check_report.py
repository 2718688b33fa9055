"""A report in a browser: pictures as on a telephone and on a desk, accessibility, errors.

    python experiments/check_report.py OUT/report.html ... [--axe axe.min.js] [--pictures FOLDER]

Opens every report in headless Chromium (or Chrome), says how large it is, what the browser
complains of, whether the page is wider than its window, and what axe-core finds against it (``npm
install axe-core``; its file is node_modules/axe-core/axe.min.js). Ends with 1 if there is anything.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

WIDTHS = (390, 1280)
HEIGHT = 6000
LARGEST_MB = 6.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Put at the end of the page: what is found is left in it as text.
WIDER = """
<script>
  addEventListener("load", () => {
    const found = document.createElement("pre");
    found.id = "jrx-wider";
    found.textContent = document.documentElement.scrollWidth - innerWidth;
    document.querySelector("main").append(found);
  });
</script>
"""
RUN_AXE = """
<script>
  addEventListener("load", () => axe.run(document).then(result => {
    const found = document.createElement("pre");
    found.id = "jrx-axe";
    found.textContent = JSON.stringify(result.violations.map(
      v => [v.id, v.help, v.nodes.map(n => n.html.slice(0, 120))]));
    document.querySelector("main").append(found);
  }));
</script>
"""


def browser() -> str:
    """The browser that is installed."""
    for name in NAMES:
        if (path := shutil.which(name)) is not None:
            return path
    raise SystemExit("no Chromium or Chrome is installed")


def opened(page: Path, width: int, *more: str) -> subprocess.CompletedProcess:
    """The page in a browser without a window."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--window-size={width},{HEIGHT}", "--enable-logging=stderr",
        "--virtual-time-budget=20000", *more, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def left(dom: str, name: str) -> str | None:
    """Text that a script left in the page."""
    found = re.search(rf'<pre id="{name}">(.*?)</pre>', dom, re.DOTALL)
    return None if found is None else html.unescape(found[1])


def complaints(report: Path, axe: Path | None, pictures: Path | None) -> list[str]:
    """Whatever is wrong with a report."""
    wrong = []
    megabytes = report.stat().st_size / 1e6
    print(f"{report}: {megabytes:.2f} MB")
    if megabytes > LARGEST_MB:
        wrong.append(f"larger than {LARGEST_MB:g} MB")
    text = report.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "page.html"
        added = WIDER
        if axe is not None:
            added += f"<script>{axe.read_text(encoding='utf-8')}</script>{RUN_AXE}"
        page.write_text(text.replace("</body>", added + "</body>"), encoding="utf-8")
        for width in WIDTHS:
            ran = opened(page, width, "--dump-dom")
            wrong += [
                f"{width} px: {line.strip()}"
                for line in ran.stderr.splitlines()
                if "CONSOLE" in line
            ]
            wider = left(ran.stdout, "jrx-wider")
            if wider is None:
                wrong.append(f"{width} px: the page was not shown: {ran.stderr[-300:]}")
            elif float(wider) > 0:
                wrong.append(f"{width} px: the page is {wider} px wider than its window")
            violations = left(ran.stdout, "jrx-axe")
            if axe is not None and violations is None:
                wrong.append(f"{width} px: axe-core did not end")
            for name, what, nodes in json.loads(violations or "[]"):
                wrong.append(f"{width} px: {name}: {what}: {len(nodes)} x {nodes[0]}")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for width in WIDTHS:
            path = pictures / f"{report.parent.name}_{width}.png"
            opened(report.resolve(), width, f"--screenshot={path}")
            print(f"  {path}")
    return wrong


def main() -> None:
    """Look at every report, print, and end with 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--axe", type=Path)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    wrong = {
        report: complaints(report, asked.axe, asked.pictures)
        for report in asked.reports
    }  # fmt: skip
    for report, found in wrong.items():
        for line in found:
            print(f"{report}: {line}")
    if any(wrong.values()):
        raise SystemExit(1)
    print("nothing to complain of")


if __name__ == "__main__":
    main()
