"""Aberrations beside RELION's programs: maps, corrected and not.

Images of a small ball of points, simulated with beam tilt, trefoil, symmetric terms and anisotropic
magnification, are reconstructed by ``jaxrelax reconstruct`` and by ``relion_reconstruct --ctf``
from the same table, and by both from a table that does not say what the microscope did. The other
way round, ``relion_project --ctf`` makes images of the true map, from which we reconstruct. Needs
RELION 3.1 on PATH.

    python experiments/aberrations_vs_relion.py FOLDER [--images 400] [--only NAME]

Printed are the lowest FSCs up to 0.8 Nyquist, 3 Å: our map and RELION's, either with the truth,
either without correction, and our map of RELION's images with the truth.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrelax.io import Particles, read_map, read_particles, write_map
from jaxrelax.io.star import StarTable, make_table, read_star, write_star_tables
from jaxrelax.reconstruction import fsc, soft_sphere
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.simulate import Simulation, simulate
from jaxrelax.simulate.atoms import FormFactors
from jaxrelax.simulate.phantom import beads
from jaxrelax.simulate.projection import Projector

BOX, PIXEL = 96, 1.2
RADIUS = 24.0  # Å, of the object
BAND = int(0.8 * BOX / 2)  # shells; 3 Å
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
    """Run the cases."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--images", type=int, default=400)
    options.add_argument("--only", choices=list(CASES), nargs="*", default=list(CASES))
    arguments = options.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    source = arguments.folder / "object.mrc"
    write_map(source, point_object(), PIXEL)
    simulation = Simulation(
        n_images=arguments.images, box=BOX, pixel_size_angstrom=PIXEL, group="C1", snr=50.0,
        noise_colour=0.0, defocus_min_um=0.3, defocus_max_um=0.9, astigmatism_um=0.05,
        max_shift_angstrom=4.0, dtype="float32",
    )  # fmt: skip
    print(
        "case | ours/RELION | ours/truth | RELION/truth | ours ignoring it | RELION ignoring it | "
        "ours of RELION's images"
    )
    for name in arguments.only:
        folder = arguments.folder / name.replace(" ", "_").replace("%", "pc").replace(",", "")
        simulate(source, folder, replace(simulation, **CASES[name]))
        print(" | ".join([name, *one_case(folder)]), flush=True)


def point_object():
    """A ball of points, whose spectrum does not fall off: there is something to see at 3 Å."""
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(1000, 3))
    radius = RADIUS * rng.random((1000, 1)) ** (1 / 3)
    positions *= radius / np.linalg.norm(positions, axis=1, keepdims=True)
    flat = FormFactors(np.ones((1, 1)), np.zeros((1, 1)))
    points = replace(beads(positions), form_factors=flat)
    density = Projector(points, BOX, PIXEL, bfactor_angstrom2=25.0).map()
    # Where there is nothing, nothing need be projected.
    return np.where(np.abs(density) > 5e-3 * density.max(), density, 0.0)


def one_case(folder: Path) -> list[str]:
    """Figures of one simulated data set, as text."""
    truth, _ = read_map(folder / "truth_map.mrc")
    optics, table = read_star(folder / "truth.star")
    write_star_tables(folder / "blind.star", (without(optics), table))
    maps = {}
    for name in ("truth", "blind"):
        maps["ours", name] = ours(read_particles(folder / f"{name}.star"))
        relion(folder, "relion_reconstruct", "--i", f"{name}.star", "--o", f"relion_{name}.mrc",
               "--ctf")  # fmt: skip
        maps["relion", name], _ = read_map(folder / f"relion_{name}.mrc")
    figures = [
        lowest_fsc(maps["ours", "truth"], maps["relion", "truth"]),
        *(lowest_fsc(maps[who, "truth"], truth) for who in ("ours", "relion")),
        *(lowest_fsc(maps[who, "blind"], truth) for who in ("ours", "relion")),
        lowest_fsc(ours(relions_images(folder)), truth),
    ]
    return [f"{figure:.4f}" for figure in figures]


def ours(particles: Particles):
    """Our reconstruction."""
    return reconstruct(particles)[0]


def relions_images(folder: Path) -> Particles:
    """Images of the true map that RELION made, with what it made them with.

    ``relion_project`` 3.1.3 gives its images the symmetric terms, but neither the antisymmetric
    phase nor, but for the CTF, the magnification.
    """
    optics, table = read_star(folder / "truth.star")
    symmetric = without(optics, tuple(c for c in COLUMNS if c != "rlnEvenZernike"))
    write_star_tables(folder / "symmetric.star", (symmetric, table))
    relion(folder, "relion_project", "--i", "truth_map.mrc", "--ang", "symmetric.star", "--ctf",
           "--o", "projected", "--angpix", str(PIXEL))  # fmt: skip
    names = [f"{i + 1:06d}@projected.mrcs" for i in range(len(table))]
    renamed = table.updated(np.arange(len(table)), {"rlnImageName": names})
    write_star_tables(folder / "relions.star", (symmetric, renamed))
    return read_particles(folder / "relions.star")


def without(table: StarTable, columns: tuple[str, ...] = COLUMNS) -> StarTable:
    """A table without the columns of aberrations."""
    kept = [label for label in table.labels if not label.startswith(columns)]
    values = {label: table.column(label) for label in kept}
    return make_table(table.name, values, comment=table.comment)


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
    """Lowest FSC of two maps, within a sphere, up to 0.8 of Nyquist."""
    sphere = soft_sphere(BOX, 0.38 * BOX, 4.0)
    return float(np.asarray(fsc(first * sphere, second * sphere))[1 : BAND + 1].min())


if __name__ == "__main__":
    main()
