"""States that are occupancy patterns: what is asked for, where they start, and where they end."""

import dataclasses
import json

import numpy as np
import pytest

from jaxrelax.assessment import save
from jaxrelax.assessment.saving import pattern_populations
from jaxrelax.assessment.state_warnings import state_doubt, state_warnings
from jaxrelax.geometry import occupancy_patterns, point_group
from jaxrelax.io import InputError, OutputFolder, read_particles
from jaxrelax.reconstruction import (
    IsotypicParts,
    Particle,
    SharedAndOwn,
    TiedPatterns,
    of_patterns,
    pattern_parts,
    rotate_map,
    symmetrise,
)
from jaxrelax.refinement import (
    Classification,
    MaxIterations,
    OccupancyPatterns,
    Registers,
    Relax,
    prepare,
    refine,
)
from jaxrelax.refinement.state_starts import by_patterns, fullest_site, in_first_frame
from jaxrelax.simulate import Simulation, simulate

from ..reconstruction.blobs import sampled

GROUP, BOX = point_group("C4"), 32
PATTERNS = occupancy_patterns(GROUP)
PARTICLE = Particle(GROUP, point_group("C1"), BOX, 4.0, 110.0)


def test_states_are_the_patterns_with_their_stabilisers():
    mode = OccupancyPatterns("C4")
    assert isinstance(mode, Classification)
    assert mode.states == ("none", "one", "two adjacent", "two opposite", "three", "four")
    assert [kept.name for _, kept in mode.groups()] == ["C4", "C1", "C1", "C2", "C1", "C4"]
    assert mode.starts_from() == "occupancy"
    relax, symmetry = mode.consensus(None)
    assert relax is not None
    assert (relax.group, relax.to, symmetry) == ("C4", "C1", "C4")
    given = Relax("C4", junk=False)
    assert mode.consensus(given)[0] == given


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="one site"):
        OccupancyPatterns("C1")
    with pytest.raises(ValueError, match="at most 12"):
        OccupancyPatterns("O")
    with pytest.raises(ValueError, match="poses are"):
        OccupancyPatterns("C4", poses="everywhere")
    with pytest.raises(InputError, match="relaxing C2"):
        OccupancyPatterns("C4").consensus(Relax("C2"))
    with pytest.raises(InputError, match="relax to C1"):
        OccupancyPatterns("C4").consensus(Relax("C4", to="C2"))


def mixture(occupancies):
    """Body and partner, and a relaxed map of their mixture with so much on each site."""
    ring = np.array([[3.0, 0.0, 0.0], [2.0, 2.0, 1.0]])
    ring = np.concatenate([ring @ g.T for g in GROUP.operators])
    body = sampled(ring, np.ones(len(ring)), BOX)
    partner = sampled(np.array([[9.0, 2.0, 3.0]]), np.ones(1), BOX)
    turned = [rotate_map(partner, g) for g in GROUP.operators]
    map_ = body + sum(o * one for o, one in zip(occupancies, turned, strict=True))
    return body, partner, PARTICLE.split(map_.astype(np.float32))


@pytest.mark.parametrize(
    ("occupancies", "error"), [((1.0, 0.0, 0.0, 0.0), 0.05), ((1.0, 0.6, 0.5, 0.3), 0.05)]
)
def test_patterns_start_from_the_partner_of_the_fullest_site(occupancies, error):
    body, partner, consensus = mixture(occupancies)
    found = by_patterns(
        consensus, PARTICLE, of_patterns(PARTICLE, PATTERNS), fullest_site([consensus], GROUP)
    )
    mean = body + np.float32(np.sum(occupancies)) * symmetrise(partner, GROUP)
    occupancy = float(np.mean(occupancies))
    true = pattern_parts(mean, partner, occupancy, PATTERNS.patterns, GROUP)
    for one, other in zip(found, true, strict=True):
        apart = one.symmetric + one.asymmetric - other.symmetric - other.asymmetric
        assert np.linalg.norm(apart) < error * 2.0 * np.linalg.norm(partner)


