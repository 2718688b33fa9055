"""What is imaged: a phantom, an atomic model or a map, with its sites and its symmetry."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrelax.geometry import NotAGroupError, PointGroup, UnknownGroupError, parse_group
from jaxrelax.io import InputError, read_map
from jaxrelax.simulate.atoms import BODY, DELETED, Atoms, FormFactors, present
from jaxrelax.simulate.config import MAP_ONLY, MODEL_ONLY, PHANTOM_ONLY, Simulation, refuse
from jaxrelax.simulate.models import model_atoms
from jaxrelax.simulate.occupancy import Occupancy, parse_occupancy
from jaxrelax.simulate.phantom import phantom_atoms
from jaxrelax.simulate.projection import Projector
from jaxrelax.simulate.sites import operators_of_sites
from jaxrelax.simulate.swing import SwingingPart, swinging_part

logger = logging.getLogger("jaxrelax")

MAP_SUFFIXES = (".mrc", ".map", ".ccp4")
MODEL_SUFFIXES = (".cif", ".mmcif", ".pdb", ".ent", ".cif.gz", ".pdb.gz", ".ent.gz")
DEFAULT_BFACTOR_ANGSTROM2 = 100.0


@dataclass(frozen=True)
class Specimen:
    """An object on the axes of its group.

    Attributes:
        group: the symmetry that the consensus assumes.
        atoms: all that can be there; ``sites`` says when.
        symmetric: projector of what fully symmetric particles show, if that is another object.
        occupancy: which sites of the object carry a partner.
        projector: makes images of ``atoms``.
        report: measured properties, for ``simulation.json``.
        site_operators: index in the group of the operator that takes the first site to each; None
            where there is not one site for each operator.
        part: what swings, if anything does.
    """

    group: PointGroup
    atoms: Atoms
    occupancy: Occupancy
    projector: Projector
    symmetric: Projector | None = None
    report: dict[str, Any] = field(default_factory=dict)
    site_operators: Int[np.ndarray, " sites"] | None = None
    part: SwingingPart | None = None

    def mask(self, occupied: Bool[np.ndarray, " sites"]) -> Bool[np.ndarray, " atoms"]:
        """The atoms that are there with these sites occupied (never the deleted ones)."""
        return present(self.atoms, occupied)

    def symmetric_fourier(self, pose: Float[np.ndarray, "3 3"]) -> np.ndarray:
        """Image transform of the fully symmetric particle: every atom is there."""
        return (self.symmetric or self.projector).image_fourier(pose)

    def object_mask(self) -> Bool[np.ndarray, " atoms"]:
        """The atoms of a particle with every site occupied that can be."""
        return self.mask(self.occupancy.probabilities > 0)

    def radius_angstrom(self) -> float:
        """Radius of the object; for a map that of the sphere that holds 99 % of its power."""
        atoms = self.atoms.where(self.object_mask())
        if atoms.band_limit == np.inf:
            return atoms.radius_angstrom()
        radii = np.linalg.norm(atoms.positions_angstrom, axis=1)
        order = np.argsort(radii)
        power = np.cumsum(atoms.weights[order] ** 2)
        return float(radii[order][np.searchsorted(power, 0.99 * power[-1])])

    def mean_map(
        self, occupancy: Float[np.ndarray, " sites"], symmetrise: bool
    ) -> Float[np.ndarray, "box box box"]:
        """The object's map with each site weighted by its mean occupancy, maybe symmetrised."""
        carried = np.append(occupancy, [0.0, 1.0])  # indices −2 and −1: DELETED, BODY
        operators = self.group.operators if symmetrise else None
        return self.projector.map(carried[self.atoms.sites], operators)


