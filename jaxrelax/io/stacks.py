"""Where the image files that a table names are on this disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def search_folders(
    source: Path, image_root: Path | None, noted: Sequence[str] = (), *, cwd: bool = True
) -> list[Path]:
    """Folders that image names may be relative to, in order.

    The root given; what was noted relative to the file when it was written; the file's own folder
    and its parents; the working directory; what was noted absolutely.
    """
    own = source.resolve().parent
    folders = [] if image_root is None else [image_root.resolve()]
    folders += [(own / text).resolve() for text in noted if not os.path.isabs(text)]
    folders += [own, *own.parents]
    folders += [Path.cwd()] * cwd
    folders += [Path(text) for text in noted if os.path.isabs(text)]
    return list(dict.fromkeys(folders))


def file_name(name: str) -> str:
    """The file part of an image name: no leading ``>`` (cryoSPARC), no ``:mrcs`` (RELION)."""
    name = name.removeprefix(">")
    for suffix in (":mrcs", ":mrc"):
        name = name.removesuffix(suffix)
    return name


def resolve_stacks(
    names: Sequence[str],
    source: Path,
    image_root: Path | None,
    noted: Sequence[str] = (),
    *,
    cwd: bool = True,
) -> tuple[Path, ...]:
    """A path for every image file name; folders as for `search_folders`.

    A file that is nowhere gets the path it would have in the folder given, or else in that of the
    table; whoever needs its images finds that it does not exist and says so.
    """
    folders = search_folders(source, image_root, noted, cwd=cwd)
    default = folders[0] if image_root is not None else source.resolve().parent
    paths = []
    for name in map(file_name, names):
        found = next((folder for folder in folders if os.path.isfile(folder / name)), None)
        if found is not None and found != folders[0]:
            folders = [found, *(folder for folder in folders if folder != found)]
        paths.append((found or default) / name)
    return tuple(paths)


def missing_images_message(
    path: Path, name: str, source: Path, image_root: Path | None, others: int
) -> str:
    """What to tell about an image file that is not there."""
    tried = search_folders(source, image_root)
    shown = ", ".join(str(folder) for folder in tried[:4]) + (", ..." if len(tried) > 4 else "")
    more = f" (and {others} more)" if others else ""
    where = "" if os.path.isabs(file_name(name)) else f" in any of {shown}"
    return (
        f"{source}: the image file '{name}'{more} does not exist{where}. Image names are "
        "relative to the project folder that the file was written from: run in it, or name it "
        "with --image-root."
    )
