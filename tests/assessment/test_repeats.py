"""Runs with other seeds are compared image by image."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment.repeats import agreement_of_repeats, repeats_sentence
from jaxrelax.assessment.report import report_html
from jaxrelax.assessment.saving import summary


def relabelled(result, labels):
    columns = {**result.particles.extra_columns, "rlnClassNumber": labels}
    return replace(result, particles=result.particles.with_updates(extra_columns=columns))


def test_names_of_states_do_not_matter_and_states_do(states_result):
    labels = np.asarray(states_result.particles.extra_columns["rlnClassNumber"])
    renamed = relabelled(states_result, 1 + labels % 3)
    random = relabelled(states_result, np.random.default_rng(0).permutation(labels))
    found = agreement_of_repeats([states_result, renamed, random])
    assert found[0, 1] == found[1, 0] == 1.0
    assert abs(found[0, 2]) < 0.2
    assert "do not depend on the seed" in repeats_sentence(
        replace(states_result, repeats=found[:2, :2])
    )
    told = replace(states_result, repeats=found, either_half=np.arange(9).reshape(3, 3))
    assert "depends on the seed" in repeats_sentence(told)
    assert repeats_sentence(states_result) is None
    html = report_html(told)
    assert "adjusted Rand index" in html
    assert "Other: class 3" in html
    assert summary(told)["states_by_either_half"].sum() == 36


def test_a_run_that_found_one_state_does_not_agree(states_result):
    one = replace(states_result, states=())
    found = agreement_of_repeats([states_result, one, one])
    assert found[0, 1] == 0.0
    assert found[1, 2] == 1.0


def test_what_cannot_be_compared(states_result):
    fewer = replace(states_result, particles=states_result.particles.select(np.arange(5)))
    with pytest.raises(ValueError, match="other particles"):
        agreement_of_repeats([states_result, fewer])
