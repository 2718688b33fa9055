"""Atomic models: axes found wherever they are, chains deleted and sorted into sites."""

import gemmi
import numpy as np
import pytest

from jaxrelax.geometry import point_group, rotvec_to_matrix
from jaxrelax.io import InputError, read_map
from jaxrelax.simulate import Simulation, simulate
from jaxrelax.simulate.atoms import BODY, DELETED
from jaxrelax.simulate.models import model_atoms
from jaxrelax.simulate.phantom import helix_bundle

RNG = np.random.default_rng(5)
CHAIN = helix_bundle(4.0, RNG) + np.array([28.0, 4.0, 6.0])
PARTNER = helix_bundle(3.0, RNG) + np.array([55.0, 2.0, 25.0])
TURN = rotvec_to_matrix(np.array([0.3, -1.1, 0.7]))
CENTRE = np.array([17.0, -40.0, 88.0])


def write_model(path, parts):
    """Cα-only chains at the given positions, anywhere but on the axes."""
    model = gemmi.Model(1)
    for name, residue_name, positions in parts:
        chain = gemmi.Chain(name)
        for i, xyz in enumerate(positions @ TURN.T + CENTRE):
            residue = gemmi.Residue()
            residue.name, residue.seqid = residue_name, gemmi.SeqId(i + 1, " ")
            atom = gemmi.Atom()
            atom.name, atom.element, atom.occ = "CA", gemmi.Element("C"), 1.0
            atom.pos = gemmi.Position(*xyz)
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure = gemmi.Structure()
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))
    return path


def assembly(group, partners=0):
    names = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    operators = point_group(group).operators
    parts = [(names[i], "ALA", CHAIN @ g.T) for i, g in enumerate(operators)]
    parts += [(f"p{i}", "GLY", PARTNER @ g.T) for i, g in enumerate(operators[:partners])]
    return parts


@pytest.mark.parametrize("group", ["C1", "C2", "C5", "D2", "D3", "T", "O"])
def test_axes_are_found_wherever_they_are(tmp_path, group):
    path = write_model(tmp_path / "model.cif", assembly(group))
    atoms, frame, partner = model_atoms(path, point_group(group))
    assert frame.rms_angstrom < 0.01
    assert not partner.any()
    points = atoms.positions_angstrom
    for g in point_group(group).operators:
        gaps = np.linalg.norm((points @ g.T)[:, None] - points[None], axis=2).min(axis=1)
        assert gaps.max() < 0.02


def test_model_on_its_axes_is_not_turned(tmp_path):
    path = tmp_path / "model.cif"
    parts = [(n, r, (x - CENTRE) @ TURN) for n, r, x in assembly("D3")]
    atoms, frame, _ = model_atoms(write_model(path, parts), point_group("D3"))
    assert np.allclose(frame.rotation, np.eye(3), atol=1e-3)
    assert np.allclose(frame.centre, 0.0, atol=0.01)
    assert len(atoms) == 6 * len(CHAIN)


def test_lone_partner_neither_moves_the_axes_nor_counts(tmp_path):
    path = write_model(tmp_path / "model.cif", assembly("C4", partners=1))
    _, frame, _ = model_atoms(path, point_group("C4"))
    assert set(frame.symmetric_chains) == {"A", "B", "C", "D"}
    assert frame.rms_angstrom < 0.01
    axis = TURN @ np.array([0.0, 0.0, 1.0])
    off_axis = (frame.centre - CENTRE) - axis * ((frame.centre - CENTRE) @ axis)
    assert np.linalg.norm(off_axis) < 0.01


