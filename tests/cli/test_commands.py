"""Every command starts, explains itself, and says clearly what it cannot do."""

import importlib
import json
import re
import subprocess
import sys
import time
from dataclasses import fields

import jax
import platformdirs
import pytest

from jaxrelax.cli.commands import COMMANDS, _keep_programs
from jaxrelax.cli.option_list import options_of
from jaxrelax.cli.options import flag
from jaxrelax.io import read_map
from jaxrelax.simulate import Simulation


def test_overview(run):
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    assert all(name in out for name in COMMANDS)
    status, out, _ = run("--version")
    assert (status, out.split()[0]) == (0, "jaxrelax")
    assert run()[0] == 2


def test_compiled_programs_are_kept_for_the_next_run(monkeypatch, tmp_path):
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in options}
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    try:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
        _keep_programs()
        assert {name: jax.config.values[name] for name in options} == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        _keep_programs()
        assert jax.config.values[options[0]].startswith(str(tmp_path / "jaxrelax"))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(run, name):
    status, out, _ = run(name, "--help")
    assert status == 0
    assert f"jaxrelax {name}" in out


def test_an_unknown_command_is_told_the_others(run):
    status, out, err = run("refnie")
    assert (status, out) == (2, "")
    assert "refnie" in err
    assert "refine" in err


def test_an_unknown_option_is_bad_input(run):
    status, _, err = run("inspect", "x.star", "--colour", "red")
    assert status == 2
    assert "--colour" in err


