"""Which rows share noise: one image by several names, parents and copies, tubes."""

import os

import numpy as np
import pytest

from jaxrelax.geometry import point_group, rotvec_to_matrix
from jaxrelax.io import find_units, inspect_file, read_particles
from jaxrelax.io.copies import expansion, leaders, related


@pytest.fixture
def table(particle_set):
    """Six images without tubes, and a function that reads them again."""
    del particle_set.columns["rlnHelicalTubeID"]
    particle_set.write_stack()

    def read():
        return read_particles(particle_set.write())

    return particle_set, read


def named(particle_set, *names):
    particle_set.columns["rlnImageName"] = list(names)


def test_every_image_once(table):
    units = find_units(table[1]())
    assert units.single
    assert units.count == 6
    assert not units.copied.any()
    np.testing.assert_array_equal(units.weight, np.ones(6))
    assert units.weight.dtype == np.float32


def test_one_image_by_several_names(table):
    particles, read = table
    folder = particles.folder
    os.symlink("stack.mrcs", folder / "link.mrcs")
    os.link(folder / "stack.mrcs", folder / "hard.mrcs")
    named(
        particles,
        *("1@stack.mrcs", "000001@./stack.mrcs", "1@../project/stack.mrcs"),
        *("1@link.mrcs", "1@hard.mrcs", "2@hard.mrcs"),
    )
    units = find_units(read())
    np.testing.assert_array_equal(units.picture, [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(units.unit, units.picture)
    np.testing.assert_allclose(units.weight, [0.2] * 5 + [1])


def test_images_that_are_not_there_are_told_apart_by_name(table):
    particles, read = table
    named(particles, *(f"1@lost{i // 2}.mrcs" for i in range(6)))
    np.testing.assert_array_equal(find_units(read()).unit, [0, 0, 1, 1, 2, 2])


def test_images_made_from_one(table):
    particles, read = table
    names = ["1@a.mrcs", "000001@a.mrcs", "2@a.mrcs", "None", "None", "1@b.mrcs"]
    particles.columns["rlnImageOriginalName"] = names
    units = find_units(read())
    np.testing.assert_array_equal(units.source, [0, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(units.picture, np.arange(6))


def test_tubes_are_numbered_within_micrographs(table):
    particles, read = table
    particles.columns["rlnHelicalTubeID"] = ["1", "1", "1", "1", "2", "0"]
    units = find_units(read())  # two rows to a micrograph
    np.testing.assert_array_equal(units.unit, [0, 0, 1, 1, 2, 3])
    assert units.tube_column == "rlnHelicalTubeID"
    assert not units.copied.any()
    # A copy of an image joins the tubes that it lies in.
    named(particles, *(f"{i}@stack.mrcs" for i in (1, 2, 3, 4, 5, 3)))
    np.testing.assert_array_equal(find_units(read()).unit, [0, 0, 1, 1, 2, 1])


def test_a_column_without_tubes_names_none(table):
    particles, read = table
    particles.columns["rlnHelicalTubeID"] = ["0"] * 6
    assert find_units(read()).tube_column is None


def test_segments_are_in_the_order_of_their_tube(table):
    particles, read = table
    particles.columns["rlnHelicalTubeID"] = ["1"] * 6
    particles.columns["rlnHelicalTrackLengthAngst"] = ["5", "3", "1", "0", "2", "4"]
    np.testing.assert_array_equal(find_units(read()).along, [5, 3, 1, 0, 2, 4])


def test_selected_rows_are_numbered_anew(table):
    particles, read = table
    named(particles, *(f"{i}@stack.mrcs" for i in (1, 1, 2, 2, 3, 3)))
    some = find_units(read()).select(np.array([5, 2, 3]))
    np.testing.assert_array_equal(some.unit, [0, 1, 1])
    assert len(some) == 3


def expand(table, group, turn_deg=0.0, seed=0):
    """Rows of every mate, a little turned."""
    rng = np.random.default_rng(seed)
    operators = point_group(group).operators
    rows = np.repeat(np.arange(len(table)), len(operators))
    mates = table.rotations[rows] @ np.tile(operators.transpose(0, 2, 1), (len(table), 1, 1))
    axis = rng.standard_normal((len(rows), 3))
    vector = np.deg2rad(turn_deg) * axis / np.linalg.norm(axis, axis=1, keepdims=True)
    return table.select(rows).with_updates(rotations=np.asarray(rotvec_to_matrix(vector)) @ mates)


@pytest.mark.parametrize("turn_deg", [0.0, 4.0])
def test_an_expanded_table_has_one_leader_for_each_image(table, turn_deg):
    operators = point_group("C4").operators
    whole = expand(table[1](), "C4", turn_deg)
    order = np.random.default_rng(1).permutation(len(whole))
    for rows in (np.arange(24), order, order[1:]):
        some = whole.select(rows)
        units = find_units(some)
        leader = leaders(some, units, operators)
        np.testing.assert_array_equal(leader[leader], leader)
        np.testing.assert_array_equal(units.picture[leader], units.picture)
        assert len(set(leader)) == 6
        # The first row of an image leads.
        _, first = np.unique(units.picture, return_index=True)
        np.testing.assert_array_equal(np.unique(leader), np.sort(first))
    if turn_deg == 0.0:
        assert expansion(whole, find_units(whole)) == 4


def test_mates_of_another_group_stay(table):
    whole = expand(table[1](), "D2")
    units = find_units(whole)
    assert len(set(leaders(whole, units, point_group("C4").operators))) == 12  # C2 of D2 is in C4
    assert len(set(leaders(whole, units, point_group("D4").operators))) == 6
    assert len(set(leaders(whole, units, np.eye(3)[None]))) == 24
    assert len(set(leaders(whole, units, None))) == 6


def test_another_origin_is_another_particle(table):
    whole = expand(table[1](), "C4")
    moved = whole.with_updates(
        origins_angstrom=whole.origins_angstrom + 30.0 * (np.arange(24) % 4 == 1)[:, None]
    )
    units = find_units(moved)
    assert len(set(leaders(moved, units, point_group("C4").operators))) == 12
    assert expansion(moved, units) == 0


def test_the_parent_of_a_cryosparc_expansion_leads(table):
    whole = expand(table[1](), "C4")

    class WithIndex(type(whole)):
        def column(self, name):
            index = 3 - np.arange(24) % 4
            return index if name == "sym_expand/idx" else super().column(name)

    fields = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
    leader = leaders(WithIndex(**fields), find_units(whole), point_group("C4").operators)
    np.testing.assert_array_equal(leader, np.repeat(np.arange(3, 24, 4), 4))


def test_poses_are_compared_up_to_operators():
    group = point_group("D7").operators
    pose = group[[3]] @ np.array([[[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]])
    assert related(pose @ group[5].T, pose, group).all()
    assert not related(pose @ group[5].T, pose, point_group("C1").operators).any()


def test_inspect_names_what_shares_noise(table, particle_set):
    particles, _ = table
    named(particles, *(f"{i}@stack.mrcs" for i in (1, 1, 2, 2, 3, 3)))
    rows = dict(inspect_file(particle_set.write()).rows)
    assert rows["copies"] == "6 rows show what others show; 3 images in all"
    particles.columns["rlnHelicalTubeID"] = ["1", "1", "1", "1", "2", "2"]
    rows = dict(inspect_file(particle_set.write()).rows)
    assert rows["helical segments"] == "of 3 tubes (rlnHelicalTubeID)"
