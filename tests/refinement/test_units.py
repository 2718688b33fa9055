"""What shares noise is kept together: in half-sets and folds, and where orientations change."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from jaxrelax.geometry import euler_to_matrix, matrix_to_euler, point_group
from jaxrelax.inference import derangements, permutation_test
from jaxrelax.io import (
    InputError,
    Particles,
    Units,
    every_row,
    plan_windows,
    read_map,
    read_particles,
    sub_particles,
    write_star,
    write_windows,
)
from jaxrelax.judgement.exchange import along_own_axis, foreign_rows, unit_test
from jaxrelax.reconstruction import fsc, soft_sphere
from jaxrelax.refinement import Map, Registers, Relax, prepare
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.refinement.splits import folds, half_sets


def table(half_set) -> Particles:
    """What half-sets are drawn from, without images and poses."""
    made = object.__new__(Particles)
    vars(made).update(
        source=Path("t.star"),
        half_set=np.asarray(half_set, np.int8),
        optics_group=np.zeros(len(half_set), np.int32),
        rotations=np.tile(np.eye(3), (len(half_set), 1, 1)),
    )
    return made


def tubes(unit):
    unit, rows = np.asarray(unit), np.arange(len(unit))
    return Units(rows, rows, unit, rows.astype(float), "rlnHelicalTubeID")


def test_single_images_are_drawn_as_ever():
    units = every_row(101)
    half = half_sets(table(np.zeros(101)), units, 3)
    np.testing.assert_array_equal(half, np.random.default_rng((3, 5)).permutation(101) % 2 + 1)
    np.testing.assert_array_equal(
        folds(units, half, 5, 3), np.random.default_rng((3, 0)).integers(5, size=101)
    )
    given = np.where(np.arange(101) < 40, 1, 2)
    np.testing.assert_array_equal(half_sets(table(given), units, 3), given)


@pytest.mark.parametrize("seed", range(5))
def test_tubes_are_whole_and_halves_and_folds_even(seed):
    rng = np.random.default_rng(seed)
    unit = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 60, size=40)))
    units = tubes(unit)
    half = half_sets(table(np.zeros(len(unit))), units, seed)
    fold = folds(units, half, 5, seed)
    for one in range(40):
        assert len({*zip(half[unit == one], fold[unit == one], strict=True)}) == 1
    counts = np.bincount(half * 5 + fold)[5:]
    assert abs(np.sum(half == 1) - np.sum(half == 2)) <= 60
    assert counts.min() > 0.5 * counts.max()


def test_half_sets_that_split_units_are_mended(caplog):
    unit = np.repeat(np.arange(30), 2)
    given = np.where(np.arange(60) < 30, 1, 2)
    given[31] = 1  # one unit is on both sides
    half = half_sets(table(given), tubes(unit), 0)
    whole = unit != 15
    np.testing.assert_array_equal(half[whole], given[whole])
    assert len(set(half[~whole])) == 1
    assert "split 1 tubes (rlnHelicalTubeID) (rows 31, 32)" in caplog.text
    across = half_sets(table(np.tile([1, 2], 30)), tubes(unit), 0)
    assert np.sum(across == 1) == 30
    np.testing.assert_array_equal(across[::2], across[1::2])


def test_copies_count_as_one_image():
    rows = np.arange(40)
    copies = Units(rows // 4, rows // 4, rows // 4, rows.astype(float))
    with pytest.raises(InputError, match="a half-set of 5 images is too small"):
        half_sets(table(np.zeros(40)), copies, 0)


def test_few_tubes(caplog):
    units = tubes(np.repeat(np.arange(4), 20))
    half = half_sets(table(np.zeros(80)), units, 0)
    assert set(folds(units, half, 5, 0)) == {0, 1}
    assert "2 folds instead of 5" in caplog.text
    with pytest.raises(InputError, match=r"only 2 tubes \(rlnHelicalTubeID\).*at least 3"):
        half_sets(table(np.zeros(80)), units, 0, tested=True)
    with pytest.raises(InputError, match="only 1 tubes"):
        half_sets(table(np.zeros(40)), tubes(np.repeat([0, 1], 20)), 0)


def test_single_images_are_exchanged_as_ever():
    rows = np.arange(3, 40)
    expected = rows[derangements(37, 24, np.random.default_rng(1))]
    found = foreign_rows(every_row(50), rows, 24, np.random.default_rng(1))
    np.testing.assert_array_equal(found, expected)


def test_tubes_take_the_orientations_of_others_in_their_order():
    rng = np.random.default_rng(0)
    unit = rng.permutation(np.repeat(np.arange(6), [3, 4, 4, 4, 5, 9]))
    along = rng.permutation(len(unit)).astype(float)
    plain = tubes(unit)
    units = Units(plain.picture, plain.source, unit, along, plain.tube_column)
    rows = np.flatnonzero(unit != 5)
    found = foreign_rows(units, rows, 24, rng)
    assert found.shape == (20, 4)
    assert np.isin(found, rows).all()

    def place(row):
        return int(np.sum((unit == unit[row]) & (along < along[row])))

    for row, others in zip(rows, found, strict=True):
        assert sorted({unit[row], *unit[others]}) == [0, 1, 2, 3, 4]
        for other in others:
            assert place(other) == place(row) % np.sum(unit == unit[other])
        # Rows of a unit go to the same unit together.
        same = rows[unit[rows] == unit[row]]
        np.testing.assert_array_equal(
            unit[found[np.isin(rows, same)]], np.tile(unit[others], (len(same), 1))
        )
    assert foreign_rows(units, np.flatnonzero(unit < 2), 24, rng).shape[1] == 0


def test_a_tube_keeps_its_direction_in_the_image():
    rng = np.random.default_rng(2)
    rot, tilt, psi = (rng.uniform(low, 180.0, 7) for low in (-180.0, 1.0, -180.0))
    own = np.asarray(euler_to_matrix(*(rng.uniform(1.0, 179.0, 7) for _ in range(3))))
    foreign = np.asarray(euler_to_matrix(rot, tilt, psi))[:, None]
    turned = along_own_axis(own, foreign)
    found = matrix_to_euler(turned[:, 0])
    np.testing.assert_allclose(found[0], rot, atol=1e-9)
    np.testing.assert_allclose(found[1], tilt, atol=1e-9)
    np.testing.assert_allclose(found[2], matrix_to_euler(own)[2], atol=1e-9)
    np.testing.assert_allclose(turned @ turned.swapaxes(-1, -2), np.eye(3) + 0 * turned, atol=1e-12)


def test_single_images_are_tested_as_ever():
    rng = np.random.default_rng(0)
    own, foreign = rng.standard_normal(60), rng.standard_normal((60, 24))
    expected = permutation_test(own, foreign, np.random.default_rng(1))
    assert unit_test(np.arange(60), own, foreign, np.random.default_rng(1)) == expected


@pytest.mark.parametrize("sizes", [[8] * 30, [2] * 60, [8] * 4, [60, *[3] * 20]])
def test_rows_that_share_noise_do_not_make_p_small(sizes):
    """Rows of a unit score alike, at their own orientations and at others'."""
    rng = np.random.default_rng(len(sizes))
    unit = np.repeat(np.arange(len(sizes)), sizes)
    columns = 1 + min(24, len(sizes) - 1)
    p, naive = [], []
    for _ in range(200):
        shared = rng.standard_normal((len(sizes), columns))[unit]
        scores = shared + 0.3 * rng.standard_normal((len(unit), columns))
        own, foreign = scores[:, 0], scores[:, 1:]
        p.append(unit_test(unit, own, foreign, rng).p)
        naive.append(permutation_test(own, foreign, rng, draws=499).p)
    assert np.mean(np.array(p) < 0.01) <= 0.02
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.07)
    assert np.mean(np.array(naive) < 0.05) > 0.08
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-4


