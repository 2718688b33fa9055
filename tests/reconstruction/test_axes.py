"""Where a map's symmetry axes are: found when they are off, left alone when they are not."""

import numpy as np
import pytest

from jaxrelax.geometry import point_group, rotation_angle, rotvec_to_matrix
from jaxrelax.io import InputError, read_map, write_map
from jaxrelax.reconstruction import align_axes, misaligned_axes, moved, symmetry_correlation
from jaxrelax.reconstruction.axes import _Copy
from jaxrelax.refinement import Registers, Relax, prepare
from jaxrelax.simulate import Simulation, simulate

from .blobs import blobs, gaussians, sampled

N = 40
# One partner, well off the axes: as heavy as one protomer.
PARTNER = np.array([11.0, 3.0, 4.0]) + gaussians(seed=8, reach=3.0)[0]


def assembly(name, rotation=None, centre=(0.0, 0.0, 0.0), partner=False):
    """A symmetric map, alone or with a partner, that x → rotation (x − centre) would align."""
    group = point_group(name)
    centres, weights = gaussians(reach=9.0)
    points = np.concatenate([centres @ g.T for g in group.operators])
    weights = np.tile(weights, group.order)
    if partner:
        points = np.concatenate([points, PARTNER])
        weights = np.concatenate([weights, np.ones(len(PARTNER))])
    rotation = np.eye(3) if rotation is None else rotation
    return sampled(points @ rotation + np.asarray(centre), weights, N)


def tilt(degrees, axis=(0.6, 0.8, 0.0)):
    return rotvec_to_matrix(np.deg2rad(degrees) * np.array(axis))


def axis_error_deg(found, rotation, group):
    """Smallest angle between what was found and a rotation that aligns, up to the group."""
    return np.rad2deg(min(rotation_angle(found @ rotation.T @ g) for g in group.operators))


@pytest.mark.parametrize("name", ["C4", "C3", "D2", "O"])
def test_only_a_symmetric_map_correlates_perfectly_with_its_symmetrised_self(name):
    group = point_group(name)
    assert symmetry_correlation(assembly(name), group) == pytest.approx(1.0, abs=1e-4)
    assert symmetry_correlation(assembly(name, tilt(10)), group) < 0.99
    assert symmetry_correlation(blobs(N), group) < 0.95


@pytest.mark.parametrize("name", ["C3", "C4", "D2"])
def test_the_gradient_is_that_of_the_correlation(name):
    copy = _Copy(assembly(name, tilt(9), (1.0, -2.0, 0.5)), point_group(name))
    x = np.random.default_rng(0).standard_normal(2 * len(copy.directions))
    steps = 0.02 * np.eye(len(x))
    expected = [(copy.loss(x + h)[0] - copy.loss(x - h)[0]) / 0.04 for h in steps]
    np.testing.assert_allclose(copy.loss(x)[1], expected, atol=2e-4 * np.abs(expected).max() + 2e-5)


@pytest.mark.parametrize("partner", [False, True])
@pytest.mark.parametrize(("degrees", "centre"), [(8, (1.2, -1.6, 0.5)), (15, (-2.0, 1.5, 1.5))])
def test_a_tilted_and_shifted_axis_of_c4_is_found(degrees, centre, partner):
    rotation, group = tilt(degrees), point_group("C4")
    # Near enough to need no look at all orientations, which a partner gives cause for.
    map_ = assembly("C4", rotation, centre, partner)
    found = align_axes(map_, group, everywhere=not partner)
    # Only the line of the axis counts: its direction, and its distance from where it should be.
    # The best axis for a partner's orbit is not quite that of the rest.
    direction, true = found.rotation.T[:, 2], rotation.T[:, 2]
    assert np.rad2deg(np.arccos(direction @ true)) < (2.0 if partner else 0.5)
    off = found.centre_px - np.array(centre)
    assert np.linalg.norm(off - (off @ true) * true) < (0.5 if partner else 0.3)
    # Turning about the axis and moving along it are left out.
    assert abs((found.rotation @ found.centre_px)[2]) < 1e-6
    assert found.angle_deg == pytest.approx(degrees, abs=2.0 if partner else 0.5)
    assert found.shift_px == pytest.approx(np.linalg.norm(found.centre_px))
    assert found.correlation < 0.93
    assert partner or found.aligned_correlation > 0.999


