"""A part that turns about its hinge: its images, what the truth says, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.geometry import euler_to_matrix, matrix_to_rotvec, random_rotations
from jaxrelax.io import InputError, read_map, read_particles
from jaxrelax.simulate import Simulation, simulate
from jaxrelax.simulate.images import Microscope
from jaxrelax.simulate.specimen import load_specimen
from jaxrelax.simulate.swing import draw_swings, find_hinge, part_mask
from jaxrelax.simulate.truth import draw_truth
from tests.simulate.test_models import assembly, write_model

SMALL = Simulation(
    n_images=12,
    box=40,
    pixel_size_angstrom=6.0,
    protomer_kda=8.0,
    partner_kda=10.0,
    max_shift_angstrom=8.0,
    swing_deg=12.0,
)
MAGNIFIED = replace(SMALL, magnification=(1.03, 0.01, 0.02, 0.98))
POSE = ("AngleRot", "AngleTilt", "AnglePsi")
ORIGIN = ("OriginXAngst", "OriginYAngst")


def microscope(config, source="phantom"):
    specimen = load_specimen(source, config)
    rng = np.random.default_rng([config.seed, 0])
    truth = draw_truth(config, specimen.group, specimen.occupancy, rng)
    return Microscope(specimen, truth, config, specimen.radius_angstrom())


def numbers(particles, names):
    return np.array([[float(x) for x in particles.column(name)] for name in names]).T


def direct_sum(scope, positions, coefficients_of, pose, origin):
    """Transform of points at a pose and origin, frequency by frequency in double precision."""
    specimen, config = scope.specimen, scope.config
    n, pixel = config.box, config.pixel_size_angstrom
    kx, ky = np.meshgrid(np.fft.rfftfreq(n), np.fft.fftfreq(n))
    k = np.stack([kx.ravel(), ky.ravel()], axis=1) / pixel
    q = k @ np.array(config.magnification).reshape(2, 2).T
    length = np.linalg.norm(q, axis=1)
    atoms = specimen.atoms.where(coefficients_of)
    blur = np.exp(-0.25 * specimen.projector.bfactor_angstrom2 * length**2)
    factors = atoms.form_factors.at(length)[atoms.kinds] * blur * atoms.weights[:, None]
    waves = np.exp(-2j * np.pi * (positions @ pose[:2].T) @ q.T)
    # The centre is at pixel n // 2; the particle at −origin.
    phase = np.exp(-2j * np.pi * (k * pixel) @ np.full(2, n // 2)) * np.exp(2j * np.pi * k @ origin)
    return ((factors * waves).sum(axis=0) * phase).reshape(kx.shape), np.hypot(kx, ky) < 0.4


@pytest.mark.parametrize("config", [SMALL, MAGNIFIED], ids=["plain", "magnified"])
def test_images_and_the_truth_of_the_part_against_turned_atoms(tmp_path, config):
    scope = microscope(config)
    assert scope.truth.swings is not None
    result = simulate("phantom", tmp_path, config)
    truth = read_particles(result.truth)
    hinge = np.array(result.measured["swing"]["hinge_angstrom"])
    part = scope.specimen.atoms.sites == 0
    body = scope.specimen.atoms.sites == -1
    at_rest = scope.specimen.atoms.positions_angstrom
    part_poses = euler_to_matrix(*numbers(truth, [f"jrxPart{name}" for name in POSE]).T)
    part_origins = numbers(truth, [f"jrxPart{name}" for name in ORIGIN])
    for row in range(3):
        pose, origin = scope.truth.poses[row], scope.truth.origins_angstrom[row]
        swing = scope.truth.swings[row]
        turned = np.array([hinge + swing @ (r - hinge) for r in at_rest[part]])
        rest, band = direct_sum(scope, at_rest[body], body, pose, origin)
        moved, _ = direct_sum(scope, turned, part, pose, origin)
        shown = scope._shifted(row)
        peak = np.abs(rest).max()
        assert np.abs(shown - rest - moved)[band].max() < 2e-3 * peak
        assert np.abs(moved)[band].max() > 0.1 * peak
        # The part where it is on average, at the pose and origin that the table has for it.
        told, _ = direct_sum(scope, at_rest[part], part, part_poses[row], part_origins[row])
        assert np.abs(told - moved)[band].max() < 1e-4 * peak
        rigid, _ = direct_sum(scope, at_rest[part], part, pose, origin)
        assert np.abs(rigid - moved)[band].max() > 0.02 * peak


def test_all_else_is_that_of_the_rigid_particle(tmp_path):
    rigid = simulate("phantom", tmp_path / "rigid", replace(SMALL, swing_deg=0.0))
    moving = simulate("phantom", tmp_path / "moving", SMALL)
    assert rigid.particles.read_bytes() == moving.particles.read_bytes()
    a, b = read_particles(rigid.truth), read_particles(moving.truth)
    assert np.array_equal(a.rotations, b.rotations)
    assert "jrxPartAngleRot" not in rigid.truth.read_text()
    assert not (rigid.folder / "truth_part.mrc").exists()
    assert rigid.truth_part is None
    ratio = moving.measured["grey_scale"] / rigid.measured["grey_scale"]
    for name in ("truth_map.mrc", "reference.mrc"):
        mine, other = (read_map(folder / name)[0] for folder in (moving.folder, rigid.folder))
        assert np.allclose(mine, ratio * other, atol=1e-5 * mine.max())


def test_map_and_mask_of_the_part(tmp_path):
    result = simulate("phantom", tmp_path, SMALL)
    scope = microscope(SMALL)
    atoms, projector = scope.specimen.atoms, scope.specimen.projector
    assert result.truth_part is not None
    assert result.part_mask is not None
    (whole, _), (part, pixel), (mask, _) = (
        read_map(path) for path in (result.truth_map, result.truth_part, result.part_mask)
    )
    body = scope.scale * projector.map((atoms.sites == -1).astype(float))
    assert np.allclose(whole - part, body, atol=1e-5 * whole.max())
    image = scope.scale * projector.image(np.eye(3), atoms.sites == 0)
    assert np.allclose(part.sum(axis=0), image, atol=1e-4 * image.max())
    voxel = np.rint(atoms.positions_angstrom[atoms.sites == 0] / pixel).astype(int) + 20
    assert mask[voxel[:, 2], voxel[:, 1], voxel[:, 0]].min() == 1.0
    axis = (np.arange(40) - 20) * pixel
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)[..., ::-1].reshape(-1, 3)
    positions = atoms.positions_angstrom[atoms.sites == 0]
    away = np.array([np.linalg.norm(positions - point, axis=1).min() for point in grid])
    assert mask.ravel()[away > 6.0 + 12.0 + 6.0].max() == 0.0
    assert 0.0 < mask.mean() < 0.2


def test_mask_goes_by_distance():
    mask = part_mask(np.array([[4.0, 0.0, 0.0]]), 32, 2.0)
    line = mask[16, 16, 18:28]  # of distances 0, 2, 4, … Å
    expected = 0.5 + 0.5 * np.cos(np.pi * np.clip((2.0 * np.arange(10) - 5.0) / 8.0, 0.0, 1.0))
    assert np.allclose(line, expected, atol=1e-6)


def test_swings_have_the_rms_angle_and_no_direction():
    vectors = np.rad2deg(matrix_to_rotvec(draw_swings(20_000, 9.0, np.random.default_rng(2))))
    assert np.sqrt((vectors**2).sum(axis=1).mean()) == pytest.approx(9.0, rel=0.015)
    covariance = vectors.T @ vectors / len(vectors)
    assert np.allclose(covariance, 27.0 * np.eye(3), atol=0.8)
    assert np.abs(vectors.mean(axis=0)).max() < 0.15


def test_hinge_is_where_they_touch():
    axis = np.arange(0.0, 20.0, 2.0)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    rotation = random_rotations(1, np.random.default_rng(0))[0]
    # Two cubes with a gap of 4 Å: two layers of the second one are near enough.
    hinge = find_hinge((grid + np.array([22.0, 0.0, 0.0])) @ rotation.T, grid @ rotation.T)
    assert np.allclose(hinge @ rotation, [20.5, 9.0, 9.0], atol=1e-9)
    # Shifted so that it touches a quarter of the first's face.
    hinge = find_hinge((grid + np.array([22.0, 10.0, 10.0])) @ rotation.T, grid @ rotation.T)
    assert np.allclose(hinge @ rotation, [20.5, 14.0, 14.0], atol=2.0)


def test_hinge_can_be_given(tmp_path):
    given = replace(SMALL, hinge_angstrom=(10.0, -5.0, 30.0))
    result = simulate("phantom", tmp_path, given)
    record = json.loads((result.folder / "simulation.json").read_text())["measured"]["swing"]
    assert record["hinge_angstrom"] == [10.0, -5.0, 30.0]
    found = load_specimen("phantom", SMALL).part
    assert found is not None
    assert np.linalg.norm(found.hinge_angstrom - [10.0, -5.0, 30.0]) > 5.0


def test_symmetric_particles_and_junk_do_not_swing(tmp_path):
    config = replace(SMALL, n_images=20, symmetric_fraction=0.3, junk_fraction=0.2)
    truth = read_particles(simulate("phantom", tmp_path, config).truth)
    rigid = numbers(truth, ["jrxJunk", "jrxSymmetric"]).any(axis=1)
    off = [
        np.abs(
            numbers(truth, [f"jrxPart{n}" for n in names])
            - numbers(truth, [f"rln{n}" for n in names])
        )
        for names in (POSE, ORIGIN)
    ]
    assert rigid.sum() == 10
    for difference in off:
        assert difference[rigid].max() < 1e-5
        assert difference[~rigid].max(axis=1).min() > 0.01


@pytest.mark.parametrize(
    ("partners", "options", "expected"),
    [
        (3, {"delete_chains": ("p1", "p2")}, {"p0"}),
        (1, {}, {"p0"}),
        (3, {"partner_chains": ("p2", "p0", "p1"), "occupancy": "one"}, {"p2"}),
        (3, {"partner_chains": ("p2", "p0", "p1"), "occupancy": "010"}, {"p0"}),
        (3, {"partner_chains": ("p2", "p0", "p1"), "occupancy": "000:0.5,001:0.5"}, {"p1"}),
        (1, {"swing_chains": ("p0", "B")}, {"p0", "B"}),
    ],
)
def test_chains_of_a_model_that_swing(tmp_path, partners, options, expected):
    path = write_model(tmp_path / "model.cif", assembly("C3", partners=partners))
    config = Simulation(group="C3", swing_deg=5.0, **options)
    specimen = load_specimen(path, config)
    assert specimen.part is not None
    assert specimen.atoms.chains is not None
    assert set(specimen.part.chains) == expected
    assert set(specimen.atoms.chains[specimen.part.atoms]) == expected
    assert not set(specimen.atoms.chains[~specimen.part.atoms]) & expected


def test_what_cannot_swing_is_refused(tmp_path):
    path = write_model(tmp_path / "model.cif", assembly("C3", partners=3))
    model = Simulation(n_images=2, group="C3", swing_deg=5.0)
    deleted = {"delete_chains": ("p1", "p2")}
    sites = {"partner_chains": ("p0", "p1", "p2")}
    for options, match in [
        ({}, "every chain is repeated.*swing_chains"),
        ({"swing_chains": ("Z",)}, r"'Z'.*A, B, C, p0"),
        ({**deleted, "swing_chains": ("p1",)}, "'p1', which is deleted"),
        ({**sites, "swing_chains": ("p1",)}, "'p1', which is at an empty site"),
        ({**sites, "occupancy": "all"}, "3 sites can carry.*one"),
        ({**sites, "occupancy": "0.5"}, "3 sites can carry.*one"),
        ({"swing_chains": ("A", "B", "C", "p0", "p1", "p2")}, "nothing is left"),
    ]:
        with pytest.raises(InputError, match=match):
            simulate(path, tmp_path / "out", replace(model, **options))
    for options, match in [
        ({"swing_chains": ("A",)}, "swing_chains.*phantom"),
        ({"occupancy": "1010"}, "2 sites can carry"),
        ({"occupancy": "0000"}, "0 sites can carry"),
        # Small enough for the particle at rest, but not for the partner where it swings to.
        ({"box": 34, "swing_deg": 60.0, "hinge_angstrom": (-60.0, 0.0, 0.0)}, "does not fit"),
    ]:
        with pytest.raises(InputError, match=match):
            simulate("phantom", tmp_path / "out", replace(SMALL, **options))
    assert not (tmp_path / "out").exists()
    for name, value in (("swing_chains", ("A",)), ("hinge_angstrom", (1.0, 2.0, 3.0))):
        with pytest.raises(InputError, match=f"{name}.*swing_deg is 0"):
            replace(SMALL, swing_deg=0.0, **{name: value})
    with pytest.raises(InputError, match=r"swing_deg is 61.*between 0 and 60"):
        replace(SMALL, swing_deg=61.0)
    result = simulate("phantom", tmp_path / "phantom", replace(SMALL, n_images=2))
    on_map = Simulation(n_images=2, box=40, pixel_size_angstrom=6.0, swing_deg=5.0)
    with pytest.raises(InputError, match=r"swing_deg.*parts"):
        simulate(result.truth_map, tmp_path / "out", on_map)