def test_half_sets_start_at_one_site_where_two_are_as_full():
    """Which of them is the fuller of a half-set is left to noise."""
    rng = np.random.default_rng(0)
    _, partner, consensus = mixture((0.9, 0.2, 0.9, 0.2))
    noise = [0.01 * rng.standard_normal(partner.shape).astype(np.float32) for _ in range(2)]
    maps = [IsotypicParts(consensus.symmetric, consensus.asymmetric + one) for one in noise]
    # The second half-set in another frame.
    away = rotate_map(maps[1].asymmetric, GROUP.operators[1].T)
    maps = in_first_frame([maps[0], IsotypicParts(maps[1].symmetric, away)], PARTICLE, 1)
    np.testing.assert_allclose(maps[1].asymmetric, consensus.asymmetric + noise[1], atol=1e-6)
    site = fullest_site(maps, GROUP)
    held = [float(np.sum(rotate_map(partner, g) * site) / partner.sum()) for g in GROUP.operators]
    assert max(held) > 0.98
    assert sorted(held)[-2] < 0.02
    # Sites tile the box; the axis belongs to all of them.
    turned = np.sum([rotate_map(site.astype(np.float32), g) for g in GROUP.operators], axis=0)
    assert np.mean(turned[1:, 1:, 1:] == 1.0) > 0.9
    particles = of_patterns(PARTICLE, PATTERNS)
    first, second = (by_patterns(one, PARTICLE, particles, site)[1] for one in maps)
    cosine = np.vdot(first.asymmetric, second.asymmetric) / np.linalg.norm(first.asymmetric)
    assert cosine > 0.9 * np.linalg.norm(second.asymmetric)


@pytest.fixture(scope="module")
def three_patterns(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three_patterns")
    simulate(
        "phantom", folder,
        Simulation(
            n_images=360, box=36, pixel_size_angstrom=7.0, group="C4", protomer_kda=20.0,
            partner_kda=40.0, snr=0.3, occupancy="1000:0.4,1100:0.35,1010:0.25",
            pose_error_deg=0.0, shift_error_angstrom=0.0, max_shift_angstrom=5.0, seed=3,
        ),
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_maps_are_tied_unless_it_is_said(three_patterns, tied):
    setup = prepare(
        three_patterns / "particles.star", three_patterns / "reference.mrc",
        mode=OccupancyPatterns("C4", poses=Registers(), tied=tied),
    )  # fmt: skip
    problem = setup.following[0].make(setup.problem.data.particles)
    assert isinstance(problem.plan.prior, TiedPatterns if tied else SharedAndOwn)
    assert len(problem.of_maps) == 6
    assert problem.plan.table.n_places == PATTERNS.multiplicity.sum()
    names = [one.name for one in problem.of_maps]
    assert names == PATTERNS.names


@pytest.mark.slow
def test_populations_of_patterns_are_found(three_patterns, tmp_path):
    result = refine(
        three_patterns / "particles.star", three_patterns / "reference.mrc",
        mode=OccupancyPatterns("C4", poses=Registers()), until=MaxIterations(11),
    )  # fmt: skip
    truth = read_particles(three_patterns / "truth.star").column("rlnClassNumber")
    assert truth is not None
    states = np.array([int(one) for one in truth]) - 1
    shares = np.bincount(states, minlength=6) / len(states)
    assert [one.name for one in result.states] == PATTERNS.names
    assert [one.kept for one in result.states] == ["C4", "C1", "C1", "C2", "C1", "C4"]
    accuracy = np.mean(result.state_posterior.argmax(axis=1) == states)
    assert accuracy > 0.95
    found = pattern_populations(result)
    # Errors of these very images: those that are not told apart.
    np.testing.assert_allclose(found.populations, shares, atol=0.03)
    assert found.test.p_value < 1e-10
    assert abs(found.occupancy - PATTERNS.mean_occupancy(shares)) < 0.02
    # That a pattern is empty, or has the mean mass, is nothing to warn of.
    assert not [one for one in state_warnings(result) if "fewer" in one or "partner" in one]
    assert state_doubt(result) == ""
    folder = OutputFolder.create(tmp_path / "out")
    save(result, folder)
    written = json.loads((folder / "populations.json").read_text())
    assert [one["name"] for one in written["patterns"]] == PATTERNS.names
    assert written["occupancy"] == found.occupancy
    assert folder / "populations.json" in folder.results()
    with pytest.raises(ValueError, match="no occupancy patterns"):
        pattern_populations(dataclasses.replace(result, patterns=None))
