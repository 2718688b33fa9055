""".cs files: units, 0-based numbers and passthrough files."""

import logging

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxrelax.io import InputError, read_particles, write_star

NAME = "cryosparc_P12_J24_001_particles.cs"


@pytest.fixture
def records(shared_data):
    return np.load(shared_data / "metadata" / NAME)[:20]


def with_fields(records, **fields):
    """A copy with fields replaced or added; ``__`` stands for the slash."""
    fields = {name.replace("__", "/"): np.asarray(values) for name, values in fields.items()}
    kept = [name for name in records.dtype.names if name not in fields]
    dtype = [(name, *records.dtype.fields[name][:1]) for name in kept]
    dtype += [(name, values.dtype, values.shape[1:]) for name, values in fields.items()]
    out = np.zeros(len(records), dtype)
    for name in kept:
        out[name] = records[name]
    for name, values in fields.items():
        out[name] = values
    return out


def save(folder, records, name=NAME):
    with open(folder / name, "wb") as handle:
        np.save(handle, records)
    return folder / name


def without(records, *names):
    return records[[name for name in records.dtype.names if name not in names]].copy()


def test_values_are_converted(shared_data, caplog):
    caplog.set_level(logging.INFO, "jaxrelax")
    particles = read_particles(shared_data / "metadata" / NAME)
    raw = np.load(shared_data / "metadata" / NAME)
    assert len(particles) == 2019
    assert [(g.box, g.pixel_size_angstrom, g.voltage_kv) for g in particles.optics] == [
        (180, 2.95, 200.0)
    ]
    assert particles.optics[0].amplitude_contrast == 0.07
    expected = Rotation.from_rotvec(raw["alignments3D/pose"].astype(float)).as_matrix()
    np.testing.assert_allclose(particles.rotations, expected.transpose(0, 2, 1), atol=1e-12)
    np.testing.assert_allclose(
        particles.origins_angstrom, raw["alignments3D/shift"].astype(float) * 2.95
    )
    np.testing.assert_array_equal(particles.defocus_u_angstrom, raw["ctf/df1_A"])
    np.testing.assert_allclose(
        particles.defocus_angle_deg, np.degrees(raw["ctf/df_angle_rad"].astype(float))
    )
    np.testing.assert_array_equal(particles.half_set, raw["alignments3D/split"] + 1)
    np.testing.assert_array_equal(particles.image_index, raw["blob/idx"])
    assert set(particles.image_sign) == {-1}
    assert "inverted" in caplog.text


def test_shifts_of_a_binned_alignment_are_in_its_pixels(records, tmp_path):
    binned = with_fields(records, alignments3D__psize_A=np.full(20, 5.9, np.float32))
    particles = read_particles(save(tmp_path, binned))
    np.testing.assert_allclose(
        particles.origins_angstrom, records["alignments3D/shift"].astype(float) * 5.9
    )
    assert particles.optics[0].pixel_size_angstrom == 2.95


def test_passthrough_files_are_joined_by_uid(records, tmp_path, caplog):
    caplog.set_level(logging.INFO, "jaxrelax")
    ctf = [name for name in records.dtype.names if name.startswith("ctf/")]
    alone = save(tmp_path, without(records, *ctf))
    with pytest.raises(InputError, match=r"no columns ctf/df1_A.*passthrough"):
        read_particles(alone)
    shuffled = records[["uid", *ctf]].copy()[::-1]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    given = save(elsewhere, shuffled, "any.cs")
    particles = read_particles(alone, passthrough=[given])
    np.testing.assert_array_equal(particles.defocus_u_angstrom, records["ctf/df1_A"])

    save(tmp_path, shuffled[:3], "P12_J25_passthrough_particles.cs")  # another job
    beside = save(tmp_path, shuffled, "P12_J24_passthrough_particles.cs")
    particles = read_particles(alone)
    np.testing.assert_array_equal(particles.defocus_v_angstrom, records["ctf/df2_A"])
    assert f"joined the passthrough fields of {beside}" in caplog.text

    with pytest.raises(InputError, match=r"17 particles of .* are not in this passthrough"):
        read_particles(alone, passthrough=[save(elsewhere, shuffled[:3], "few.cs")])
    with pytest.raises(InputError, match="without the field uid"):
        read_particles(alone, passthrough=[save(elsewhere, without(shuffled, "uid"), "no.cs")])


def test_leading_bracket_of_paths_is_taken_off(records, tmp_path):
    paths = np.array([b">" + path for path in records["blob/path"]])
    particles = read_particles(save(tmp_path, with_fields(records, blob__path=paths)))
    assert particles.image_names[0].startswith("J19/extract/")


