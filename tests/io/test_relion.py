"""STAR files of particles: values against the file's own text, and what is refused."""

import numpy as np
import pytest

from jaxrelax.geometry import euler_to_matrix
from jaxrelax.io import InputError, check_supported, read_particles
from jaxrelax.io.reading import load_particles
from tests.io.conftest import parse_star

READABLE = {
    "images/sample_particles_relion30.star": 17,
    "images/sample_particles_relion31.star": 17,
    "images/trpv1_small_stack.star": 10,
    "metadata/relion5.star": 17,
    "metadata/FinalRefinement-OriginalParticles-PfCRT.star": 5,
    "na-fab-c4/particles.star": 1500,
}


@pytest.mark.parametrize("name", READABLE)
def test_ctf_and_poses_are_those_of_the_file(shared_data, name):
    particles = read_particles(shared_data / name)
    blocks = parse_star(shared_data / name)
    labels, rows = next((b for key, b in blocks.items() if key != "optics"))
    optics_labels, optics_rows = blocks.get("optics", ([], []))

    def column(label):
        """Particle table, then optics table, by the text of the file; None if in neither."""
        if label in labels:
            return np.array([float(row[labels.index(label)]) for row in rows])
        if label not in optics_labels:
            return None
        at = optics_labels.index("rlnOpticsGroup")
        values = {row[at]: float(row[optics_labels.index(label)]) for row in optics_rows}
        return np.array([values[row[labels.index("rlnOpticsGroup")]] for row in rows])

    assert len(particles) == READABLE[name] == len(rows)
    for label, attribute in [
        ("rlnDefocusU", "defocus_u_angstrom"),
        ("rlnDefocusV", "defocus_v_angstrom"),
        ("rlnDefocusAngle", "defocus_angle_deg"),
        ("rlnPhaseShift", "phase_shift_deg"),
        ("rlnCtfBfactor", "bfactor_angstrom2"),
        ("rlnRandomSubset", "half_set"),
        ("rlnClassNumber", "class_number"),
    ]:
        expected = column(label)
        expected = np.zeros(len(rows)) if expected is None else expected
        np.testing.assert_array_equal(getattr(particles, attribute), expected, err_msg=label)

    pixel_size = column("rlnImagePixelSize")
    if pixel_size is None:
        pixel_size = 1e4 * column("rlnDetectorPixelSize") / column("rlnMagnification")
    for label, attribute, default in [
        ("rlnVoltage", "voltage_kv", None),
        ("rlnSphericalAberration", "spherical_aberration_mm", None),
        ("rlnAmplitudeContrast", "amplitude_contrast", 0.0),
    ]:
        found = [getattr(particles.optics[g], attribute) for g in particles.optics_group]
        expected = column(label)
        np.testing.assert_array_equal(found, default if expected is None else expected)
    found = [particles.optics[g].pixel_size_angstrom for g in particles.optics_group]
    np.testing.assert_allclose(found, pixel_size, rtol=1e-14)

    angles = [column(label) for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")]
    np.testing.assert_array_equal(particles.rotations, euler_to_matrix(*angles))
    origins = [column("rlnOriginXAngst"), column("rlnOriginYAngst")]
    if origins[0] is None:
        origins = [column("rlnOriginX") * pixel_size, column("rlnOriginY") * pixel_size]
    np.testing.assert_allclose(particles.origins_angstrom, np.stack(origins, 1), rtol=1e-14)

    names = [row[labels.index("rlnImageName")].split("@") for row in rows]
    np.testing.assert_array_equal(particles.image_index, [int(number) - 1 for number, _ in names])
    assert [particles.image_names[i] for i in particles.stack_index] == [file for _, file in names]


def test_voltages_that_differ_in_a_file_without_optics_make_groups(shared_data):
    particles = read_particles(shared_data / "images" / "sample_particles_relion30.star")
    assert [group.voltage_kv for group in particles.optics] == [300.0, 200.0]
    assert particles.optics_group.tolist() == [0] * 8 + [1] * 9
    assert particles.optics[0].box == 200  # from the stack: the table does not say


def test_one_loop_of_subtomograms_is_read_and_refused(shared_data):
    path = shared_data / "metadata" / "one_loop.star"
    particles = load_particles(path, require_ctf=False)
    assert len(particles) == 16
    assert particles.optics[0].pixel_size_angstrom == 5.0
    np.testing.assert_array_equal(particles.rotations, np.tile(np.eye(3), (16, 1, 1)))
    assert [refusal.column for refusal in check_supported(particles)] == ["rlnCtfImage"]
    with pytest.raises(InputError, match=r"rlnDefocusU, rlnDefocusV.*rlnSphericalAberration"):
        read_particles(path)


def test_aberrations_of_relion_5_are_read(shared_data):
    (group,) = read_particles(shared_data / "metadata" / "relion5.star").optics
    found = group.aberrations
    assert found.odd[2] == pytest.approx(-1.79877045848)
    assert found.odd[5] == pytest.approx(-1.36333410593)
    wavelength = 12.2643247 / np.sqrt(1e5 * (1 + 0.978466e-6 * 1e5))
    coma = -2 * np.pi * 1.6e7 * wavelength**2 * 1e-3 * 0.043489 / 3
    assert found.odd[4] == pytest.approx(coma)
    assert found.odd[1] == pytest.approx(0.0982451014894 + 2 * coma)
    assert found.even[2] == pytest.approx(67.4975218205)
    assert len(found.even) == 9
    assert found.magnification[0] == pytest.approx(1.001833)


def test_beam_tilt_is_coma_in_relions_sign(particle_set):
    particle_set.columns["rlnBeamTiltX"] = ["0.5"] * 6
    particle_set.columns["rlnBeamTiltY"] = ["-0.2"] * 6
    group = read_particles(particle_set.write()).optics[0]
    k = np.random.default_rng(0).uniform(-0.3, 0.3, (50, 2))
    wavelength = 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    tilt = k @ [0.5e-3, -0.2e-3]
    expected = -2 * np.pi * 2.7e7 * wavelength**2 * (k**2).sum(1) * tilt
    np.testing.assert_allclose(group.aberrations.odd_phase(k), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("column", "neutral", "active"),
    [
        ("rlnBeamTiltX", "0.000000", "0.01"),
        ("rlnOddZernike", "[0,0,0]", "[0,0,0.1]"),
        ("rlnEvenZernike", "[]", "[1.5]"),
        ("rlnMagMat01", "0.0", "1e-4"),
        ("rlnMagMat11", "1.000000", "0.99"),
    ],
)
def test_particles_that_differ_in_an_aberration_make_groups(particle_set, column, neutral, active):
    particle_set.columns[column] = [neutral] * 6
    particles = read_particles(particle_set.write())
    assert len(particles.optics) == 2
    assert not any(group.aberrations for group in particles.optics)
    particle_set.columns[column][4] = active
    particles = read_particles(particle_set.write())
    assert [bool(group.aberrations) for group in particles.optics] == [False, False, True]
    assert particles.optics_group.tolist() == [0, 0, 0, 1, 2, 1]


def test_scales_of_the_ctf_are_kept_per_particle(particle_set):
    particle_set.columns["rlnCtfScalefactor"] = ["1.000000"] * 6
    assert read_particles(particle_set.write()).ctf_scale is None
    particle_set.columns["rlnCtfScalefactor"][4] = "0.5"
    particles = read_particles(particle_set.write())
    assert len(particles.optics) == 2
    assert particles.select([4, 0]).ctf_scale.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "rlnOddZernike",
            "[0.1,oops]",
            r"row 3: column rlnOddZernike is '\[0.1,oops\]', not a list",
        ),
        ("rlnEvenZernike", "[nan,1]", "row 3: column rlnEvenZernike"),
        ("rlnMagMat00", "0.0", "row 3: rlnMagMat00 to rlnMagMat11 is no magnification matrix"),
        ("rlnCtfScalefactor", "0", "row 3: rlnCtfScalefactor is 0"),
        ("rlnCtfScalefactor", "-1.5", "row 3: rlnCtfScalefactor is -1.5"),
        ("rlnBeamTiltY", "inf", "row 3: column rlnBeamTiltY is not finite"),
    ],
)
def test_aberrations_that_cannot_be_are_refused(particle_set, column, value, message):
    neutral = {"rlnOddZernike": "[0]", "rlnEvenZernike": "[0]", "rlnBeamTiltY": "0"}
    particle_set.columns[column] = [neutral.get(column, "1.0")] * 6
    particle_set.columns[column][2] = value
    with pytest.raises(InputError, match=message):
        read_particles(particle_set.write())


