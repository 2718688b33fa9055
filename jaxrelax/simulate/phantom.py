"""A particle made of nothing: a ring of helix bundles and a partner on one site, from a seed."""

from __future__ import annotations

import gemmi
import numpy as np
from jaxtyping import Float

from jaxrelax.geometry import PointGroup, parse_group, random_rotations
from jaxrelax.simulate.atoms import BODY, Atoms, FormFactors

RESIDUE_DALTON = 110.0
RISE_ANGSTROM = 1.5  # of an α-helix, per residue
TWIST_DEG = 100.0
HELIX_RADIUS_ANGSTROM = 2.3
AXIS_DISTANCE_ANGSTROM = 9.0  # between packed helices
BEAD_SIGMA_ANGSTROM = 1.5
PACKING = 1.25  # radius of a bundle over that of a solid protein of its mass

# The average residue, without hydrogen: C 4.9, N 1.3, O 1.5, S 0.04.
_COMPOSITION = {"C": 4.9, "N": 1.3, "O": 1.5, "S": 0.04}


def phantom_atoms(
    group: PointGroup | str = "C4",
    protomer_kda: float = 30.0,
    partner_kda: float = 45.0,
    seed: int = 0,
) -> Atoms:
    """A symmetric ring (or shell) of protomers, and a partner for each of its sites.

    Every protomer is a bundle of right-handed helices of residue beads (1.5 Å rise, 2.3 Å radius,
    110 Da), so the object is chiral; the bundles are random, so it has no symmetry but the
    group's. Operators act exactly: the atoms of site k are operator k applied to those of site 0.

    Args:
        group: a point group or its name; its axes pass through the origin in RELION's setting.
        protomer_kda: mass of each of the |G| protomers (the symmetric body).
        partner_kda: mass of each of the |G| partners (sites 0 to |G| − 1).
        seed: another seed gives another object.
    """
    rng = np.random.default_rng([seed, 1])
    operators = parse_group(group).operators
    protomer, partner = helix_bundle(protomer_kda, rng), helix_bundle(partner_kda, rng)
    radius, partner_radius = bundle_radius(protomer_kda), bundle_radius(partner_kda)
    body = protomer + _place_protomer(operators, radius, rng)
    centre = body.mean(axis=0)
    outward = _place_partner(operators, centre, radius, partner_radius, rng)
    bound = partner + centre + outward
    n_body, n_partner = len(body), len(bound)
    order = len(operators)
    copies = [np.einsum("gij,nj->gni", operators, part).reshape(-1, 3) for part in (body, bound)]
    sites = np.r_[np.full(order * n_body, BODY), np.repeat(np.arange(order), n_partner)]
    return beads(np.concatenate(copies), sites)


def compact_object(scattering: float, seed: int) -> Atoms:
    """One helix bundle with this total scattering: what junk particles may show."""
    rng = np.random.default_rng([seed, 2])
    bead = float(_bead_form_factor().a.sum())
    return beads(helix_bundle(RESIDUE_DALTON * max(10.0, scattering / bead) / 1000.0, rng))


def beads(positions: Float[np.ndarray, "beads 3"], sites: np.ndarray | None = None) -> Atoms:
    """Residue beads as atoms."""
    n = len(positions)
    return Atoms(
        positions_angstrom=positions,
        weights=np.ones(n),
        kinds=np.zeros(n, np.int64),
        masses_dalton=np.full(n, RESIDUE_DALTON),
        sites=np.full(n, BODY) if sites is None else sites,
        form_factors=_bead_form_factor(),
    )


def bundle_radius(mass_kda: float) -> float:
    """Radius in Å of the sphere that `helix_bundle` fills."""
    # 0.66 Å · (M/Da)^(1/3) is a solid sphere of protein (Erickson, Biol. Proced. Online 2009).
    return PACKING * 0.66 * (1000.0 * mass_kda) ** (1.0 / 3.0)


def helix_bundle(mass_kda: float, rng: np.random.Generator) -> Float[np.ndarray, "beads 3"]:
    """Helices of 12 to 30 residues packed into a sphere about the origin, one bead per residue."""
    remaining = max(4, round(1000.0 * mass_kda / RESIDUE_DALTON))
    radius = bundle_radius(mass_kda)
    axes: list[np.ndarray] = []
    helices: list[np.ndarray] = []
    while remaining > 0:
        length = min(remaining, int(rng.integers(12, 31)), max(4, int(1.6 * radius)))
        if remaining - length < 4:
            length = remaining
        axis_points, helix = _best_helix(length, radius, axes, rng)
        axes.append(axis_points)
        helices.append(helix)
        remaining -= length
    points = np.concatenate(helices)
    return points - points.mean(axis=0)