@pytest.mark.parametrize(
    ("asked", "shown", "hidden"),
    [
        (["--help"], "test-symmetry", "Traceback"),
        (["refine", "--help"], "--relax", "--register-max-resolution"),
        (["refine", "--help-all"], "--register-max-resolution", "Traceback"),
        (["align", "--help"], "--map-pixel-size-angstrom", "--help-all"),
    ],
)
def test_help_starts_in_a_moment(asked, shown, hidden):
    """A fresh process, as a user sees it; generous, for machines that are busy."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "jaxrelax.cli", *asked], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert shown in done.stdout
    assert hidden not in done.stdout
    assert time.perf_counter() - began < 20.0
    if asked == ["refine", "--help"]:
        assert len(done.stdout.splitlines()) <= 50


def test_the_overview_does_not_wait_for_jax():
    asked = (
        "import sys; from jaxrelax.cli import main; main(['--help']); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_inspect(run, data, tmp_path):
    status, out, err = run("inspect", data.particles)
    assert (status, err) == (0, "")
    assert "RELION particles" in out
    assert "40" in out
    status, out, err = run("inspect", tmp_path / "nothing.star")
    assert (status, out) == (2, "")
    assert err == f"jaxrelax: {tmp_path / 'nothing.star'}: no such file.\n"


def test_simulate_writes_a_data_set(run, tmp_path):
    status, out, _ = run(
        *("simulate", "phantom", "--out", tmp_path / "sim", "--n-images", 8, "--box", 32),
        *("--pixel-size-angstrom", 8, "--protomer-kda", 10, "--partner-kda", 10),
        *("--symmetry", "C3", "--seed", 4),
    )
    assert status == 0
    assert str(tmp_path / "sim" / "particles.star") in out
    asked = json.loads((tmp_path / "sim" / "simulation.json").read_text())["simulation"]
    assert (asked["n_images"], asked["group"], asked["seed"]) == (8, "C3", 4)


def test_simulate_has_every_option(run):
    out = run("simulate", "--help")[1]
    missing = [f.name for f in fields(Simulation) if flag(f.name) not in out]
    assert missing == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("phantom", "--box", "33"), "must be even"),
        (("phantom", "--snr", "-1"), "snr is -1"),
        (("phantom", "--partner-chains", "A"), "cannot act on"),
        (("nothing.pdb",), "nothing.pdb"),
    ],
)
def test_simulate_refuses(run, tmp_path, words, message):
    status, out, err = run("simulate", *words, "--out", tmp_path / "sim")
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "sim").exists()


def test_reconstruct_writes_a_map(run, data, tmp_path):
    status, out, err = run("reconstruct", data.truth, "--out", tmp_path / "map.mrc")
    assert (status, err) == (0, "")
    assert "map.mrc" in out
    map_, pixel = read_map(tmp_path / "map.mrc")
    assert (map_.shape, pixel) == ((32, 32, 32), 7.0)
    status, _, err = run("reconstruct", data.truth, "--out", tmp_path / "map.mrc")
    assert status == 2
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "map.txt"), "map.txt"),
        (("--out", "map.mrc", "--seed", "3"), "--seed: can act only with --break-symmetry"),
        (("--out", "map.mrc", "--break-symmetry", "Q4"), "Q4"),
        (("--out", "map.mrc", "--passthrough", "a.cs"), "--passthrough"),
        (("--out", "nowhere/map.mrc"), "nowhere"),
    ],
)
def test_reconstruct_refuses(run, data, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("reconstruct", data.truth, *words)
    assert status == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["refine", "p.star", "--refernce", "r.mrc"], "did you mean --reference?"),
        (["refine", "p.star", "--ref", "r.mrc", "--o", "out"], "it is called --reference"),
        (["refine", "p.star", "--relax_sym=C4"], "it is called --relax."),
        (["refine", "p.star", "--sigma_rotaton_deg", "2"], "did you mean --sigma-rotation-deg?"),
        (["test-symmetry", "p.star", "--sym", "C4"], "it is called --symmetry."),
        (["refine", "p.star", "--j", "8"], "all cores are used"),
        (["refine", "p.star", "--group", "C4"], "it is called --relax or --symmetry."),
        (["expand", "p.star", "--group", "C4"], "it is called --symmetry."),
        (["align", "m.mrc", "--relax", "C4"], "it is called --symmetry."),
        (["test-symmetry", "p.star", "--relax", "C4"], "it is called --symmetry."),
    ],
)
def test_an_option_of_elsewhere_is_told_its_name(run, words, said):
    """Also where what is required is missing."""
    status, _, err = run(*words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1


GROUP_OPTIONS = {
    "refine": {"--symmetry", "--relax"},
    "test-symmetry": {"--symmetry", "--group"},
    "simulate": {"--symmetry", "--group"},
    "reconstruct": {"--symmetry"},
    "align": {"--symmetry"},
    "predict": {"--symmetry", "--relax"},
    "expand": {"--symmetry"},
    "subparticles": {"--symmetry"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_group_is_called_symmetry_in_every_command(name):
    command = importlib.import_module(f"jaxrelax.cli.{name.replace('-', '_')}").Command
    names = {one for option in options_of(command) for one in option.names}
    assert names & {"--symmetry", "--relax", "--group"} == GROUP_OPTIONS.get(name, set())


@pytest.mark.parametrize("option", ["--symmetry", "--group"])
def test_both_names_of_the_group_arrive(run, tmp_path, option):
    words = ("simulate", "phantom", "--out", tmp_path / "sim", "--n-images", 4, "--box", 32)
    words += ("--pixel-size-angstrom", 8, "--protomer-kda", 10, "--partner-kda", 10)
    assert run(*words, option, "C2")[0] == 0
    asked = json.loads((tmp_path / "sim" / "simulation.json").read_text())["simulation"]
    assert asked["group"] == "C2"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_speaks_no_python(run, name):
    out = run(name, "--help-all")[1]
    assert not re.search(r"\b(None|True|False|tuple|NoneType)\b", out.replace("True origins", ""))


@pytest.mark.parametrize("words", [[], ["--relax", "none"]])
def test_an_option_may_be_none(run, words):
    """As the help says; what comes next is that there is no such file."""
    asked = ["refine", "nowhere.star", "--reference", "r.mrc", "--out", "o"]
    status, _, err = run(*asked, *words)
    assert status == 2
    assert "nowhere.star: no such file" in err