def test_a_shift_of_all_units_is_found():
    rng = np.random.default_rng(5)
    unit = np.repeat(np.arange(20), 10)
    own, foreign = rng.standard_normal(200) + 1.0, rng.standard_normal((200, 19))
    assert unit_test(unit, own, foreign, rng).log10_p < -6


def expanded_star(data, path, group_poses=None):
    """A table with every image four times, at mates of its pose."""
    particles = read_particles(data.star)
    n, rows = len(particles), np.repeat(np.arange(len(particles)), 4)
    turn = np.asarray(euler_to_matrix(*np.array([[0.0, 90.0, 180.0, 270.0], [0] * 4, [0] * 4])))
    rotations = particles.rotations[rows] @ np.tile(turn, (n, 1, 1))
    table = particles.select(rows).with_updates(rotations=rotations)
    write_star(table, path)
    return path


def test_what_becomes_of_an_expanded_table(two_groups, caplog):
    data = two_groups
    path = expanded_star(data, data.folder / "expanded.star")
    common = dict(reference=data.reference, mode=Registers())
    n = len(data.truth)
    relaxed = prepare(path, relax=Relax("C4"), **common).problem
    assert len(relaxed.data) == len(relaxed.data.half_set) == n
    assert relaxed.data.units.single
    assert f"{3 * n} of {4 * n} rows are copies of images in other rows" in caplog.text
    assert "symmetry expansion by C4" in caplog.text
    plain = prepare(path, symmetry="C1", **common).problem
    assert len(plain.data) == 4 * n
    assert plain.data.units.count == n
    sides = np.stack([plain.data.half_set, plain.data.fold], axis=1).reshape(n, 4, 2)
    assert (sides == sides[:, :1]).all()
    with pytest.raises(InputError, match=r"in another register.*one row for each"):
        prepare(path, relax=Relax("C4", start="poses"), **common)


