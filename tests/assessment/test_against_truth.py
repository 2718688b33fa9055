"""Iterations against the truth, and where criteria would have stopped."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.assessment import AgainstTruth, register_accuracy
from jaxrelax.assessment.against_truth import truth_sentence
from jaxrelax.assessment.saving import history_csv
from jaxrelax.assessment.stop_plots import reached, stops_figure
from jaxrelax.io import InputError, read_particles
from jaxrelax.refinement import (
    MaxIterations,
    RegistersSettled,
    Relax,
    read_history,
    refine,
    replay,
)
from jaxrelax.simulate import Simulation, simulate


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    simulate(
        "phantom", folder,
        Simulation(
            n_images=100, box=32, pixel_size_angstrom=8.0, group="C4", protomer_kda=30.0,
            partner_kda=40.0, snr=0.5, junk_fraction=0.1, pose_error_deg=0.0, seed=3,
        ),
    )  # fmt: skip
    truth = read_particles(folder / "truth.star")
    watch = AgainstTruth(truth)
    result = refine(
        folder / "particles.star", folder / "reference.mrc", relax=Relax("C4", start="poses"),
        until=MaxIterations(3), ini_high=24.0, subgroups="none", callbacks=[watch],
    )  # fmt: skip
    return folder, truth, watch, result


def test_every_iteration_is_judged_as_the_result_is(watched):
    _, truth, watch, result = watched
    added = watch.added_to(result)
    assert [row["iteration"] for row in added.history] == [1, 2, 3]
    last = added.history[-1]
    judged = register_accuracy(result, truth, "C4")
    # The result comes from one more pass, and in one frame for both half-sets.
    assert last["true_register_accuracy"] == pytest.approx(judged.accuracy, abs=0.1)
    assert last["true_pose_error_deg"] == pytest.approx(judged.pose_error_deg, abs=0.5)
    assert "true_state_accuracy" not in last
    sentence = truth_sentence(added)
    assert sentence is not None
    assert sentence.startswith("Against the truth, in iteration 3: ")
    assert truth_sentence(result) is None


def test_junk_is_not_judged(watched):
    folder, truth, _, _ = watched
    wrong = truth.rotations.copy()
    junk = np.array([float(one) for one in truth.column("jrxJunk")]) != 0
    assert junk.any()
    wrong[junk] = np.eye(3)
    watches = [AgainstTruth(truth), AgainstTruth(truth.with_updates(rotations=wrong))]
    refine(
        folder / "particles.star", folder / "reference.mrc", relax="C4",
        until=MaxIterations(1), ini_high=24.0, subgroups="none", callbacks=watches,
    )  # fmt: skip
    assert watches[0].rows == watches[1].rows


def test_a_truth_of_other_images_is_refused(watched):
    folder, truth, _, _ = watched
    with pytest.raises(InputError, match="are not in it"):
        refine(
            folder / "particles.star", folder / "reference.mrc", relax="C4",
            callbacks=[AgainstTruth(truth.select(np.arange(10)))],
        )  # fmt: skip


def test_stops_are_drawn_against_what_was_right(watched, tmp_path):
    _, _, watch, result = watched
    (tmp_path / "history.csv").write_text(history_csv(watch.added_to(result)))
    run = reached(tmp_path)
    assert run.known
    np.testing.assert_allclose(
        run.values, [row["true_register_accuracy"] for row in watch.rows.values()], rtol=1e-6
    )
    stops = [replay(read_history(tmp_path), one) for one in (MaxIterations(2), RegistersSettled())]
    figure = stops_figure([run], ["two", "settled"], [stops])
    marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert next(line.get_xdata()[0] for line in marks if line.get_marker() == "o") == 2
    (tmp_path / "history.csv").write_text(history_csv(result))
    unknown = reached(tmp_path)
    assert not unknown.known
    np.testing.assert_allclose(
        unknown.values, [row["mean_max_posterior"] for row in result.history], rtol=1e-6
    )
    assert dataclasses.replace(result).history == result.history
