"""`jaxrelax refine`: what reaches the refinement, what is refused, what is left behind."""

import dataclasses
import inspect
import logging
from pathlib import Path

import numpy as np
import pytest

from jaxrelax.cli import main
from jaxrelax.cli.option_groups import (
    ClassificationOptions,
    ParticleOptions,
    RefinementOptions,
    WorkerOptions,
)
from jaxrelax.cli.refine import Command
from jaxrelax.imaging import RadialNoise
from jaxrelax.io import InputError, read_map, write_map
from jaxrelax.reconstruction import LocalPrior
from jaxrelax.refinement import Homogeneous, Local, MaxIterations, Registers, Relax, refine
from tests.assessment.conftest import make_result, make_states


@pytest.fixture
def words(data, tmp_path):
    """The least that refine needs."""
    out = tmp_path / "out"
    return [*("refine", str(data.particles), "--reference", str(data.reference), "--out", str(out))]


# What only Python can give.
COMPONENTS = {"callbacks", "course", "map_prior", "latents"}


def test_every_argument_of_refine_has_an_option():
    options = {field.name for field in dataclasses.fields(Command)}
    for group in (RefinementOptions, WorkerOptions, ParticleOptions):
        options |= {field.name for field in dataclasses.fields(group)}
    assert set(inspect.signature(refine).parameters) - options == COMPONENTS
    assert {field.name for field in dataclasses.fields(RadialNoise)} == {"from_images", "fixed"}
    # What the option allows is what the component allows.
    for choice in ("soft", "hard"):
        Relax("C4", register=choice)


def test_the_plain_command(fake_refine, run, words, data, tmp_path):
    status, out, err = run(*words, "--relax", "C4")
    assert (status, err) == (0, "")
    asked = fake_refine.asked
    assert asked["relax"] == Relax("C4")
    assert asked["mode"] == Local()
    assert asked["noise"] == RadialNoise()
    assert asked["reference"] == data.reference
    assert len(asked["particles"]) == 40
    for name, parameter in inspect.signature(refine).parameters.items():
        if name not in {"relax", "mode", "noise", "out", "resume", "until"} | COMPONENTS:
            default = parameter.default
            assert default is inspect.Parameter.empty or asked[name] == default
    assert (tmp_path / "out" / "result.json").is_file()
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "--relax C4" in log
    assert "report.html" in log
    assert "report.html" in out
    assert not logging.getLogger("jaxrelax").handlers


def test_a_map_gets_the_pixel_size_that_is_given(fake_refine, run, words, data):
    status, *_ = run(*words, "--map-pixel-size-angstrom", 6.5)
    assert status == 0
    reference = fake_refine.asked["reference"]
    assert (reference.pixel_size_angstrom, reference.name) == (6.5, str(data.reference))
    np.testing.assert_array_equal(reference.values, read_map(data.reference)[0])


@pytest.mark.parametrize("command", ["refine", "test-symmetry"])
def test_a_folder_that_cannot_be_made_is_found_before(run, data, tmp_path, command):
    (tmp_path / "file").touch()
    group = ["--symmetry", "C4"] if command == "test-symmetry" else []
    status, out, err = run(
        *(command, data.particles, "--reference", data.reference, *group),
        *("--out", tmp_path / "file" / "out"),
    )
    assert (status, out) == (2, "")
    assert f"{tmp_path / 'file'}: is a file" in err


def test_every_option_arrives(fake_refine, run, words, tmp_path):
    write_map(tmp_path / "mask.mrc", np.ones((32, 32, 32), np.float32), 7.0)
    status, *_ = run(
        *words, *("--relax", "D4", "--to", "C4", "--register-mask", tmp_path / "mask.mrc"),
        *("--register-max-resolution", "9.5", "--register", "hard", "--cross-fit", "3"),
        *("--optimism", "2", "--no-junk", "--start", "poses", "--sigma-rotation-deg", "1.25"),
        *("--sigma-shift-angstrom", "0.5", "--no-learn-prior", "--ini-high", "20"),
        *("--particle-diameter", "150", "--noise", "white", "--fixed-noise", "--seed", "7"),
        *("--max-iterations", "4", "--normalise", "no", "--cache-gib", "0.5", "--quiet"),
    )  # fmt: skip
    assert status == 0
    asked = fake_refine.asked
    assert asked["relax"] == Relax(
        "D4", to="C4", mask=str(tmp_path / "mask.mrc"), max_resolution=9.5, register="hard",
        cross_fit=3, optimism=2.0, junk=False, start="poses",
    )  # fmt: skip
    assert asked["mode"] == Local(1.25, 0.5, False)
    assert asked["noise"] == RadialNoise(from_images=False, fixed=True)
    assert (asked["ini_high"], asked["particle_diameter"], asked["seed"]) == (20.0, 150.0, 7)
    assert (asked["normalise"], asked["cache_gib"]) == ("no", 0.5)
    assert asked["until"].second == MaxIterations(4)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "--no-learn-prior" in log
    assert "--register-max-resolution 9.5" in log


