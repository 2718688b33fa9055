"""The register mask and resolution limit: what lies outside them cannot tell registers apart."""

import numpy as np
import pytest

from jaxrelax.imaging import rebox_map
from jaxrelax.io import write_map
from jaxrelax.reconstruction import soft_sphere
from jaxrelax.refinement import Registers, Relax, prepare, step


def asymmetric_after_a_step(data, **relax):
    setup = prepare(
        data.star, data.reference, mode=Registers(), relax=Relax("C4", start="poses", **relax)
    )
    state, _ = step(setup.problem, setup.state)
    return setup.problem, state


def test_the_limit_removes_asymmetry_beyond_it(one_partner):
    problem, state = asymmetric_after_a_step(one_partner, max_resolution=40.0)
    part = state.maps.asymmetric[0]
    power = np.abs(np.fft.fftshift(np.fft.fftn(part))) ** 2
    k = np.arange(len(part)) - len(part) // 2
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    limit = problem.shells.at(40.0)
    assert power.max() > 0
    # The particle's mask, applied after the limit, spreads it by a shell or two.
    beyond = power[radius > limit + 4].sum() / power.sum()
    free_map = asymmetric_after_a_step(one_partner)[1].maps.asymmetric[0]
    whole = np.abs(np.fft.fftshift(np.fft.fftn(free_map))) ** 2
    k = np.arange(len(free_map)) - len(free_map) // 2
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    assert beyond < 0.1 * whole[radius > limit + 4].sum() / whole.sum()


def test_the_mask_removes_asymmetry_outside_it(one_partner, tmp_path):
    setup = prepare(one_partner.star, one_partner.reference, relax=Relax("C4"))
    box, pixel = setup.problem.shells.box, setup.problem.shells.pixel_size_angstrom
    mask = soft_sphere(box, 0.2 * box, 3.0)
    write_map(tmp_path / "mask.mrc", mask, pixel)
    problem, state = asymmetric_after_a_step(one_partner, mask=str(tmp_path / "mask.mrc"))
    part = state.maps.asymmetric[0]
    outside = problem.particle.register_mask_at(len(part)) < 0.01
    assert np.abs(part[~outside]).max() > 0
    assert np.abs(part[outside]).max() < 0.02 * np.abs(part).max()
    free_map = asymmetric_after_a_step(one_partner)[1].maps.asymmetric[0]
    assert np.abs(free_map[outside]).max() > 0.02 * np.abs(free_map).max()


def one_site(problem):
    """A mask over one of four sites, on the box of the images."""
    n = problem.data.particles.optics[0].box
    mask = np.roll(soft_sphere(n, 0.1 * n, 2.0), round(0.2 * n), axis=2)
    return mask, problem.shells.pixel_size_angstrom


@pytest.mark.parametrize(
    ("relax", "reference", "sites"),
    [
        ({}, "reference", 4),
        ({"start": "poses"}, "reference", 1),
        ({"start": "reference"}, "truth_map", 1),
        # A symmetric reference does not say at which site it is.
        ({"start": "reference"}, "reference", 4),
        # What is kept makes sites equal, wherever the run starts.
        ({"start": "poses", "to": "C2"}, "reference", 2),
    ],
)
def test_a_mask_over_one_site_is_turned_onto_those_that_the_start_makes_equal(
    one_partner, tmp_path, caplog, relax, reference, sites
):
    given, pixel = one_site(prepare(one_partner.star, one_partner.reference).problem)
    write_map(tmp_path / "one.mrc", given, pixel)
    relax = Relax("C4", mask=str(tmp_path / "one.mrc"), **relax)
    reference = one_partner.folder / f"{reference}.mrc"
    problem = prepare(one_partner.star, reference, relax=relax).problem
    mask = problem.particle.register_mask
    assert mask.sum() / given.sum() == pytest.approx(sites, rel=0.02)
    assert mask.max() == pytest.approx(1.0)
    said = "covers some of the sites" in caplog.text
    assert said == (sites > 1)
    # As it is now, nothing more is said.
    caplog.clear()
    write_map(tmp_path / "one.mrc", rebox_map(mask, len(given)), pixel)
    again = prepare(one_partner.star, reference, relax=relax).problem.particle.register_mask
    assert "covers some" not in caplog.text
    np.testing.assert_allclose(again, mask, atol=1e-5)
