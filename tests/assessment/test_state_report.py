"""A classification in words and pictures: every section, and warnings where they are due."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment import answers, chimerax_script, report_html
from jaxrelax.assessment.findings import headline, key_figures, warnings
from jaxrelax.assessment.state_plots import population_figure
from jaxrelax.assessment.state_shares import (
    expected_state_accuracy,
    in_state,
    register_occupancy,
    state_shares,
    sure_fraction,
)
from jaxrelax.assessment.state_warnings import agrees, state_likeness
from jaxrelax.assessment.views import cramers_v, directions, height, mates, view_contrast
from jaxrelax.cli.refine import tell
from jaxrelax.geometry import parse_group
from jaxrelax.io import OutputFolder
from jaxrelax.reconstruction import rotate_map
from jaxrelax.refinement.held_out_states import StatesApart, StateSupport
from tests.assessment.conftest import make_states
from tests.assessment.test_report import Page

SECTIONS = (
    *("States", "Density", "Resolution", "Local resolution", "Certainty", "Populations"),
    *("Viewing directions", "Registers", "Pose differences", "Convergence", "Noise", "Settings"),
)


def changed(result, number, **fields):
    """The result with other fields of a state (counted from 0)."""
    states = list(result.states)
    states[number] = replace(states[number], **fields)
    return replace(result, states=tuple(states))


def with_registers(result, registers):
    """The result with another posterior, and the classes that follow from it."""
    changed = replace(result, registers=registers)
    columns = result.particles.extra_columns
    classes = {"rlnClassNumber": changed.state_posterior.argmax(axis=1) + 1}
    return replace(changed, particles=replace(result.particles, extra_columns=columns | classes))


@pytest.fixture(scope="module")
def html(states_result):
    return report_html(states_result)


def test_every_section_is_there(html, states_result):
    page = Page(html)
    assert page.open == []
    assert re.findall(r"<h2>(.*?)</h2>", html) == list(SECTIONS)
    # Slices, FSC, local resolution, certainty, populations, views, registers, convergence, noise;
    # and three sides of every state.
    assert len(page.sources) == 38 + 9
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "Classification, 3 states" in page.text
    assert "symmetrised" not in page.text
    assert "Symmetry-relaxed" not in page.text


def test_no_nan_is_shown(states_result):
    empty = changed(states_result, 2, fraction=0.0, count=0)
    registers = empty.registers.copy()
    registers[:, 4] += registers[:, 5]
    registers[:, 5] = 0.0
    for result in (states_result, with_registers(empty, registers)):
        text = Page(report_html(result)).text
        assert not re.search(r"\b(nan|inf|None)\b", text)
    assert "map_class03.mrc" in text
    assert "particles_class03.star" not in text


def test_the_table_of_states(html, states_result):
    text = Page(html).text
    shares = state_shares(states_result)
    columns = states_result.particles.extra_columns
    for number, share in enumerate(shares, start=1):
        mine = (columns["rlnClassNumber"] == number) & (columns["jrxJunkProbability"] < 0.5)
        assert share.particles == np.count_nonzero(mine)
        assert f"{share.particles:,} " in text
        np.testing.assert_allclose(share.mean_probability, 0.88, atol=1e-6)
        assert f"map_class{number:02d}.mrc, particles_class{number:02d}.star" in text
    assert f"1 C4 relaxed to C1 50 % {shares[0].particles}" in text
    assert shares[1].sentence() == (
        f"class 2, C4: 30 %, {shares[1].particles} particles (0.0 % of them sure), 10.00 Å"
    )


def test_iterations_name_the_classes(html):
    text = Page(html).text
    assert "Class 1 % Class 2 % Class 3 %" in text
    # The stage before there were states has a dash.
    assert "– – – –" in text
    assert "Held-out" not in text
    assert "Optimism" not in text


def test_headline_and_figures(states_result):
    assert headline(states_result) == (
        "3 states: C4 relaxed to C1 50 %, C4 30 %, C4 20 %; the most probable state is expected to "
        "be right for 88 % of the particles."
    )
    figures = {figure.label: figure for figure in key_figures(states_result)}
    assert figures["Junk"] == ("Junk", "13 %", "of the images show no particle")
    said = {answer.question: answer for answer in answers(states_result)}
    sure = said["How sure are the states?"]
    assert sure.value == "88 %"
    assert "3 states: 50 %, 30 %, 20 %" in sure.notes[0]
    assert sure.notes[1].startswith("0.0 % of the particles")
    assert "9.0 / –, 10.0 / –, 11.0 / – Å" in said["How well is it resolved?"].notes[1]
    assert said["Which file do I open?"].value == "map_classNN.mrc"
    sure = replace(states_result, registers=np.round(states_result.registers > 0.5).astype("f4"))
    assert sure_fraction(sure) > 0.5
    junk = states_result.particles.extra_columns["jrxJunkProbability"]
    largest = states_result.state_posterior.max(axis=1)
    expected = np.sum(largest * (1 - junk)) / np.sum(1 - junk)
    np.testing.assert_allclose(expected_state_accuracy(states_result), expected, rtol=1e-6)


def test_a_sound_classification_has_no_warnings(states_result):
    assert warnings(states_result) == []


def test_an_empty_state_is_named(states_result):
    few = changed(states_result, 2, fraction=0.004)
    assert any("Class 3 (C4) is nearly empty" in note for note in warnings(few))
    assert "class 3 is empty" in headline(few)
    registers = states_result.registers.copy()
    registers[:, 4] += registers[:, 5]
    registers[:, 5] = 0.0
    none = changed(with_registers(states_result, registers), 2, fraction=0.0)
    (note,) = [note for note in warnings(none) if "Class 3" in note]
    assert "is empty: nothing was found for it. Run with fewer states." in note
    # By images alone: 2 % of few particles.
    registers[np.flatnonzero(in_state(states_result, 2))[:7], 5] = 2.0
    rare = changed(with_registers(states_result, registers), 2, fraction=0.02)
    assert any("7 images" in note for note in warnings(rare))


def test_a_state_with_nothing_of_its_own_is_not_supported(states_result):
    curve = states_result.states[1].fsc["own"]
    noise = np.zeros_like(curve)
    noise[:3] = 1.0, 0.9, 0.4  # of so few coefficients this is chance
    flat = changed(states_result, 1, fsc=states_result.states[1].fsc | {"own": noise})
    (note,) = warnings(flat)
    assert "class 2 (C4) has of its own: it is not supported" in note
    assert "class 2 is not supported by both half-sets" in headline(flat)
    fsc = states_result.states[0].fsc | {"asymmetric": noise}
    (note,) = warnings(changed(states_result, 0, fsc=fsc))
    assert "its registers mean nothing" in note


def test_agreement_is_above_chance():
    curve = np.zeros(30)
    assert not agrees(curve, 1)
    curve[1] = 0.95
    assert not agrees(curve, 1)
    curve[20] = 0.142
    assert not agrees(curve, 1)
    curve[20] = 0.15
    assert agrees(curve, 1)
    # A symmetry leaves fewer coefficients, so chance reaches further.
    assert not agrees(curve, 24)


def test_states_that_are_alike_are_named(states_result):
    assert state_likeness(states_result, 0, 1) < 0.5
    alike = changed(states_result, 2, map=states_result.states[1].map)
    assert any("Classes 2 and 3 are alike" in note for note in warnings(alike))
    # The same difference to the mean, but half of it, is another state.
    half = 0.5 * (states_result.states[1].map + states_result.map)
    other = changed(states_result, 2, map=half)
    np.testing.assert_allclose(state_likeness(other, 1, 2), 0.8, atol=0.02)
    assert warnings(other) == []


def test_what_held_out_images_say_is_said(states_result):
    partitions = (((0,), (1, 2)), ((0, 1, 2),))
    one = StatesApart((StateSupport((2, 3), 0.412, 8.3, 120.0),), partitions[:1])
    told = replace(states_result, states_apart=one)
    assert warnings(told) == []
    assert "But" not in headline(told)
    page = Page(report_html(told)).text
    assert told.support.sentence() in page
    assert "Are the states real? yes held-out images tell classes" in page
    # Alike to the eye, and yet not the same.
    near = changed(told, 2, map=states_result.states[1].map)
    assert warnings(near) == []
    tests = (StateSupport((2, 3), -0.01, -0.4, -3.0), StateSupport((1, 2), 0.2, 6.0, 70.0))
    not_told = replace(states_result, states_apart=StatesApart(tests, partitions))
    (note,) = warnings(not_told)
    assert note.startswith("Held-out images do not support the difference between classes 2 and 3")
    assert "Of 3 classes 2 are told apart: 1; 2 = 3." in note
    assert "held-out images do not tell classes 2 and 3 apart" in headline(not_told)
    nothing = (tests[0], StateSupport((1, 2), -0.2, -6.0, -70.0))
    (note,) = warnings(replace(states_result, states_apart=StatesApart(nothing, partitions)))
    assert "None of the 3 classes is told apart from the others." in note
    assert Page(report_html(states_result)).text.count("Held-out") == 0


def test_likeness_does_not_depend_on_the_register(states_result):
    first = states_result.states[0]
    turned = rotate_map(first.map, parse_group("C4").operators[1])
    twice = replace(states_result, states=(first, replace(first, map=turned)))
    np.testing.assert_allclose(state_likeness(twice, 0, 1), 1.0, atol=1e-3)


def test_uncertain_states_are_not_for_selecting(states_result):
    unsure = make_states(states_result, certainty=0.36)
    assert any("hardly be told apart" in note for note in warnings(unsure))
    rows = [*states_result.history[:-1], states_result.history[-1] | {"settled": 0.0}]
    (note,) = warnings(replace(states_result, history=rows))
    assert "before states and poses had settled" in note


def test_a_state_that_is_a_view_is_named(states_result):
    assert view_contrast(states_result) == [0.0, 0.0, 0.0]
    rotations = states_result.particles.rotations.copy()
    tilts = rotations[:, 2, 2]
    of_second = np.flatnonzero(in_state(states_result, 1))
    top = np.flatnonzero(tilts > 0.7)
    rotations[of_second] = rotations[np.resize(top, len(of_second))]
    view = replace(states_result, particles=replace(states_result.particles, rotations=rotations))
    contrast = view_contrast(view)
    assert contrast[1] > 0.5
    notes = [note for note in warnings(view) if "seen from other sides" in note]
    assert any("Class 2 (C4)" in note for note in notes)


def test_views_do_not_depend_on_the_mate():
    rng = np.random.default_rng(3)
    views = rng.standard_normal((20, 3))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    for name in ("C4", "D3", "O"):
        operators = parse_group(name).operators
        turned = np.einsum("nij,nj->ni", operators[rng.integers(len(operators), size=20)], views)
        np.testing.assert_allclose(height(turned, operators), height(views, operators), atol=1e-12)
        assert len(mates(views, operators)) == 20 * len(operators)
    np.testing.assert_allclose(height(views, parse_group("C4").operators), views[:, 2])
    np.testing.assert_allclose(height(views, parse_group("D3").operators), np.abs(views[:, 2]))


def test_the_view_is_the_axis_of_the_projection(states_result):
    """A view along a direction d of the map has d on the image's z axis."""
    chosen = np.zeros(len(states_result.particles), bool)
    chosen[5] = True
    (seen,) = directions(states_result, chosen)
    np.testing.assert_allclose(states_result.poses[5] @ seen, [0.0, 0.0, 1.0], atol=1e-6)


