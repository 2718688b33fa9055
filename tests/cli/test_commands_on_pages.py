"""Every command that a page of the documentation shows is one that the program takes."""

import importlib
import itertools
import re
import shlex
from pathlib import Path

import pytest
import tyro

from jaxrelax.cli.commands import COMMANDS
from jaxrelax.cli.misread_options import misread

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a shell puts before a command, or a launcher in front of it.
BEFORE = re.compile(r"^.*?\b(?=jaxrelax )")


def lines(page: Path) -> list[str]:
    """Of its bash blocks, continued lines joined."""
    return [
        line.strip()
        for block in BLOCK.findall(page.read_text(encoding="utf-8"))
        for line in block.replace("\\\n", " ").splitlines()
    ]


def shown() -> list:
    """All ``jaxrelax …`` commands, by page."""
    found = []
    for page in PAGES:
        for line in lines(page):
            if re.search(r"(^|\s)jaxrelax [a-z]", line) and not line.startswith("#"):
                name = f"{page.relative_to(ROOT)}: {line[:60]}"
                found.append(pytest.param(BEFORE.sub("", line), id=name))
    return found


@pytest.mark.parametrize("line", shown())
def test_it_is_taken(line):
    words = [word for word in shlex.split(line, comments=True) if word != "$resume"]
    # Up to where the shell takes what is printed.
    words = list(itertools.takewhile(lambda word: word not in (">", "|", "&&"), words))
    name, arguments = words[1], words[2:]
    assert name in COMMANDS
    command = importlib.import_module(f"jaxrelax.cli.{name.replace('-', '_')}").Command
    if arguments == ["--help"]:
        return
    assert misread(command, arguments) is None
    tyro.cli(command, args=arguments)


def test_scripts_are_there():
    named = {
        script
        for page in PAGES
        for script in re.findall(r"\bexperiments/[\w/]+\.py\b", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert [script for script in sorted(named) if not (ROOT / script).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_places_of_what_scripts_make_are_whole_and_filled(page):
    text = page.read_text(encoding="utf-8")
    places = re.findall(r"^<!-- (/?[\w-]+) -->$", text, re.MULTILINE)
    assert places[1::2] == [f"/{name}" for name in places[::2]]
    assert len(set(places)) == len(places)
    for name in places[::2]:
        filled = re.search(rf"<!-- {name} -->\n\n(\||```text\n)", text)
        assert filled, "made by the script that the page names"


def test_tutorial_quotes_its_own_commands_and_shows_its_own_pictures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    tutorial = importlib.import_module("tutorial")
    text = tutorial.PAGE.read_text(encoding="utf-8")
    shown_there = tutorial.shown(tutorial.PAGE)
    assert [one.name for one in shown_there] == re.findall(r"^<!-- (tutorial-.*) -->$", text, re.M)
    assert all(one.command.startswith("jaxrelax ") for one in shown_there)
    pictures = re.findall(r"\]\(figures/tutorial/(\S+)\)", text)
    assert sorted(pictures) == sorted({**tutorial.FAB, **tutorial.CONTROL})
    for name, picture in {**tutorial.FAB, **tutorial.CONTROL}.items():
        # The list of numbers below the picture, up to the next paragraph.
        below = text.split(f"/{name})\n", 1)[1]
        numbered = re.match(r"\n((?:\d+\. .*\n(?:   .*\n)*)*)", below)
        assert numbered is not None
        listed = re.findall(r"^(\d+)\. ", numbered[1], re.MULTILINE)
        assert listed == [str(n) for n in range(1, len(picture.marks) + 1)]
