"""Item 5: exactly C4 images with ordinary errors of the poses are not called anything else."""

import pytest

from jaxrelax.cli import main
from jaxrelax.refinement import Local, MaxIterations, Registers, Relax, refine


@pytest.fixture
def control(shared_data):
    folder = shared_data / "cases" / "base4"
    if not folder.is_dir():
        pytest.skip(f"no case base4 in {shared_data / 'cases'}")
    return folder


@pytest.mark.slow
def test_the_default_finds_nothing(control, capsys):
    words = ["test-symmetry", str(control / "particles.star"), "--symmetry", "C4", "--quiet"]
    words += ["--reference", str(control / "reference.mrc"), "--max-iterations", "8"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "rejected" not in out
    assert "implied" not in out
    assert "No asymmetry was found" in out
    assert "held" not in out.replace("held-out", "")


@pytest.mark.slow
def test_held_poses_are_said_to_be_and_verdicts_do_not_contradict_each_other(control):
    """After all its iterations p(C4) was 0.014 and p(C2) 0.003: "rejected" where C4 was not."""
    evidence = refine(
        control / "particles.star", control / "reference.mrc", mode=Registers(),
        relax=Relax("C4"), until=MaxIterations(6), subgroups="all",
    ).evidence  # fmt: skip
    assert "assuming that the poses, which were held, are exact" in evidence.sentence()
    whole, two_fold = evidence.subgroups
    assert two_fold.rejected <= whole.rejected
    if not whole.rejected:
        assert evidence.supported == "C4"
        assert "rejected" not in evidence.table()


@pytest.mark.slow
def test_the_whole_control_with_its_errors(shared_data):
    """p was 10⁻¹⁷ with held poses."""
    folder = shared_data / "na-4fab-c4-control"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    evidence = refine(
        folder / "particles.star", folder / "reference.mrc", mode=Local(), relax=Relax("C4"),
        subgroups="all",
    ).evidence  # fmt: skip
    assert not evidence.found
    assert not any(row.rejected for row in evidence.subgroups)
