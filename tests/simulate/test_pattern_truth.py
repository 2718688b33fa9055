"""Sites occupied at random or by shares: which pattern, in which register, and its map."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.geometry import occupancy_patterns, point_group, right_cosets
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.reconstruction import rotate_map
from jaxrelax.simulate import Simulation, simulate
from jaxrelax.simulate.images import Microscope
from jaxrelax.simulate.occupancy import parse_occupancy
from jaxrelax.simulate.pattern_truth import pattern_truth
from jaxrelax.simulate.sites import operators_of_sites
from jaxrelax.simulate.specimen import load_specimen
from jaxrelax.simulate.truth import draw_truth

SMALL = Simulation(
    n_images=60,
    box=40,
    pixel_size_angstrom=6.0,
    protomer_kda=8.0,
    partner_kda=10.0,
    max_shift_angstrom=0.0,
    pose_error_deg=0.0,
    occupancy="0.5",
)
SHARES = "0000:0.25, 0001:0.1,0101:0.4,1111:0.25"
TOGETHER = "00:0.5,11:0.5"


def column(particles, name):
    return np.array([int(value) for value in particles.column(name)])


def made(config):
    specimen = load_specimen("phantom", config)
    rng = np.random.default_rng([config.seed, 0])
    truth = draw_truth(config, specimen.group, specimen.occupancy, rng)
    found = pattern_truth(specimen, truth)
    assert found is not None
    return specimen, truth, found


def test_shares():
    occupancy = parse_occupancy(SHARES, 4)
    np.testing.assert_allclose(occupancy.probabilities, [0.25, 0.65, 0.25, 0.75])
    drawn = occupancy.draw(20_000, np.random.default_rng(0))
    digits = ["".join("01"[int(x)] for x in row) for row in drawn]
    for part in SHARES.split(","):
        subset, share = part.strip().split(":")
        assert digits.count(subset) / 20_000 == pytest.approx(float(share), abs=0.012)
    assert parse_occupancy("0.5", 4).is_random
    assert not any(parse_occupancy(text, 4).is_random for text in ("one", "all", "1010", "0.0"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("0000:0.5,1111:0.4", "add up to 0.9"),
        ("0000:0.5,111:0.5", "3 digits"),
        ("0000:0.5,11x1:0.5", "'11x1:0.5'"),
        ("0000:0.5,1111", "'1111'"),
        ("0000:1.5,1111:-0.5", "'0000:1.5'"),
        ("0000:half,1111:0.5", "half"),
        (":1.0", "no subset"),
    ],
)
def test_bad_shares(text, match):
    with pytest.raises(InputError, match=match):
        parse_occupancy(text, 4)


@pytest.mark.parametrize(
    ("group", "occupancy"), [("C4", "0.5"), ("C4", SHARES), ("D2", "0.5"), ("C3", "0.3")]
)
def test_a_particle_is_its_representative_at_its_register(group, occupancy):
    """By atoms: what a particle shows is the representative at both of the poses that are told."""
    specimen, truth, found = made(replace(SMALL, n_images=40, group=group, occupancy=occupancy))
    scope = Microscope(specimen, truth, replace(SMALL, n_images=40, group=group), 60.0)
    operators = specimen.group.operators
    seen = set()
    for row in range(40):
        pattern = found.patterns.patterns[found.states[row] - 1]
        mask = specimen.mask(pattern.sites)  # sites of the phantom go by operators
        shown = scope._projection(row)
        r = right_cosets(specimen.group, pattern.stabiliser).representatives[
            found.registers[row] - 1
        ]
        for pose in (
            truth.poses[row] @ operators[found.placements[row]],
            truth.consensus_poses[row] @ r.T,
        ):
            told = specimen.projector.image_fourier(pose, mask)
            assert np.abs(told - shown).max() < 5e-3 * np.abs(shown).max()
        seen.add((found.states[row], found.registers[row]))
    assert len(seen) > 5


def test_files(tmp_path):
    config = replace(SMALL, n_images=300, occupancy=SHARES, junk_fraction=0.1, snr=1.0)
    result = simulate("phantom", tmp_path, config)
    truth = read_particles(result.truth)
    states, junk = column(truth, "rlnClassNumber"), column(truth, "jrxJunk") == 1
    assert np.array_equal(states == 0, junk)
    assert set(states[~junk]) == {1, 2, 4, 6}
    registers = column(truth, "jrxRegister")
    for state, count in ((0, 0), (1, 1), (2, 4), (4, 2), (6, 1)):
        assert registers[states == state].max() == count
    sites = truth.column("jrxOccupiedSites")
    assert sites is not None
    assert {(s, k) for s, k in zip(sites, states, strict=True)} == {
        ("none", 0), ("none", 1), ("3", 2), ("1+3", 4), ("0+1+2+3", 6),
    }  # fmt: skip
    told = result.measured["patterns"]
    assert [each["name"] for each in told] == occupancy_patterns(point_group("C4")).names
    assert [each["n_particles"] for each in told] == np.bincount(states)[1:].tolist()
    assert [path.name for path in result.pattern_maps] == [
        f"truth_map_0{k}.mrc" for k in range(1, 7)
    ]
    assert read_particles(result.particles).column("rlnClassNumber") is None
    # The mean object is the mean of the maps, each turned to where its sites are.
    maps = [read_map(path)[0] for path in result.pattern_maps]
    c4 = point_group("C4").operators
    mean = 0.25 * (maps[0] + maps[5])
    mean = mean + 0.1 * rotate_map(maps[1], c4[3]) + 0.4 * rotate_map(maps[3], c4[1])
    truth_map = read_map(result.truth_map)[0]
    inside = np.s_[1:, 1:, 1:]  # of what a quarter turn keeps in the box
    np.testing.assert_allclose(mean[inside], truth_map[inside], atol=1e-4 * truth_map.max())
    partner = maps[1] - maps[0]
    turned = rotate_map(partner, c4[1])
    np.testing.assert_allclose(
        (maps[2] - maps[1])[inside], turned[inside], atol=1e-4 * partner.max()
    )


def test_what_was_there_before_is_as_it_was(tmp_path):
    """Patterns are told besides; an occupancy without them tells none."""
    random = simulate("phantom", tmp_path / "random", replace(SMALL, n_images=4))
    fixed = simulate("phantom", tmp_path / "fixed", replace(SMALL, n_images=4, occupancy="1010"))
    assert read_particles(random.truth).column("rlnClassNumber") is not None
    assert read_particles(fixed.truth).column("rlnClassNumber") is None
    assert not fixed.pattern_maps
    assert "patterns" not in fixed.measured


def test_groups_without_a_list_of_patterns(tmp_path):
    big = replace(SMALL, n_images=2, group="D7", box=64)
    assert not simulate("phantom", tmp_path, big).pattern_maps
    with pytest.raises(InputError, match="D7 has 14 operators"):
        simulate("phantom", tmp_path, replace(big, occupancy=f"{'0' * 14}:0.5,{'1' * 14}:0.5"))


def test_sites_of_a_model_in_any_order():
    specimen = load_specimen("phantom", replace(SMALL, group="C4"))
    order = np.array([2, 0, 3, 1])  # site k of the model is where operator order[k] is
    place = np.argsort(order)
    sites = np.where(specimen.atoms.sites >= 0, place[specimen.atoms.sites], specimen.atoms.sites)
    atoms = replace(specimen.atoms, sites=sites)
    # The first site is that of the identity: those of the others follow from it.
    table, inverse = specimen.group.multiplication_table, specimen.group.inverse
    expected = table[order, inverse[order[0]]]
    found = operators_of_sites(atoms, 4, specimen.group)
    assert found is not None
    assert found.tolist() == expected.tolist()
    assert operators_of_sites(atoms, 3, specimen.group) is None
    # Not the sites of the group: one has moved.
    moved = atoms.positions_angstrom + 40.0 * (sites == 1)[:, None]
    assert operators_of_sites(replace(atoms, positions_angstrom=moved), 4, specimen.group) is None


def test_shares_for_sites_that_are_no_orbit(tmp_path):
    specimen = load_specimen("phantom", replace(SMALL, group="C2", occupancy=TOGETHER))
    rng = np.random.default_rng(0)
    truth = draw_truth(SMALL, specimen.group, specimen.occupancy, rng)
    with pytest.raises(InputError, match="no patterns to give shares to"):
        pattern_truth(replace(specimen, site_operators=None), truth)