@pytest.mark.parametrize(("degrees", "centre"), [(8, (1.2, -1.6, 0.5)), (15, (-2.0, 1.5, 1.5))])
def test_tilted_and_shifted_axes_of_d2_are_found(degrees, centre):
    rotation, group = tilt(degrees, (0.36, 0.48, 0.8)), point_group("D2")
    found = align_axes(assembly("D2", rotation, centre), group)
    assert axis_error_deg(found.rotation, rotation, group) < 0.5
    np.testing.assert_allclose(found.centre_px, centre, atol=0.3)
    assert found.angle_deg == pytest.approx(degrees, abs=0.5)
    assert found.aligned_correlation > 0.999


def test_the_motion_found_aligns_the_map():
    group = point_group("C4")
    map_ = assembly("C4", tilt(12), (2.0, -1.0, 0.0))
    found = align_axes(map_, group)
    aligned = moved(map_, found.rotation, found.centre_px)
    assert symmetry_correlation(aligned, group) > 0.999
    again = align_axes(aligned, group)
    assert again.angle_deg < 0.1
    assert again.shift_px < 0.05


def test_a_finer_box_is_used_when_asked_for():
    map_, group = assembly("C4", tilt(5)), point_group("C4")
    coarse, fine = align_axes(map_, group, 24), align_axes(map_, group)
    assert coarse.correlation != fine.correlation
    assert coarse.angle_deg == pytest.approx(fine.angle_deg, abs=0.5)


def test_c1_has_no_axes():
    with pytest.raises(ValueError, match="C1"):
        align_axes(blobs(N), point_group("C1"))


@pytest.mark.parametrize("name", ["C4", "D2"])
@pytest.mark.parametrize("partner", [False, True])
def test_axes_in_place_are_left_alone(name, partner):
    assert misaligned_axes(assembly(name, partner=partner), point_group(name)) is None


@pytest.mark.parametrize("name", ["C4", "D2"])
@pytest.mark.parametrize("partner", [False, True])
def test_axes_out_of_place_are_noticed(name, partner):
    group = point_group(name)
    tilted = misaligned_axes(assembly(name, tilt(10), partner=partner), group)
    assert tilted is not None
    assert tilted.angle_deg == pytest.approx(10, abs=2.0)
    shifted = misaligned_axes(assembly(name, centre=(0.6, 0.8, 0.0), partner=partner), group)
    assert shifted is not None
    assert shifted.shift_px == pytest.approx(1.0, abs=0.3)
    assert shifted.explained_fraction > (0.15 if partner else 0.99)


def test_noise_has_no_axes_to_align():
    noise = np.random.default_rng(2).standard_normal((24, 24, 24)).astype(np.float32)
    assert misaligned_axes(noise, point_group("C4")) is None


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Few images: axes are looked at before any of them is used."""
    config = Simulation(
        n_images=60, box=48, pixel_size_angstrom=6.0, group="C4", protomer_kda=30.0,
        partner_kda=45.0, seed=3,
    )  # fmt: skip
    return simulate("phantom", tmp_path_factory.mktemp("small"), config)


def test_a_refinement_refuses_a_reference_off_its_axes(small, tmp_path):
    map_, pixel = read_map(small.truth_map)
    write_map(tmp_path / "off.mrc", moved(map_, tilt(9).T, np.array([1.5, 0, 0])), pixel)
    with pytest.raises(InputError, match=r"C4 are off by \d+\.\d° and \d\.\d px.*jaxrelax align"):
        prepare(small.particles, tmp_path / "off.mrc", relax=Relax("C4"), mode=Registers())


@pytest.mark.parametrize("map_", ["reference", "truth_map"])
def test_a_refinement_takes_a_reference_on_its_axes(small, map_):
    prepare(small.particles, getattr(small, map_), relax=Relax("C4"), mode=Registers())
