"""Groups that a map does not have, and settings that it is not in [22]."""

import logging

import numpy as np
import pytest

from jaxrelax.geometry import point_group
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.reconstruction import symmetry_correlation
from jaxrelax.refinement import Registers, Relax, prepare
from jaxrelax.refinement.reference_group import require_group
from tests.cli.conftest import no_kept_programs, run  # noqa: F401


@pytest.fixture
def as_it_is(monkeypatch):
    """Without the look at all orientations, where that is not what is tested."""
    monkeypatch.setattr("jaxrelax.reconstruction.axes.possible_orientations", lambda *_: [])


def refused(map_path, group):
    with pytest.raises(InputError) as error:
        require_group(read_map(map_path)[0], point_group(group), map_path.name)
    return str(error.value)


@pytest.mark.parametrize(("name", "group"), [("reference", "C5"), ("truth_map", "D4")])
def test_the_group_that_fits_is_named(case, as_it_is, name, group):
    message = refused(case("base") / f"{name}.mrc", group)
    assert "this map has C4 (" in message
    assert f"not {group} (0." in message
    assert "--force-group" in message


@pytest.mark.parametrize("name", ["reference.mrc", "truth_map.mrc"])
@pytest.mark.parametrize("group", ["C2", "C4"])
def test_the_right_group_and_its_subgroup_pass(case, caplog, name, group):
    require_group(read_map(case("base") / name)[0], point_group(group), name)
    assert not caplog.records


def test_the_other_setting_is_refused(case):
    folder = case("22")
    message = refused(folder / "I1_as_I2.mrc", "I2")
    assert "this map has I1 (1.000), not I2" in message
    assert "Relax I1, or align" in message
    with pytest.raises(InputError, match=r"axes of D3 are off by 30\.0°.*jaxrelax align"):
        prepare(
            folder / "im_D3_y.star", folder / "ref_D3_y.mrc", relax=Relax("D3"), mode=Registers()
        )


@pytest.mark.parametrize(
    ("name", "group"),
    [("ref_D3_y.mrc", "D3"), pytest.param("I1_as_I2.mrc", "I2", marks=pytest.mark.slow)],
)
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


@pytest.mark.slow
def test_align_refuses_a_group_that_the_map_does_not_have(case, run, as_it_is):  # noqa: F811
    folder, group = case("base"), "C8"
    given = ["align", folder / "reference.mrc", "--symmetry", group, "--out", folder / "a.mrc"]
    status, _, err = run(*given)
    assert status == 2
    assert "this map has C4 (1.000), not C8" in err
    assert not (folder / "a.mrc").exists()
    status, _, err = run(*given, "--force-group")
    assert status == 0
    assert "this map has C4" in err
    assert (folder / "a.mrc").exists()


@pytest.mark.slow
def test_predict_and_refine_ask(case, run, as_it_is):  # noqa: F811
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


def test_a_forced_group_is_warned_of(case, as_it_is, caplog):
    folder = case("base")
    with caplog.at_level(logging.WARNING):
        prepare(
            folder / "particles.star", folder / "reference.mrc", mode=Registers(),
            relax=Relax("C5"), force_group=True,
        )  # fmt: skip
    notes = [record.message for record in caplog.records if "not C5" in record.message]
    assert len(notes) == 1
    assert "Going on all the same" in notes[0]
