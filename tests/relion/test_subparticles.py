"""Sub-particles that we cut: RELION reads them, finds the site, and agrees about their depth."""

import numpy as np
import pytest

from jaxrelax.geometry import euler_to_matrix, point_group
from jaxrelax.io import (
    plan_windows,
    read_map,
    read_particles,
    sub_particles,
    write_stack,
    write_star,
    write_windows,
)
from jaxrelax.reconstruction import fsc, soft_sphere
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.simulate import Simulation, simulate

from .conftest import PIXEL_ANGSTROM

WINDOW = 40
SITE = (37.8, 21.0, 8.4)  # nine, five and two voxels
BAND = 10  # 16.8 Å


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Windows around a site of a C4 body in 400 images that are as good as free of noise."""
    folder = tmp_path_factory.mktemp("windows")
    simulate(
        "phantom", folder,
        Simulation(
            n_images=400, box=64, pixel_size_angstrom=PIXEL_ANGSTROM, group="C4", snr=1e4,
            protomer_kda=20.0, partner_kda=30.0, bfactor_angstrom2=100.0, dtype="float32",
            occupancy="all", noise_colour=0.0, defocus_max_um=1.5,
        ),
    )  # fmt: skip
    made = sub_particles(read_particles(folder / "truth.star"), point_group("C4"), SITE)
    planned = plan_windows(made, WINDOW, folder / "windows.mrcs")
    write_windows(planned)
    write_star(planned.particles, folder / "windows.star")
    return folder


def true_part(folder):
    """The true map around the site, which lies on a voxel."""
    true, pixel = read_map(folder / "truth_map.mrc")
    x, y, z = (len(true) // 2 + np.rint(np.array(SITE) / pixel)).astype(int)
    padded = np.pad(true, WINDOW // 2)
    return padded[z : z + WINDOW, y : y + WINDOW, x : x + WINDOW]


def band_passed(volume):
    """Without what is beyond the band."""
    k = np.fft.fftfreq(WINDOW) * WINDOW
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    return np.fft.ifftn(np.fft.fftn(volume) * (radius <= BAND)).real


def test_windows_show_the_site(windows):
    particles = read_particles(windows / "windows.star")
    assert len(particles) == 1600
    ours, _ = reconstruct(particles)
    mask = soft_sphere(WINDOW, 9.0, 3.0)
    found, true = (band_passed(v)[mask > 0.5] for v in (ours, true_part(windows)))
    assert np.corrcoef(found, true)[0, 1] > 0.95
    # Of the whole particle's map the same place, so that it is the site and not the middle.
    whole, _ = read_map(windows / "truth_map.mrc")
    middle = whole[12:52, 12:52, 12:52]
    assert np.corrcoef(found, band_passed(middle)[mask > 0.5])[0, 1] < 0.6


def test_relion_reconstructs_them(relion, windows):
    relion(
        "relion_reconstruct", "--i", "windows.star", "--o", "theirs.mrc", "--ctf", folder=windows
    )
    theirs, pixel = read_map(windows / "theirs.mrc")
    assert pixel == pytest.approx(PIXEL_ANGSTROM)
    ours, _ = reconstruct(read_particles(windows / "windows.star"))
    mask = soft_sphere(WINDOW, 0.35 * WINDOW, 4.0)
    assert fsc(ours * mask, theirs * mask)[: WINDOW // 2 - 4].min() > 0.98


def test_relion_reads_tables_that_name_the_parents(relion, windows):
    """Large origins, as they are in a table without windows."""
    made = sub_particles(read_particles(windows / "truth.star"), point_group("C4"), SITE)
    write_star(made, windows / "named.star")
    relion("relion_reconstruct", "--i", "named.star", "--o", "named.mrc", "--ctf", folder=windows)
    theirs, _ = read_map(windows / "named.mrc")
    inner = theirs[12:52, 12:52, 12:52]
    mask = soft_sphere(WINDOW, 9.0, 3.0) > 0.5
    assert np.corrcoef(band_passed(inner)[mask], band_passed(true_part(windows))[mask])[0, 1] > 0.95


def test_height_has_relions_sign(relion, tmp_path):
    """RELION's own correction of the Ewald sphere is right for the defoci that we give sites."""
    size, pixel, n = 96, 0.8, 120
    rng = np.random.default_rng(0)
    rot, psi = rng.uniform(-180, 180, (2, n))
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, n)))
    defocus, point = rng.uniform(4000, 6000, n), np.array([4.0, -8.0, 24.0])
    head = (
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnVoltage #3\n_rlnSphericalAberration #4\n_rlnAmplitudeContrast #5\n"
        "_rlnImagePixelSize #6\n_rlnImageSize #7\n_rlnImageDimensionality #8\n"
        f"one 1 100.0 0.0 0.1 {pixel} {size} 2\n\n# version 30001\n\ndata_particles\n\nloop_\n"
        "_rlnImageName #1\n_rlnOpticsGroup #2\n_rlnDefocusU #3\n_rlnDefocusV #4\n"
        "_rlnDefocusAngle #5\n_rlnAngleRot #6\n_rlnAngleTilt #7\n_rlnAnglePsi #8\n"
        "_rlnOriginXAngst #9\n_rlnOriginYAngst #10\n"
    )
    rows = [
        f"{i + 1:06d}@points.mrcs 1 {defocus[i]:.3f} {defocus[i]:.3f} 0 {rot[i]:.5f} {tilt[i]:.5f} "
        f"{psi[i]:.5f} 0 0\n"
        for i in range(n)
    ]
    (tmp_path / "points.star").write_text(head + "".join(rows))
    table = read_particles(tmp_path / "points.star", tmp_path)
    of_site = sub_particles(table, point_group("C1"), point).defocus_u_angstrom
    k = np.fft.fftfreq(size, pixel)
    k2 = k[:, None] ** 2 + k**2
    volts = 1e5
    wavelength = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    places = np.asarray(euler_to_matrix(rot, tilt, psi)) @ point
    images = [
        np.fft.fftshift(
            np.fft.ifft2(
                np.sin(np.pi * wavelength * depth * k2 + np.arctan(0.1 / np.sqrt(0.99)))
                * np.exp(-(np.pi**2) * k2 - 2j * np.pi * (k * x + k[:, None] * y))
            ).real
        )
        for depth, (x, y, _) in zip(of_site, places, strict=True)
    ]
    write_stack(tmp_path / "points.mrcs", np.array(images), pixel)
    peaks = {}
    for way, words in (("default", ()), ("reversed", ("--reverse_curvature",))):
        relion(
            "relion_reconstruct", "--i", "points.star", "--o", f"{way}.mrc", "--ctf", "--ewald",
            "--mask_diameter", "72", *words,
            folder=tmp_path,
        )  # fmt: skip
        peaks[way] = float(read_map(tmp_path / f"{way}.mrc")[0].max())
    assert peaks["default"] > 1.1 * peaks["reversed"]
