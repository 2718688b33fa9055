"""Local resolution in numbers, words, files and pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.assessment import chimerax_script, contour_levels, report_html, save
from jaxrelax.assessment.local_resolution import (
    local_colours,
    local_numbers,
    local_section,
    local_sentence,
)
from jaxrelax.assessment.saving import summary
from jaxrelax.io import OutputFolder, read_map
from tests.assessment.conftest import PIXEL, N
from tests.assessment.test_report import Page


@pytest.fixture(scope="module")
def known(result):
    """A result of 8 Å, 12 Å where there is additional density, and 30 Å in the solvent."""
    dense = result.map > contour_levels(result)[0]
    more = result.in_sigma.significant & (result.in_sigma.sigma > 0)
    assert result.in_sigma.regions
    local = np.where(more, 12.0, np.where(dense, 8.0, 30.0)) * (result.mask > 0.5)
    curve = np.linspace(1.0, 0.0, 11)
    fsc = {name: curve for name in result.fsc}
    return replace(result, local_resolution=local.astype(np.float32), fsc=fsc)


def test_numbers_are_of_the_density_and_not_of_the_solvent_around_it(known):
    found = local_numbers(known, known)
    assert found is not None
    assert found.median == 8.0
    assert found.nine_tenths[1] < 30.0
    assert found.partner == 12.0
    # The curve is 0.5 at the fifth shell.
    assert found.whole_map == pytest.approx(known.shell_edge_angstrom / 5)
    sentence = str(local_sentence(known, known))
    assert "Median 8.0 Å" in sentence
    assert f"up to {N * PIXEL / 5:.1f} Å" in sentence
    assert "than its symmetrised self, the median is 12.0 Å" in sentence


def test_the_page_has_them_after_the_resolution(known):
    page = Page(report_html(known))
    assert str(local_sentence(known, known)) in page.text
    assert page.text.index("Local resolution") > page.text.index("Fourier shell correlation")
    assert "and the median of the additional density" in page.text


def test_where_nothing_is_significant_nothing_is_said_of_a_partner(known):
    quiet = replace(known, in_sigma=replace(known.in_sigma, regions=()))
    assert "significantly" not in str(local_sentence(quiet, quiet))
    # Three planes, without that of the largest difference.
    sections = [local_section(one) for one in (known, quiet)]
    assert [len(one.slices) for one in sections if one is not None] == [4, 3]
    assert "additional density" not in Page(report_html(quiet)).text


def test_without_it_there_is_no_section(known):
    without = replace(known, local_resolution=None)
    assert "Local resolution" not in Page(report_html(without)).text
    assert summary(without)["local_resolution"] is None
    assert "local_resolution" not in chimerax_script(without)


def test_an_even_map_looks_even(known):
    even = np.where(known.mask > 0.5, 9.0, 0.0).astype(np.float32)
    colours = local_colours(known, [replace(known, local_resolution=even)])
    assert float(colours.vmin or 0.0) < 8.0
    assert float(colours.vmax or 0.0) > 10.0


def test_files_and_summary(known, tmp_path):
    folder = OutputFolder.create(tmp_path / "out")
    save(known, folder)
    np.testing.assert_array_equal(
        read_map(folder / "local_resolution.mrc")[0], known.local_resolution
    )
    content = json.loads((folder / "result.json").read_text())["local_resolution"]
    assert content["threshold"] == 0.5
    assert content["median_angstrom"] == 8.0
    assert content["additional_density_angstrom"] == 12.0


def test_every_state_has_its_own(states_result):
    section = local_section(states_result)
    assert section is not None
    assert [title for title, _ in section.sentences] == [
        f"Class {k}, {one.name}" for k, one in enumerate(states_result.states, start=1)
    ]
    assert len(section.slices) == len(states_result.states)
    assert "local_resolution_classNN.mrc" in Page(report_html(states_result)).text
    for row, one in zip(summary(states_result)["states"], states_result.states, strict=True):
        found = local_numbers(states_result, one)
        assert found is not None
        assert row["local_resolution"]["median_angstrom"] == found.median