def test_particle_table_goes_before_optics_table(particle_set):
    particle_set.columns["rlnVoltage"] = ["300.0"] * 3 + ["100.0", "200.0", "200.0"]
    particles = read_particles(particle_set.write())
    voltages = [particles.optics[group].voltage_kv for group in particles.optics_group]
    assert voltages == [300.0, 300.0, 300.0, 100.0, 200.0, 200.0]
    assert [g.name for g in particles.optics] == ["opticsGroup1", "opticsGroup2", "opticsGroup2-2"]


def test_flags_of_flipped_and_premultiplied_data_are_kept(particle_set):
    particle_set.columns["rlnCtfDataAreCtfPremultiplied"] = ["1"] * 3 + ["0"] * 3
    particle_set.columns["rlnCtfDataArePhaseFlipped"] = ["0"] * 3 + ["1"] * 3
    first, second = read_particles(particle_set.write()).optics
    assert (first.ctf_premultiplied, first.phase_flipped) == (True, False)
    assert (second.ctf_premultiplied, second.phase_flipped) == (False, True)


@pytest.mark.parametrize("column", ["rlnDefocusU", "rlnDefocusAngle", "rlnAngleTilt"])
def test_a_missing_column_is_named(particle_set, column):
    del particle_set.columns[column]
    with pytest.raises(InputError, match=f"no column {column}"):
        read_particles(particle_set.write())


