"""A result that says two different things of its registers."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment.contradictions import contradictions, crowded_register, doubt
from jaxrelax.assessment.findings import consequence, headline, warnings
from jaxrelax.assessment.report import report_html
from jaxrelax.refinement import Relax
from jaxrelax.refinement.reference_group import FORCED


@pytest.fixture
def blind(result):
    """The half-maps agree on nothing that tells registers apart."""
    predicted = replace(result.discriminability, expected_accuracy=np.full(60, 0.251))
    evidence = replace(result.evidence, expected_accuracy=0.87)
    return replace(result, discriminability=predicted, evidence=evidence)


def test_nothing_is_contradicted(result, symmetric_result, plain_result):
    for one in (result, symmetric_result, plain_result):
        assert contradictions(one) == []
        assert doubt(one) == ""
        assert crowded_register(one) is None
    assert "expected to be right" in consequence(result)


def test_a_prediction_far_below_the_posterior(blind):
    assert [one.brief for one in contradictions(blind)] == ["the half-maps predict 25 %"]
    said = headline(blind)
    assert "expected to be right" not in said
    assert "posterior takes the most probable register for right in 87 %" in said
    assert "contradicted: the half-maps predict 25 %. Do not rely" in said
    page = report_html(blind)
    assert ">contradicted<" in page
    assert any("something that is not in the density" in w for w in warnings(blind))


def test_a_prediction_a_little_below_is_none(blind):
    predicted = replace(blind.discriminability, expected_accuracy=np.full(60, 0.65))
    assert contradictions(replace(blind, discriminability=predicted)) == []


def test_a_nil_difference_map(result):
    nil = replace(result, difference=1e-6 * result.difference)
    assert [one.brief for one in contradictions(nil)] == ["the difference map is nil"]
    assert "difference map is nil" in headline(nil)
    assert any("difference map is nil" in note for note in warnings(nil))


def test_a_group_that_was_forced(result):
    note = f"ref.mrc: this map has C5, not C4. {FORCED}"
    forced = replace(result, notes=(note, "something else"))
    assert [one.brief for one in contradictions(forced)] == [
        "the reference does not have the group"
    ]
    assert "expected to be right" not in headline(forced)
    assert "contradicted: the reference does not have the group. Do not rely" in headline(forced)
    # The run said so already, and the report has it among its notes.
    assert note not in warnings(forced)
    assert report_html(forced).count("this map has C5, not C4") == 1


def test_without_asymmetry_nothing_is_claimed_and_nothing_contradicted(symmetric_result):
    nil = replace(symmetric_result, difference=0.0 * symmetric_result.difference)
    assert contradictions(nil) == []


def test_one_register_with_most_particles(result):
    crowded = np.full((60, 4), 0.02, np.float32)
    crowded[np.arange(60), np.where(np.arange(60) < 44, 1, np.arange(60) % 4)] = 0.94
    one = replace(result, registers=crowded)
    assert crowded_register(one) == pytest.approx(0.8)
    (note,) = warnings(one)
    assert note.startswith("One of 4 registers holds 80 % of the particles")
    assert "refinement in C1" in note
    assert "does not have C4" in note
    assert "if the input poses told registers apart already" in consequence(one)
    # Who begins with the registers of the input poses keeps them.
    started = replace(one, settings={"relax": repr(Relax("C4", start="poses"))})
    assert crowded_register(started) is None
    # Two registers of which one holds 60 %: that is no crowd.
    pair = np.eye(2, dtype=np.float32)[(np.arange(60) < 36).astype(int)]
    two = replace(result, registers=pair, operators=result.operators[::2])
    assert crowded_register(two) is None