def load_specimen(source: str | Path, config: Simulation) -> Specimen:
    """Read or make the object.

    Args:
        source: ``"phantom"``, or the path of a map (.mrc, .map, .ccp4) or of an atomic model
            (.cif, .pdb, .ent, maybe gzipped).
        config: the options; those that cannot act on this source are refused.

    Raises:
        InputError: unreadable source, unknown group, or an option that cannot act.
    """
    try:
        group = parse_group(config.group)
    except (UnknownGroupError, NotAGroupError, ValueError) as error:
        raise InputError(f"group: {error}") from None
    if str(source) == "phantom":
        refuse(config, MODEL_ONLY, "the phantom", "there is no model")
        refuse(config, MAP_ONLY, "the phantom", "there is no map")
        specimen = _phantom(config, group)
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{path}: no such file. Give a model, a map, or 'phantom'.")
        refuse(config, PHANTOM_ONLY, str(path), "only the phantom has them")
        name = path.name.lower()
        if name.endswith(MAP_SUFFIXES):
            reason = "a map has neither chains nor sites"
            refuse(config, (*MODEL_ONLY, "occupancy"), str(path), reason)
            refuse(config, ("junk_kind",), str(path), "a map does not tell its mass")
            refuse(config, ("swing_deg",), str(path), "a map does not tell its parts")
            specimen = _map(config, group, path)
        elif name.endswith(MODEL_SUFFIXES):
            refuse(config, MAP_ONLY, str(path), "it is no map")
            specimen = _model(config, group, path)
        else:
            raise InputError(
                f"{path}: neither a map ({', '.join(MAP_SUFFIXES)}) nor an atomic model "
                f"({', '.join(MODEL_SUFFIXES)}) by its name."
            )
    require_room(specimen.atoms.radius_angstrom(), specimen.atoms, config)
    if specimen.atoms.band_limit == np.inf and _always_complete(specimen):
        reason = "no chain is deleted and every site occupied, so all particles are the same"
        refuse(config, ("symmetric_fraction",), str(source), reason)
    return specimen


def _always_complete(specimen: Specimen) -> bool:
    return bool(specimen.mask(specimen.occupancy.probabilities == 1.0).all())


def _projector(atoms: Atoms, config: Simulation, default_bfactor: float) -> Projector:
    bfactor = config.bfactor_angstrom2
    return Projector(
        atoms,
        config.box,
        config.pixel_size_angstrom,
        default_bfactor if bfactor is None else bfactor,
        config.resolution_angstrom,
        magnification=magnification(config),
    )


def magnification(config: Simulation) -> Float[np.ndarray, "2 2"]:
    """The magnification matrix of the images."""
    return np.array(config.magnification, np.float64).reshape(2, 2)


def _phantom(config: Simulation, group: PointGroup) -> Specimen:
    atoms = phantom_atoms(group, config.protomer_kda, config.partner_kda, config.phantom_seed)
    occupancy = parse_occupancy(config.occupancy, group.order)
    report = _masses(atoms, occupancy, atoms.sites == 0)
    projector = _projector(atoms, config, DEFAULT_BFACTOR_ANGSTROM2)
    report = {"source": "phantom", **report}
    operators = np.arange(group.order)
    part = _part(config, atoms, occupancy, atoms.sites == 0)
    return Specimen(group, atoms, occupancy, projector, None, report, operators, part)


def _model(config: Simulation, group: PointGroup, path: Path) -> Specimen:
    n_sites = len(config.partner_chains)
    if not n_sites:
        reason = "no partner_chains say where the sites are"
        refuse(config, ("occupancy",), str(path), reason)
    atoms, frame, partner = model_atoms(
        path, group, config.assembly, config.delete_chains, config.partner_chains
    )
    occupancy = parse_occupancy(config.occupancy, n_sites) if n_sites else Occupancy(np.zeros(0))
    report = {
        "source": str(path),
        "symmetric_rms_angstrom": frame.rms_angstrom,
        "symmetric_chains": list(frame.symmetric_chains),
        **_masses(atoms, occupancy, partner),
    }
    logger.info(
        "%s: %d chains obey %s to %.2f Å rms.",
        path,
        len(frame.symmetric_chains),
        group.name,
        frame.rms_angstrom,
    )
    projector = _projector(atoms, config, DEFAULT_BFACTOR_ANGSTROM2)
    operators = operators_of_sites(atoms, n_sites, group)
    try:
        part = _part(config, atoms, occupancy, partner)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Specimen(group, atoms, occupancy, projector, None, report, operators, part)


