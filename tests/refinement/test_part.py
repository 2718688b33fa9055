"""A part: where it is, what is refused, and a refinement of one from beginning to end."""

import numpy as np
import pytest
from scipy import ndimage

import jaxrelax as jr
from jaxrelax.assessment import AgainstTruth, save
from jaxrelax.geometry import (
    euler_to_matrix,
    frame_along,
    parse_group,
    point_group,
    random_rotations,
    rotation_angle,
    rotvec_to_matrix,
)
from jaxrelax.io import InputError, read_map, read_particles, write_map
from jaxrelax.reconstruction import fsc, symmetrise
from jaxrelax.refinement.part import Located, Part, located, shifted, with_axes_of_group
from jaxrelax.refinement.part_result import BASE_ANGLES, SHIFT, TURN
from jaxrelax.simulate import Simulation, simulate

N, PIXEL = 32, 6.0


def blob(centre_angstrom, width=9.0, n=N, pixel=PIXEL):
    axis = pixel * (np.arange(n) - n // 2)
    x, y, z = (np.exp(-0.5 * ((axis - c) / width) ** 2) for c in centre_angstrom)
    return (z[:, None, None] * y[:, None] * x).astype(np.float32)


def mass(map_, pixel=PIXEL):
    where = np.array(ndimage.center_of_mass(map_))[::-1] - len(map_) // 2
    return where * pixel


@pytest.mark.parametrize("along", [(0, 0, 1), (0.3, -0.4, 0.8)], ids=["along_z", "turned"])
@pytest.mark.parametrize(
    "centre", [(24.0, -12.0, 6.0), (25.3, -11.1, 4.7)], ids=["voxel", "between"]
)
def test_maps_go_into_the_frame_and_back(along, centre):
    where = Located(frame_along(np.array(centre), np.array(along, float)), PIXEL, None, 100.0)
    point = np.array([30.0, -6.0, 12.0])
    map_ = blob(point)
    inside = where.into(map_)
    np.testing.assert_allclose(mass(inside), where.frame.point(point), atol=0.05)
    np.testing.assert_allclose(where.back(inside), map_, atol=2e-3)
    near = where.into_near(map_)
    np.testing.assert_allclose(mass(near), where.frame.point(point), atol=0.05)
    assert near.min() >= 0
    assert near.max() <= 1
    np.testing.assert_allclose(mass(where.back_near(near)), point, atol=0.05)


def test_whole_voxels_are_not_interpolated():
    map_ = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    where = Located(frame_along(np.array([2.0, -1.0, 0.0])), 1.0, None, 8.0)
    inside = where.into(map_)
    np.testing.assert_array_equal(inside[:, 1:, :6], map_[:, :7, 2:])
    assert not inside[:, 0].any()
    assert not inside[:, :, 6:].any()
    np.testing.assert_array_equal(shifted(shifted(map_, [1, 0, 0]), [-1, 0, 0])[..., :-1],
                                  map_[..., :-1])  # fmt: skip


def written_mask(folder, centre, name="part.mrc", width=12.0):
    write_map(folder / name, (blob(centre, width) > 0.3).astype(np.float32), PIXEL)
    return str(folder / name)


def test_the_centre_of_a_part(tmp_path):
    mask, reference = written_mask(tmp_path, (30.0, -12.0, 18.0)), np.ones((N,) * 3, np.float32)
    place = {"pixel_size_angstrom": PIXEL, "particle_diameter_angstrom": 150.0}
    c1, c4, d2 = (point_group(name) for name in ("C1", "C4", "D2"))
    one = located(Part(mask), c1, reference, **place)
    np.testing.assert_allclose(one.frame.centre_angstrom, [30.0, -12.0, 18.0])
    assert one.mask is not None
    assert one.diameter_angstrom < 80.0
    np.testing.assert_allclose(mass(one.mask), 0.0, atol=0.3)
    held = located(Part(mask, fulcrum=(25.0, -10.0, 7.0)), c1, reference, **place)
    np.testing.assert_allclose(held.frame.centre_angstrom, [24.0, -12.0, 6.0])
    on_axis = located(Part(mask), c4, reference, **place)
    np.testing.assert_allclose(on_axis.frame.centre_angstrom, [0.0, 0.0, 18.0])
    assert on_axis.mask is not None
    # All sites of the group are in the mask.
    turned = np.rot90(on_axis.mask[:, 1:, 1:], axes=(1, 2))
    np.testing.assert_allclose(turned, on_axis.mask[:, 1:, 1:], atol=1e-5)
    meeting = located(Part(mask, axis_at=(3.0, 2.0, 1.0)), d2, reference, **place)
    np.testing.assert_allclose(meeting.frame.centre_angstrom, [3.0, 2.0, 1.0])
    alone = located(Part(axis_at=(12.0, 0.0, 0.0)), c4, reference, **place)
    assert alone.mask is None
    assert alone.diameter_angstrom == pytest.approx(174.0)


def test_axes_of_a_group_in_a_file(tmp_path):
    """As `axis_at` says them, for an axis in any direction; and not twice."""
    mask, reference = written_mask(tmp_path, (30.0, -12.0, 18.0)), np.ones((N,) * 3, np.float32)
    place = {"pixel_size_angstrom": PIXEL, "particle_diameter_angstrom": 150.0}
    turn = rotvec_to_matrix(np.array([0.0, np.pi / 2, 0.0]))  # z onto x
    along_x = np.einsum("ab,gbc,dc->gad", turn, point_group("C4").operators, turn)
    at = np.array([0.0, -9.0, 12.0])
    text = "\n".join(
        " ".join(f"{x:.6f}" for x in np.column_stack([g, at - g @ at]).ravel()) for g in along_x
    )
    (tmp_path / "operators.txt").write_text(text)
    group = parse_group(tmp_path / "operators.txt", placed=True)
    found = with_axes_of_group(Part(mask), group)
    assert found.mask == mask
    where = located(found, group, reference, **place)
    # On the axis, next to the middle of the mask.
    np.testing.assert_allclose(where.frame.centre_angstrom, [30.0, -9.0, 12.0], atol=1e-3)
    assert with_axes_of_group(None, group).axis_at == group.centre_angstrom
    assert with_axes_of_group(None, point_group("C4")) is None
    with pytest.raises(InputError, match="leave out --axis-at"):
        with_axes_of_group(Part(mask, axis_at=(1.0, 0.0, 0.0)), group)


def test_fulcrum_off_the_axis_and_masks_that_cannot_be(tmp_path):
    mask, reference = written_mask(tmp_path, (30.0, -12.0, 18.0)), np.ones((N,) * 3, np.float32)
    place = {"pixel_size_angstrom": PIXEL, "particle_diameter_angstrom": 150.0}
    with pytest.raises(InputError, match=r"from the axis of C4, .* such as 0.0 0.0 18.0"):
        located(Part(mask, fulcrum=(30.0, 0.0, 18.0)), point_group("C4"), reference, **place)
    write_map(tmp_path / "all.mrc", np.ones((N,) * 3, np.float32), PIXEL)
    with pytest.raises(InputError, match="leaves nothing out"):
        located(Part(str(tmp_path / "all.mrc")), point_group("C1"), reference, **place)
    far = Part(mask, fulcrum=(-80.0, 0.0, 0.0))
    with pytest.raises(InputError, match=r"reaches 1.. Å from the centre"):
        located(far, point_group("C1"), reference, **place)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fulcrum": (1.0, 2.0)}, "fulcrum is three finite numbers"),
        ({"axis_at": (1.0, 2.0, np.inf)}, "axis_at is three finite numbers"),
        ({"axis_along": (0.0, 0.0, 0.0)}, "not all zero"),
        ({"rest_symmetry": "C4"}, "there is none"),
    ],
)
def test_parts_that_cannot_be(given, words):
    with pytest.raises(ValueError, match=words):
        Part(**given)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One partner on C4, at true poses, and a mask around it."""
    folder = tmp_path_factory.mktemp("part")
    options = Simulation(
        n_images=120, box=32, pixel_size_angstrom=8.0, group="C4", protomer_kda=30.0,
        partner_kda=45.0, snr=2.0, max_shift_angstrom=4.0, seed=1,
    )  # fmt: skip
    simulate("phantom", folder, options)
    truth, pixel = read_map(folder / "truth_map.mrc")
    extra = ndimage.gaussian_filter(truth - np.asarray(symmetrise(truth, point_group("C4"))), 1.0)
    labels, count = ndimage.label(extra > 0.25 * extra.max())
    sizes = ndimage.sum(extra, labels, range(1, count + 1))
    solid = ndimage.binary_dilation(labels == 1 + np.argmax(sizes), iterations=2)
    mask = np.clip(1.2 * ndimage.gaussian_filter(solid.astype(np.float32), 1.0), 0, 1)
    write_map(folder / "mask.mrc", mask, pixel)
    return folder


@pytest.fixture(scope="module")
def against(data):
    return AgainstTruth(data / "truth.star")


@pytest.fixture(scope="module")
def refined(data, against):
    result = jr.refine(
        data / "truth.star", data / "truth_map.mrc", part=Part(str(data / "mask.mrc")),
        until=jr.MaxIterations(2), callbacks=[against],
    )  # fmt: skip
    save(result, jr.OutputFolder.create(data / "out"))
    return result


def test_the_part_is_in_its_place(data, refined):
    truth, _ = read_map(data / "truth_map.mrc")
    mask, _ = read_map(data / "mask.mrc")
    part = fsc(refined.map, truth * mask)
    assert np.min(part[1:10]) > 0.9
    assert np.min(fsc(refined.map_composite, truth)[1:10]) > 0.9
    np.testing.assert_allclose(refined.mask, np.clip(mask, 0, 1), atol=1e-5)
    true = read_particles(data / "truth.star")
    angle = np.rad2deg(rotation_angle(refined.poses @ np.swapaxes(true.rotations, 1, 2)))
    assert np.median(angle) < 3.0
    assert refined.part is not None
    assert refined.part.turn_deg < 5.0
    assert "turned by" in refined.part.sentence()


def test_the_truth_is_in_the_frame_of_the_part(refined, against):
    assert refined.part is not None
    assert set(against.rows) == {1, 2}
    for row in against.rows.values():
        assert row["true_pose_error_deg"] < 3.0
        assert row["true_shift_error_angstrom"] < 3.0


def test_a_resumed_run_is_the_same(data, refined, tmp_path):
    folder = jr.OutputFolder.create(tmp_path / "resumed")
    words = (data / "truth.star", data / "truth_map.mrc")
    part = Part(str(data / "mask.mrc"))
    jr.refine(*words, part=part, until=jr.MaxIterations(1), out=folder)
    again = jr.refine(*words, part=part, until=jr.MaxIterations(2), out=folder, resume=True)
    np.testing.assert_array_equal(again.poses, refined.poses)
    np.testing.assert_array_equal(again.map_composite, refined.map_composite)
    other = Part(str(data / "mask.mrc"), fulcrum=(8.0, 0.0, 0.0))
    with pytest.raises(InputError, match="part"):
        jr.refine(*words, part=other, until=jr.MaxIterations(2), out=folder, resume=True)


def test_masks_of_states_are_in_the_frame_of_the_part(data):
    mask = str(data / "mask.mrc")
    mode = jr.Classification(states=("C1", "C1"), start="random", focus_mask=mask)
    setup = jr.prepare(
        data / "truth.star", data / "truth_map.mrc", part=Part(mask), mode=mode, contrast="white"
    )
    focus = setup.following[0].make.keywords["focus_mask"]
    pixel = setup.problem.shells.pixel_size_angstrom
    np.testing.assert_allclose(mass(focus, pixel), 0.0, atol=pixel)


def test_patterns_and_a_part_are_refused(data):
    with pytest.raises(InputError, match="a part holds one"):
        jr.prepare(
            data / "truth.star", data / "truth_map.mrc", part=Part(str(data / "mask.mrc")),
            mode=jr.OccupancyPatterns("C4"),
        )  # fmt: skip


def test_what_is_written_of_a_part(data, refined):
    table = read_particles(data / "out" / "particles.star")
    true = read_particles(data / "truth.star")
    base = np.stack([np.asarray(table.column(name), float) for name in BASE_ANGLES])
    np.testing.assert_allclose(euler_to_matrix(*base), true.rotations, atol=1e-5)
    turn = np.stack([np.asarray(table.column(name), float) for name in TURN], axis=1)
    total = true.rotations @ rotvec_to_matrix(np.deg2rad(turn))
    np.testing.assert_allclose(total, table.rotations, atol=1e-5)
    centre = np.array(refined.part.centre_angstrom)
    shift = np.stack([np.asarray(table.column(name), float) for name in SHIFT], axis=1)
    seen = (table.rotations @ centre)[:, :2] - table.origins_angstrom
    held = (true.rotations @ centre)[:, :2] - true.origins_angstrom
    np.testing.assert_allclose(seen - held, shift, atol=1e-3)
    for name in ("map_composite.mrc", "map.mrc", "report.html"):
        assert (data / "out" / name).exists()


def test_the_rest_stays_at_its_poses_when_refined_again(data, refined):
    # The table's own poses are those of the part now; turned by far, they are no poses of the rest.
    table = read_particles(data / "out" / "particles.star")
    away = rotvec_to_matrix(np.deg2rad(40.0) * np.array([0.0, 0.0, 1.0]))
    moved = table.with_updates(rotations=table.rotations @ away)
    setup = jr.prepare(
        moved, data / "truth_map.mrc", part=Part(str(data / "mask.mrc")), contrast="white"
    )
    rest = setup.problem.execution.rest
    assert rest is not None
    true = read_particles(data / "truth.star")
    np.testing.assert_allclose(rest.rotations, true.rotations, atol=1e-5)
    np.testing.assert_allclose(rest.origins_angstrom, true.origins_angstrom, atol=1e-4)


def test_the_rest_is_made_without_the_fold_and_half_that_it_is_taken_from(data):
    part = Part(str(data / "mask.mrc"))

    def rest_of(particles):
        setup = jr.prepare(particles, data / "truth_map.mrc", part=part, contrast="white")
        return setup.problem.data, setup.problem.execution.rest.maps

    true = read_particles(data / "truth.star")
    parts, before = rest_of(true)
    half, fold = 1, 2
    mine = np.flatnonzero((parts.half_set == half) & (parts.fold == fold))
    # Images of these rows alone are put elsewhere into maps.
    rotations = true.rotations.copy()
    rotations[mine] = random_rotations(len(mine), np.random.default_rng(0))
    _, after = rest_of(true.with_updates(rotations=rotations))
    change = np.abs(after - before).max(axis=(2, 3, 4)) / np.abs(before).max()
    # What half-sets have told the prior, and the noise, are of all images: a small change of all.
    others = [change[half - 1, f] for f in range(change.shape[1]) if f != fold]
    assert change[half - 1, fold] < 0.4 * min(others)
    assert change[2 - half].max() < 0.4 * min(others)


def test_extents_hold_poses(data):
    mode = jr.Local(
        sigma_rotation_deg=20.0, sigma_shift_angstrom=20.0, rotation_extent_deg=0.5,
        shift_extent_angstrom=0.4, learn_prior=False,
    )  # fmt: skip
    steps = jr.iterate(
        data / "particles.star", data / "reference.mrc", mode=mode, symmetry="C4",
        until=jr.MaxIterations(1),
    )  # fmt: skip
    state, _ = next(steps)
    given = read_particles(data / "particles.star")
    turned = np.rad2deg(rotation_angle(state.poses.rotations @ np.swapaxes(given.rotations, 1, 2)))
    moved = np.linalg.norm(state.poses.origins_angstrom - given.origins_angstrom, axis=1)
    assert turned.max() < 0.51
    assert moved.max() < 0.41
    # Without, they move farther.
    assert np.quantile(turned, 0.9) > 0.49


def test_extents_that_cannot_be():
    with pytest.raises(ValueError, match="rotation_extent_deg is 90"):
        jr.Local(rotation_extent_deg=90.0)
    with pytest.raises(ValueError, match="shift_extent_angstrom is 0"):
        jr.Local(shift_extent_angstrom=0.0)