def test_aberrations_are_those_of_the_wave_aberration(records, tmp_path):
    """Coefficients as in Uhlemann & Haider (1998): phases −2π/λ W, and +2π/λ W next to Cs."""
    n = len(records)
    given = {
        "ctf__shift_A": [0.3, -0.2],
        "ctf__tilt_A": [2e4, -1e4],
        "ctf__trefoil_A": [3e3, 5e3],
        "ctf__tetra_A": [4e4, -3e4, 5e4, 2e4],
        "ctf__anisomag": [0.01, 0.002, 0.004, -0.01],
    }
    fields = {name: np.tile(np.float32(value), (n, 1)) for name, value in given.items()}
    particles = read_particles(save(tmp_path, with_fields(records, **fields)))
    (group,) = particles.optics
    k = np.random.default_rng(0).uniform(-0.3, 0.3, (40, 2))
    r, theta = np.hypot(*k.T), np.arctan2(k[:, 1], k[:, 0])
    wavelength = 12.2643247 / np.sqrt(2e5 * (1 + 0.978466e-6 * 2e5))

    def waves(order, pair):
        return pair[0] * np.cos(order * theta) + pair[1] * np.sin(order * theta)

    cubic = waves(1, given["ctf__tilt_A"]) + waves(3, given["ctf__trefoil_A"]) / 3
    odd = -2 * np.pi * (r * waves(1, given["ctf__shift_A"]) + wavelength**2 * r**3 * cubic)
    np.testing.assert_allclose(group.aberrations.odd_phase(k), odd, rtol=1e-5, atol=1e-6)
    tetra = given["ctf__tetra_A"]
    fourth = waves(2, tetra[:2]) + waves(4, tetra[2:]) / 4
    even = 2 * np.pi * wavelength**3 * r**4 * fourth
    np.testing.assert_allclose(group.aberrations.even_phase(k), even, rtol=1e-5, atol=1e-6)
    expected = [1.01, 0.002, 0.004, 0.99]
    np.testing.assert_allclose(group.aberrations.magnification, expected, rtol=1e-6)

    # The same as RELION's columns.
    write_star(particles, tmp_path / "same.star")
    (again,) = read_particles(tmp_path / "same.star").optics
    np.testing.assert_allclose(again.aberrations.odd, group.aberrations.odd, rtol=1e-9)
    np.testing.assert_allclose(again.aberrations.even, group.aberrations.even, rtol=1e-9)
    np.testing.assert_allclose(again.aberrations.magnification, expected, rtol=1e-6)


def test_what_is_assumed_of_aberrations_is_said_once(records, tmp_path, caplog):
    tilt, shift = (np.tile(np.float32([x, 0.0]), (len(records), 1)) for x in (2e4, 0.0))
    read_particles(save(tmp_path, with_fields(records, ctf__tilt_A=tilt, ctf__shift_A=shift)))
    said = [r.message for r in caplog.records if "could not be compared" in r.message]
    assert len(said) == 1
    assert "ctf/tilt_A is applied" in said[0]
    assert "shift_A" not in said[0]
    caplog.clear()
    read_particles(save(tmp_path, without(records, "ctf/tilt_A")))
    assert "could not be compared" not in caplog.text


def test_spherical_aberration_has_the_sign_of_tetrafoil(records, tmp_path):
    """Cs = C is ¼ C |λk|⁴ in the wave aberration, a tetrafoil of C the same at θ = 0."""
    tetra = np.tile(np.float32([0, 0, 1e6, 0]), (len(records), 1))
    (group,) = read_particles(save(tmp_path, with_fields(records, ctf__tetra_A=tetra))).optics
    k = 0.2
    wavelength = 12.2643247 / np.sqrt(2e5 * (1 + 0.978466e-6 * 2e5))
    found = group.aberrations.even_phase(np.array([[k, 0.0]]))[0]
    assert found == pytest.approx(0.5 * np.pi * 1e6 * wavelength**3 * k**4, rel=1e-6)


def test_scale_and_odd_values_of_aberrations(records, tmp_path):
    scale = np.full(len(records), 0.8, np.float32)
    particles = read_particles(save(tmp_path, with_fields(records, ctf__scale=scale)))
    np.testing.assert_allclose(particles.ctf_scale, 0.8, rtol=1e-6)
    wrong = np.zeros((len(records), 2), np.float32)
    wrong[4, 1] = np.nan
    with pytest.raises(InputError, match="row 5: field ctf/tilt_A is not finite"):
        read_particles(save(tmp_path, with_fields(records, ctf__tilt_A=wrong)))


def test_files_that_cannot_be_used_are_refused(records, tmp_path):
    with pytest.raises(InputError, match="no columns alignments3D/pose"):
        read_particles(save(tmp_path, without(records, "alignments3D/pose", "alignments3D/shift")))
    pose = records["alignments3D/pose"].copy()
    pose[2, 0] = np.nan
    with pytest.raises(InputError, match="row 3: alignments3D/pose"):
        read_particles(save(tmp_path, with_fields(records, alignments3D__pose=pose)))
    path = save(tmp_path, records)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"not a .cs file, or truncated"):
        read_particles(path)
    path.write_bytes(b"\x94CSDAT" + bytes(50))
    with pytest.raises(InputError, match=r"stream format.*format=1"):
        read_particles(path)
    with pytest.raises(InputError, match="not a table of records"):
        read_particles(save(tmp_path, np.zeros(3)))
    with pytest.raises(InputError, match="no rows"):
        read_particles(save(tmp_path, records[:0]))
    with pytest.raises(InputError, match="no such file"):
        read_particles(tmp_path / "none.cs")
