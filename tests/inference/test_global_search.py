"""Poses from nothing: the right peak is found, climbed and kept among others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import (
    asymmetric_unit,
    exp_so3,
    healpix_directions,
    point_group,
    pose_error_mod_group,
    random_rotations,
)
from jaxrelax.imaging import ImageBatch, fourier_volume, volume_radius, working_box
from jaxrelax.inference import (
    FixedPoses,
    PosePrior,
    Poses,
    finest_resolution_angstrom,
    global_search,
)
from jaxrelax.inference.global_search import shift_grid
from jaxrelax.reconstruction import rotate_map
from tests.inference.conftest import (
    BOX,
    N_SHELLS,
    SHELL,
    blobs,
    geometry_of_images,
    projections,
)

PIXEL, DIAMETER = 3.0, 60.0
BAND = BOX * PIXEL / SHELL
IMAGES = 12
NO_PRIOR = PosePrior(jnp.float32(1.0), jnp.float32(1e3))
SIZES = {"coarsest_order": 1, "finest_order": 2, "n_candidates": 8, "n_modes": 3}


def asymmetric_map():
    return blobs(working_box(SHELL), 1)


def images_of(map_, noise_power, seed=0):
    """Images at random poses, shifted by up to two pixels; the truth."""
    rng = np.random.default_rng(seed)
    volume = fourier_volume(jnp.asarray(map_[None]), radius=volume_radius(SHELL), image_box=BOX)
    packing = geometry_of_images().packing
    rotations = random_rotations(IMAGES, rng)
    shifts = rng.uniform(-2, 2, (IMAGES, 2))
    views = np.asarray(projections(volume, jnp.asarray(rotations, jnp.float32)))[:, 0]
    ctf = rng.uniform(0.3, 1.0, (IMAGES, 1)) * np.ones((1, packing.n_pixels))
    noise = rng.standard_normal((2, *views.shape)) * np.sqrt(0.5 * noise_power)
    data = ctf * views * np.exp(-2j * np.pi / BOX * (shifts @ packing.wavevectors_px.T))
    batch = ImageBatch(
        jnp.asarray(data + noise[0] + 1j * noise[1], jnp.complex64),
        jnp.asarray(ctf, jnp.float32),
        jnp.asarray(packing.multiplicity / np.float32(noise_power)),
        jnp.ones(IMAGES, bool),
    )
    return volume, batch, rotations, shifts


def nowhere(n=IMAGES):
    start = (jnp.tile(jnp.eye(3), (n, 1, 1)), jnp.zeros((n, 2)))
    return Poses(*start, *start)


def program_of(search, max_traces=1):
    """Another trace than these raises."""

    def run(target, batch, poses, prior):
        return search(target, batch, geometry_of_images(), poses, prior, N_SHELLS)

    return jax.jit(eqx.debug.assert_max_traces(run, max_traces=max_traces))


def searched(search, volume, batch, poses=None, prior=NO_PRIOR, program=None):
    """What a search says of images, in a program of its own unless there is one."""
    target = search.prepare(volume, geometry_of_images())
    program = program_of(search) if program is None else program
    return program(target, batch, poses or nowhere(), prior)


def best_of(found):
    best = np.asarray(found.log_evidence).argmax(axis=1)
    image = np.arange(len(best))
    return np.asarray(found.rotations)[image, best], np.asarray(found.origins_px)[image, best]


@pytest.fixture(scope="module")
def usual():
    """A search, and the programs of it and of what follows its modes, one or three."""
    search = global_search(BAND, DIAMETER, point_group("C1"), **SIZES)
    return search, program_of(search), program_of(search.followed, max_traces=2)


@pytest.fixture(scope="module")
def clear(usual):
    """Images with little noise, and what the search says of them."""
    volume, batch, rotations, shifts = images_of(asymmetric_map(), 0.02)
    search, program, _ = usual
    found = searched(search, volume, batch, program=program)
    return search, found, volume, batch, rotations, shifts


def test_poses_and_shifts_are_found_from_nothing(clear):
    _, found, _, _, rotations, shifts = clear
    estimated, origins = best_of(found)
    error = np.rad2deg(pose_error_mod_group(estimated, rotations, point_group("C1")))
    assert np.sum(error < 3.0) >= IMAGES - 1
    right = error < 3.0
    assert np.abs(origins[right] + shifts[right]).max() < 0.2


def test_images_that_wandered_off_are_found_again(clear, usual):
    search, _, volume, batch, rotations, shifts = clear
    lost = nowhere()
    lost = Poses(
        lost.rotations, lost.origins_px + 14.0, lost.prior_rotations, lost.prior_origins_px
    )
    estimated, origins = best_of(searched(search, volume, batch, lost, program=usual[1]))
    error = np.rad2deg(pose_error_mod_group(estimated, rotations, point_group("C1")))
    assert np.sum(error < 3.0) >= IMAGES - 1
    assert np.abs(origins + shifts)[error < 3.0].max() < 0.2


def test_the_prior_of_origins_counts_beside_the_image(clear, usual):
    search, found, volume, batch, *_ = clear
    prior = PosePrior(jnp.float32(1.0), jnp.float32(2.0))
    under = searched(search, volume, batch, prior=prior, program=usual[1])
    image = np.arange(IMAGES)
    best = np.asarray(found.log_evidence).argmax(axis=1)
    again = np.asarray(under.log_evidence).argmax(axis=1)
    offset = np.asarray(under.offset)[image, again]
    origins = np.asarray(under.origins_px)[image, again]
    # In units of the prior, around its centre; nothing is known of orientations beforehand.
    np.testing.assert_allclose(offset[:, 3:], origins / 2.0, atol=1e-5)
    assert np.all(offset[:, :3] == 0.0)
    # The images are clear enough that it changes their evidence, and not their poses.
    np.testing.assert_allclose(origins, found.origins_px[image, best], atol=0.02)
    np.testing.assert_allclose(
        np.asarray(under.log_evidence)[image, again] - np.asarray(found.log_evidence)[image, best],
        -0.5 * np.sum(offset[:, 3:] ** 2, axis=-1), atol=0.1,
    )  # fmt: skip
    spread, covariance = np.asarray(under.spread), np.asarray(under.covariance)
    np.testing.assert_allclose(
        4.0 * np.diagonal(covariance, axis1=-2, axis2=-1)[image, again, 3:],
        np.diagonal(spread @ spread.swapaxes(-1, -2), axis1=-2, axis2=-1)[image, again, 3:],
        rtol=0.01, atol=3e-6,
    )  # fmt: skip


def test_shifts_reach_as_far_as_the_prior():
    def radius(sigma):
        search = global_search(
            12.0, DIAMETER, point_group("C1"), **SIZES, sigma_offset_angstrom=sigma
        )
        return search.shift_radius, 12.0 / 3.0

    for sigma in (0.5, 4.0, 6.0, 10.0):
        steps, step = radius(sigma)
        assert 2.5 * sigma <= steps * step
        assert len(shift_grid(steps)) < 5.0 * max((2.5 * sigma / step) ** 2, 5.0)
    assert len(shift_grid(radius(0.0)[0])) == 21
    assert radius(1e3)[0] == 8.0


def test_the_best_mode_is_as_likely_as_the_true_pose(clear):
    _, found, volume, batch, rotations, shifts = clear
    truth = (jnp.asarray(rotations, jnp.float32), jnp.asarray(-shifts, jnp.float32))
    estimated = [jnp.asarray(part, jnp.float32) for part in best_of(found)]
    at_truth, at_best = (
        np.asarray(
            FixedPoses()(
                volume, batch, geometry_of_images(), Poses(*pose, *pose), NO_PRIOR, N_SHELLS
            ).log_evidence[:, 0]
        )
        for pose in (truth, estimated)
    )
    # The true pose is not the best one, by about half the number of parameters.
    assert np.all(at_best > at_truth - 3.0)


def assert_distinct(search, found, group):
    """Modes with any evidence are farther apart than the last band's share of a grid step."""
    evidence, rotations = np.asarray(found.log_evidence), np.asarray(found.rotations, np.float64)
    limit = search.spacing_deg * search.levels(geometry_of_images())[1][-1]
    for i in range(search.modes):
        for j in range(i):
            near = np.rad2deg(pose_error_mod_group(rotations[:, i], rotations[:, j], group)) < limit
            near &= np.isfinite(evidence[:, i]) & np.isfinite(evidence[:, j])
            moved = np.linalg.norm(found.origins_px[:, i] - found.origins_px[:, j], axis=1)
            assert np.all(moved[near] > 0.5)


