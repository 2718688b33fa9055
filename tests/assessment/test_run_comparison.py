"""Runs side by side, from their folders, against plain counts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxrelax.assessment import save
from jaxrelax.assessment.run_comparison import compare_runs, read_finished_run
from jaxrelax.assessment.states import adjusted_rand
from jaxrelax.geometry import exp_so3, parse_group
from jaxrelax.io import InputError, OutputFolder
from tests.assessment.conftest import make_result, make_states

GROUP = parse_group("C4")


def saved(result, folder: Path):
    save(result, OutputFolder.create(folder))
    return read_finished_run(folder)


def with_poses(result, rotations, rows=None, **columns):
    particles = result.particles.with_updates(rotations=rotations, extra_columns=columns)
    if rows is not None:
        particles = particles.select(rows)
        result = dataclasses.replace(result, registers=result.registers[rows])
        evidence = dataclasses.replace(result.evidence, log_gain=result.evidence.log_gain[rows])
        predicted = result.discriminability
        changes = {
            field.name: getattr(predicted, field.name)[rows]
            for field in dataclasses.fields(predicted)
            if np.shape(getattr(predicted, field.name)) == (60,)
        }
        result = dataclasses.replace(
            result, evidence=evidence,
            discriminability=dataclasses.replace(predicted, **changes),
        )  # fmt: skip
    return dataclasses.replace(result, particles=particles)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_result(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def first(made, tmp_path_factory):
    return saved(made, tmp_path_factory.mktemp("first") / "run")


def test_figures_are_those_of_the_result(made, first):
    figures = first.figures()
    assert figures["run"] == str(first.path)
    assert (figures["group"], figures["kept"], figures["states"]) == ("C4", "C1", None)
    assert figures["particles"] == 60
    assert figures["resolution_angstrom"] == made.resolution_angstrom
    assert figures["asymmetry_found"] is True
    assert figures["z_score"] == made.evidence.z_score
    assert figures["half_set_agreement"] == made.evidence.half_set_agreement
    assert figures["expected_register_accuracy"] == made.evidence.expected_accuracy
    assert figures["supported_symmetry"] == "C2"
    assert (figures["seconds"], figures["peak_memory_gib"]) == (83.2, 1.21)


def test_registers_are_compared_up_to_one_operator(made, first, tmp_path):
    """Every fourth image in another register, all turned, in another order, and some left out."""
    rng = np.random.default_rng(1)
    errors = np.asarray(exp_so3(rng.normal(0.0, 0.01, (60, 3))))
    elsewhere = np.arange(60) % 4 == 1
    turned = made.particles.rotations @ GROUP.operators[2].T
    turned[elsewhere] = turned[elsewhere] @ GROUP.operators[1].T
    rows = rng.permutation(60)[:45]
    second = saved(with_poses(made, errors @ turned, rows), tmp_path / "second")
    found = compare_runs(first, second)
    assert found is not None
    # Junk of either is left out: every fifth in the first.
    counted = rows[rows % 5 != 0]
    assert found.images == len(counted)
    assert found.same_register == np.mean(~elsewhere[counted])
    angle = np.arccos((np.trace(errors[counted], axis1=1, axis2=2) - 1) / 2)
    np.testing.assert_allclose(found.pose_difference_deg, np.rad2deg(np.median(angle)), rtol=1e-3)
    assert found.adjusted_rand is None
    # It is the same the other way round.
    back = compare_runs(second, first)
    assert back is not None
    assert (back.images, back.same_register) == (found.images, found.same_register)


def test_junk_of_both_runs_is_left_out(made, first, tmp_path):
    junk = np.where(np.arange(60) % 3 == 0, 0.9, 0.05)
    changed = with_poses(made, made.particles.rotations, jrxJunkProbability=junk)
    found = compare_runs(first, saved(changed, tmp_path / "second"))
    assert found is not None
    assert found.images == np.sum((np.arange(60) % 3 != 0) & (np.arange(60) % 5 != 0))


def test_states_are_compared_whatever_their_numbers(made, tmp_path):
    states = make_states(made)
    numbers = np.asarray(states.particles.extra_columns["rlnClassNumber"])
    other = np.array([0, 3, 1, 2])[numbers]
    other[:6] = 1
    again = dataclasses.replace(
        states,
        particles=states.particles.with_updates(extra_columns={"rlnClassNumber": other}),
    )
    one, two = saved(states, tmp_path / "one"), saved(again, tmp_path / "two")
    found = compare_runs(one, two)
    assert found is not None
    shown = np.arange(60) % 10 != 0
    assert found.adjusted_rand == adjusted_rand(numbers[shown], other[shown])
    assert 0.5 < found.adjusted_rand < 1.0
    # Class 1 alone has registers, in either run; poses are the same.
    assert np.any(shown & (numbers == 1) & (other == 1))
    assert found.same_register == 1.0


@pytest.mark.slow
def test_other_symmetries_have_no_registers_in_common(made, first, tmp_path):
    settings = made.settings | {"relax": "Relax(group='C4', to='C2')"}
    kept = saved(dataclasses.replace(made, settings=settings), tmp_path / "kept")
    assert (kept.group, kept.kept) == ("C4", "C2")
    found = compare_runs(first, kept)
    assert found is not None
    assert found.same_register is None
    assert found.pose_difference_deg < 1e-3
    plain = made.settings | {"relax": None, "symmetry": "C4"}
    imposed = saved(dataclasses.replace(made, settings=plain), tmp_path / "imposed")
    assert (imposed.group, imposed.kept) == ("C4", "C4")
    turned = with_poses(made, made.particles.rotations @ GROUP.operators[1].T)
    found = compare_runs(imposed, saved(turned, tmp_path / "turned"))
    assert found is not None
    assert (found.same_register, found.pose_difference_deg < 1e-3) == (None, True)


def rewritten(run, folder, change):
    """The run with its table changed as text."""
    folder.mkdir()
    for name in ("result.json", "history.csv"):
        (folder / name).write_bytes((run.path / name).read_bytes())
    (folder / "particles.star").write_text(change((run.path / "particles.star").read_text()))
    return read_finished_run(folder)


def test_other_images_are_not_compared(first, tmp_path):
    other = rewritten(first, tmp_path / "other", lambda text: text.replace("@stack", "@elsewhere"))
    assert compare_runs(first, other) is None

    def defocused(scale):
        """Every image has a defocus of its own."""
        rng = np.random.default_rng(3)

        def change(text):
            lines = []
            for line in text.splitlines():
                if "@stack" in line:
                    line = line.replace("15000.0", f"{rng.uniform(1e4, 3e4) + scale:.1f}")
                    line = line.replace("15000.000000", f"{rng.uniform(1e4, 3e4) + scale:.1f}")
                lines.append(line)
            rng.uniform()
            return "\n".join(lines) + "\n"

        return change

    one = rewritten(first, tmp_path / "one", defocused(0.0))
    refined = rewritten(first, tmp_path / "refined", defocused(200.0))
    assert compare_runs(one, refined) is not None
    # A stack of the same name in another data set.
    assert compare_runs(one, first) is None


def test_images_in_several_rows_are_left_out(first, tmp_path):
    def doubled(text):
        return text.replace("000002@stack.mrcs", "000001@stack.mrcs")

    found = compare_runs(first, rewritten(first, tmp_path / "doubled", doubled))
    assert found is not None
    assert found.images == 47  # of 48: image 1 is junk, image 2 has gone


def test_folders_without_a_finished_run(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_finished_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="jaxrelax status"):
        read_finished_run(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result\.json: cannot be read"):
        read_finished_run(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"n_particles": 3}))
    figures = read_finished_run(tmp_path).figures()  # of an older version
    assert (figures["particles"], figures["group"], figures["z_score"]) == (3, "C1", None)
    with pytest.raises(InputError, match=r"particles\.star"):
        _ = read_finished_run(tmp_path).particles
