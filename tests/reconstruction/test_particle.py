"""What a particle is made of: its box, registers, region, sphere and counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from jaxrelax.geometry import point_group, subgroup
from jaxrelax.reconstruction import Particle, isotypic_parts, particle_box, soft_sphere

BOX, PIXEL = 24, 3.0


def particle(group="C4", kept="C1", **changes) -> Particle:
    """A particle of 50 Å in a box of 72 Å."""
    whole = point_group(group)
    return Particle(whole, subgroup(whole, kept), BOX, PIXEL, 50.0, **changes)


def noise(seed=0):
    return np.random.default_rng(seed).standard_normal((BOX, BOX, BOX)).astype(np.float32)


@given(half=st.integers(8, 400), pixel=st.floats(0.3, 8.0), share=st.floats(0.05, 1.0))
def test_the_box_holds_the_sphere_and_is_never_wider_than_the_images(half, pixel, share):
    image_box = 2 * half
    diameter = share * image_box * pixel
    box = particle_box(image_box, pixel, diameter)
    assert box % 2 == 0
    assert box <= image_box
    edge = max(10.0, 3.0 * pixel)
    if box < image_box:
        assert box * pixel >= max(diameter + 2 * edge, 1.1 * diameter) - 1e-6
    wider = particle_box(image_box, pixel, min(1.1 * diameter, image_box * pixel))
    assert wider >= box


@pytest.mark.parametrize(
    ("group", "kept", "registers"),
    [("C4", "C1", 4), ("C4", "C2", 2), ("D2", "C1", 4), ("D3", "C3", 2), ("C4", "C4", 1)],
)
def test_registers_are_cosets(group, kept, registers):
    one = particle(group, kept)
    assert one.n_registers == registers
    assert one.relaxed == (registers > 1)


@pytest.mark.parametrize(
    ("group", "kept"), [("C4", "C1"), ("C4", "C2"), ("D3", "C2"), ("D4", "C2"), ("T", "C3")]
)
def test_half_maps_may_be_turned_by_what_keeps_the_subgroup_in_place(group, kept):
    one = particle(group, kept)
    h = one.subgroup.operators

    def keeps(g):
        turned = g @ h @ g.T
        away = np.abs(turned[:, None] - h[None]).max(axis=(2, 3))
        return bool((away.min(axis=1) < 1e-6).all())

    representatives = one.registers.representatives
    wanted = [one.group.index_of(g) for g in representatives if keeps(g)]
    assert one.normaliser == wanted
    assert 0 in one.normaliser


def test_the_sphere_is_as_wide_as_the_particle_at_any_sampling():
    one = particle()
    for box in (12, 24, 48):
        sphere, pixel = one.sphere(box), one.edge_angstrom / box
        x = (np.arange(box) - box // 2) * pixel
        r = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
        np.testing.assert_allclose(sphere[r <= 25.0 - 1e-6], 1.0, atol=1e-6)
        # It ends inside the box, within its edge.
        assert np.abs(sphere[r >= 36.0]).max() < 1e-6
        assert sphere[(r > 27.0) & (r < 32.0)].min() > 0.0


def test_only_what_is_in_the_mask_tells_registers_apart():
    mask = np.roll(soft_sphere(BOX, 5.0, 2.0), 4, axis=2)
    free, masked = particle(), particle(register_mask=mask)
    map_ = noise()
    np.testing.assert_array_equal(free.region(map_), map_)
    np.testing.assert_allclose(masked.region(map_), map_ * np.clip(mask, 0, 1), atol=1e-5)
    with pytest.raises(ValueError, match="no register mask"):
        free.register_mask_at(BOX)
    sphere = free.sphere(BOX)
    assert np.all(masked.coefficients(sphere)[3:] < 0.5 * free.coefficients(sphere)[3:])


@given(finest=st.one_of(st.none(), st.floats(4.0, 200.0)), shell=st.integers(1, 11))
def test_only_frequencies_up_to_the_limit_tell_registers_apart(finest, shell):
    limit = particle(finest_register_angstrom=finest).register_limit(shell)
    assert 1 <= limit <= shell
    if finest is not None:
        assert limit == 1 or 72.0 / limit >= finest * (1 - 1e-9)
        assert limit == shell or 72.0 / (limit + 1) < finest * (1 + 1e-9)
    else:
        assert limit == shell


def test_parts_add_up_and_all_is_symmetric_where_nothing_is_relaxed():
    map_ = (gaussian_filter(noise(), 1.5) * soft_sphere(BOX, 5.0, 4.0)).astype(np.float32)
    relaxed, plain = particle("C4", "C1"), particle("C4", "C4")
    wanted = isotypic_parts(map_, relaxed.group, relaxed.subgroup)
    for one, other in zip(relaxed.split(map_), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(sum(relaxed.split(map_)), map_, atol=0.01 * map_.max())
    assert np.abs(relaxed.split(map_).asymmetric).max() > 0.1 * np.abs(map_).max()
    np.testing.assert_array_equal(plain.split(map_).symmetric, wanted.symmetric)
    assert not plain.split(map_).asymmetric.any()


def test_symmetry_leaves_fewer_independent_coefficients():
    one, sphere = particle("C4", "C1"), particle().sphere(BOX)
    whole = particle("C1", "C1").symmetric_coefficients(sphere)
    symmetric = one.symmetric_coefficients(sphere)
    np.testing.assert_allclose(4.0 * symmetric, whole, rtol=1e-6)
    # With the rest they are those of a map without symmetry, as many as there are at the least.
    rest = one.coefficients(sphere)
    assert rest[5:].sum() == pytest.approx(0.75 * whole[5:].sum(), rel=0.1)
