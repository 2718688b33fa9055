"""Aberrations: the same table gives RELION's map, and the true one; without its columns neither."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.geometry import Aberrations
from jaxrelax.io import read_map, read_particles, write_map
from jaxrelax.reconstruction import fsc, soft_sphere
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.simulate import Simulation, simulate

SIDE, PIXEL = 48, 1.5
LAST = int(0.8 * SIDE / 2)  # 3.8 Å
CASES = {
    "beam tilt and trefoil": {"beam_tilt": (1.6, -1.2), "trefoil": (90.0, -60.0)},
    "all of them": {
        "beam_tilt": (1.6, -1.2),
        "trefoil": (90.0, -60.0),
        "tetrafoil": (300.0, -200.0),
        "even_zernike": (0.1, 3.0, -0.5, 4.0, 0.0, 90.0, 150.0, -90.0),
        "magnification": (1.03, 0.01, 0.015, 0.98),
    },
}


@pytest.fixture(scope="module", params=CASES)
def maps(request, relion, tmp_path_factory):
    """Our map, RELION's, the true one and our map without correction."""
    folder = tmp_path_factory.mktemp("aberrations")
    rng = np.random.default_rng(0)
    axis = np.arange(SIDE) - SIDE // 2
    inside = sum(x**2 for x in np.meshgrid(axis, axis, axis, indexing="ij")) < 9.0**2
    source = np.where(inside, rng.random((SIDE,) * 3) ** 8, 0.0).astype(np.float32)
    write_map(folder / "object.mrc", source, PIXEL)
    config = Simulation(
        n_images=300, box=SIDE, pixel_size_angstrom=PIXEL, group="C1", snr=50.0, noise_colour=0.0,
        defocus_min_um=0.3, defocus_max_um=0.9, max_shift_angstrom=3.0, dtype="float32",
        **CASES[request.param],
    )  # fmt: skip
    simulate(folder / "object.mrc", folder, config)
    relion(
        "relion_reconstruct", "--i", "truth.star", "--o", "relion.mrc", "--ctf", folder=folder
    )  # fmt: skip
    particles = read_particles(folder / "truth.star")
    (group,) = particles.optics
    blind = replace(particles, optics=(replace(group, aberrations=Aberrations()),))
    sphere = soft_sphere(SIDE, 0.38 * SIDE, 3.0)
    found = [
        reconstruct(particles)[0],
        read_map(folder / "relion.mrc")[0],
        read_map(folder / "truth_map.mrc")[0],
        reconstruct(blind)[0],
    ]
    return [map_ * sphere for map_ in found]


def lowest(first, second) -> float:
    return float(fsc(first, second)[1 : LAST + 1].min())


def test_our_map_is_relions(maps):
    ours, theirs, *_ = maps
    assert lowest(ours, theirs) > 0.98


def test_both_are_the_object(maps):
    ours, theirs, truth, _ = maps
    assert min(lowest(ours, truth), lowest(theirs, truth)) > 0.95


def test_without_correction_neither_is(maps):
    ours, theirs, truth, blind = maps
    assert lowest(blind, truth) < lowest(ours, truth) - 0.2
    assert lowest(blind, theirs) < 0.8
