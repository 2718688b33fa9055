"""Options that a command does not have: those of other programs, and typing errors."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Iterable, Sequence

import tyro

# What RELION's and cryoSPARC's options are called here, in this or that command.
NAMES = {
    "--ref": ("--reference", "--map"),
    "--o": ("--out",),
    "--sym": ("--symmetry", "--relax"),
    "--relax-sym": ("--relax",),
    # Of one command in another: what is imposed, and what is relaxed.
    "--group": ("--relax", "--symmetry"),
    "--relax": ("--symmetry",),
    "--k": ("--classes",),
    "--iter": ("--max-iterations",),
    "--random-seed": ("--seed",),
    "--healpix-order": ("--finest-order",),
    "--angpix": ("--map-pixel-size-angstrom", "--pixel-size-angstrom"),
    "--skip-align": ("--poses",),
    "--solvent-mask": ("--register-mask", "--focus-mask"),
    "--norm": ("--normalise",),
}
# What there is none of, and why.
NEEDLESS = {
    "--i": "the table of particles comes first, without an option",
    "--j": "all cores are used, and devices are chosen with --devices",
    "--gpu": "accelerators are used where JAX finds them; --devices says how many",
    "--tau2-fudge": "the strength of every part is found by images of the other half-set",
    "--zero-mask": "images are not masked",
    "--firstiter-cc": "the reference is brought to the grey scale of the images",
    "--ctf": "CTFs are always corrected",
    "--pool": "images are streamed",
}
CLOSE = 0.75


def misread(command: type, given: Sequence[str]) -> str | None:
    """What is wrong with options that a command does not have; None where nothing is known of it.

    Args:
        command: a dataclass that tyro makes a command line of.
        given: arguments of the command.
    """
    names = [one.partition("=")[0] for one in given if re.match(r"--[A-Za-z]", one)]
    strange = [one for one in names if _plain(one) not in _fields(command)]
    if not strange:
        return None
    known = _shown(command)
    for one in strange:
        if _plain(one) in known:
            continue
        called = _called(_plain(one), known)
        if called:
            return f"there is no option {one}; it is called {' or '.join(called)}."
        if _plain(one) in NEEDLESS:
            return f"there is no option {one}: {NEEDLESS[_plain(one)]}."
        near = difflib.get_close_matches(_plain(one), sorted(known), n=1, cutoff=CLOSE)
        if near:
            return f"there is no option {one}; did you mean {near[0]}?"
    return None


def _called(option: str, known: set[str]) -> list[str]:
    """What an option is called in a command; by way of another command, if that has it not."""
    names = NAMES.get(option, ())
    here = [name for name in names if name in known]
    return here or [one for name in names for one in _called(name, known)]


def _plain(option: str) -> str:
    return option.lower().replace("_", "-")


def _fields(kind: type) -> set[str]:
    """Options that a command is sure to have, without asking the parser."""
    return {"--help", "--help-all", *_flags(dataclasses.fields(kind))}


def _flags(fields: Iterable[dataclasses.Field]) -> Iterable[str]:
    for field in fields:
        if dataclasses.is_dataclass(field.default):
            yield from _flags(dataclasses.fields(field.default))
        else:
            yield _plain(f"--{field.name}")


def _shown(command: type) -> set[str]:
    """Options in the help of a command."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(command, args=["--help"])
    return set(re.findall(r"--[a-z][a-z0-9.-]*[a-z0-9]|--[a-z]\b", text.getvalue()))
