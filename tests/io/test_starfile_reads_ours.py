"""STAR files that are written here, read by the `starfile` package: a reader of other hands."""

import numpy as np
import pytest
import starfile

from jaxrelax.geometry import euler_to_matrix, random_rotations
from jaxrelax.io import read_particles, write_fsc_star, write_star
from jaxrelax.simulate import Simulation, simulate


@pytest.fixture
def refined(particle_set):
    """A table with every field changed that a refinement changes, and columns of its own."""
    particles = read_particles(particle_set.write())
    n, rng = len(particles), np.random.default_rng(5)
    return particles.with_updates(
        rotations=random_rotations(n, rng),
        origins_angstrom=rng.uniform(-9, 9, (n, 2)),
        half_set=2 - np.arange(n) % 2,
        class_number=np.full(n, 3),
        extra_columns={
            "jrxRegister": np.arange(n),
            "jrxRegisterEntropy": np.linspace(0.0, 1.3862944, n),
            "jrxNote": np.array(["two words"] * n),
        },
    )


def test_particles_and_optics(refined, particle_set, tmp_path):
    write_star(refined, tmp_path / "out.star")
    tables = starfile.read(tmp_path / "out.star")
    assert set(tables) == {"optics", "particles"}
    optics, table = tables["optics"], tables["particles"]
    assert list(optics["rlnOpticsGroupName"]) == ["opticsGroup1", "opticsGroup2"]
    assert list(optics["rlnVoltage"]) == [300.0, 200.0]
    assert list(optics["rlnImageSize"]) == [16, 16]

    added = ["rlnClassNumber", "jrxRegister", "jrxRegisterEntropy", "jrxNote"]
    assert list(table.columns) == [*particle_set.columns, *added]
    assert list(table["rlnImageName"]) == particle_set.columns["rlnImageName"]
    for label in ("rlnDefocusU", "rlnLogLikeliContribution"):
        assert list(table[label]) == [float(text) for text in particle_set.columns[label]]
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    np.testing.assert_allclose(euler_to_matrix(*angles.T), refined.rotations, atol=1e-7)
    origins = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()
    np.testing.assert_allclose(origins, refined.origins_angstrom, atol=1e-6)
    for label, values in (
        ("rlnRandomSubset", refined.half_set),
        ("rlnClassNumber", refined.class_number),
        ("jrxRegister", np.arange(6)),
    ):
        assert table[label].dtype.kind == "i"
        np.testing.assert_array_equal(table[label], values)
    np.testing.assert_allclose(
        table["jrxRegisterEntropy"], np.linspace(0.0, 1.3862944, 6), rtol=1e-6
    )
    assert set(table["jrxNote"]) == {"two words"}


def test_one_particle_is_a_table_too(refined, tmp_path):
    write_star(refined.select([4]), tmp_path / "out.star")
    table = starfile.read(tmp_path / "out.star", always_dict=True)["particles"]
    assert list(table["rlnImageName"]) == ["000005@stack.mrcs"]


def test_files_of_relion_3_0_stay_one_table(shared_data, tmp_path):
    name = "images/sample_particles_relion30.star"
    write_star(read_particles(shared_data / name), tmp_path / "out.star")
    before, after = starfile.read(shared_data / name), starfile.read(tmp_path / "out.star")
    assert before.equals(after)


def test_cryosparc_particles_become_a_table(shared_data, tmp_path):
    particles = read_particles(shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs")
    write_star(particles, tmp_path / "out.star")
    tables = starfile.read(tmp_path / "out.star")
    assert len(tables["particles"]) == len(particles)
    np.testing.assert_allclose(
        tables["particles"][["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(),
        particles.origins_angstrom,
        atol=1e-6,
    )
    assert tables["optics"]["rlnImagePixelSize"].tolist() == [2.95]


def test_simulated_data(tmp_path):
    config = Simulation(
        n_images=8, box=32, pixel_size_angstrom=8.0, protomer_kda=10.0, partner_kda=10.0
    )
    made = simulate("phantom", tmp_path, config)
    for path in (made.particles, made.truth):
        tables = starfile.read(path)
        assert set(tables) == {"optics", "particles"}
        assert len(tables["particles"]) == 8
        expected = read_particles(path)
        angles = tables["particles"][["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
        np.testing.assert_allclose(euler_to_matrix(*angles.T), expected.rotations, atol=1e-9)


def test_fourier_shell_correlations(tmp_path):
    shells = np.arange(4)
    columns = {
        "rlnSpectralIndex": shells,
        "rlnAngstromResolution": np.array([np.inf, 60.0, 30.0, 20.0]),
        "rlnFourierShellCorrelationCorrected": np.array([1.0, 0.99, 0.7, 0.143]),
    }
    write_fsc_star(tmp_path / "fsc.star", columns)
    table = starfile.read(tmp_path / "fsc.star", always_dict=True)["fsc"]
    assert list(table.columns) == list(columns)
    assert list(table["rlnSpectralIndex"]) == [0, 1, 2, 3]
    assert list(table["rlnAngstromResolution"]) == [999.0, 60.0, 30.0, 20.0]
    np.testing.assert_allclose(
        table["rlnFourierShellCorrelationCorrected"], [1.0, 0.99, 0.7, 0.143]
    )