def _part(
    config: Simulation,
    atoms: Atoms,
    occupancy: Occupancy,
    partner: Bool[np.ndarray, " atoms"],
) -> SwingingPart | None:
    if config.swing_deg == 0.0:
        return None
    return swinging_part(atoms, occupancy, partner, config.swing_chains, config.hinge_angstrom)


def _map(config: Simulation, group: PointGroup, path: Path) -> Specimen:
    density, pixel_size = read_map(path, config.map_pixel_size_angstrom)
    # Voxels of a band-limited map are point scatterers: inside the Nyquist sphere the transform
    # of the comb is that of the map, so projecting them interpolates nothing.
    atoms = voxels(density, pixel_size, config.pixel_size_angstrom)
    projector = _projector(atoms, config, 0.0)
    symmetric = None
    if config.symmetric_fraction > 0:
        mean = projector.map(operators=group.operators)
        again = voxels(mean, config.pixel_size_angstrom, config.pixel_size_angstrom)
        # The blur is in the symmetrised map already.
        symmetric = Projector(
            again, config.box, config.pixel_size_angstrom, magnification=magnification(config)
        )
    report = {"source": str(path), "source_pixel_size_angstrom": pixel_size}
    return Specimen(group, atoms, Occupancy(np.zeros(0)), projector, symmetric, report)


def voxels(
    density: Float[np.ndarray, "z y x"], pixel_size_angstrom: float, output_pixel_angstrom: float
) -> Atoms:
    """The voxels of a map, within the sphere that fits its box, as scattering points.

    Args:
        density: the map, its centre at voxel ``N // 2``.
        pixel_size_angstrom: of the map.
        output_pixel_angstrom: of what will be made of it; keeps the grey scale (a density).
    """
    n = density.shape[0]
    axis = np.arange(n) - n // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    inside = (x**2 + y**2 + z**2 < (n // 2 - 1) ** 2) & (density != 0)
    indices = np.argwhere(inside)
    values = density[inside].astype(np.float64)
    if len(values) == 0:
        raise InputError("the map is zero everywhere inside its box.")
    count = len(values)
    return Atoms(
        positions_angstrom=(indices[:, ::-1] - n // 2) * pixel_size_angstrom,
        weights=values * (pixel_size_angstrom / output_pixel_angstrom) ** 3,
        kinds=np.zeros(count, np.int64),
        masses_dalton=np.zeros(count),
        sites=np.full(count, BODY),
        form_factors=FormFactors(np.ones((1, 1)), np.zeros((1, 1))),
        band_limit=0.5 / pixel_size_angstrom,
    )


def _masses(atoms: Atoms, occupancy: Occupancy, partner: Bool[np.ndarray, " atoms"]) -> dict:
    """Masses in kDa, and the partner's share of the scattering of body and one partner."""
    kept = atoms.sites != DELETED
    if len(occupancy.probabilities):
        kept = (atoms.sites == BODY) | partner
    scattering = atoms.scattering()
    return {
        "mass_kda": atoms.where(kept).mass_kda(),
        "partner_kda": atoms.where(partner).mass_kda(),
        "partner_scattering_fraction": float(scattering[partner].sum() / scattering[kept].sum()),
    }


def require_room(radius_angstrom: float, atoms: Atoms, config: Simulation) -> None:
    """Raise if what reaches so far does not fit the box.

    Raises:
        InputError: says how large the box must be.
    """
    reach = radius_angstrom + config.max_shift_angstrom
    if atoms.band_limit < np.inf:  # the corners of a map's sphere may be empty; that is its box
        reach = radius_angstrom
    half = 0.5 * config.box * config.pixel_size_angstrom
    if reach > half:
        needed = 2 * int(np.ceil(reach / config.pixel_size_angstrom)) + 2
        raise InputError(
            f"the particle does not fit: it reaches {reach:.0f} Å from the centre (shift "
            f"included), half the box is {half:.0f} Å. Use box {needed} or larger pixels."
        )