def test_the_plain_prior(fake_refine, run, words):
    assert run(*words, "--relax", "C4", "--prior", "plain", "--junk")[0] == 0
    assert fake_refine.asked["relax"] == Relax("C4", prior="plain")


def test_the_local_prior_with_and_without_relaxation(fake_refine, run, words):
    assert run(*words, "--relax", "C4", "--prior", "local", "--optimism", "2")[0] == 0
    assert fake_refine.asked["relax"] == Relax("C4", prior="local", optimism=2.0)
    assert fake_refine.asked["map_prior"] is None
    assert run(*words, "--overwrite", "--symmetry", "C4", "--prior", "local")[0] == 0
    assert fake_refine.asked["relax"] is None
    assert fake_refine.asked["map_prior"] == LocalPrior()


def test_registers_only(fake_refine, run, words):
    assert run(*words, "--relax", "C4", "--mode", "registers")[0] == 0
    assert fake_refine.asked["mode"] == Registers()


def test_poses_from_nothing(fake_refine, run, words):
    assert run(*words, "--mode", "homogeneous", "--symmetry", "C4", "--finest-order", "4")[0] == 0
    assert fake_refine.asked["mode"] == Homogeneous(finest_order=4)
    assert fake_refine.asked["ini_high"] is None


def test_when_to_relax_and_where_to_search(fake_refine, run, words):
    more = ("--relax-from", "end", "--tilt-range-deg", "60", "120", "--inner-iterations", "2")
    assert run(*words, "--mode", "homogeneous", "--relax", "C4", *more)[0] == 0
    assert fake_refine.asked["mode"] == Homogeneous(relax_from="end", tilt_range_deg=(60.0, 120.0))
    assert fake_refine.asked["relax"] == Relax("C4", inner_iterations=2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--mode", "homogeneous", "--relax-from", "end"),
            "--relax-from: can act only with --relax",
        ),
        (
            ("--relax", "C4", "--mode", "registers", "--inner-iterations", "2"),
            "--inner-iterations: cannot act with --mode registers",
        ),
        (
            ("--mode", "homogeneous", "--sigma-rotation-deg", "1"),
            "--sigma-rotation-deg: can act only with --mode local",
        ),
        (("--finest-order", "4"), "--finest-order: can act only with --mode homogeneous"),
        (
            ("--mode", "homogeneous", "--coarsest-order", "5"),
            "HEALPix orders start at 0 and the coarsest comes first",
        ),
        (("--to", "C2"), "--to: can act only with --relax"),
        (("--start", "poses", "--cross-fit", "1"), "--cross-fit, --start: can act only"),
        (("--subgroups", "all", "--register", "hard"), "--register, --subgroups: can act only"),
        (("--mode", "registers"), "without --relax"),
        (
            ("--relax", "C4", "--mode", "registers", "--sigma-rotation-deg", "1"),
            "--sigma-rotation-deg: can act only with --mode local",
        ),
        (("--relax", "C4", "--cross-fit", "0"), "at least 1"),
        (("--relax", "C4", "--optimism", "-1"), "optimism cannot be negative"),
        (("--no-junk", "--prior", "plain"), "--prior, --junk: can act only with --relax"),
        (
            ("--relax", "C4", "--prior", "plain", "--optimism", "2"),
            "--optimism: cannot act with --prior plain",
        ),
        (("--prior", "local", "--no-junk"), "--junk: can act only with --relax"),
        (
            ("--mode", "classification", "--states", "C4", "C4", "--prior", "local"),
            "--prior: can act only with --relax",
        ),
        (("--sigma-shift-angstrom", "0"), "positive widths"),
        (("--relax", "Q9"), "Q9"),
        (("--relax", "C4", "--to", "C3"), "C3"),
        (("--relax", "C4", "--symmetry", "C4"), "symmetry C4 with relaxation"),
        (("--relax", "C4", "--register-mask", "no.mrc"), "no.mrc"),
        (("--max-iterations", "0"), "--max-iterations is 0"),
        (("--cache-gib", "-1"), "--cache-gib"),
        (("--ini-high", "-3"), "ini_high"),
        (("--particle-diameter", "100000"), "does not fit the box"),
        (("--passthrough", "a.cs"), "--passthrough: belongs to .cs files"),
        (("--image-root", "nowhere"), "nowhere: no such folder"),
        (("--resume", "--overwrite"), "not both"),
    ],
)
def test_bad_options_leave_nothing_behind(run, words, tmp_path, more, message):
    status, out, err = run(*words, *more)
    assert status == 2
    assert message in err.replace("\n", " ")
    assert err.count("jaxrelax: ") == 1
    assert "Traceback" not in err + out
    assert not (tmp_path / "out").exists()


