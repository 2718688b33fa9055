"""Numbers that cannot be are refused with row and column; unusual ones pass."""

import numpy as np
import pytest

from jaxrelax.io import ImageReader, InputError, find_units, read_particles


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rlnRandomSubset", "3", "row 4: rlnRandomSubset is 3"),
        ("rlnRandomSubset", "-1", "row 4: rlnRandomSubset is -1"),
        ("rlnRandomSubset", "1.5", r"row 4: rlnRandomSubset is 1\.5"),
        ("rlnRandomSubset", "257", "row 4: rlnRandomSubset is 257"),
        ("rlnClassNumber", "1.5", r"row 4: rlnClassNumber is 1\.5"),
        ("rlnClassNumber", "-2", "row 4: rlnClassNumber is -2"),
        ("rlnVoltage", "0", "row 4: rlnVoltage is 0"),
        ("rlnVoltage", "-300", "row 4: rlnVoltage is -300"),
        ("rlnVoltage", "300000", r"row 4: rlnVoltage is 300000; the voltage is in kV"),
        ("rlnAmplitudeContrast", "10", "row 4: rlnAmplitudeContrast is 10"),
        ("rlnAmplitudeContrast", "-0.1", r"row 4: rlnAmplitudeContrast is -0\.1"),
        ("rlnSphericalAberration", "2.7e7", "row 4: rlnSphericalAberration is 2.7e\\+07"),
        ("rlnDefocusU", "1e9", "row 4: rlnDefocusU is 1e\\+09"),
        ("rlnPhaseShift", "nan", "row 4: column rlnPhaseShift is not finite"),
        ("rlnPhaseShift", "1e6", "row 4: rlnPhaseShift is 1e\\+06"),
        ("rlnImagePixelSize", "0", "row 4: rlnImagePixelSize is 0"),
        ("rlnImagePixelSize", "1e-10", "row 4: rlnImagePixelSize is 1e-10"),
        ("rlnImageSize", "15.5", r"row 4: rlnImageSize is 15\.5"),
        ("rlnCtfBfactor", "inf", "row 4: column rlnCtfBfactor is not finite"),
        ("rlnCtfBfactor", "-1e9", r"row 4: rlnCtfBfactor is -1e\+09; a B factor is in Å²"),
        ("rlnBeamTiltX", "1e3", "row 4: rlnBeamTiltX is 1000; a beam tilt is in mrad"),
        ("rlnAngleRot", "nan", "row 4: column rlnAngleRot is not finite"),
        ("rlnHelicalTubeID", "None", "row 4: rlnHelicalTubeID is 'None', and tubes are numbers"),
    ],
)
def test_impossible_values_in_one_row(particle_set, column, value, message):
    good = {"rlnVoltage": "300", "rlnImagePixelSize": "1.5", "rlnImageSize": "16"}
    usual = particle_set.columns.get(column, [good.get(column, "1")] * 6)
    particle_set.columns[column] = list(usual)
    if column == "rlnAmplitudeContrast":
        particle_set.columns[column] = ["0.1"] * 6
    read_particles(particle_set.write())
    particle_set.columns[column][3] = value
    with pytest.raises(InputError, match=message):
        find_units(read_particles(particle_set.write()))


@pytest.mark.parametrize("number", ["0", "9" * 30])
def test_numbers_of_images_that_no_stack_has(particle_set, number):
    particle_set.columns["rlnImageName"][3] = f"{number}@stack.mrcs"
    with pytest.raises(InputError, match="row 4: rlnImageName"):
        read_particles(particle_set.write())


@pytest.mark.parametrize("name", ["٣@stack.mrcs", "1@" + "x" * 5000])
def test_names_that_no_file_has(particle_set, name):
    particle_set.columns["rlnImageName"][3] = name
    with pytest.raises(InputError, match="does not exist"):
        ImageReader(read_particles(particle_set.write())).validate()


def test_an_original_name_that_is_none_says_nothing(particle_set):
    particle_set.columns["rlnImageOriginalName"] = ["²@stack.mrcs"] * 6
    assert not find_units(read_particles(particle_set.write())).copied.any()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rlnAmplitudeContrast", "0"),
        ("rlnAmplitudeContrast", "1"),
        ("rlnSphericalAberration", "-0.01"),
        ("rlnSphericalAberration", "0"),
        ("rlnDefocusU", "-8000"),
        ("rlnDefocusU", "0"),
        ("rlnPhaseShift", "-270"),
        ("rlnRandomSubset", "1.0"),
    ],
)
def test_unusual_values_pass(particle_set, column, value):
    particle_set.columns[column] = [value] * 6
    read_particles(particle_set.write())


def test_an_optics_group_in_µm_is_refused_and_single_small_defoci_pass(particle_set):
    for column in ("rlnDefocusU", "rlnDefocusV"):
        particle_set.columns[column][0] = "80"
    read_particles(particle_set.write())
    for column in ("rlnDefocusU", "rlnDefocusV"):
        particle_set.columns[column][3:] = ["1.5", "2.0", "1.8"]
    with pytest.raises(InputError, match=r"rows 4, 5, 6: no rlnDefocusU .* above 2 .* in Å"):
        read_particles(particle_set.write())


def test_a_part_of_an_optics_group_in_µm_is_refused(particle_set):
    particle_set.columns["rlnOpticsGroup"] = ["1"] * 6
    for column in ("rlnDefocusU", "rlnDefocusV"):
        particle_set.columns[column][3:] = ["1.5", "2.0", "1.8"]
    with pytest.raises(InputError, match=r"rows 4, 5, 6: .* are at most 2 .* in Å"):
        read_particles(particle_set.write())


def test_an_optics_group_twice_is_refused(particle_set):
    particle_set.optics = particle_set.optics.replace("opticsGroup2 2 ", "opticsGroup2 1 ")
    particle_set.columns["rlnOpticsGroup"] = ["1"] * 6
    with pytest.raises(InputError, match="optics group 1 stands more than once"):
        read_particles(particle_set.write())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alignments3D/split", 2, r"row 5: alignments3D/split is 2; half-sets are 0 and 1\."),
        ("ctf/amp_contrast", 7.0, "row 5: ctf/amp_contrast is 7"),
        ("ctf/accel_kv", 3e5, "row 5: ctf/accel_kv is 300000"),
        ("ctf/cs_mm", np.nan, "row 5: field ctf/cs_mm is not finite"),
        ("ctf/phase_shift_rad", np.inf, "row 5: field ctf/phase_shift_rad is not finite"),
        ("ctf/df1_A", 1e9, "row 5: ctf/df1_A is 1e\\+09"),
        ("blob/psize_A", np.nan, "row 5: blob/psize_A is nan"),
        ("blob/psize_A", 0.0, "row 5: blob/psize_A is 0"),
    ],
)
def test_impossible_values_in_cs(shared_data, tmp_path, field, value, message):
    records = np.load(shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs")[:20]
    records[field][4] = value
    with open(tmp_path / "a.cs", "wb") as handle:
        np.save(handle, records)
    with pytest.raises(InputError, match=message):
        read_particles(tmp_path / "a.cs")


def test_the_largest_integer_is_an_unset_split(shared_data, tmp_path):
    records = np.load(shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs")[:20]
    records["alignments3D/split"] = 2**32 - 1
    with open(tmp_path / "a.cs", "wb") as handle:
        np.save(handle, records)
    assert not read_particles(tmp_path / "a.cs").half_set.any()
