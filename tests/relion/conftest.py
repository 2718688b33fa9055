"""RELION's programs, and one small data set that they and jaxrelax both work on."""

import shutil
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.imaging import CTFParameters
from jaxrelax.io import Particles, read_map, read_particles
from jaxrelax.simulate import Simulation, simulate

PROGRAMS = ("relion_project", "relion_reconstruct", "relion_refine", "relion_postprocess")
BOX, PIXEL_ANGSTROM = 64, 4.2
BAND = 25  # 0.8 of Nyquist; the Nyquist ring itself is no standard in any program


@pytest.fixture(scope="session")
def relion():
    """Call ``relion(program, *arguments, folder=...)``; skips where RELION is not installed."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)} (Debian: apt install relion)")

    def run(program: str, *arguments, folder: Path) -> str:
        done = subprocess.run(
            [program, *(str(a) for a in arguments)],
            cwd=folder, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} failed:\n{done.stdout[-500:]}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def data_set(tmp_path_factory) -> Path:
    """A C4 phantom with one partner: 600 images of two optics groups at their true poses.

    RELION before version 4 reads no float16 stacks. The defoci are astigmatic and there is a phase
    shift, so that every term of the CTF counts.
    """
    folder = tmp_path_factory.mktemp("relion")
    simulate(
        "phantom", folder,
        Simulation(
            n_images=600, box=BOX, pixel_size_angstrom=PIXEL_ANGSTROM, group="C4", snr=20.0,
            protomer_kda=20.0, partner_kda=30.0, bfactor_angstrom2=100.0, dtype="float32",
            n_optics_groups=2, astigmatism_um=0.4, phase_shift_deg=25.0, noise_colour=0.0,
        ),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def particles(data_set) -> Particles:
    return read_particles(data_set / "truth.star")


@pytest.fixture(scope="session")
def true_map(data_set) -> np.ndarray:
    return read_map(data_set / "truth_map.mrc")[0]


def ctf_parameters(particles: Particles) -> CTFParameters:
    """Optics of every particle, table and optics group joined."""
    optics = [particles.optics[g] for g in particles.optics_group]

    def single(values):
        return jnp.asarray(np.array(values), jnp.float32)

    return CTFParameters(
        defocus_u_angstrom=single(particles.defocus_u_angstrom),
        defocus_v_angstrom=single(particles.defocus_v_angstrom),
        defocus_angle_deg=single(particles.defocus_angle_deg),
        phase_shift_deg=single(particles.phase_shift_deg),
        bfactor_angstrom2=single(particles.bfactor_angstrom2),
        voltage_kv=single([o.voltage_kv for o in optics]),
        spherical_aberration_mm=single([o.spherical_aberration_mm for o in optics]),
        amplitude_contrast=single([o.amplitude_contrast for o in optics]),
    )


def band_correlations(a, b, packing) -> np.ndarray:
    """Correlation of each pair of packed images over the whole band."""
    a, b, weight = np.asarray(a), np.asarray(b), packing.multiplicity

    def product(x, y):
        return np.sum(weight * (x * y.conj()).real, axis=1)

    return product(a, b) / np.sqrt(product(a, a) * product(b, b))
