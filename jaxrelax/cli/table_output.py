"""The table of particles that a command writes: under a name that it can have, over nothing."""

from __future__ import annotations

from pathlib import Path

from jaxrelax.io import InputError, Particles, require_writable, write_cs, write_star
from jaxrelax.io.result_groups import write_particle_group

GROUP = ".csg"


def check_table_output(out: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse names before anything is read.

    Args:
        out: the file to write.
        source: the table whose particles it will have.
        overwrite: an earlier file may be replaced.

    Raises:
        InputError: particles of the source are not written as such a file, it is the source, it
            is there already, or its folder is not there or cannot be written to.
    """
    suffixes = list(dict.fromkeys([".star", source.suffix]))
    if out.suffix not in suffixes:
        raise InputError(
            f"{out}: particles of {source} are written as {' or '.join(suffixes)}. "
            "Name the file so."
        )
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out}: is the input. Name another file.")
    written = [out, out.with_suffix(GROUP)] if out.suffix == ".cs" else [out]
    for path in written:
        if path.exists() and not overwrite:
            raise InputError(f"{path}: is there already. Name another file, or --overwrite it.")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder. Make it, or name another.")
    require_writable(out.parent)


def write_table(particles: Particles, out: Path) -> None:
    """As STAR or ``.cs``, by the name; beside a ``.cs`` file the group that cryoSPARC imports.

    Raises:
        InputError: see `jaxrelax.io.write_star` and `jaxrelax.io.write_cs`.
    """
    if out.suffix != ".cs":
        return write_star(particles, out)
    write_cs(particles, out)
    write_particle_group(out.with_suffix(GROUP), out, "Particles")