def test_bad_files(run, words, tmp_path):
    def refused(place, path):
        changed = words.copy()
        changed[place] = str(path)
        status, _, err = run(*changed)
        assert status == 2
        assert str(path) in err
        assert not (tmp_path / "out").exists()

    refused(1, tmp_path / "no.star")
    refused(3, tmp_path / "no.mrc")
    (tmp_path / "odd.txt").write_text("nothing")
    refused(1, tmp_path / "odd.txt")


def test_bad_values_of_choices(run, words):
    status, _, err = run(*words, "--relax", "C4", "--register", "medium")
    assert status == 2
    assert "medium" in err


def test_folders_that_hold_something(fake_refine, run, words, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "map.mrc").write_text("old")
    status, _, err = run(*words)
    assert status == 2
    assert "--overwrite" in err
    assert fake_refine.asked == {}
    assert run(*words, "--overwrite")[0] == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "map.mrc").stat().st_size > 1024


def test_bad_input_with_overwrite_spares_the_old_results(run, words, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "map.mrc").write_text("old")
    assert run(*words, "--relax", "Q9", "--overwrite")[0] == 2
    assert (tmp_path / "out" / "map.mrc").read_text() == "old"


def test_resume_is_passed_on_and_the_log_grows(fake_refine, run, words, tmp_path):
    assert run(*words)[0] == 0
    first = (tmp_path / "out" / "log.txt").read_text()
    assert run(*words, "--resume")[0] == 0
    assert fake_refine.asked["resume"] is True
    log = (tmp_path / "out" / "log.txt").read_text()
    assert log.startswith(first)
    assert "--resume" in log[len(first) :]


def test_interruption_says_how_to_go_on(fake_refine, run, words, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    fake_refine.during = interrupt
    status, _, err = run(*words)
    assert status == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert (tmp_path / "out" / "log.txt").read_text().endswith("ERROR stopped by Ctrl-C\n")


def test_a_defect_keeps_its_traceback(fake_refine, words, tmp_path):
    def fail():
        raise RuntimeError("a defect")

    fake_refine.during = fail
    with pytest.raises(RuntimeError, match="a defect"):
        main(words)
    assert "a defect" in (tmp_path / "out" / "log.txt").read_text()


def test_quiet_shows_warnings_only(fake_refine, run, words, tmp_path):
    fake_refine.during = lambda: logging.getLogger("jaxrelax").warning("look here")
    status, out, err = run(*words, "--quiet")
    assert (status, out) == (0, "")
    assert err == "warning: look here\n"
    assert "Results are in" in (tmp_path / "out" / "log.txt").read_text()


def test_bad_images_are_left_out_on_request(fake_refine, run, words):
    assert run(*words)[0] == 0
    assert fake_refine.asked["skip_bad_images"] is False
    assert run(*words, "--skip-bad-images", "--contrast", "black", "--overwrite")[0] == 0
    assert fake_refine.asked["skip_bad_images"] is True
    assert fake_refine.asked["contrast"] == "black"


def test_input_errors_of_the_refinement(fake_refine, run, words):
    def refuse():
        raise InputError("the disk is full.")

    fake_refine.during = refuse
    status, _, err = run(*words)
    assert status == 2
    assert err == "jaxrelax: the disk is full.\n"


def test_repeats_have_other_seeds_and_are_compared(tmp_path):
    states_result, seeds = make_states(make_result(tmp_path, n=60)), []

    def run(**arguments):
        seeds.append(arguments["seed"])
        return states_result

    command = Command(
        particles=Path("p.star"), reference=Path("r.mrc"), out=Path("out"),
        classification=ClassificationOptions(states=("C4", "C4"), seeds=3),
    )  # fmt: skip
    found = command._repeated(states_result, run, {"seed": 7}, ())
    assert seeds == [8, 9]
    np.testing.assert_array_equal(found.repeats, np.ones((3, 3)))
    once = dataclasses.replace(command, classification=ClassificationOptions())
    assert once._repeated(states_result, run, {"seed": 7}, ()).repeats is None
