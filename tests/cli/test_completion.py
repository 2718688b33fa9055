"""`jaxrelax completion`: scripts that shells accept, and that know what the commands know."""

import importlib
import re
import shutil
import subprocess

import pytest

from jaxrelax.cli.commands import COMMANDS
from jaxrelax.cli.completion import script
from jaxrelax.cli.misread_options import _shown
from jaxrelax.cli.option_list import options_of

# What is typed, the last word being completed, and what must be among the words that are offered,
# or None for file names.
TYPED = [
    (["ref"], {"refine"}),
    (["te"], {"test-symmetry"}),
    (["refine", "--reg"], {"--register", "--register-mask", "--register-max-resolution"}),
    (["refine", "p.star", "--mode", ""], {"homogeneous", "local", "registers", "classification"}),
    (["refine", "p.star", "--mode", "re"], {"registers"}),
    (["refine", "--no-j"], {"--no-junk"}),
    (["inspect", "--normalise", "a"], {"auto"}),
    (["completion", "f"], {"fish"}),
    (["align", "--out-p"], {"--out-particles"}),
]  # fmt: skip
NOTHING_KNOWN = [["refine", "p"], ["refine", "p.star", "--reference", ""], ["inspect", ""]]


def command_of(name):
    return importlib.import_module(f"jaxrelax.cli.{name.replace('-', '_')}").Command


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_those_of_the_help(name):
    options = options_of(command_of(name))
    found = {one for option in options for one in option.names if one.startswith("--")}
    # Options of other commands are mentioned in texts.
    shown = {one for one in _shown(command_of(name)) if one in found or one not in mentioned(name)}
    assert found - {"--help-all"} == shown - {"--help-all"}


def mentioned(name):
    """Options that a help text speaks of without having them."""
    text = " ".join(str(option) for other in COMMANDS for option in options_of(command_of(other)))
    others = set(re.findall(r"--[a-z][a-z0-9-]*[a-z0-9]", text))
    return others - {one for option in options_of(command_of(name)) for one in option.names}


def shell(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def ran(words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def completed_by_bash(path, typed):
    words = " ".join(f"'{word}'" for word in ["jaxrelax", *typed])
    asked = f"""
        source {path}
        complete -p jaxrelax > /dev/null || exit 1
        COMP_WORDS=({words}); COMP_CWORD={len(typed)}
        _jaxrelax
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return ran([shell("bash"), "-c", asked])


def completed_by_zsh(path, typed):
    """With the two functions of zsh's completion that the script calls."""
    words = " ".join(f"'{word}'" for word in ["jaxrelax", *typed])
    asked = f"""
        compdef() {{ [[ "$*" == "_jaxrelax jaxrelax" ]] || exit 1 }}
        compadd() {{ shift; for one in "$@"; do
            [[ "$one" == "${{words[CURRENT]}}"* ]] && print -r -- "$one"; done; return 0 }}
        _files() {{ }}
        source {path}
        words=({words}); CURRENT={len(typed) + 1}
        _jaxrelax
    """
    return ran([shell("zsh"), "-f", "-c", asked])


def completed_by_fish(path, typed):
    line = " ".join(["jaxrelax", *typed])
    lines = ran([shell("fish"), "--no-config", "-c", f"source {path}; complete -C '{line}'"])
    return lines


COMPLETED = {"bash": completed_by_bash, "zsh": completed_by_zsh, "fish": completed_by_fish}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    place = tmp_path_factory.mktemp("scripts")
    for name in COMPLETED:
        (place / name).write_text(script(name))
    return place


@pytest.mark.parametrize("name", COMPLETED)
def test_the_shell_accepts_the_script(scripts, name):
    words = [shell(name), "--no-execute" if name == "fish" else "-n", str(scripts / name)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", COMPLETED)
@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_the_shell_completes(scripts, name, typed, offered):
    found = set(COMPLETED[name](scripts / name, typed))
    if name == "fish":  # what a command does stands behind it
        assert offered <= found
    else:
        assert found == offered


@pytest.mark.parametrize("name", ["bash", "zsh"])
@pytest.mark.parametrize("typed", NOTHING_KNOWN)
def test_file_names_are_left_to_the_shell(scripts, name, typed):
    assert COMPLETED[name](scripts / name, typed) == []


def test_the_command_prints_the_script(run, scripts):
    status, out, err = run("completion", "bash")
    assert (status, err) == (0, "")
    assert out == (scripts / "bash").read_text()
    # It is static: nothing in it starts a program.
    assert "python" not in out
    assert run("completion", "tcsh")[0] == 2
