"""One page, everything inside, and the right words for what was found."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxrelax.assessment import answers, report_html, write_report
from jaxrelax.assessment.findings import (
    duration,
    headline,
    percent,
    relaxation_name,
    warnings,
)
from jaxrelax.assessment.report import flattened
from jaxrelax.assessment.saving import summary, symmetry_summary
from jaxrelax.assessment.slices import Plane, plane_of_largest_difference
from jaxrelax.judgement.verdict import p_statement
from jaxrelax.refinement import Relax


class Page(HTMLParser):
    """Sources, words and open tags of a page."""

    VOID = ("meta", "img", "br", "link", "input", "source")

    def __init__(self, text):
        super().__init__()
        self.sources, self.open, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "img":
            assert dict(attrs)["alt"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(result):
    return Page(report_html(result))


def test_nothing_is_fetched(page, result):
    assert page.open == []
    # Slices, FSC, local resolution, registers, views, poses, convergence, noise; sections with
    # their scale, views.
    assert len(page.sources) == 52
    assert all(source.startswith("data:image/") for source in page.sources)
    outside = re.sub(r'"data:image/[^"]*"', "", report_html(result))
    assert not re.search(r"https?:|//|@import|url\(|<script", outside)


def test_headline_and_figures(page, result):
    assert result.evidence.sentence() in page.text
    assert result.reason in page.text
    assert "9.60 Å" in page.text
    assert percent(result.evidence.expected_accuracy) in page.text
    assert "relax.group C4" in page.text
    assert "Be careful" not in page.text


def test_table_of_iterations(page, result):
    assert "Asymmetric FSC" in page.text
    assert f"{result.history[4]['asymmetric_fsc']:.3f}" in page.text
    assert "Strength" in page.text
    # The last row: symmetric particles and junk in per cent.
    assert "12.5 18.0" in page.text


def test_images_that_find_another_pose_are_shown_where_there_are_some(result):
    heading = "Other pose found"
    settled = replace(result, history=[row | {"pose_jumps": 0.0} for row in result.history])
    assert heading not in Page(report_html(settled)).text
    first = [settled.history[0] | {"pose_jumps": 0.375}, *settled.history[1:]]
    page = Page(report_html(replace(settled, history=first)))
    assert heading in page.text
    assert "37.5" in page.text


def test_junk_and_what_could_be_told_apart(page, result):
    assert "Junk 22 % of the images show no particle; 12 % of the particles symmetric" in page.text
    assert result.discriminability.sentence() in page.text


def test_symmetric_data_are_said_to_be_symmetric(symmetric_result):
    assert "Use the symmetrised map" in headline(symmetric_result)
    assert "No asymmetry was found" in Page(report_html(symmetric_result)).text
    # A confident posterior without evidence is what over-fitting looks like.
    certain = replace(symmetric_result, registers=np.eye(4, dtype=np.float32)[np.arange(60) % 4])
    assert any("follow noise" in note for note in warnings(certain))


def test_without_relaxation(plain_result, tmp_path):
    write_report(plain_result, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "without symmetry relaxation" in page.text
    assert "Registers" not in page.text
    assert "Held-out" not in page.text
    assert "Junk" not in page.text
    assert "Strength" not in page.text


def test_text_from_files_is_escaped(result):
    text = report_html(replace(result, reason="<script>alert(1)</script>"))
    assert "<script>" not in text


def test_warnings_fire(result):
    assert warnings(result) == []
    beyond = replace(result, resolution_angstrom=2 * result.pixel_size_angstrom)
    assert any("Nyquist" in note for note in warnings(beyond))
    disagree = replace(result, evidence=replace(result.evidence, half_set_agreement=0.26))
    assert any("over-confident" in note for note in warnings(disagree))
    flat = replace(result, fsc=result.fsc | {"asymmetric": 0 * result.fsc["asymmetric"]})
    assert any("not resolved" in note for note in warnings(flat))
    tight = replace(result, fsc=result.fsc | {"random": np.full(len(result.fsc["random"]), 0.5)})
    assert any("wider, softer" in note for note in warnings(tight))
    uniform = np.full_like(result.registers, 1.0 / result.registers.shape[1])
    silent = replace(result, registers=uniform)
    assert any("posterior is uniform" in note for note in warnings(silent))
    short = replace(result, history=result.history[:3])
    assert any("still being sought" in note for note in warnings(short))
    # Optimism alone is no reason: it stays where the signal is weak.
    assert result.history[-1]["optimism"] > 0.0


def test_the_plane_of_largest_difference():
    difference, mask = np.zeros((2, 8, 8, 8), np.float32)
    mask[:] = 1.0
    difference[2, 5, 6] = -2.0
    difference[:, 5, 6] -= 1.0
    assert plane_of_largest_difference(difference, mask) == Plane(1, 5)
    mask[:, 5] = 0.0
    difference[1, 2, :] = 0.1
    assert plane_of_largest_difference(difference, mask) == Plane(0, 1)


def test_the_relaxation_is_named(result):
    def name(relax):
        return relaxation_name(replace(result, settings={"relax": relax}))

    assert name({"group": "D4", "to": "C2"}) == "D4 → C2"
    assert name(repr(Relax("O", to="C4", optimism=1.0))) == "O → C4"
    assert name(repr(Relax("C4"))) == "C4 → C1"
    assert name(None) == "4 registers"


def test_words():
    assert [duration(s) for s in (4.21, 42.0, 200.0, 7500.0)] == [
        *("4.2 s", "42 s", "3 min 20 s", "2 h 05 min")
    ]
    assert [percent(f) for f in (0.78, 0.987, 0.01)] == ["78 %", "98.7 %", "1.0 %"]
    assert [percent(f) for f in (0.99996, 1.0)] == ["> 99.9 %", "100.0 %"]
    assert flattened({"a": {"b": None, "c": 1}}) == [("a.b", "—"), ("a.c", "1")]


def test_a_p_value_that_permutations_do_not_reach(result, symmetric_result):
    assert p_statement(-5000.0, 157.3) == "p < 10⁻³ (157 σ)"
    assert p_statement(-4.0, 3.72) == "p < 10⁻³ (3.7 σ)"
    assert result.evidence.p_statement() == "p < 10⁻³ (40 σ)"
    assert symmetric_result.evidence.p_statement() == "p = 0.42"
    assert "p < 10⁻³ (40 σ)" in headline(result)
    page = Page(report_html(result)).text
    assert "10⁻³⁵¹" not in page
    assert "p < 10⁻³ (40 σ)" in page
    # Files hold no smaller number either, and what ranks results beside it.
    for held in (summary(result)["evidence"], symmetry_summary(result)["subgroups"][0]):
        assert (held["p_value"], held["log10_p"], held["z_score"]) == (0.001, -350.2, 40.0)
    assert summary(symmetric_result)["evidence"]["p_value"] == 0.42


def test_held_poses_are_an_assumption(result, symmetric_result):
    assert "poses" not in result.evidence.sentence()
    for one in (result, symmetric_result):
        held = replace(one.evidence, poses_held_to=(1.03, 1.61))
        assert "held, are exact to well within 1.0° and 1.6 Å" in held.sentence()
    held = replace(result.evidence, poses_held_to=(1.03, 1.61))
    assert "can look like this" in held.sentence()


def test_notes_of_the_run_are_in_the_report(result):
    noted = replace(result, notes=("partner.mrc: the register mask was turned.",))
    assert "partner.mrc: the register mask was turned." in Page(report_html(noted)).text


def test_the_table_of_symmetries(page, result):
    assert "C4 4 < 10⁻³ 40.0" in page.text
    assert "C2 2 0.16 1.0 0.01 not contradicted" in page.text
    assert "do not contradict is C2" in page.text
    assert [line.split()[0] for line in result.evidence.table().splitlines()[1:]] == ["C4", "C2"]
    # A symmetry that was kept is in every map: nothing was asked about it.
    kept = replace(result.evidence, subgroups=result.evidence.subgroups[:1])
    assert "C2, which was kept, was not." in kept.sentence()
    assert "do not contradict is" not in kept.sentence()
    real = answers(replace(result, evidence=kept))[0]
    assert "largest symmetry kept, not tested: C2" in real.notes
    assert not replace(kept, supported="C1").kept_untested
    unsaid = replace(result.evidence, supported=None)
    assert "largest" not in unsaid.sentence()
    kept = result.evidence.subgroups[1]._replace(p_value=0.002, log10_p=-2.7, implied_by="C4")
    implied = replace(result.evidence, subgroups=(result.evidence.subgroups[0], kept))
    assert implied.table().splitlines()[-1].endswith("implied by C4")
    assert "implied by C4" in Page(report_html(replace(result, evidence=implied))).text
    nothing = replace(result.evidence, found=False, tested=False)
    assert "hold nothing asymmetric that could be tested" in nothing.sentence()
