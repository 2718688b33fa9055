"""A mask over one of several equivalent sites, brought to all of them."""

import numpy as np
import pytest

from jaxrelax.geometry import point_group
from jaxrelax.reconstruction import rotate_map, soft_sphere
from jaxrelax.reconstruction.site_masks import hides_sites, over_all_sites

N = 32


def ball(centre, radius=4.0, edge=3.0):
    """A soft ball at (x, y, z) from the centre of the box."""
    axis = np.arange(N) - N // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    r = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    t = np.clip((r - radius) / max(edge, 1e-6), 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * t)).astype(np.float32)


SITE = np.array([8.0, 1.0, 3.0])


@pytest.mark.parametrize("name", ["C2", "C3", "C4", "C7", "D3", "D4", "T", "O", "I"])
def test_every_site_has_the_full_strength(name):
    group = point_group(name)
    mask = ball(SITE)
    everywhere = over_all_sites(mask, group)
    wanted = np.max([ball(g @ SITE) for g in group.operators], axis=0)
    # Copies that do not permute the axes are interpolated.
    assert np.abs(everywhere - wanted).max() < 0.13
    assert everywhere.max() <= 1.0
    assert everywhere.min() >= 0.0
    for g in group.operators:
        x, y, z = np.rint(g @ SITE).astype(int) + N // 2
        assert everywhere[z, y, x] > 0.95
    assert hides_sites(mask, everywhere)
    assert not hides_sites(everywhere, over_all_sites(everywhere, group))


def test_what_is_symmetric_passes():
    for name in ("C4", "C7", "I"):
        group = point_group(name)
        for mask in (soft_sphere(N, 9.0, 0.0), soft_sphere(N, 9.0, 4.0), np.ones((N,) * 3, "f4")):
            assert not hides_sites(mask, over_all_sites(mask, group))
    # Drawn on the grid with hard edges, and off the axis by half a voxel.
    group = point_group("C7")
    ring = np.max([ball(g @ SITE + [0.35, 0.35, 0.0], 4.0, 0.0) for g in group.operators], axis=0)
    assert not hides_sites(ring, over_all_sites(ring, group))


def test_a_lobe_over_one_site_is_noticed_beside_a_large_body():
    group = point_group("C4")
    mask = np.maximum(soft_sphere(N, 9.0, 3.0), ball([12.0, 0.0, 0.0], 3.0, 2.0))
    assert hides_sites(mask, over_all_sites(mask, group))
    # Two of four sites are too few, too.
    two = np.maximum(ball(SITE), rotate_map(ball(SITE), group.operators[2]))
    assert hides_sites(two, over_all_sites(two, group))
