"""Every outcome is told what to do next, in commands that exist and of files that are there."""

import importlib
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tyro

from jaxrelax.assessment import next_steps, save
from jaxrelax.assessment.hand_over import HandOver
from jaxrelax.cli.commands import COMMANDS
from jaxrelax.geometry import parse_group
from jaxrelax.io import OutputFolder
from jaxrelax.judgement import SubgroupTest
from jaxrelax.refinement.held_out_states import StatesApart, StateSupport


def from_cryosparc(result):
    particles = replace(result.particles, source=result.particles.source.with_suffix(".cs"))
    return replace(result, particles=particles)


def contradicted(result):
    return replace(result, difference=np.zeros_like(result.difference))


OUTCOMES = ("result", "symmetric_result", "plain_result", "states_result")


@pytest.fixture(params=OUTCOMES)
def outcome(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def every_result(outcome):
    """An outcome, of either program, and the same contradicted where it can be."""
    return [outcome, from_cryosparc(outcome), contradicted(outcome)]


def commands_of(steps, program):
    return [line for step in steps if step.program == program for line in step.commands]


def titles(steps):
    return [step.title for step in steps]


def test_commands_of_ours_are_parsed_by_our_own_parser(every_result):
    for result in every_result:
        for line in commands_of(next_steps(result), "jaxrelax"):
            program, name, *rest = shlex.split(line)
            assert program == "jaxrelax"
            assert name in COMMANDS
            module = importlib.import_module(f"jaxrelax.cli.{name.replace('-', '_')}")
            asked = tyro.cli(module.Command, args=rest)
            if name == "refine":
                asked.components()  # refuses options that cannot act together


def test_files_that_are_named_are_those_of_the_output_folder(outcome, tmp_path):
    folder = OutputFolder.create(tmp_path / "out")
    save(outcome, folder)
    for result in (outcome, contradicted(outcome)):
        lines = [line for step in next_steps(result, folder.path) for line in step.commands]
        words = {word for line in lines for word in shlex.split(line)}
        inside = {Path(word) for word in words if word.startswith(f"{folder.path}/")}
        assert inside
        assert [path for path in inside if not path.exists()] == []


def test_names_with_blanks_are_quoted(result):
    line = commands_of(next_steps(result, "my run"), "RELION")[1]
    assert "my run/half1.mrc" in shlex.split(line)
    assert "my run_relion/postprocess" in shlex.split(line)


def test_each_step_says_why_in_a_sentence(every_result):
    for result in every_result:
        steps = next_steps(result)
        assert 1 <= len(steps) <= 8
        for step in steps:
            assert step.program in ("jaxrelax", "RELION", "cryoSPARC", "ChimeraX")
            assert step.why.endswith((".", "!"))
            assert not step.title.endswith(".")


def test_particles_stay_with_the_program_they_came_from(result):
    programs = {step.program for step in next_steps(result)}
    assert programs == {"ChimeraX", "jaxrelax", "RELION"}
    steps = next_steps(from_cryosparc(result))
    assert {step.program for step in steps} == {"ChimeraX", "jaxrelax", "cryoSPARC"}
    assert "out/particles.csg" in commands_of(steps, "cryoSPARC")[0]
    # The table with cryoSPARC's uids, and selections of the same kind.
    ours = commands_of(steps, "jaxrelax")
    assert any("out/particles.cs " in line for line in ours)
    assert any(line.endswith("--out sure.cs") for line in ours)


def test_asymmetry_is_refined_locally_with_what_was_kept(result):
    lines = commands_of(next_steps(result), "RELION")
    refine = next(line for line in lines if "relion_refine_mpi" in line)
    assert "--i out/particles.star --ref out/map.mrc --solvent_mask out/mask.mrc" in refine
    assert "--sym C1 --healpix_order 4 --auto_local_healpix_order 4" in refine
    assert "--firstiter_cc" not in refine


def test_settings_of_the_run_are_passed_on(result):
    settings = result.settings | {"ini_high": 12.0, "particle_diameter": 180.0}
    lines = commands_of(next_steps(replace(result, settings=settings)), "RELION")
    refine = next(line for line in lines if "relion_refine_mpi" in line)
    assert "--ini_high 12 --particle_diameter 180 " in refine
    without = "".join(commands_of(next_steps(result), "RELION"))
    assert "--ini_high" not in without
    assert "--particle_diameter" not in without


@pytest.mark.parametrize(
    ("group", "turn", "order"),
    [("C2", 180.0, 4), ("C4", 90.0, 4), ("C16", 22.5, 4), ("C18", 20.0, 5), ("C36", 10.0, 6)],
)
def test_local_searches_do_not_reach_the_next_register(result, group, turn, order):
    way = HandOver.of(replace(result, operators=parse_group(group).operators))
    assert way.smallest_turn_deg == pytest.approx(turn)
    assert way.local_order == order


def test_without_registers_there_is_no_turn(plain_result):
    assert HandOver.of(plain_result).smallest_turn_deg == 360.0


def test_a_supported_subgroup_is_kept_in_another_run(result):
    line = next(x for x in commands_of(next_steps(result), "jaxrelax") if "--to" in x)
    assert line == (
        "jaxrelax refine out/particles.star --reference out/map_symmetrised.mrc --relax C4 --to C2 "
        "--out out_C2"
    )


@pytest.mark.parametrize("supported", ["C1", None])
def test_without_a_supported_subgroup_no_other_run(result, supported):
    evidence = replace(result.evidence, supported=supported)
    steps = next_steps(replace(result, evidence=evidence))
    assert "--to" not in "".join(commands_of(steps, "jaxrelax"))


def test_what_was_kept_already_is_not_kept_again(result):
    settings = {"relax": {"group": "C4", "to": "C2"}}
    evidence = replace(result.evidence, subgroups=result.evidence.subgroups[:1], supported="C2")
    steps = next_steps(replace(result, settings=settings, evidence=evidence))
    assert "--to" not in "".join(commands_of(steps, "jaxrelax"))
    assert "Refine in RELION with C2" in titles(steps)


def test_a_name_that_means_several_subgroups_is_not_kept(result):
    # D4 has C2 on z and on two kinds of axes across it; --to C2 is the one on z.
    first = result.evidence.subgroups[0]._replace(name="D4")
    rows = [
        SubgroupTest(f"C2 {axis}", first.operators[:2], 1.0, 0.2, np.log10(0.2), 0.0)
        for axis in ("(2-fold on x)", "(2-fold on z)")
    ]
    evidence = replace(result.evidence, subgroups=(first, *rows), supported=rows[0].name)
    found = replace(result, evidence=evidence, settings={"relax": {"group": "D4", "to": "C1"}})
    assert "--to" not in "".join(commands_of(next_steps(found), "jaxrelax"))


def test_nothing_found_sends_back_to_the_symmetrised_map(symmetric_result):
    steps = next_steps(symmetric_result)
    assert titles(steps)[0] == "Use the symmetrised map"
    lines = [line for step in steps for line in step.commands]
    assert any(re.search(r"jaxrelax refine .*--symmetry C4 --out out_C4$", x) for x in lines)
    assert any("--ref out/map_symmetrised.mrc" in x and "--sym C4 " in x for x in lines)
    # What the registers of noise would be selected by.
    assert not any("select" in line for line in lines)


def test_a_run_that_was_cut_short_is_continued_first(symmetric_result):
    history = [*symmetric_result.history[:-1], symmetric_result.history[-1] | {"settled": 0.0}]
    steps = next_steps(replace(symmetric_result, history=history))
    assert titles(steps)[0] == "Let the run end by itself"
    assert "--resume" in steps[0].why


def test_contradicted_registers_are_not_gone_on_with(result):
    steps = next_steps(contradicted(result))
    lines = [line for step in steps for line in step.commands]
    assert not any("relion" in line or "select" in line for line in lines)
    assert any(line.startswith("jaxrelax align consensus.mrc --symmetry C4") for line in lines)
    source = str(result.particles.source)
    assert any(line.startswith(f"jaxrelax reconstruct {source}") for line in lines)


def test_where_images_are_is_said_again(result, tmp_path):
    particles = replace(result.particles, image_root=tmp_path)
    lines = commands_of(next_steps(contradicted(replace(result, particles=particles))), "jaxrelax")
    assert sum(f"--image-root {tmp_path}" in line for line in lines) == 2


def test_groups_from_a_file_are_not_named_to_other_programs(result):
    found = replace(result, settings={"relax": {"group": "operators.txt", "to": "C1"}})
    for each in (
        contradicted(found),
        replace(found, evidence=replace(found.evidence, found=False)),
    ):
        assert "operators.txt" not in "".join(
            line for step in next_steps(each) for line in step.commands
        )


def test_symmetry_that_was_imposed_is_put_to_the_test(plain_result):
    lines = commands_of(next_steps(plain_result), "jaxrelax")
    assert any(line.startswith("jaxrelax test-symmetry out/particles.star") for line in lines)
    alone = replace(plain_result, settings={"symmetry": "C1"})
    assert commands_of(next_steps(alone), "jaxrelax") == []


def test_states_are_selected_and_refined_by_themselves(states_result):
    steps = next_steps(states_result)
    selected = commands_of(steps, "jaxrelax")
    assert all("jaxrelax select out/ --state" in line for line in selected)
    assert len(selected) == sum(step.title.startswith("Refine state") for step in steps)
    relion = "\n".join(commands_of(steps, "RELION"))
    for line in selected:
        number = int(re.search(r"--state (\d)", line)[1])
        assert f"--i state{number}.star --ref out/map_class{number:02d}.mrc" in relion
        kept = states_result.states[number - 1].kept
        assert f"--sym {kept} " in relion


def test_states_that_are_not_told_apart_are_not_refined(states_result):
    tests = (StateSupport((1, 2), -0.1, -1.0, -40.0), StateSupport((1, 3), 0.3, 9.0, 90.0))
    apart = StatesApart(tests, (((0, 1), (2,)), ((0, 1, 2),)))
    steps = next_steps(replace(states_result, states_apart=apart))
    assert not apart.supported
    assert not any("state1" in line or "state2" in line for s in steps for line in s.commands)