def test_modes_are_different_poses(clear):
    search, found, *_ = clear
    assert search.modes == 3
    assert found.log_evidence.shape == (IMAGES, 3)
    assert np.isfinite(found.log_evidence[:, 0]).all()
    assert_distinct(search, found, point_group("C1"))


def known(found, modes, count):
    """Poses with the modes that a search found, as the refinement hands them on."""
    parts = [
        np.asarray(x)[:, :count] for x in (found.rotations[:, :modes], found.origins_px[:, :modes])
    ]
    lost = nowhere()
    return Poses(
        lost.rotations, lost.origins_px, lost.prior_rotations, lost.prior_origins_px,
        *(jnp.asarray(x) for x in parts),
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
def test_known_modes_are_climbed_from_where_they_were(clear, usual, count):
    search, found, volume, batch, *_ = clear
    follow = search.followed
    assert not follow.is_global
    before = known(found, search.modes, count)
    again = searched(follow, volume, batch, before, program=usual[2])
    assert again.log_evidence.shape == (IMAGES, search.modes)
    np.testing.assert_allclose(again.log_evidence[:, 0], found.log_evidence[:, 0], atol=0.05)
    np.testing.assert_allclose(again.rotations[:, 0], found.rotations[:, 0], atol=2e-3)
    np.testing.assert_allclose(again.origins_px[:, 0], found.origins_px[:, 0], atol=1e-2)
    evidence = np.asarray(again.log_evidence)
    if count == 1:
        # What fills the places is the same pose, and counts once.
        assert np.all(np.isneginf(evidence[:, 1:]))
    else:
        before = np.asarray(found.log_evidence)
        near = before > before.max(axis=1, keepdims=True) - 4.0
        np.testing.assert_allclose(evidence[near], before[near], atol=0.1)


def test_modes_go_with_the_map(clear, usual):
    """Followed under a turned map they find its turn, if that is within their reach."""
    search, found, volume, batch, *_ = clear
    turn = np.asarray(exp_so3(jnp.deg2rad(jnp.array([1.5, -1.0, 1.0]))))
    # Where the modes were for a map that has been turned since.
    poses = known(found, search.modes, search.modes)
    poses = eqx.tree_at(lambda p: p.mode_rotations, poses, poses.mode_rotations @ turn)
    again = searched(search.followed, volume, batch, poses, program=usual[2])
    before, after = (np.asarray(f.rotations[:, 0], np.float64) for f in (found, again))
    start = np.asarray(poses.mode_rotations[:, 0], np.float64)
    left, right = (
        np.rad2deg(pose_error_mod_group(one, before, point_group("C1"))) for one in (after, start)
    )
    assert np.all(right > 1.5)
    assert np.median(left) < 0.1 * np.median(right)


def test_without_modes_there_is_nothing_to_follow(clear):
    search, _, volume, batch, *_ = clear
    with pytest.raises(ValueError, match="no modes"):
        search.followed(volume, batch, geometry_of_images(), nowhere(), NO_PRIOR, N_SHELLS)


def test_one_direction_of_each_orbit_is_enough_for_a_symmetric_map():
    group = point_group("C4")
    map_ = asymmetric_map()
    map_ = np.mean([rotate_map(map_, g) for g in group.operators], axis=0)
    volume, batch, rotations, _ = images_of(map_, 0.02, seed=1)
    search = global_search(BAND, DIAMETER, group, **SIZES)
    everything = global_search(BAND, DIAMETER, point_group("C1"), **SIZES)
    assert len(search.directions) <= 0.4 * len(everything.directions)
    found = searched(search, volume, batch)
    error = np.rad2deg(pose_error_mod_group(best_of(found)[0], rotations, group))
    assert np.sum(error < 3.0) >= IMAGES - 1
    # Nor do mates count as different poses.
    assert_distinct(search, found, group)


def test_the_order_follows_the_resolution_within_limits():
    def search(resolution, finest):
        return global_search(
            resolution, 200.0, point_group("C1"), coarsest_order=1, finest_order=finest,
            n_candidates=8, n_modes=4,
        )  # fmt: skip

    limits = [finest_resolution_angstrom(order, 200.0) for order in range(4)]
    assert np.allclose(limits[:-1], 2.0 * np.array(limits[1:]))
    assert len(search(1.01 * limits[1], 3).directions) == 48
    assert len(search(0.99 * limits[1], 3).directions) == 192
    fine = search(0.2 * limits[3], 3)
    assert len(fine.directions) == 768
    assert fine.resolution_angstrom == limits[3]
    units = asymmetric_unit(healpix_directions(3), point_group("C1"))
    assert units.all()


def test_where_the_band_is_wider_than_the_grid_modes_are_climbed_octave_by_octave():
    search = global_search(BAND, DIAMETER, point_group("C1"), **SIZES)

    def levels(wider):
        """Pixels and width of the prior of each band, with a grid that sees so much less."""
        coarse = eqx.tree_at(lambda s: s.resolution_angstrom, search, wider * BAND)
        weights, widths = coarse.levels(geometry_of_images())
        assert len(coarse._low(geometry_of_images())) < weights[0].sum()
        assert weights[-1].sum() == geometry_of_images().packing.n_pixels
        assert np.all(np.diff(weights.sum(axis=1)) > 0)
        return widths

    # An octave and a third beyond the grid: two bands after the grid's own, in equal steps.
    np.testing.assert_allclose(levels(2.5), [2.5**-0.5, 1 / 2.5], rtol=0.1)
    # Hardly more than an octave is no reason to climb everything once more.
    np.testing.assert_allclose(levels(2.05), [1 / 2.05], rtol=0.1)
    # Where the grid reaches the band's end, the current pose is still judged beside its finds.
    assert len(search.levels(geometry_of_images())[0]) == 1


def test_a_global_search_compiles_once(clear, usual):
    """Whatever the map; the program of the fixture would raise."""
    search, found, volume, batch, *_ = clear
    twice = eqx.tree_at(lambda v: v.values, volume, 2.0 * volume.values)
    again = searched(search, twice, batch, program=usual[1])
    assert np.all(np.asarray(again.log_evidence[:, 0]) < np.asarray(found.log_evidence[:, 0]))


def test_groups_that_leave_few_directions_have_as_few_candidates():
    search = global_search(BAND, DIAMETER, point_group("I"), **SIZES)
    assert len(search.directions) < SIZES["n_candidates"]
    assert search.n_candidates == len(search.directions)
    assert search.modes <= search.n_candidates
    volume, batch, _, _ = images_of(asymmetric_map(), 0.02)
    evidence = np.asarray(searched(search, volume, batch).log_evidence)
    assert np.all(np.isfinite(evidence[:, 0]))
    with pytest.raises(ValueError, match="candidates among directions"):
        eqx.tree_at(lambda s: s.n_modes, search, search.n_candidates + 1).__check_init__()


def test_every_state_has_a_grid_of_its_own(clear):
    """Images of either of two maps are found from nothing, and say which of them they show."""
    _, _, volume, batch, rotations, _ = clear
    other = fourier_volume(
        jnp.asarray(blobs(working_box(SHELL), 9)[None]),
        radius=volume_radius(SHELL), image_box=BOX,
    )  # fmt: skip
    # The map of the images is the second; its parts come after those of the first.
    values = [each.values.reshape(len(each.values), 2, -1) for each in (other, volume)]
    together = eqx.tree_at(
        lambda v: v.values,
        volume,
        jnp.concatenate(values, axis=2).reshape(len(volume.values), -1),
    )
    assert together.channels == 2
    group = point_group("C1")
    right = {}
    for guides in (((0,), (1,)), ((0,),)):
        search = global_search(BAND, DIAMETER, group, **SIZES, guides=guides)
        found = searched(search, together, batch)
        evidence = np.asarray(found.log_evidence).reshape(IMAGES, search.modes, 2)
        poses = np.asarray(found.rotations).reshape(IMAGES, search.modes, 2, 3, 3)[:, :, 1]
        mode = evidence[:, :, 1].argmax(axis=1)
        best = poses[np.arange(IMAGES), mode]
        error = np.rad2deg(pose_error_mod_group(best, rotations, group))
        own = evidence[:, :, 1].max(axis=1) > evidence[:, :, 0].max(axis=1)
        right[guides] = np.sum((error < 3.0) & own)
    assert right[(0,), (1,)] >= IMAGES - 1
    assert right[((0,),)] < right[(0,), (1,)]