def test_an_image_has_one_pose(two_groups, caplog):
    data = two_groups
    particles = read_particles(data.star)
    n = len(particles)
    flipped = particles.rotations @ np.diag([1.0, -1.0, -1.0])
    twice = particles.select(np.tile(np.arange(n), 2))
    common = dict(reference=data.reference, mode=Registers(), relax=Relax("C4"))
    torn = twice.with_updates(rotations=np.concatenate([particles.rotations, flipped]))
    with pytest.raises(InputError, match=r"rows 1, 2, .*C4 does not relate.*one pose"):
        prepare(torn, **common)
    # Related by the group that is relaxed; or another particle, elsewhere.
    assert len(prepare(torn, **(common | {"relax": Relax("D4")})).problem.data.particles) == n
    apart = torn.with_updates(
        origins_angstrom=torn.origins_angstrom + np.repeat([0, 40], n)[:, None]
    )
    problem = prepare(apart, **common).problem
    assert len(problem.data.particles) == 2 * n
    assert problem.data.units.count == n
    # One of three rows has strayed.
    stray = particles.select(np.concatenate([np.arange(n), np.arange(n), [4]]))
    turned = np.concatenate([particles.rotations, particles.rotations, flipped[[4]]])
    turned[[4, n + 4, 2 * n]] = np.stack(
        [flipped[4], particles.rotations[4], particles.rotations[4]]
    )
    kept = prepare(stray.with_updates(rotations=turned), **common).problem.data.particles
    assert len(kept) == n
    row = int(np.flatnonzero(kept.image_index == particles.image_index[4])[0])
    np.testing.assert_allclose(kept.rotations[row], particles.rotations[4])
    assert "1 rows (row 5) are among those left out" in caplog.text


def test_sub_particles_of_one_image_are_never_on_two_sides(two_groups, tmp_path, caplog):
    caplog.set_level("INFO", logger="jaxrelax")
    data = two_groups
    particles = read_particles(data.star).select(np.arange(0, 120, 3))
    made = sub_particles(particles, point_group("C4"), (40.5, 9.0, 18.0))
    n = len(particles)
    across = np.random.default_rng(0).integers(1, 3, len(made))
    planned = plan_windows(made.with_updates(half_set=across), 40, tmp_path / "windows.mrcs")
    write_windows(planned)
    write_star(planned.particles, tmp_path / "windows.star")
    write_star(made.with_updates(half_set=across), tmp_path / "named.star")
    # The reference is the map around the site, nine, two and four voxels from the centre.
    whole, pixel = read_map(data.reference)
    around = np.roll(whole, (-4, -2, -9), (0, 1, 2))
    for name, reference in (
        ("windows", Map(around[8:48, 8:48, 8:48].copy(), pixel)),
        ("named", Map(around, pixel)),
    ):
        caplog.clear()
        read = read_particles(tmp_path / f"{name}.star")
        problem = prepare(
            read, reference, mode=Registers(), relax=Relax("C4"), force_group=True,
            particle_diameter=120.0, normalise="no",
        ).problem  # fmt: skip
        # Sites whose origins are near are other sites: nothing is collapsed.
        assert len(problem.data) == 4 * n
        assert problem.data.units.count == n
        sides = np.stack([problem.data.half_set, problem.data.fold], axis=1).reshape(n, 4, 2)
        assert (sides == sides[:, :1]).all()
        assert "the half-sets of the table split" in caplog.text
        assert f"{n} images" in caplog.text
        assert "sub-particles" in caplog.text


def test_half_maps_of_an_expanded_table_share_no_image(two_groups, tmp_path, caplog):
    """Copies on both sides would make the FSC of noise that of signal."""
    data = two_groups
    read = read_particles(expanded_star(data, tmp_path / "expanded.star"))
    n = len(read) // 4
    across = read.with_updates(half_set=np.tile([1, 2, 1, 2], n))
    plain = read_particles(data.star)
    mask = soft_sphere(56, 20.0, 3.0)

    def halves(particles, symmetry):
        maps = [reconstruct(particles, symmetry=symmetry, half=half)[0] * mask for half in (1, 2)]
        return fsc(*maps), maps

    expected, _ = halves(plain, "C4")
    same, (first, _) = halves(read, "C1")
    np.testing.assert_allclose(same, expected, atol=1e-3)
    mended, (again, _) = halves(across, "C4")
    assert "the half-sets of the table split 120 images" in caplog.text
    assert np.mean(mended[18:26]) < np.mean(expected[18:26]) + 0.15
    # Whole images went to either side, and only there is it another draw.
    assert fsc(first, again)[5] > 0.9
    sides = [reconstruct(across.select(across.half_set == half), symmetry="C4") for half in (1, 2)]
    spoilt = fsc(*(one * mask for one, _ in sides))
    assert np.mean(spoilt[18:26]) > np.mean(expected[18:26]) + 0.4
