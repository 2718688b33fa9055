"""Register mates and symmetry operators mean to RELION what they mean to jaxrelax."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import nearest_operator, point_group, read_operators, register_mates
from jaxrelax.imaging import half_spectrum, pack
from jaxrelax.io import ImageReader, read_particles, write_map, write_star
from jaxrelax.reconstruction import rotate_map
from jaxrelax.simulate import Projector, phantom_atoms

from .conftest import BAND, BOX, PIXEL_ANGSTROM, band_correlations

N_VIEWS = 8


def rows_like(particles, rotations):
    """A table of particles without shifts at these poses."""
    table = particles.select(np.resize(np.arange(len(particles)), len(rotations)))
    return table.with_updates(rotations=rotations, origins_angstrom=np.zeros((len(rotations), 2)))


def project(relion, folder, map_, table):
    """RELION's packed projections of a map at the poses of a table that we write."""
    write_map(folder / "map.mrc", map_, PIXEL_ANGSTROM)
    write_star(table, folder / "poses.star")
    relion("relion_project", "--i", "map.mrc", "--ang", "poses.star", "--o", "views", folder=folder)
    views = read_particles(folder / "views.star")
    images = ImageReader(views).read(np.arange(len(views)))
    return pack(jnp.asarray(images), half_spectrum(BOX, BAND))


@pytest.mark.parametrize("name", ["C4", "D2", "T"])
def test_mates_of_a_symmetric_map_are_one_view_to_relion(name, relion, particles, tmp_path):
    group = point_group(name)
    atoms = phantom_atoms(group, protomer_kda=12.0, partner_kda=4.0, seed=1)
    projector = Projector(atoms, BOX, PIXEL_ANGSTROM, bfactor_angstrom2=200.0)
    mates = register_mates(particles.rotations[:N_VIEWS], group.operators)
    table = rows_like(particles, mates.reshape(-1, 3, 3))
    packing = half_spectrum(BOX, BAND)

    def mate_correlations(map_):
        views = np.asarray(project(relion, tmp_path, map_, table)).reshape(N_VIEWS, group.order, -1)
        first = np.repeat(views[:, :1], group.order - 1, axis=1)
        others = views[:, 1:].reshape(-1, packing.n_pixels)
        return band_correlations(first.reshape(others.shape), others, packing)

    assert mate_correlations(projector.map()).min() > 0.999
    # Without the symmetry the same poses are other views: the poses are not all alike.
    lopsided = projector.map(occupancies=np.where(atoms.sites > 0, 0.0, 1.0))
    assert mate_correlations(lopsided).min() < 0.99


@pytest.mark.parametrize(("name", "element"), [("C4", 1), ("D7", 9), ("T", 4), ("I", 7)])
def test_a_rotated_map_at_the_mate_is_the_map_at_the_pose(
    name, element, relion, particles, true_map, tmp_path
):
    operator = point_group(name).operators[element]
    if point_group(name).element_orders[element] > 2:
        assert not np.allclose(operator, operator.T)  # the direction of the rotation counts
    poses = particles.rotations[:N_VIEWS]
    packing = half_spectrum(BOX, BAND)
    still = project(relion, tmp_path, true_map, rows_like(particles, poses))
    turned = rotate_map(true_map, operator)
    moved = project(relion, tmp_path, turned, rows_like(particles, poses @ operator.T))
    assert band_correlations(still, moved, packing).min() > 0.999
    unmoved = project(relion, tmp_path, turned, rows_like(particles, poses))
    assert band_correlations(still, unmoved, packing).min() < 0.99


@pytest.mark.parametrize("name", ["C4", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"])
def test_operators_are_those_relion_prints(name, relion, tmp_path):
    text = relion("relion_refine", "--sym", name, "--print_symmetry_ops", folder=tmp_path)
    (tmp_path / "operators.txt").write_text(text)
    theirs, ours = read_operators(tmp_path / "operators.txt"), point_group(name)
    assert theirs.order == ours.order
    nearest, angle = nearest_operator(theirs.operators, ours.operators)
    assert sorted(nearest) == list(range(ours.order))
    assert angle.max() < 1e-4  # RELION prints five digits or so
