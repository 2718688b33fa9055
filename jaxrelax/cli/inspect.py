"""``jaxrelax inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxrelax.io import Inspection, format_inspection, inspect_file


@dataclass(frozen=True)
class Command:
    """Say what a table, map or stack holds, and what a refinement would refuse about it."""

    file: tyro.conf.Positional[Path]
    """A .star or .cs file, a map, a mask or a stack."""
    image_root: Path | None = None
    """Folder that image names are relative to."""

    def run(self) -> Inspection:
        """Print what was found."""
        found = inspect_file(self.file, self.image_root)
        print(format_inspection(found))
        return found
