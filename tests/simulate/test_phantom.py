"""The phantom: exact symmetry, the right masses, chirality, one seed one object."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from jaxrelax.geometry import point_group, random_rotations
from jaxrelax.simulate.atoms import BODY
from jaxrelax.simulate.phantom import compact_object, phantom_atoms


@pytest.mark.parametrize("group", ["C1", "C4", "C7", "D3", "T", "O", "I"])
def test_invariant_under_its_group(group):
    atoms = phantom_atoms(group, 5.0, 4.0)
    tree = cKDTree(atoms.positions_angstrom)
    for g in point_group(group).operators:
        distance, index = tree.query(atoms.positions_angstrom @ g.T)
        assert distance.max() < 1e-9
        assert len(np.unique(index)) == len(atoms)
        # The body stays body; partners go from site to site.
        assert np.array_equal(atoms.sites[index] == BODY, atoms.sites == BODY)


def test_site_k_is_operator_k_applied_to_site_0():
    atoms, group = phantom_atoms("D2", 5.0, 4.0), point_group("D2")
    first = atoms.positions_angstrom[atoms.sites == 0]
    for k, g in enumerate(group.operators):
        assert np.allclose(atoms.positions_angstrom[atoms.sites == k], first @ g.T)


def test_not_more_symmetric_than_its_group():
    atoms = phantom_atoms("C4", 10.0, 10.0)
    body = atoms.positions_angstrom[atoms.sites == BODY]
    tree = cKDTree(body)
    eighth = point_group("C8").operators[1]
    two_fold_on_x = np.diag([1.0, -1.0, -1.0])
    mirror = np.diag([1.0, 1.0, -1.0])
    for other in (eighth, two_fold_on_x, mirror, *random_rotations(3, np.random.default_rng(0))):
        assert np.median(tree.query(body @ other.T)[0]) > 1.5


def test_helices_are_right_handed():
    beads = compact_object(4000.0, seed=3).positions_angstrom
    steps = np.diff(beads, axis=0)
    triple = np.einsum("ni,ni->n", np.cross(steps[:-2], steps[1:-1]), steps[2:])
    inside = np.linalg.norm(steps, axis=1) < 4.5
    within = inside[:-2] & inside[1:-1] & inside[2:]
    assert within.sum() > 20
    assert np.mean(triple[within] > 0) > 0.95


def test_masses_are_as_asked():
    atoms = phantom_atoms("C3", 20.0, 35.0)
    assert atoms.where(atoms.sites == BODY).mass_kda() == pytest.approx(60.0, rel=0.01)
    for site in range(3):
        assert atoms.where(atoms.sites == site).mass_kda() == pytest.approx(35.0, rel=0.01)


def test_partner_touches_but_does_not_overlap():
    atoms = phantom_atoms("C4")
    one = atoms.positions_angstrom[atoms.sites == 0]
    body = cKDTree(atoms.positions_angstrom[atoms.sites == BODY])
    distance = body.query(one)[0]
    assert distance.min() < 15.0
    assert np.mean(distance < 4.0) < 0.1


def test_seed():
    a, b, c = (phantom_atoms("C2", 5.0, 5.0, seed) for seed in (0, 0, 1))
    assert np.array_equal(a.positions_angstrom, b.positions_angstrom)
    assert not np.allclose(a.positions_angstrom, c.positions_angstrom)