def _best_helix(
    length: int, radius: float, others: list[np.ndarray], rng: np.random.Generator, tries: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Of some random placements the one that stays in the sphere and off the other helices."""
    steps = np.arange(length)
    along = (steps - 0.5 * (length - 1)) * RISE_ANGSTROM
    turn = np.deg2rad(TWIST_DEG) * steps
    # Right-handed: counter-clockwise as it comes towards the viewer along +z.
    helix = np.stack([np.cos(turn), np.sin(turn), np.zeros(length)], 1) * HELIX_RADIUS_ANGSTROM
    helix[:, 2] = along
    core = np.zeros((length, 3))
    core[:, 2] = along
    rotations = random_rotations(tries, rng)
    centres = rng.standard_normal((tries, 3))
    centres *= (radius * rng.random(tries) ** (1 / 3) / np.linalg.norm(centres, axis=1))[:, None]
    obstacles = np.concatenate(others) if others else np.full((1, 3), 1e6)
    best, best_cost = 0, np.inf
    for i in range(tries):
        moved = core @ rotations[i].T + centres[i]
        outside = max(0.0, float(np.linalg.norm(moved, axis=1).max()) - radius)
        gap = np.linalg.norm(moved[:, None] - obstacles[None], axis=2).min()
        cost = outside + max(0.0, AXIS_DISTANCE_ANGSTROM - float(gap))
        if cost < best_cost:
            best, best_cost = i, cost
    return (
        core @ rotations[best].T + centres[best],
        helix @ rotations[best].T + centres[best],
    )


def _place_protomer(
    operators: Float[np.ndarray, "order 3 3"], radius: float, rng: np.random.Generator
) -> Float[np.ndarray, "3"]:
    """Centre of the first protomer: the orbit is as even as can be, neighbours in touch."""
    if len(operators) == 1:
        return np.array([radius, 0.0, 0.0])
    directions = rng.standard_normal((500, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    if np.allclose(operators[:, 2, 2], 1.0):  # cyclic: the ring lies in the plane
        directions = np.array([[1.0, 0.0, 0.0]])
    gaps = _nearest_mate(operators, directions)
    best = int(np.argmax(gaps))
    return directions[best] * (1.9 * radius / gaps[best])


def _place_partner(
    operators, centre: np.ndarray, radius: float, partner_radius: float, rng: np.random.Generator
) -> Float[np.ndarray, "3"]:
    """From the protomer to its partner: outward and to one side, clear of all the others."""
    radial = centre / np.linalg.norm(centre)
    directions = radial + 0.9 * rng.standard_normal((300, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    directions = directions[directions @ radial > 0.5]
    steps = directions * (0.95 * (radius + partner_radius))
    positions = centre + steps
    protomers = operators[1:] @ centre
    clash = np.zeros(len(positions))
    if len(protomers):
        gaps = np.linalg.norm(positions[:, None] - protomers[None], axis=2).min(axis=1)
        clash += np.maximum(0.0, 0.9 * (radius + partner_radius) - gaps)
        clash += np.maximum(0.0, 1.9 * partner_radius - _nearest_mate(operators, positions))
    return steps[int(np.argmin(clash))]  # the first of the best, so any free one at random


def _nearest_mate(operators, points: np.ndarray) -> np.ndarray:
    moved = np.einsum("gij,nj->ngi", operators[1:], points)
    return np.linalg.norm(moved - points[:, None], axis=2).min(axis=1)


def _bead_form_factor() -> FormFactors:
    """An average residue smeared by a Gaussian of 1.5 Å."""
    total = sum(n * gemmi.Element(name).c4322.calculate_sf(0.0) for name, n in _COMPOSITION.items())
    # exp(−2π²σ²k²) in the form a exp(−b k²/4).
    b = 8.0 * np.pi**2 * BEAD_SIGMA_ANGSTROM**2
    return FormFactors(np.array([[total]]), np.array([[b]]))