def test_pseudo_symmetry_is_reported(tmp_path, caplog):
    parts = assembly("C3")
    bent = parts[1][2].copy()
    bent[: len(bent) // 3] += 6.0
    parts[1] = (*parts[1][:2], bent)
    path = write_model(tmp_path / "model.cif", parts)
    _, frame, _ = model_atoms(path, point_group("C3"))
    assert 1.0 < frame.rms_angstrom < 8.0
    assert "pseudo-symmetric" in caplog.text


def test_deleted_and_partner_chains(tmp_path):
    path = write_model(tmp_path / "model.cif", assembly("C3", partners=3))
    atoms, _, partner = model_atoms(path, point_group("C3"), delete_chains=("p1", "p2"))
    n = len(PARTNER)
    assert np.sum(atoms.sites == DELETED) == 2 * n
    assert np.sum(partner) == n
    assert np.all(atoms.sites[partner] == BODY)
    atoms, _, partner = model_atoms(path, point_group("C3"), partner_chains=("p2", "p0", "p1"))
    assert [np.sum(atoms.sites == k) for k in range(3)] == [n, n, n]
    assert np.array_equal(partner, atoms.sites == 0)


def test_partner_sites_of_a_data_set(tmp_path):
    path = write_model(tmp_path / "model.cif", assembly("C2", partners=2))
    config = Simulation(
        n_images=4, box=64, pixel_size_angstrom=3.0, group="C2", partner_chains=("p0", "p1")
    )
    one = simulate(path, tmp_path / "one", config)
    both = simulate(path, tmp_path / "both", Simulation(**{**vars(config), "occupancy": "11"}))
    assert one.measured["asymmetric_power_fraction"] > 0.02
    assert both.measured["asymmetric_power_fraction"] < 1e-4
    assert one.measured["symmetric_rms_angstrom"] < 0.01


def test_errors_say_what_is_wrong(tmp_path):
    path = write_model(tmp_path / "model.cif", assembly("C3", partners=1))
    c3 = point_group("C3")
    with pytest.raises(InputError, match="symmetry C4"):
        model_atoms(path, point_group("C4"))
    with pytest.raises(InputError, match=r"'Z'.*A, B, C, p0"):
        model_atoms(path, c3, delete_chains=("Z",))
    with pytest.raises(InputError, match="twice"):
        model_atoms(path, c3, delete_chains=("p0",), partner_chains=("p0",))
    with pytest.raises(InputError, match="nothing"):
        model_atoms(path, c3, delete_chains=("A", "B", "C", "p0"))
    with pytest.raises(InputError, match="assembly '7'"):
        model_atoms(path, c3, assembly="7")
    (tmp_path / "empty.pdb").write_text("END\n")
    with pytest.raises(InputError, match="no atoms"):
        model_atoms(tmp_path / "empty.pdb", c3)
    (tmp_path / "bad.cif").write_text("this is not a model")
    with pytest.raises(InputError, match="cannot be read"):
        model_atoms(tmp_path / "bad.cif", c3)
    config = Simulation(n_images=2, group="C3", occupancy="all")
    with pytest.raises(InputError, match="occupancy"):
        simulate(path, tmp_path / "out", config)


OTHER_FABS = ("H2", "L2", "H3", "L3", "H4", "L4")


def test_neuraminidase_with_one_fab(shared_data, tmp_path):
    path = shared_data / "models" / "6q20.cif.gz"
    atoms, frame, partner = model_atoms(path, point_group("C4"), delete_chains=OTHER_FABS)
    assert frame.rms_angstrom < 0.5
    scattering = atoms.scattering()
    fraction = scattering[partner].sum() / scattering[atoms.sites != DELETED].sum()
    # 21.8 % without the glycans, which are kept here.
    assert fraction == pytest.approx(0.218, abs=0.01)
    config = Simulation(n_images=8, delete_chains=OTHER_FABS, symmetric_fraction=0.25)
    result = simulate(path, tmp_path, config)
    reference, _ = read_map(result.reference)
    inner = reference[:, 1:, 1:]
    assert np.abs(np.rot90(inner, axes=(1, 2)) - inner).max() < 1e-4 * inner.max()
    assert result.measured["partner_kda"] == pytest.approx(45.0, abs=3.0)
    assert result.measured["n_symmetric"] == 2


def test_groel_is_d7(shared_data):
    path = shared_data / "models" / "1mnf.pdb.gz"
    _, frame, _ = model_atoms(path, point_group("D7"), assembly="")
    assert frame.rms_angstrom < 0.5
    assert len(frame.symmetric_chains) == 28


def test_groel_groes_is_pseudo_d7(shared_data, caplog):
    """The rings differ in conformation, and the cap is on one end: still the axes are found."""
    path = shared_data / "models" / "1aon.pdb.gz"
    _, c7, _ = model_atoms(path, point_group("C7"))
    assert c7.rms_angstrom < 0.5
    assert not caplog.text
    _, d7, _ = model_atoms(path, point_group("D7"))
    assert 5.0 < d7.rms_angstrom < 15.0
    assert len(d7.symmetric_chains) == 14
    assert abs((c7.rotation @ d7.rotation.T)[2, 2]) > 0.999
    assert "pseudo-symmetric" in caplog.text
