"""Atomic models: read, assemble, centre on the group's axes, and sort into sites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Bool

from jaxrelax.geometry import PointGroup
from jaxrelax.io.errors import InputError
from jaxrelax.simulate.atoms import BODY, DELETED, Atoms, FormFactors
from jaxrelax.simulate.frame import Frame, find_frame
from jaxrelax.simulate.superposition import kinds_of_chains, traces


def read_assembly(path: Path, assembly: str) -> gemmi.Model:
    """The first model of a PDB or mmCIF file as a biological assembly, without waters.

    Chains are named as in the file where the assembly holds each once, and with a number behind
    (``A1``, ``A2``, ...) where it holds copies. Files that define no assembly are taken as they
    are if assembly ``"1"`` is asked for.

    Raises:
        InputError: the file cannot be read, or has no such assembly.
    """
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as an atomic model ({error}).") from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path}: no atoms in this file.")
    structure.setup_entities()
    model = structure[0]
    known = {item.name: item for item in structure.assemblies}
    if assembly and (known or assembly != "1"):
        if assembly not in known:
            raise InputError(
                f"{path}: no biological assembly '{assembly}'; the file has "
                f"{', '.join(known) or 'none'}. Use assembly '' for the coordinates as they are."
            )
        generators = known[assembly].generators
        copies = max(
            (sum(len(g.operators) for g in generators if name in [*g.chains, *g.subchains]))
            for name in {name for g in generators for name in [*g.chains, *g.subchains]}
        )
        names = gemmi.HowToNameCopiedChain
        naming = names.AddNumber if copies > 1 else names.Short
        model = gemmi.make_assembly(known[assembly], model, naming)
    model.remove_waters()
    return model


def model_atoms(
    path: Path,
    group: PointGroup,
    assembly: str = "1",
    delete_chains: Sequence[str] = (),
    partner_chains: Sequence[str] = (),
) -> tuple[Atoms, Frame, Bool[np.ndarray, " atoms"]]:
    """Atoms of a model in the frame of the group.

    Args:
        path: PDB or mmCIF file, may be gzipped.
        group: the symmetry that the whole assembly (or its body) has.
        assembly: name of the biological assembly; ``""`` for the coordinates as they are.
        delete_chains: chains of the assembly that get the site ``DELETED``.
        partner_chains: for each site the chains of the partner there, joined by commas.

    Returns:
        The atoms, the frame (with the rms deviation from the symmetry), and which atoms are the
        partner: kept copies of deleted chains, and the partner's chains at the first site; where
        neither is named, the chains that the group does not repeat.

    Raises:
        InputError: a chain is not there or is named twice; the model lacks the symmetry.
    """
    model = read_assembly(path, assembly)
    site_of = _sites(path, [chain.name for chain in model], delete_chains, partner_chains)
    chains = traces(model)
    if not chains:
        raise InputError(f"{path}: no protein or nucleic acid chain in this model.")
    try:
        frame = find_frame(chains, group)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None

    partners = _partners(model, site_of)
    if not site_of:
        partners = [chain.name for chain in chains if chain.name not in frame.symmetric_chains]
    positions, weights, elements, names_of_chains = [], [], [], []
    for chain in model:
        for residue in chain:
            for atom in residue:
                if atom.occ > 0:
                    positions.append(atom.pos.tolist())
                    weights.append(atom.occ)
                    elements.append(atom.element.name)
                    names_of_chains.append(chain.name)
    names = sorted(set(elements))
    atoms = Atoms(
        positions_angstrom=frame.apply(np.array(positions)),
        weights=np.array(weights, dtype=np.float64),
        kinds=np.array([names.index(name) for name in elements]),
        masses_dalton=np.array([gemmi.Element(name).weight for name in elements])
        * np.array(weights, dtype=np.float64),
        sites=np.array([site_of.get(name, BODY) for name in names_of_chains]),
        form_factors=electron_form_factors(names),
        chains=np.array(names_of_chains),
    )
    return atoms, frame, np.array([name in partners for name in names_of_chains])


def electron_form_factors(elements: Sequence[str]) -> FormFactors:
    """Electron scattering factors of neutral atoms (International Tables C, 4.3.2.2)."""
    coefficients = [gemmi.Element(name).c4322 for name in elements]
    for name, c in zip(elements, coefficients, strict=True):
        if c is None:
            raise InputError(f"no electron scattering factor for element {name}; remove it.")
    # f(s) = Σ a exp(−b s²) with s = sinθ/λ = k/2.
    return FormFactors(
        np.array([list(c.a) for c in coefficients]), np.array([list(c.b) for c in coefficients])
    )


def _sites(
    path: Path, chains: list[str], deleted: Sequence[str], partners: Sequence[str]
) -> dict[str, int]:
    """The site of every chain that is not part of the body."""
    groups = [(DELETED, list(deleted))]
    groups += [(k, [n.strip() for n in site.split(",")]) for k, site in enumerate(partners)]
    site_of: dict[str, int] = {}
    for site, names in groups:
        option = "delete_chains" if site == DELETED else "partner_chains"
        for name in names:
            if name not in chains:
                raise InputError(
                    f"{path}: {option} names chain '{name}', which the assembly does not have. "
                    f"Its chains are {', '.join(dict.fromkeys(chains))}."
                )
            if name in site_of:
                raise InputError(f"{path}: chain '{name}' is deleted or a partner twice.")
            site_of[name] = site
    if len(site_of) == len(set(chains)):
        raise InputError(f"{path}: delete_chains and partner_chains leave nothing of the model.")
    return site_of


def _partners(model: gemmi.Model, site_of: dict[str, int]) -> list[str]:
    """Chains that are still there while copies of them were deleted; partners at site 0."""
    found = [name for name, site in site_of.items() if site == 0]
    for kind in kinds_of_chains(traces(model)):
        names = [chain.name for chain in kind]
        if any(site_of.get(name) == DELETED for name in names):
            found += [name for name in names if site_of.get(name, BODY) == BODY]
    return found
