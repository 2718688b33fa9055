"""The output folder holds what was promised, in forms that others read."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment import contour_levels, save
from jaxrelax.assessment.saving import history_csv
from jaxrelax.io import OutputFolder, read_map, read_particles
from tests.assessment.conftest import ITERATIONS, PIXEL, N
from tests.io.conftest import parse_star

ALWAYS = {
    *("particles.star", "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "fsc.star"),
    "local_resolution.mrc",
    *("history.csv", "result.json", "report.html", "view.cxc"),
}
RELAXED = {
    *("registers.npz", "map_symmetrised.mrc", "difference.mrc", "difference_sigma.mrc"),
    "difference_positions.csv",
}


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    output = OutputFolder.create(tmp_path_factory.mktemp("saved") / "out")
    save(result, output)
    return output


def test_exactly_the_contract(folder, result):
    assert {path.name for path in folder.path.iterdir()} == ALWAYS | RELAXED
    assert {path.name for path in folder.results()} == ALWAYS | RELAXED


def test_an_older_result_does_not_call_a_half_written_folder_complete(
    result, tmp_path, monkeypatch
):
    output = OutputFolder.create(tmp_path / "out")
    save(result, output)

    def killed(result, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxrelax.assessment.saving.report_html", killed)
    with pytest.raises(KeyboardInterrupt):
        save(result, output)
    assert not (output / "result.json").exists()


def test_without_relaxation_nothing_about_registers(plain_result, tmp_path):
    output = OutputFolder.create(tmp_path / "out")
    save(plain_result, output)
    assert {path.name for path in output.path.iterdir()} == ALWAYS
    assert "difference" not in (output / "view.cxc").read_text()
    content = json.loads((output / "result.json").read_text())
    assert content["evidence"] is None
    assert not {"junk_fraction", "symmetric_fraction", "discriminability"} & set(content)


def test_particles_keep_every_column_and_gain_ours(folder, result):
    labels, rows = parse_star(folder / "particles.star")["particles"]
    assert labels[:12] == parse_star(result.particles.source)["particles"][0]
    assert labels[12:] == [
        *("jrxRegister", "jrxRegisterProbability", "jrxRegisterEntropy", "jrxJunkProbability"),
        *("jrxSymmetricProbability", "jrxDiscriminability", "jrxExpectedAccuracy"),
    ]
    assert [row[11] for row in rows] == [f"keep{i}" for i in range(60)]
    assert np.allclose(
        read_particles(folder / "particles.star").rotations, result.particles.rotations, atol=1e-6
    )


def test_maps_and_posterior_come_back(folder, result):
    for name, array in (
        ("map", result.map),
        ("half1", result.half_maps[0]),
        ("half2", result.half_maps[1]),
        ("map_symmetrised", result.map_symmetrised),
        ("difference", result.difference),
        ("difference_sigma", result.in_sigma.sigma),
        ("mask", result.mask),
    ):
        read, pixel = read_map(folder / f"{name}.mrc")
        assert pixel == PIXEL
        assert np.array_equal(read, array)
    with np.load(folder / "registers.npz") as arrays:
        assert set(arrays) == {"posterior", "operators", "log_gain"}
        assert np.array_equal(arrays["posterior"], result.registers)
        assert arrays["operators"].shape == (4, 3, 3)
        assert arrays["log_gain"].shape == (60,)


def test_fsc_has_relions_labels(folder, result):
    labels, rows = parse_star(folder / "fsc.star")["fsc"]
    assert labels[:7] == [
        *("rlnSpectralIndex", "rlnResolution", "rlnAngstromResolution"),
        "rlnFourierShellCorrelationCorrected",
        "rlnFourierShellCorrelationUnmaskedMaps",
        "rlnFourierShellCorrelationMaskedMaps",
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    ]
    assert labels[7:] == [f"jrxFourierShellCorrelation{x}" for x in ("Symmetric", "Asymmetric")]
    table = np.array(rows, float)
    assert table.shape == (N // 2 + 1, 9)
    assert table[3, 2] == pytest.approx(N * PIXEL / 3, abs=1e-5)
    assert np.allclose(table[:, 8], result.fsc["asymmetric"], atol=1e-6)


def test_curves_of_different_lengths_are_refused(result, tmp_path):
    broken = replace(result, fsc=result.fsc | {"masked": np.zeros(3)})
    with pytest.raises(ValueError, match="different lengths"):
        save(broken, OutputFolder.create(tmp_path / "out"))
    assert not (tmp_path / "out" / "result.json").exists()


def test_history_and_summary(folder, result):
    with open(folder / "history.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == ITERATIONS
    assert list(rows[0]) == list(result.history[0])
    assert float(rows[2]["asymmetric_fsc"]) == pytest.approx(result.history[2]["asymmetric_fsc"])
    content = json.loads((folder / "result.json").read_text())
    assert content["reason_for_stopping"] == result.reason
    assert content["evidence"]["sentence"] == result.evidence.sentence()
    assert content["evidence"]["expected_register_accuracy"] == result.evidence.expected_accuracy
    assert content["evidence"]["supported_symmetry"] == "C2"
    table = content["evidence"]["subgroups"]
    assert [(row["symmetry"], row["order"], row["rejected"]) for row in table] == [
        *(("C4", 4, True), ("C2", 2, False))
    ]
    assert np.shape(table[1]["operators"]) == (2, 3, 3)
    assert content["junk_fraction"] == pytest.approx(0.2 * 0.9 + 0.8 * 0.05)
    assert content["symmetric_fraction"] == pytest.approx(0.125)
    predicted = content["discriminability"]
    assert predicted["sentence"] == result.discriminability.sentence()
    assert predicted["possible_register_accuracy"] == pytest.approx(0.62)
    assert predicted["nats_per_particle"] == pytest.approx(result.discriminability.nats.mean())
    assert predicted["blind_fraction"] == pytest.approx(np.mean(np.linspace(0.26, 0.98, 60) < 0.3))
    assert content["settings"]["relax"]["group"] == "C4"
    assert set(content["versions"]) >= {"python", "jax", "jaxrelax", "numpy"}
    assert content["noise"][0]["rlnSigma2Noise"][0] == pytest.approx(2.0 / (2 * N**2))
    assert sum(content["register_occupancy"]) == pytest.approx(1.0)


def test_history_with_new_columns_has_them_all(result):
    history = [{"iteration": 1.0}, {"iteration": 2.0, "late": 0.5}]
    lines = history_csv(replace(result, history=history)).splitlines()
    assert lines == ["iteration,late", "1,", "2,0.5"]


def test_chimerax_opens_files_that_are_there(folder, result):
    lines = (folder / "view.cxc").read_text().splitlines()
    opened = [line.split()[1] for line in lines if line.startswith("open ")]
    names = ("map", "map_symmetrised", "difference", "difference_sigma", "local_resolution")
    assert opened == [f"{name}.mrc" for name in names]
    assert all((folder / name).is_file() for name in opened)
    density, difference = contour_levels(result)
    assert 0 < difference < result.difference.max()
    assert 0 < density < result.map.max()


def test_every_state_has_its_files(states_result, tmp_path):
    output = OutputFolder.create(tmp_path / "out")
    save(states_result, output)
    kinds = ("map", "half1", "half2", "mask", "difference_sigma", "fsc", "particles")
    kinds += ("local_resolution",)
    written = {path.name for path in output.path.iterdir()}
    for number in (1, 2, 3):
        for kind in kinds:
            suffix = "star" if kind in ("fsc", "particles") else "mrc"
            assert f"{kind}_class{number:02d}.{suffix}" in written
    opened = re.findall(r"^open (\S+)", (output / "view.cxc").read_text(), re.MULTILINE)
    assert opened == [f"map_class{number:02d}.mrc" for number in (1, 2, 3)]
    content = json.loads((output / "result.json").read_text())
    columns = states_result.particles.extra_columns
    for number, row in enumerate(content["states"], start=1):
        mine = (columns["rlnClassNumber"] == number) & (columns["jrxJunkProbability"] < 0.5)
        assert (row["class"], row["particles"]) == (number, np.count_nonzero(mine))
        np.testing.assert_allclose(row["mean_probability"], 0.88, rtol=1e-6)
        _, rows = parse_star(output / f"particles_class{number:02d}.star")["particles"]
        assert [row[11] for row in rows] == [f"keep{i}" for i in np.flatnonzero(mine)]
    np.testing.assert_allclose(content["expected_state_accuracy"], 0.88, rtol=1e-6)
