"""What made a traceback, or a wrong advice, is said in words before the first iteration."""

import shutil
import subprocess

import pytest

from jaxrelax.io import InputError, inspect_file, read_map, read_particles
from jaxrelax.refinement import Homogeneous, Registers, Relax, refine
from jaxrelax.refinement.consistent import check_particles


@pytest.fixture
def base(case):
    return case("base")


@pytest.mark.parametrize(
    ("mask", "message"),
    [("m_corner.mrc", "outside the particle"), ("m_almostzero.mrc", "as good as empty")],
)
def test_masks_in_which_nothing_is(case, base, mask, message):
    relax = Relax("C4", mask=str(case("15") / mask))
    with pytest.raises(InputError, match=message):
        refine(base / "particles.star", base / "reference.mrc", relax=relax)


def test_reference_of_zeros(case, base):
    with pytest.raises(InputError, match="there is nothing in this map"):
        refine(base / "particles.star", case("15") / "zero.mrc", relax="C4")


@pytest.mark.parametrize("mode", [None, Registers()])
def test_identical_poses(case, base, mode):
    with pytest.raises(InputError, match="look along the same axis"):
        refine(case("23") / "same_pose.star", base / "reference.mrc", mode=mode, relax="C4")


def test_a_map_without_pixel_size_gets_one_by_the_advice(case, monkeypatch):
    path = case("14") / "cell0.mrc"
    with pytest.raises(InputError) as error:
        read_map(path)
    assert "--map-pixel-size-angstrom" in str(error.value)
    assert "--force_header_angpix" in inspect_file(path).refusals[0]
    assert read_map(path, 5.2)[1] == 5.2
    if shutil.which("relion_image_handler") is None:
        pytest.skip("not on PATH: relion_image_handler (Debian: apt install relion)")
    words = str(error.value).split("header: ")[1].split(" (with")[0].split()
    assert words[0] == "relion_image_handler"
    subprocess.run(words, cwd=path.parent, check=True, capture_output=True, timeout=60)
    assert read_map(path.parent / "fixed.mrc")[1] == 2.6


def test_identical_poses_do_not_hinder_a_search_of_all(case):
    check_particles(read_particles(case("23") / "same_pose.star"), Homogeneous())
