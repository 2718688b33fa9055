"""Groups that a map does not have, and settings that it is not in [22]."""

import numpy as np
import pytest

from jaxrelax.assessment import warnings
from jaxrelax.geometry import point_group
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.reconstruction import symmetry_correlation
from jaxrelax.refinement import MaxIterations, Registers, Relax, prepare, refine
from jaxrelax.refinement.reference_group import require_group
from tests.cli.conftest import no_kept_programs, run  # noqa: F401


def refused(map_path, group):
    with pytest.raises(InputError) as error:
        require_group(read_map(map_path)[0], point_group(group), map_path.name)
    return str(error.value)


@pytest.mark.parametrize("group", ["C5", "C8", "D4"])
def test_the_group_that_fits_is_named(case, group):
    message = refused(case("base") / "reference.mrc", group)
    assert f"this map has C4 (1.000), not {group} (0." in message
    assert "--force-group" in message


@pytest.mark.parametrize("name", ["reference.mrc", "truth_map.mrc"])
@pytest.mark.parametrize("group", ["C2", "C4"])
def test_the_right_group_and_its_subgroup_pass(case, name, group, caplog):
    require_group(read_map(case("base") / name)[0], point_group(group), name)
    assert not caplog.records


def test_an_asymmetric_map_has_its_wrong_group_named_too(case):
    assert "has C4" in refused(case("base") / "truth_map.mrc", "C5")


def test_the_other_setting_is_refused(case):
    folder = case("22")
    assert "this map has I1 (1.000), not I2" in refused(folder / "I1_as_I2.mrc", "I2")
    assert "Relax I1, or align" in refused(folder / "I1_as_I2.mrc", "I2")
    assert "axes of D3 are off by 30.0°" in refused(folder / "ref_D3_y.mrc", "D3")
    with pytest.raises(InputError, match=r"off by 30\.0°.*jaxrelax align"):
        prepare(
            folder / "im_D3_y.star", folder / "ref_D3_y.mrc", relax=Relax("D3"), mode=Registers()
        )


@pytest.mark.parametrize(("name", "group"), [("ref_D3_y.mrc", "D3"), ("I1_as_I2.mrc", "I2")])
def test_align_turns_the_map_into_the_setting_that_is_said(case, run, name, group, caplog):  # noqa: F811
    folder = case("22")
    given = ["align", folder / name, "--symmetry", group, "--out", folder / "aligned.mrc"]
    if group == "D3":
        given += ["--particles", folder / "im_D3_y.star", "--out-particles", folder / "a.star"]
    status, out, err = run(*given)
    assert (status, err) == (0, "")
    assert "off by 0.00°" not in out
    aligned = read_map(folder / "aligned.mrc")[0]
    assert symmetry_correlation(aligned, point_group(group)) > 0.999
    caplog.clear()
    require_group(aligned, point_group(group), "aligned")
    assert not caplog.records
    if group == "D3":
        before, after = (read_particles(folder / f) for f in ("im_D3_y.star", "a.star"))
        turns = after.rotations.transpose(0, 2, 1) @ before.rotations
        np.testing.assert_allclose(turns, np.broadcast_to(turns[0], turns.shape), atol=1e-4)


@pytest.mark.parametrize("group", ["C8", "D4"])
def test_align_refuses_a_group_that_the_map_does_not_have(case, run, group):  # noqa: F811
    folder = case("base")
    given = ["align", folder / "reference.mrc", "--symmetry", group, "--out", folder / "a.mrc"]
    status, _, err = run(*given)
    assert status == 2
    assert f"this map has C4 (1.000), not {group}" in err
    assert not (folder / "a.mrc").exists()
    status, _, err = run(*given, "--force-group")
    assert status == 0
    assert "this map has C4" in err
    assert (folder / "a.mrc").exists()


def test_predict_and_refine_ask(case, run):  # noqa: F811
    folder = case("base")
    for more in (
        ("predict", folder / "particles.star", "--reference", folder / "reference.mrc",
         "--partner-kda", "50"),
        ("predict", folder / "particles.star", "--map", folder / "truth_map.mrc"),
        ("refine", folder / "particles.star", "--reference", folder / "reference.mrc",
         "--out", folder / "out"),
    ):  # fmt: skip
        status, _, err = run(*more, "--relax", "C5")
        assert status == 2
        assert "this map has C4" in err
    assert not (folder / "out").exists()


def test_a_forced_group_is_warned_of_in_the_end(case):
    folder = case("base")
    result = refine(
        folder / "particles.star", folder / "reference.mrc", mode=Registers(),
        relax=Relax("C5", cross_fit=1), until=MaxIterations(1), ini_high=30.0, force_group=True,
        subgroups="none",
    )  # fmt: skip
    notes = [note for note in warnings(result) if "not C5" in note]
    assert len(notes) == 1
    assert "Going on all the same" in notes[0]