def test_poses_may_be_absent_when_they_are_searched_globally(particle_set):
    for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
        del particle_set.columns[label]
    particles = read_particles(particle_set.write(), require_poses=False)
    assert not particles.has_poses
    assert particles.with_updates(rotations=particles.rotations).has_poses


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rlnAnglePsi", "-999.000000", r"rows 2, 5: rlnAnglePsi is -999"),
        ("rlnDefocusU", "abc", r"row 2: column rlnDefocusU is 'abc'"),
        ("rlnDefocusV", "nan", r"rows 2, 5: column rlnDefocusV is not finite"),
        ("rlnOpticsGroup", "9", r"rows 2, 5: rlnOpticsGroup 9 is not in 'data_optics'"),
        ("rlnImageName", "000000@stack.mrcs", r"row 2: rlnImageName '000000@stack.mrcs'"),
    ],
)
def test_a_bad_value_is_named_with_column_and_row(particle_set, column, value, message):
    particle_set.columns[column][1] = value
    particle_set.columns[column][4] = value
    with pytest.raises(InputError, match=message):
        read_particles(particle_set.write())


def test_odd_box_no_pixel_size_and_no_particles_are_refused(particle_set):
    path = particle_set.write()
    text = path.read_text()
    path.write_text(text.replace("1.500000 16 2", "1.500000 15 2"))
    with pytest.raises(InputError, match="15 pixels of optics group 'opticsGroup1' is odd"):
        read_particles(path)
    path.write_text(text.replace("_rlnImagePixelSize", "_rlnUnknownSize"))
    with pytest.raises(InputError, match=r"no pixel size.*rlnImagePixelSize"):
        read_particles(path)
    path.write_text(text.replace("1.500000 16", "-1.500000 16"))
    with pytest.raises(InputError, match=r"is -1\.5; the pixel size is in Å and above 0"):
        read_particles(path)
    path.write_text(text.replace("_rlnImageName", "_rlnName"))
    with pytest.raises(InputError, match="no column rlnImageName"):
        read_particles(path)


def test_an_unknown_kind_of_file_and_a_wrong_root_are_refused(particle_set):
    path = particle_set.write()
    with pytest.raises(InputError, match=r"not a \.star or \.cs file"):
        read_particles(path.rename(path.with_suffix(".txt")))
    with pytest.raises(InputError, match=r"no such folder.*--image-root"):
        read_particles(path, image_root=path.parent / "nowhere")
    with pytest.raises(InputError, match="no such file"):
        read_particles(path)


def test_select_takes_rows_in_order_or_a_mask(particle_set):
    particles = read_particles(particle_set.write())
    some = particles.select([4, 0])
    np.testing.assert_array_equal(some.rotations, particles.rotations[[4, 0]])
    tubes = some.column("rlnHelicalTubeID")
    assert tubes is not None
    assert tubes.tolist() == ["5", "4"]
    assert some.column("rlnNothing") is None
    mask = particles.half_set == 2
    assert particles.select(mask).image_index.tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match="mask"):
        particles.select(mask[:3])


def test_updates_of_a_wrong_shape_are_refused(particle_set):
    particles = read_particles(particle_set.write())
    with pytest.raises(ValueError, match="origins_angstrom has shape"):
        particles.with_updates(origins_angstrom=np.zeros((6, 3)))
    with pytest.raises(ValueError, match="not finite"):
        particles.with_updates(origins_angstrom=np.full((6, 2), np.nan))
    with pytest.raises(ValueError, match="column jrxA"):
        particles.with_updates(extra_columns={"jrxA": np.zeros((6, 2))})