def test_cramers_v():
    assert cramers_v([[50, 0], [0, 50]]) == pytest.approx(1.0, abs=0.01)
    assert cramers_v([[50, 50], [50, 50]]) == 0.0
    # Of a 2 × 2 table with equal margins V is the difference of the rows' shares.
    assert cramers_v([[800, 200], [200, 800]]) == pytest.approx(0.6, abs=0.002)
    assert np.isnan(cramers_v([[0, 0], [5, 5]]))


def test_occupancy_is_of_the_state_and_less_junk(states_result):
    junk = states_result.particles.extra_columns["jrxJunkProbability"]
    weighted = ((1 - junk)[:, None] * states_result.registers[:, :4]).sum(axis=0)
    np.testing.assert_allclose(
        register_occupancy(states_result, 0), weighted / weighted.sum(), rtol=1e-5
    )


def test_populations_are_of_the_stage_with_states(states_result, result):
    figure = population_figure(states_result)
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata())]
    assert [line.get_xdata()[0] for line in lines] == [4.0] * 3
    assert [line.get_ydata()[-1] for line in lines] == pytest.approx([0.5, 0.3, 0.2])
    assert population_figure(result) is None


def test_chimerax_opens_every_state_at_one_level(states_result):
    script = chimerax_script(states_result)
    assert [f"open map_class{k:02d}.mrc" in script for k in (1, 2, 3)] == [True] * 3
    assert "open map.mrc" not in script
    assert "difference.mrc" not in script
    assert len(set(re.findall(r"level (\S+)", script))) == 1
    assert len(set(re.findall(r"color (#\w+)", script))) == 3


def test_states_leave_no_trace_in_other_reports(result, plain_result):
    for one in (result, plain_result):
        html = report_html(one)
        assert "table.states" not in html
        assert "turned by all operators of the largest group" not in html
        assert "Class 1" not in html


def test_the_terminal_says_the_same(states_result, tmp_path, caplog):
    caplog.set_level(logging.INFO, "jaxrelax")
    none = with_registers(states_result, np.eye(6, dtype=np.float32)[[0, 4] * 200])
    none = changed(none, 2, fraction=0.0)
    tell(none, OutputFolder.create(tmp_path / "out"))
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == headline(none)
    assert said[1:4] == [share.sentence() for share in state_shares(none)]
    assert said[3] == "class 3, C4: 0.0 %, 0 particles, 11.00 Å"
    assert said[4].startswith("Resolution of the mean map 9.60 Å.")
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warned == warnings(none)
    assert warned
