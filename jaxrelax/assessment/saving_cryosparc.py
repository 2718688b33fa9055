"""What goes back to cryoSPARC: particles and maps as result groups that it imports."""

from __future__ import annotations

import numpy as np

from jaxrelax.assessment.state_shares import in_state
from jaxrelax.io import OutputFolder, Particles, write_cs
from jaxrelax.io.result_groups import write_particle_group, write_volume_group
from jaxrelax.refinement.result import Result


def save_for_cryosparc(result: Result, folder: OutputFolder) -> None:
    """Write ``particles.cs`` and the groups of particles, maps and mask beside their files.

    ``particles.csg``; ``volume.csg`` with the map and both half-maps; ``mask.csg``. With states
    each has its own, ``particles_class01.csg`` and so on.
    """
    _particles(result.particles, folder, "", "All particles")
    _maps(result, folder, "")
    for number in range(1, len(result.states) + 1):
        suffix = f"_class{number:02d}"
        mine = in_state(result, number - 1)
        if mine.any():
            chosen = result.particles.select(np.flatnonzero(mine))
            _particles(chosen, folder, suffix, f"Particles of class {number}")
        _maps(result, folder, suffix)


def _particles(particles: Particles, folder: OutputFolder, suffix: str, title: str) -> None:
    records = folder / f"particles{suffix}.cs"
    write_cs(particles, records)
    write_particle_group(folder / f"particles{suffix}.csg", records, title)


def _maps(result: Result, folder: OutputFolder, suffix: str) -> None:
    files = {
        "map": f"map{suffix}.mrc",
        "map_half_A": f"half1{suffix}.mrc",
        "map_half_B": f"half2{suffix}.mrc",
    }
    of_what = "" if not suffix else f" of class {int(suffix[-2:])}"
    groups = {"volume": (f"Map and half-maps{of_what}", files)}
    groups["mask"] = (f"Mask{of_what}", {"mask_refine": f"mask{suffix}.mrc"})
    for kind, (title, maps) in groups.items():
        write_volume_group(
            folder / f"{kind}{suffix}.csg",
            "mask" if kind == "mask" else "volume",
            maps,
            result.map.shape[0],
            result.pixel_size_angstrom,
            title,
        )
