"""The register mask and resolution limit: what lies outside them cannot tell registers apart."""

import numpy as np

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
    part = state.asymmetric[0]
    power = np.abs(np.fft.fftshift(np.fft.fftn(part))) ** 2
    k = np.arange(len(part)) - len(part) // 2
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    limit = problem.shell(40.0)
    assert power.max() > 0
    # The particle's mask, applied after the limit, spreads it by a shell or two.
    beyond = power[radius > limit + 4].sum() / power.sum()
    _, free = asymmetric_after_a_step(one_partner)
    whole = np.abs(np.fft.fftshift(np.fft.fftn(free.asymmetric[0]))) ** 2
    k = np.arange(len(free.asymmetric[0])) - len(free.asymmetric[0]) // 2
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    assert beyond < 0.1 * whole[radius > limit + 4].sum() / whole.sum()


def test_the_mask_removes_asymmetry_outside_it(one_partner, tmp_path):
    setup = prepare(one_partner.star, one_partner.reference, relax=Relax("C4"))
    box, pixel = setup.problem.map_box, setup.problem.map_pixel_size_angstrom
    mask = soft_sphere(box, 0.2 * box, 3.0)
    write_map(tmp_path / "mask.mrc", mask, pixel)
    problem, state = asymmetric_after_a_step(one_partner, mask=str(tmp_path / "mask.mrc"))
    part = state.asymmetric[0]
    outside = problem.register_mask_at(len(part)) < 0.01
    assert np.abs(part[~outside]).max() > 0
    assert np.abs(part[outside]).max() < 0.02 * np.abs(part).max()
    _, free = asymmetric_after_a_step(one_partner)
    assert np.abs(free.asymmetric[0][outside]).max() > 0.02 * np.abs(free.asymmetric[0]).max()
