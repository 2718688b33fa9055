"""The first screen of the report."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment import answers, two_resolutions

from .conftest import make_result


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return replace(
        make_result(tmp_path_factory.mktemp("found")),
        asymmetric_resolution_angstrom=17.04,
        resolution_angstrom=9.6,
        discriminability=None,
    )


def said(result):
    return {answer.question: answer for answer in answers(result)}


def test_what_was_found_is_answered_with_two_resolutions(found):
    screen = said(found)
    assert list(screen) == [
        "Is the asymmetry real?",
        "How sure are the registers?",
        "How well is it resolved?",
        "Which file do I open?",
    ]
    real = screen["Is the asymmetry real?"]
    assert (real.value, real.doubtful) == ("yes", False)
    assert real.notes[0] == "p < 10⁻³ (40 σ): held-out images contradict C4"
    assert screen["How well is it resolved?"].value == "9.60 Å / 17.0 Å"
    assert screen["Which file do I open?"].value == "map.mrc"
    assert two_resolutions(found) == "9.60 Å (asymmetric part 17.0 Å)"
    unresolved = replace(found, asymmetric_resolution_angstrom=0.0)
    assert said(unresolved)["How well is it resolved?"].value == "9.60 Å / not resolved"


def test_nothing_found_leads_to_the_symmetrised_map(tmp_path):
    screen = said(make_result(tmp_path, found=False))
    assert screen["Is the asymmetry real?"].value == "none found"
    assert screen["How sure are the registers?"].value == "not at all"
    assert screen["Which file do I open?"].value == "map_symmetrised.mrc"
    assert "/" not in screen["How well is it resolved?"].value


def test_the_first_screen_does_not_contradict_the_warnings(found):
    nil = replace(found, difference=0 * found.difference)
    screen = said(nil)
    real = screen["Is the asymmetry real?"]
    assert (real.value, real.doubtful) == ("doubtful", True)
    assert "but the difference map is nil" in real.notes
    sure = screen["How sure are the registers?"]
    assert (sure.value, sure.doubtful) == ("contradicted", True)
    crowded = np.zeros_like(found.registers)
    crowded[:, 0] = 1.0
    sure = said(replace(found, registers=crowded))["How sure are the registers?"]
    assert sure.doubtful
    assert "but one register holds 100.0 %" in sure.notes


def test_a_run_without_relaxation_has_two_answers(found):
    plain = replace(
        found, evidence=None, operators=np.eye(3)[None], registers=np.ones((60, 1), np.float32)
    )
    assert list(said(plain)) == ["How well is it resolved?", "Which file do I open?"]
    assert two_resolutions(plain) == "9.60 Å"
