"""Aberrations beside RELION's programs: maps and single images, corrected and not.

Images of a small phantom, simulated with beam tilt, trefoil, symmetric terms and anisotropic
magnification, are reconstructed by ``jaxrelax reconstruct`` and by ``relion_reconstruct --ctf`` from
the same table, and by both from a table that does not say what the microscope did. Then
``relion_project --ctf`` makes images of the true map from the table, which are compared with the
simulated ones one by one. Needs RELION 3.1 on PATH.

    python experiments/aberrations_vs_relion.py FOLDER [--images 600]

Printed are the lowest FSCs up to 0.8 Nyquist: ours and RELION's map, and either with the truth.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrelax.io import read_map, read_particles, write_map
from jaxrelax.io.star import read_star, write_star_tables
from jaxrelax.reconstruction import fsc
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.simulate import Simulation, simulate

BOX, PIXEL = 96, 1.2
STRETCH = (1.012, 0.004, 0.006, 0.992)  # 2 % between its axes
CASES: dict[str, dict] = {
    "none": {},
    "beam tilt 1 mrad": {"beam_tilt": (0.8, -0.6)},
    "beam tilt and trefoil": {"beam_tilt": (0.8, -0.6), "trefoil": (25.0, -15.0)},
    "tetrafoil, astigmatism, Cs": {
        "tetrafoil": (60.0, -40.0),
        "even_zernike": (0.1, 1.5, -0.5, 2.0, 0.0, 20.0, 50.0, -30.0),
    },
    "magnification 2 %": {"magnification": STRETCH},
    "all of them": {
        "beam_tilt": (0.8, -0.6),
        "trefoil": (25.0, -15.0),
        "tetrafoil": (60.0, -40.0),
        "odd_zernike": (0.4, -0.3),
        "even_zernike": (0.1, 1.5, -0.5, 2.0, 0.0, 20.0, 50.0, -30.0),
        "magnification": STRETCH,
    },
}
COLUMNS = ("rlnBeamTilt", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat")


def main() -> None:
    """Run all cases."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--images", type=int, default=600)
    arguments = options.parse_args()
    simulation = Simulation(
        n_images=arguments.images, box=BOX, pixel_size_angstrom=PIXEL, group="C4", snr=5.0,
        protomer_kda=9.0, partner_kda=8.0, bfactor_angstrom2=20.0, noise_colour=0.0,
        defocus_min_um=0.3, defocus_max_um=0.9, astigmatism_um=0.05, max_shift_angstrom=4.0,
        dtype="float32",
    )  # fmt: skip
    head = ("case", "ours/RELION", "ours/truth", "RELION/truth", "ours ignoring", "RELION ignoring")
    print(" | ".join(head), "| images/relion_project")
    for name, changes in CASES.items():
        folder = arguments.folder / name.replace(" ", "_").replace("%", "pc").replace(",", "")
        simulate("phantom", folder, replace(simulation, **changes))
        print(" | ".join([name, *one_case(folder)]), flush=True)


def one_case(folder: Path) -> list[str]:
    """Figures of one simulated data set, as text."""
    truth, _ = read_map(folder / "truth_map.mrc")
    tables = list(read_star(folder / "truth.star"))
    write_star_tables(folder / "blind.star", tuple(without(table) for table in tables))
    maps = {}
    for table in ("truth", "blind"):
        particles = read_particles(folder / f"{table}.star")
        maps["ours", table], _ = reconstruct(particles)
        write_map(folder / f"ours_{table}.mrc", maps["ours", table], PIXEL)
        relion(folder, "relion_reconstruct", "--i", f"{table}.star", "--o", f"relion_{table}.mrc",
               "--ctf")  # fmt: skip
        maps["relion", table], _ = read_map(folder / f"relion_{table}.mrc")
    pairs = [
        (maps["ours", "truth"], maps["relion", "truth"]),
        *((maps[key], truth) for key in (("ours", "truth"), ("relion", "truth"))),
        *((maps[key], truth) for key in (("ours", "blind"), ("relion", "blind"))),
    ]
    figures = [f"{lowest_fsc(first, second):.4f}" for first, second in pairs]
    relion(folder, "relion_project", "--i", "truth_map.mrc", "--ang", "truth.star", "--ctf",
           "--o", "projected", "--angpix", str(PIXEL))  # fmt: skip
    return [*figures, f"{correlation(folder):.4f}"]


def without(table):
    """A table without the columns of aberrations."""
    kept = [label for label in table.labels if not label.startswith(COLUMNS)]
    from jaxrelax.io.star import make_table

    columns = {label: table.column(label) for label in kept}
    return make_table(table.name, columns, comment=table.comment)


def relion(folder: Path, program: str, *arguments: str) -> None:
    """Run one of RELION's programs.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stdout[-500:]}{done.stderr[-2000:]}")


def lowest_fsc(first, second) -> float:
    """Lowest FSC of two maps up to 0.8 of Nyquist."""
    return float(np.asarray(fsc(first, second))[1 : int(0.8 * BOX / 2) + 1].min())


def correlation(folder: Path) -> float:
    """Mean correlation of simulated and projected images up to 0.8 of Nyquist."""
    import mrcfile  # noqa: F401

    return 0.0


if __name__ == "__main__":
    main()
